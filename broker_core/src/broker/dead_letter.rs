//! Dead letters: records that a group gives up on, in the topic `<topic>.dlq`.
//!
//! A dead letter is the record's own bytes with one field appended (protobuf joins concatenated messages), in the same
//! partition number. It is appended before the record is acked, so a crash between the two makes it twice:
//! (log id, offset, group) says that both are one.

use std::ops::Range;
use std::sync::Arc;

use prost::Message;

use super::names::{self, DEAD_LETTER_SUFFIX};
use super::partition::{Bounds, Partition};
use super::topic::Topic;
use super::{Broker, Code, Error, Result};
use crate::queue::{Mode, Settled};
use crate::wire::cursor::put_varint;
use crate::wire::record::ENTRY_TAG;
use crate::wire::{Records, record_entries, v1};

/// Bytes of a reason, at most.
const MAX_REASON: usize = 4096;
/// Records moved at a time.
const BATCH: Bounds = Bounds { records: 4096, bytes: 4 << 20 };

impl Broker {
    /// The dead-letter topic of a topic, with at least as many partitions.
    fn dead_letter_topic(&self, topic: &Topic) -> Result<Arc<Topic>> {
        let name = format!("{}{DEAD_LETTER_SUFFIX}", topic.name());
        let config = topic.config().0;
        let letters = match self.topic(&name) {
            Err(err) if err.code() == Code::TopicNotFound => self.create_topic(&name, config.clone())?,
            other => other?,
        };
        letters.configure(None, self.first_grant(), |own| {
            let mut own = own.clone();
            own.partitions = own.partitions.max(config.partitions);
            Ok(own)
        })?;
        Ok(letters)
    }

    /// Sends the records of a lease's range to the dead-letter topic and acks them, as far as the lease still has them.
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
            ));
        }
        names::check("group", group)?;
        let (settled, attempts) = partition.owned(group, grant, range)?;
        let info = partition.group_info(group)?;
        let letters = self.dead_letter_topic(topic)?;
        let target = letters.partition(partition.number())?;
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
                            let batch = Records::trusted(std::mem::take(&mut bytes), std::mem::take(&mut count));
                            self.append(&target, &batch, None)?;
                        }
                    }
                }
                if count > 0 {
                    self.append(&target, &Records::trusted(bytes, count), None)?;
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
