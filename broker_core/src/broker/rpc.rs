//! The unary calls of `BrokerService`, on encoded messages: one path for embedded and remote clients.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use prost::bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::chunk::{Bounds, Chunk};
use super::config::{MAX_VISIBILITY_TIMEOUT_MS, TopicConfig};
use super::dead_letter::{Choice, Listed, Page};
use super::info::{GroupInfo, PartitionInfo};
use super::names;
use super::partition::Partition;
use super::topic::{Basis, Topic, group_not_found};
use super::{Broker, Code, Delivered, Error, MAX_ANSWER_BYTES, Placed, Receive, Result, Unsettled};
use crate::log::Appended;
use crate::log::frame::{FrameBody, HEADER_BYTES};
use crate::queue::lease::LeaseId;
use crate::queue::{Mode, Settled};
use crate::wire::delivery::DELIVERY_TAG;
use crate::wire::record::MAX_BATCH_BYTES;
use crate::wire::{ProduceHead, Records, v1};

/// Records of one answer, at most.
const MAX_RECORDS: u32 = 65_536;
/// Records of a delivery whose request asks for none, at most.
pub const DEFAULT_RECORDS: u32 = 500;
const DEFAULT_BYTES: u32 = 1 << 20;
/// Bytes of all deliveries of one answer whose request asks for none, at most, beyond a last record of at most 1 MiB: with
/// that one it stays under the 2 MiB that are promised.
const UNASKED_BYTES: usize = (1 << 20) - (16 << 10);
/// Bytes of a page of names, at most.
const PAGE_BYTES: usize = 1 << 20;
const MAX_DELIVERIES: u32 = 64;
const MAX_WAIT_MS: u32 = 60_000;
/// Dead letters of one answer.
const DEFAULT_LETTERS: u32 = 100;
const MAX_LETTERS: u32 = 10_000;
/// Leases of one ack, nack or extend, at most.
const MAX_LEASES: usize = 10_000;

/// The request of a call.
pub fn decode_request<M: Message + Default>(method: &str, request: &[u8]) -> Result<M> {
    M::decode(request)
        .map_err(|err| Error::new(Code::InvalidArgument, format!("{method}: the request is no {method}Request: {err}")))
}

fn bounded(field: &'static str, value: u32, default: u32, max: u32) -> Result<u32> {
    match value {
        0 => Ok(default),
        value if value <= max => Ok(value),
        value => {
            Err(Error::new(Code::InvalidArgument, format!("{field} is {value}, it may be at most {max}")).field(field))
        }
    }
}

fn bounds(max_records: u32, max_bytes: u32) -> Result<Bounds> {
    let bytes = bounded("max_bytes", max_bytes, DEFAULT_BYTES, u32::try_from(MAX_BATCH_BYTES).unwrap_or(u32::MAX))?;
    Ok(Bounds { records: bounded("max_records", max_records, DEFAULT_RECORDS, MAX_RECORDS)?, bytes: bytes as usize })
}

fn mode_of(mode: i32) -> Result<Option<Mode>> {
    match v1::GroupMode::try_from(mode) {
        Ok(v1::GroupMode::Unspecified) => Ok(None),
        Ok(v1::GroupMode::Shared) => Ok(Some(Mode::Shared)),
        Ok(v1::GroupMode::Ordered) => Ok(Some(Mode::Ordered)),
        Err(_) => {
            let message = format!("group mode {mode} is not known: 1 is shared, 2 ordered");
            Err(Error::new(Code::InvalidArgument, message).field("mode"))
        }
    }
}

fn group_to_wire(name: String, mode: Mode) -> v1::Group {
    let mode = match mode {
        Mode::Shared => v1::GroupMode::Shared,
        Mode::Ordered => v1::GroupMode::Ordered,
    };
    v1::Group { name, mode: mode.into() }
}

/// A delivery's fields in front of its records.
fn delivery_head(topic: &str, partition: u32, log_id: [u8; 16], chunks: &[Chunk]) -> v1::Delivery {
    let mut append_runs: Vec<v1::AppendRun> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let count = u32::try_from(chunk.to - chunk.from).unwrap_or(u32::MAX);
        match append_runs.last_mut() {
            Some(last) if last.append_time_ns == chunk.append_ns() => last.count += count,
            _ => append_runs.push(v1::AppendRun { count, append_time_ns: chunk.append_ns() }),
        }
    }
    v1::Delivery {
        topic: topic.to_owned(),
        partition,
        log_id: log_id.to_vec(),
        base_offset: chunks.first().map_or(0, |chunk| chunk.from),
        append_runs,
        ..v1::Delivery::default()
    }
}

