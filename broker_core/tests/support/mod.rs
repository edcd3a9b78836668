//! What several test files need: records, a disk that can reboot and run full, and reading a log to its end.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod soak;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker_core::disk::{Disk, File, MemoryDisk};
use broker_core::error::Result;
use broker_core::log::{Durability, Log, LogId, LogOptions};
use broker_core::wire::record::put_record;
use broker_core::wire::{RecordView, record_entries};

/// Entries of records with these values.
pub fn entries(values: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        put_record(&mut bytes, &value.to_le_bytes(), None, 0, &[]).unwrap();
    }
    bytes
}

/// Offsets and values of all records from `from` on.
pub fn read_all(log: &mut Log, from: u64) -> Result<Vec<(u64, u64)>> {
    let (mut at, mut records) = (from, Vec::new());
    while let Some(frame) = log.frame_at(at)? {
        let (base, end) = (frame.header().base_offset, frame.header().end_offset());
        for (offset, entry) in (at.max(base)..).zip(record_entries(frame.entries(at.max(base), end))) {
            records.push((offset, u64::from_le_bytes(RecordView::of(entry.record).value.try_into().unwrap())));
        }
        at = end;
    }
    Ok(records)
}

pub fn options(durability: Durability) -> LogOptions {
    LogOptions {
        durability,
        tail_records: 20,
        segment_bytes: 2000,
        segment_age_ns: i64::MAX,
        max_bytes: None,
        drop_oldest: false,
    }
}

pub const ID: LogId = LogId([7; 16]);

pub fn open(disk: &Arc<dyn Disk>, options: LogOptions) -> Result<Log> {
    Log::open(disk.clone(), PathBuf::from("/log"), "test/0".into(), ID, options)
}

/// Segment files of the log, in order.
pub fn segments(disk: &dyn Disk) -> Vec<PathBuf> {
    let names = disk.list(Path::new("/log")).unwrap();
    names.into_iter().filter(|name| name.ends_with(".log")).map(|name| Path::new("/log").join(name)).collect()
}

/// A disk in memory whose system can reboot, and which can run full or fail its syncs.
#[derive(Default)]
pub struct TestDisk {
    disk: MemoryDisk,
    boots: AtomicU64,
    /// Bytes that can still be written; counted only while `limited`.
    room: Arc<AtomicU64>,
    limited: Arc<AtomicBool>,
    syncs_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
    reserves_nothing: Arc<AtomicBool>,
}

impl TestDisk {
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
    }

    pub fn leave_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
        self.limited.store(true, Ordering::SeqCst);
    }

    /// Bytes that can still be written, while that is limited.
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::SeqCst)
    }

    pub fn make_room(&self) {
        self.limited.store(false, Ordering::SeqCst);
    }

    /// As a file system that cannot: every write takes its room when it is made.
    pub fn refuse_to_reserve(&self) {
        self.reserves_nothing.store(true, Ordering::SeqCst);
    }

    pub fn fail_writes(&self, fail: bool) {
        self.writes_fail.store(fail, Ordering::SeqCst);
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.syncs_fail.store(fail, Ordering::SeqCst);
    }

    /// Room that the file at `path` takes.
    fn bytes(&self, path: &Path) -> u64 {
        self.disk.open(path).and_then(|file| file.len()).unwrap_or(0)
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        let (room, limited, syncs_fail) = (self.room.clone(), self.limited.clone(), self.syncs_fail.clone());
        let (writes_fail, reserves_nothing) = (self.writes_fail.clone(), self.reserves_nothing.clone());
        Arc::new(TestFile {
            file,
            room,
            limited,
            syncs_fail,
            writes_fail,
            reserves_nothing,
            reserved: AtomicU64::new(0),
        })
    }
}

struct TestFile {
    file: Arc<dyn File>,
    room: Arc<AtomicU64>,
    limited: Arc<AtomicBool>,
    syncs_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
    reserves_nothing: Arc<AtomicBool>,
    /// Bytes of the file that take no more room.
    reserved: AtomicU64,
}

impl TestFile {
    /// Takes up to `wanted` bytes of the room there is.
    fn take_room(&self, wanted: u64) -> u64 {
        let taken = self.room.load(Ordering::SeqCst).min(wanted);
        self.room.fetch_sub(taken, Ordering::SeqCst);
        taken
    }
}

impl File for TestFile {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, buf)
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        if self.writes_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: a write failed"));
        }
        if !self.limited.load(Ordering::SeqCst) {
            return self.file.write_at(position, bytes);
        }
        let own = self.reserved.load(Ordering::SeqCst).max(self.file.len()?);
        let free = own.saturating_sub(position).min(bytes.len() as u64);
        let written = free + self.take_room(bytes.len() as u64 - free);
        self.file.write_at(position, &bytes[..written as usize])?;
        if written < bytes.len() as u64 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
    fn reserve(&self, len: u64) -> io::Result<bool> {
        if self.reserves_nothing.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let more = len.saturating_sub(self.reserved.load(Ordering::SeqCst).max(self.file.len()?));
        if self.limited.load(Ordering::SeqCst) {
            if self.room.load(Ordering::SeqCst) < more {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.take_room(more);
        }
        self.reserved.fetch_max(len, Ordering::SeqCst);
        Ok(true)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        // Space behind the end goes with what is cut.
        let own = self.reserved.swap(0, Ordering::SeqCst).max(self.file.len()?);
        self.room.fetch_add(own.saturating_sub(len), Ordering::SeqCst);
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        if self.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: the device lost a write"));
        }
        self.file.sync()
    }
}

impl Disk for TestDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(self.disk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(self.disk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = self.bytes(to);
        self.disk.rename(from, to)?;
        self.room.fetch_add(replaced, Ordering::SeqCst);
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.bytes(path);
        self.disk.remove_file(path)?;
        self.room.fetch_add(removed, Ordering::SeqCst);
        Ok(())
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        if self.limited.load(Ordering::SeqCst) {
            return Ok(self.room.load(Ordering::SeqCst));
        }
        self.disk.free_bytes(path)
    }
    fn boot_id(&self) -> String {
        format!("boot-{}", self.boots.load(Ordering::SeqCst))
    }
}
