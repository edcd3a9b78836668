//! What a partition remembers beside its segments: who it is, and which offsets may have been given.
//!
//! `state.json`, replaced as a whole and synced. Invariants: while the log is open for writing, `clean` is false on disk
//! and every offset ever given lies below `ceiling`; the segments reach `end`, unless something was lost.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame::MAX_OFFSET;
use crate::disk::Disk;
use crate::error::{Code, Error, Result};

/// Version of everything in a partition's folder.
pub const FORMAT: u32 = 1;
/// How far the ceiling is raised at a time.
pub const CEILING_STEP: u64 = 1 << 20;

/// A UUID made with the partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// Lower-case hex, 32 digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    fn from_hex(hex: &str) -> Option<LogId> {
        let digits = hex.len() == 32 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(hex, 16).ok())?.map(|id| LogId(id.to_be_bytes()))
    }
}

impl std::fmt::Debug for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    log_id: String,
    ceiling: u64,
    /// Missing in files of before there was one.
    #[serde(default)]
    begin: u64,
    /// The same.
    #[serde(default)]
    end: u64,
    boot_id: String,
    clean: bool,
}

/// The state, as last stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which log this is.
    pub log_id: LogId,
    /// Above every offset ever given.
    pub ceiling: u64,
    /// No offset below is given any more: a crash may have lost records up to here that no frame tells of.
    pub begin: u64,
    /// Every offset below was on disk, given or skipped, when this was stored; after a clean end none above was given.
    pub end: u64,
    /// The system it was last open for writing on.
    pub boot_id: String,
    /// Whether it was closed with everything on disk.
    pub clean: bool,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

impl State {
    /// Reads the state of a partition; None when the folder has none yet.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<State>> {
        let path = path(dir);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::io("read", &path, &err)),
        };
        let damaged = |what: &str| {
            Error::new(
                Code::LogCorrupt,
                format!(
                    "{}: {what}; restore it from a backup, or stop the broker and run `python -m telemetry_broker log repair DIR`",
                    path.display()
                ),
            )
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|err| damaged(&format!("not readable: {err}")))?;
        if stored.format > FORMAT {
            return Err(Error::new(
                Code::DataFormat,
                format!(
                    "{} has format {}, this version reads up to {FORMAT}: it was written by a newer telemetry-broker; \
                     upgrade to that version or newer",
                    path.display(),
                    stored.format
                ),
            ));
        }
        let log_id = LogId::from_hex(&stored.log_id).ok_or_else(|| damaged("log_id is not 32 hex digits"))?;
        if stored.ceiling.max(stored.begin).max(stored.end) > MAX_OFFSET {
            return Err(damaged("ceiling, begin or end is above every possible offset"));
        }
        let Stored { ceiling, begin, end, boot_id, clean, .. } = stored;
        Ok(Some(State { log_id, ceiling, begin, end, boot_id, clean }))
    }

    /// Stores the state durably.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = path(dir);
        let stored = Stored {
            format: FORMAT,
            log_id: self.log_id.hex(),
            ceiling: self.ceiling,
            begin: self.begin,
            end: self.end,
            boot_id: self.boot_id.clone(),
            clean: self.clean,
        };
        let bytes = serde_json::to_vec(&stored).map_err(io::Error::other);
        bytes.and_then(|bytes| disk.replace(&path, &bytes)).map_err(|err| Error::io("write", &path, &err))
    }
}
