//! Dead letters: records that a group gives up on, in the topic `<topic>.dlq`.
//!
//! A dead letter is the record's own bytes with one field appended (protobuf joins concatenated messages), in the same
//! partition number. It is appended before the record is acked, so a crash between the two makes it twice:
//! (log id, offset, group) says that both are one.

use std::ops::Range;
use std::sync::Arc;

use prost::Message;

use super::chunk::{Bounds, Chunk};
use super::config::TopicConfig;
use super::names::{self, DEAD_LETTER_SUFFIX, REDRIVE_GROUP};
use super::partition::Partition;
use super::topic::{Basis, Topic};
use super::{Broker, Code, Error, Result};
use crate::queue::{Mode, Settled};
use crate::wire::cursor::{Cursor, put_bytes, put_varint};
use crate::wire::record::ENTRY_TAG;
use crate::wire::{RecordView, Records, record_entries, v1};

/// Bytes of a reason, at most.
const MAX_REASON: usize = 4096;
/// What a delivery of one letter has beside its record: the topic's name, log id, offset and time.
const LETTER_HEAD_BYTES: usize = 300;
/// Records moved at a time.
const BATCH: Bounds = Bounds { records: 4096, bytes: 4 << 20 };

impl Broker {
    /// The dead-letter topic of a topic, as durable and with as many partitions at least.
    fn dead_letter_topic(&self, topic: &Topic) -> Result<Arc<Topic>> {
        let name = names::dead_letters_of(topic.name());
        let config = topic.config().0;
        let letters = match self.topic(&name) {
            Err(err) if err.code() == Code::TopicNotFound => {
                self.create_topic(&name, config.for_dead_letters_of(&config))?
            }
            other => other?,
        };
        letters.configure(Basis::Any, self.first_grant(), |own| Ok(own.for_dead_letters_of(&topic.config().0)))?;
        // From the first dead letter on: what is not redriven is not deleted.
        letters.ensure_group(REDRIVE_GROUP, Some(Mode::Shared), &|_| Ok(None), self.first_grant(), Code::GroupMode)?;
        Ok(letters)
    }

    /// Changes a topic's configuration as [`Topic::configure`] does, and keeps dead letters as safe as what they come from:
    /// their topic follows, and takes no configuration that would lose them.
    pub(super) fn configure_topic(
        &self,
        topic: &Topic,
        basis: Basis,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig>,
    ) -> Result<()> {
        let source = topic.name().strip_suffix(DEAD_LETTER_SUFFIX).and_then(|source| self.topic(source).ok());
        topic.configure(basis, self.first_grant(), |own| {
            let Some(source) = &source else { return change(own) };
            let bound = source.config().0;
            let config = change(&own.for_dead_letters_of(&bound))?;
            if config != config.for_dead_letters_of(&bound) {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!(
                        "topic {:?} holds the dead letters of {:?}: it cannot be less durable, have fewer partitions, or \
                         have max_partition_bytes or a full_policy that drops; redrive the letters, or delete the topic",
                        topic.name(),
                        source.name()
                    ),
                ));
            }
            Ok(config)
        })?;
        match self.topic(&names::dead_letters_of(topic.name())) {
            Ok(letters) => {
                let source = topic.config().0;
                letters.configure(Basis::Any, self.first_grant(), |own| Ok(own.for_dead_letters_of(&source)))
            }
            Err(_) => Ok(()),
        }
    }

    /// Sends the records of a lease's range to the dead-letter topic and acks them, as far as the lease still has them.
    ///
    /// `attempts` says how often they were given out, where that is not what the lease says.
    ///
    /// In an ordered group an ack would cover the records before as well: there the range is acked only when nothing
    /// before it is open, and else by the ack that follows.
    pub(super) fn dead_letter(
        &self,
        topic: &Topic,
        partition: &Partition,
        group: &str,
        (grant, range): (u64, Range<u64>),
        reason: &str,
        attempts: Option<u32>,
    ) -> Result<Settled> {
        if topic.name().ends_with(DEAD_LETTER_SUFFIX) {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("topic {:?} holds dead letters already; ack or redrive them", topic.name()),
            ));
        }
        if reason.len() > MAX_REASON {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("the reason has {} bytes, it may have {MAX_REASON}", reason.len()),
            )
            .field("reason"));
        }
        names::check("group", group)?;
        let (settled, given) = partition.owned(group, grant, range)?;
        let attempts = attempts.unwrap_or(given);
        let info = partition.group_info(group, self.inner.clock.monotonic_ns())?;
        let letters = self.dead_letter_topic(topic)?;
        let target = letters.partition(partition.number())?;
        let counts = topic.counts().group(group);
        let send = |bytes: Vec<u8>, count: u32| -> Result<()> {
            self.append(&target, &Records::trusted(bytes, count))?;
            counts.dead_lettered.add(u64::from(count));
            Ok(())
        };
        for owned in &settled.done {
            let mut letter = v1::DeadLetter {
                reason: reason.to_owned(),
                attempts,
                group: group.to_owned(),
                topic: topic.name().to_string(),
                partition: partition.number(),
                log_id: info.log_id.0.to_vec(),
                offset: 0,
                time_ns: self.inner.clock.wall_ns(),
            };
            let mut at = owned.start;
            while at < owned.end {
                let left = u32::try_from(owned.end - at).unwrap_or(u32::MAX);
                let (runs, next) = partition.read(at, Bounds { records: BATCH.records.min(left), ..BATCH })?;
                if next <= at {
                    break;
                }
                let (mut bytes, mut count) = (Vec::new(), 0);
                for chunk in runs.iter().flatten() {
                    for (offset, entry) in (chunk.from..).zip(record_entries(chunk.entries())) {
                        if offset >= owned.end {
                            break;
                        }
                        letter.offset = offset;
                        put_dead_letter(&mut bytes, entry.record, &letter);
                        count += 1;
                        // Reasons make records longer: a batch must stay one that readers take.
                        if bytes.len() >= BATCH.bytes {
                            send(std::mem::take(&mut bytes), std::mem::take(&mut count))?;
                        }
                    }
                }
                if count > 0 {
                    send(bytes, count)?;
                }
                at = next;
            }
            let acks_more = topic.group_mode(group) == Some(Mode::Ordered) && owned.start > info.floor;
            if !acks_more {
                partition.ack(group, &[(grant, owned.clone())])?;
            }
        }
        self.inner.wakeups.signal(letters.name());
        Ok(settled)
    }
}

