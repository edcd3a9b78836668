//! Whole lives of a broker: random calls, faults and restarts, each answer held against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::error::{Code, Error};
use broker_core::log::Durability;
use broker_core::wire::v1;
use prost::Message;

use crate::disk::{End, Fault, SimDisk};
use crate::files;
use crate::model::{Cursor, Dead, Done, Exists, Given, Group, Lease, Op, Partition, Record, Topic, value_bytes};
use crate::random::Random;

const DIR: &str = "/broker";
const TOPICS: [(&str, Durability); 3] =
    [("memory", Durability::Memory), ("os", Durability::Os), ("fsync", Durability::Fsync)];
const GROUPS: [(&str, bool); 3] = [("shared", false), ("other", false), ("ordered", true)];
const CONSUMERS: [&str; 3] = ["one", "two", "three"];
const PRODUCERS: [&str; 2] = ["p", "q"];
const QUEUE_SIZE: usize = 12;
const MAX_BATCH: usize = 6;
/// Few, so that journals are rewritten all the time.
const JOURNAL_ENTRIES: u64 = 8;
const SECOND: u64 = 1_000_000_000;
/// Acked records of this age may go.
const RETENTION_MS: u64 = 2_000;

/// What a life may meet beside deaths of the process and power cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Full disks, failed writes and failed syncs.
    Errors,
    /// Bits of segments that turn around: answers may fail, but never be wrong.
    FlippedBits,
}

pub struct Life {
    random: Random,
    trouble: Trouble,
    disk: Arc<SimDisk>,
    clock: Arc<ManualClock>,
    now_ns: u64,
    broker: Option<Broker>,
    topics: Vec<Topic>,
    leases: Vec<Lease>,
    next_value: u64,
    lives: u64,
    /// The worst end since the model last saw all that is there.
    worst: End,
    full: bool,
    flipped: bool,
    /// A call ended so that the model does not know enough to go on.
    unsure: bool,
    pub steps: Vec<String>,
}

