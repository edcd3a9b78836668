//! The log of one partition: frames in segments, with a bounded tail in memory.
//!
//! One mechanism, three settings: every append goes into the tail; `memory` writes the tail out when it passes its bound
//! and at a clean stop, `os` writes each frame before the append returns, `fsync` lets nobody see a record before it is
//! synced (the caller waits, see [`crate::broker`]'s group commit): all who wait share one write as well as one sync.
//!
//! Invariants (tests: `tests/log_model.rs`, and `tests/log_recovery.rs` for what survives)
//! - I1 Offsets rise: the base offset of a frame is the end of the frame before it plus its own `skipped`.
//! - I2 `synced_end <= end`; a record below `synced_end` survives a power cut.
//! - I3 A sealed segment never changes; whole segments are deleted, oldest first.
//! - I4 After a failed write or fsync every append fails with `log.poisoned` and the cause, until a reopen. A full disk
//!   is no such failure: what was written of the frame is cut off and the append can be repeated.
//! - I5 No offset is given twice: before an offset at or above the stored ceiling is given, the ceiling is raised.
//!
//! What of it can be trusted after a crash is the business of `recovery.rs`, what may be deleted that of `retention.rs`.
//!
//! A log is not thread-safe; its partition's lock guards it.

pub mod frame;
mod gaps;
mod near;
pub mod producers;
mod recovery;
mod retention;
pub mod segment;
mod spare;
pub mod state;
mod tail;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use self::frame::{Entries, Frame, Header};
use self::gaps::Gaps;
use self::producers::Producers;
use self::segment::{Reader, Segment};
use self::spare::Spares;
pub use self::state::LogId;
use self::state::{CEILING_STEP, State};
use self::tail::Tail;
use crate::disk::{Disk, File};
use crate::error::{Code, Error, Result, is_disk_full};

/// Reserved space that a sealed segment may keep.
const TRIMMED_BYTES: u64 = 1 << 20;

/// What a record survives once its append was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A clean stop.
    Memory,
    /// The death of the process.
    Os,
    /// A power cut.
    Fsync,
}

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// See [`Durability`].
    pub durability: Durability,
    /// Records kept in memory, at most, beside the newest frame.
    pub tail_records: u64,
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// Age of its first record at which a segment is closed, so that slow traffic ages, too; `i64::MAX`: none.
    pub segment_age_ns: i64,
    /// Size at which the log takes no more records, bytes, or drops its oldest segment.
    pub max_bytes: Option<u64>,
    /// Which of the two.
    pub drop_oldest: bool,
}

/// Which records may go.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Nothing at or above this offset goes: somebody still needs it.
    pub below: u64,
    /// What was appended before goes.
    pub appended_before_ns: i64,
    /// While the log is larger, its oldest segment goes.
    pub max_bytes: u64,
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The records have the offsets `base..base + count`.
    At {
        /// Offset of the first.
        base: u64,
    },
    /// The producer's sequence was stored before.
    Duplicate,
}

/// Files to sync so that everything below `end` is durable.
pub struct SyncPlan {
    files: Vec<Arc<dyn File>>,
    dirs: Vec<(Arc<dyn Disk>, PathBuf)>,
    end: u64,
}

impl SyncPlan {
    /// Adds a file that is to be synced along.
    pub fn add(&mut self, file: Arc<dyn File>) {
        self.files.push(file);
    }

    /// Adds a folder whose entries are to be synced along.
    pub fn add_dir(&mut self, disk: Arc<dyn Disk>, dir: PathBuf) {
        self.dirs.push((disk, dir));
    }

    /// Syncs; to be called without the partition's lock.
    pub fn run(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync()?;
        }
        self.dirs.iter().try_for_each(|(disk, dir)| disk.sync_dir(dir))
    }
}

