//! The file system as the core sees it, injected so that a broker also runs in memory and in simulations.
//!
//! A write is durable once `sync` of its file returned, and a created, renamed or removed entry once `sync_dir` of its
//! folder did. Nothing here retries: what failed is reported as it was.

mod memory;
mod real;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// An open file. Reads and writes name their position, so one handle serves many threads.
pub trait File: Send + Sync {
    /// Fills `buf` from `position` as far as the file reaches and returns how much that was.
    fn read_at(&self, position: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// As many of the `len` bytes from `position` on as the file has.
    fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(position, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    /// Writes all of `bytes` at `position`; after an error any prefix of them may stand there.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `len` bytes, or fills it up with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Makes sure of space for the first `len` bytes without changing what the file holds. False where that cannot be had:
    /// then a write may still find the disk full.
    fn reserve(&self, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Returns once all that was written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// A file system.
pub trait Disk: Send + Sync {
    /// Makes a folder and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder, unless it is there, in one that must be there: what vanished is not made anew, empty.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.list(parent)?;
        }
        self.create_dir_all(path)
    }
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Makes a file that must not exist yet and opens it.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, sorted. Names that are not UTF-8 are none of ours and left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Returns once the folder's entries are on the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes free for us where `path` is.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Identifies the running system: it changes when unsynced writes may have been lost.
    fn boot_id(&self) -> String;

    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        file.read(0, usize::try_from(file.len()?).map_err(io::Error::other)?)
    }

    /// Replaces a file as a whole, durably: after a crash it has the old bytes or the new ones.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (aside, _) = self.write_aside(path, bytes)?;
        self.rename(&aside, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    /// Writes and syncs the file that is to take the name `path`, under another one, and returns both.
    fn write_aside(&self, path: &Path, bytes: &[u8]) -> io::Result<(PathBuf, Arc<dyn File>)> {
        // A leading dot: no topic can have that name.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.tmp"));
        match self.remove_file(&aside) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let file = self.create(&aside)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        Ok((aside, file))
    }
}
