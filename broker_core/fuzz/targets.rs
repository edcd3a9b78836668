//! What is fuzzed, and what must hold for any bytes. No target panics, and each says more than that.
//!
//! The bodies are here once: `fuzz_targets/` runs them under libFuzzer, `tests/fuzz_corpus.rs` over the corpus and its
//! mutations in every `cargo test`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::clock::ManualClock;
use broker_core::disk::{Disk, MemoryDisk};
use broker_core::error::Code;
use broker_core::log::frame::{self, Frame, Header};
use broker_core::log::{Appended, Durability, Log, LogId, LogOptions};
use broker_core::queue::journal::{ENTRY_BYTES, Journal};
use broker_core::queue::lease::LeaseId;
use broker_core::telemetry::csv::{CsvOptions, CsvReader};
use broker_core::telemetry::lines::{ColumnBuilder, Fault, LineBuilder, LineFault, Rejected};
use broker_core::wire::delivery::parse_deliveries;
use broker_core::wire::record::MAX_BATCH_BYTES;
use broker_core::wire::{ProduceHead, RecordView, Records, record_entries, v1};
use prost::Message;

/// What is done with the bytes of a case.
pub type Target = fn(&[u8]);

/// Name and body of every target.
pub const TARGETS: [(&str, Target); 8] = [
    ("frame", frame),
    ("log", log),
    ("journal", journal),
    ("wire", wire),
    ("request", request),
    ("csv", csv),
    ("lines", lines),
    ("lease", lease),
];

/// The columns of a dump.
pub const CSV_HEADER: &str =
    "timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace,value,labels_raw\n";
/// The log of the `log` and `journal` targets.
pub const LOG_ID: LogId = LogId([7; 16]);
const LOG_OPTIONS: LogOptions = LogOptions {
    durability: Durability::Os,
    tail_records: 4,
    segment_bytes: 4096,
    segment_age_ns: i64::MAX,
    max_bytes: None,
    drop_oldest: false,
};
const SEGMENT_HEADER_BYTES: usize = 40;
const JOURNAL_HEADER_BYTES: usize = 32;

/// A frame that is taken is exactly the bytes that its fields and records make.
pub fn frame(data: &[u8]) {
    let mut whole = data.to_vec();
    check_frame(&whole);
    // Nearly no mutation has a sound length and CRC, so both are made sound too.
    if whole.len() >= frame::HEADER_BYTES {
        mend_frame(&mut whole);
        check_frame(&whole);
    }
}