/// A delivery whose records are still where the log has them.
pub struct Handed {
    /// Everything but the records.
    pub head: v1::Delivery,
    /// The records, in order. Never empty.
    pub chunks: Vec<Chunk>,
}

impl Handed {
    /// Number of its records.
    pub fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.to - chunk.from).sum()
    }

    fn delivery_len(&self) -> usize {
        self.head.encoded_len() + self.chunks.iter().map(|chunk| chunk.entries().len()).sum::<usize>()
    }

    /// Bytes of the field that [`Handed::put_head`] begins.
    pub fn field_len(&self) -> usize {
        let len = self.delivery_len();
        1 + encoded_len_varint(len as u64) + len
    }

    /// Appends field 1 of a message, as `ReceiveResponse`, `ReadResponse` and `ConsumeResponse` have it, up to the records
    /// of the delivery. These have to follow, as they are in the log.
    pub fn put_head(&self, out: &mut impl BufMut) {
        out.put_u8(DELIVERY_TAG);
        encode_varint(self.delivery_len() as u64, out);
        self.head.encode_raw(out);
    }
}

fn put_delivery(out: &mut Vec<u8>, delivery: &Handed) {
    out.reserve(delivery.field_len());
    delivery.put_head(out);
    for chunk in &delivery.chunks {
        out.extend_from_slice(chunk.entries());
    }
}

/// The answer to a `Receive` that found this.
pub fn received(handed: &[Handed], next_due_ms: u32) -> Vec<u8> {
    let mut response = Vec::new();
    for delivery in handed {
        put_delivery(&mut response, delivery);
    }
    response.extend(v1::ReceiveResponse { deliveries: Vec::new(), next_due_ms }.encode_to_vec());
    response
}

/// As many as an answer holds, and at most `max` (0: any number); and whether there are more.
fn page<M: Message>(entries: impl Iterator<Item = M>, max: u32) -> (Vec<M>, bool) {
    let max = if max == 0 { usize::MAX } else { max as usize };
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += entry.encoded_len() + 4; // its tag and length
        if taken.len() >= max || bytes > PAGE_BYTES {
            return (taken, true);
        }
        taken.push(entry);
    }
    (taken, false)
}

/// The answer to a `Produce`.
fn produced((placed, unsettled): (Vec<Placed>, Unsettled)) -> (Vec<u8>, Unsettled) {
    let appended = placed.iter().map(|placed| {
        let at =
            v1::Appended { partition: placed.partition, log_id: placed.log_id.0.to_vec(), ..v1::Appended::default() };
        match placed.appended {
            Appended::At { base } => v1::Appended { base_offset: base, count: placed.count, ..at },
            Appended::Duplicate => v1::Appended { duplicate: true, ..at },
        }
    });
    (v1::ProduceResponse { appended: appended.collect() }.encode_to_vec(), unsettled)
}

/// An answer, and what of it is to be waited for, if anything is.
fn left_to_settle((response, unsettled): (Vec<u8>, Unsettled)) -> (Vec<u8>, Option<Unsettled>) {
    (response, (!unsettled.is_settled()).then_some(unsettled))
}

/// One range of one lease, found in its partition.
struct LeasePart {
    lease: LeaseId,
    bytes: Vec<u8>,
    ranges: Vec<Range<u64>>,
}

