//! What one group did in one partition, on disk: what it acked, and what it was given.
//!
//! `groups/<group>.acks`: `magic "TBRKACK\0" | format u32 | crc32c u32 of the log id | log id [16]`, then entries of
//! [`ENTRY_BYTES`]: `crc32c u32 of the rest | kind u16 | attempt u16 | start u64 | end u64 | grant u64`, little-endian.
//! `acked` takes a range out, `leased` says that a range was given for the `attempt`-th time under `grant`, `reset` forgets
//! everything and begins at `start`; leases with a grant below its own ended with it. A torn last entry is cut.
//!
//! Leases are written but never synced for their own sake: they are there so that a record which kills its consumer, and
//! an embedded broker with it, is counted. Entries wait in memory until they are written, so an ack whose write failed
//! is written with the next one. Space is reserved ahead ([`RESERVE_BYTES`]), so that acks go on when the disk is full.
//! When dead entries outweigh the live ones the file is rewritten.
//!
//! Invariants (tests: `tests/regressions.rs`)
//! - J1 Entries go into the file that has the journal's name: a rewrite keeps the handle that it wrote, and does not look
//!   the name up again.
//! - J2 Where a sync of the file or of its name failed, or it is not sure which file has the name, the journal is suspect:
//!   nothing counts as written until a new file, written as a whole from what the group knows, has taken its place. A
//!   sync that failed is never repeated as if nothing had happened.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Given, Progress};
use crate::disk::{Disk, File};
use crate::error::{Code, Error, Result, is_disk_full};
use crate::log::LogId;
use crate::log::state::FORMAT;

const MAGIC: &[u8; 8] = b"TBRKACK\0";
const HEADER_BYTES: u64 = 32;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 32;
/// Entries below which a journal is not worth rewriting, unless told otherwise: half a MiB. A rewrite syncs, and its
/// partition waits for that.
pub const COMPACT_ENTRIES: u64 = 16_384;
/// Bytes that wait in memory, at least, before they are boiled down to what is still true.
const MIN_PENDING_BYTES: usize = 64 << 10;
/// Space kept ahead of the last entry: enough to lease and ack 4,000 batches on a full disk.
const RESERVE_BYTES: u64 = 256 << 10;

const ACKED: u16 = 1;
const RESET: u16 = 2;
const LEASED: u16 = 3;

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    /// Bytes of the file for which space is sure.
    reserved: u64,
    pending: Vec<u8>,
    /// Bytes of `pending` at which it is boiled down next: twice what was left of it the last time.
    pending_bound: usize,
    unsynced: bool,
    /// See J2: what failed.
    suspect: Option<Error>,
    /// Entries below which it is not worth rewriting.
    compact_from: u64,
    /// Entries at which a rewrite is thought of next.
    compact_at: u64,
    /// Bytes that could not be read when it was opened.
    bad_bytes: u64,
}

fn path(dir: &Path, group: &str) -> PathBuf {
    dir.join(format!("{group}.acks"))
}

fn header(log_id: LogId) -> Vec<u8> {
    let mut header = Vec::with_capacity(32);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&log_id.0).to_le_bytes());
    header.extend_from_slice(&log_id.0);
    header
}

/// One entry, as it stands in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: u16,
    attempt: u16,
    range: Range<u64>,
    grant: u64,
}

impl Entry {
    fn acked(range: &Range<u64>) -> Entry {
        Entry { kind: ACKED, attempt: 0, range: range.clone(), grant: 0 }
    }

    fn reset(offset: u64, seek_grant: u64) -> Entry {
        Entry { kind: RESET, attempt: 0, range: offset..0, grant: seek_grant }
    }

    fn leased(given: &Given) -> Entry {
        let attempt = u16::try_from(given.attempt).unwrap_or(u16::MAX);
        Entry { kind: LEASED, attempt, range: given.range.clone(), grant: given.grant }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.range.start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.range.end.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.grant.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&bytes);
    }

    fn parse(bytes: &[u8]) -> Option<Entry> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let crc = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let entry = Entry { kind: u16_at(4), attempt: u16_at(6), range: u64_at(8)..u64_at(16), grant: u64_at(24) };
        let sound = match entry.kind {
            RESET => true,
            ACKED => entry.range.start < entry.range.end,
            LEASED => entry.range.start < entry.range.end && entry.attempt > 0,
            _ => false,
        };
        (sound && crc == crc32c::crc32c(&bytes[4..])).then_some(entry)
    }
}

/// What a journal's bytes are, told without opening it.
pub(crate) enum Survey {
    /// A journal of a format to come.
    Newer {
        /// That one.
        format: u32,
    },
    /// A journal of another log.
    OtherLog,
    /// Neither a header nor an entry.
    Unreadable,
    /// A journal of this log.
    Entries {
        /// A sound journal of the entries that are sound.
        sound: Vec<u8>,
        /// Bytes of the others, and of a damaged header; joined where they touch.
        bad: Vec<Range<u64>>,
    },
}

