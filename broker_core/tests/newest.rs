//! The newest values of GPUs against a plain model.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "helpers of tests; values are kept as they came")]

use std::collections::{BTreeMap, BTreeSet};

use broker_core::telemetry::lines::{ColumnBuilder, Columns};
use broker_core::telemetry::newest::{Newest, Unknown};
use proptest::prelude::*;

const METRICS: [&str; 3] = ["power", "temp", "util"];

fn newest() -> Newest {
    Newest::new(vec!["uuid".into(), "host".into()], 500, 1000)
}

fn columns(lines: &[String]) -> Columns {
    let mut builder = ColumnBuilder::new("gpu", &[], &[], None);
    builder.append_values(lines, 0).unwrap();
    assert!(builder.rejected().is_empty());
    builder.finish().unwrap()
}

/// What a caller does: gives numbers to tags that are unknown.
fn take_in(newest: &mut Newest, columns: &Columns) -> Vec<i64> {
    let (mut numbers, unknown) = newest.numbers(columns);
    for Unknown { tags, rows } in unknown {
        let number = i64::try_from(newest.add()).unwrap();
        newest.name(&tags, number);
        for row in rows {
            numbers[row] = number;
        }
    }
    newest.take_in(columns, &numbers);
    numbers
}

#[derive(Debug, Clone)]
struct Row {
    gpu: u8,
    time: i64,
    values: [Option<i32>; 3],
}

fn row() -> impl Strategy<Value = Row> {
    let value = || prop::option::weighted(0.7, -3..3);
    (0..6u8, -4..8i64, [value(), value(), value()])
        .prop_filter("a line has a field", |(_, _, values)| values.iter().any(Option::is_some))
        .prop_map(|(gpu, time, values)| Row { gpu, time, values })
}

fn line(row: &Row) -> String {
    let fields: Vec<_> =
        METRICS.iter().zip(row.values).filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
    // Every third GPU has no host: an absent tag and an empty one are the same.
    let host = if row.gpu.is_multiple_of(3) { String::new() } else { format!(",host=h{}", row.gpu / 2) };
    format!("gpu,uuid=g{}{host} {} {}", row.gpu, fields.join(","), row.time)
}

proptest! {
    #[test]
    fn given_batches_of_rows_then_each_gpu_has_what_came_last(batches in prop::collection::vec(prop::collection::vec(row(), 1..12), 1..8)) {
        let mut newest = newest();
        let mut number_of: BTreeMap<u8, i64> = BTreeMap::new();
        let mut seen: BTreeMap<i64, i64> = BTreeMap::new();
        let mut held: BTreeMap<(i64, &str), (i64, f64)> = BTreeMap::new();
        for batch in &batches {
            let numbers = take_in(&mut newest, &columns(&batch.iter().map(line).collect::<Vec<_>>()));
            for (row, number) in batch.iter().zip(&numbers) {
                prop_assert_eq!(*number_of.entry(row.gpu).or_insert(*number), *number);
                let at = seen.entry(*number).or_insert(0);
                *at = (*at).max(row.time);
                for (name, value) in METRICS.into_iter().zip(row.values) {
                    let Some(value) = value else { continue };
                    let entry = held.entry((*number, name)).or_insert((i64::MIN, 0.0));
                    if row.time >= entry.0 {
                        *entry = (row.time, f64::from(value));
                    }
                }
            }
            let changed: BTreeSet<usize> = numbers.iter().map(|number| usize::try_from(*number).unwrap()).collect();
            prop_assert_eq!(newest.drain_changed(), changed.into_iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(newest.gpus(), number_of.len());
        prop_assert_eq!(newest.seen_ns(), seen.into_values().collect::<Vec<_>>());
        for number in number_of.into_values() {
            let model: Vec<_> = METRICS.iter().filter_map(|name| held.get(&(number, *name)).map(|(at, value)| (*name, *value, *at))).collect();
            let place = usize::try_from(number).unwrap();
            prop_assert_eq!(newest.values(place).collect::<Vec<_>>(), model.clone());
            for (name, value, _) in model {
                prop_assert_eq!(newest.column(name).unwrap()[place], value);
            }
        }
        prop_assert!(newest.drain_changed().is_empty());
    }
}

#[test]
fn given_rows_of_nobody_when_taken_in_then_they_change_nothing() {
    let mut newest = newest();
    let batch = columns(&["gpu,uuid=a util=1 1".into(), "gpu,uuid=b util=2 2".into(), "gpu,uuid=a util=3 3".into()]);
    let (numbers, unknown) = newest.numbers(&batch);
    assert_eq!(numbers, [-1, -1, -1]);
    assert_eq!(unknown[0], Unknown { tags: vec!["a".into(), String::new()], rows: vec![0, 2] });
    newest.take_in(&batch, &[-1, 7, -1]);
    assert_eq!((newest.gpus(), newest.drain_changed()), (0, vec![]));
    assert!(!newest.put(0, 5, [("util", 1.0, 1)]));
}

#[test]
fn given_a_store_that_knows_less_then_what_came_in_stays() {
    let mut newest = newest();
    take_in(&mut newest, &columns(&["gpu,uuid=a util=1 10".into()]));
    newest.drain_changed();
    assert!(!newest.put(0, 10, [("util", 9.0, 10)]));
    assert!(newest.drain_changed().is_empty());
    assert!(newest.put(0, 5, [("util", 9.0, 9), ("temp", 40.0, 5)]));
    assert_eq!(newest.values(0).collect::<Vec<_>>(), [("temp", 40.0, 5), ("util", 1.0, 10)]);
    assert_eq!(newest.drain_changed(), [0]);
    assert_eq!(newest.seen_ns(), [10]);
}

#[test]
fn given_more_metrics_or_names_than_there_is_room_for_then_the_later_metrics_are_left_out_and_names_asked_for_again() {
    let mut newest = Newest::new(vec!["uuid".into()], 1, 2);
    take_in(&mut newest, &columns(&["gpu,uuid=a power=1,temp=2 1".into()]));
    assert_eq!(newest.metrics().collect::<Vec<_>>(), ["power"]);
    newest.name(&["b".into()], 0);
    newest.name(&["c".into()], 0);
    assert_eq!((newest.number(&["a".into()]), newest.number(&["c".into()])), (None, Some(0)));
    newest.forget(&["c".into()]);
    assert_eq!(newest.number(&["c".into()]), None);
}

#[test]
fn given_tags_that_run_into_each_other_then_they_are_told_apart() {
    let mut newest = newest();
    newest.name(&["ab".into(), "c".into()], 1);
    assert_eq!(newest.number(&["a".into(), "bc".into()]), None);
    assert_eq!(newest.number(&["ab".into(), "c".into()]), Some(1));
}
