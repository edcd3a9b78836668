//! A disk that dies: what was synced is kept, what was not may be lost, torn or reordered.
//!
//! A file is its synced bytes and the writes since, a folder its synced entries and the changes since. The death of the
//! process keeps all of them; a power cut keeps any subset of writes, each whole or in part, and of each folder's entry
//! changes the first so many, in order, as journaling file systems do it. A rename is one change.
//!
//! Faults are armed to strike at the n-th change from now, so that they hit between any two writes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use broker_core::disk::{Disk, File};

use crate::random::Random;

/// What goes wrong at the armed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; a write it was in is done in part.
    Death,
    /// The change fails with an I/O error; a write may be done in part.
    Error,
}

/// How the system is after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Clean,
    Process,
    Power,
}

type Id = usize;

#[derive(Clone)]
enum Change {
    Link(String, Id),
    Unlink(String),
    Rename(String, String),
}

#[derive(Default)]
struct Folder {
    synced: BTreeMap<String, Id>,
    entries: BTreeMap<String, Id>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Write {
    At(usize, Vec<u8>),
    Len(usize),
}

#[derive(Default)]
struct Content {
    synced: Vec<u8>,
    bytes: Vec<u8>,
    /// Since the last sync.
    writes: Vec<Write>,
    /// Bytes for which there is room whatever happens.
    reserved: usize,
}

enum Node {
    Folder(Folder),
    File(Content),
}

struct State {
    nodes: Vec<Node>,
    random: Random,
    boots: u64,
    armed: Option<(usize, Fault)>,
    dead: bool,
    /// Bytes that files may still grow by; None: no bound.
    room: Option<usize>,
    /// An `Error` struck, or the disk was full, since the process began.
    errors: usize,
    refusals: usize,
    /// What a failed sync was to write counts as written: no later sync brings it to the disk, as Linux does it.
    forgetful: bool,
}

/// A simulated disk.
pub struct SimDisk(Arc<Mutex<State>>);

struct SimFile(Arc<Mutex<State>>, Id);

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::At(position, data) => {
            if bytes.len() < position + data.len() {
                bytes.resize(position + data.len(), 0);
            }
            bytes[*position..position + data.len()].copy_from_slice(data);
        }
        Write::Len(len) => bytes.resize(*len, 0),
    }
}

fn change(entries: &mut BTreeMap<String, Id>, change: &Change) {
    match change {
        Change::Link(name, id) => {
            entries.insert(name.clone(), *id);
        }
        Change::Unlink(name) => {
            entries.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(id) = entries.remove(from) {
                entries.insert(to.clone(), id);
            }
        }
    }
}

