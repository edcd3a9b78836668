//! Mending one file, in steps of which each leaves the folder as it was or mended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Piece, Scan};
use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::log::LogId;
use crate::log::frame::{Frame, HEADER_BYTES, Header};
use crate::log::segment;
use crate::log::state::State;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// What mends a finding.
pub(super) enum Fix {
    /// Nothing that repair could do.
    Nothing,
    /// The fix of the finding before, which is about the same file.
    Along,
    /// Another name, so that the broker does not see the file.
    SetAside,
    /// The name that the file should have; no file has it.
    RenameTo(PathBuf),
    /// A cut at this byte.
    Truncate(u64),
    /// The file again, from its whole frames.
    Rewrite {
        log_id: LogId,
        base: u64,
        /// Where the offsets go on behind the last frame.
        goes_on: Option<u64>,
        /// Whether the original is worth keeping.
        keep: bool,
    },
    /// An empty frame behind the whole frames of a segment, in place of what stands there, which skips the offsets that are
    /// gone.
    Fill { segment: PathBuf, position: u64, end: u64, goes_on: u64, append_ns: i64, synced_end: u64 },
    /// A segment without frames, where there is none at all.
    Begin { log_id: LogId, base: u64 },
    /// Another state.
    State(State),
    /// Other bytes.
    Replace(Vec<u8>),
}

impl Fix {
    /// Whether other findings of the partition may be others after this fix.
    pub fn changes_the_whole(&self) -> bool {
        matches!(self, Fix::State(_) | Fix::RenameTo(_) | Fix::SetAside)
    }

    /// Mends the file at `path`; whether there was anything that could be done.
    pub fn apply(self, disk: &dyn Disk, path: &Path) -> Result<bool> {
        match self {
            Fix::Nothing => return Ok(false),
            Fix::Along => {}
            Fix::SetAside => rename(disk, path, &free_name(disk, path))?,
            Fix::RenameTo(to) => rename(disk, path, &to)?,
            Fix::Truncate(len) => truncate(disk, path, len).map_err(|err| Error::io("cut", path, &err))?,
            Fix::Rewrite { log_id, base, goes_on, keep } => {
                if keep {
                    keep_copy(disk, path)?;
                }
                rewrite(disk, path, log_id, base, goes_on)?;
            }
            Fix::Fill { segment, position, end, goes_on, append_ns, synced_end } => {
                let frame = gap(end, goes_on, append_ns, synced_end);
                let append = || -> io::Result<()> {
                    let file = disk.open(&segment)?;
                    file.write_at(position, frame.bytes())?;
                    file.set_len(position + frame.bytes().len() as u64)?;
                    file.sync()
                };
                append().map_err(|err| Error::io("write", &segment, &err))?;
            }
            Fix::Begin { log_id, base } => {
                let made = disk.replace(path, &segment::header_bytes(log_id, base));
                made.map_err(|err| Error::io("write", path, &err))?;
            }
            Fix::State(state) => {
                let dir = path.parent().unwrap_or(path);
                if disk.open(path).is_ok() {
                    keep_copy(disk, path)?;
                }
                state.store(disk, dir)?;
            }
            Fix::Replace(bytes) => {
                keep_copy(disk, path)?;
                disk.replace(path, &bytes).map_err(|err| Error::io("write", path, &err))?;
            }
        }
        Ok(true)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}{suffix}"))
}

/// `<name>.damaged`, or with a number where that is taken.
fn free_name(disk: &dyn Disk, path: &Path) -> PathBuf {
    let names = (1u64..).map(|number| match number {
        1 => with_suffix(path, ".damaged"),
        _ => with_suffix(path, &format!(".damaged-{number}")),
    });
    let mut free = names.filter(|name| disk.open(name).is_err());
    free.next().unwrap_or_else(|| with_suffix(path, ".damaged"))
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let renamed = disk.rename(from, to).and_then(|()| sync_parent(disk, to));
    renamed.map_err(|err| Error::io("rename", from, &err))
}

fn truncate(disk: &dyn Disk, path: &Path, len: u64) -> io::Result<()> {
    let file = disk.open(path)?;
    file.set_len(len)?;
    file.sync()
}

/// A new file that has `name` only once it is complete and synced.
struct Replacement<'a> {
    disk: &'a dyn Disk,
    name: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn File>,
    position: u64,
    waiting: Vec<u8>,
}

impl<'a> Replacement<'a> {
    fn begin(disk: &'a dyn Disk, name: PathBuf) -> io::Result<Self> {
        let temporary = with_suffix(&name, ".tmp");
        match disk.remove_file(&temporary) {
            // Left behind by a repair that was interrupted.
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let file = disk.create(&temporary)?;
        Ok(Self { disk, name, temporary, file, position: 0, waiting: Vec::with_capacity(2 * COPY_BYTES) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= COPY_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.position, &self.waiting)?;
        self.position += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()?;
        self.disk.rename(&self.temporary, &self.name)?;
        sync_parent(self.disk, &self.name)
    }
}

/// Keeps a file as it is, beside itself.
fn keep_copy(disk: &dyn Disk, path: &Path) -> Result<()> {
    let kept = free_name(disk, path);
    let copy = || -> io::Result<()> {
        let original = disk.open(path)?;
        let mut copy = Replacement::begin(disk, kept.clone())?;
        let mut bytes = vec![0; COPY_BYTES];
        let mut position = 0;
        loop {
            let read = original.read_at(position, &mut bytes)?;
            if read == 0 {
                return copy.finish();
            }
            copy.write(&bytes[..read])?;
            position += read as u64;
        }
    };
    copy().map_err(|err| Error::io("write", &kept, &err))
}

/// An empty frame that follows offset `end` and has the log go on at `goes_on`.
fn gap(end: u64, goes_on: u64, append_ns: i64, synced_end: u64) -> Frame {
    let header = Header {
        len: 0,
        crc: 0,
        base_offset: goes_on,
        count: 0,
        skipped: goes_on - end,
        append_ns,
        producer_id: 0,
        sequence: 0,
        synced_end,
    };
    Frame::new(header, &[])
}

/// Writes a segment again from its whole frames: byte for byte, but for the `skipped` of those behind damage.
fn rewrite(disk: &dyn Disk, path: &Path, log_id: LogId, base: u64, goes_on: Option<u64>) -> Result<()> {
    let failed = |err: io::Error| Error::io("write the mended", path, &err);
    let mut scan = Scan::open(disk, path, base)?;
    let mut mended = Replacement::begin(disk, path.to_owned()).map_err(failed)?;
    mended.write(&segment::header_bytes(log_id, base)).map_err(failed)?;
    let mut end = base;
    while let Some(piece) = scan.next_piece()? {
        let Piece::Frame { position, header } = piece else { continue };
        let bytes = scan.frame_bytes(position, &header)?;
        let skipped = header.base_offset - end;
        if skipped == header.skipped {
            mended.write(bytes).map_err(failed)?;
        } else {
            let frame = Frame::new(Header { skipped, ..header }, &bytes[HEADER_BYTES..]);
            mended.write(frame.bytes()).map_err(failed)?;
        }
        end = header.end_offset();
    }
    if let Some(goes_on) = goes_on.filter(|&goes_on| goes_on > end) {
        let frame = gap(end, goes_on, scan.last_append_ns(), scan.synced_end());
        mended.write(frame.bytes()).map_err(failed)?;
    }
    mended.finish().map_err(failed)
}
