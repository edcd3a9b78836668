//! The ring at the size of a fleet: who holds how much, and what moves when brokers come and go.
//!
//! `cargo test --release -p broker_core --test ring_balance -- --nocapture` prints the tables of `docs/scaling.md`. All of
//! it is arithmetic on names: the figures are the same everywhere.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, which print what they found")]

use std::collections::BTreeMap;

use broker_core::partitioner::key_hash;
use broker_core::ring::{DEFAULT_VIRTUAL_NODES, HashRing};

/// Brokers of a large fleet, and how many of them come and go here: each such round takes a ring of 150,000 points anew.
const MANY: usize = 1_000;
const FEW_ROUNDS: usize = 20;
const KEYS: usize = 100_000;

fn broker(index: usize) -> String {
    format!("msg-queue-{index}")
}

fn ring(count: usize) -> HashRing {
    HashRing::with_nodes(DEFAULT_VIRTUAL_NODES, (0..count).map(|index| (broker(index), 1.0))).unwrap()
}

/// What is spread over brokers, and who then has what: the owner's name, thing by thing.
trait Things {
    fn count(&self) -> usize;
    fn owners<'r>(&self, ring: &'r HashRing) -> Vec<&'r str>;
    fn hashes(&self) -> Vec<u64>;
}

struct Keys(Vec<String>);

impl Keys {
    fn new() -> Self {
        Self((0..KEYS).map(|index| format!("GPU-{index:08x}-86f3-7a43-b711-4771313afc50")).collect())
    }
}

impl Things for Keys {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn owners<'r>(&self, ring: &'r HashRing) -> Vec<&'r str> {
        self.0.iter().map(|key| ring.node_for(key.as_bytes()).unwrap()).collect()
    }

    fn hashes(&self) -> Vec<u64> {
        self.0.iter().map(|key| key_hash(key.as_bytes())).collect()
    }
}

/// The partitions of many topics.
struct Partitions {
    topics: usize,
    each: u32,
}

impl Things for Partitions {
    fn count(&self) -> usize {
        self.topics * self.each as usize
    }

    fn owners<'r>(&self, ring: &'r HashRing) -> Vec<&'r str> {
        let placed = (0..self.topics).flat_map(|topic| ring.place(&format!("topic-{topic}"), self.each).unwrap());
        placed.map(|node| ring.nodes()[node as usize].name()).collect()
    }

    fn hashes(&self) -> Vec<u64> {
        let names = (0..self.topics).flat_map(|topic| (0..self.each).map(move |p| format!("topic-{topic}/{p}")));
        names.map(|name| key_hash(name.as_bytes())).collect()
    }
}

fn max_over_mean<T: Ord>(owners: &[T], brokers: usize) -> f64 {
    let mut held: BTreeMap<&T, usize> = BTreeMap::new();
    for owner in owners {
        *held.entry(owner).or_default() += 1;
    }
    let most = held.values().max().copied().unwrap_or_default();
    most as f64 * brokers as f64 / owners.len() as f64
}

fn moved<T: PartialEq>(before: &[T], after: &[T]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64
}

/// What moves on average, as multiples of what would if all were spread evenly and nothing moved in vain: the newcomer's
/// or the leaver's share alone.
#[derive(Debug)]
struct Moves {
    join: f64,
    leave: f64,
    /// While a broker that is still a member is away, and after it is back.
    away: f64,
    back: f64,
    /// A join, were things on the broker of their hash modulo the brokers.
    by_modulo: f64,
}

fn moves(things: &impl Things, brokers: usize, rounds: usize) -> Moves {
    let before = ring(brokers);
    let owned = things.owners(&before);
    let mut sums = [0.0; 4];
    for round in 0..rounds {
        let mut joined = before.clone();
        joined.add_node(&broker(brokers + round), 1.0).unwrap();
        let owned_then = things.owners(&joined);
        sums[0] += moved(&owned, &owned_then);
        // From the larger ring another one leaves, so that no leave is a join undone.
        let leaver = broker(round % brokers);
        let mut left = joined.clone();
        left.remove_node(&leaver).unwrap();
        sums[1] += moved(&owned_then, &things.owners(&left));
        let mut flapping = joined.clone();
        flapping.set_healthy(&leaver, false).unwrap();
        sums[2] += moved(&owned_then, &things.owners(&flapping));
        flapping.set_healthy(&leaver, true).unwrap();
        sums[3] += moved(&owned_then, &things.owners(&flapping));
    }
    let ideal = rounds as f64 * things.count() as f64 / (brokers + 1) as f64;
    let [join, leave, away, back] = sums.map(|sum| sum / ideal);
    let owned_by = |count: usize| things.hashes().into_iter().map(move |hash| hash % count as u64).collect::<Vec<_>>();
    let by_modulo = moved(&owned_by(brokers), &owned_by(brokers + 1)) * rounds as f64 / ideal;
    Moves { join, leave, away, back, by_modulo }
}

