//! How far a log has the batches of named producers: the highest sequence per name.
//!
//! Part of the log: each frame carries its producer and sequence, and a snapshot (`producers.json`) takes over when
//! frames are deleted. A name is known by 64 bits of its XXH3 hash.
//!
//! Invariants: a sequence only rises; at most [`MAX_PRODUCERS`] are known, and one that was heard of in the last
//! [`IDLE_NS`] is never forgotten for another.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::Header;
use super::spare::{BLOCK_BYTES, Spares};
use crate::disk::Disk;
use crate::error::{Code, Error, Result, is_disk_full};

/// Producers that a log remembers, at most. It bounds memory (about 10 MB) where programs start all the time under names
/// of their own.
pub const MAX_PRODUCERS: usize = 100_000;
/// At the bound those are forgotten, longest silent first, that were silent for this long: longer than any retry takes.
pub const IDLE_NS: i64 = 15 * 60 * 1_000_000_000;
/// How many are forgotten at once, so that looking for them costs nothing per batch.
const FORGET_AT_ONCE: usize = MAX_PRODUCERS / 10;
/// Bytes of one of them in the snapshot, about, with a name of usual length.
const SNAPSHOT_ENTRY_BYTES: usize = 160;

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
    /// Behind the newest frame.
    #[serde(skip)]
    end: u64,
    /// What the snapshot says; 0: nothing.
    #[serde(skip)]
    stored: u64,
}

/// The producers of one log.
#[derive(Debug, Default)]
pub struct Producers {
    by_id: HashMap<u64, Entry>,
    forgotten: u64,
    /// Until then nobody is idle, so that looking for one is in vain.
    none_idle_until_ns: i64,
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
        let mut by_id: HashMap<u64, Entry> = serde_json::from_slice(&bytes).map_err(|err| {
            Error::new(
                Code::LogCorrupt,
                format!(
                    "{}: not readable: {err}; restore it from a backup, or stop the broker and run `python -m telemetry_broker \
                     log repair DIR`",
                    path.display()
                ),
            )
        })?;
        for entry in by_id.values_mut() {
            entry.stored = entry.sequence;
        }
        Ok(Self { by_id, ..Self::default() })
    }

    /// Whether frames that end at or below `until` can only be deleted once the snapshot is stored: some sequence is
    /// neither there nor in a later frame that is synced.
    pub fn need_store(&self, until: u64, synced_end: u64) -> bool {
        // One that ends where the synced ones do may be a later one, without records, that is not.
        let kept = |entry: &Entry| until < entry.end && entry.end < synced_end;
        self.by_id.values().any(|entry| entry.stored < entry.sequence && !kept(entry))
    }

    /// Stores the snapshot durably, in space kept ahead where the disk is full.
    pub(super) fn store(&mut self, disk: &dyn Disk, dir: &Path, spares: &mut Spares) -> Result<()> {
        let path = dir.join("producers.json");
        let mut store = || -> io::Result<()> {
            let bytes = serde_json::to_vec(&self.by_id).map_err(io::Error::other)?;
            match disk.replace(&path, &bytes) {
                Err(err) if is_disk_full(&err) => spares.replace(disk, dir, &path, &bytes).unwrap_or(Err(err)),
                other => other,
            }
        };
        store().map_err(|err| Error::io("write", &path, &err))?;
        for entry in self.by_id.values_mut() {
            entry.stored = entry.sequence;
        }
        Ok(())
    }

    /// Bytes that the snapshot needs, about, in steps that are rarely taken.
    pub fn snapshot_bytes(&self) -> u64 {
        let entries = self.by_id.len().next_power_of_two();
        ((entries * SNAPSHOT_ENTRY_BYTES) as u64).next_multiple_of(BLOCK_BYTES)
    }

    /// Whether there is room for a producer of this id, after forgetting idle ones.
    pub fn admit(&mut self, id: u64, now_ns: i64) -> bool {
        if self.by_id.len() < MAX_PRODUCERS || self.by_id.contains_key(&id) {
            return true;
        }
        if now_ns < self.none_idle_until_ns {
            return false;
        }
        let mut heard: Vec<(i64, u64)> = self.by_id.iter().map(|(&id, entry)| (entry.last_append_ns, id)).collect();
        heard.sort_unstable();
        self.none_idle_until_ns = heard.first().map_or(0, |&(at, _)| at.saturating_add(IDLE_NS));
        let is_idle = |&(at, _): &(i64, u64)| at.saturating_add(IDLE_NS) <= now_ns;
        let before = self.by_id.len();
        for (_, id) in heard.into_iter().take(FORGET_AT_ONCE).take_while(is_idle) {
            self.by_id.remove(&id);
        }
        self.forgotten += (before - self.by_id.len()) as u64;
        self.by_id.len() < before
    }

    /// How many were forgotten before their time.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Notes what a frame says.
    pub fn note(&mut self, header: &Header) {
        if header.producer_id != 0 {
            let entry = self.by_id.entry(header.producer_id).or_default();
            entry.sequence = entry.sequence.max(header.sequence);
            entry.last_append_ns = header.append_ns;
            entry.end = header.end_offset();
        }
    }

    /// Notes that a frame was written without its records, so that it ends where it begins.
    pub fn note_emptied(&mut self, header: &Header) {
        if let Some(entry) = self.by_id.get_mut(&header.producer_id) {
            entry.end = entry.end.min(header.base_offset);
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

    fn header(id: usize, append_ns: i64) -> Header {
        Header {
            len: 0,
            crc: 0,
            base_offset: 0,
            count: 1,
            skipped: 0,
            append_ns,
            producer_id: id as u64,
            sequence: 7,
            synced_end: 0,
        }
    }

    #[test]
    fn at_the_bound_idle_producers_are_forgotten_and_counted_and_busy_ones_stay() {
        let mut producers = Producers::default();
        for id in 1..=MAX_PRODUCERS {
            assert!(producers.admit(id as u64, 0));
            producers.note(&header(id, i64::try_from(id).unwrap_or(i64::MAX)));
        }
        let new = MAX_PRODUCERS as u64 + 1;
        assert!(!producers.admit(new, IDLE_NS), "nobody is idle for long enough");
        assert!(producers.admit(1, IDLE_NS), "one that is known is always welcome");
        assert_eq!(producers.forgotten(), 0);
        assert!(producers.admit(new, IDLE_NS + 3));
        assert_eq!((producers.forgotten(), producers.sequence(3), producers.sequence(4)), (3, 0, 7));
        (MAX_PRODUCERS + 1..MAX_PRODUCERS + 4).for_each(|id| producers.note(&header(id, 2 * IDLE_NS)));
        assert!(producers.admit(new + 9, 3 * IDLE_NS));
        assert_eq!(producers.by_id.len(), MAX_PRODUCERS - FORGET_AT_ONCE, "many at once");
        assert_eq!(producers.sequence(new), 7);
    }

    #[test]
    fn the_snapshot_is_needed_unless_it_or_a_later_synced_frame_has_the_sequence() {
        let mut producers = Producers::default();
        producers.note(&Header { base_offset: 9, ..header(1, 0) });
        for (until, synced_end, needed) in [(9, 11, false), (10, 11, true), (9, 10, true), (9, 9, true)] {
            assert_eq!(producers.need_store(until, synced_end), needed, "until {until}, synced {synced_end}");
        }
        producers.by_id.values_mut().for_each(|entry| entry.stored = entry.sequence);
        assert!(!producers.need_store(10, 0));
    }
}
