//! What partitions and groups say about themselves, for people and metrics.

use crate::log::LogId;

/// State of a partition, for people and metrics.
#[derive(Debug, Clone)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: u32,
    /// Its log.
    pub log_id: LogId,
    /// Offset of the oldest record kept.
    pub start: u64,
    /// Offset that the next record gets.
    pub end: u64,
    /// Behind the last record known to be on disk.
    pub synced_end: u64,
    /// Bytes in segments and in memory.
    pub bytes: u64,
    /// Wall clock of the newest append.
    pub last_append_ns: i64,
    /// Why nothing can be appended; empty: it can.
    pub poisoned: String,
    /// Bytes that recovery cut.
    pub recovered_cut_bytes: u64,
    /// Records dropped, acked or not, since the broker started.
    pub dropped_records: u64,
    /// Named producers forgotten before their time since the broker started.
    pub forgotten_producers: u64,
}

/// State of a group in a partition.
#[derive(Debug, Clone)]
pub struct GroupInfo {
    /// The partition.
    pub partition: u32,
    /// Its log.
    pub log_id: LogId,
    /// Everything below is acked.
    pub floor: u64,
    /// Never given out from here on.
    pub next: u64,
    /// Records not acked.
    pub lag: u64,
    /// Records leased.
    pub in_flight: u64,
    /// Leases.
    pub leases: u64,
    /// Holder of an ordered group; empty: none.
    pub holder: String,
    /// Records given again since the broker started.
    pub redelivered: u64,
    /// Bytes of the ack journal that could not be read when the broker started.
    pub journal_bad_bytes: u64,
}