/// Prints a table, and gives what the test of it needs.
fn table(name: &str, things: &impl Things, brokers: usize, rounds: usize) -> (f64, Moves) {
    let balance = max_over_mean(&things.owners(&ring(brokers)), brokers);
    let moves = moves(things, brokers, rounds);
    let modulo: Vec<u64> = things.hashes().into_iter().map(|hash| hash % brokers as u64).collect();
    println!("\n{} {name}, {brokers} brokers of {DEFAULT_VIRTUAL_NODES} virtual nodes", things.count());
    println!("| | ring | hash % brokers | ideal |\n|---|---|---|---|");
    println!("| most at one broker / mean | {balance:.2} | {:.2} | 1 |", max_over_mean(&modulo, brokers));
    for (what, value, modulo, ideal) in [
        ("moved when one joins", moves.join, moves.by_modulo, 1),
        ("moved when one leaves", moves.leave, moves.by_modulo, 1),
        ("moved while one is down", moves.away, moves.by_modulo, 1),
        ("still elsewhere when it is back", moves.back, 0.0, 0),
    ] {
        println!("| {what} | {value:.2} | {modulo:.2} | {ideal} |");
    }
    (balance, moves)
}

#[test]
fn given_ten_brokers_when_they_come_and_go_then_what_moves_is_within_a_tenth_of_the_ideal() {
    let (balance, moves) = table("keys", &Keys::new(), 10, 100);
    assert!(balance <= 1.25, "{balance}");
    for average in [moves.join, moves.leave, moves.away] {
        assert!((0.9..=1.1).contains(&average), "{moves:?}");
    }
    assert!(moves.back == 0.0, "{moves:?}");
}

#[test]
fn given_a_thousand_brokers_when_they_come_and_go_then_keys_move_as_little_as_they_can() {
    let (balance, moves) = table("keys", &Keys::new(), MANY, FEW_ROUNDS);
    assert!(balance <= 1.6, "{balance}");
    for average in [moves.join, moves.leave, moves.away] {
        assert!((0.9..=1.1).contains(&average), "{moves:?}");
    }
    assert!(moves.back == 0.0, "{moves:?}");
}

#[test]
fn given_a_thousand_brokers_with_a_hundred_thousand_partitions_when_they_come_and_go_then_few_move() {
    let partitions = Partitions { topics: 1_563, each: 64 };
    let (balance, moves) = table("partitions in topics of 64", &partitions, MANY, FEW_ROUNDS);
    assert!(balance <= 1.6, "{balance}");
    for average in [moves.join, moves.leave, moves.away] {
        assert!((0.9..=1.2).contains(&average), "{moves:?}");
    }
    assert!(moves.back == 0.0, "{moves:?}");
}

#[test]
fn given_few_brokers_when_they_come_and_go_then_the_bound_moves_more_partitions_but_fewer_than_modulo() {
    for (each, brokers) in [(64, 10), (4, 3)] {
        let partitions = Partitions { topics: 6_400 / each as usize, each };
        let (balance, moves) = table(&format!("partitions in topics of {each}"), &partitions, brokers, 100);
        let bound = (each as usize).div_ceil(brokers) as f64 * brokers as f64 / f64::from(each);
        assert!(balance <= bound, "{balance}");
        assert!(moves.join < moves.by_modulo && moves.leave < moves.by_modulo, "{moves:?}");
        assert!((0.9..=1.1).contains(&moves.away) && moves.back == 0.0, "{moves:?}");
    }
}

#[test]
fn given_2_to_64_brokers_when_partitions_are_placed_then_none_has_more_than_its_part() {
    for brokers in 2..=64 {
        let ring = ring(brokers);
        for topic in ["telemetry", "events", "orders", "telemetry.dlq"] {
            let placed = ring.place(topic, 256).unwrap();
            let mut held = vec![0; brokers];
            // What a topic of fewer partitions has is the beginning of this: `ring_model.rs` shows it.
            for (before, &node) in placed.iter().enumerate() {
                held[node as usize] += 1;
                let most = (before + 1).div_ceil(brokers);
                assert!(held[node as usize] <= most, "{topic}, {} partitions, {brokers} brokers", before + 1);
            }
        }
    }
}
