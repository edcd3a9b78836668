//! Randomness that is the same on every machine: whole-number arithmetic and a seed, nothing else.

/// `SplitMix64` (Steele, Lea and Flood 2014): 64 bits of state, a period of 2^64, and no warm-up.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of one host or GPU: `parts` say which.
    pub fn new(seed: u64, parts: [u64; 2]) -> Self {
        let mut random = Self(seed);
        for part in parts {
            random.0 = random.next() ^ part;
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 up to 1, exclusive.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `low` up to `high`, exclusive.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// 0 up to `bound`, exclusive; the bias is below 2^-32 for the small bounds here.
    #[expect(clippy::cast_possible_truncation, reason = "below the bound, which is a usize")]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Four independent draws from -1 to 1, around 0 more often than at the ends.
    pub fn noise(&mut self) -> [f64; 4] {
        let bits = self.next();
        [0, 16, 32, 48].map(|shift| {
            let (one, other) = ((bits >> shift) & 0xFF, (bits >> (shift + 8)) & 0xFF);
            (one as f64 - other as f64) / 255.0
        })
    }
}
