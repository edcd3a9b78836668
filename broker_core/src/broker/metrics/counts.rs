//! What the broker counts from its start on, by the names of topics and groups, so that a topic that is deleted and made
//! again counts on: a counter never goes down while the process lives.
//!
//! A count changes once a batch, at most. Whoever counts keeps the counts of its name, so that none is looked up on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::MAX_TOPICS;
use crate::broker::topic::MAX_GROUPS;
use crate::log::Durability;

/// A number that only rises.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds so many.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of a group of a topic.
#[derive(Default)]
pub struct GroupCounts {
    /// Records leased to consumers.
    pub delivered: Count,
    /// Of these, records that had been leased before.
    pub redelivered: Count,
    /// Records that the group is done with.
    pub acked: Count,
    /// Records sent to the dead-letter topic.
    pub dead_lettered: Count,
}

/// Counts of a topic.
#[derive(Default)]
pub struct TopicCounts {
    /// Records appended.
    pub produced: Count,
    /// Bytes of these, as they were sent.
    pub appended_bytes: Count,
    /// Records leased, over all groups.
    pub consumed: Count,
    /// Records dropped, acked or not, because the topic drops the oldest.
    pub dropped: Count,
    /// Named producers forgotten before their time.
    pub forgotten_producers: Count,
    /// Bytes of torn tails that were cut off when logs were opened.
    pub cut_bytes: Count,
    /// Bytes of ack journals that could not be read when they were opened.
    pub journal_bad_bytes: Count,
    /// Those of the broker.
    pub syncs: Arc<Syncs>,
    groups: ByName<GroupCounts>,
}

impl TopicCounts {
    /// The counts of a group.
    pub fn group(&self, name: &str) -> Arc<GroupCounts> {
        self.groups.of(name, 2 * MAX_GROUPS, GroupCounts::default)
    }
}

/// Counts of the broker.
#[derive(Default)]
pub struct Counts {
    /// How long syncs took.
    pub syncs: Arc<Syncs>,
    topics: ByName<TopicCounts>,
}

impl Counts {
    /// The counts of a topic.
    pub fn topic(&self, name: &str) -> Arc<TopicCounts> {
        let make = || TopicCounts { syncs: self.syncs.clone(), ..TopicCounts::default() };
        self.topics.of(name, 2 * MAX_TOPICS, make)
    }
}

/// Counts by name. Those whose owner was deleted are kept, too, until there are too many of them.
#[derive(Default)]
struct ByName<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> ByName<T> {
    fn of(&self, name: &str, max: usize, make: impl FnOnce() -> T) -> Arc<T> {
        let mut counts = self.0.lock();
        if let Some(known) = counts.get(name) {
            return known.clone();
        }
        if counts.len() >= max {
            counts.retain(|_, count| Arc::strong_count(count) > 1);
        }
        counts.entry(name.to_owned()).or_insert_with(|| Arc::new(make())).clone()
    }
}

/// How long syncs took, by who waited for them.
///
/// One for the broker: a sync is one partition's, but all partitions are on one disk, and its pace is what is asked about.
#[derive(Default)]
pub struct Syncs {
    /// Group commits of `fsync` topics: producers and consumers wait for them.
    pub waited_for: Durations,
    /// In the background, of `os` topics.
    pub background: Durations,
}

impl Syncs {
    /// Those of logs with this durability.
    pub fn of(&self, durability: Durability) -> &Durations {
        if durability == Durability::Fsync { &self.waited_for } else { &self.background }
    }
}

/// A histogram of durations, with fixed buckets.
#[derive(Default)]
pub struct Durations {
    /// The last one is that of durations above all bounds.
    buckets: [AtomicU64; Self::BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Durations {
    /// Upper bounds of the buckets, each part of its bucket: from a fast disk's cache to a disk that hangs.
    pub const BOUNDS: [Duration; 16] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2_500),
        Duration::from_secs(5),
        Duration::from_secs(10),
    ];

    /// Adds one.
    pub fn observe(&self, duration: Duration) {
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < duration);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many there are in each bucket and those below it, the last one being all; and the seconds of all of them.
    pub fn read(&self) -> ([u64; Self::BOUNDS.len() + 1], f64) {
        let mut upto = 0;
        let cumulative = self.buckets.each_ref().map(|bucket| {
            upto += bucket.load(Ordering::Relaxed);
            upto
        });
        (cumulative, self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let durations = Durations::default();
        for micros in [100, 101, 2_500, 11_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let (cumulative, seconds) = durations.read();
        assert_eq!(cumulative, [1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert!((seconds - 11.002_701).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn counts_outlive_their_owner_until_there_are_too_many() {
        let names = ByName::<Count>::default();
        let of = |name: &str| names.of(name, 3, Count::default);
        let held = of("held");
        held.add(1);
        of("deleted").add(2);
        assert_eq!(of("deleted").get(), 2, "made again, it counts on");
        of("third");
        of("fourth");
        assert_eq!((of("held").get(), of("deleted").get()), (1, 0), "the deleted ones make room");
    }
}