impl Broker {
    /// Runs one unary call: an encoded request in, the encoded response out. `Receive` and `Read` do not wait.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<Vec<u8>> {
        let (response, unsettled) = self.call_unsettled(method, request)?;
        unsettled.map_or(Ok(()), |unsettled| self.settle(&unsettled))?;
        Ok(response)
    }

    /// As [`Broker::call`], but what `Produce` and `Ack` write to an `fsync` topic is left to [`Broker::settle`], and
    /// nobody may be told of it before.
    pub fn call_unsettled(&self, method: &str, request: &[u8]) -> Result<(Vec<u8>, Option<Unsettled>)> {
        match method {
            "Produce" => {
                let placed = self.produce_unsettled(&ProduceHead::parse(request)?)?;
                Ok(left_to_settle(produced(placed)))
            }
            "Ack" => self.ack_unsettled(decode_request(method, request)?),
            _ => Ok((self.call_settled(method, request)?, None)),
        }
    }

    /// [`Broker::call_unsettled`] of a `Produce`, see [`Broker::produce_body`].
    pub fn call_produce(
        &self,
        head: &ProduceHead<'_>,
        body: &mut FrameBody,
        count: u32,
    ) -> Result<(Vec<u8>, Option<Unsettled>)> {
        Ok(left_to_settle(produced(self.produce_body(head, body, count)?)))
    }

    /// [`Broker::call_unsettled`] of the `Produce` in these bytes. Its records are not copied where they are what the bytes
    /// end with, and have room enough in front of them for a frame's header.
    pub fn call_produce_in(&self, mut bytes: Vec<u8>, request: Range<usize>) -> Result<(Vec<u8>, Option<Unsettled>)> {
        let head = ProduceHead::parse(&bytes[request.clone()])?;
        let entries = head.records_at.clone().map(|entries| request.start + entries.start..request.start + entries.end);
        let (Some(entries), Some(_)) = (entries.filter(|entries| entries.start >= HEADER_BYTES), head.partition) else {
            return Ok(left_to_settle(produced(self.produce_unsettled(&head)?)));
        };
        let (topic, producer, count) = (head.topic.to_owned(), head.producer.to_owned(), head.records.count());
        let head = ProduceHead {
            topic: &topic,
            partition: head.partition,
            producer: &producer,
            sequence: head.sequence,
            records: Records::empty(),
            records_at: None,
        };
        bytes.truncate(entries.end);
        self.call_produce(&head, &mut FrameBody::of(bytes, entries.start), count)
    }

    /// [`Broker::call_unsettled`] of an `Ack`.
    pub fn ack_unsettled(&self, request: v1::AckRequest) -> Result<(Vec<u8>, Option<Unsettled>)> {
        Ok(left_to_settle(self.rpc_ack(request)?))
    }

    fn call_settled(&self, method: &str, request: &[u8]) -> Result<Vec<u8>> {
        match method {
            "Receive" => self.rpc_receive(&decode_request(method, request)?),
            "Nack" => self.nack(decode_request(method, request)?),
            "Extend" => self.extend(decode_request(method, request)?),
            "Read" => self.rpc_read(&decode_request(method, request)?),
            "OpenProducer" => self.rpc_open_producer(&decode_request(method, request)?),
            "CreateTopic" => self.rpc_create_topic(&decode_request(method, request)?),
            "ListTopics" => self.rpc_list_topics(&decode_request(method, request)?),
            "DescribeTopic" => self.rpc_describe_topic(&decode_request(method, request)?),
            "ConfigureTopic" => self.rpc_configure_topic(&decode_request(method, request)?),
            "DeleteTopic" => {
                let request: v1::DeleteTopicRequest = decode_request(method, request)?;
                self.delete_topic(&request.name)?;
                Ok(v1::DeleteTopicResponse {}.encode_to_vec())
            }
            "PurgeTopic" => self.rpc_purge_topic(&decode_request(method, request)?),
            "CreateGroup" => self.rpc_create_group(decode_request(method, request)?),
            "ListGroups" => self.rpc_list_groups(&decode_request(method, request)?),
            "DescribeGroup" => self.rpc_describe_group(decode_request(method, request)?),
            "SeekGroup" => self.rpc_seek_group(&decode_request(method, request)?),
            "DeleteGroup" => {
                let request: v1::DeleteGroupRequest = decode_request(method, request)?;
                let topic = self.topic(&request.topic)?;
                topic.delete_group(&request.group)?;
                self.inner.wakeups.signal(topic.name());
                Ok(v1::DeleteGroupResponse {}.encode_to_vec())
            }
            "ListDeadLetters" => self.rpc_list_dead_letters(&decode_request(method, request)?),
            "RedriveDeadLetters" => self.rpc_redrive(&decode_request(method, request)?),
            "DescribeBroker" => self.rpc_describe_broker(),
            "DrainBroker" => {
                let request: v1::DrainBrokerRequest = decode_request(method, request)?;
                Ok(v1::DrainBrokerResponse { remaining: self.drain(request.draining)? }.encode_to_vec())
            }
            _ => Err(Error::new(
                Code::Unsupported,
                format!("this broker (version {}) does not know the call {method:?}", env!("CARGO_PKG_VERSION")),
            )),
        }
    }

    /// `Receive`, with the records as they stand in the log: for who needs them in no message.
    pub fn call_receive(&self, request: &[u8]) -> Result<(Vec<Handed>, u32)> {
        self.hand_out(&decode_request("Receive", request)?)
    }

    fn rpc_receive(&self, request: &v1::ReceiveRequest) -> Result<Vec<u8>> {
        let (handed, next_due_ms) = self.hand_out(request)?;
        Ok(received(&handed, next_due_ms))
    }

    /// What is ready, or else the milliseconds until something may be; 0: nobody knows.
    pub fn hand_out(&self, request: &v1::ReceiveRequest) -> Result<(Vec<Handed>, u32)> {
        let deliveries = bounded("max_deliveries", request.max_deliveries, 1, MAX_DELIVERIES)?;
        let wish = Receive {
            topic: &request.topic,
            group: &request.group,
            consumer: &request.consumer,
            partitions: &request.partitions,
            bounds: bounds(request.max_records, request.max_bytes)?,
            total_bytes: if request.max_bytes == 0 { UNASKED_BYTES } else { MAX_ANSWER_BYTES },
            deliveries: deliveries as usize,
            wait_ms: bounded("wait_ms", request.wait_ms, 0, MAX_WAIT_MS)?,
            visibility_timeout_ms: visibility_timeout(request.visibility_timeout_ms)?,
            mode: mode_of(request.mode)?,
        };
        let (delivered, next_due_ms) = self.receive(&wish)?;
        let handed = delivered.into_iter().map(|Delivered { lease, visibility_timeout_ms, leased }| Handed {
            head: v1::Delivery {
                lease_id: lease.encode(),
                attempt: leased.attempt,
                visibility_timeout_ms,
                ..delivery_head(&request.topic, lease.partition, lease.log_id.0, &leased.chunks)
            },
            chunks: leased.chunks,
        });
        Ok((handed.collect(), next_due_ms.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX))))
    }

    fn rpc_list_topics(&self, request: &v1::ListTopicsRequest) -> Result<Vec<u8>> {
        let topics = self.topics()?;
        let behind = topics.iter().filter(|topic| **topic.name() > *request.after);
        let (topics, more) = page(behind.map(|topic| self.topic_to_wire(topic)), request.max_topics);
        Ok(v1::ListTopicsResponse { topics, more }.encode_to_vec())
    }

    fn rpc_list_groups(&self, request: &v1::ListGroupsRequest) -> Result<Vec<u8>> {
        let groups = self.topic(&request.topic)?.groups();
        let groups = groups.into_iter().map(|(name, mode)| group_to_wire(name, mode)).collect();
        Ok(v1::ListGroupsResponse { groups }.encode_to_vec())
    }

    /// Whether a `Receive` waits for the disk: the first one of a group does, for it makes the group.
    pub fn receive_waits(&self, topic: &str, group: &str) -> bool {
        self.topic(topic).is_ok_and(|topic| topic.group_id(group).is_none())
    }

    fn known_group(&self, topic: &str, group: &str) -> Result<(Arc<Topic>, u64)> {
        let topic = self.topic(topic)?;
        match topic.group_id(group) {
            Some(id) => Ok((topic, id)),
            None => Err(group_not_found(topic.name(), group)),
        }
    }

    fn rpc_ack(&self, request: v1::AckRequest) -> Result<(Vec<u8>, Unsettled)> {
        let (topic, group_id) = self.known_group(&request.topic, &request.group)?;
        let mut was_withheld = false;
        let mut unsettled = Unsettled::of(topic.clone());
        let settled = on_leases(&topic, group_id, request.leases, |partition, ranges| {
            let (settled, write) = partition.ack_unsettled(&request.group, ranges)?;
            self.written(partition);
            unsettled.add(partition, write);
            was_withheld |= partition.take_withheld(&request.group);
            Ok(settled)
        });
        if was_withheld || topic.group_mode(&request.group) == Some(Mode::Ordered) {
            // The hold may have become free, or there is room for more in flight.
            self.inner.wakeups.signal(topic.name());
        }
        let (acked, stale) = settled?;
        Ok((v1::AckResponse { acked, stale }.encode_to_vec(), unsettled))
    }

    /// [`Broker::call`] of a `Nack`.
    pub fn nack(&self, request: v1::NackRequest) -> Result<Vec<u8>> {
        let (topic, group_id) = self.known_group(&request.topic, &request.group)?;
        let delay_ms = bounded("delay_ms", request.delay_ms, 0, MAX_VISIBILITY_TIMEOUT_MS)?;
        let due_ns = match delay_ms {
            0 => 0,
            delay => self.inner.clock.monotonic_ns() + u64::from(delay) * 1_000_000,
        };
        let settled = on_leases(&topic, group_id, request.leases, |partition, ranges| {
            if !request.dead_letter {
                return partition.nack(&request.group, ranges, due_ns);
            }
            let letters = ranges.iter().cloned();
            letters
                .map(|part| self.dead_letter(&topic, partition, &request.group, part, &request.reason, None))
                .collect()
        });
        self.inner.wakeups.signal(topic.name());
        let (nacked, stale) = settled?;
        Ok(v1::NackResponse { nacked, stale }.encode_to_vec())
    }

    /// [`Broker::call`] of an `Extend`.
    pub fn extend(&self, request: v1::ExtendRequest) -> Result<Vec<u8>> {
        let (topic, group_id) = self.known_group(&request.topic, &request.group)?;
        let timeout_ms = match visibility_timeout(request.visibility_timeout_ms)? {
            0 => topic.config().0.visibility_timeout_ms(self.options()),
            given => given,
        };
        let deadline_ns = self.inner.clock.monotonic_ns() + u64::from(timeout_ms) * 1_000_000;
        let mut extended = 0;
        let leases = request.leases.into_iter().map(|lease| v1::LeaseRange { ranges: Vec::new(), ..lease }).collect();
        let settled = on_leases(&topic, group_id, leases, |partition, ranges| {
            let grants: Vec<u64> = ranges.iter().map(|(grant, _)| *grant).collect();
            let outcomes = partition.extend(&request.group, &grants, deadline_ns)?;
            let settle = |(runs, (_, range)): (bool, &(u64, Range<u64>))| {
                extended += u64::from(runs);
                Settled { done: Vec::new(), stale: if runs { Vec::new() } else { vec![range.clone()] } }
            };
            Ok(outcomes.into_iter().zip(ranges).map(settle).collect())
        });
        // A lease may have become shorter: whoever waits must look when it ends.
        self.inner.wakeups.signal(topic.name());
        let (_, stale) = settled?;
        Ok(v1::ExtendResponse { extended, stale }.encode_to_vec())
    }

    fn rpc_read(&self, request: &v1::ReadRequest) -> Result<Vec<u8>> {
        bounded("wait_ms", request.wait_ms, 0, MAX_WAIT_MS)?;
        let topic = self.topic(&request.topic)?;
        let partition = topic.partition(request.partition)?;
        let from = resolve(&topic, &partition, request.from.as_ref())?.ok_or_else(|| {
            Error::new(Code::InvalidArgument, "Read needs `from`: an offset, a time, or an edge (start, end)")
                .field("from")
        })?;
        let (runs, next_offset) = partition.read(from, bounds(request.max_records, request.max_bytes)?)?;
        let log_id = partition.log_id().0;
        let mut response = Vec::new();
        for chunks in runs {
            let head = delivery_head(&request.topic, partition.number(), log_id, &chunks);
            put_delivery(&mut response, &Handed { head, chunks });
        }
        let rest = v1::ReadResponse { deliveries: Vec::new(), next_offset, log_id: log_id.to_vec() };
        response.extend(rest.encode_to_vec());
        Ok(response)
    }

    fn rpc_open_producer(&self, request: &v1::OpenProducerRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.topic)?;
        names::check_client("producer", &request.producer)?;
        let now_ns = self.inner.clock.wall_ns();
        let state = |partition: &Arc<Partition>| {
            let sequence = partition.producer_sequence(&request.producer, now_ns)?;
            Ok(v1::ProducerState { partition: partition.number(), log_id: partition.log_id().0.to_vec(), sequence })
        };
        let partitions = topic.partitions().iter().map(state).collect::<Result<Vec<_>>>()?;
        Ok(v1::OpenProducerResponse { partitions }.encode_to_vec())
    }

    fn topic_to_wire(&self, topic: &Topic) -> v1::Topic {
        let (config, config_version) = topic.config();
        v1::Topic { name: topic.name().to_string(), config: Some(config.to_wire(self.options())), config_version }
    }

    fn rpc_create_topic(&self, request: &v1::CreateTopicRequest) -> Result<Vec<u8>> {
        let config =
            TopicConfig::new(self.options()).with(request.config.as_ref().unwrap_or(&v1::TopicConfig::default()))?;
        let topic = self.create_topic(&request.name, config)?;
        if request.config_version > 1 {
            self.configure_topic(&topic, Basis::Elsewhere(request.config_version), |own| Ok(own.clone()))?;
        }
        Ok(v1::CreateTopicResponse { topic: Some(self.topic_to_wire(&topic)) }.encode_to_vec())
    }

    fn rpc_describe_topic(&self, request: &v1::DescribeTopicRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.name)?;
        let partitions = topic.partitions().iter().map(|partition| partition_to_wire(partition.info())).collect();
        let topic = Some(self.topic_to_wire(&topic));
        Ok(v1::DescribeTopicResponse { topic, partitions, missing_brokers: Vec::new() }.encode_to_vec())
    }

    fn rpc_configure_topic(&self, request: &v1::ConfigureTopicRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.name)?;
        let wish = request.config.unwrap_or_default();
        let basis = match (request.config_version, request.if_version) {
            (0, None) => Basis::Any,
            (0, Some(version)) => Basis::Version(version),
            (version, _) => Basis::Elsewhere(version),
        };
        self.configure_topic(&topic, basis, |config| config.with(&wish))?;
        self.inner.wakeups.signal(topic.name());
        Ok(v1::ConfigureTopicResponse { topic: Some(self.topic_to_wire(&topic)) }.encode_to_vec())
    }

    fn rpc_purge_topic(&self, request: &v1::PurgeTopicRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.name)?;
        let mut records = 0;
        for partition in topic.in_turn(&request.partitions)? {
            records += partition.purge()?;
        }
        self.inner.wakeups.signal(topic.name());
        Ok(v1::PurgeTopicResponse { records }.encode_to_vec())
    }

    fn rpc_create_group(&self, request: v1::CreateGroupRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.topic)?;
        let start = |partition: &Partition| resolve(&topic, partition, request.from.as_ref());
        let wish = Some(mode_of(request.mode)?.unwrap_or(Mode::Shared));
        let mode = topic.ensure_group(&request.group, wish, &start, self.first_grant(), Code::GroupExists)?;
        Ok(v1::CreateGroupResponse { group: Some(group_to_wire(request.group, mode)) }.encode_to_vec())
    }

    fn rpc_describe_group(&self, request: v1::DescribeGroupRequest) -> Result<Vec<u8>> {
        let (topic, _) = self.known_group(&request.topic, &request.group)?;
        let infos: Result<Vec<_>> = topic
            .partitions()
            .iter()
            .map(|partition| {
                partition.group_info(&request.group, self.inner.clock.monotonic_ns()).map(group_info_to_wire)
            })
            .collect();
        let mode = topic.group_mode(&request.group).unwrap_or(Mode::Shared);
        let group = Some(group_to_wire(request.group, mode));
        Ok(v1::DescribeGroupResponse { group, partitions: infos?, missing_brokers: Vec::new() }.encode_to_vec())
    }

    fn rpc_seek_group(&self, request: &v1::SeekGroupRequest) -> Result<Vec<u8>> {
        let (topic, _) = self.known_group(&request.topic, &request.group)?;
        let mut chosen = topic.in_turn(&request.partitions)?;
        chosen.sort_by_key(|partition| partition.number());
        // All positions first: a bad one moves nothing.
        let offsets = chosen.iter().map(|partition| {
            resolve(&topic, partition, request.to.as_ref())?.ok_or_else(|| {
                Error::new(Code::InvalidArgument, "SeekGroup needs `to`: an offset, a time, or an edge (start, end)")
                    .field("to")
            })
        });
        let offsets = offsets.collect::<Result<Vec<_>>>()?;
        let mut partitions = Vec::with_capacity(chosen.len());
        for (partition, offset) in chosen.iter().zip(offsets) {
            partition.seek(&request.group, offset)?;
            self.written(partition);
            partitions.push(group_info_to_wire(partition.group_info(&request.group, self.inner.clock.monotonic_ns())?));
        }
        self.inner.wakeups.signal(topic.name());
        Ok(v1::SeekGroupResponse { partitions }.encode_to_vec())
    }

    fn rpc_list_dead_letters(&self, request: &v1::ListDeadLettersRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.topic)?;
        let choice = Choice { partition: request.partition, group: &request.group, ranges: &[] };
        let max_bytes = bounds(1, request.max_bytes)?.bytes;
        let page = Page {
            from_partition: request.from_partition,
            from_offset: request.from_offset,
            max_records: bounded("max_records", request.max_records, DEFAULT_LETTERS, MAX_LETTERS)? as usize,
            max_bytes,
        };
        let Listed { letters, total, next } = self.list_dead_letters(&topic, &choice, &page)?;
        let name = names::dead_letters_of(topic.name());
        let mut response = Vec::new();
        for (partition, chunk) in letters {
            let chunks = vec![chunk];
            let head = delivery_head(&name, partition.number(), partition.log_id().0, &chunks);
            put_delivery(&mut response, &Handed { head, chunks });
        }
        let rest = v1::ListDeadLettersResponse {
            deliveries: Vec::new(),
            total,
            next_partition: next.map(|(partition, _)| partition),
            next_offset: next.map_or(0, |(_, offset)| offset),
            ..Default::default()
        };
        response.extend(rest.encode_to_vec());
        Ok(response)
    }

    fn rpc_redrive(&self, request: &v1::RedriveDeadLettersRequest) -> Result<Vec<u8>> {
        let topic = self.topic(&request.topic)?;
        if request.partition.is_none() && !request.ranges.is_empty() {
            return Err(Error::new(
                Code::InvalidArgument,
                "offsets to redrive need their partition; name it, or leave them out",
            )
            .field("partition"));
        }
        let ranges: Vec<Range<u64>> = request.ranges.iter().map(|range| range.start..range.end).collect();
        let choice = Choice { partition: request.partition, group: &request.group, ranges: &ranges };
        let redriven = self.redrive(&topic, &choice)?;
        Ok(v1::RedriveDeadLettersResponse { redriven }.encode_to_vec())
    }

    fn rpc_describe_broker(&self) -> Result<Vec<u8>> {
        let topics = self.topics()?;
        let dir = &self.inner.dir;
        let free_bytes = self.free_bytes()?;
        let partitions: usize = topics.iter().map(|topic| topic.partitions().len()).sum();
        Ok(v1::DescribeBrokerResponse {
            broker_id: self.inner.identity.broker_id.to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ns: self.inner.started_ns,
            data_dir: if self.inner.in_memory { String::new() } else { dir.display().to_string() },
            free_bytes,
            min_free_bytes: self.options().min_free_bytes,
            draining: self.inner.draining.load(std::sync::atomic::Ordering::Relaxed),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            name: self.options().name.clone(),
            members: self.options().members.iter().map(member_to_wire).collect(),
        }
        .encode_to_vec())
    }
}

