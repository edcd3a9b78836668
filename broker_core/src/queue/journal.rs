//! The acks of one (partition, group) on disk.
//!
//! `groups/<group>.acks`: `magic "TBRKACK\0" | format u32 | crc32c u32 of the log id | log id [16]`, then entries of
//! [`ENTRY_BYTES`]: `crc32c u32 of the rest | kind u32 | start u64 | end u64`, little-endian. An `acked` entry adds a range,
//! a `reset` forgets everything and begins at `start`. A torn last entry is cut.
//!
//! Entries wait in memory until they are written, so an ack whose write failed is written with the next one. When dead
//! entries outweigh the live ones the file is rewritten as a reset and the acked ranges.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Acked;
use crate::disk::{Disk, File};
use crate::error::{Code, Error, Result, is_disk_full};
use crate::log::LogId;
use crate::log::state::FORMAT;

const MAGIC: &[u8; 8] = b"TBRKACK\0";
const HEADER_BYTES: u64 = 32;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 24;
/// Entries below which a journal is not worth rewriting.
const COMPACT_ENTRIES: u64 = 4096;

const ACKED: u32 = 1;
const RESET: u32 = 2;

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    pending: Vec<u8>,
    unsynced: bool,
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

fn put_entry(out: &mut Vec<u8>, kind: u32, range: &Range<u64>) {
    let mut entry = [0; ENTRY_BYTES];
    entry[4..8].copy_from_slice(&kind.to_le_bytes());
    entry[8..16].copy_from_slice(&range.start.to_le_bytes());
    entry[16..24].copy_from_slice(&range.end.to_le_bytes());
    let crc = crc32c::crc32c(&entry[4..]);
    entry[..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&entry);
}

fn parse_entry(entry: &[u8]) -> Option<(u32, Range<u64>)> {
    let entry: &[u8; ENTRY_BYTES] = entry.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let (kind, range) = (u32_at(4), u64_at(8)..u64_at(16));
    let sound = u32_at(0) == crc32c::crc32c(&entry[4..]) && (kind == RESET || kind == ACKED && range.start < range.end);
    sound.then_some((kind, range))
}

/// Ranges met so far, joined.
#[derive(Default)]
struct Ranges {
    floor: u64,
    above: BTreeMap<u64, u64>,
}

impl Ranges {
    fn add(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.above.range(..=range.end).next_back()
            && end >= range.start
        {
            self.above.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        if range.start <= self.floor {
            self.floor = self.floor.max(range.end);
        } else {
            self.above.insert(range.start, range.end);
        }
    }
}

impl Journal {
    /// Opens a group's journal, making it if there is none, and reads what is acked.
    ///
    /// A new one begins at `start`. So does one of another log, whose acks mean nothing here.
    pub fn open(disk: &dyn Disk, dir: &Path, group: &str, log_id: LogId, start: u64) -> Result<(Journal, Acked)> {
        let path = path(dir, group);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(Error::io("read", &path, &err)),
        };
        let format = bytes.get(8..12).map_or(0, |raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
        if bytes.starts_with(MAGIC) && format > FORMAT {
            return Err(Error::new(
                Code::DataFormat,
                format!(
                    "{} has format {format}, this version reads up to {FORMAT}; upgrade telemetry-broker",
                    path.display()
                ),
            ));
        }
        if !bytes.starts_with(&header(log_id)) {
            let acked = Acked { floor: start, ranges: Vec::new() };
            return Ok((Self::create(disk, path, log_id, &acked)?, acked));
        }
        let mut ranges = Ranges::default();
        let mut len = HEADER_BYTES;
        for entry in bytes[header(log_id).len()..].chunks(ENTRY_BYTES) {
            match parse_entry(entry) {
                Some((RESET, range)) => ranges = Ranges { floor: range.start, above: BTreeMap::new() },
                Some((_, range)) => ranges.add(range),
                None => break,
            }
            len += ENTRY_BYTES as u64;
        }
        let open = || -> io::Result<Arc<dyn File>> {
            let file = disk.open(&path)?;
            if len < bytes.len() as u64 {
                file.set_len(len)?;
            }
            Ok(file)
        };
        let file = open().map_err(|err| Error::io("open", &path, &err))?;
        let acked =
            Acked { floor: ranges.floor, ranges: ranges.above.into_iter().map(|(start, end)| start..end).collect() };
        Ok((Journal { path, file, len, pending: Vec::new(), unsynced: true }, acked))
    }

    fn create(disk: &dyn Disk, path: PathBuf, log_id: LogId, acked: &Acked) -> Result<Journal> {
        let mut bytes = header(log_id);
        put_entry(&mut bytes, RESET, &(acked.floor..0));
        for range in &acked.ranges {
            put_entry(&mut bytes, ACKED, range);
        }
        let replace = || -> io::Result<Arc<dyn File>> {
            if let Some(dir) = path.parent() {
                disk.create_dir_all(dir)?;
            }
            disk.replace(&path, &bytes)?;
            disk.open(&path)
        };
        let file = replace().map_err(|err| Error::io("write", &path, &err))?;
        Ok(Journal { path, file, len: bytes.len() as u64, pending: Vec::new(), unsynced: false })
    }

    /// Takes the journal of a deleted group away.
    pub fn remove(disk: &dyn Disk, dir: &Path, group: &str) -> Result<()> {
        let path = path(dir, group);
        match disk.remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, &err)),
            _ => Ok(()),
        }
    }

    /// Adds acked ranges, to be written by [`Journal::flush`].
    pub fn acked(&mut self, ranges: &[Range<u64>]) {
        for range in ranges {
            put_entry(&mut self.pending, ACKED, range);
        }
    }

    /// Adds a new beginning, to be written by [`Journal::flush`].
    pub fn reset(&mut self, offset: u64) {
        put_entry(&mut self.pending, RESET, &(offset..0));
    }

    /// Writes what was added. After an error it is still to be written.
    pub fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.file.write_at(self.len, &self.pending) {
            Ok(()) => {
                self.len += self.pending.len() as u64;
                self.pending.clear();
                self.unsynced = true;
                Ok(())
            }
            Err(err) if is_disk_full(&err) => {
                Err(Error::new(Code::LogFull, format!("{}: the disk is full ({err}); make room", self.path.display()))
                    .retry_after_ms(1000))
            }
            Err(err) => Err(Error::io("write", &self.path, &err)),
        }
    }

    /// Rewrites the file when most of its entries are dead.
    pub fn compact(&mut self, disk: &dyn Disk, log_id: LogId, acked: impl FnOnce() -> Acked) -> Result<()> {
        let entries = (self.len - HEADER_BYTES) / ENTRY_BYTES as u64;
        if entries < COMPACT_ENTRIES || !self.pending.is_empty() {
            return Ok(());
        }
        let acked = acked();
        if entries > 4 * (acked.ranges.len() as u64 + 1) {
            *self = Self::create(disk, self.path.clone(), log_id, &acked)?;
        }
        Ok(())
    }

    /// The file, if something was written since the last call.
    pub fn take_unsynced(&mut self) -> Option<Arc<dyn File>> {
        std::mem::take(&mut self.unsynced).then(|| self.file.clone())
    }
}
