//! The simulated fleet: the same bytes for the same seed, and values that hang together as those of real GPUs do.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use broker_core::error::Code;
use broker_core::partitioner::partition_for_key;
use broker_core::telemetry::csv::{CsvOptions, CsvReader};
use broker_core::telemetry::fleet::{CSV_HEADER, FIELDS, Fleet, FleetOptions, MAX_GPUS, MAX_HOSTS};
use broker_core::wire::{RecordView, record_entries};

const SECOND_NS: i64 = 1_000_000_000;
/// 2025-07-18T12:00:00Z, a Friday.
const START_NS: i64 = 1_752_840_000 * SECOND_NS;
/// 2249-12-31T23:59:59Z.
const LAST_NS: i64 = 8_835_955_199 * SECOND_NS;

fn options(hosts: u32, scrapes: u64) -> FleetOptions {
    FleetOptions {
        hosts,
        gpus: 8,
        metrics: 30,
        start_ns: START_NS,
        interval_ns: 10 * SECOND_NS,
        scrapes: Some(scrapes),
        seed: 7,
    }
}

/// Lines in the order in which they came, of a topic with one partition.
fn lines(options: FleetOptions) -> Vec<String> {
    let mut fleet = Fleet::new(options).unwrap();
    let mut lines = Vec::new();
    while let Some(block) = fleet.next_records(1, usize::MAX).unwrap() {
        for entry in record_entries(&block.data[0].records) {
            lines.push(String::from_utf8(RecordView::of(entry.record).value.to_vec()).unwrap());
        }
    }
    lines
}

fn rows(options: FleetOptions) -> String {
    let mut fleet = Fleet::new(options).unwrap();
    let mut rows = String::new();
    while let Some(block) = fleet.next_rows(usize::MAX).unwrap() {
        rows.push_str(std::str::from_utf8(&block.data).unwrap());
    }
    rows
}

/// Tags, fields and time of a line, none of which needs an escape here but the blanks of the model.
struct Point {
    tags: BTreeMap<String, String>,
    fields: BTreeMap<String, f64>,
    time_ns: i64,
}

impl Point {
    fn of(line: &str) -> Self {
        let (rest, time) = line.rsplit_once(' ').unwrap();
        let (series, fields) = rest.rsplit_once(' ').unwrap();
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        Self {
            tags: series.split(',').skip(1).map(pair).collect(),
            fields: fields.split(',').map(pair).map(|(name, value)| (name, value.parse().unwrap())).collect(),
            time_ns: time.parse().unwrap(),
        }
    }

    fn field(&self, name: &str) -> f64 {
        self.fields[&format!("DCGM_FI_{name}")]
    }

    fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).map(String::as_str)
    }
}

fn points(options: FleetOptions) -> Vec<Point> {
    lines(options).iter().map(|line| Point::of(line)).collect()
}

#[test]
fn given_a_seed_when_simulated_then_the_first_records_are_those_of_all_times() {
    let expected = include_str!("../../tests/vectors/fleet.txt");
    let found = lines(FleetOptions { gpus: 2, ..options(2, 3) }).join("\n") + "\n";
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/fleet.txt"), &found).unwrap();
    }
    assert_eq!(found, expected);
}

#[test]
fn given_another_seed_when_simulated_then_another_fleet() {
    let uuids = |seed| -> BTreeSet<String> {
        points(FleetOptions { seed, ..options(4, 1) }).iter().map(|point| point.tags["uuid"].clone()).collect()
    };
    assert_eq!(uuids(1).len(), 32);
    assert!(uuids(1).is_disjoint(&uuids(2)));
}

#[test]
fn given_more_hosts_when_simulated_then_the_first_ones_are_the_same() {
    let few = lines(options(2, 1));
    assert_eq!(lines(options(5, 1))[..few.len()], few);
}