/// Runs `act` on the leases of each partition, and says what was refused. Counts what `act` took effect on.
fn on_leases(
    topic: &Topic,
    group_id: u64,
    leases: Vec<v1::LeaseRange>,
    mut act: impl FnMut(&Arc<Partition>, &[(u64, Range<u64>)]) -> Result<Vec<Settled>>,
) -> Result<(u64, Vec<v1::StaleLease>)> {
    if leases.len() > MAX_LEASES {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("{} leases in one request, at most {MAX_LEASES} are taken; send several", leases.len()),
        )
        .field("leases"));
    }
    let parts = leases.into_iter().map(LeasePart::parse).collect::<Result<Vec<_>>>()?;
    let mut by_partition: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut refused: Vec<Vec<Range<u64>>> = vec![Vec::new(); parts.len()];
    for (index, part) in parts.iter().enumerate() {
        let partition = topic.partition(part.lease.partition).ok();
        // A lease of another log is of a partition that lost its volume, or of another topic's.
        let known = partition.is_some_and(|partition| partition.log_id() == part.lease.log_id);
        if known && part.lease.group_id == group_id {
            by_partition.entry(part.lease.partition).or_default().push(index);
        } else {
            refused[index].clone_from(&part.ranges);
        }
    }
    let mut done = 0;
    for (number, indexes) in by_partition {
        let of_part = |index: usize| parts[index].ranges.iter().map(move |range| (index, range.clone()));
        let ranges: Vec<(usize, Range<u64>)> = indexes.into_iter().flat_map(of_part).collect();
        let leased: Vec<(u64, Range<u64>)> =
            ranges.iter().map(|(index, range)| (parts[*index].lease.grant, range.clone())).collect();
        for (settled, (index, _)) in act(&topic.partition(number)?, &leased)?.into_iter().zip(&ranges) {
            done += settled.done.iter().map(|range| range.end - range.start).sum::<u64>();
            refused[*index].extend(settled.stale);
        }
    }
    let stale = parts.iter().zip(refused).filter(|(_, ranges)| !ranges.is_empty());
    Ok((done, stale.map(|(part, ranges)| part.stale(ranges)).collect()))
}

