//! The broker's metrics, as the text that Prometheus scrapes.
//!
//! What is (a lag, a size) is told for each partition and each group of it, what happened (records, bytes) for each topic
//! and each group: rates need no partitions, and a thousand of them stay within a page of half a megabyte.
//!
//! A scrape takes each partition's lock once, for as long as it takes to copy a few numbers, and reads no file. What a page
//! can hold is bounded by [`MAX_ROWS`].

mod counts;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::counts::{Count, Durations};
pub use self::counts::{Counts, GroupCounts, TopicCounts};
use self::text::{Kind, Labels, Page};
use super::topic::Topic;
use super::{Broker, Result};

/// Rows of a page, at most: a topic takes one, and each of its partitions one and one more for each group. Topics that do
/// not fit are left out as a whole, and counted. Ten times what 1,000 partitions with a group need.
const MAX_ROWS: usize = 20_000;

/// A partition at one moment.
pub(super) struct PartitionState {
    pub number: u32,
    /// Records that its slowest group has not acked; all of them where there is no group.
    pub queued: u64,
    /// Of the log.
    pub bytes: u64,
    pub poisoned: bool,
    pub groups: Vec<GroupState>,
}

/// A group in a partition at one moment.
pub(super) struct GroupState {
    pub name: String,
    pub counts: Arc<GroupCounts>,
    /// Records not acked.
    pub lag: u64,
    /// Records leased.
    pub in_flight: u64,
    /// When the oldest record was appended that is not acked; None: all are.
    pub oldest_ns: Option<i64>,
}

/// A topic at one moment, with the labels of its samples.
struct TopicState {
    labels: Labels,
    counts: Arc<TopicCounts>,
    partitions: Vec<(Labels, PartitionState)>,
    /// For each group of each partition, in the order of `partitions`.
    partition_groups: Vec<(Labels, GroupState)>,
    groups: Vec<(Labels, Arc<GroupCounts>)>,
}

impl TopicState {
    /// None where it takes more than `room` rows.
    fn of(topic: &Topic, service: &str, room: usize) -> Option<(TopicState, usize)> {
        let name = &**topic.name();
        let all = topic.partitions();
        let mut state = TopicState {
            labels: Labels::of(&[("service", service), ("topic", name)]),
            counts: topic.counts().clone(),
            partitions: Vec::with_capacity(all.len().min(room)),
            partition_groups: Vec::new(),
            groups: Vec::new(),
        };
        let mut groups = BTreeMap::new();
        let mut rows = 1 + all.len();
        for partition in &all {
            if rows > room {
                return None;
            }
            let mut sampled = partition.sample();
            let number = sampled.number.to_string();
            rows += sampled.groups.len();
            for group in sampled.groups.drain(..) {
                let labels = [("group", &*group.name), ("partition", &number), ("service", service), ("topic", name)];
                groups.entry(group.name.clone()).or_insert_with(|| group.counts.clone());
                state.partition_groups.push((Labels::of(&labels), group));
            }
            let labels = [("partition", &*number), ("service", service), ("topic", name)];
            state.partitions.push((Labels::of(&labels), sampled));
        }
        let labels = |group: &str| Labels::of(&[("group", group), ("service", service), ("topic", name)]);
        state.groups = groups.into_iter().map(|(group, counts)| (labels(&group), counts)).collect();
        (rows <= room).then_some((state, rows))
    }
}

impl Broker {
    /// The metrics as text; all have the label `service`.
    pub fn render_metrics(&self, service: &str) -> Result<String> {
        self.render_rows(service, MAX_ROWS)
    }

    fn render_rows(&self, service: &str, max_rows: usize) -> Result<String> {
        let (mut topics, mut left_out, mut room) = (Vec::new(), 0u64, max_rows);
        for topic in self.topics()? {
            if let Some((state, rows)) = TopicState::of(&topic, service, room) {
                room -= rows;
                topics.push(state);
            } else {
                left_out += 1;
            }
        }
        let mut page = Page::default();
        put_partitions(&mut page, &topics);
        put_groups(&mut page, &topics, self.inner.clock.wall_ns());
        put_topics(&mut page, &topics);
        self.put_broker(&mut page, &Labels::of(&[("service", service)]), &topics, left_out);
        self.put_syncs(&mut page, service);
        Ok(page.finish())
    }

