//! SIGKILL at random moments under load, over and over in one folder: nothing acknowledged is missing, nothing acked
//! comes back, no sequence is stored twice.
//!
//! The test starts itself again as the child that produces and consumes. The child says on its standard output, one line
//! each, what a partition has answered: it is the only memory that a kill leaves. `SOAK_SECONDS=n` goes on for so long,
//! with other moments at every run.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]
#![allow(clippy::print_stderr, reason = "the child speaks to the test")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::wire::v1;
use prost::Message;

use support::soak::Soak;

const KILLS: u64 = 200;
/// The folder; set for the child only.
const DIR: &str = "KILL9_DIR";
const SEED: &str = "KILL9_SEED";
/// Topics are named after their durability.
const TOPICS: [(&str, v1::Durability); 2] = [("os", v1::Durability::Os), ("fsync", v1::Durability::Fsync)];
const GROUPS: [(&str, v1::GroupMode); 2] = [("shared", v1::GroupMode::Shared), ("ordered", v1::GroupMode::Ordered)];

fn call<M: Message + Default>(broker: &Broker, method: &str, request: &impl Message) -> M {
    let response = broker.call(method, &request.encode_to_vec()).unwrap_or_else(|err| panic!("{method}: {err}"));
    M::decode(response.as_slice()).unwrap()
}

fn open(dir: &Path) -> Broker {
    Broker::open(dir, BrokerOptions::default(), None).unwrap()
}

fn values(delivery: &v1::Delivery) -> impl Iterator<Item = u64> {
    delivery.records.iter().map(|record| u64::from_le_bytes(record.value[..8].try_into().unwrap()))
}

fn wish(topic: &str, (group, mode): (&str, v1::GroupMode)) -> v1::ReceiveRequest {
    v1::ReceiveRequest {
        topic: topic.into(),
        group: group.into(),
        consumer: "c".into(),
        max_records: 64,
        mode: mode.into(),
        ..Default::default()
    }
}

/// Numbers that differ from seed to seed; good enough to choose moments and sizes.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One whole line, in one write, so that lines of several threads do not mix. Without a listener the child ends.
fn say(line: &str) {
    if std::io::stdout().write_all(format!("{line}\n").as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// Produces 0, 1, 2, ... in batches of a named producer, going on where the broker says it stands.
fn produce(broker: &Broker, topic: &str, mut chance: Chance) {
    let request = v1::OpenProducerRequest { topic: topic.into(), producer: "p".into(), ..Default::default() };
    let mut next = call::<v1::OpenProducerResponse>(broker, "OpenProducer", &request).partitions[0].sequence;
    loop {
        // Mostly small batches; now and then one that fills pages and rolls a segment before long.
        let (count, padding) = if chance.below(16) == 0 { (300, 400) } else { (1 + chance.below(20), 20) };
        let record = |number: u64| {
            let mut value = number.to_le_bytes().to_vec();
            value.resize(8 + padding, number as u8);
            v1::Record { value, ..Default::default() }
        };
        let records = (next..next + count).map(record).collect();
        next += count;
        let request = v1::ProduceRequest {
            topic: topic.into(),
            partition: Some(0),
            producer: "p".into(),
            sequence: next,
            records,
            ..Default::default()
        };
        call::<v1::ProduceResponse>(broker, "Produce", &request);
        say(&format!("stored {topic} {next}"));
    }
}

/// Acks what it is given, whole or in part; gives some back.
fn consume(broker: &Broker, topic: &str, group: (&str, v1::GroupMode), mut chance: Chance) {
    let wakeups = broker.wakeups().subscribe(Some(topic.into())).unwrap();
    loop {
        wakeups.drain();
        let response: v1::ReceiveResponse = call(broker, "Receive", &wish(topic, group));
        let Some(delivery) = response.deliveries.first() else {
            rustix::event::poll(&mut [rustix::event::PollFd::new(&wakeups.fd(), rustix::event::PollFlags::IN)], None)
                .unwrap();
            continue;
        };
        let given: Vec<u64> = values(delivery).collect();
        let list: Vec<String> = given.iter().map(u64::to_string).collect();
        say(&format!("given {topic} {} {}", group.0, list.join(" ")));
        let (start, end) = (delivery.base_offset, delivery.base_offset + given.len() as u64);
        // An ordered group's ack covers everything before it, so there only its end is chosen.
        let from = if group.1 == v1::GroupMode::Shared { start + chance.below(end - start) } else { start };
        let to = from + 1 + chance.below(end - from);
        let part = |start, end| {
            let lease_id = delivery.lease_id.clone();
            vec![v1::LeaseRange { lease_id, ranges: vec![v1::OffsetRange { start, end }] }]
        };
        let done = list[(from - start) as usize..(to - start) as usize].join(" ");
        say(&format!("acking {topic} {} {done}", group.0));
        let ack = v1::AckRequest { topic: topic.into(), group: group.0.into(), leases: part(from, to) };
        let acked: v1::AckResponse = call(broker, "Ack", &ack);
        assert_eq!((acked.acked, acked.stale.len()), (to - from, 0), "{topic} {} {from}..{to}", group.0);
        say(&format!("acked {topic} {} {done}", group.0));
        let rest: Vec<v1::LeaseRange> =
            [(start, from), (to, end)].into_iter().filter(|(a, b)| a < b).flat_map(|(a, b)| part(a, b)).collect();
        if !rest.is_empty() {
            let nack =
                v1::NackRequest { topic: topic.into(), group: group.0.into(), leases: rest, ..Default::default() };
            call::<v1::NackResponse>(broker, "Nack", &nack);
        }
    }
}

/// The child's life: it ends by being killed.
fn live_until_killed(dir: &Path, seed: u64) -> ! {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(1);
    }));
    let broker = Arc::new(open(dir));
    for (number, (topic, durability)) in (0u64..).zip(TOPICS) {
        let config = v1::TopicConfig {
            partitions: Some(1),
            durability: durability.into(),
            segment_bytes: Some(1 << 20),
            max_attempts: Some(0),
            ..Default::default()
        };
        let request = v1::CreateTopicRequest { name: topic.into(), config: Some(config), ..Default::default() };
        call::<v1::CreateTopicResponse>(&broker, "CreateTopic", &request);
        let chance = |salt: u64| Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number * 8 + salt + 1));
        let (producing, chance_of_producing) = (broker.clone(), chance(0));
        std::thread::spawn(move || produce(&producing, topic, chance_of_producing));
        for (salt, group) in (1..).zip(GROUPS) {
            let (consuming, chance) = (broker.clone(), chance(salt));
            std::thread::spawn(move || consume(&consuming, topic, group, chance));
        }
    }
    loop {
        std::thread::park();
    }
}

