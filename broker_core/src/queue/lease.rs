//! Lease ids: opaque outside, and enough inside for any proxy to route an ack.

use crate::error::{Code, Error, Result};
use crate::log::LogId;

const VERSION: u8 = 1;
const BYTES: usize = 57;

/// What a lease id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseId {
    /// The broker that gave it.
    pub broker_id: [u8; 8],
    /// The log it is a range of.
    pub log_id: LogId,
    /// That log's partition.
    pub partition: u32,
    /// The group it was given to: its random id.
    pub group_id: u64,
    /// Rises with every lease of a (partition, group).
    pub grant: u64,
    /// First offset.
    pub start: u64,
    /// Records.
    pub count: u32,
}

impl LeaseId {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.broker_id);
        bytes.extend_from_slice(&self.log_id.0);
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        bytes.extend_from_slice(&self.group_id.to_le_bytes());
        bytes.extend_from_slice(&self.grant.to_le_bytes());
        bytes.extend_from_slice(&self.start.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// Reads what [`LeaseId::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<LeaseId> {
        let (Ok(bytes), Some(&VERSION)) = (<&[u8; BYTES]>::try_from(bytes), bytes.first()) else {
            return Err(Error::new(
                Code::InvalidLease,
                format!(
                    "a lease id of {} bytes that no broker of this version made; pass on lease_id as it came",
                    bytes.len()
                ),
            ));
        };
        let u64_at = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut id = LeaseId {
            broker_id: [0; 8],
            log_id: LogId([0; 16]),
            partition: u32_at(25),
            group_id: u64_at(29),
            grant: u64_at(37),
            start: u64_at(45),
            count: u32_at(53),
        };
        id.broker_id.copy_from_slice(&bytes[1..9]);
        id.log_id.0.copy_from_slice(&bytes[9..25]);
        if id.start.checked_add(u64::from(id.count)).is_none() {
            return Err(Error::new(
                Code::InvalidLease,
                "a lease id whose range has no end; pass on lease_id as it came",
            ));
        }
        Ok(id)
    }

    /// Behind the last offset.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_lease_id_comes_back_as_it_went(
            broker_id: [u8; 8], log_id: [u8; 16], partition: u32, group_id: u64, grant: u64, start in 0..u64::MAX / 2, count: u32,
        ) {
            let id = LeaseId { broker_id, log_id: LogId(log_id), partition, group_id, grant, start, count };
            prop_assert_eq!(LeaseId::decode(&id.encode()), Ok(id));
        }

        #[test]
        fn foreign_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(id) = LeaseId::decode(&bytes) {
                prop_assert_eq!(id.encode(), bytes);
            }
        }
    }
}
