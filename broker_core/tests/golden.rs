//! Files of format 1 as they were written once: every later version reads them, and writes the same bytes.
//!
//! `tests/golden/v1/` is a broker's folder. `GOLDEN_WRITE=1 cargo test -p broker_core --test golden` writes it anew, which
//! is right only before a format is released: a file that changes here is a file that installed brokers cannot read.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::disk::{Disk, MemoryDisk};
use broker_core::inspect::{Scope, verify_on};
use broker_core::log::producers::producer_id;
use broker_core::log::state::CEILING_STEP;
use broker_core::log::{Durability, Log, LogId, LogOptions};
use broker_core::queue::journal::Journal;
use broker_core::queue::{Given, Progress};
use broker_core::wire::record::put_record;
use broker_core::wire::{RecordView, record_entries};

use support::options;

const ID: LogId = LogId([0xA0, 0xA1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15]);
const START_NS: i64 = 1_752_871_354_000_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v1")
}

fn partition() -> PathBuf {
    PathBuf::from("/b/readings/partition-0")
}

fn open(disk: &Arc<dyn Disk>, durability: Durability) -> Log {
    let options = LogOptions { segment_bytes: 500, ..options(durability) };
    Log::open(disk.clone(), partition(), "readings/0".into(), ID, options).unwrap()
}

/// Offset, value, key and time of every record in the golden log.
fn records() -> Vec<(u64, String, Option<String>, i64)> {
    let mut records = Vec::new();
    for offset in (0..12).chain(CEILING_STEP..CEILING_STEP + 3) {
        let key = (offset % 3 != 0).then(|| format!("GPU-{}", offset % 3));
        let time = if offset % 2 == 0 { START_NS + offset as i64 } else { 0 };
        records.push((offset, format!("gpu,uuid=GPU-{} temp={offset}", offset % 3), key, time));
    }
    records
}

fn batch(offsets: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, value, key, time) in records() {
        if offsets.contains(&offset) {
            let headers: &[(&str, &[u8])] = if offset == 5 { &[("source", b"dcgm"), ("raw", &[0, 255])] } else { &[] };
            put_record(&mut bytes, value.as_bytes(), key.as_deref().map(str::as_bytes), time, headers).unwrap();
        }
    }
    bytes
}

/// What is written today: three segments, a gap, a named producer, an empty batch of it, and a group's journal.
fn written() -> BTreeMap<PathBuf, Vec<u8>> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let streamer = producer_id("streamer-1");
    let mut log = open(&disk, Durability::Os);
    for number in 0..4u64 {
        let named = (number % 2 == 0).then_some((streamer, 10 * (number + 1)));
        log.append(&batch(3 * number..3 * number + 3), 3, named, START_NS + number as i64 * 1_000_000).unwrap();
    }
    log.append(&[], 0, Some((streamer, 100)), START_NS + 9_000_000).unwrap();
    // An unclean end of a `memory` log: numbering goes on at the ceiling.
    drop(log);
    let mut log = open(&disk, Durability::Memory);
    log.append(&batch(CEILING_STEP..CEILING_STEP + 3), 3, None, START_NS + 10_000_000).unwrap();
    log.close(0).unwrap();
    let (mut journal, _) = Journal::open(&*disk, &partition().join("groups"), "collector", ID, 0).unwrap();
    journal.leased(&Given { range: 0..6, attempt: 1, grant: 1 << 40 });
    journal.acked(std::slice::from_ref(&(0..4)));
    journal.leased(&Given { range: 4..6, attempt: 2, grant: (1 << 40) + 1 });
    journal.acked(std::slice::from_ref(&(8..10)));
    journal.flush().unwrap();
    drop(journal);
    let names = ["state.json", "groups/collector.acks"].map(str::to_owned).into_iter();
    let segments = disk.list(&partition()).unwrap().into_iter().filter(|name| name.ends_with(".log"));
    names
        .chain(segments)
        .map(|name| (PathBuf::from("readings/partition-0").join(&name), disk.read(&partition().join(&name)).unwrap()))
        .collect()
}

