//! Configuration of a topic: its defaults, its bounds, and how it is kept.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::log::{Durability, LogOptions, Retention};
use crate::queue::journal::COMPACT_ENTRIES;
use crate::wire::v1;

/// Partitions of a topic, at most.
pub const MAX_PARTITIONS: u32 = 4096;
/// Length of a lease, at most: 12 h.
pub const MAX_VISIBILITY_TIMEOUT_MS: u32 = 43_200_000;
/// How often a record may be given before it is dead-lettered, at most.
const MAX_MAX_ATTEMPTS: u32 = 1000;
/// A segment takes records for this part of the retention, so that at most so much more than the retention is kept.
const SEGMENTS_PER_RETENTION: i64 = 8;
/// The shortest time for which one takes records: 10 s. A short retention is no reason for many small files.
const MIN_SEGMENT_AGE_NS: i64 = 10_000_000_000;

/// What a broker uses where a topic sets nothing.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// What it is called among others; empty: it has no name.
    pub name: String,
    /// Names and addresses of all brokers, itself included, for clients that ask; empty: it is alone.
    pub members: Vec<(String, String)>,
    /// Records kept in memory per partition.
    pub queue_size: u64,
    /// Length of a lease, milliseconds.
    pub visibility_timeout_ms: u32,
    /// Partitions of a new topic.
    pub partitions: u32,
    /// Durability of a new topic.
    pub durability: Durability,
    /// Free bytes of the disk below which nothing is taken any more.
    pub min_free_bytes: u64,
    /// Entries from which on a group's journal is rewritten when most of them say nothing any more.
    pub journal_entries: u64,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            members: Vec::new(),
            queue_size: 2000,
            visibility_timeout_ms: 30_000,
            partitions: 4,
            durability: Durability::Os,
            min_free_bytes: 256 << 20,
            journal_entries: COMPACT_ENTRIES,
        }
    }
}

impl BrokerOptions {
    /// Refuses options out of their bounds.
    pub fn check(&self) -> Result<()> {
        bounded("queue_size", self.queue_size, 1, 10_000_000)?;
        bounded("visibility_timeout_ms", self.visibility_timeout_ms.into(), 1, MAX_VISIBILITY_TIMEOUT_MS.into())?;
        bounded("partitions", self.partitions.into(), 1, MAX_PARTITIONS.into())
    }
}

/// From the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredDurability {
    Memory,
    Os,
    Fsync,
}

/// What a topic does when a partition has reached its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullPolicy {
    /// Refuse records.
    Reject,
    /// Drop the oldest segment.
    DropOldest,
}

/// Configuration of a topic, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Partitions.
    pub partitions: u32,
    durability: StoredDurability,
    retention_ms: u64,
    retention_bytes: u64,
    max_partition_bytes: Option<u64>,
    full_policy: FullPolicy,
    segment_bytes: u64,
    max_attempts: u32,
    /// Length of a lease that asks for none; None: the broker's.
    visibility_timeout_ms: Option<u32>,
}

/// Where a topic's configuration stands in a request.
const CONFIG: &str = "config.";

fn bounded(field: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let name = field.trim_start_matches(CONFIG);
    Err(Error::new(Code::InvalidArgument, format!("{name} is {value}, it must be {min} to {max}")).field(field))
}

impl TopicConfig {
    /// The defaults of a broker.
    pub fn new(options: &BrokerOptions) -> Self {
        Self {
            partitions: options.partitions,
            durability: match options.durability {
                Durability::Memory => StoredDurability::Memory,
                Durability::Os => StoredDurability::Os,
                Durability::Fsync => StoredDurability::Fsync,
            },
            retention_ms: 86_400_000,
            retention_bytes: 1 << 30,
            max_partition_bytes: None,
            full_policy: FullPolicy::Reject,
            segment_bytes: 64 << 20,
            max_attempts: 20,
            visibility_timeout_ms: None,
        }
    }

    /// Whether they mean the same at a broker: what one leaves to it, the other may say.
    pub fn is_as(&self, other: &Self, options: &BrokerOptions) -> bool {
        let said = |config: &Self| Self {
            visibility_timeout_ms: Some(config.visibility_timeout_ms(options)),
            ..config.clone()
        };
        said(self) == said(other)
    }