/// What is known of a group in one topic.
#[derive(Default)]
struct Acks {
    /// All below is acked.
    floor: u64,
    /// Acks that were answered.
    answered: BTreeSet<u64>,
    /// Acks that were asked for: those without an answer may hold or not.
    asked: BTreeSet<u64>,
}

/// What the child said about one topic.
#[derive(Default)]
struct Said {
    /// Records answered as stored.
    stored: u64,
    groups: [Acks; 2],
}

impl Said {
    fn hear(&mut self, topic: &str, words: &[&str], kill: u64) {
        let numbers = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<u64>>();
        let group = |name: &str| GROUPS.iter().position(|(group, _)| *group == name).unwrap();
        match words {
            ["stored", _, upto] => self.stored = upto.parse().unwrap(),
            ["given", _, name, given @ ..] => self.check_given(topic, group(name), &numbers(given), kill),
            ["acking", _, name, acked @ ..] => self.groups[group(name)].asked.extend(numbers(acked)),
            ["acked", _, name, acked @ ..] => self.groups[group(name)].answered.extend(numbers(acked)),
            _ => panic!("the child said {words:?}"),
        }
    }

    fn check_given(&self, topic: &str, group: usize, given: &[u64], kill: u64) {
        let acks = &self.groups[group];
        if let Some(again) = given.iter().find(|value| **value < acks.floor || acks.answered.contains(value)) {
            panic!("{topic}: record {again} was acked by {} and came again after kill {kill}", GROUPS[group].0);
        }
    }
}

/// How far a topic's log was checked: the offset to go on at, and the records before it. Offsets may leave gaps: where a
/// kill tore a frame, numbering goes on at the ceiling.
#[derive(Clone, Copy, Default)]
struct Checked {
    offset: u64,
    records: u64,
}

/// The records of a topic's log must be 0, 1, 2, ... as far as was answered at least; returns how far it was checked.
fn check_log(broker: &Broker, topic: &str, checked: Checked, said: &Said, kill: u64) -> Checked {
    let Checked { mut offset, records: mut next } = checked;
    loop {
        let from = Some(v1::Position { at: Some(v1::position::At::Offset(offset)), ..Default::default() });
        let request = v1::ReadRequest { topic: topic.into(), from, max_records: 65_536, ..Default::default() };
        let response: v1::ReadResponse = call(broker, "Read", &request);
        if response.deliveries.is_empty() {
            break;
        }
        for delivery in &response.deliveries {
            for value in values(delivery) {
                assert_eq!(value, next, "{topic}: a record is missing or stands twice after kill {kill}");
                next += 1;
            }
        }
        offset = response.next_offset;
    }
    assert!(next >= said.stored, "{topic}: {} records were answered, {next} are there after kill {kill}", said.stored);
    Checked { offset, records: next }
}