/// One dead letter, and where it is.
pub(super) type Letter = (Arc<Partition>, Chunk);

/// Where a list of dead letters begins, and how long it may be.
pub(super) struct Page {
    /// Partitions below are left out; None: `from_offset` is meant in each.
    pub from_partition: Option<u32>,
    /// In the first partition.
    pub from_offset: u64,
    /// At most.
    pub max_records: usize,
    /// At most, beyond the first one; with what a delivery has beside its record.
    pub max_bytes: usize,
}

/// A page of dead letters.
#[derive(Default)]
pub(super) struct Listed {
    /// Oldest first in each partition.
    pub letters: Vec<Letter>,
    /// How many there are in all.
    pub total: u64,
    /// Partition and offset of the first one that was left out.
    pub next: Option<(u32, u64)>,
}

/// Which dead letters are meant.
pub(super) struct Choice<'a> {
    /// Only this partition.
    pub partition: Option<u32>,
    /// Only those of this group; empty: all.
    pub group: &'a str,
    /// Only these offsets of the dead-letter partition; empty: all.
    pub ranges: &'a [Range<u64>],
}

impl Choice<'_> {
    fn takes(&self, offset: u64, record: &[u8]) -> bool {
        let in_range = self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(&offset));
        in_range && (self.group.is_empty() || letter_of(record).is_some_and(|letter| letter.group == self.group))
    }
}

impl Broker {
    /// The dead-letter topic of a topic, with the group that keeps what was redriven; None when there are no dead letters.
    fn letters_of(&self, topic: &Topic) -> Result<Option<Arc<Topic>>> {
        match self.topic(&names::dead_letters_of(topic.name())) {
            Err(err) if err.code() == Code::TopicNotFound => Ok(None),
            Err(err) => Err(err),
            Ok(letters) => {
                let mode = Some(Mode::Shared);
                letters.ensure_group(REDRIVE_GROUP, mode, &|_| Ok(None), self.first_grant(), Code::GroupMode)?;
                Ok(Some(letters))
            }
        }
    }

