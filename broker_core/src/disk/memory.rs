//! A file system that lives and dies with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Disk, File};

/// Files and folders in memory; a sync does nothing.
#[derive(Default)]
pub struct MemoryDisk {
    tree: Mutex<Tree>,
}

#[derive(Default)]
struct Tree {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Arc<MemoryFile>>,
}

#[derive(Default)]
struct MemoryFile(RwLock<Vec<u8>>);

fn to_index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(io::Error::other)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file in memory: {}", path.display()))
}

impl File for MemoryFile {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read();
        let from = bytes.get(to_index(position)?..).unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let start = to_index(position)?;
        let mut file = self.0.write();
        if start == file.len() {
            file.extend_from_slice(bytes);
        } else {
            let end = start + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[start..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write().resize(to_index(len)?, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        for dir in path.ancestors() {
            tree.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        match self.tree.lock().files.get(path) {
            Some(file) => Ok(file.clone()),
            None => Err(not_found(path)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut tree = self.tree.lock();
        if tree.files.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = Arc::new(MemoryFile::default());
        tree.files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        if let Some(file) = tree.files.remove(from) {
            tree.files.insert(to.to_owned(), file);
            return Ok(());
        }
        if !tree.dirs.contains(from) {
            return Err(not_found(from));
        }
        let moved = |path: &PathBuf| path.strip_prefix(from).map_or_else(|_| path.clone(), |rest| to.join(rest));
        tree.dirs = tree.dirs.iter().map(moved).collect();
        tree.files = std::mem::take(&mut tree.files).into_iter().map(|(path, file)| (moved(&path), file)).collect();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.tree.lock().files.remove(path).map(|_| ()).ok_or_else(|| not_found(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.dirs.retain(|dir| !dir.starts_with(path));
        tree.files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let tree = self.tree.lock();
        if !tree.dirs.contains(path) {
            return Err(not_found(path));
        }
        let entries = tree.dirs.iter().chain(tree.files.keys()).filter(|entry| entry.parent() == Some(path));
        let names: BTreeSet<String> =
            entries.filter_map(|entry| entry.file_name()?.to_str().map(str::to_owned)).collect();
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn boot_id(&self) -> String {
        "memory".to_owned()
    }
}
