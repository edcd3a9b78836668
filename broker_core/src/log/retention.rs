//! What may be deleted of a log: whole segments, oldest first.
//!
//! Invariants
//! - D1 The segments reach the end of the log whatever is deleted: before the last one goes, another begins at the end.
//! - D2 A producer's sequence is never forgotten with its frames: before they go, it is in a synced frame that stays, or in
//!   the snapshot. The snapshot has sequences of synced frames only, else a power cut would leave a sequence whose
//!   records are gone. (A `memory` log promises nothing after a crash, and does not sync.)
//! - D3 Nothing here needs room that was not kept ahead, see [`super::spare`]: a full disk is freed by deleting.

use std::sync::Arc;

use super::frame;
use super::segment::{self, Reader, Segment};
use super::{Durability, Log, Retention};
use crate::error::{Code, Error, Result, is_disk_full};

impl Log {
    /// Keeps the bound of the log when a batch of so many bytes comes.
    pub(super) fn make_room(&mut self, batch_bytes: u64) -> Result<()> {
        let Some(max) = self.options.max_bytes else { return Ok(()) };
        let frame_bytes = batch_bytes + frame::HEADER_BYTES as u64;
        let most = max.saturating_sub(segment::HEADER_BYTES);
        if frame_bytes > most {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "{} may have {max} bytes (max_partition_bytes), so a batch of {batch_bytes} never fits; nothing was appended; \
                     send smaller batches, or raise the bound",
                    self.label
                ),
            ));
        }
        if self.bytes() + frame_bytes <= max {
            return Ok(());
        }
        if !self.options.drop_oldest {
            return Err(Error::new(
                Code::LogFull,
                format!(
                    "{} has {} bytes and may have {max} (max_partition_bytes); nothing was appended; ack or drop records, or raise \
                     the bound",
                    self.label,
                    self.bytes()
                ),
            )
            .retry_after_ms(1000));
        }
        while self.bytes() + frame_bytes > max {
            match &self.segments[..] {
                [oldest, next, ..] => {
                    let (range, until) = (oldest.base()..oldest.end(), next.base());
                    self.keep_sequences(until)?;
                    let records = range.end - range.start - self.gaps.count(&range);
                    self.remove_oldest()?;
                    // The batch may need that very space.
                    self.removed.clear();
                    self.dropped_records += records;
                }
                // Only what is in a segment can be dropped.
                _ if !self.tail.is_written() => self.flush(0)?,
                [only] if only.end() > only.base() || only.damage().is_some() => self.roll()?,
                // Nothing but sequences, which stay.
                _ => break,
            }
        }
        Ok(())
    }

    /// Deletes whole segments, oldest first, as far as `rule` lets them go. Returns how many.
    pub fn retain(&mut self, rule: &Retention) -> Result<u64> {
        let is_old = |segment: &Segment| segment.last_append_ns() < rule.appended_before_ns;
        let is_due = |active: &Segment| is_old(active) || self.segments.len() == 1 && self.bytes() > rule.max_bytes;
        let last_goes = self.last_may_go(rule.below) && self.segments.last().is_some_and(is_due);
        // Where it cannot, the others can.
        let rolled = if last_goes { self.roll() } else { Ok(()) };
        let (mut doomed, mut bytes) = (0, self.bytes());
        while let [oldest, next, ..] = &self.segments[doomed..]
            && next.base() <= rule.below
            && (is_old(oldest) || bytes > rule.max_bytes)
        {
            bytes -= oldest.bytes();
            doomed += 1;
        }
        self.remove(doomed)?;
        rolled.map(|()| doomed as u64)
    }

    /// When the newest record of the oldest segment was appended, where all of it lies below `below`.
    pub fn oldest_below(&self, below: u64) -> Option<i64> {
        let goes = match &self.segments[..] {
            [] => false,
            [_] => self.last_may_go(below),
            [_, next, ..] => next.base() <= below,
        };
        self.segments.first().filter(|_| goes).map(Segment::last_append_ns)
    }

    /// Deletes the oldest segment, where all of it lies below `below`. Returns whether it does.
    pub fn remove_oldest_below(&mut self, below: u64) -> Result<bool> {
        if self.oldest_below(below).is_none() {
            return Ok(false);
        }
        if self.segments.len() == 1 {
            self.roll()?;
        }
        self.remove(1)?;
        Ok(true)
    }

    /// Whether the last segment has records, none at or above `below`.
    fn last_may_go(&self, below: u64) -> bool {
        let has_offsets = self.segments.last().is_some_and(|active| active.end() > active.base());
        has_offsets && self.tail.is_written() && self.end <= below
    }

    /// Deletes the first `count` segments, and makes sure of room for the next time.
    fn remove(&mut self, count: usize) -> Result<()> {
        let Some(first_kept) = self.segments.get(count).filter(|_| count > 0) else { return Ok(()) };
        self.keep_sequences(first_kept.base())?;
        for _ in 0..count {
            self.remove_oldest()?;
        }
        self.disk.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))?;
        self.spares.prepare(&*self.disk, &self.dir, self.producers.snapshot_bytes());
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<()> {
        let path = self.segments[0].path();
        self.disk.remove_file(path).map_err(|err| Error::io("remove", path, &err))?;
        let gone = self.segments.remove(0);
        // A file that is open takes room even without a name.
        self.unsynced.retain(|file| !Arc::ptr_eq(file, gone.file()));
        self.gaps.forget_below(self.start());
        self.removed.push(gone);
        Ok(())
    }

    /// The segments that were deleted since the last time. Their space comes back when they are dropped, which takes tens of
    /// milliseconds and belongs where nobody waits for the log.
    pub fn take_removed(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.removed)
    }

    /// Keeps D2 for the frames below `until`, which are about to go.
    fn keep_sequences(&mut self, until: u64) -> Result<()> {
        if !self.producers.need_store(until, self.synced_end) {
            return Ok(());
        }
        if self.poisoned.is_some() {
            return Err(self.poison(""));
        }
        if self.options.durability != Durability::Memory {
            self.sync_now()?;
        }
        self.producers.store(&*self.disk, &self.dir, &mut self.spares)
    }

    /// Syncs everything that is written, whether or not a plan has taken it.
    fn sync_now(&mut self) -> Result<()> {
        self.write_out()?;
        let mut unsynced = self.segments.iter().filter(|segment| segment.end() >= self.synced_end);
        let files = unsynced.try_for_each(|segment| segment.file().sync());
        if let Err(err) = files.and_then(|()| self.disk.sync_dir(&self.dir)) {
            self.sync_failed = true;
            self.note_failed_sync();
            return Err(self.poison(&format!("an fsync failed: {err}")));
        }
        self.synced_end = self.synced_end.max(self.segments_end());
        Ok(())
    }

    /// Begins a segment at the end of the log, so that the others can go; everything must be written.
    fn roll(&mut self) -> Result<()> {
        if self.poisoned.is_some() {
            // Half a frame may stand at the end of the last segment, and must stay where recovery looks for it.
            return Err(self.poison(""));
        }
        let base = self.end;
        self.cover(base)?;
        self.carry_end()?;
        self.write_out()?;
        if self.segments.last().is_some_and(|active| active.base() >= base) {
            return Ok(());
        }
        let added = match self.add_segment(base) {
            Err(err) if is_disk_full(&err) => {
                match self.spares.segment(&*self.disk, &self.dir, self.state.log_id, base) {
                    Some(spare) => spare.map(|segment| self.push_segment(segment)),
                    None => Err(err),
                }
            }
            other => other,
        };
        added.map_err(|err| Error::io("make a segment in", &self.dir, &err))
    }

    /// Forgets named producers that have sent nothing since. Returns how many.
    pub fn expire_producers(&mut self, before_ns: i64) -> usize {
        self.producers.expire(before_ns)
    }

    /// Deletes all records; offsets go on.
    pub fn purge(&mut self) -> Result<()> {
        if self.poisoned.is_some() {
            return Err(self.poison(""));
        }
        self.cover(self.end)?;
        self.keep_sequences(self.end)?;
        // What is in memory only goes, too.
        self.tail.clear();
        self.reader = Reader::default();
        // The new segment comes first: its name keeps the end of the log whatever happens to the others.
        self.roll()?;
        while self.segments.len() > 1 {
            self.remove_oldest()?;
        }
        self.disk.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))
    }
}
