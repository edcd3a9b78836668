//! The folder of a broker: who it is, and that only one process has it open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::{Code, Error, Result};
use crate::log::state::FORMAT;

/// Locked while a process has the folder open; holds its process id.
pub const LOCK_FILE: &str = "broker.lock";
/// Who the broker is, and how often the folder was opened.
pub const IDENTITY_FILE: &str = "broker.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    broker_id: String,
    /// How often the folder was opened, this time included.
    opened: u64,
}

/// Lets go of a folder, also where a fork still holds a copy of the file.
pub fn unlock(lock: &File) {
    // Dropping the file does it too, but for forks.
    let _ = flock(lock, FlockOperation::Unlock);
}

/// Who the broker of a folder is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Random, made with the folder; part of every lease id.
    pub broker_id: [u8; 8],
    /// How often the folder was opened: what tells the leases of one life from those of the next.
    pub opened: u64,
}

/// Locks a folder for this process, until the file is dropped.
pub fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|err| Error::io("open", &path, &err))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let owner = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
                _ => "another process".to_owned(),
            };
            let dir = dir.display();
            return Err(Error::new(
                Code::DataInUse,
                format!(
                    "{dir} is in use by {owner}: a folder is for one process. To share it, stop that process, run \
                     `telemetry broker --data {dir}` and connect to grpc://127.0.0.1:9090"
                ),
            ));
        }
        Err(err) => return Err(Error::io("lock", &path, &err.into())),
    }
    let mut note = || -> io::Result<()> {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    note().map_err(|err| Error::io("write", &path, &err))?;
    Ok(file)
}

/// Reads who the broker is, making it up in a new folder, and counts this opening.
pub fn identify(disk: &dyn Disk, dir: &Path, random: impl FnOnce() -> Result<[u8; 8]>) -> Result<Identity> {
    let path = dir.join(IDENTITY_FILE);
    let identity = match disk.read(&path) {
        Ok(bytes) => parse(&path, &bytes)?,
        Err(err) if err.kind() == io::ErrorKind::NotFound => Identity { broker_id: random()?, opened: 1 },
        Err(err) => return Err(Error::io("read", &path, &err)),
    };
    let broker_id = u64::from_be_bytes(identity.broker_id).to_string();
    let stored = Stored { format: FORMAT, broker_id, opened: identity.opened };
    let bytes = serde_json::to_vec(&stored).map_err(io::Error::other);
    bytes.and_then(|bytes| disk.replace(&path, &bytes)).map_err(|err| Error::io("write", &path, &err))?;
    Ok(identity)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Identity> {
    let refuse = |what: &str| {
        Error::new(
            Code::DataFormat,
            format!("{}: {what}; this is no broker's folder, or its file is damaged: restore it", path.display()),
        )
    };
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|err| refuse(&format!("not readable: {err}")))?;
    if let Some(format) =
        json.get("format").and_then(serde_json::Value::as_u64).filter(|&format| format > FORMAT.into())
    {
        return Err(Error::new(
            Code::DataFormat,
            format!(
                "{} has format {format}, this version reads up to {FORMAT}: it was written by a newer telemetry-broker; \
                 upgrade to that version or newer",
                path.display()
            ),
        ));
    }
    let stored: Stored = serde_json::from_value(json).map_err(|err| refuse(&format!("not readable: {err}")))?;
    let id: u64 = stored.broker_id.parse().map_err(|_| refuse("broker_id is no number"))?;
    Ok(Identity { broker_id: id.to_be_bytes(), opened: stored.opened + 1 })
}
