//! Key to partition: `XXH3-64(key, seed 0) mod partitions`.
//!
//! The hash, its seed and the modulo are part of the wire contract: the first hop computes them, in whatever language it
//! is written, and `docs/protocol.md` and `tests/vectors/partitions.json` hold every implementation to the same answers.

use xxhash_rust::xxh3::xxh3_64;

/// The 64-bit hash that places keys in partitions and on the ring: XXH3-64 with seed 0.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The partition of a key in a topic of `partitions` partitions, 0 up to `partitions`, exclusive.
///
/// A topic has at least one partition; 0 is answered like 1, so that no caller can divide by zero.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32 divisor fits into u32")]
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (key_hash(key) % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_known_keys_when_hashed_then_answers_are_those_of_the_protocol() {
        let vectors: [(&[u8], u64, u32, u32); 4] = [
            (b"", 0x2d06_8005_38d3_94c2, 2, 4),
            (b"GPU-5fd4f087-86f3-7a43-b711-4771313afc50", 0x1365_1270_e7e4_971c, 0, 6),
            (b"GPU-bc7a12ab-4998-fdc5-0785-2678a929a142", 0xc4d4_af3a_682b_8d9c, 0, 3),
            (b"\x00\x01\xfe\xff", 0xfe0d_8484_cd56_a066, 2, 0),
        ];
        for (key, hash, of_4, of_7) in vectors {
            assert_eq!(key_hash(key), hash, "hash of {key:?}");
            assert_eq!(partition_for_key(key, 4), of_4, "partition of {key:?} of 4");
            assert_eq!(partition_for_key(key, 7), of_7, "partition of {key:?} of 7");
        }
    }

    #[test]
    fn given_one_or_no_partition_when_placed_then_the_first_is_named() {
        assert_eq!(partition_for_key(b"GPU-1", 1), 0);
        assert_eq!(partition_for_key(b"GPU-1", 0), 0);
    }
}