/// The offset of a position in a partition; None: where nothing was said.
fn resolve(topic: &Topic, partition: &Partition, position: Option<&v1::Position>) -> Result<Option<u64>> {
    let Some(position) = position else { return Ok(None) };
    let (start, end) = partition.edges();
    if !position.log_id.is_empty() && position.log_id != partition.log_id().0 {
        return Err(Error::new(
            Code::PositionLogId,
            format!(
                "{}/{} has log {:?}, not the log of that position: it was made anew, offsets of the old one mean \
                 nothing; begin at its start",
                topic.name(),
                partition.number(),
                partition.log_id()
            ),
        ));
    }
    match position.at {
        None => Ok(None),
        Some(v1::position::At::Offset(offset)) => {
            if offset > end {
                return Err(Error::new(
                    Code::PositionOutOfRange,
                    format!(
                        "{}/{} goes from offset {start} to {end}, it has no {offset}: give an offset up to {end}, a time, \
                         or an edge (start, end)",
                        topic.name(),
                        partition.number()
                    ),
                ));
            }
            Ok(Some(offset))
        }
        Some(v1::position::At::TimeNs(time)) => partition.offset_at(time).map(Some),
        Some(v1::position::At::Edge(edge)) => match v1::Edge::try_from(edge) {
            Ok(v1::Edge::Start) => Ok(Some(start)),
            Ok(v1::Edge::End) => Ok(Some(end)),
            _ => {
                let message = format!("edge {edge} is not known: 1 is the start, 2 the end");
                Err(Error::new(Code::InvalidArgument, message).field("edge"))
            }
        },
    }
}