#[test]
fn given_any_cuts_when_simulated_then_the_same_records() {
    let (whole, mut pieces) = (lines(options(3, 4)), Vec::new());
    let mut fleet = Fleet::new(options(3, 4)).unwrap();
    let mut sizes = [1, 5, 24, 2, 7].iter().cycle();
    let (mut points, mut samples) = (0, 0);
    while let Some(block) = fleet.next_records(1, *sizes.next().unwrap()).unwrap() {
        assert!(block.points <= 24);
        points += block.points;
        samples += block.samples;
        for entry in record_entries(&block.data[0].records) {
            let line = String::from_utf8(RecordView::of(entry.record).value.to_vec()).unwrap();
            assert!(line.ends_with(&format!(" {}", block.time_ns)));
            pieces.push(line);
        }
    }
    assert_eq!(pieces, whole);
    assert_eq!((points, samples), (96, 96 * 30));
}

#[test]
fn given_several_partitions_when_simulated_then_each_gpu_is_in_its_own_one() {
    let mut fleet = Fleet::new(options(8, 1)).unwrap();
    let block = fleet.next_records(3, usize::MAX).unwrap().unwrap();
    let mut count = 0;
    for (partition, batch) in (0..).zip(&block.data) {
        let mut records = 0;
        for entry in record_entries(&batch.records) {
            let record = RecordView::of(entry.record);
            let key = record.key.unwrap();
            assert_eq!(partition_for_key(key, 3), partition);
            let tag = format!(",uuid={} ", std::str::from_utf8(key).unwrap());
            assert!(std::str::from_utf8(record.value).unwrap().contains(&tag));
            records += 1;
        }
        assert_eq!(records, batch.count);
        count += u64::from(records);
    }
    assert_eq!(count, block.points);
}

#[test]
fn given_a_fleet_when_written_as_a_dump_then_the_streamer_makes_the_same_records_of_it() {
    // Half an hour a scrape, so that jobs come and go within the dump.
    let options = FleetOptions { interval_ns: 1800 * SECOND_NS, ..options(6, 12) };
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.csv");
    fs::write(&dump, CSV_HEADER.to_owned() + &rows(options.clone())).unwrap();
    // A block ends where its rows are enough, so the point there may be cut in two: read it as one block.
    let mut reader = CsvReader::open(&dump, CsvOptions { block_bytes: 64 << 20, ..CsvOptions::new(1) }).unwrap();
    let mut streamed = Vec::new();
    while let Some(block) = reader.next_block(None).unwrap() {
        for entry in record_entries(&block.batches[0].records) {
            streamed.push(String::from_utf8(RecordView::of(entry.record).value.to_vec()).unwrap());
        }
    }
    assert_eq!(reader.totals().rejected_total(), 0);
    assert_eq!(streamed, lines(options));
}

