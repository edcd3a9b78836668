//! The ring against a plain model: the documented construction, written down as slowly and plainly as possible.

#![allow(clippy::expect_used, reason = "helpers of tests")]

use broker_core::partitioner::{key_hash, partition_for_key};
use broker_core::ring::{DEFAULT_VIRTUAL_NODES, HashRing, MAX_PARTITIONS, MAX_POINTS, RingError, RingNode};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Members = BTreeMap<String, f64>;

/// All points in one sorted list; every question is answered by walking it from its beginning.
struct Model {
    points: Vec<(u64, String)>,
}

impl Model {
    fn new(virtual_nodes: u32, members: &Members) -> Self {
        let mut points = Vec::new();
        for (name, weight) in members {
            for i in 0..Self::point_count(virtual_nodes, *weight) {
                points.push((key_hash(format!("{name}#{i}").as_bytes()), name.clone()));
            }
        }
        points.sort();
        Self { points }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    fn point_count(virtual_nodes: u32, weight: f64) -> u64 {
        1.max((f64::from(virtual_nodes) * weight + 0.5).floor() as u64)
    }

    fn clockwise(&self, key: &[u8]) -> impl Iterator<Item = &str> {
        let hash = key_hash(key);
        let (below, at_or_above): (Vec<_>, Vec<_>) = self.points.iter().partition(|(point, _)| *point < hash);
        at_or_above.into_iter().chain(below).map(|(_, name)| name.as_str())
    }

    fn preference(&self, key: &[u8], n: usize) -> Vec<&str> {
        let mut list = Vec::new();
        for name in self.clockwise(key) {
            if list.len() < n && !list.contains(&name) {
                list.push(name);
            }
        }
        list
    }

    fn place(&self, topic: &str, partitions: u64) -> Vec<&str> {
        let mut placed: Vec<&str> = Vec::new();
        for p in 0..partitions {
            let key = format!("{topic}/{p}");
            let node = self.clockwise(key.as_bytes()).find(|name| {
                let held = placed.iter().filter(|other| other == &name).count() as u64;
                let own = self.points.iter().filter(|(_, other)| other == name).count() as u64;
                held < ((p + 1) * own).div_ceil(self.points.len() as u64)
            });
            placed.push(node.expect("some node has room"));
        }
        placed
    }
}

fn ring_of(virtual_nodes: u32, members: &Members) -> HashRing {
    HashRing::with_nodes(virtual_nodes, members.clone()).expect("valid members")
}

fn brokers(count: usize) -> Members {
    (0..count).map(|i| (format!("broker-{i}"), 1.0)).collect()
}

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("GPU-{i:08x}-86f3-7a43-b711-4771313afc50").into_bytes()).collect()
}

fn owners<'r>(ring: &'r HashRing, keys: &[Vec<u8>]) -> Vec<&'r str> {
    keys.iter().map(|key| ring.node_for(key).expect("a ring with nodes")).collect()
}

fn shares(ring: &HashRing, keys: &[Vec<u8>]) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for owner in owners(ring, keys) {
        *shares.entry(owner.to_owned()).or_insert(0.0) += 1.0 / keys.len() as f64;
    }
    shares
}

fn members() -> impl Strategy<Value = Members> {
    btree_map("[a-z0-9#/é-]{1,12}", prop_oneof![Just(1.0), 0.001..4.0_f64], 1..7)
}