fn visibility_timeout(timeout_ms: u32) -> Result<u32> {
    bounded("visibility_timeout_ms", timeout_ms, 0, MAX_VISIBILITY_TIMEOUT_MS)
}

impl LeasePart {
    fn parse(wire: v1::LeaseRange) -> Result<LeasePart> {
        let lease = LeaseId::decode(&wire.lease_id)?;
        let whole = lease.start..lease.end();
        let mut ranges = Vec::with_capacity(wire.ranges.len().max(1));
        for range in &wire.ranges {
            if range.start >= range.end || range.start < whole.start || range.end > whole.end {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!(
                        "offsets {}..{} are not inside the lease's {}..{}",
                        range.start, range.end, whole.start, whole.end
                    ),
                ));
            }
            ranges.push(range.start..range.end);
        }
        if ranges.is_empty() {
            ranges.push(whole);
        }
        Ok(LeasePart { lease, bytes: wire.lease_id, ranges })
    }

    fn stale(&self, ranges: Vec<Range<u64>>) -> v1::StaleLease {
        let ranges = ranges.into_iter().map(|range| v1::OffsetRange { start: range.start, end: range.end }).collect();
        v1::StaleLease { lease_id: self.bytes.clone(), ranges }
    }
}

fn partition_to_wire(info: PartitionInfo) -> v1::PartitionState {
    v1::PartitionState {
        partition: info.partition,
        log_id: info.log_id.0.to_vec(),
        start_offset: info.start,
        end_offset: info.end,
        synced_end_offset: info.synced_end,
        bytes: info.bytes,
        last_append_time_ns: info.last_append_ns,
        poisoned: info.poisoned,
        recovered_cut_bytes: info.recovered_cut_bytes,
        dropped_records: info.dropped_records,
        forgotten_producers: info.forgotten_producers,
        broker: String::new(),
    }
}