/// One partition's log.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of one thing that it waits for a sync, or that one failed"
)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    label: String,
    options: LogOptions,
    state: State,
    segments: Vec<Segment>,
    tail: Tail,
    reader: Reader,
    producers: Producers,
    spares: Spares,
    gaps: Gaps,
    /// Offset that the next record gets.
    end: u64,
    /// Behind the last frame, written or not; `end` is above it after offsets were skipped.
    chain_end: u64,
    synced_end: u64,
    /// Rolled segments that were not synced yet.
    unsynced: Vec<Arc<dyn File>>,
    /// Segments that were deleted and still hold their space, see [`Log::take_removed`].
    removed: Vec<Segment>,
    active_unsynced: bool,
    dir_unsynced: bool,
    unsynced_bytes: u64,
    last_append_ns: i64,
    poisoned: Option<String>,
    /// See [`Log::is_doubted`].
    doubted: bool,
    /// A sync failed outside of a plan: a plan that ends well later may have been told nothing of it.
    sync_failed: bool,
    recovered_cut_bytes: u64,
    /// Records deleted, acked or not, because the topic drops the oldest.
    dropped_records: u64,
}

impl Log {
    /// Opens the log in `dir`, making it if there is none. `label` names it in messages, such as `telemetry/3`.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, label: String, new_id: LogId, options: LogOptions) -> Result<Log> {
        disk.create_dir_all(&dir).map_err(|err| Error::io("make the folder", &dir, &err))?;
        let state = if let Some(state) = State::load(&*disk, &dir)? {
            if state.ceiling == 0 {
                // Who made it may have died before its entry was on the disk.
                disk.sync_dir(&dir).map_err(|err| Error::io("sync", &dir, &err))?;
            }
            state
        } else {
            let state = State { log_id: new_id, ceiling: 0, begin: 0, end: 0, boot_id: disk.boot_id(), clean: true };
            state.store(&*disk, &dir)?;
            state
        };
        let producers = Producers::load(&*disk, &dir)?;
        let mut log = Log {
            disk,
            dir,
            label,
            options,
            state,
            segments: Vec::new(),
            tail: Tail::default(),
            reader: Reader::default(),
            producers,
            spares: Spares::default(),
            gaps: Gaps::default(),
            end: 0,
            chain_end: 0,
            synced_end: 0,
            unsynced: Vec::new(),
            removed: Vec::new(),
            active_unsynced: false,
            dir_unsynced: false,
            unsynced_bytes: 0,
            last_append_ns: 0,
            poisoned: None,
            doubted: false,
            sync_failed: false,
            recovered_cut_bytes: 0,
            dropped_records: 0,
        };
        if let Err(err) = log.recover() {
            // Whatever failed: the next opening must not believe that what it reads is on the disk.
            log.note_failed_sync();
            return Err(err);
        }
        Ok(log)
    }

    /// Which log this is.
    pub fn id(&self) -> LogId {
        self.state.log_id
    }

    /// How it names itself in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Offset of the oldest record kept.
    pub fn start(&self) -> u64 {
        let unwritten = || self.tail.unwritten().next().map(|frame| frame.header().base_offset);
        self.segments.first().map(Segment::base).or_else(unwritten).unwrap_or(self.end)
    }

    /// Offset that the next record gets.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many offsets of `range` hold no record: they were skipped after a crash, or acked before they were written.
    /// Damaged ones do not count: their records were lost, and whoever reads them is told.
    pub fn gap_offsets(&self, range: &Range<u64>) -> u64 {
        let ahead = self.end.min(range.end).saturating_sub(self.intact_end().max(range.start));
        self.gaps.count(&(range.start..range.end.min(self.chain_end))) + ahead
    }

    /// Behind the last frame, and behind the damage where the log ends with one: from here to `end` nothing ever was.
    fn intact_end(&self) -> u64 {
        let damage = self.segments.last().and_then(Segment::damage);
        damage.map_or(self.chain_end, |damage| damage.end.max(self.chain_end))
    }

    /// Behind the last record known to be on disk.
    pub fn synced_end(&self) -> u64 {
        self.synced_end
    }

    /// Behind the last record that is in a segment.
    pub fn written_end(&self) -> u64 {
        self.tail.unwritten().next().map_or(self.chain_end, |frame| frame.header().base_offset)
    }

    /// Behind the last record that consumers may see.
    pub fn visible_end(&self) -> u64 {
        match self.options.durability {
            Durability::Fsync => self.synced_end,
            Durability::Memory | Durability::Os => self.end,
        }
    }

    /// See [`Durability`].
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// Changes what can be changed while the log is open.
    pub fn configure(&mut self, options: LogOptions) -> Result<()> {
        if options.durability != Durability::Fsync {
            // What waits for a sync is seen from now on.
            self.write_out()?;
        }
        self.options = options;
        Ok(())
    }

    /// Bytes in segments, and in memory only.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum::<u64>() + self.tail.unwritten_bytes()
    }

    /// Bytes written since the last sync.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// Wall clock of the newest append; 0: none known.
    pub fn last_append_ns(&self) -> i64 {
        self.last_append_ns
    }

    /// Why nothing can be appended, if so.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Bytes that recovery cut off.
    pub fn recovered_cut_bytes(&self) -> u64 {
        self.recovered_cut_bytes
    }

    /// Records that were dropped, acked or not, to keep the log under its bound.
    pub fn dropped_records(&self) -> u64 {
        self.dropped_records
    }

    /// Producers that were forgotten before their time, to make room for others.
    pub fn forgotten_producers(&self) -> u64 {
        self.producers.forgotten()
    }

    /// Refuses a producer that the log does not know while it knows as many as it can.
    pub fn admit_producer(&mut self, id: u64, now_ns: i64) -> Result<()> {
        if self.producers.admit(id, now_ns) {
            return Ok(());
        }
        Err(Error::new(
            Code::LogFull,
            format!(
                "{} knows {} named producers, which is the most, and each was heard of in the last {} minutes; use fewer names, or \
                 wait until some are idle",
                self.label,
                producers::MAX_PRODUCERS,
                producers::IDLE_NS / 60_000_000_000
            ),
        )
        .retry_after_ms(10_000))
    }

    /// How far the log has a named producer's batches; 0: not at all.
    pub fn producer_sequence(&mut self, name: &str) -> u64 {
        self.producers.name(name);
        self.producers.sequence(producers::producer_id(name))
    }

    /// Stops all appends: something failed that may have lost bytes.
    pub fn poison(&mut self, cause: &str) -> Error {
        let cause = self.poisoned.get_or_insert_with(|| cause.to_owned());
        Error::new(
            Code::LogPoisoned,
            format!(
                "{} takes no more records: {cause}; what was answered before is kept; see to the disk, then restart the broker",
                self.label
            ),
        )
    }

    /// Appends a batch. Under `fsync` the caller must wait for a sync before it answers.
    ///
    /// Nothing is appended when this fails. `producer` is the id of a name and a sequence of at least 1.
    pub fn append(
        &mut self,
        records: &[u8],
        count: u32,
        producer: Option<(u64, u64)>,
        now_ns: i64,
    ) -> Result<Appended> {
        self.append_entries(Entries::Borrowed(records), count, producer, now_ns)
    }

    /// As [`Log::append`]; a body is taken if it is appended, and left otherwise.
    pub fn append_entries(
        &mut self,
        mut entries: Entries<'_>,
        count: u32,
        producer: Option<(u64, u64)>,
        now_ns: i64,
    ) -> Result<Appended> {
        if let Some((id, sequence)) = producer
            && sequence <= self.producers.sequence(id)
        {
            return Ok(Appended::Duplicate);
        }
        if self.poisoned.is_some() {
            return Err(self.poison(""));
        }
        if let Some((id, _)) = producer {
            self.admit_producer(id, now_ns)?;
        }
        self.make_room(entries.bytes().len() as u64)?;
        let base = self.end;
        self.cover(base + u64::from(count))?;
        let (producer_id, sequence) = producer.unwrap_or_default();
        let header = Header {
            len: 0,
            crc: 0,
            base_offset: base,
            count,
            skipped: base - self.chain_end,
            // Append times never go back inside a log, so that it can be searched by time.
            append_ns: now_ns.max(self.last_append_ns),
            producer_id,
            sequence,
            synced_end: self.synced_end,
        };
        let written = self.options.durability != Durability::Memory && self.tail.is_written();
        let frame = entries.take(header, written);
        self.gaps.note(self.intact_end()..base);
        if written && let Err(err) = self.write(&frame) {
            entries.give_back(frame);
            return Err(err);
        }
        self.producers.note(frame.header());
        self.end = frame.header().end_offset();
        self.chain_end = self.end;
        self.last_append_ns = header.append_ns;
        self.tail.push(Arc::new(frame), written);
        self.tail.evict(self.options.tail_records);
        let snapshot_bytes = self.producers.snapshot_bytes();
        if self.spares.wants(snapshot_bytes) && !self.segments.is_empty() {
            self.spares.prepare(&*self.disk, &self.dir, snapshot_bytes);
        }
        Ok(Appended::At { base })
    }

    /// Whether the memory buffer has passed its bound, or must be written because the durability was changed.
    pub fn wants_flush(&self) -> bool {
        !self.tail.is_written()
            && (self.tail.is_unwritten_over(self.options.tail_records) || self.options.durability != Durability::Memory)
    }

    /// Writes what is in memory only, but not frames whose records all lie below `acked_below`: nobody needs them.
    pub fn flush(&mut self, acked_below: u64) -> Result<()> {
        while let Some(frame) = self.tail.first_unwritten() {
            let written_end = self.segments.last().map_or(self.chain_start(), Segment::end);
            let mut header = *frame.header();
            let unneeded = header.end_offset() <= acked_below && header.count > 0;
            header.skipped = header.base_offset - written_end.min(header.base_offset);
            if unneeded && header.producer_id == 0 {
                // The next frame written says that these offsets are skipped.
            } else if unneeded {
                // The producer's sequence must stay, its records need not.
                header.count = 0;
                self.write(&Frame::new(header, &[]))?;
                self.producers.note_emptied(&header);
            } else {
                self.write(&Frame::new(header, frame.records()))?;
            }
            self.tail.mark_written();
        }
        self.tail.evict(self.options.tail_records);
        Ok(())
    }

    /// Makes sure that the next life goes on at `end` at least, also where no frame tells of the offsets before it: what is
    /// acked in memory is not written, and only a `memory` log begins its lives at the ceiling.
    pub fn keep_end(&mut self) -> Result<()> {
        let state = State { begin: self.end, ..self.state.clone() };
        state.store(&*self.disk, &self.dir)?;
        self.state = state;
        Ok(())
    }

    /// Where the first segment begins when there is none yet.
    fn chain_start(&self) -> u64 {
        self.tail.unwritten().next().map_or(self.chain_end, |frame| frame.header().base_offset - frame.header().skipped)
    }

    /// Keeps invariant I5 for the offsets below `end`.
    fn cover(&mut self, end: u64) -> Result<()> {
        if end <= self.state.ceiling && !self.state.clean {
            return Ok(());
        }
        let mut state = State {
            clean: false,
            boot_id: self.disk.boot_id(),
            begin: self.end,
            end: self.state.end.max(self.synced_end),
            ..self.state.clone()
        };
        while state.ceiling < end {
            state.ceiling += CEILING_STEP;
        }
        state.store(&*self.disk, &self.dir)?;
        self.state = state;
        Ok(())
    }

    fn add_segment(&mut self, base: u64) -> io::Result<()> {
        let segment = Segment::create(&*self.disk, &self.dir, self.state.log_id, base)?;
        self.push_segment(segment);
        Ok(())
    }

    fn push_segment(&mut self, mut segment: Segment) {
        segment.expect(self.options.segment_bytes, self.segments.last().map_or(0, Segment::bytes));
        if let Some(full) = self.segments.last_mut() {
            // What stays reserved is lost until the segment is deleted, and nothing else is. A cut waits for the disk, so
            // that of one that is full it is not worth it.
            let _ = full.trim(TRIMMED_BYTES);
            if self.active_unsynced {
                self.unsynced.push(full.file().clone());
            }
        }
        self.segments.push(segment);
        (self.active_unsynced, self.dir_unsynced) = (true, true);
    }

    /// Whether a frame of so many bytes, appended then, goes into a new segment.
    fn wants_new(&self, frame_bytes: u64, append_ns: i64) -> bool {
        let Some(active) = self.segments.last() else { return true };
        let is_large = active.bytes() + frame_bytes > self.options.segment_bytes;
        let is_old = active
            .first_append_ns()
            .is_some_and(|first| append_ns.saturating_sub(first) >= self.options.segment_age_ns);
        // One without offsets would have the name of the next.
        active.damage().is_some() || active.end() > active.base() && (is_large || is_old)
    }

    fn write(&mut self, frame: &Frame) -> Result<()> {
        let header = frame.header();
        if self.wants_new(frame.bytes().len() as u64, header.append_ns) {
            self.write_out()?;
            let behind_damage = self.segments.last().is_some_and(|active| active.damage().is_some());
            let base = if behind_damage { header.base_offset } else { header.base_offset - header.skipped };
            if let Err(err) = self.add_segment(base) {
                return Err(self.write_failed(&err, true));
            }
        }
        let first_behind_damage = self.segments.last().is_some_and(|active| active.base() == header.base_offset);
        let rebased = (first_behind_damage && header.skipped > 0)
            .then(|| Frame::new(Header { skipped: 0, ..*header }, frame.records()));
        let frame = rebased.as_ref().unwrap_or(frame);
        let deferred = self.options.durability == Durability::Fsync;
        let outcome = self.segments.last_mut().map_or(Ok(()), |active| {
            // Nobody is answered before the sync, which writes what was deferred.
            if deferred { active.defer(frame) } else { active.write(frame) }
        });
        let Err(err) = outcome else {
            self.gaps.note(frame.header().skipped_range());
            self.active_unsynced = true;
            self.unsynced_bytes += frame.bytes().len() as u64;
            return Ok(());
        };
        // The cut must reach the disk with what it cuts, or a clean close leaves half a frame.
        self.active_unsynced = true;
        let undone = match self.segments.last_mut() {
            Some(active) => active.undo(),
            None => Ok(()),
        };
        Err(self.write_failed(&err, undone.is_ok()))
    }

    /// Writes the frames that `fsync` deferred; what failed once is not tried again.
    fn write_out(&mut self) -> Result<()> {
        if self.poisoned.is_some() && self.segments.last().is_some_and(Segment::has_deferred) {
            return Err(self.poison(""));
        }
        let outcome = self.segments.last_mut().map_or(Ok(()), Segment::write_out);
        outcome.map_err(|err| self.write_failed(&err, false))
    }

    fn write_failed(&mut self, err: &io::Error, undone: bool) -> Error {
        if is_disk_full(err) && undone {
            return Error::new(
                Code::LogFull,
                format!(
                    "{}: the disk is full ({err}); nothing was appended; make room or wait for retention",
                    self.label
                ),
            )
            .retry_after_ms(1000);
        }
        self.poison(&format!("a write failed: {err}"))
    }

    /// Writes what was deferred, and says what must be synced to make everything written durable.
    pub fn sync_plan(&mut self) -> Result<SyncPlan> {
        self.write_out()?;
        let mut files = std::mem::take(&mut self.unsynced);
        if let Some(active) = self.segments.last().filter(|_| self.active_unsynced) {
            files.push(active.file().clone());
        }
        let dirs = self.dir_unsynced.then(|| (self.disk.clone(), self.dir.clone())).into_iter().collect();
        (self.active_unsynced, self.dir_unsynced, self.unsynced_bytes) = (false, false, 0);
        Ok(SyncPlan { files, dirs, end: self.segments_end() })
    }

    /// Behind the last frame that is in a segment.
    fn segments_end(&self) -> u64 {
        let begin = |frame: &Arc<Frame>| frame.header().base_offset - frame.header().skipped;
        self.tail.unwritten().next().map_or(self.chain_end, begin)
    }

    /// Notes that a plan was carried out, or that it failed, which poisons the log.
    pub fn finish_sync(&mut self, plan: &SyncPlan, outcome: io::Result<()>) -> Result<()> {
        match outcome {
            Ok(()) if self.sync_failed => Err(self.poison("")),
            Ok(()) => {
                self.synced_end = self.synced_end.max(plan.end);
                Ok(())
            }
            Err(err) => {
                self.note_failed_sync();
                Err(self.poison(&format!("an fsync failed: {err}")))
            }
        }
    }

    /// The first frame with records at or above `offset`, which must be visible; None at the end. It may begin behind `offset`: a gap.
    pub fn frame_at(&mut self, offset: u64) -> Result<Option<Arc<Frame>>> {
        // Deleted records may still be in memory; they are gone all the same.
        let offset = offset.max(self.start());
        if self.tail.reaches(offset) {
            return Ok(self.tail.find(offset).cloned());
        }
        let from = self.segments.partition_point(|segment| segment.base() <= offset).saturating_sub(1);
        for segment in &self.segments[from.min(self.segments.len())..] {
            if let Some(frame) = segment.find(&mut self.reader, offset)? {
                return Ok(Some(frame));
            }
        }
        Ok(self.tail.find(offset).cloned())
    }

    /// The offset of the first record appended at or after `time_ns`; the end when there is none.
    pub fn offset_at(&mut self, time_ns: i64) -> Result<u64> {
        if self.poisoned.is_none() {
            self.write_out()?;
        }
        for segment in &self.segments {
            if let Some(offset) = segment.offset_at(&mut self.reader, time_ns)? {
                return Ok(offset);
            }
        }
        Ok(self.tail.unwritten_offset_at(time_ns).unwrap_or(self.end))
    }

    /// Makes the segments reach the end of the log, where offsets above the last frame were given or skipped.
    fn carry_end(&mut self) -> Result<()> {
        let written_end = self.segments.last().map_or(0, Segment::end);
        if written_end == self.end {
            return Ok(());
        }
        let header = Header {
            len: 0,
            crc: 0,
            base_offset: self.end,
            count: 0,
            skipped: self.end - written_end,
            append_ns: self.last_append_ns,
            producer_id: 0,
            sequence: 0,
            synced_end: self.synced_end.min(written_end),
        };
        self.write(&Frame::new(header, &[]))?;
        self.chain_end = self.end;
        Ok(())
    }

    /// Writes and syncs everything, and notes on disk that nothing is missing.
    pub fn close(&mut self, acked_below: u64) -> Result<()> {
        if self.state.clean {
            return Ok(());
        }
        if self.poisoned.is_some() {
            return Err(self.poison(""));
        }
        self.flush(acked_below)?;
        self.carry_end()?;
        let plan = self.sync_plan()?;
        if let Some(active) = self.segments.last_mut() {
            // As where a segment is sealed.
            let _ = active.trim(0);
        }
        let outcome = plan.run();
        self.finish_sync(&plan, outcome)?;
        let state = State { clean: true, end: self.end, ..self.state.clone() };
        state.store(&*self.disk, &self.dir)?;
        self.state = state;
        self.spares.remove(&*self.disk, &self.dir);
        Ok(())
    }
}