fn produced(values: &[u64]) -> Vec<v1::Record> {
    values.iter().map(|&value| v1::Record { value: value_bytes(value), ..Default::default() }).collect()
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let trouble = if random.chance(85) { Trouble::Errors } else { Trouble::FlippedBits };
        let disk = Arc::new(SimDisk::new(random.next()));
        let topics = TOPICS.map(|(name, durability)| Topic {
            name,
            durability,
            exists: Exists::No,
            partitions: Vec::new(),
            groups: BTreeMap::new(),
            doubtful_starts: BTreeMap::new(),
            dead: Vec::new(),
            given_up: BTreeSet::new(),
        });
        Self {
            random,
            trouble,
            disk,
            clock: Arc::new(ManualClock::new(1_000_000_000_000)),
            now_ns: 0,
            broker: None,
            topics: topics.into(),
            leases: Vec::new(),
            next_value: 1,
            lives: 0,
            worst: End::Clean,
            full: false,
            flipped: false,
            unsure: false,
            steps: Vec::new(),
        }
    }

    /// Lives one life to its end.
    pub fn run(&mut self) {
        self.note(format!("trouble: {:?}", self.trouble));
        self.open();
        for _ in 0..40 + self.random.below(120) {
            self.step();
            // Whatever the step was: a group that begins behind records does not need them.
            self.topics.iter_mut().for_each(Topic::mark_dispensable);
            if self.unsure {
                // A delete that failed: nobody knows what is to be expected.
                return;
            }
            if self.disk.is_dead() {
                self.die();
            }
            if self.broker.is_none() {
                // Too damaged to be opened.
                return;
            }
        }
        self.drain();
    }

    fn note(&mut self, step: String) {
        self.steps.push(step);
    }

    // --- calls ---

    /// One call. An error must have a cause that this simulation injected, and the code that belongs to it.
    fn call<M: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<M, Error> {
        let before = (self.disk.errors(), self.disk.refusals());
        let answer = self.broker.as_ref().unwrap().call(method, &request.encode_to_vec());
        match answer {
            Ok(answer) => Ok(M::decode(answer.as_slice()).unwrap()),
            Err(err) => {
                self.note(format!("  {method} failed: {err}"));
                self.check_error(method, &err, before);
                Err(err)
            }
        }
    }

    fn check_error(&self, what: &str, err: &Error, before: (usize, usize)) {
        let (errors, refusals) = (self.disk.errors() > before.0, self.disk.refusals() > before.1);
        let explained = self.disk.is_dead()
            || match err.code() {
                Code::DataIo => errors || refusals,
                Code::LogFull => refusals && err.retry_after().is_some(),
                Code::LogPoisoned => self.disk.errors() > 0,
                Code::LogCorrupt | Code::DataFormat => self.flipped,
                // What an earlier try left could not be taken away.
                Code::TopicExists => what == "CreateTopic" && self.disk.errors() > 0,
                _ => false,
            };
        assert!(explained, "{what} failed without a cause: {err}");
        if what == "Produce" && refusals && self.disk.errors() == 0 && !self.disk.is_dead() {
            assert_eq!(err.code(), Code::LogFull, "a full disk is to be told as one: {err}");
        }
    }

    fn pick_topic(&mut self) -> Option<usize> {
        let index = self.random.below(self.topics.len());
        (self.topics[index].exists == Exists::Yes).then_some(index)
    }

    // --- steps ---

    fn step(&mut self) {
        match self.random.weighted(&[3, 14, 12, 22, 16, 6, 4, 3, 2, 6, 3, 3, 3, 3, 4, 7, 3, 2, 4, 2, 1, 3, 2, 2]) {
            0 => self.create_topic(),
            1 if self.random.chance(30) => self.produce_several(),
            1 => self.produce(),
            2 => self.produce_named(),
            3 => self.receive(),
            4 => self.ack(),
            5 => self.nack(),
            6 => self.extend(),
            7 => self.release(),
            8 => self.seek(),
            9 => self.advance(),
            10 => self.read_one(),
            11 => self.sync(),
            12 => self.describe(),
            13 => self.close(),
            14 => self.die(),
            15 => self.arm(),
            16 => self.fill_or_free(),
            17 => self.flip(),
            18 => self.retain(),
            19 => self.purge(),
            20 => self.delete_topic(),
            21 => self.dead_letter(),
            22 => self.redrive(),
            _ => self.create_group(),
        }
    }

    fn create_topic(&mut self) {
        let index = self.random.below(self.topics.len());
        if self.topics[index].exists == Exists::Yes {
            return;
        }
        let topic = &self.topics[index];
        let durability = match topic.durability {
            Durability::Memory => v1::Durability::Memory,
            Durability::Os => v1::Durability::Os,
            Durability::Fsync => v1::Durability::Fsync,
        };
        let config = v1::TopicConfig {
            partitions: Some(2),
            durability: durability.into(),
            retention_ms: Some(RETENTION_MS),
            retention_bytes: Some(0),
            segment_bytes: Some(1 << 20),
            max_attempts: Some(0),
            ..Default::default()
        };
        let request = v1::CreateTopicRequest { name: topic.name.into(), config: Some(config), ..Default::default() };
        self.note(format!("create topic {}", request.name));
        match self.call::<v1::CreateTopicResponse>("CreateTopic", &request) {
            Ok(_) => self.topic_exists(index),
            Err(_) => self.topics[index].exists = Exists::Maybe,
        }
    }

    fn topic_exists(&mut self, index: usize) {
        let topic = &mut self.topics[index];
        topic.exists = Exists::Yes;
        let request = v1::DescribeTopicRequest { name: topic.name.into() };
        let answer = self.broker.as_ref().unwrap().call("DescribeTopic", &request.encode_to_vec()).unwrap();
        let answer = v1::DescribeTopicResponse::decode(answer.as_slice()).unwrap();
        let known = self.topics[index].partitions.iter().map(|partition| &partition.log_id);
        if known.eq(answer.partitions.iter().map(|partition| &partition.log_id)) {
            return;
        }
        self.topics[index].partitions =
            answer.partitions.into_iter().map(|partition| Partition::new(partition.log_id)).collect();
        assert_eq!(self.topics[index].partitions.len(), 2);
    }

    fn new_values(&mut self, least: usize) -> Vec<u64> {
        let count = (least + self.random.below(MAX_BATCH)).min(MAX_BATCH) as u64;
        let first = self.next_value;
        self.next_value += count;
        (first..first + count).collect()
    }

    fn produce(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let (partition, values) = (self.random.below(2), self.new_values(1));
        self.note(format!("produce {}/{partition} {values:?}", self.topics[topic].name));
        self.append(topic, partition, ("", 0), &values);
    }

    fn produce_named(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let (partition, name) = (self.random.below(2), *self.random.pick(&PRODUCERS));
        let producer = self.topics[topic].partitions[partition].producers.entry(name).or_default();
        let (low, high, last) = (producer.low, producer.high, producer.last.clone());
        let (sequence, values) = match last {
            Some(last) if self.random.chance(40) => last,
            // An older sequence, with values that may never be stored.
            _ if low > 0 && self.random.chance(10) => {
                (1 + self.random.below(usize::try_from(low).unwrap()) as u64, self.new_values(0))
            }
            _ => (high + 1 + self.random.below(3) as u64, self.new_values(0)),
        };
        self.note(format!("produce {}/{partition} {values:?} of {name} {sequence}", self.topics[topic].name));
        self.append(topic, partition, (name, sequence), &values);
    }

    /// Several at once: with `fsync` they wait for the same write and the same sync, and some may be refused meanwhile.
    fn produce_several(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let number = self.random.below(2);
        let mut unsettled = Vec::new();
        for _ in 0..2 + self.random.below(3) {
            let values = self.new_values(1);
            self.note(format!("produce {}/{number} {values:?}, with others", self.topics[topic].name));
            let request = self.produce_request(topic, number, ("", 0), &values).encode_to_vec();
            self.topics[topic].partitions[number].pending.extend(&values);
            let before = (self.disk.errors(), self.disk.refusals());
            match self.broker.as_ref().unwrap().call_unsettled("Produce", &request) {
                Ok((answer, write)) => {
                    let answer = v1::ProduceResponse::decode(answer.as_slice()).unwrap();
                    match write {
                        Some(write) => unsettled.push((values, answer, write)),
                        None => self.appended(topic, number, ("", 0), &values, Ok(answer)),
                    }
                }
                Err(err) => self.refused(topic, number, &values, err, before),
            }
            if self.random.chance(10) {
                self.read_one();
            }
        }
        for (values, answer, write) in unsettled {
            let before = (self.disk.errors(), self.disk.refusals());
            match self.broker.as_ref().unwrap().settle(&write) {
                Ok(()) => self.appended(topic, number, ("", 0), &values, Ok(answer)),
                Err(err) => self.refused(topic, number, &values, err, before),
            }
        }
    }

    fn refused(&mut self, topic: usize, number: usize, values: &[u64], err: Error, before: (usize, usize)) {
        self.note(format!("  {values:?} failed: {err}"));
        self.check_error("Produce", &err, before);
        if err.code() == Code::LogFull {
            let partition = &mut self.topics[topic].partitions[number];
            partition.pending.retain(|value| !values.contains(value));
        }
        self.appended(topic, number, ("", 0), values, Err(err));
    }

    fn produce_request(
        &self,
        topic: usize,
        number: usize,
        (name, sequence): (&str, u64),
        values: &[u64],
    ) -> v1::ProduceRequest {
        v1::ProduceRequest {
            topic: self.topics[topic].name.into(),
            partition: Some(u32::try_from(number).unwrap()),
            producer: name.into(),
            sequence,
            records: produced(values),
            ..Default::default()
        }
    }

    fn append(&mut self, topic: usize, number: usize, producer: (&'static str, u64), values: &[u64]) {
        let request = self.produce_request(topic, number, producer, values);
        let answer = self.call::<v1::ProduceResponse>("Produce", &request);
        self.appended(topic, number, producer, values, answer);
    }

    /// Notes what an append was answered.
    fn appended(
        &mut self,
        topic: usize,
        number: usize,
        (name, sequence): (&'static str, u64),
        values: &[u64],
        answer: Result<v1::ProduceResponse, Error>,
    ) {
        let partition = &mut self.topics[topic].partitions[number];
        let appended = match &answer {
            Ok(answer) => &answer.appended[0],
            Err(err) => {
                // With a full disk nothing was appended, whatever else went wrong.
                if err.code() != Code::LogFull {
                    let there: BTreeSet<u64> = partition.present().map(|(_, record)| record.value).collect();
                    partition.pending.extend(values.iter().filter(|value| !there.contains(value)));
                    if let Some(producer) = partition.producers.get_mut(name) {
                        producer.high = producer.high.max(sequence);
                    }
                }
                if let Some(producer) = partition.producers.get_mut(name)
                    && sequence > producer.low
                {
                    producer.last = Some((sequence, values.to_vec()));
                }
                return;
            }
        };
        assert_eq!(appended.log_id, partition.log_id);
        let base = appended.base_offset;
        if name.is_empty() {
            assert!(!appended.duplicate);
        } else if appended.duplicate {
            let producer = partition.producers.get_mut(name).unwrap();
            assert!(sequence <= producer.high || self.flipped, "sequence {sequence} is no duplicate");
            producer.low = producer.low.max(sequence);
            return;
        } else {
            let producer = partition.producers.get_mut(name).unwrap();
            assert!(sequence > producer.low || self.flipped, "sequence {sequence} was stored twice");
            (producer.low, producer.high) = (sequence, sequence);
            producer.last = Some((sequence, values.to_vec()));
            producer.stored.push(crate::model::Batch { sequence, base, values: values.to_vec() });
        }
        assert_eq!(appended.count as usize, values.len());
        if self.flipped {
            (base..).zip(values).for_each(|(offset, &value)| partition.seen_damaged(offset, &value_bytes(value)));
            return;
        }
        let end = partition.end();
        assert!(base >= end, "offset {base} was given, offsets up to {end} were given before");
        partition.stored(base, values);
    }

    fn create_group(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let &(name, ordered) = self.random.pick(&GROUPS);
        if self.topics[topic].groups.contains_key(name) {
            return;
        }
        let mode = if ordered { v1::GroupMode::Ordered } else { v1::GroupMode::Shared };
        let request = v1::CreateGroupRequest {
            topic: self.topics[topic].name.into(),
            group: name.into(),
            mode: mode.into(),
            from: Some(v1::Position { at: Some(v1::position::At::Edge(v1::Edge::End.into())), log_id: vec![] }),
        };
        let Some(ends) = self.ends(topic) else { return };
        self.note(format!("create group {}/{name} at {ends:?}", self.topics[topic].name));
        match self.call::<v1::CreateGroupResponse>("CreateGroup", &request) {
            Ok(_) if self.topics[topic].doubtful_starts.contains_key(name) => {
                self.topics[topic].doubtful_starts.entry(name).or_default().push(ends);
                self.group_exists(topic, name, ordered);
            }
            Ok(_) => {
                let cursors = ends.iter().map(|&end| Cursor::new(end)).collect();
                self.topics[topic].groups.insert(name, Group { ordered, cursors });
            }
            Err(_) => {
                self.topics[topic].doubtful_starts.entry(name).or_default().push(ends);
            }
        }
    }

    /// A group is there that begins at the oldest record, or where an unanswered call said.
    fn group_exists(&mut self, topic: usize, name: &'static str, ordered: bool) {
        let topic = &mut self.topics[topic];
        let doubtful = topic.doubtful_starts.remove(name);
        let cursor = |number: usize| {
            let mut cursor = Cursor::new(0);
            doubtful.iter().flatten().for_each(|starts| cursor.push(Op::Reset(starts[number]), true));
            cursor.synced();
            cursor
        };
        topic.groups.insert(name, Group { ordered, cursors: (0..topic.partitions.len()).map(cursor).collect() });
    }

    fn describe_topic(&mut self, topic: usize) -> Option<v1::DescribeTopicResponse> {
        let request = v1::DescribeTopicRequest { name: self.topics[topic].name.into() };
        self.call("DescribeTopic", &request).ok()
    }

    fn ends(&mut self, topic: usize) -> Option<Vec<u64>> {
        Some(self.describe_topic(topic)?.partitions.iter().map(|partition| partition.end_offset).collect())
    }

    fn receive(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let &(group, ordered) = self.random.pick(&GROUPS);
        let consumer = *self.random.pick(&CONSUMERS);
        let numbers = if ordered || self.random.chance(60) { vec![self.random.below(2)] } else { vec![0, 1] };
        let (records, deliveries) = (1 + self.random.below(8), 1 + self.random.below(3));
        let timeout_ms = *self.random.pick(&[0, 10, 200, 1000]);
        self.receive_as(topic, (group, ordered), consumer, &numbers, (records, deliveries, timeout_ms));
    }

    /// Receives, checks and notes the leases; the number of records.
    fn receive_as(
        &mut self,
        topic: usize,
        (name, ordered): (&'static str, bool),
        consumer: &'static str,
        numbers: &[usize],
        (records, deliveries, timeout_ms): (usize, usize, u32),
    ) -> usize {
        let request = v1::ReceiveRequest {
            topic: self.topics[topic].name.into(),
            group: name.into(),
            consumer: consumer.into(),
            partitions: numbers.iter().map(|&number| u32::try_from(number).unwrap()).collect(),
            max_records: u32::try_from(records).unwrap(),
            max_deliveries: u32::try_from(deliveries).unwrap(),
            visibility_timeout_ms: timeout_ms,
            mode: if ordered { v1::GroupMode::Ordered } else { v1::GroupMode::Shared }.into(),
            ..Default::default()
        };
        self.note(format!(
            "receive {}/{name} for {consumer} from {numbers:?}, {records} x {deliveries}",
            request.topic
        ));
        let Ok(answer) = self.call::<v1::ReceiveResponse>("Receive", &request) else {
            self.leased_unseen(topic, name, numbers, timeout_ms);
            return 0;
        };
        if !self.topics[topic].groups.contains_key(name) {
            self.group_exists(topic, name, ordered);
        }
        if ordered {
            for &number in numbers {
                self.rewind_expired(topic, name, number);
            }
        }
        if answer.deliveries.is_empty() && !self.flipped {
            for &number in numbers {
                let ready = self.ready(topic, name, number, consumer);
                assert_eq!(ready, None, "this offset of partition {number} is ready, but was not given");
            }
        }
        let mut given = 0;
        for delivery in &answer.deliveries {
            assert!((1..=records).contains(&delivery.records.len()));
            given += delivery.records.len();
            self.delivered(topic, name, consumer, delivery, timeout_ms);
        }
        assert!(answer.deliveries.len() <= deliveries);
        given
    }

    /// A receive failed: whether it leased anything before is not known.
    fn leased_unseen(&mut self, topic: usize, group: &str, numbers: &[usize], timeout_ms: u32) {
        let deadline = self.deadline(timeout_ms);
        let Some(group) = self.topics[topic].groups.get_mut(group) else { return };
        for &number in numbers {
            let cursor = &mut group.cursors[number];
            cursor.free_from = cursor.free_from.max(deadline);
            cursor.unseen += 1;
        }
    }

    fn deadline(&self, timeout_ms: u32) -> u64 {
        self.now_ns + u64::from(if timeout_ms == 0 { 30_000 } else { timeout_ms }) * 1_000_000
    }

    /// An offset that must be given to `consumer` now.
    fn ready(&self, topic: usize, group: &str, number: usize, consumer: &str) -> Option<u64> {
        let (partition, group) = (&self.topics[topic].partitions[number], &self.topics[topic].groups[group]);
        let cursor = &group.cursors[number];
        if self.now_ns < cursor.free_from {
            return None;
        }
        let mut ready = None;
        for (offset, record) in partition.present() {
            let given = cursor.given.get(&offset);
            let taken = given.is_some_and(|given| self.now_ns < given.free_from);
            if group.ordered && taken && cursor.done(offset) != Done::Yes {
                let holder = given.map(|given| self.leases[given.lease].consumer);
                if holder != Some(consumer) {
                    return None;
                }
            }
            if !taken && record.is_sure() && ready.is_none() && cursor.done(offset) == Done::No {
                ready = Some(offset);
            }
        }
        ready
    }

    /// In an ordered group the first lease that has expired ends all behind it, when the next consumer asks.
    fn rewind_expired(&mut self, topic: usize, group: &str, number: usize) {
        let now_ns = self.now_ns;
        let cursor = &mut self.topics[topic].groups.get_mut(group).unwrap().cursors[number];
        let expired =
            |offset: u64, given: &Given| given.leased && given.free_from <= now_ns && cursor.done(offset) != Done::Yes;
        let first = cursor.given.iter().find(|&(&offset, given)| expired(offset, given)).map(|(&offset, _)| offset);
        let Some(first) = first else { return };
        let sure = cursor.done(first) == Done::No;
        for (_, given) in cursor.given.range_mut(first..) {
            if given.leased {
                (given.given_back, given.busy_until) = (true, 0);
                if sure {
                    (given.leased, given.free_from) = (false, 0);
                }
            }
        }
    }

    fn delivered(
        &mut self,
        topic: usize,
        name: &'static str,
        consumer: &'static str,
        delivery: &v1::Delivery,
        timeout_ms: u32,
    ) {
        let number = delivery.partition as usize;
        let base = delivery.base_offset;
        let end = base + delivery.records.len() as u64;
        self.note(format!("  partition {number}: {base}..{end}, attempt {}", delivery.attempt));
        let now_ns = self.now_ns;
        let deadline = self.deadline(timeout_ms);
        assert_eq!(delivery.log_id, self.topics[topic].partitions[number].log_id);
        let lease = self.leases.len();
        self.leases.push(Lease {
            id: delivery.lease_id.clone(),
            topic,
            group: name,
            partition: number,
            consumer,
            range: base..end,
            life: self.lives,
            sought: false,
            over: false,
        });
        let leases = &self.leases;
        let Topic { partitions, groups, .. } = &mut self.topics[topic];
        let (partition, group) = (&mut partitions[number], groups.get_mut(name).unwrap());
        let cursor = &mut group.cursors[number];
        assert!(now_ns >= cursor.busy_until, "given before the group's delay was over");
        if self.flipped {
            (base..).zip(&delivery.records).for_each(|(offset, record)| partition.seen_damaged(offset, &record.value));
            return;
        }
        if group.ordered {
            for (offset, record) in partition.present() {
                let given = cursor.given.get(&offset).filter(|given| now_ns < given.busy_until);
                let holder = given.map(|given| leases[given.lease].consumer);
                let done = cursor.done(offset);
                if let Some(holder) = holder {
                    assert!(done != Done::No || holder == consumer, "{holder} holds offset {offset}");
                }
                // As far as the model knows.
                let may_hold = cursor.given.get(&offset).is_some_and(|given| {
                    given.leased && now_ns < given.free_from && leases[given.lease].consumer == consumer
                });
                assert!(
                    offset >= base
                        || !record.is_sure()
                        || done != Done::No
                        || holder == Some(consumer)
                        || may_hold
                        || now_ns < cursor.free_from,
                    "offset {base} was given, offset {offset} before it is not done"
                );
            }
        }
        for (offset, record) in (base..).zip(&delivery.records) {
            partition.seen(offset, &record.value);
            let done = cursor.done(offset);
            assert_ne!(done, Done::Yes, "offset {offset} was acked and came back");
            if done == Done::Maybe {
                cursor.push(Op::Open(offset), false);
            }
            let before = cursor.given.get(&offset);
            if let Some(before) = before {
                assert!(
                    now_ns >= before.busy_until,
                    "offset {offset} is leased until {} or delayed",
                    before.busy_until
                );
                let least = before.attempts.0 + 1;
                assert!(delivery.attempt >= least, "attempt {} of offset {offset}, not {least}", delivery.attempt);
            }
            if !group.ordered {
                let most = before.map_or(0, |before| before.attempts.1) + cursor.unseen + 1;
                assert!(delivery.attempt <= most, "attempt {} of offset {offset}, at most {most}", delivery.attempt);
            }
            assert!(delivery.attempt >= 1);
            let least = if group.ordered { 1 } else { delivery.attempt };
            let attempts = (least, delivery.attempt);
            let given = Given {
                lease,
                sure: true,
                leased: true,
                given_back: false,
                busy_until: deadline,
                free_from: deadline,
                attempts,
            };
            cursor.given.insert(offset, given);
        }
    }

    /// A lease, a newer one more likely.
    fn pick_lease(&mut self) -> Option<usize> {
        if self.leases.is_empty() {
            return None;
        }
        let reach = if self.random.chance(70) { 4 } else { 40 };
        let back = self.random.below(self.leases.len().min(reach));
        let index = self.leases.len() - 1 - back;
        (!self.leases[index].over).then_some(index)
    }

    fn pick_part(&mut self, lease: usize) -> (v1::LeaseRange, u64, u64) {
        let range = self.leases[lease].range.clone();
        let lease_id = self.leases[lease].id.clone();
        if self.random.chance(50) {
            return (v1::LeaseRange { lease_id, ranges: vec![] }, range.start, range.end);
        }
        let len = usize::try_from(range.end - range.start).unwrap();
        let start = range.start + self.random.below(len) as u64;
        let end = start + 1 + self.random.below(usize::try_from(range.end - start).unwrap()) as u64;
        (v1::LeaseRange { lease_id, ranges: vec![v1::OffsetRange { start, end }] }, start, end)
    }

    fn ack(&mut self) {
        let Some(index) = self.pick_lease() else { return };
        let (part, start, end) = self.pick_part(index);
        self.ack_part(index, part, start, end);
    }

    fn ack_part(&mut self, index: usize, part: v1::LeaseRange, start: u64, end: u64) {
        let lease = &self.leases[index];
        let (topic, group, number) = (lease.topic, lease.group, lease.partition);
        let request = v1::AckRequest { topic: self.topics[topic].name.into(), group: group.into(), leases: vec![part] };
        self.note(format!("ack {}/{group}/{number} {start}..{end} by lease {index}", request.topic));
        let answer = self.call::<v1::AckResponse>("Ack", &request);
        let stale = |offset: u64| -> bool {
            let Ok(answer) = &answer else { return false };
            answer.stale.iter().flat_map(|lease| &lease.ranges).any(|range| (range.start..range.end).contains(&offset))
        };
        let lease = &self.leases[index];
        let Topic { partitions, groups, .. } = &mut self.topics[topic];
        let (partition, model) = (&partitions[number], groups.get_mut(group).unwrap());
        let cursor = &mut model.cursors[number];
        let taken = if answer.is_ok() {
            // What was given to nobody else since is taken, whenever it comes; what was is refused.
            let later = self.leases[index + 1..].iter();
            let given_back = cursor.given.range(start..end).any(|(_, given)| given.given_back);
            let passed = later
                .filter(|other| (other.topic, other.group, other.partition) == (topic, group, number))
                .any(|other| other.range.start < end && (model.ordered || other.range.end > start));
            for (offset, _) in partition.present().filter(|(offset, _)| (start..end).contains(offset)) {
                // A seek forgets who had what.
                let Some(given) = cursor.given.get(&offset) else { continue };
                let (ours, owner) = (given.lease == index, &self.leases[given.lease]);
                let must_be_taken =
                    ours && given.sure && !self.flipped && !lease.sought && !(model.ordered && (passed || given_back));
                assert!(!must_be_taken || !stale(offset), "the ack of offset {offset} was refused");
                let must_be_refused = !ours
                    && given.sure
                    && !self.flipped
                    && owner.life == self.lives
                    && !owner.sought
                    && cursor.done(offset) == Done::No;
                assert!(!must_be_refused || stale(offset), "offset {offset} was acked by a lease that lost it");
            }
            (start..end).filter(|&offset| !stale(offset)).collect::<Vec<_>>()
        } else {
            (start..end).collect()
        };
        if answer.is_ok() {
            // A crash may have forgotten a later lease: then this one has them again. What was acked before tells nothing.
            for &offset in &taken {
                let done = cursor.done(offset);
                match cursor.given.get_mut(&offset) {
                    Some(given) if done == Done::No => (given.lease, given.sure) = (index, true),
                    Some(given) if done == Done::Maybe => given.sure = given.lease == index,
                    _ => {}
                }
            }
        }
        if let (true, Some(&last)) = (model.ordered, taken.last()) {
            cursor.push(Op::Acked(0..last + 1), answer.is_err());
        } else {
            for offset in taken {
                cursor.push(Op::Acked(offset..offset + 1), answer.is_err());
            }
        }
        if answer.is_ok() && self.topics[topic].durability == Durability::Fsync {
            self.cursor(topic, group, number).synced();
        }
        self.topics[topic].mark_dispensable();
    }

    fn cursor(&mut self, topic: usize, group: &str, number: usize) -> &mut Cursor {
        &mut self.topics[topic].groups.get_mut(group).unwrap().cursors[number]
    }

    fn nack(&mut self) {
        let Some(index) = self.pick_lease() else { return };
        let (part, start, end) = self.pick_part(index);
        let lease = &self.leases[index];
        let (topic, group, number) = (lease.topic, lease.group, lease.partition);
        let delay_ms = *self.random.pick(&[0, 0, 5, 500]);
        let request = v1::NackRequest {
            topic: self.topics[topic].name.into(),
            group: group.into(),
            leases: vec![part],
            delay_ms,
            ..Default::default()
        };
        self.note(format!("nack {}/{group}/{number} {start}..{end} by lease {index}, {delay_ms} ms", request.topic));
        let now_ns = self.now_ns;
        let Ok(answer) = self.call::<v1::NackResponse>("Nack", &request) else { return };
        let due = if delay_ms == 0 { 0 } else { now_ns + u64::from(delay_ms) * 1_000_000 };
        let same_life = self.leases[index].life == self.lives;
        let ordered = self.topics[topic].groups[group].ordered;
        let cursor = self.cursor(topic, group, number);
        if ordered {
            if answer.nacked > 0 {
                // Whether acks whose answer is missing hold, and so where the rewind ends, only the broker knows.
                for (_, given) in cursor.given.range_mut(start..) {
                    (given.leased, given.given_back, given.busy_until, given.free_from) = (false, true, 0, 0);
                }
                (cursor.busy_until, cursor.free_from) = (due, due);
            }
            return;
        }
        let refused: Vec<_> =
            answer.stale.iter().flat_map(|lease| &lease.ranges).map(|range| range.start..range.end).collect();
        for offset in start..end {
            let done = cursor.done(offset);
            let Some(given) = cursor.given.get_mut(&offset) else {
                if !same_life {
                    // A crash may have forgotten the seek that ended the lease.
                    cursor.free_from = cursor.free_from.max(due);
                }
                continue;
            };
            let lost = same_life && given.lease != index;
            if refused.iter().any(|range| range.contains(&offset)) || done == Done::Yes || lost {
                continue;
            }
            given.leased = false;
            if same_life && done == Done::No {
                (given.busy_until, given.free_from) = (due, due);
            } else {
                // A crash may have forgotten who had it last.
                (given.busy_until, given.free_from) = (0, given.free_from.max(due));
            }
        }
    }

    fn extend(&mut self) {
        let Some(index) = self.pick_lease() else { return };
        let lease = &self.leases[index];
        let (topic, group, number, range) = (lease.topic, lease.group, lease.partition, lease.range.clone());
        let request = v1::ExtendRequest {
            topic: self.topics[topic].name.into(),
            group: group.into(),
            leases: vec![v1::LeaseRange { lease_id: lease.id.clone(), ranges: vec![] }],
            visibility_timeout_ms: 300,
        };
        self.note(format!("extend {}/{group}/{number} lease {index}", request.topic));
        let Ok(answer) = self.call::<v1::ExtendResponse>("Extend", &request) else { return };
        let now_ns = self.now_ns;
        let ordered = self.topics[topic].groups[group].ordered;
        let cursor = self.cursor(topic, group, number);
        // In an ordered group a lease ends with the first one in front of it.
        let is_overdue = |(offset, given): (&u64, &Given)| {
            given.leased && given.free_from <= now_ns && cursor.done(*offset) != Done::Yes
        };
        let overdue = ordered && cursor.given.range(..range.start).any(is_overdue);
        for offset in range {
            let done = cursor.done(offset);
            let Some(given) = cursor.given.get_mut(&offset).filter(|given| given.leased && given.lease == index) else {
                continue;
            };
            if answer.extended == 1 && overdue {
                (given.busy_until, given.free_from) = (0, now_ns + 300_000_000);
            } else if answer.extended == 1 {
                (given.busy_until, given.free_from) = (now_ns + 300_000_000, now_ns + 300_000_000);
            } else {
                assert!(done != Done::No || now_ns >= given.busy_until, "a lease that runs could not be extended");
            }
        }
    }

    fn release(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let (&(group, _), consumer) = (self.random.pick(&GROUPS), *self.random.pick(&CONSUMERS));
        self.note(format!("release {}/{group} for {consumer}", self.topics[topic].name));
        self.broker.as_ref().unwrap().release(self.topics[topic].name, group, consumer).unwrap();
        let leases = &self.leases;
        let Some(group) = self.topics[topic].groups.get_mut(group) else { return };
        for cursor in &mut group.cursors {
            for given in cursor.given.values_mut() {
                if given.leased && leases[given.lease].consumer == consumer {
                    (given.leased, given.given_back, given.busy_until, given.free_from) = (false, true, 0, 0);
                }
            }
        }
    }

    fn seek(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let &(group, _) = self.random.pick(&GROUPS);
        if !self.topics[topic].groups.contains_key(group) {
            return;
        }
        let number = self.random.below(2);
        let Some(ends) = self.ends(topic) else { return };
        let known: Vec<u64> = self.topics[topic].partitions[number].present().map(|(offset, _)| offset).collect();
        let to = match self.random.below(4) {
            0 => ends[number],
            1 => 0,
            _ if known.is_empty() => 0,
            _ => *self.random.pick(&known),
        };
        let request = v1::SeekGroupRequest {
            topic: self.topics[topic].name.into(),
            group: group.into(),
            partitions: vec![u32::try_from(number).unwrap()],
            to: Some(v1::Position { at: Some(v1::position::At::Offset(to)), log_id: vec![] }),
        };
        self.note(format!("seek {}/{group}/{number} to {to}", request.topic));
        let answer = self.call::<v1::SeekGroupResponse>("SeekGroup", &request);
        for lease in &mut self.leases {
            let same = (lease.topic, lease.group, lease.partition) == (topic, group, number);
            lease.sought |= same;
        }
        let fsync = self.topics[topic].durability == Durability::Fsync;
        let cursor = self.cursor(topic, group, number);
        cursor.push(Op::Reset(to), answer.is_err());
        if answer.is_ok() {
            // Should a crash undo the move, the attempts of before count again.
            cursor.unseen += cursor.given.values().map(|given| given.attempts.1).max().unwrap_or(0);
            cursor.given.clear();
            (cursor.busy_until, cursor.free_from) = (0, 0);
            if fsync {
                cursor.synced();
            }
        } else {
            // Whether the leases ended is not known.
            for given in cursor.given.values_mut() {
                (given.busy_until, given.attempts.0) = (0, 0);
            }
            cursor.busy_until = 0;
        }
        self.topics[topic].mark_dispensable();
    }

    fn advance(&mut self) {
        let ns = *self.random.pick(&[1_000_000, 9_000_000, 200_000_000, SECOND, 31 * SECOND]);
        self.note(format!("advance {} ms", ns / 1_000_000));
        self.now_ns += ns;
        self.clock.advance_ns(ns);
    }

    /// What the background does.
    fn sync(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let number = self.random.below(2);
        if self.topics[topic].durability != Durability::Os {
            return;
        }
        self.note(format!("sync os/{number}"));
        let before = (self.disk.errors(), self.disk.refusals());
        let broker = self.broker.as_ref().unwrap();
        let partition =
            broker.topic(self.topics[topic].name).unwrap().partition(u32::try_from(number).unwrap()).unwrap();
        match partition.sync_written() {
            Ok(()) => {
                let topic = &mut self.topics[topic];
                topic.partitions[number].synced_below = topic.partitions[number].end();
                topic.groups.values_mut().for_each(|group| group.cursors[number].synced());
            }
            Err(err) => self.check_error("sync", &err, before),
        }
    }

    /// What the background does, too: old records go that nobody needs.
    fn retain(&mut self) {
        self.note("retain".to_owned());
        self.broker.as_ref().unwrap().retain(false);
        for topic in 0..self.topics.len() {
            if self.topics[topic].exists == Exists::Yes {
                self.look_what_is_left(topic);
            }
        }
    }

    fn look_what_is_left(&mut self, topic: usize) {
        for number in 0..self.topics[topic].partitions.len() {
            let found = self.read(topic, number, 0);
            let may_go: BTreeSet<u64> = {
                let topic = &self.topics[topic];
                topic.partitions[number].present().map(|(at, _)| at).filter(|&at| topic.may_go(number, at)).collect()
            };
            let partition = &mut self.topics[topic].partitions[number];
            if self.disk.is_dead() {
                // How far it came shows after the restart.
                may_go.iter().for_each(|offset| partition.records.get_mut(offset).unwrap().gone = true);
            } else if !self.flipped {
                partition.deleted(&found, |offset| may_go.contains(&offset));
            }
        }
    }

    fn purge(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let request = v1::PurgeTopicRequest { name: self.topics[topic].name.into(), partitions: vec![] };
        self.note(format!("purge {}", request.name));
        let answer = self.call::<v1::PurgeTopicResponse>("PurgeTopic", &request);
        for lease in self.leases.iter_mut().filter(|lease| lease.topic == topic) {
            lease.sought = true;
        }
        let ends = match (&answer, self.describe_topic(topic)) {
            (Ok(_), Some(state)) => state.partitions.iter().map(|partition| partition.end_offset).collect(),
            // Cursors move only once all records are gone, so that no record that is not known yet is passed over.
            _ => self.topics[topic].partitions.iter().map(Partition::end).collect::<Vec<_>>(),
        };
        let left: Vec<BTreeSet<u64>> = match &answer {
            Ok(_) => vec![BTreeSet::new(); ends.len()],
            Err(_) => (0..ends.len()).map(|number| self.read(topic, number, 0)).collect(),
        };
        let (known, fsync) = (!self.disk.is_dead(), self.topics[topic].durability == Durability::Fsync);
        let Topic { partitions, groups, .. } = &mut self.topics[topic];
        for (number, partition) in partitions.iter_mut().enumerate() {
            if known {
                partition.deleted(&left[number], |_| true);
            } else {
                partition.records.values_mut().for_each(|record| record.gone = true);
            }
            // A batch that was not answered may have been stored, and purged.
            partition.producers.values_mut().for_each(|producer| producer.last = None);
            for group in groups.values_mut() {
                let cursor = &mut group.cursors[number];
                cursor.push(Op::Reset(ends[number]), answer.is_err());
                cursor.unseen += cursor.given.values().map(|given| given.attempts.1).max().unwrap_or(0);
                if answer.is_ok() {
                    cursor.given.clear();
                    (cursor.busy_until, cursor.free_from) = (0, 0);
                    if fsync {
                        cursor.synced();
                    }
                } else {
                    for given in cursor.given.values_mut() {
                        // A lease of what is gone may still be held, which keeps the others of an ordered group waiting.
                        cursor.free_from = cursor.free_from.max(if group.ordered { given.free_from } else { 0 });
                        (given.busy_until, given.attempts.0) = (0, 0);
                    }
                    cursor.busy_until = 0;
                }
            }
        }
        self.topics[topic].mark_dispensable();
    }

    fn delete_topic(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let request = v1::DeleteTopicRequest { name: self.topics[topic].name.into() };
        self.note(format!("delete topic {}", request.name));
        if self.call::<v1::DeleteTopicResponse>("DeleteTopic", &request).is_err() {
            self.unsure = true;
            return;
        }
        for lease in self.leases.iter_mut().filter(|lease| lease.topic == topic) {
            lease.over = true;
        }
        let deleted = &mut self.topics[topic];
        deleted.exists = Exists::No;
        deleted.partitions.clear();
        deleted.groups.clear();
        deleted.doubtful_starts.clear();
        deleted.dead.clear();
    }

    /// A shared group gives records up.
    fn dead_letter(&mut self) {
        let Some(index) = self.pick_lease() else { return };
        let lease = &self.leases[index];
        let (topic, group, number, life) = (lease.topic, lease.group, lease.partition, lease.life);
        if self.flipped || life != self.lives || self.topics[topic].groups[group].ordered {
            return;
        }
        let (part, start, end) = self.pick_part(index);
        let request = v1::NackRequest {
            topic: self.topics[topic].name.into(),
            group: group.into(),
            leases: vec![part],
            dead_letter: true,
            reason: "simulated".into(),
            ..Default::default()
        };
        self.note(format!("dead-letter {}/{group}/{number} {start}..{end} by lease {index}", request.topic));
        let answer = self.call::<v1::NackResponse>("Nack", &request);
        let refused: Vec<_> = answer
            .iter()
            .flat_map(|answer| &answer.stale)
            .flat_map(|lease| &lease.ranges)
            .map(|range| range.start..range.end)
            .collect();
        let sought = self.leases[index].sought;
        let fsync = self.topics[topic].durability == Durability::Fsync;
        let Topic { partitions, groups, dead, given_up, .. } = &mut self.topics[topic];
        let cursor = &mut groups.get_mut(group).unwrap().cursors[number];
        for offset in start..end {
            let ours = cursor.given.get(&offset).is_some_and(|given| given.lease == index) && !sought;
            let done = cursor.done(offset);
            if refused.iter().any(|range| range.contains(&offset)) || done == Done::Yes {
                continue;
            }
            let sure = answer.is_ok() && ours && done == Done::No;
            cursor.push(Op::Acked(offset..offset + 1), !sure);
            let Some(value) = partitions[number].records.get(&offset).map(|record| record.value) else { continue };
            given_up.insert(value);
            if sure {
                dead.push(Dead { group, partition: number, offset, value });
            }
        }
        if answer.is_ok() && fsync {
            cursor.synced();
        }
        self.topics[topic].mark_dispensable();
    }

    fn redrive(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        if self.flipped {
            return;
        }
        let request = v1::RedriveDeadLettersRequest { topic: self.topics[topic].name.into(), ..Default::default() };
        self.note(format!("redrive {}", request.topic));
        let dead = std::mem::take(&mut self.topics[topic].dead);
        let Topic { partitions, given_up, .. } = &mut self.topics[topic];
        // Letters that a power cut might have taken are there more often than not.
        partitions.iter_mut().for_each(|partition| partition.redriven.extend(&*given_up));
        if let Ok(answer) = self.call::<v1::RedriveDeadLettersResponse>("RedriveDeadLetters", &request) {
            let least = dead.len() as u64;
            assert!(answer.redriven >= least, "{} were put back, {least} were dead", answer.redriven);
        }
    }

    /// What was given up and not put back is among the dead letters.
    fn look_at_the_dead(&mut self, topic: usize) {
        let mut request = v1::ListDeadLettersRequest {
            topic: self.topics[topic].name.into(),
            max_records: 10_000,
            max_bytes: 4096, // several pages
            ..Default::default()
        };
        let mut listed: BTreeSet<(u64, Vec<u8>)> = BTreeSet::new();
        loop {
            let Ok(answer) = self.call::<v1::ListDeadLettersResponse>("ListDeadLetters", &request) else { return };
            let records = answer.deliveries.iter().flat_map(|delivery| &delivery.records);
            listed.extend(records.map(|record| (record.dead_letter.as_ref().unwrap().offset, record.value.clone())));
            if answer.next_partition.is_none() {
                break;
            }
            request.from_partition = answer.next_partition;
            request.from_offset = answer.next_offset;
        }
        let model = &self.topics[topic];
        for Dead { group, partition, offset, value } in &model.dead {
            let kept = model.groups[group].cursors[*partition].done(*offset) == Done::Yes;
            assert!(
                !kept || listed.contains(&(*offset, value_bytes(*value))),
                "{group} gave offset {offset} of {partition} up, and it is not among the dead letters"
            );
        }
    }

    fn describe(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let Some(answer) = self.describe_topic(topic) else { return };
        for (model, partition) in self.topics[topic].partitions.iter_mut().zip(answer.partitions) {
            assert!(partition.end_offset >= model.end() || self.flipped);
            assert!(partition.synced_end_offset <= partition.end_offset);
            assert!(partition.poisoned.is_empty() || self.disk.errors() > 0, "poisoned: {}", partition.poisoned);
            model.synced_below = model.synced_below.max(partition.synced_end_offset);
        }
        let names: Vec<_> = self.topics[topic].groups.keys().copied().collect();
        for group in names {
            let request = v1::DescribeGroupRequest { topic: self.topics[topic].name.into(), group: group.into() };
            let Ok(answer) = self.call::<v1::DescribeGroupResponse>("DescribeGroup", &request) else { continue };
            for (number, state) in answer.partitions.iter().enumerate() {
                let (partition, cursor) = (
                    &self.topics[topic].partitions[number],
                    self.topics[topic].groups[group].cursors.get(number).unwrap(),
                );
                let is_open = |&(offset, record): &(u64, &Record)| record.is_sure() && cursor.done(offset) == Done::No;
                let open = partition.present().filter(is_open).count() as u64;
                assert!(
                    state.lag >= open || self.flipped,
                    "{group} has a lag of {} in {number}, {open} records are open",
                    state.lag
                );
            }
        }
    }

    fn read_one(&mut self) {
        let Some(topic) = self.pick_topic() else { return };
        let number = self.random.below(2);
        let known: Vec<u64> = self.topics[topic].partitions[number].present().map(|(offset, _)| offset).collect();
        let from = if known.is_empty() { 0 } else { *self.random.pick(&known) };
        self.note(format!("read {}/{number} from {from}", self.topics[topic].name));
        let found = self.read(topic, number, from);
        if !self.disk.is_dead() && !self.flipped {
            // What every group of a `memory` topic has acked may be let go unwritten.
            let records = &self.topics[topic].partitions[number].records;
            let mut sure = known.into_iter().filter(|offset| records[offset].is_sure());
            let missing = sure.find(|offset| *offset >= from && !found.contains(offset));
            assert_eq!(missing, None, "this offset could not be read");
        }
    }

    /// Reads to the end; the offsets that were there.
    fn read(&mut self, topic: usize, number: usize, from: u64) -> BTreeSet<u64> {
        let (mut at, mut found) = (from, BTreeSet::new());
        loop {
            let request = v1::ReadRequest {
                topic: self.topics[topic].name.into(),
                partition: u32::try_from(number).unwrap(),
                from: Some(v1::Position { at: Some(v1::position::At::Offset(at)), log_id: vec![] }),
                max_records: u32::try_from(1 + self.random.below(50)).unwrap(),
                ..Default::default()
            };
            let Ok(answer) = self.call::<v1::ReadResponse>("Read", &request) else {
                // Behind a damaged frame reading goes on.
                let next = self.topics[topic].partitions[number]
                    .present()
                    .map(|(offset, _)| offset)
                    .find(|&offset| offset > at);
                match next {
                    Some(next) if !self.disk.is_dead() => at = next,
                    _ => return found,
                }
                continue;
            };
            let partition = &mut self.topics[topic].partitions[number];
            for delivery in &answer.deliveries {
                assert_eq!(delivery.log_id, partition.log_id);
                for (offset, record) in (delivery.base_offset..).zip(&delivery.records) {
                    assert!(offset >= at, "offsets go back");
                    if self.flipped {
                        partition.seen_damaged(offset, &record.value);
                    } else {
                        partition.seen(offset, &record.value);
                    }
                    found.insert(offset);
                    at = offset + 1;
                }
            }
            assert!(answer.next_offset >= at);
            if answer.deliveries.is_empty() {
                return found;
            }
            at = answer.next_offset;
        }
    }

    // --- troubles ---

    fn arm(&mut self) {
        let reach = if self.random.chance(70) { 5 } else { 25 };
        let changes = self.random.below(reach);
        let fault = if self.trouble == Trouble::Errors && self.random.chance(40) { Fault::Error } else { Fault::Death };
        if fault == Fault::Error {
            let forgetful = FORGETFUL && self.random.chance(50);
            self.disk.forget_failed_syncs(forgetful);
        }
        self.note(format!("{fault:?} after {changes} changes"));
        self.disk.arm(changes, fault);
    }

    fn fill_or_free(&mut self) {
        if self.trouble != Trouble::Errors {
            return;
        }
        self.full = !self.full;
        let room = self.full.then(|| self.random.below(300));
        self.note(format!("room: {room:?}"));
        self.disk.leave_room(room);
    }

    fn flip(&mut self) {
        if self.trouble == Trouble::FlippedBits
            && let Some(place) = self.disk.flip_bit(Path::new(DIR))
        {
            self.flipped = true;
            self.note(format!("flip {place}"));
        }
    }

    /// The process ends in the middle of whatever it is doing.
    fn die(&mut self) {
        self.broker = None;
        self.end_badly();
        self.open();
    }

    fn end_badly(&mut self) {
        let end = if self.random.chance(50) { End::Process } else { End::Power };
        self.note(format!("death: {end:?}"));
        self.ended(end);
        self.disk.restart(end);
    }

    fn ended(&mut self, end: End) {
        self.worst = self.worst.max(end);
        for topic in &mut self.topics {
            topic.mark_dispensable();
            // The letters are as durable as the topic; a power cut may keep an unsynced ack and lose its letter.
            let covered = match topic.durability {
                Durability::Memory => end == End::Clean,
                Durability::Os => end < End::Power,
                Durability::Fsync => true,
            };
            if !covered {
                topic.dead.clear();
            }
            for group in topic.groups.values_mut() {
                group.cursors.iter_mut().for_each(|cursor| cursor.ended(topic.durability, end));
            }
        }
    }

    fn close(&mut self) {
        self.note("close".to_owned());
        let before = (self.disk.errors(), self.disk.refusals());
        let outcome = self.broker.take().unwrap().close(true);
        if self.disk.is_dead() {
            self.end_badly();
        } else if let Err(err) = outcome {
            self.note(format!("  close failed: {err}"));
            self.check_error("close", &err, before);
            self.ended(End::Process);
            self.disk.restart(End::Process);
        } else if self.disk.errors() > 0 {
            // A poisoned partition was left as it was.
            self.ended(End::Process);
            self.disk.restart(End::Process);
        } else {
            self.ended(End::Clean);
            for topic in &mut self.topics {
                for partition in &mut topic.partitions {
                    partition.synced_below = partition.end();
                }
                topic.groups.values_mut().flat_map(|group| &mut group.cursors).for_each(Cursor::synced);
            }
            let power = self.random.chance(50);
            self.note(format!("  closed{}", if power { ", and the power was cut" } else { "" }));
            self.disk.restart(if power { End::Power } else { End::Clean });
        }
        self.open();
    }

    /// Segments of a size that this simulation fills: smaller than a topic may ask for.
    fn shrink_segments(&self) {
        for (path, _) in self.disk.files(Path::new(DIR)) {
            if path.file_name().is_some_and(|name| name == "topic.json") {
                self.disk.edit(&path, |bytes| {
                    let text = String::from_utf8(bytes.clone()).unwrap();
                    *bytes = text.replace("\"segment_bytes\": 1048576", "\"segment_bytes\": 1000").into_bytes();
                });
            }
        }
    }

    fn open(&mut self) {
        let broker = loop {
            self.lives += 1;
            self.shrink_segments();
            if self.random.chance(25) {
                self.arm();
            }
            let before = (self.disk.errors(), self.disk.refusals());
            let options =
                BrokerOptions { queue_size: QUEUE_SIZE as u64, journal_entries: JOURNAL_ENTRIES, ..Default::default() };
            let opened = Broker::open_on(self.disk.clone(), Path::new(DIR), options, self.clock.clone());
            if self.disk.is_dead() {
                drop(opened);
                self.end_badly();
                continue;
            }
            match opened {
                Ok(broker) => break broker,
                Err(err) => {
                    self.note(format!("  open failed: {err}"));
                    self.check_error("open", &err, before);
                    if self.flipped {
                        // Damage that keeps a broker from opening is for people to see to.
                        return;
                    }
                    self.ended(End::Process);
                    self.disk.restart(End::Process);
                    self.disk.leave_room(None);
                    self.full = false;
                }
            }
        };
        self.broker = Some(broker);
        self.disk.disarm();
        self.look_around();
    }

    /// Holds all that is there after an opening against the model.
    fn look_around(&mut self) {
        let end = std::mem::replace(&mut self.worst, End::Clean);
        self.note(format!("open, life {}, after {end:?}", self.lives));
        let there: v1::ListTopicsResponse = self.call("ListTopics", &v1::ListTopicsRequest::default()).unwrap();
        let files = self.disk.files(Path::new(DIR));
        for index in 0..self.topics.len() {
            let exists = there.topics.iter().any(|topic| topic.name == self.topics[index].name);
            match self.topics[index].exists {
                Exists::Yes => assert!(exists, "topic {} is gone", self.topics[index].name),
                Exists::Maybe if exists => self.topic_exists(index),
                Exists::Maybe => self.topics[index].exists = Exists::No,
                Exists::No => assert!(!exists),
            }
            if !exists {
                continue;
            }
            self.look_at_groups(index);
            let state = self.describe_topic(index).unwrap();
            for number in 0..self.topics[index].partitions.len() {
                let found = self.read(index, number, 0);
                let ends = (found.first(), found.last());
                self.note(format!("  {}/{number} has {} records, {ends:?}", self.topics[index].name, found.len()));
                let topic = &mut self.topics[index];
                let (durability, partition) = (topic.durability, &mut topic.partitions[number]);
                assert_eq!(partition.log_id, state.partitions[number].log_id, "the log has another id");
                if self.flipped {
                    // Damage ends what was promised, but for what is given not to be wrong.
                    continue;
                }
                // What is put back from the dead letters comes in one batch.
                let buffer = QUEUE_SIZE + MAX_BATCH.max(partition.redriven.len());
                partition.reopened(durability, end, &found, buffer);
                files::check(&Path::new(DIR).join(topic.name).join(format!("partition-{number}")), &files);
            }
            for name in PRODUCERS {
                let request = v1::OpenProducerRequest {
                    topic: self.topics[index].name.into(),
                    producer: name.into(),
                    ..Default::default()
                };
                let answer: v1::OpenProducerResponse = self.call("OpenProducer", &request).unwrap();
                if self.flipped {
                    continue;
                }
                let topic = &mut self.topics[index];
                for (partition, state) in topic.partitions.iter_mut().zip(answer.partitions) {
                    self.steps.push(format!("  {}: {name} at {}", topic.name, state.sequence));
                    partition.producer_reopened(topic.durability, end, name, state.sequence);
                }
            }
            for (partition, state) in self.topics[index].partitions.iter_mut().zip(state.partitions) {
                partition.synced_below = partition.synced_below.max(state.synced_end_offset);
            }
        }
    }

    fn look_at_groups(&mut self, topic: usize) {
        let request = v1::ListGroupsRequest { topic: self.topics[topic].name.into() };
        let there: v1::ListGroupsResponse = self.call("ListGroups", &request).unwrap();
        for (name, ordered) in GROUPS {
            let exists = there.groups.iter().any(|group| group.name == name);
            if self.topics[topic].groups.contains_key(name) {
                assert!(exists, "group {name} is gone");
            } else if exists {
                self.group_exists(topic, name, ordered);
            }
        }
    }

    /// The end of a life: without any more trouble every record that is not acked comes, and none that is.
    fn drain(&mut self) {
        if self.broker.is_none() {
            return;
        }
        self.note("drain".to_owned());
        self.disk.disarm();
        self.disk.leave_room(None);
        self.full = false;
        if self.disk.errors() > 0 {
            self.close();
        }
        for topic in 0..self.topics.len() {
            if self.topics[topic].exists != Exists::Yes {
                continue;
            }
            if !self.flipped {
                self.look_at_the_dead(topic);
            }
            for (group, ordered) in GROUPS {
                if !self.topics[topic].groups.contains_key(group) {
                    continue;
                }
                self.now_ns += 600 * SECOND;
                self.clock.advance_ns(600 * SECOND);
                for number in 0..2 {
                    let first = self.leases.len();
                    while self.receive_as(topic, (group, ordered), "last", &[number], (100, 3, 0)) > 0 {}
                    for lease in first..self.leases.len() {
                        let range = self.leases[lease].range.clone();
                        let part = v1::LeaseRange { lease_id: self.leases[lease].id.clone(), ranges: vec![] };
                        self.ack_part(lease, part, range.start, range.end);
                    }
                }
            }
        }
        if self.broker.is_some() {
            self.close();
        }
    }
}

/// Whether failed syncs may lose what they were to write, see [`SimDisk::forget_failed_syncs`].
const FORGETFUL: bool = true;