fn member_to_wire((name, address): &(String, String)) -> v1::Member {
    v1::Member { name: name.clone(), address: address.clone(), ..v1::Member::default() }
}

fn group_info_to_wire(info: GroupInfo) -> v1::GroupPartitionState {
    v1::GroupPartitionState {
        partition: info.partition,
        log_id: info.log_id.0.to_vec(),
        acked_end_offset: info.floor,
        next_offset: info.next,
        lag: info.lag,
        in_flight: info.in_flight,
        leases: info.leases,
        holder: info.holder,
        redelivered: info.redelivered,
        journal_bad_bytes: info.journal_bad_bytes,
        broker: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_what_was_asked_for_and_never_more_than_its_bytes() {
        let topics = |count: usize| {
            (0..count).map(|number| v1::Topic { name: format!("{number:0200}"), ..v1::Topic::default() })
        };
        let pages = |count, max| {
            let (entries, more) = page(topics(count), max);
            (entries.len(), more)
        };
        assert_eq!(pages(0, 0), (0, false));
        assert_eq!(pages(10, 0), (10, false));
        assert_eq!(pages(10, 10), (10, false));
        assert_eq!(pages(10, 9), (9, true));
        let (held, more) = page(topics(10_000), 0);
        assert!(more);
        let answer = v1::ListTopicsResponse { topics: held, more };
        assert!((PAGE_BYTES - (16 << 10)..=PAGE_BYTES).contains(&answer.encoded_len()), "{}", answer.encoded_len());
    }
}
