//! Space kept ahead, so that a full disk can be freed: before retention deletes records it may have to write a snapshot of
//! the producers, and the segment in which the log goes on. Two files that hold nothing but space become these by a
//! rename, which takes none.
//!
//! Invariant: the spares are made once the log has a segment, and again when what they helped to delete has made room.
//! That one cannot be made is no error: nobody waits for it, and the next look tries again.

use std::io;
use std::path::Path;

use super::segment::Segment;
use super::state::LogId;
use crate::disk::Disk;

const SEGMENT: &str = ".spare-segment";
const SNAPSHOT: &str = ".spare-snapshot";
/// What the smallest file takes on the usual file systems.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// The spares of one log.
#[derive(Default)]
pub(super) struct Spares {
    segment: bool,
    /// Bytes of the snapshot's; 0: there is none.
    snapshot_bytes: u64,
    /// Bytes that the snapshot's was last meant to have.
    asked_bytes: u64,
}

impl Spares {
    /// Whether a snapshot of so many bytes was never thought of.
    pub fn wants(&self, snapshot_bytes: u64) -> bool {
        snapshot_bytes > self.asked_bytes
    }

    /// Makes those that are missing, as far as there is room.
    pub fn prepare(&mut self, disk: &dyn Disk, dir: &Path, snapshot_bytes: u64) {
        self.asked_bytes = self.asked_bytes.max(snapshot_bytes);
        if !self.segment {
            self.segment = make(disk, &dir.join(SEGMENT), BLOCK_BYTES).is_ok();
        }
        if self.snapshot_bytes < self.asked_bytes && make(disk, &dir.join(SNAPSHOT), self.asked_bytes).is_ok() {
            self.snapshot_bytes = self.asked_bytes;
        }
    }

    /// Makes the spare the segment that begins at `base`; None when there is none.
    pub fn segment(&mut self, disk: &dyn Disk, dir: &Path, log_id: LogId, base: u64) -> Option<io::Result<Segment>> {
        std::mem::take(&mut self.segment).then(|| Segment::adopt(disk, dir, log_id, base, &dir.join(SEGMENT)))
    }

    /// Makes the spare the file at `path`, with these bytes, durably; None when there is none that is large enough.
    pub fn replace(&mut self, disk: &dyn Disk, dir: &Path, path: &Path, bytes: &[u8]) -> Option<io::Result<()>> {
        if (bytes.len() as u64) > self.snapshot_bytes {
            return None;
        }
        self.snapshot_bytes = 0;
        let replace = || -> io::Result<()> {
            let spare = dir.join(SNAPSHOT);
            let file = disk.open(&spare)?;
            file.write_at(0, bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync()?;
            disk.rename(&spare, path)?;
            disk.sync_dir(dir)
        };
        Some(replace())
    }

    /// Gives the space back, as far as that can be done.
    pub fn remove(&mut self, disk: &dyn Disk, dir: &Path) {
        *self = Self::default();
        for name in [SEGMENT, SNAPSHOT] {
            // One that stays is found by the next life of the log.
            let _ = disk.remove_file(&dir.join(name));
        }
    }
}

/// Makes a file of at least so many bytes, or grows the one there is. They are written: not every file system can reserve.
fn make(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<()> {
    let file = match disk.open(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => disk.create(path)?,
        other => other?,
    };
    let mut len = file.len()?;
    let before = len;
    let zeros = vec![0; usize::try_from(BLOCK_BYTES).map_err(io::Error::other)?];
    while len < bytes {
        if let Err(err) = file.write_at(len, &zeros) {
            // Half a spare takes room from others and helps nobody.
            file.set_len(before)?;
            return Err(err);
        }
        len += BLOCK_BYTES;
    }
    Ok(())
}
