//! What the broker has promised so far: a plain model, held against every answer.
//!
//! A record is present from its answer (or from when it was first seen) until a crash that its topic's durability does
//! not cover. Where an answer was missing, the model knows both ways and learns from what it sees next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use broker_core::log::Durability;

use crate::disk::End;

/// The bytes of a value: its number, and filling of a length that follows from it.
pub fn value_bytes(value: u64) -> Vec<u8> {
    let filling = if value % 16 == 3 { 700 } else { value % 40 };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(filling).unwrap(), u8::try_from(value % 251).unwrap());
    bytes
}

fn value_of(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, value_bytes(value), "a value that nobody produced");
    value
}

pub struct Record {
    pub value: u64,
    pub present: bool,
    /// Acked by every group of a `memory` topic: it need not reach the disk.
    pub dispensable: bool,
    /// Deleted by retention or a purge; a crash may bring it back.
    pub gone: bool,
}

impl Record {
    /// Whether it cannot have been left out or deleted: a group that comes late may not find the rest.
    pub fn is_sure(&self) -> bool {
        self.present && !self.dispensable && !self.gone
    }
}

pub struct Batch {
    pub sequence: u64,
    pub base: u64,
    pub values: Vec<u64>,
}

/// A named producer in one partition.
#[derive(Default)]
pub struct Producer {
    /// The stored sequence lies in `low..=high`; they differ while an answer is missing.
    pub low: u64,
    pub high: u64,
    pub stored: Vec<Batch>,
    /// The newest batch, to be retried.
    pub last: Option<(u64, Vec<u64>)>,
}

pub struct Partition {
    pub log_id: Vec<u8>,
    pub records: BTreeMap<u64, Record>,
    /// Values that may be stored although nobody said so.
    pub pending: BTreeSet<u64>,
    /// Everything below survives a power cut.
    pub synced_below: u64,
    pub producers: BTreeMap<&'static str, Producer>,
    /// Values that were put back from the dead letters: they may be there more than once.
    pub redriven: BTreeSet<u64>,
}

impl Partition {
    pub fn new(log_id: Vec<u8>) -> Self {
        let (records, pending, producers, redriven) = Default::default();
        Self { log_id, records, pending, synced_below: 0, producers, redriven }
    }

    pub fn end(&self) -> u64 {
        self.records.last_key_value().map_or(0, |(&offset, _)| offset + 1)
    }

    pub fn present(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.records.iter().filter(|(_, record)| record.present).map(|(&offset, record)| (offset, record))
    }

    /// Notes an answered batch.
    pub fn stored(&mut self, base: u64, values: &[u64]) {
        for (offset, &value) in (base..).zip(values) {
            self.pending.remove(&value);
            let twice = self.present().find(|(_, record)| record.value == value).map(|(offset, _)| offset);
            assert!(
                twice.is_none() || self.redriven.contains(&value),
                "value {value} was stored at {offset} and at {twice:?}"
            );
            let record = Record { value, present: true, dispensable: false, gone: false };
            let before = self.records.insert(offset, record);
            assert!(before.is_none(), "offset {offset} was given twice");
        }
    }

    /// Notes a record that was read or delivered.
    pub fn seen(&mut self, offset: u64, bytes: &[u8]) {
        let value = value_of(bytes);
        match self.records.get_mut(&offset) {
            Some(record) => {
                assert_eq!(record.value, value, "offset {offset} was given twice");
                assert!(record.present || record.gone, "offset {offset} was lost and came back");
                record.present = true;
            }
            None => {
                let known = self.pending.contains(&value) || self.redriven.contains(&value);
                assert!(known, "value {value} at offset {offset} should not be stored");
                self.stored(offset, &[value]);
            }
        }
    }

    /// Notes a record of a log with flipped bits: what is given may be less, but it is never something else.
    pub fn seen_damaged(&mut self, offset: u64, bytes: &[u8]) {
        let value = value_of(bytes);
        let record =
            self.records.entry(offset).or_insert(Record { value, present: true, dispensable: false, gone: false });
        assert_eq!(record.value, value, "offset {offset} was given twice");
    }

    fn survives(&self, durability: Durability, end: End, offset: u64) -> bool {
        let covered = match durability {
            Durability::Memory => end == End::Clean,
            Durability::Os => end < End::Power,
            Durability::Fsync => true,
        };
        covered || offset < self.synced_below
    }