    fn put_broker(&self, page: &mut Page, labels: &Labels, topics: &[TopicState], left_out: u64) {
        if !self.inner.in_memory {
            let used: u64 = topics.iter().flat_map(|topic| &topic.partitions).map(|(_, state)| state.bytes).sum();
            page.family("broker_disk_used_bytes", Kind::Gauge, "Bytes of all logs in the data folder.");
            page.sample(labels, used as f64);
            // Where it cannot be known there is no number; that the disk does not answer is what /ready tells.
            if let Ok(free) = self.free_bytes() {
                page.family(
                    "broker_disk_free_bytes",
                    Kind::Gauge,
                    "Bytes free for the broker where its data folder is.",
                );
                page.sample(labels, free as f64);
            }
            page.family(
                "broker_disk_min_free_bytes",
                Kind::Gauge,
                "Free bytes below which records are refused (min_free_bytes); acks go on.",
            );
            page.sample(labels, self.options().min_free_bytes as f64);
        }
        page.family(
            "broker_groups_expired_total",
            Kind::Counter,
            "Groups deleted because they had no consumer for 7 days; what only they had not acked may go.",
        );
        page.sample(labels, self.expired_groups() as f64);
        page.family(
            "broker_metrics_omitted_topics",
            Kind::Gauge,
            "Topics that this page leaves out, because it would be too long with them.",
        );
        page.sample(labels, left_out as f64);
    }

    fn put_syncs(&self, page: &mut Page, service: &str) {
        page.family(
            "broker_fsync_duration_seconds",
            Kind::Histogram,
            "Time of an fsync of a partition: group commits that clients wait for (durability fsync), or those in the \
             background (os).",
        );
        let syncs = &self.inner.context.counts.syncs;
        for (durability, durations) in [("fsync", &syncs.waited_for), ("os", &syncs.background)] {
            let (cumulative, seconds) = durations.read();
            let bounds = Durations::BOUNDS.iter().map(|bound| format!("{:?}", bound.as_secs_f64()));
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(cumulative) {
                let labels = [("durability", durability), ("le", &*bound), ("service", service)];
                page.part("bucket", &Labels::of(&labels), count as f64);
            }
            let labels = Labels::of(&[("durability", durability), ("service", service)]);
            page.part("count", &labels, cumulative[cumulative.len() - 1] as f64);
            page.part("sum", &labels, seconds);
        }
    }
}

fn put_partitions(page: &mut Page, topics: &[TopicState]) {
    let mut put = |name, help, value: fn(&PartitionState) -> u64| {
        page.family(name, Kind::Gauge, help);
        for (labels, state) in topics.iter().flat_map(|topic| &topic.partitions) {
            page.sample(labels, value(state) as f64);
        }
    };
    put(
        "message_queue_size",
        "Records of a partition that its slowest group has not acked; all of them where there is no group.",
        |state| state.queued,
    );
    put("message_queue_bytes", "Bytes of a partition's log, on disk and in memory.", |state| state.bytes);
}

fn put_groups(page: &mut Page, topics: &[TopicState], now_ns: i64) {
    let mut put = |name, help, value: &dyn Fn(&GroupState) -> f64| {
        page.family(name, Kind::Gauge, help);
        for (labels, state) in topics.iter().flat_map(|topic| &topic.partition_groups) {
            page.sample(labels, value(state));
        }
    };
    put(
        "broker_group_lag_records",
        "Records of a partition that a group has not acked, those in flight included.",
        &|state| state.lag as f64,
    );
    put(
        "broker_group_in_flight_records",
        "Records of a partition that consumers of a group hold leases of.",
        &|state| state.in_flight as f64,
    );
    put(
        "broker_group_oldest_unacked_age_seconds",
        "Age of the oldest record of a partition that a group has not acked, since its append; 0 where all are acked.",
        &|state| state.oldest_ns.map_or(0.0, |oldest| now_ns.saturating_sub(oldest).max(0) as f64 / 1e9),
    );
    let mut put = |name, help, count: fn(&GroupCounts) -> &Count| {
        page.family(name, Kind::Counter, help);
        for (labels, counts) in topics.iter().flat_map(|topic| &topic.groups) {
            page.sample(labels, count(counts).get() as f64);
        }
    };
    put(
        "broker_group_delivered_records_total",
        "Records leased to consumers of a group, each time they were.",
        |counts| &counts.delivered,
    );
    put(
        "broker_group_redelivered_records_total",
        "Records leased to consumers of a group that had been before: they were nacked, or not acked in time.",
        |counts| &counts.redelivered,
    );
    put("broker_group_acked_records_total", "Records that a group is done with, dead letters included.", |counts| {
        &counts.acked
    });
    put(
        "broker_group_dead_lettered_records_total",
        "Records that a group gave up on: they are in the topic's dead-letter topic.",
        |counts| &counts.dead_lettered,
    );
}