proptest! {
    #[test]
    fn given_any_members_when_looked_up_then_answers_are_the_models(
        virtual_nodes in 1_u32..40,
        members in members(),
        keys in vec(vec(any::<u8>(), 0..60), 1..40),
        n in 1_usize..9,
    ) {
        let (ring, model) = (ring_of(virtual_nodes, &members), Model::new(virtual_nodes, &members));
        let names: Vec<&str> = ring.nodes().iter().map(RingNode::name).collect();
        let bulk = ring.indexes_for(keys.iter().map(Vec::as_slice))?;
        for (key, index) in keys.iter().zip(bulk) {
            let expected = model.preference(key, n);
            prop_assert_eq!(ring.node_for(key)?, expected[0]);
            prop_assert_eq!(names[index as usize], expected[0]);
            prop_assert_eq!(ring.nodes_for(key, n)?, expected);
        }
    }

    #[test]
    fn given_any_members_when_partitions_are_placed_then_the_bound_holds_and_growth_moves_nothing(
        members in members(),
        topic in "[a-z]{1,8}",
        partitions in 1_u32..40,
    ) {
        let (ring, model) = (ring_of(20, &members), Model::new(20, &members));
        let placed = ring.place(&topic, partitions)?;
        let names: Vec<&str> = placed.iter().map(|&node| ring.nodes()[node as usize].name()).collect();
        prop_assert_eq!(&names, &model.place(&topic, u64::from(partitions)));
        let all: u64 = ring.nodes().iter().map(|node| u64::from(node.points())).sum();
        for (index, node) in (0..).zip(ring.nodes()) {
            let held = placed.iter().filter(|&&other| other == index).count() as u64;
            prop_assert!(held <= (u64::from(partitions) * u64::from(node.points())).div_ceil(all));
        }
        let grown = ring.place(&topic, partitions + 5)?;
        prop_assert_eq!(&grown[..partitions as usize], &placed[..]);
    }

    #[test]
    fn given_any_insertion_order_when_built_then_the_ring_is_the_same(
        order in Just((0..6).map(|i| format!("broker-{i}")).collect::<Vec<_>>()).prop_shuffle(),
        removed in 0_usize..6,
    ) {
        let keys = keys(200);
        let at_once = ring_of(DEFAULT_VIRTUAL_NODES, &brokers(6));
        let mut grown = HashRing::new(DEFAULT_VIRTUAL_NODES)?;
        for name in &order {
            grown.add_node(name, 1.0)?;
        }
        prop_assert_eq!(owners(&grown, &keys), owners(&at_once, &keys));
        // A node that left and came back leaves no trace either.
        grown.remove_node(&order[removed])?;
        grown.add_node(&order[removed], 1.0)?;
        prop_assert_eq!(owners(&grown, &keys), owners(&at_once, &keys));
    }

    #[test]
    fn given_a_node_added_or_removed_when_looked_up_then_only_its_keys_moved(
        members in members(),
        newcomer in "[A-Z]{3}",
        weight in 0.1..3.0_f64,
    ) {
        let keys = keys(300);
        let before = ring_of(30, &members);
        let mut after = before.clone();
        after.add_node(&newcomer, weight)?;
        for (old, new) in owners(&before, &keys).into_iter().zip(owners(&after, &keys)) {
            prop_assert!(old == new || new == newcomer, "{old} lost a key to {new}");
        }
        after.remove_node(&newcomer)?;
        prop_assert_eq!(owners(&before, &keys), owners(&after, &keys));
    }

    #[test]
    fn given_unhealthy_nodes_when_asked_then_each_answer_is_that_of_the_healthy_nodes_in_the_same_order(
        members in members(),
        marks in vec(any::<bool>(), 7),
        n in 1_usize..8,
    ) {
        let (whole, model) = (ring_of(20, &members), Model::new(20, &members));
        let mut ring = whole.clone();
        let healthy: BTreeSet<&str> =
            members.keys().zip(&marks).filter(|(_, healthy)| **healthy).map(|(name, _)| name.as_str()).collect();
        for (name, &mark) in members.keys().zip(&marks) {
            ring.set_healthy(name, mark)?;
        }
        let answers = |name: &&str| healthy.is_empty() || healthy.contains(*name);
        for key in keys(50) {
            let expected: Vec<&str> = model.preference(&key, members.len()).into_iter().filter(answers).collect();
            prop_assert_eq!(ring.node_for(&key)?, expected[0]);
            prop_assert_eq!(&ring.nodes_for(&key, n)?[..], &expected[..n.min(expected.len())]);
        }
        for (p, (now, configured)) in ring.place("t", 12)?.into_iter().zip(whole.place("t", 12)?).enumerate() {
            let name = |index: u32| ring.nodes()[index as usize].name();
            let own = Some(name(configured)).filter(answers);
            let expected = own.or_else(|| model.clockwise(format!("t/{p}").as_bytes()).find(answers));
            prop_assert_eq!(Some(name(now)), expected);
        }
        for name in members.keys() {
            ring.set_healthy(name, true)?;
        }
        prop_assert_eq!(owners(&ring, &keys(50)), owners(&whole, &keys(50)));
    }

    #[test]
    fn given_a_node_removed_when_looked_up_then_its_keys_go_to_the_next_preference(members in members()) {
        prop_assume!(members.len() > 1);
        let before = ring_of(30, &members);
        for gone in members.keys() {
            let mut after = before.clone();
            after.remove_node(gone)?;
            for key in keys(100) {
                let list = before.nodes_for(&key, 2)?;
                let expected = if list[0] == gone { list[1] } else { list[0] };
                prop_assert_eq!(after.node_for(&key)?, expected);
            }
        }
    }
}

