//! How far a log has the batches of named producers: the highest sequence per name.
//!
//! Part of the log: each frame carries its producer and sequence, and a snapshot (`producers.json`) takes over when
//! frames are deleted. A name is known by 64 bits of its XXH3 hash.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::Header;
use crate::disk::Disk;
use crate::error::{Code, Error, Result};

/// Producers that a log remembers, at most; behind it the one that was silent for longest is forgotten. It bounds memory
/// (about 10 MB) where programs start all the time under names of their own.
pub const MAX_PRODUCERS: usize = 100_000;
/// How many are forgotten at once, so that looking for them costs nothing per batch.
const FORGET_AT_ONCE: usize = MAX_PRODUCERS / 10;

/// The id that frames carry for a producer's name; never 0, which means none.
pub fn producer_id(name: &str) -> u64 {
    xxh3_64(name.as_bytes()).max(1)
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    sequence: u64,
    last_append_ns: i64,
}

/// The producers of one log.
#[derive(Debug, Default)]
pub struct Producers {
    by_id: HashMap<u64, Entry>,
}

impl Producers {
    /// Reads the snapshot, if there is one.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join("producers.json");
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(Error::io("read", &path, &err)),
        };
        let by_id = serde_json::from_slice(&bytes).map_err(|err| {
            Error::new(
                Code::LogCorrupt,
                format!(
                    "{}: not readable: {err}; restore it from a backup, or stop the broker and run `python -m telemetry_broker \
                     log repair DIR`",
                    path.display()
                ),
            )
        })?;
        Ok(Self { by_id })
    }

    /// Stores the snapshot durably; to be called before frames are deleted.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = dir.join("producers.json");
        let bytes = serde_json::to_vec(&self.by_id).map_err(io::Error::other);
        bytes.and_then(|bytes| disk.replace(&path, &bytes)).map_err(|err| Error::io("write", &path, &err))
    }

    /// Notes what a frame says.
    pub fn note(&mut self, header: &Header) {
        if header.producer_id != 0 {
            let entry = self.by_id.entry(header.producer_id).or_default();
            entry.sequence = entry.sequence.max(header.sequence);
            entry.last_append_ns = header.append_ns;
            if self.by_id.len() > MAX_PRODUCERS {
                self.forget_silent(FORGET_AT_ONCE);
            }
        }
    }

    fn forget_silent(&mut self, count: usize) {
        let mut heard: Vec<(i64, u64)> = self.by_id.iter().map(|(&id, entry)| (entry.last_append_ns, id)).collect();
        heard.sort_unstable();
        for (_, id) in heard.into_iter().take(count) {
            self.by_id.remove(&id);
        }
    }

    /// Notes the name behind an id, for the snapshot.
    pub fn name(&mut self, name: &str) {
        if let Some(entry) = self.by_id.get_mut(&producer_id(name)) {
            name.clone_into(&mut entry.name);
        }
    }

    /// Forgets those who have appended nothing since `before_ns`. Returns how many.
    pub fn expire(&mut self, before_ns: i64) -> usize {
        let before = self.by_id.len();
        self.by_id.retain(|_, entry| entry.last_append_ns >= before_ns);
        before - self.by_id.len()
    }

    /// The highest sequence stored; 0: none.
    pub fn sequence(&self, id: u64) -> u64 {
        self.by_id.get(&id).map_or(0, |entry| entry.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_that_were_silent_for_longest_are_forgotten_first() {
        let mut producers = Producers::default();
        let header = |id: usize| Header {
            len: 0,
            crc: 0,
            base_offset: 0,
            count: 1,
            skipped: 0,
            append_ns: i64::try_from(id).unwrap_or(i64::MAX),
            producer_id: id as u64,
            sequence: 7,
            synced_end: 0,
        };
        (1..=MAX_PRODUCERS).for_each(|id| producers.note(&header(id)));
        assert_eq!((producers.sequence(1), producers.by_id.len()), (7, MAX_PRODUCERS));
        producers.note(&header(MAX_PRODUCERS + 1));
        assert_eq!(producers.by_id.len(), MAX_PRODUCERS + 1 - FORGET_AT_ONCE);
        assert_eq!(producers.sequence(1), 0);
        assert_eq!(producers.sequence(FORGET_AT_ONCE as u64 + 1), 7);
        assert_eq!(producers.sequence(MAX_PRODUCERS as u64 + 1), 7);
    }
}