/// Takes and acks all that a group has left. What was acked must not be in it, all else that is stored must be.
fn check_group(broker: &Broker, topic: &str, group: usize, said: &mut Said, stored: u64, kill: u64) {
    let mut left = BTreeSet::new();
    loop {
        let request = v1::ReceiveRequest { max_records: 65_536, ..wish(topic, GROUPS[group]) };
        let response: v1::ReceiveResponse = call(broker, "Receive", &request);
        let Some(delivery) = response.deliveries.first() else { break };
        let given: Vec<u64> = values(delivery).collect();
        said.check_given(topic, group, &given, kill);
        left.extend(given);
        let leases = vec![v1::LeaseRange { lease_id: delivery.lease_id.clone(), ranges: vec![] }];
        let request = v1::AckRequest { topic: topic.into(), group: GROUPS[group].0.into(), leases };
        call::<v1::AckResponse>(broker, "Ack", &request);
    }
    let acks = &mut said.groups[group];
    let gone = |value: &u64| !left.contains(value) && !acks.asked.contains(value);
    let lost: Vec<u64> = (acks.floor..stored).filter(gone).take(10).collect();
    assert!(lost.is_empty(), "{topic}: {} never got {lost:?}, found after kill {kill}", GROUPS[group].0);
    *acks = Acks { floor: stored, ..Acks::default() };
}

fn live_and_die(dir: &Path, kill: u64, chance: &mut Chance, said: &mut [Said; 2]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_of_the_kill_test", "--nocapture", "--quiet"])
        .env(DIR, dir)
        .env(SEED, kill.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hear = |line: std::io::Result<String>| {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        if let Some(topic) = words.get(1).and_then(|word| TOPICS.iter().position(|(topic, _)| topic == word)) {
            said[topic].hear(TOPICS[topic].0, &words, kill);
            return true;
        }
        // The frame of the test harness around the child; a panic of the child ends the pipe early instead.
        false
    };
    // Moments are counted in answers, and a little at random behind them; some come while the broker still opens.
    let mut answers = if chance.below(8) == 0 { 0 } else { 1 + chance.below(40) };
    while answers > 0 {
        let line = lines.next().unwrap_or_else(|| panic!("the child ended by itself before kill {kill}"));
        answers -= u64::from(hear(line));
    }
    std::thread::sleep(Duration::from_micros(chance.below(4000)));
    child.kill().unwrap();
    lines.for_each(|line| {
        hear(line);
    });
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "the child ended by itself: {status}");
}

#[test]
fn given_load_when_killed_200_times_then_nothing_acknowledged_is_missing_and_nothing_acked_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let soak = Soak::asked();
    let mut chance = Chance(soak.as_ref().map_or(0xDEAD_BEEF, |soak| soak.seed));
    let (mut said, mut stored) = (<[Said; 2]>::default(), [Checked::default(); 2]);
    for kill in 1.. {
        live_and_die(dir.path(), kill, &mut chance, &mut said);
        let last = soak.as_ref().map_or(kill == KILLS, |soak| kill >= 10 && soak.is_over());
        let broker = open(dir.path());
        for (number, (topic, _)) in TOPICS.iter().enumerate() {
            if broker.topic(topic).is_err() {
                assert_eq!(said[number].stored, 0, "{topic} is gone after kill {kill}");
                continue;
            }
            stored[number] = check_log(&broker, topic, stored[number], &said[number], kill);
            for group in 0..GROUPS.len() {
                if kill % 10 == 0 || last {
                    check_group(&broker, topic, group, &mut said[number], stored[number].records, kill);
                }
            }
        }
        // As good as one more kill.
        broker.close(false).unwrap();
        if last {
            break;
        }
    }
    assert!(said.iter().all(|said| said.stored > 0 && said.groups.iter().all(|acks| acks.floor > 0)));
}

/// No test of its own: what the kill test starts and kills.
#[test]
fn the_child_of_the_kill_test() {
    if let Some(dir) = std::env::var_os(DIR) {
        live_until_killed(Path::new(&dir), std::env::var(SEED).unwrap().parse().unwrap());
    }
}
