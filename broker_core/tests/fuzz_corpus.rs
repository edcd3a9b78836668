//! The fuzz targets over their corpus and thousands of mutations of it, the same ones at every run.
//!
//! `SOAK_SECONDS=n` goes on for so long, with others. What fails is printed, in hexadecimal too, for
//! `fuzz/corpus/<target>/`, where it then stays.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]
#![allow(clippy::print_stderr, reason = "a case that fails has no name but its bytes")]

mod support;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use support::soak::Soak;
use targets::{TARGETS, Target};

/// A round is one mutation of every file.
const ROUNDS: u64 = 200;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: Target, data: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(data))) {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("on {:?}\nwhich is {hex}", String::from_utf8_lossy(data));
        resume_unwind(panic);
    }
}

/// xorshift64: the same numbers everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// Changes a few bytes: what fuzzers do, without their eyes.
    fn mutate(&mut self, data: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(8) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => data[at] = self.below(256) as u8,
                2 if at < data.len() => data[at] = [0, 1, 0x7F, 0x80, 0xFF, b'"', b',', b'\n'][self.below(8)],
                3 => data.insert(at, self.below(256) as u8),
                4 => data.truncate(at),
                5 => {
                    let end = (at + self.below(16)).min(data.len());
                    data.drain(at..end);
                }
                6 => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len() + 1);
                    let to = from + self.below(other.len() - from + 1);
                    data.splice(at..at, other[from..to].iter().copied());
                }
                7 if at + 8 <= data.len() => {
                    let number = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 32, u64::MAX - 1][self.below(6)];
                    data[at..at + 8].copy_from_slice(&number.to_le_bytes());
                }
                _ => {}
            }
        }
        data.truncate(4096);
    }
}

fn check(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let corpus = corpus(name);
    corpus.iter().for_each(|data| run(target, data));
    let soak = Soak::asked();
    let mut chance = Chance(soak.as_ref().map_or(0x5EED, |soak| soak.seed));
    for round in 1.. {
        for data in &corpus {
            let mut data = data.clone();
            chance.mutate(&mut data, &corpus);
            run(target, &data);
        }
        if round >= ROUNDS && soak.as_ref().is_none_or(Soak::is_over) {
            break;
        }
    }
}

macro_rules! replayed {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_here_and_can_be_fuzzed() {
            let here = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|(name, _)| *name).eq(here));
            let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            here.iter().for_each(|name| assert!(dir.join(name).with_extension("rs").exists(), "{name}"));
        }
    };
}

replayed!(frame, log, journal, wire, request, csv, lines, lease);