    /// Compares what is there after `end` with what must be; the rest is lost from now on. `buffer`: the most records
    /// that a `memory` topic may lose when only the process died.
    pub fn reopened(&mut self, durability: Durability, end: End, found: &BTreeSet<u64>, buffer: usize) {
        let missing: Vec<u64> = self.present().map(|(offset, _)| offset).filter(|at| !found.contains(at)).collect();
        let mut lost = 0;
        for offset in missing {
            let dispensable = self.records[&offset].dispensable || self.records[&offset].gone;
            assert!(dispensable || !self.survives(durability, end, offset), "offset {offset} was answered and is lost");
            if !dispensable {
                lost += 1;
                let behind = self.present().find(|&(at, _)| at > offset && found.contains(&at));
                let behind = behind.map(|(at, _)| at);
                assert_eq!(behind, None, "offset {offset} is lost, a later one is not");
            }
            self.records.get_mut(&offset).unwrap().present = false;
        }
        assert!(end != End::Process || lost <= buffer, "{lost} records lost, the buffer has at most {buffer}");
    }

    /// Notes what was deleted: `found` is what is left, and `may_go` says what may be gone.
    pub fn deleted(&mut self, found: &BTreeSet<u64>, may_go: impl Fn(u64) -> bool) {
        let missing: Vec<u64> = self.present().map(|(offset, _)| offset).filter(|at| !found.contains(at)).collect();
        for offset in missing {
            let record = self.records.get_mut(&offset).unwrap();
            assert!(may_go(offset) || record.dispensable || record.gone, "offset {offset} was deleted, and is needed");
            (record.present, record.gone) = (false, true);
        }
    }

    /// Compares a producer's stored sequence after `end` with what must be.
    pub fn producer_reopened(&mut self, durability: Durability, end: End, name: &'static str, sequence: u64) {
        let Some(producer) = self.producers.get(name) else { return };
        let survivors = producer.stored.iter().filter(|batch| self.survives(durability, end, batch.base));
        let least = survivors.map(|batch| batch.sequence).max().unwrap_or(0);
        assert!(
            (least..=producer.high).contains(&sequence),
            "producer {name} is at {sequence}, not in {least}..={}",
            producer.high
        );
        for batch in producer.stored.iter().filter(|batch| batch.sequence > sequence) {
            let there = batch.values.iter().zip(batch.base..).any(|(value, offset)| {
                self.records.get(&offset).is_some_and(|record| record.present && record.value == *value)
            });
            assert!(!there, "producer {name} is at {sequence}, but batch {} is there", batch.sequence);
        }
        if let Some((last, values)) = &producer.last
            && (producer.low + 1..=sequence).contains(last)
        {
            let is_there = |record: &Record| record.present || record.gone;
            let missing = values
                .iter()
                .find(|&&value| self.records.values().all(|record| !is_there(record) || record.value != value));
            assert_eq!(missing, None, "producer {name} is at {sequence}, but this value of it is not there");
        }
        let producer = self.producers.get_mut(name).unwrap();
        (producer.low, producer.high) = (sequence, sequence);
        producer.stored.retain(|batch| batch.sequence <= sequence);
    }
}

#[derive(Clone)]
pub enum Op {
    Acked(Range<u64>),
    /// The group was moved, or begins.
    Reset(u64),
    /// Delivered, so it was not acked.
    Open(u64),
}

/// One record as it was last given to the group.
#[derive(Clone, Debug)]
pub struct Given {
    pub lease: usize,
    /// Whether that is known: an older lease may have acked it since a crash.
    pub sure: bool,
    /// Still part of that lease, as far as the model knows.
    pub leased: bool,
    /// That lease ended by a nack, a release or a rewind.
    pub given_back: bool,
    /// Nobody may get it before.
    pub busy_until: u64,
    /// It must be ready from then on.
    pub free_from: u64,
    /// How often it was given; restarts may forget.
    pub attempts: (u32, u32),
}

/// A group in one partition.
pub struct Cursor {
    ops: Vec<(Op, bool)>,
    durable: usize,
    pub given: BTreeMap<u64, Given>,
    /// As in `Given`, for all of an ordered group.
    pub busy_until: u64,
    pub free_from: u64,
    /// Receives that failed, and may have leased before they did.
    pub unseen: u32,
}