    /// The same, with what `wish` sets, checked.
    pub fn with(&self, wish: &v1::TopicConfig) -> Result<Self> {
        let mut config = self.clone();
        if let Some(partitions) = wish.partitions {
            bounded("config.partitions", partitions.into(), 1, MAX_PARTITIONS.into())?;
            config.partitions = partitions;
        }
        match wish.durability() {
            v1::Durability::Unspecified if wish.durability != 0 => {
                let message = format!("durability {} is not known", wish.durability);
                return Err(Error::new(Code::InvalidArgument, message).field("config.durability"));
            }
            v1::Durability::Unspecified => {}
            v1::Durability::Memory => config.durability = StoredDurability::Memory,
            v1::Durability::Os => config.durability = StoredDurability::Os,
            v1::Durability::Fsync => config.durability = StoredDurability::Fsync,
        }
        if let Some(segment_bytes) = wish.segment_bytes {
            bounded("config.segment_bytes", segment_bytes, 1 << 20, 1 << 30)?;
            config.segment_bytes = segment_bytes;
        }
        if let Some(max_attempts) = wish.max_attempts {
            bounded("config.max_attempts", max_attempts.into(), 0, MAX_MAX_ATTEMPTS.into())?;
            config.max_attempts = max_attempts;
        }
        if let Some(timeout) = wish.visibility_timeout_ms {
            bounded("config.visibility_timeout_ms", timeout.into(), 1, MAX_VISIBILITY_TIMEOUT_MS.into())?;
            config.visibility_timeout_ms = Some(timeout);
        }
        config.retention_ms = wish.retention_ms.unwrap_or(config.retention_ms);
        config.retention_bytes = wish.retention_bytes.unwrap_or(config.retention_bytes);
        config.max_partition_bytes = match wish.max_partition_bytes {
            Some(0) => None,
            wished => wished.or(config.max_partition_bytes),
        };
        match wish.full_policy() {
            v1::FullPolicy::Unspecified if wish.full_policy != 0 => {
                let message = format!("full_policy {} is not known", wish.full_policy);
                return Err(Error::new(Code::InvalidArgument, message).field("config.full_policy"));
            }
            v1::FullPolicy::Unspecified => {}
            v1::FullPolicy::Reject => config.full_policy = FullPolicy::Reject,
            v1::FullPolicy::DropOldest => config.full_policy = FullPolicy::DropOldest,
        }
        if let Some(max) = config.max_partition_bytes {
            bounded("config.max_partition_bytes", max, 2 * config.segment_bytes, u64::MAX)?;
        }
        Ok(config)
    }

    /// As it travels, every field set.
    pub fn to_wire(&self, options: &BrokerOptions) -> v1::TopicConfig {
        let durability = match self.durability {
            StoredDurability::Memory => v1::Durability::Memory,
            StoredDurability::Os => v1::Durability::Os,
            StoredDurability::Fsync => v1::Durability::Fsync,
        };
        let full_policy = match self.full_policy {
            FullPolicy::Reject => v1::FullPolicy::Reject,
            FullPolicy::DropOldest => v1::FullPolicy::DropOldest,
        };
        v1::TopicConfig {
            partitions: Some(self.partitions),
            durability: durability.into(),
            retention_ms: Some(self.retention_ms),
            retention_bytes: Some(self.retention_bytes),
            max_partition_bytes: self.max_partition_bytes,
            full_policy: full_policy.into(),
            segment_bytes: Some(self.segment_bytes),
            max_attempts: Some(self.max_attempts),
            visibility_timeout_ms: Some(self.visibility_timeout_ms(options)),
        }
    }

    /// Length of a lease that asks for none.
    pub fn visibility_timeout_ms(&self, options: &BrokerOptions) -> u32 {
        self.visibility_timeout_ms.unwrap_or(options.visibility_timeout_ms)
    }

    /// How the topic's logs are kept.
    pub fn log_options(&self, options: &BrokerOptions) -> LogOptions {
        LogOptions {
            durability: match self.durability {
                StoredDurability::Memory => Durability::Memory,
                StoredDurability::Os => Durability::Os,
                StoredDurability::Fsync => Durability::Fsync,
            },
            tail_records: options.queue_size,
            segment_bytes: self.segment_bytes,
            segment_age_ns: match self.retention_ns() {
                None => i64::MAX,
                Some(age_ns) => (age_ns / SEGMENTS_PER_RETENTION).max(MIN_SEGMENT_AGE_NS),
            },
            max_bytes: self.max_partition_bytes,
            drop_oldest: self.full_policy == FullPolicy::DropOldest,
        }
    }

    /// The same for the dead letters of a topic configured as `source`: never less durable, a partition for each of its
    /// partitions, and nothing that drops a letter which was not redriven.
    #[must_use]
    pub fn for_dead_letters_of(&self, source: &TopicConfig) -> TopicConfig {
        TopicConfig {
            partitions: self.partitions.max(source.partitions),
            durability: self.durability.max(source.durability),
            max_partition_bytes: None,
            full_policy: FullPolicy::Reject,
            ..self.clone()
        }
    }

    /// How often a record may be given out before it is a dead letter; None: for ever.
    pub fn max_attempts(&self) -> Option<u32> {
        (self.max_attempts > 0).then_some(self.max_attempts)
    }

    /// Age at which records may go; None: at no age.
    fn retention_ns(&self) -> Option<i64> {
        let age_ns = i64::try_from(self.retention_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        (age_ns > 0).then_some(age_ns)
    }

    /// Which records may go, at `now_ns`, of those below `below`.
    pub fn retention(&self, below: u64, now_ns: i64) -> Retention {
        Retention {
            below,
            appended_before_ns: self.retention_ns().map_or(i64::MIN, |age_ns| now_ns.saturating_sub(age_ns)),
            max_bytes: if self.retention_bytes == 0 { u64::MAX } else { self.retention_bytes },
        }
    }
}
