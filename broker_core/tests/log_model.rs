//! The log against a plain list of records, through reopens and crashes of the process (the disk keeps its bytes).
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::sync::Arc;

use broker_core::disk::{Disk, MemoryDisk};
use broker_core::log::producers::producer_id;
use broker_core::log::{Appended, Durability};
use proptest::prelude::*;

use support::{entries, open, options, read_all};

#[derive(Debug, Clone)]
enum Step {
    Append { count: u32 },
    Produce { producer: u8, sequence: u64, count: u32 },
    Flush,
    Read { from: prop::sample::Index },
    Close,
    Crash,
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..15u32).prop_map(|count| Step::Append { count }),
        4 => (0..2u8, 1..12u64, 0..5u32)
            .prop_map(|(producer, sequence, count)| Step::Produce { producer, sequence, count }),
        1 => Just(Step::Flush),
        3 => any::<prop::sample::Index>().prop_map(|from| Step::Read { from }),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
        1 => Just(Step::Purge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn a_log_holds_what_was_appended_and_never_gives_an_offset_twice(
        durability in prop_oneof![Just(Durability::Memory), Just(Durability::Os), Just(Durability::Fsync)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut log = open(&disk, options(durability)).unwrap();
        let mut records: Vec<(u64, u64)> = Vec::new();
        let mut sequences = [0u64; 2];
        let (mut value, mut highest) = (0u64, 0u64);
        for step in steps {
            match step {
                Step::Append { count } => {
                    let values: Vec<u64> = (value..value + u64::from(count)).collect();
                    value += u64::from(count);
                    let appended = log.append(&entries(&values), count, None, 1).unwrap();
                    let Appended::At { base } = appended else { panic!("{appended:?}") };
                    prop_assert!(base >= highest, "offset {base} was given before");
                    highest = base + u64::from(count);
                    records.extend((base..).zip(values));
                }
                Step::Produce { producer, sequence, count } => {
                    let values: Vec<u64> = (value..value + u64::from(count)).collect();
                    let id = producer_id(&format!("producer-{producer}"));
                    let appended = log.append(&entries(&values), count, Some((id, sequence)), 1).unwrap();
                    let known = &mut sequences[producer as usize];
                    if sequence <= *known {
                        prop_assert_eq!(appended, Appended::Duplicate);
                        continue;
                    }
                    let Appended::At { base } = appended else { panic!("{appended:?}") };
                    prop_assert!(base >= highest, "offset {base} was given before");
                    highest = base + u64::from(count);
                    value += u64::from(count);
                    *known = sequence;
                    records.extend((base..).zip(values));
                }
                Step::Flush => log.flush(0).unwrap(),
                Step::Read { from } => {
                    let from = from.index(usize::try_from(log.end()).unwrap() + 1) as u64;
                    let expected: Vec<_> = records.iter().copied().filter(|(offset, _)| *offset >= from).collect();
                    prop_assert_eq!(read_all(&mut log, from).unwrap(), expected);
                }
                Step::Close => {
                    let end = log.end();
                    log.close(0).unwrap();
                    log = open(&disk, options(durability)).unwrap();
                    prop_assert_eq!(log.end(), end);
                }
                Step::Crash => {
                    log = open(&disk, options(durability)).unwrap();
                    let kept = read_all(&mut log, 0).unwrap();
                    prop_assert_eq!(&kept[..], &records[..kept.len()], "a crash keeps a prefix");
                    if durability == Durability::Memory {
                        records.truncate(kept.len());
                        for (number, known) in sequences.iter_mut().enumerate() {
                            let stored = log.producer_sequence(&format!("producer-{number}"));
                            prop_assert!(stored <= *known);
                            *known = stored;
                        }
                    }
                    prop_assert_eq!(kept.len(), records.len(), "{:?} survives the process", durability);
                }
                Step::Purge => {
                    log.purge().unwrap();
                    records.clear();
                }
            }
            prop_assert!(log.synced_end() <= log.end());
        }
        prop_assert_eq!(read_all(&mut log, 0).unwrap(), records);
        for (number, known) in sequences.iter().enumerate() {
            prop_assert_eq!(log.producer_sequence(&format!("producer-{number}")), *known);
        }
    }

    #[test]
    fn what_every_group_acked_before_a_spill_never_touches_the_disk(counts in prop::collection::vec(1..30u32, 1..20), acked in 0..300u64) {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut log = open(&disk, options(Durability::Memory)).unwrap();
        let mut records = Vec::new();
        for (number, count) in (1u64..).zip(counts) {
            let values: Vec<u64> = (0..u64::from(count)).map(|value| number * 100 + value).collect();
            let Ok(Appended::At { base }) = log.append(&entries(&values), count, Some((9, number)), 1) else { panic!() };
            records.extend((base..).zip(values));
        }
        let produced = records.len() as u64;
        let newest = log.frame_at(produced - 1).unwrap().unwrap().header().sequence;
        log.close(acked.min(produced)).unwrap();
        let mut log = open(&disk, options(Durability::Memory)).unwrap();
        let kept = read_all(&mut log, 0).unwrap();
        prop_assert!(kept.iter().all(|record| records.contains(record)));
        let needed = records.iter().filter(|(offset, _)| *offset >= acked);
        prop_assert!(needed.clone().all(|record| kept.contains(record)), "unacked records are kept");
        let frame_spread = 30;
        prop_assert!(kept.len() < needed.count() + frame_spread, "acked frames were written");
        prop_assert_eq!(log.end(), produced);
        prop_assert_eq!(log.append(&[], 0, Some((9, newest)), 1).unwrap(), Appended::Duplicate);
    }
}

#[test]
fn records_are_found_by_time() {
    for durability in [Durability::Memory, Durability::Os] {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut log = open(&disk, options(durability)).unwrap();
        let first = log.end();
        for time in 0..200 {
            log.append(&entries(&[time]), 1, None, time as i64 * 10).unwrap();
        }
        assert_eq!(log.offset_at(-5).unwrap(), first);
        assert_eq!(log.offset_at(500).unwrap(), first + 50);
        assert_eq!(log.offset_at(501).unwrap(), first + 51);
        assert_eq!(log.offset_at(1990).unwrap(), first + 199);
        assert_eq!(log.offset_at(1991).unwrap(), log.end());
    }
}