    /// Dead letters that were not redriven, a page of them, and how many there are in all.
    pub(super) fn list_dead_letters(&self, topic: &Topic, choice: &Choice<'_>, page: &Page) -> Result<Listed> {
        let mut listed = Listed::default();
        let Some(letters) = self.letters_of(topic)? else { return Ok(listed) };
        let mut bytes = 0;
        for partition in letters.partitions() {
            listed.total += partition.group_info(REDRIVE_GROUP, self.inner.clock.monotonic_ns())?.lag;
            let number = partition.number();
            let is_asked = choice.partition.is_none_or(|only| only == number);
            if !is_asked || page.from_partition.is_some_and(|first| number < first) || listed.next.is_some() {
                continue;
            }
            let begins_here = page.from_partition.is_none_or(|first| number == first);
            let from_offset = if begins_here { page.from_offset } else { 0 };
            'partition: for open in partition.open_ranges(REDRIVE_GROUP)? {
                let mut at = open.start.max(from_offset);
                while at < open.end {
                    let (runs, next) = partition.read(at, BATCH)?;
                    for chunk in runs.iter().flatten() {
                        for (offset, entry) in (chunk.from..).zip(record_entries(chunk.entries())) {
                            if !open.contains(&offset) || !choice.takes(offset, entry.record) {
                                continue;
                            }
                            let found = &mut listed.letters;
                            bytes += entry.record.len() + LETTER_HEAD_BYTES;
                            if found.len() >= page.max_records || (bytes > page.max_bytes && !found.is_empty()) {
                                listed.next = Some((number, offset));
                                break 'partition;
                            }
                            found.push((partition.clone(), chunk.at(offset)));
                        }
                    }
                    if next <= at {
                        break;
                    }
                    at = next;
                }
            }
        }
        Ok(listed)
    }

    /// Appends dead letters to their topic again, without what made them dead letters, and acks them. Returns how many.
    /// One call at a time does so in a partition, and only while the broker takes records.
    pub(super) fn redrive(&self, topic: &Topic, choice: &Choice<'_>) -> Result<u64> {
        // Dead letters stay where they are until the topic may take records.
        self.check_not_draining()?;
        self.check_free_space()?;
        let Some(letters) = self.letters_of(topic)? else { return Ok(0) };
        let mut redriven = 0;
        for partition in letters.partitions() {
            if choice.partition.is_some_and(|only| only != partition.number()) {
                continue;
            }
            let target = topic.partition(partition.number())?;
            // What is open is asked for behind the lock: another call may have put it back by then.
            let _redriving = partition.redriving();
            for open in partition.open_ranges(REDRIVE_GROUP)? {
                redriven += self.redrive_range(&partition, &target, &open, choice)?;
            }
        }
        self.inner.wakeups.signal(topic.name());
        Ok(redriven)
    }

    fn redrive_range(&self, from: &Partition, to: &Partition, open: &Range<u64>, choice: &Choice<'_>) -> Result<u64> {
        let (mut at, mut redriven) = (open.start, 0);
        while at < open.end {
            let (runs, next) = from.read(at, BATCH)?;
            let (mut bytes, mut moved) = (Vec::new(), Vec::new());
            for chunk in runs.iter().flatten() {
                for (offset, entry) in (chunk.from..).zip(record_entries(chunk.entries())) {
                    if open.contains(&offset) && choice.takes(offset, entry.record) {
                        put_bytes(&mut bytes, 15, without_letter(entry.record));
                        moved.push(offset..offset + 1);
                    }
                }
            }
            if !moved.is_empty() {
                self.check_not_draining()?;
                self.check_free_space()?;
                let count = u32::try_from(moved.len()).unwrap_or(u32::MAX);
                self.append(to, &Records::trusted(bytes, count))?;
                // A crash before this makes them twice, in the topic as among the dead letters.
                from.settle_unleased(REDRIVE_GROUP, &moved)?;
                redriven += u64::from(count);
            }
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(redriven)
    }
}

/// The last `dead_letter` field of a record.
fn letter_of(record: &[u8]) -> Option<v1::DeadLetter> {
    v1::DeadLetter::decode(RecordView::of(record).dead_letter?).ok()
}

/// The record as it was before it became a dead letter: the field that was appended is its last one.
fn without_letter(record: &[u8]) -> &[u8] {
    let (mut cursor, mut end) = (Cursor::new(record), record.len());
    while let Ok(Some(field)) = cursor.next_field() {
        if field.number == 15 {
            end = field.start;
        }
    }
    &record[..end]
}

/// Appends an entry: the record's bytes and, behind them, its `dead_letter` field.
fn put_dead_letter(out: &mut Vec<u8>, record: &[u8], letter: &v1::DeadLetter) {
    let letter = letter.encode_to_vec();
    let mut field = vec![ENTRY_TAG];
    put_varint(&mut field, letter.len() as u64);
    field.extend_from_slice(&letter);
    out.push(ENTRY_TAG);
    put_varint(out, (record.len() + field.len()) as u64);
    out.extend_from_slice(record);
    out.extend_from_slice(&field);
}