#[test]
fn given_days_of_a_fleet_when_looked_at_then_its_values_hang_together() {
    let day = FleetOptions { interval_ns: 300 * SECOND_NS, ..options(20, 2 * 288) };
    let (mut idle, mut busy, mut all) = (0_u32, 0_u32, 0_u32);
    let mut counters: BTreeMap<String, [f64; 3]> = BTreeMap::new();
    let mut pods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for point in points(day) {
        all += 1;
        let (util, power, temp) =
            (point.field("DEV_GPU_UTIL"), point.field("DEV_POWER_USAGE"), point.field("DEV_GPU_TEMP"));
        assert!((0.0..=100.0).contains(&util) && (60.0..=700.0).contains(&power) && (20.0..=90.0).contains(&temp));
        assert!((point.field("DEV_FB_USED") + point.field("DEV_FB_FREE") - 81_007.0).abs() < 0.5);
        for name in ["PROF_GR_ENGINE_ACTIVE", "PROF_PIPE_TENSOR_ACTIVE", "PROF_DRAM_ACTIVE", "PROF_SM_ACTIVE"] {
            assert!((0.0..=1.0).contains(&point.field(name)), "{name}");
        }
        if let Some(pod) = point.tag("pod") {
            assert!(point.tag("namespace").is_some() && point.tag("container").is_some());
            pods.entry(point.tags["hostname"].clone()).or_default().insert(pod.to_owned());
            if util > 90.0 && point.field("PROF_PIPE_TENSOR_ACTIVE") > 0.4 {
                busy += 1;
                assert!(power > 400.0 && temp > 45.0 && point.field("DEV_SM_CLOCK") > 1900.0, "{:?}", point.fields);
            }
        } else {
            idle += 1;
            assert!(util < 0.5 && point.field("DEV_SM_CLOCK") < 400.0, "no job, no work");
        }
        let rising = ["DEV_TOTAL_ENERGY_CONSUMPTION", "DEV_NVLINK_BANDWIDTH_TOTAL", "DEV_POWER_VIOLATION"];
        let now = rising.map(|name| point.field(name));
        if let Some(before) = counters.insert(point.tags["uuid"].clone(), now) {
            assert!(now.iter().zip(before).all(|(now, before)| *now >= before), "{now:?} after {before:?}");
            let joules = (now[0] - before[0]) / 1000.0;
            assert!((joules - power * 300.0).abs() < 1.0, "{joules} J at {power} W");
        }
        assert!(point.time_ns >= START_NS);
    }
    assert_eq!(all, 20 * 8 * 2 * 288);
    assert!((0.05..0.6).contains(&(f64::from(idle) / f64::from(all))), "{idle} of {all} without a job");
    assert!(busy > all / 20, "{busy} of {all} in training");
    assert_eq!(pods.len(), 20, "every host had a job");
    assert!(pods.values().map(BTreeSet::len).sum::<usize>() > 20 * 8, "jobs come and go");
}

#[test]
fn given_fewer_metrics_when_simulated_then_the_first_ones() {
    let dump = rows(FleetOptions { metrics: 10, ..options(1, 1) });
    let names: BTreeSet<&str> = dump.lines().map(|row| row.split('"').nth(3).unwrap()).collect();
    assert_eq!(names, FIELDS[..10].iter().map(|field| field.name).collect());
    let point = &points(FleetOptions { metrics: 1, ..options(1, 1) })[0];
    assert_eq!(point.fields.len(), 1);
}

#[test]
fn given_a_life_up_to_the_end_of_time_when_simulated_then_the_end_is_told() {
    let last = FleetOptions { start_ns: LAST_NS, interval_ns: 86_400 * SECOND_NS, ..options(1, 1) };
    assert_eq!(lines(last.clone()).len(), 8);
    let mut fleet = Fleet::new(FleetOptions { scrapes: None, ..last }).unwrap();
    assert_eq!(fleet.next_records(1, usize::MAX).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn given_options_out_of_their_bounds_when_made_then_refused() {
    for wrong in [
        FleetOptions { hosts: 0, ..options(1, 1) },
        FleetOptions { hosts: MAX_HOSTS + 1, ..options(1, 1) },
        FleetOptions { gpus: 0, ..options(1, 1) },
        FleetOptions { gpus: MAX_GPUS + 1, ..options(1, 1) },
        FleetOptions { metrics: 0, ..options(1, 1) },
        FleetOptions { metrics: 31, ..options(1, 1) },
        FleetOptions { interval_ns: 0, ..options(1, 1) },
        FleetOptions { interval_ns: i64::MAX, ..options(1, 1) },
        FleetOptions { start_ns: -1, ..options(1, 1) },
        FleetOptions { start_ns: LAST_NS + SECOND_NS, ..options(1, 1) },
    ] {
        assert_eq!(Fleet::new(wrong.clone()).err().map(|err| err.code()), Some(Code::InvalidArgument), "{wrong:?}");
    }
    for partitions in [0, 65_537] {
        let refused = Fleet::new(options(1, 1)).unwrap().next_records(partitions, 1);
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn given_a_large_host_when_simulated_then_no_point_comes_near_what_is_kept_free_for_it() {
    let all = FleetOptions { gpus: MAX_GPUS, start_ns: LAST_NS, ..options(400, 1) };
    let longest = lines(all).iter().map(String::len).max().unwrap();
    assert!(longest < 3000, "{longest} bytes");
}