fn put_topics(page: &mut Page, topics: &[TopicState]) {
    let mut put = |name, kind, help, value: fn(&TopicState) -> u64| {
        page.family(name, kind, help);
        for topic in topics {
            page.sample(&topic.labels, value(topic) as f64);
        }
    };
    put("messages_produced_total", Kind::Counter, "Records stored.", |topic| topic.counts.produced.get());
    put("messages_consumed_total", Kind::Counter, "Records given to consumers.", |topic| topic.counts.consumed.get());
    put(
        "broker_appended_bytes_total",
        Kind::Counter,
        "Bytes of the records stored, as producers sent them.",
        |topic| topic.counts.appended_bytes.get(),
    );
    put(
        "broker_dropped_records_total",
        Kind::Counter,
        "Records dropped, acked or not, to keep partitions under max_partition_bytes.",
        |topic| topic.counts.dropped.get(),
    );
    put(
        "broker_forgotten_producers_total",
        Kind::Counter,
        "Named producers forgotten before their time, to make room for others: their retries are no longer told apart.",
        |topic| topic.counts.forgotten_producers.get(),
    );
    put(
        "broker_recovery_cut_bytes_total",
        Kind::Counter,
        "Bytes behind the last fsync that a crash left half written, cut off when logs were opened.",
        |topic| topic.counts.cut_bytes.get(),
    );
    put(
        "broker_recovery_journal_bad_bytes_total",
        Kind::Counter,
        "Bytes of ack journals that could not be read when they were opened: what they acked is delivered again.",
        |topic| topic.counts.journal_bad_bytes.get(),
    );
    put("broker_partitions", Kind::Gauge, "Partitions of a topic.", |topic| topic.partitions.len() as u64);
    put(
        "broker_poisoned_partitions",
        Kind::Gauge,
        "Partitions that take no more records because a write or an fsync failed; see to the disk, then restart.",
        |topic| topic.partitions.iter().filter(|(_, state)| state.poisoned).count() as u64,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerOptions, TopicConfig};
    use crate::error::Code;

    #[test]
    fn topics_that_do_not_fit_are_left_out_as_a_whole_and_counted() -> Result<()> {
        let broker = Broker::in_memory(BrokerOptions::default(), None)?;
        for (name, partitions) in [("a", 1), ("big", 4), ("c", 2)] {
            let mut config = TopicConfig::new(broker.options());
            config.partitions = partitions;
            let topic = broker.create_topic(name, config)?;
            topic.ensure_group("g", None, &|_| Ok(None), 1, Code::GroupMode)?;
        }
        for (max_rows, shown) in
            [(0, ""), (2, ""), (3, "a"), (8, "ac"), (9, "ac"), (11, "ac"), (12, "abig"), (17, "abigc")]
        {
            let page = broker.render_rows("broker", max_rows)?;
            let labels = |line: &str| Some(line.strip_prefix("broker_partitions{")?.split('"').nth(3)?.to_owned());
            assert_eq!(page.lines().filter_map(labels).collect::<String>(), shown, "{max_rows} rows");
            let left_out = 3 - ["a", "big", "c"].iter().filter(|name| shown.contains(**name)).count();
            assert!(
                page.contains(&format!("broker_metrics_omitted_topics{{service=\"broker\"}} {left_out}.0")),
                "{page}"
            );
        }
        Ok(())
    }
}