/// What a broker wrote around it. The random ids in there differ each time, so these are read and not compared.
fn surroundings() -> BTreeMap<PathBuf, Vec<u8>> {
    let topic = r#"{
  "format": 1,
  "config": {
    "partitions": 1,
    "durability": "os",
    "retention_ms": 86400000,
    "retention_bytes": 1073741824,
    "max_partition_bytes": null,
    "full_policy": "reject",
    "segment_bytes": 67108864,
    "max_attempts": 20,
    "visibility_timeout_ms": null
  },
  "version": 1,
  "groups": {
    "collector": {
      "mode": "shared",
      "id": 7
    }
  }
}"#;
    let broker = r#"{"format":1,"broker_id":"1234567890123456789","opened":3}"#;
    let producers =
        format!(r#"{{"{}":{{"name":"retired","sequence":42,"last_append_ns":{START_NS}}}}}"#, producer_id("retired"));
    let files = [
        ("broker.json", broker.to_owned()),
        ("readings/topic.json", topic.to_owned()),
        ("readings/partition-0/producers.json", producers),
    ];
    files.into_iter().map(|(name, text)| (PathBuf::from(name), text.into_bytes())).collect()
}

/// The golden files in memory, so that opening them leaves them alone.
fn golden() -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    for name in written().keys().chain(surroundings().keys()) {
        let path = Path::new("/b").join(name);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = std::fs::read(folder().join(name)).unwrap_or_else(|err| panic!("{}: {err}", name.display()));
        disk.replace(&path, &bytes).unwrap();
    }
    disk
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    let files = written();
    assert_eq!(files.len(), 5, "{:?}", files.keys());
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        for (name, bytes) in files.iter().chain(&surroundings()) {
            let path = folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    for (name, bytes) in files {
        let then = std::fs::read(folder().join(&name)).unwrap_or_else(|err| panic!("{}: {err}", name.display()));
        assert!(then == bytes, "{} is written otherwise than in format 1", name.display());
    }
}

#[test]
fn every_record_written_then_is_read_today() {
    let disk = golden();
    let mut log = open(&disk, Durability::Os);
    let (mut at, mut read) = (0, Vec::new());
    while let Some(frame) = log.frame_at(at).unwrap() {
        let (base, end) = (frame.header().base_offset, frame.header().end_offset());
        for (offset, entry) in (base..).zip(record_entries(frame.records())) {
            let view = RecordView::of(entry.record);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            read.push((offset, text(view.value), view.key.map(text), view.timestamp_ns));
            if offset == 5 {
                let headers = RecordView::headers(entry.record);
                assert_eq!(headers, [("source", b"dcgm".as_slice()), ("raw", &[0, 255])]);
            }
        }
        at = end;
    }
    assert_eq!(read, records());
    assert_eq!((log.id(), log.start(), log.end()), (ID, 0, CEILING_STEP + 3));
    assert_eq!(log.last_append_ns(), START_NS + 10_000_000);
    assert_eq!([log.producer_sequence("streamer-1"), log.producer_sequence("retired")], [100, 42]);
}

#[test]
fn what_a_group_had_done_then_is_known_today() {
    let (_, progress) = Journal::open(&*golden(), &partition().join("groups"), "collector", ID, 0).unwrap();
    let open =
        vec![Given { range: 4..6, attempt: 2, grant: (1 << 40) + 1 }, Given { range: 6..8, attempt: 0, grant: 0 }];
    assert_eq!(progress, Progress { floor: 4, next: 10, open, ..progress.clone() });
}

#[test]
fn a_broker_of_today_opens_the_folder_and_finds_nothing_wrong() {
    let disk = golden();
    assert_eq!(verify_on(&*disk, Path::new("/b"), &Scope::default(), &mut |_, _| Ok(())).unwrap(), []);
    let clock = Arc::new(ManualClock::new(START_NS));
    let broker = Broker::open_on(disk, Path::new("/b"), BrokerOptions::default(), clock).unwrap();
    let topic = broker.topic("readings").unwrap();
    assert_eq!(topic.partition(0).unwrap().log_id(), ID);
    assert_eq!(topic.groups().len(), 1);
}
