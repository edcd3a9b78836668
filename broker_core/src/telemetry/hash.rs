//! Hashing of text keys in tables that are looked up for every row or line.

use std::hash::{BuildHasher, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// XXH3-64, with a seed that differs from one default value to the next.
#[derive(Clone)]
pub(super) struct Xxh3 {
    seed: u64,
}

impl Default for Xxh3 {
    fn default() -> Self {
        Self { seed: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for Xxh3 {
    type Hasher = Xxh3State;

    fn build_hasher(&self) -> Xxh3State {
        Xxh3State(self.seed)
    }
}

pub(super) struct Xxh3State(u64);

impl Hasher for Xxh3State {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// What ends a `str` key; the length is part of the hash already.
    fn write_u8(&mut self, _: u8) {}

    /// What begins a slice key.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