#[test]
fn given_three_brokers_when_a_fourth_joins_then_about_a_quarter_of_the_keys_move_all_to_it() {
    let keys = keys(100_000);
    let mut ring = ring_of(DEFAULT_VIRTUAL_NODES, &brokers(3));
    let before: Vec<String> = owners(&ring, &keys).into_iter().map(str::to_owned).collect();
    ring.add_node("broker-3", 1.0).unwrap();
    let moved: Vec<&str> =
        owners(&ring, &keys).into_iter().zip(&before).filter(|(new, old)| new != old).map(|(new, _)| new).collect();
    let share = moved.len() as f64 / keys.len() as f64;
    assert!((0.20..0.30).contains(&share), "{share} of the keys moved");
    assert!(moved.iter().all(|&new| new == "broker-3"));

    let by_modulo = keys.iter().filter(|key| key_hash(key) % 3 != key_hash(key) % 4).count() as f64 / keys.len() as f64;
    assert!((0.74..0.76).contains(&by_modulo), "modulo moves {by_modulo}");
}

#[test]
fn given_equal_brokers_when_keys_are_spread_then_each_is_within_a_quarter_of_its_share() {
    let keys = keys(100_000);
    for count in [2, 3, 4, 10] {
        let fair = 1.0 / count as f64;
        for (name, share) in shares(&ring_of(DEFAULT_VIRTUAL_NODES, &brokers(count)), &keys) {
            assert!((0.75 * fair..1.25 * fair).contains(&share), "{name} of {count} has {share}");
        }
    }
}

#[test]
fn given_weights_when_keys_are_spread_then_shares_follow_them() {
    let members = Members::from([("half".into(), 0.5), ("one".into(), 1.0), ("two".into(), 2.0)]);
    let ring = ring_of(DEFAULT_VIRTUAL_NODES, &members);
    assert_eq!(ring.nodes().iter().map(RingNode::points).collect::<Vec<_>>(), [75, 150, 300]);
    for (name, share) in shares(&ring, &keys(100_000)) {
        let fair = members[&name] / 3.5;
        assert!((0.75 * fair..1.25 * fair).contains(&share), "{name} has {share}, {fair} is fair");
    }
}

#[test]
fn given_four_partitions_when_placed_then_no_broker_holds_more_than_its_part() {
    for (count, at_most) in [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)] {
        let ring = ring_of(DEFAULT_VIRTUAL_NODES, &brokers(count));
        for topic in ["telemetry", "events", "orders"] {
            let placed = ring.place(topic, 4).unwrap();
            for node in placed.iter().collect::<BTreeSet<_>>() {
                assert!(placed.iter().filter(|&other| other == node).count() <= at_most);
            }
        }
    }
}

#[test]
fn given_an_empty_ring_when_asked_then_it_says_so() {
    let mut ring = HashRing::default();
    assert_eq!(ring.node_for(b"k"), Err(RingError::Empty));
    assert_eq!(ring.nodes_for(b"k", 2), Err(RingError::Empty));
    assert_eq!(ring.place("t", 4), Err(RingError::Empty));
    assert_eq!(ring.indexes_for([]), Ok(vec![]));
    ring.add_node("a", 1.0).unwrap();
    ring.remove_node("a").unwrap();
    assert_eq!(ring.node_for(b"k"), Err(RingError::Empty));
}