/// Looks at every entry of a journal of the log `log_id`.
pub(crate) fn survey(bytes: &[u8], log_id: LogId) -> Survey {
    let mut sound = header(log_id);
    let head = bytes.get(..sound.len()).unwrap_or_default();
    let u32_at = |at: usize| head.get(at..at + 4).map_or(0, |raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
    if head.starts_with(MAGIC) && u32_at(8) > FORMAT {
        return Survey::Newer { format: u32_at(8) };
    }
    let head_is_sound = head == sound;
    if !head_is_sound && head.starts_with(MAGIC) && crc32c::crc32c(&head[16..]) == u32_at(12) {
        return Survey::OtherLog;
    }
    let mut bad: Vec<Range<u64>> = Vec::new();
    if !head_is_sound {
        bad.push(0..HEADER_BYTES.min(bytes.len() as u64));
    }
    let mut position = HEADER_BYTES;
    for entry in bytes.get(sound.len()..).unwrap_or_default().chunks(ENTRY_BYTES) {
        let end = position + entry.len() as u64;
        if Entry::parse(entry).is_some() {
            sound.extend_from_slice(entry);
        } else if let Some(last) = bad.last_mut().filter(|last| last.end == position) {
            last.end = end;
        } else {
            bad.push(position..end);
        }
        position = end;
    }
    if !head_is_sound && sound.len() as u64 == HEADER_BYTES {
        return Survey::Unreadable;
    }
    Survey::Entries { sound, bad }
}

/// What the entries so far add up to.
struct Replay {
    floor: u64,
    /// Behind the last offset that any entry spoke of.
    next: u64,
    seek_grant: u64,
    /// Given and not acked, by first offset; never given where `attempt` is 0. Disjoint, above the floor, below `next`.
    open: BTreeMap<u64, Given>,
}

impl Replay {
    fn new(floor: u64, seek_grant: u64) -> Self {
        Self { floor, next: floor, seek_grant, open: BTreeMap::new() }
    }

    /// Makes everything below `end` known, as never given.
    fn reach(&mut self, end: u64) {
        if self.next < end {
            self.open.insert(self.next, Given { range: self.next..end, attempt: 0, grant: 0 });
            self.next = end;
        }
    }

    /// Takes the open parts of `range` out and returns them, joined where they touch.
    fn take(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.open.range(..range.start).next_back().filter(|(_, given)| given.range.end > range.start);
        let from = first.map_or(range.start, |(&start, _)| start);
        let touched: Vec<u64> = self.open.range(from..range.end.max(from)).map(|(&start, _)| start).collect();
        let mut taken = Vec::new();
        for start in touched {
            let Some(given) = self.open.remove(&start) else { continue };
            super::push_range(&mut taken, super::intersect(&given.range, range));
            if given.range.start < range.start {
                let before = given.range.start..range.start;
                self.open.insert(before.start, Given { range: before, ..given.clone() });
            }
            if range.end < given.range.end {
                let behind = range.end..given.range.end;
                self.open.insert(behind.start, Given { range: behind, ..given });
            }
        }
        taken
    }

    fn apply(&mut self, entry: &Entry) {
        let range = entry.range.start.max(self.floor)..entry.range.end.max(self.floor);
        match entry.kind {
            RESET => *self = Self::new(entry.range.start, entry.grant),
            _ if range.is_empty() => {}
            ACKED => {
                self.reach(range.end);
                self.take(&range);
                self.floor = self.open.first_key_value().map_or(self.next, |(&start, _)| start);
            }
            _ => {
                self.reach(range.end);
                // Only what is still open can have been given: an entry behind an ack is out of date.
                for part in self.take(&range) {
                    let given = Given { range: part, attempt: entry.attempt.into(), grant: entry.grant };
                    self.open.insert(given.range.start, given);
                }
            }
        }
    }

    fn finish(self) -> Progress {
        let open = self.open.into_values().collect();
        Progress { floor: self.floor, next: self.next, open, seek_grant: self.seek_grant }
    }
}

fn put_progress(out: &mut Vec<u8>, progress: &Progress) {
    Entry::reset(progress.floor, progress.seek_grant).put(out);
    let mut at = progress.floor;
    for given in &progress.open {
        if at < given.range.start {
            Entry::acked(&(at..given.range.start)).put(out);
        }
        if given.attempt > 0 {
            Entry::leased(given).put(out);
        }
        at = given.range.end;
    }
    if at < progress.next {
        Entry::acked(&(at..progress.next)).put(out);
    }
}

impl Journal {
    /// Opens a group's journal, making it if there is none, and reads how far the group is.
    ///
    /// A new one begins at `start`. So does one of another log, whose acks mean nothing here. An entry that cannot be read
    /// is passed over and counted, see [`Journal::bad_bytes`]: if it was an ack, its records are given out again.
    pub fn open(disk: &dyn Disk, dir: &Path, group: &str, log_id: LogId, start: u64) -> Result<(Journal, Progress)> {
        let path = path(dir, group);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(Error::io("read", &path, &err)),
        };
        match survey(&bytes, log_id) {
            Survey::Newer { format } => Err(Error::new(
                Code::DataFormat,
                format!(
                    "{} has format {format}, this version reads up to {FORMAT}; upgrade telemetry-broker",
                    path.display()
                ),
            )),
            Survey::OtherLog => {
                let progress = Progress::at(start);
                Ok((Self::create(disk, path, log_id, &progress, 0)?, progress))
            }
            Survey::Unreadable => {
                let progress = Progress::at(start);
                Ok((Self::create(disk, path, log_id, &progress, bytes.len() as u64)?, progress))
            }
            Survey::Entries { sound, bad } => {
                let progress = Self::replay(&sound);
                let bad_bytes = bad.iter().map(|range| range.end - range.start).sum();
                if bad.first().is_some_and(|range| range.start == 0) {
                    // Without its header the file would belong to no log at the next start.
                    return Ok((Self::create(disk, path, log_id, &progress, bad_bytes)?, progress));
                }
                let whole = bytes.len() as u64;
                let torn = bad.last().filter(|range| range.end == whole);
                let len = torn.map_or(whole, |range| range.start);
                let open = || -> io::Result<Arc<dyn File>> {
                    let file = disk.open(&path)?;
                    if len < whole {
                        file.set_len(len)?;
                    }
                    Ok(file)
                };
                let file = open().map_err(|err| Error::io("open", &path, &err))?;
                Ok((Self::on(path, file, len, bad_bytes, true), progress))
            }
        }
    }

    /// How far the entries of a sound journal bring a group.
    fn replay(sound: &[u8]) -> Progress {
        let mut replay = Replay::new(0, 0);
        let entries = sound.chunks(ENTRY_BYTES).skip(1).filter_map(Entry::parse);
        entries.for_each(|entry| replay.apply(&entry));
        replay.finish()
    }

    fn on(path: PathBuf, file: Arc<dyn File>, len: u64, bad_bytes: u64, unsynced: bool) -> Journal {
        let mut journal = Journal {
            path,
            file,
            len,
            reserved: 0,
            pending: Vec::new(),
            pending_bound: MIN_PENDING_BYTES,
            unsynced,
            suspect: None,
            compact_from: COMPACT_ENTRIES,
            compact_at: COMPACT_ENTRIES,
            bad_bytes,
        };
        journal.reserve();
        journal
    }

    fn create(disk: &dyn Disk, path: PathBuf, log_id: LogId, progress: &Progress, bad_bytes: u64) -> Result<Journal> {
        let bytes = Self::whole(log_id, progress);
        let replace = || -> io::Result<Arc<dyn File>> {
            if let Some(dir) = path.parent() {
                disk.create_dir(dir)?;
                if let Some(above) = dir.parent() {
                    disk.sync_dir(above)?;
                }
            }
            let (aside, file) = disk.write_aside(&path, &bytes)?;
            disk.rename(&aside, &path)?;
            path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
            Ok(file)
        };
        let file = replace().map_err(|err| Error::io("write", &path, &err))?;
        Ok(Self::on(path, file, bytes.len() as u64, bad_bytes, false))
    }

    /// A journal that says just `progress`.
    fn whole(log_id: LogId, progress: &Progress) -> Vec<u8> {
        let mut bytes = header(log_id);
        put_progress(&mut bytes, progress);
        bytes
    }

    /// Puts a new file in the place of this one. Where that fails before the new one may have the name, nothing changes.
    fn rewrite(&mut self, disk: &dyn Disk, log_id: LogId, progress: &Progress) -> Result<()> {
        let bytes = Self::whole(log_id, progress);
        let written = disk.write_aside(&self.path, &bytes);
        let (aside, file) = written.map_err(|err| Error::io("write", &self.path, &err))?;
        if let Err(err) = disk.rename(&aside, &self.path) {
            let failed = Error::io("rename a file to", &self.path, &err);
            // A full disk refuses; of anything else it is not sure that it was not done.
            if !is_disk_full(&err) {
                self.suspect = Some(failed.clone());
            }
            return Err(failed);
        }
        let compact_from = self.compact_from;
        *self = Self::on(std::mem::take(&mut self.path), file, bytes.len() as u64, self.bad_bytes, false);
        self.compact_from(compact_from);
        let synced = self.path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir));
        self.suspect = synced.err().map(|err| Error::io("sync the folder of", &self.path, &err));
        self.check()
    }

    /// Says how many entries a journal may have before a rewrite is thought of; [`COMPACT_ENTRIES`] where nobody says.
    pub fn compact_from(&mut self, entries: u64) {
        (self.compact_from, self.compact_at) = (entries, entries);
    }

    /// Has the next write replace the file, since what it holds may be in memory only.
    pub fn distrust(&mut self, why: Error) {
        self.suspect = Some(why);
    }

    /// Fails while it is not sure that what was written stays, see J2.
    pub fn check(&self) -> Result<()> {
        self.suspect.clone().map_or(Ok(()), Err)
    }

    /// Keeps space ahead. Without room now it is tried again with the next entry, while what is reserved is used up.
    fn reserve(&mut self) {
        let wanted = self.len + RESERVE_BYTES;
        if self.reserved < self.len + RESERVE_BYTES / 2 && self.file.reserve(wanted).is_ok() {
            self.reserved = wanted;
        }
    }

    /// Takes the journal of a deleted group away.
    pub fn remove(disk: &dyn Disk, dir: &Path, group: &str) -> Result<()> {
        let path = path(dir, group);
        match disk.remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, &err)),
            _ => Ok(()),
        }
    }

    /// Bytes that could not be read when it was opened: an entry torn by a crash, or damage. What they said is lost.
    pub fn bad_bytes(&self) -> u64 {
        self.bad_bytes
    }

    /// Adds acked ranges, to be written by [`Journal::flush`].
    pub fn acked(&mut self, ranges: &[Range<u64>]) {
        for range in ranges {
            Entry::acked(range).put(&mut self.pending);
        }
    }

    /// Adds a lease, to be written by [`Journal::flush`].
    pub fn leased(&mut self, given: &Given) {
        Entry::leased(given).put(&mut self.pending);
    }

    /// Adds a new beginning, to be written by [`Journal::flush`].
    ///
    /// Leases with a grant below `seek_grant` ended with it.
    pub fn reset(&mut self, offset: u64, seek_grant: u64) {
        Entry::reset(offset, seek_grant).put(&mut self.pending);
    }

    /// Keeps what waits in memory bounded: it is boiled down to how far the group is.
    pub fn bound_pending(&mut self, progress: impl FnOnce() -> Progress) {
        if self.pending.len() > self.pending_bound {
            self.pending.clear();
            put_progress(&mut self.pending, &progress());
            // What is left may itself be large: boiled down at each doubling, an entry costs the same however much it is.
            self.pending_bound = MIN_PENDING_BYTES.max(2 * self.pending.len());
        }
    }

    /// Writes what was added, and keeps the file small and sure. After an error it is still to be written.
    pub fn write(&mut self, disk: &dyn Disk, log_id: LogId, progress: impl FnOnce() -> Progress) -> Result<()> {
        if self.suspect.is_some() {
            return self.rewrite(disk, log_id, &progress());
        }
        self.flush()?;
        self.compact(disk, log_id, progress)
    }

    /// Writes what was added and nothing else.
    pub fn flush(&mut self) -> Result<()> {
        self.check()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.file.write_at(self.len, &self.pending) {
            Ok(()) => {
                self.len += self.pending.len() as u64;
                self.pending.clear();
                self.pending_bound = MIN_PENDING_BYTES;
                self.unsynced = true;
                self.reserve();
                Ok(())
            }
            Err(err) => Err(Error::io("write", &self.path, &err)),
        }
    }

    /// Rewrites the file when most of its entries are dead.
    fn compact(&mut self, disk: &dyn Disk, log_id: LogId, progress: impl FnOnce() -> Progress) -> Result<()> {
        let entries = (self.len - HEADER_BYTES) / ENTRY_BYTES as u64;
        if entries < self.compact_at {
            return Ok(());
        }
        self.compact_at = 2 * entries;
        let progress = progress();
        if entries <= 4 * (progress.open.len() as u64 + 1) {
            return Ok(());
        }
        match self.rewrite(disk, log_id, &progress) {
            Err(err) if self.suspect.is_some() => Err(err),
            // No reason to refuse an ack that is written: the old file serves on.
            _ => Ok(()),
        }
    }

    /// Writes and syncs everything; what failed is written anew by the next call.
    pub fn close(&mut self, disk: &dyn Disk, log_id: LogId, progress: impl FnOnce() -> Progress) -> Result<()> {
        self.write(disk, log_id, progress)?;
        let Some(file) = self.take_unsynced() else { return Ok(()) };
        self.suspect = file.sync().err().map(|err| Error::io("sync", &self.path, &err));
        self.check()
    }

    /// The file, if something was written since the last call.
    pub fn take_unsynced(&mut self) -> Option<Arc<dyn File>> {
        std::mem::take(&mut self.unsynced).then(|| self.file.clone())
    }
}