/// What is known about a record's ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    No,
    Maybe,
    Yes,
}

impl Cursor {
    pub fn new(start: u64) -> Self {
        let given = BTreeMap::new();
        Self { ops: vec![(Op::Reset(start), false)], durable: 1, given, busy_until: 0, free_from: 0, unseen: 0 }
    }

    /// Notes what happened; `doubtful` where no answer said so.
    pub fn push(&mut self, op: Op, doubtful: bool) {
        self.ops.push((op, doubtful));
    }

    /// Everything noted survives everything.
    pub fn synced(&mut self) {
        self.durable = self.ops.len();
    }

    pub fn done(&self, offset: u64) -> Done {
        let (mut yes, mut no) = (false, true);
        for (op, doubtful) in &self.ops {
            let acked = match op {
                Op::Acked(range) if range.contains(&offset) => true,
                Op::Reset(at) => offset < *at,
                Op::Open(at) if *at == offset => false,
                _ => continue,
            };
            yes = acked || *doubtful && yes;
            no = !acked || *doubtful && no;
        }
        match (yes, no) {
            (true, true) => Done::Maybe,
            (true, false) => Done::Yes,
            _ => Done::No,
        }
    }

    /// The process or the system ended: leases are gone, and acks as far as the durability does not cover them.
    pub fn ended(&mut self, durability: Durability, end: End) {
        let kept = match durability {
            Durability::Memory => end == End::Clean,
            Durability::Os => end < End::Power,
            Durability::Fsync => true,
        };
        if !kept {
            self.ops[self.durable..].iter_mut().for_each(|(_, doubtful)| *doubtful = true);
            self.durable = self.ops.len();
        }
        if end != End::Clean
            && let Some(first) = self.ops.iter().position(|(_, doubtful)| *doubtful)
        {
            // That a record was given tells what became of an ack or a seek that failed in memory, not on the disk.
            let open = self.ops[first..].iter_mut().filter(|(op, _)| matches!(op, Op::Open(_)));
            open.for_each(|(_, doubtful)| *doubtful = true);
        }
        for given in self.given.values_mut() {
            given.leased = false;
            (given.busy_until, given.free_from) = (0, 0);
            given.attempts.0 = 0;
        }
        (self.busy_until, self.free_from) = (0, 0);
    }
}

pub struct Group {
    pub ordered: bool,
    pub cursors: Vec<Cursor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exists {
    No,
    Maybe,
    Yes,
}

pub struct Topic {
    pub name: &'static str,
    pub durability: Durability,
    pub exists: Exists,
    pub partitions: Vec<Partition>,
    pub groups: BTreeMap<&'static str, Group>,
    /// Where a group may begin whose making was not answered: lists of an offset per partition.
    pub doubtful_starts: BTreeMap<&'static str, Vec<Vec<u64>>>,
    /// Records that a group gave up and nobody put back since.
    pub dead: Vec<Dead>,
    /// Values that were sent to the dead letters, answered or not; they outlive the topic.
    pub given_up: BTreeSet<u64>,
}

/// A record that was sent to the dead letters.
pub struct Dead {
    pub group: &'static str,
    pub partition: usize,
    pub offset: u64,
    pub value: u64,
}

impl Topic {
    /// Whether retention may delete a record: every group is done with it, or there is none.
    pub fn may_go(&self, number: usize, offset: u64) -> bool {
        self.groups.values().all(|group| group.cursors[number].done(offset) != Done::No)
    }

    /// Marks what every group is done with.
    pub fn mark_dispensable(&mut self) {
        if self.durability != Durability::Memory || self.groups.is_empty() {
            return;
        }
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            for (&offset, record) in &mut partition.records {
                let mut groups = self.groups.values();
                record.dispensable |= groups.all(|group| group.cursors[number].done(offset) != Done::No);
            }
        }
    }
}

pub struct Lease {
    pub id: Vec<u8>,
    pub topic: usize,
    pub group: &'static str,
    pub partition: usize,
    pub consumer: &'static str,
    pub range: Range<u64>,
    /// The process that gave it, counted.
    pub life: u64,
    pub sought: bool,
    /// Its topic was deleted.
    pub over: bool,
}