#[test]
fn given_a_wrong_member_or_question_when_refused_then_the_ring_is_unchanged() {
    let mut ring = ring_of(DEFAULT_VIRTUAL_NODES, &brokers(2));
    let before = ring.nodes().to_vec();
    assert!(matches!(ring.add_node("broker-0", 1.0), Err(RingError::DuplicateNode { .. })));
    assert!(matches!(ring.remove_node("broker-7"), Err(RingError::UnknownNode { .. })));
    assert!(matches!(ring.set_healthy("broker-7", false), Err(RingError::UnknownNode { .. })));
    assert!(matches!(ring.add_node("", 1.0), Err(RingError::InvalidName { bytes: 0, .. })));
    assert!(matches!(ring.add_node(&"n".repeat(256), 1.0), Err(RingError::InvalidName { bytes: 256, .. })));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(ring.add_node("c", weight), Err(RingError::InvalidWeight { .. })));
    }
    for weight in [1e300, MAX_POINTS as f64] {
        assert!(matches!(ring.add_node("c", weight), Err(RingError::TooManyPoints { .. })));
    }
    assert_eq!(ring.nodes_for(b"k", 0), Err(RingError::NoPreferences));
    for partitions in [0, MAX_PARTITIONS + 1] {
        assert_eq!(ring.place("t", partitions), Err(RingError::InvalidPartitions { partitions }));
    }
    assert_eq!(HashRing::new(0).unwrap_err(), RingError::NoVirtualNodes);
    let twice = [("a", 1.0), ("a", 2.0)];
    assert!(matches!(HashRing::with_nodes(1, twice), Err(RingError::DuplicateNode { .. })));
    let points = MAX_POINTS / 2 + 1;
    let many = [("a", points as f64), ("b", points as f64)];
    assert!(matches!(HashRing::with_nodes(1, many), Err(RingError::TooManyPoints { .. })));
    assert_eq!(ring.nodes(), before);
}

/// The vectors were computed by another implementation of the same text, in another language.
fn vectors(file: &str) -> serde_json::Value {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).expect("readable vectors")).expect("valid JSON")
}

fn key_of(vector: &serde_json::Value) -> Vec<u8> {
    let hex = vector["key_hex"].as_str().expect("a string");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex digits")).collect()
}

#[test]
fn given_the_partition_vectors_when_computed_then_hashes_and_partitions_are_theirs() {
    for vector in vectors("partitions.json")["vectors"].as_array().unwrap() {
        let key = key_of(vector);
        assert_eq!(format!("{:016x}", key_hash(&key)), vector["hash"]);
        for (partitions, expected) in vector["partitions"].as_object().unwrap() {
            assert_eq!(partition_for_key(&key, partitions.parse().unwrap()), *expected);
        }
    }
}

#[test]
fn given_the_ring_vectors_when_built_then_preferences_and_placements_are_theirs() {
    for vector in vectors("ring.json")["rings"].as_array().unwrap() {
        let members: Members = serde_json::from_value(vector["nodes"].clone()).unwrap();
        let ring = ring_of(serde_json::from_value(vector["virtual_nodes"].clone()).unwrap(), &members);
        for wanted in vector["preferences"].as_array().unwrap() {
            assert_eq!(serde_json::json!(ring.nodes_for(&key_of(wanted), 3).unwrap()), wanted["nodes"]);
        }
        for wanted in vector["placements"].as_array().unwrap() {
            let partitions = u32::try_from(wanted["nodes"].as_array().unwrap().len()).unwrap();
            let placed = ring.place(wanted["topic"].as_str().unwrap(), partitions).unwrap();
            let names: Vec<_> = placed.iter().map(|&node| ring.nodes()[node as usize].name()).collect();
            assert_eq!(serde_json::json!(names), wanted["nodes"]);
        }
    }
}