fn died() -> io::Error {
    io::Error::other("injected: the process is dead")
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {}", path.display()))
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent, name.to_owned())),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<Id> {
        if self.dead {
            return Err(died());
        }
        let mut id = 0;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let Node::Folder(folder) = &self.nodes[id] else {
                    return Err(io::Error::from(io::ErrorKind::NotADirectory));
                };
                id = *folder.entries.get(name.to_str().unwrap()).ok_or_else(|| not_found(path))?;
            }
        }
        Ok(id)
    }

    fn folder(&mut self, id: Id) -> io::Result<&mut Folder> {
        match &mut self.nodes[id] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    fn content(&mut self, id: Id) -> &mut Content {
        match &mut self.nodes[id] {
            Node::File(content) => content,
            Node::Folder(_) => panic!("a folder was opened as a file"),
        }
    }

    /// Counts a change; says which fault strikes in it.
    fn strikes(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(died());
        }
        let Some((left, fault)) = self.armed else { return Ok(None) };
        if left > 0 {
            self.armed = Some((left - 1, fault));
            return Ok(None);
        }
        self.armed = None;
        match fault {
            Fault::Death => self.dead = true,
            Fault::Error => self.errors += 1,
        }
        Ok(Some(fault))
    }

    fn error(&self, what: &str) -> io::Error {
        if self.dead { died() } else { io::Error::other(format!("injected: {what}")) }
    }

    fn change(&mut self, folder: Id, done: Change) -> io::Result<()> {
        let fault = self.strikes()?;
        // A process may die in front of a change or behind it; a failed change was not made.
        let made = fault.is_none() || fault == Some(Fault::Death) && self.random.chance(50);
        if made {
            let folder = self.folder(folder)?;
            change(&mut folder.entries, &done);
            folder.changes.push(done);
        }
        fault.map_or(Ok(()), |_| Err(self.error("a folder could not be changed")))
    }

    /// Gives back the room of the file of this name, which is about to lose it.
    fn give_back(&mut self, folder: Id, name: &str) {
        let Ok(folder) = self.folder(folder) else { return };
        let Some(&id) = folder.entries.get(name) else { return };
        if let Node::File(content) = &self.nodes[id] {
            let bytes = content.bytes.len().max(content.reserved);
            self.room = self.room.map(|room| room + bytes);
        }
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<Id> {
        let (parent, name) = split(path)?;
        let parent = self.find(parent)?;
        if self.folder(parent)?.entries.contains_key(&name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if self.room == Some(0) {
            self.refusals += 1;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(parent, Change::Link(name, id))?;
        Ok(id)
    }

    fn write(&mut self, id: Id, position: usize, data: &[u8]) -> io::Result<()> {
        let fault = self.strikes()?;
        let content = self.content(id);
        let len = content.bytes.len().max(content.reserved);
        let mut fits = data.len();
        if let Some(room) = self.room {
            let grows = (position + data.len()).saturating_sub(len);
            fits = data.len() - grows.saturating_sub(room);
            self.room = Some(room - grows.min(room));
        }
        let full = fits < data.len();
        if fault.is_some() {
            fits = self.random.below(fits + 1);
        }
        if fits > 0 {
            let write = Write::At(position, data[..fits].to_vec());
            let content = self.content(id);
            apply(&mut content.bytes, &write);
            content.writes.push(write);
        }
        if fault.is_some() {
            return Err(self.error("a write failed"));
        }
        if full {
            self.refusals += 1;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn set_len(&mut self, id: Id, len: usize) -> io::Result<()> {
        let fault = self.strikes()?;
        if fault.is_none() {
            let content = self.content(id);
            // Space behind the end goes with what is cut.
            let freed = content.bytes.len().max(content.reserved).saturating_sub(len);
            content.reserved = 0;
            content.bytes.resize(len, 0);
            content.writes.push(Write::Len(len));
            self.room = self.room.map(|room| room + freed);
        }
        fault.map_or(Ok(()), |_| Err(self.error("a file could not be cut")))
    }

    fn reserve(&mut self, id: Id, len: usize) -> io::Result<()> {
        let fault = self.strikes()?;
        if fault.is_some() {
            return Err(self.error("space could not be reserved"));
        }
        let content = self.content(id);
        let grows = len.saturating_sub(content.bytes.len().max(content.reserved));
        if self.room.is_some_and(|room| room < grows) {
            self.refusals += 1;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.room = self.room.map(|room| room - grows);
        let content = self.content(id);
        content.reserved = content.reserved.max(len);
        Ok(())
    }

    fn sync(&mut self, id: Id) -> io::Result<()> {
        match self.strikes()? {
            None => {
                let content = self.content(id);
                for write in content.writes.drain(..) {
                    apply(&mut content.synced, &write);
                }
                Ok(())
            }
            Some(Fault::Death) => Err(died()),
            Some(Fault::Error) => {
                if self.forgetful {
                    for write in std::mem::take(&mut self.content(id).writes) {
                        if self.random.chance(50) {
                            apply(&mut self.content(id).synced, &write);
                        }
                    }
                }
                Err(self.error("a sync failed"))
            }
        }
    }

    /// What a power cut leaves of a file.
    fn cut_file(&mut self, id: Id) {
        let how = self.random.below(4);
        let content = self.content(id);
        if content.writes.is_empty() {
            content.bytes.clone_from(&content.synced);
            return;
        }
        let (writes, mut bytes) = (std::mem::take(&mut content.writes), content.synced.clone());
        for write in &writes {
            let fate = match how {
                0 => 0,
                1 => 1,
                _ => self.random.below(3),
            };
            match (fate, write) {
                (0, _) => {}
                (2, Write::At(position, data)) => {
                    let start = self.random.below(data.len());
                    let len = self.random.below(data.len() - start + 1);
                    let start = if self.random.chance(50) { 0 } else { start };
                    // The length may reach the disk although the bytes do not.
                    let end = position + if self.random.chance(30) { data.len() } else { start + len };
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    apply(&mut bytes, &Write::At(position + start, data[start..start + len].to_vec()));
                }
                (_, write) => apply(&mut bytes, write),
            }
        }
        let content = self.content(id);
        content.bytes.clone_from(&bytes);
        content.synced = bytes;
    }

    /// What a power cut leaves of a folder.
    fn cut_folder(&mut self, id: Id) {
        let how = self.random.below(3);
        let Ok(folder) = self.folder(id) else { return };
        let (changes, mut entries) = (std::mem::take(&mut folder.changes), folder.synced.clone());
        let kept = match how {
            0 => 0,
            1 => changes.len(),
            _ => self.random.below(changes.len() + 1),
        };
        changes[..kept].iter().for_each(|made| change(&mut entries, made));
        if let Ok(folder) = self.folder(id) {
            folder.entries.clone_from(&entries);
            folder.synced = entries;
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: vec![Node::Folder(Folder::default())],
            random: Random::new(seed),
            boots: 0,
            armed: None,
            dead: false,
            room: None,
            errors: 0,
            refusals: 0,
            forgetful: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets `fault` strike after `changes` more changes.
    pub fn arm(&self, changes: usize, fault: Fault) {
        self.state().armed = Some((changes, fault));
    }

    pub fn disarm(&self) {
        self.state().armed = None;
    }

    /// Leaves room for so many more bytes; None: no bound.
    pub fn leave_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    /// See [`State::forgetful`].
    pub fn forget_failed_syncs(&self, forgetful: bool) {
        self.state().forgetful = forgetful;
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// I/O errors given to this process.
    pub fn errors(&self) -> usize {
        self.state().errors
    }

    /// Writes refused for want of room to this process.
    pub fn refusals(&self) -> usize {
        self.state().refusals
    }

    /// Begins another process, after the system went down if `end` says so.
    pub fn restart(&self, end: End) {
        let mut state = self.state();
        if end == End::Power {
            state.boots += 1;
            for id in 0..state.nodes.len() {
                match state.nodes[id] {
                    Node::Folder(_) => state.cut_folder(id),
                    Node::File(_) => state.cut_file(id),
                }
            }
        }
        (state.armed, state.dead, state.errors, state.refusals) = (None, false, 0, 0);
    }

    /// Files below `dir` and their bytes.
    pub fn files(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(state: &State, id: Id, path: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
            match &state.nodes[id] {
                Node::File(content) => out.push((path.to_owned(), content.bytes.clone())),
                Node::Folder(folder) => {
                    for (name, &id) in &folder.entries {
                        walk(state, id, &path.join(name), out);
                    }
                }
            }
        }
        let (state, mut out) = (self.state(), Vec::new());
        if let Ok(id) = state.find(dir) {
            walk(&state, id, dir, &mut out);
        }
        out
    }

    /// Changes a file behind the broker's back, on the disk itself.
    pub fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.find(path).unwrap();
        let content = state.content(id);
        assert!(content.writes.is_empty(), "{} has unsynced writes", path.display());
        edit(&mut content.synced);
        content.bytes.clone_from(&content.synced);
    }

    /// Turns one bit of a segment's synced bytes around. Says where; None where there is nothing.
    pub fn flip_bit(&self, dir: &Path) -> Option<String> {
        let segments: Vec<(PathBuf, Vec<u8>)> = self.files(dir);
        let segments: Vec<_> =
            segments.into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")).collect();
        let mut state = self.state();
        if segments.is_empty() {
            return None;
        }
        let index = state.random.below(segments.len());
        let (path, _) = &segments[index];
        let id = state.find(path).ok()?;
        let bit = {
            let len = state.content(id).synced.len() * 8;
            if len == 0 {
                return None;
            }
            state.random.below(len)
        };
        let content = state.content(id);
        content.synced[bit / 8] ^= 1 << (bit % 8);
        if let Some(byte) = content.bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        Some(format!("{} bit {bit}", path.display()))
    }

    fn open_file(&self, id: Id) -> Arc<dyn File> {
        Arc::new(SimFile(self.0.clone(), id))
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

impl File for SimFile {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if state.dead {
            return Err(died());
        }
        let from = state.content(self.1).bytes.get(index(position)..).unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(self.1, index(position), bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().set_len(self.1, index(len))
    }

    fn reserve(&self, len: u64) -> io::Result<bool> {
        self.0.lock().unwrap().reserve(self.1, index(len)).map(|()| true)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content(self.1).bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.lock().unwrap().sync(self.1)
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<&Path> = path.ancestors().filter(|path| path.file_name().is_some()).collect();
        ancestors.reverse();
        for dir in ancestors {
            let mut state = self.state();
            match state.find(dir) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    state.make(dir, Node::Folder(Folder::default()))?;
                }
                found => drop(found?),
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = self.state().find(path)?;
        Ok(self.open_file(id))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = self.state().make(path, Node::File(Content::default()))?;
        Ok(self.open_file(id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(from)?;
        let ((folder, from), (target, to)) = (split(from)?, split(to)?);
        assert_eq!(folder, target, "a rename across folders");
        let id = state.find(folder)?;
        state.give_back(id, &to);
        state.change(id, Change::Rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        let (folder, name) = split(path)?;
        let id = state.find(folder)?;
        state.give_back(id, &name);
        state.change(id, Change::Unlink(name))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        let id = state.find(path)?;
        Ok(state.folder(id)?.entries.keys().cloned().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path)?;
        match state.strikes()? {
            None => {
                let folder = state.folder(id)?;
                folder.synced.clone_from(&folder.entries);
                folder.changes.clear();
                Ok(())
            }
            Some(_) => Err(state.error("a folder could not be synced")),
        }
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        // A full disk is found out by writing: the numbers of others change under us.
        Ok(u64::MAX)
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.state().boots)
    }
}