fn mend_frame(bytes: &mut [u8]) {
    let len = u32::try_from(bytes.len() - frame::PREFIX_BYTES).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[frame::PREFIX_BYTES..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn check_frame(bytes: &[u8]) {
    let Some(frame) = Frame::parse(bytes.to_vec()) else { return };
    let header = *frame.header();
    assert_eq!(Frame::new(header, frame.records()).bytes(), bytes);
    for (from, to) in [(0, 1), (1, 3), (0, u64::from(header.count))] {
        let (from, to) = (header.base_offset.saturating_add(from), header.base_offset.saturating_add(to));
        assert!(frame.entries(from, to).len() <= frame.records().len());
    }
}

/// A log whose newest segment has these bytes behind its header opens, or says why not; reading it ends in the records
/// or in a named damage; it takes a new record behind all others, and has it after the next start.
pub fn log(data: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let open = || Log::open(disk.clone(), PathBuf::from("/log"), "fuzz/0".into(), LOG_ID, LOG_OPTIONS);
    drop(open().unwrap());
    let (how, data) = data.split_first().unwrap_or((&0, data));
    let mut segment = data.to_vec();
    if how & 1 == 0 {
        let good = new_segment();
        segment.splice(..0, good[..SEGMENT_HEADER_BYTES].iter().copied());
    }
    if how & 2 == 0 {
        mend_frames(&mut segment);
    }
    let state = format!(
        r#"{{"format":1,"log_id":"{}","ceiling":1048576,"boot_id":"{}","clean":{}}}"#,
        LOG_ID.hex(),
        if how & 4 == 0 { disk.boot_id() } else { "another".into() },
        how & 8 != 0,
    );
    disk.replace(Path::new("/log/state.json"), state.as_bytes()).unwrap();
    disk.replace(Path::new("/log/00000000000000000000.log"), &segment).unwrap();

    let mut log = match open() {
        Ok(log) => log,
        Err(err) => return assert!(matches!(err.code(), Code::LogCorrupt | Code::DataFormat), "{err}"),
    };
    let before = read(&mut log, u64::MAX);
    let base = match log.append(&[0x7A, 0], 1, None, 1) {
        Ok(Appended::At { base }) => base,
        outcome => panic!("{outcome:?}"),
    };
    assert!(before.iter().all(|&offset| offset < base), "offset {base} is given twice: {before:?}");
    drop(log);
    let mut log = open().unwrap();
    assert_eq!(log.frame_at(base).unwrap().unwrap().header().base_offset, base);
    assert_eq!(read(&mut log, base), before);
}

/// The first offsets of the frames below `upto` that lie in front of any damage.
fn read(log: &mut Log, upto: u64) -> Vec<u64> {
    let (mut bases, mut at) = (Vec::new(), 0);
    loop {
        match log.frame_at(at) {
            Ok(Some(frame)) if frame.header().base_offset == upto => return bases,
            Ok(Some(frame)) => {
                assert!(frame.header().end_offset() > at);
                bases.push(frame.header().base_offset);
                at = frame.header().end_offset();
            }
            Ok(None) => return bases,
            Err(err) => {
                assert_eq!(err.code(), Code::LogCorrupt, "{err}");
                return bases;
            }
        }
    }
}

/// A segment with three frames, whose records are 2, 1 and 1.
pub fn new_segment() -> Vec<u8> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let mut log = Log::open(disk.clone(), PathBuf::from("/log"), "fuzz/0".into(), LOG_ID, LOG_OPTIONS).unwrap();
    for (sequence, records) in (1..).zip([&[0x7A, 0, 0x7A, 3, 10, 1, 65][..], &[0x7A, 0], &[0x7A, 2, 32, 9]]) {
        log.append(records, record_entries(records).count() as u32, Some((11, sequence)), 5).unwrap();
    }
    disk.read(Path::new("/log/00000000000000000000.log")).unwrap()
}

/// Makes the CRC of the segment's header sound, and of every frame whose length can be one.
fn mend_frames(segment: &mut [u8]) {
    if segment.len() < SEGMENT_HEADER_BYTES {
        return;
    }
    let crc = crc32c::crc32c(&segment[16..SEGMENT_HEADER_BYTES]);
    segment[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(header) = segment.get(at..).and_then(|rest| rest.first_chunk()).and_then(Header::parse) {
        let end = at + usize::try_from(header.frame_bytes()).unwrap();
        let Some(frame) = segment.get_mut(at..end) else { return };
        mend_frame(frame);
        at = end;
    }
}

/// A journal of any bytes opens; what it says is in order, and it says the same when it is opened again.
pub fn journal(data: &[u8]) {
    let disk = MemoryDisk::default();
    // A journal's folder is made, the partition's has to be there.
    disk.create_dir_all(Path::new("/")).unwrap();
    let dir = Path::new("/groups");
    let open = || Journal::open(&disk, dir, "g", LOG_ID, 5);
    drop(open().unwrap());
    let path = dir.join("g.acks");
    let (how, data) = data.split_first().unwrap_or((&0, data));
    let mut bytes = data.to_vec();
    if how & 1 == 0 {
        bytes.splice(..0, disk.read(&path).unwrap()[..JOURNAL_HEADER_BYTES].iter().copied());
    }
    if how & 2 == 0 && bytes.len() > JOURNAL_HEADER_BYTES {
        for entry in bytes[JOURNAL_HEADER_BYTES..].chunks_exact_mut(ENTRY_BYTES) {
            let crc = crc32c::crc32c(&entry[4..]);
            entry[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    disk.replace(&path, &bytes).unwrap();
    match open() {
        Ok((journal, progress)) => {
            assert!(progress.floor <= progress.next);
            let mut at = progress.floor;
            for given in &progress.open {
                assert!(at <= given.range.start && given.range.start < given.range.end, "{progress:?}");
                at = given.range.end;
            }
            assert!(at <= progress.next, "{progress:?}");
            drop(journal);
            assert_eq!(open().unwrap().1, progress);
        }
        Err(err) => assert!(matches!(err.code(), Code::DataFormat | Code::LogCorrupt), "{err}"),
    }
}

/// What the walk takes, a protobuf parser takes as well and finds the same in it, also once it stands in a delivery.
pub fn wire(data: &[u8]) {
    if let Ok(head) = ProduceHead::parse(data) {
        let message = v1::ProduceRequest::decode(data).expect("the walk took what a parser refuses");
        assert_eq!((head.topic, head.partition), (&*message.topic, message.partition));
        assert_eq!((head.producer, head.sequence), (&*message.producer, message.sequence));
        assert_eq!(head.records.count() as usize, message.records.len());
        for (record, expected) in head.records.iter().zip(&message.records) {
            let view = RecordView::of(record);
            assert_eq!((view.value, view.key), (&*expected.value, expected.key.as_deref()));
        }
        let again = Records::parse(head.records.bytes()).expect("a checked batch is refused");
        assert_eq!((again.bytes(), again.count()), (head.records.bytes(), head.records.count()));
        let batch = v1::RecordBatch::decode(head.records.bytes()).expect("entries are a batch");
        assert_eq!(batch.records, message.records);
    }
    if let Ok(deliveries) = parse_deliveries(data) {
        for delivery in deliveries {
            assert!(data.get(delivery.records).is_some());
        }
    }
}

/// Calls of a broker in memory, each `method u8 | len u8 | request`: answers, or errors that are not `internal`.
pub fn request(data: &[u8]) {
    const METHODS: [&str; 20] = [
        "Produce",
        "Receive",
        "Ack",
        "Nack",
        "Extend",
        "Read",
        "OpenProducer",
        "CreateTopic",
        "ListTopics",
        "DescribeTopic",
        "ConfigureTopic",
        "DeleteTopic",
        "PurgeTopic",
        "CreateGroup",
        "ListGroups",
        "DescribeGroup",
        "SeekGroup",
        "DeleteGroup",
        "DescribeBroker",
        "RedriveDeadLetters",
    ];
    let broker = Broker::in_memory(BrokerOptions::default(), Some(Arc::new(ManualClock::new(0)))).unwrap();
    let config = v1::TopicConfig { partitions: Some(2), ..Default::default() };
    let create = v1::CreateTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
    broker.call("CreateTopic", &create.encode_to_vec()).unwrap();
    let mut rest = data;
    let mut lease_id = Vec::new();
    while let [method, len, tail @ ..] = rest {
        let method = METHODS[usize::from(*method) % METHODS.len()];
        let (request, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let request = match method {
            "Ack" => with_lease(request, |ack: &mut v1::AckRequest| &mut ack.leases, &lease_id),
            "Nack" => with_lease(request, |nack: &mut v1::NackRequest| &mut nack.leases, &lease_id),
            _ => request.to_vec(),
        };
        match broker.call(method, &request) {
            Ok(answer) if method == "Receive" => {
                let answer = v1::ReceiveResponse::decode(&*answer).expect("an answer that is no message");
                lease_id = answer.deliveries.first().map_or(lease_id, |delivery| delivery.lease_id.clone());
            }
            Ok(_) => {}
            Err(err) => {
                assert_ne!(err.code(), Code::Internal, "{method}: {err}");
                assert!(err.code() != Code::LogPoisoned, "{method}: {err}");
            }
        }
    }
}

/// The request with the newest delivery's lease in place of its own: no fuzzer guesses one.
fn with_lease<M: Message + Default>(
    request: &[u8],
    leases: impl Fn(&mut M) -> &mut Vec<v1::LeaseRange>,
    lease_id: &[u8],
) -> Vec<u8> {
    let Ok(mut message) = M::decode(request) else { return request.to_vec() };
    for lease in leases(&mut message) {
        lease.lease_id = lease_id.to_vec();
    }
    message.encode_to_vec()
}

/// A dump with these rows (the first byte chooses partitions and blocks): each row is counted once, each batch is one
/// that a broker takes, and each line is one that our own reader takes, with as many fields as there were samples.
pub fn csv(data: &[u8]) {
    let (how, rows) = data.split_first().unwrap_or((&0, data));
    let mut dump = tempfile::NamedTempFile::new().unwrap();
    dump.write_all(CSV_HEADER.as_bytes()).and_then(|()| dump.write_all(rows)).unwrap();
    let options = CsvOptions { block_bytes: 1 << (how & 15), ..CsvOptions::new(1 + u32::from(how >> 6)) };
    let Ok(mut reader) = CsvReader::open(dump.path(), options) else { return };
    let mut end = 0;
    while let Some(block) = reader.next_block(None).unwrap() {
        assert!(block.end > end, "a block without a row");
        end = block.end;
        let counts = &block.counts;
        let told = counts.samples + counts.duplicates + counts.missing + counts.resumed + counts.rejected_total();
        assert_eq!(counts.rows, told, "{counts:?}");
        let (mut points, mut fields, mut clashed) = (0, 0, false);
        for batch in &block.batches {
            assert!(batch.records.len() <= MAX_BATCH_BYTES);
            let records = Records::parse(&batch.records).expect("a batch that a broker refuses");
            points += u64::from(records.count());
            for record in records.iter() {
                let mut builder = ColumnBuilder::new("gpu", &[], &[], None);
                builder.append_values(&[RecordView::of(record).value], 0).unwrap();
                // Metrics whose names differ only in case are one line to us, and none to a table.
                let names_clash = |line: &Rejected| line.reason == Fault::Line(LineFault::Name);
                assert!(builder.rejected().iter().all(names_clash), "we refuse our own: {:?}", builder.rejected());
                clashed |= !builder.rejected().is_empty();
                fields += builder.finish().unwrap().fields.len() as u64;
            }
        }
        assert!(points == counts.points && (clashed || fields == counts.samples), "{points}, {fields}, {counts:?}");
    }
    assert!(end <= reader.size());
}

/// Every line is a row or a rejected line with its offset, the columns are as long as there are rows, and what is made of
/// the lines that are passed on is what was made of the records.
pub fn lines(data: &[u8]) {
    let values: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
    for default_time_ns in [None, Some(7)] {
        let mut builder = ColumnBuilder::new("gpu", &["uuid".into()], &["util".into()], default_time_ns);
        builder.append_values(&values, 10).unwrap();
        let (rows, rejected) = (builder.rows(), builder.rejected().to_vec());
        assert!(rejected.iter().all(|line| (10..10 + values.len() as u64).contains(&line.offset)));
        assert!(rejected.is_sorted_by_key(|line| line.offset));
        let columns = builder.finish().unwrap();
        assert_eq!(columns.batch.num_rows(), rows);
        assert_eq!(columns.batch.num_columns(), 1 + columns.tags.len() + columns.fields.len());
        // What was refused is refused alone as well, and does not touch its neighbours: without it all else is the same.
        let mut alone = ColumnBuilder::new("gpu", &["uuid".into()], &["util".into()], default_time_ns);
        let whole: usize = values.iter().map(|value| value.split(|&byte| byte == b'\n').count()).sum();
        assert!(rows + rejected.len() <= whole + values.len());
        alone.append_values(&values, 10).unwrap();
        assert_eq!(alone.finish().unwrap().batch, columns.batch);

        let mut passed = LineBuilder::new("gpu", &["uuid".into()], &["util".into()], default_time_ns);
        passed.append_values(&values, 10).unwrap();
        assert_eq!((passed.rows(), passed.rejected()), (rows, &rejected[..]));
        let lines = passed.finish().unwrap().lines;
        assert_eq!(lines.iter().filter(|&&byte| byte == b'\n').count(), rows);
        let mut again = ColumnBuilder::new("gpu", &["uuid".into()], &["util".into()], None);
        again.append_values(&[&lines], 10).unwrap();
        assert_eq!(again.rejected().len(), usize::from(rows == 0));
        assert_eq!(again.finish().unwrap().batch, columns.batch);
    }
}

/// A lease id that is taken is the one that its parts make.
pub fn lease(data: &[u8]) {
    if let Ok(id) = LeaseId::decode(data) {
        assert!(id.end() >= id.start);
        assert_eq!(id.encode(), data);
    }
}
