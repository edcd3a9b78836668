//! The CSV codec against a naive model: every row once, whatever the cuts, crashes and damage.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use broker_core::error::Error;
use broker_core::partitioner::partition_for_key;
use broker_core::telemetry::csv::{CsvBlock, CsvOptions, CsvReader, RejectOptions};
use broker_core::telemetry::sample::RowFault;
use broker_core::wire::record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_RECORD_BYTES};
use broker_core::wire::{RecordView, record_entries};
use proptest::prelude::*;
use tempfile::TempDir;

const HEADER: &str =
    "timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace,value,labels_raw\n";

struct Dump {
    folder: TempDir,
}

impl Dump {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dump = Self { folder: TempDir::new().unwrap() };
        fs::write(dump.path(), text).unwrap();
        dump
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("dump.csv")
    }

    fn rejects(&self) -> RejectOptions {
        RejectOptions { path: self.folder.path().join("rejects.csv"), max_bytes: 1 << 20 }
    }

    fn reject_lines(&self) -> Vec<String> {
        let text = fs::read(self.rejects().path).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().skip(1).map(str::to_owned).collect()
    }

    fn open(&self, options: CsvOptions) -> Result<CsvReader, Error> {
        CsvReader::open(&self.path(), options)
    }

    fn reader(&self) -> CsvReader {
        self.open(CsvOptions { rejects: Some(self.rejects()), ..CsvOptions::new(1) }).unwrap()
    }
}

fn row(time: u8, gpu: u8, metric: &str, value: &str) -> String {
    format!(
        "\"2025-07-18T20:42:{time:02}Z\",\"{metric}\",\"{gpu}\",\"nvidia{gpu}\",\"GPU-{gpu}\",\"NVIDIA H100\",\
         \"host-{}\",\"\",\"\",\"\",\"{value}\",\
         \"__name__=\"\"{metric}\"\",gpu=\"\"{gpu}\"\",job=\"\"dgx\"\"\"\n",
        gpu / 2
    )
}

fn values(records: &[u8]) -> impl Iterator<Item = &[u8]> {
    record_entries(records).map(|entry| RecordView::of(entry.record).value)
}

fn lines(block: &CsvBlock) -> Vec<String> {
    let batches = block.batches.iter();
    batches.flat_map(|batch| values(&batch.records)).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
}

fn all_lines(reader: &mut CsvReader) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(block) = reader.next_block(None).unwrap() {
        all.extend(lines(&block));
    }
    all
}

/// (series, time, field) -> value, for every field of the lines.
fn cells(lines: &[String]) -> Vec<((String, String, String), String)> {
    let mut cells = Vec::new();
    for line in lines {
        let (rest, time) = line.rsplit_once(' ').unwrap();
        let (series, fields) = rest.rsplit_once(' ').unwrap();
        for field in fields.split(',') {
            let (name, value) = field.split_once('=').unwrap();
            cells.push(((series.to_owned(), time.to_owned(), name.to_owned()), value.to_owned()));
        }
    }
    cells
}

#[test]
fn given_the_rows_of_two_gpus_when_read_then_one_wide_line_per_gpu_and_time() {
    let dump = Dump::new(
        HEADER.to_owned()
            + &row(1, 0, "UTIL", "87")
            + &row(1, 1, "UTIL", "3")
            + &row(1, 0, "TEMP", "0.5")
            + &row(2, 0, "UTIL", "88"),
    );
    let mut reader = dump.reader();
    let block = reader.next_block(None).unwrap().unwrap();
    let series =
        |gpu| format!(r"gpu,device=nvidia{gpu},gpu={gpu},hostname=host-0,job=dgx,model=NVIDIA\ H100,uuid=GPU-{gpu}");
    assert_eq!(
        lines(&block),
        [
            format!("{} TEMP=0.5,UTIL=87 1752871321000000000", series(0)),
            format!("{} UTIL=3 1752871321000000000", series(1)),
            format!("{} UTIL=88 1752871322000000000", series(0)),
        ]
    );
    assert_eq!((block.counts.rows, block.counts.samples, block.counts.points, block.batches[0].count), (4, 4, 3, 3));
    assert_eq!(block.counts.times_ns, Some((1_752_871_321_000_000_000, 1_752_871_322_000_000_000)));
    assert_eq!(block.end, fs::metadata(dump.path()).unwrap().len());
    assert!(reader.next_block(None).unwrap().is_none());
    assert_eq!((reader.rejects_path(), reader.totals()), (None, &block.counts));
}

#[test]
fn given_a_bom_crlf_blank_lines_and_no_last_line_end_when_read_then_the_same_points() {
    let plain = HEADER.to_owned() + &row(1, 0, "UTIL", "87") + &row(1, 1, "UTIL", "3");
    let odd = format!("\u{feff}{}", plain.replace('\n', "\r\n\r\n")).trim_end().to_owned();
    let (plain, odd) = (Dump::new(plain), Dump::new(odd));
    let (mut plain, mut odd) = (plain.reader(), odd.reader());
    assert_eq!(plain.producer_name(), odd.producer_name());
    assert_eq!(all_lines(&mut plain), all_lines(&mut odd));
    assert_eq!(plain.totals(), odd.totals());
}

#[test]
fn given_columns_in_another_order_when_read_then_the_same_points() {
    let dump = Dump::new(
        "value,note,labels_raw,timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace\n\
         87,\"a, b\",,2025-07-18T20:42:01Z,UTIL,0,nvidia0,GPU-0,H100,host,c,p,n\n",
    );
    assert_eq!(
        all_lines(&mut dump.reader()),
        [concat!(
            "gpu,container=c,device=nvidia0,gpu=0,hostname=host,model=H100,namespace=n,pod=p,uuid=GPU-0 ",
            "UTIL=87 1752871321000000000"
        )]
    );
}

#[test]
fn given_repeats_and_sentinels_when_read_then_the_last_value_stays_and_the_missing_are_counted() {
    let dump = Dump::new(
        HEADER.to_owned()
            + &row(1, 0, "UTIL", "1")
            + &row(1, 0, "UTIL", "2")
            + &row(1, 0, "TEMP", "9223372036854775794")
            + &row(1, 0, "UTIL", "2147483632")
            + &row(1, 1, "UTIL", "140737488355328.000000")
            + &row(1, 0, "POWER", ""),
    );
    let mut reader = dump.reader();
    let lines = all_lines(&mut reader);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(" UTIL=2 "), "{}", lines[0]);
    let counts = reader.totals();
    assert_eq!((counts.rows, counts.samples, counts.duplicates, counts.missing, counts.points), (6, 1, 1, 4, 1));
}

#[test]
fn given_each_kind_of_bad_row_when_read_then_counted_by_reason_kept_and_the_good_rows_go_through() {
    let good = row(1, 0, "UTIL", "87");
    let bad: Vec<(Vec<u8>, RowFault)> = vec![
        (b"a,b,c\n".to_vec(), RowFault::Short),
        (good.replace('\n', ",\"more\"\n").into_bytes(), RowFault::Long),
        (row(1, 0, "UTIL", "abc").into_bytes(), RowFault::Number),
        (row(1, 0, "UTIL", "NaN").into_bytes(), RowFault::NotFinite),
        (row(1, 0, "UTIL", "-Inf").into_bytes(), RowFault::NotFinite),
        (row(1, 0, "UTIL", "1e400").into_bytes(), RowFault::NotFinite),
        (good.replace("2025-07-18T", "18.07.2025 ").into_bytes(), RowFault::Timestamp),
        (good.replace("\"GPU-0\"", "\"GPU-0").into_bytes(), RowFault::Quotes),
        (good.replace("\"GPU-0\"", "GPU\"-0").into_bytes(), RowFault::Quotes),
        (good.replace("\"GPU-0\"", "\"\"").into_bytes(), RowFault::Uuid),
        (row(1, 0, "", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "hostname", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "time", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "Date", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "nanos", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "pod", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "util", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "UT\0IL", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "UT\tIL", "87").into_bytes(), RowFault::Metric),
        (row(1, 0, "job", "87").into_bytes(), RowFault::Metric),
        (good.replace("job=", "date=").into_bytes(), RowFault::Labels),
        (good.replace("job=", "gpu_i_id=").into_bytes(), RowFault::Labels),
        (good.replace("job=", "Job=").into_bytes(), RowFault::Labels),
        (good.replace("job=", "util=").into_bytes(), RowFault::Labels),
        (good.replace("job=", "job").into_bytes(), RowFault::Labels),
        (
            good.replace("host-0", "h\u{1}").into_bytes().iter().map(|&b| if b == 1 { 0xFF } else { b }).collect(),
            RowFault::Utf8,
        ),
        ([&vec![b'x'; 3 << 20][..], b"\n"].concat(), RowFault::TooLong),
    ];
    let mut text = [HEADER.as_bytes(), good.as_bytes()].concat();
    for (row, _) in &bad {
        text.extend_from_slice(row);
        text.extend_from_slice(good.as_bytes());
    }
    let dump = Dump::new(&text);
    let mut reader = dump.reader();
    assert_eq!(all_lines(&mut reader).len(), 1);
    let counts = reader.totals().clone();
    let mut expected = BTreeMap::new();
    for (_, fault) in &bad {
        *expected.entry(*fault).or_insert(0) += 1;
    }
    for fault in RowFault::ALL {
        assert_eq!(counts.rejected(fault), expected.get(&fault).copied().unwrap_or_default(), "{}", fault.as_str());
    }
    assert_eq!(counts.samples + counts.duplicates, 1 + bad.len() as u64);
    assert_eq!(reader.rejects_path(), Some(dump.rejects().path.as_path()));

    // Each reject line gives the row's place and the row as it was.
    let file = fs::read(dump.rejects().path).unwrap();
    let mut parsed = csv::ReaderBuilder::new().from_reader(file.as_slice());
    assert_eq!(parsed.byte_headers().unwrap(), vec!["source", "position", "line", "reason", "row"]);
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<usize>().unwrap();
    for (index, (record, (row, fault))) in parsed.byte_records().zip(&bad).enumerate() {
        let record = record.unwrap();
        assert_eq!(&record[0], reader.producer_name().as_bytes());
        let position = number(&record[1]);
        assert_eq!(&text[position..position + row.len()], row, "{}", fault.as_str());
        assert_eq!(number(&record[2]), 3 + 2 * index);
        assert_eq!(&record[3], fault.as_str().as_bytes());
        let kept = if *fault == RowFault::TooLong {
            [&row[..1024], format!(" [cut: 1024 of {} bytes]", row.len()).as_bytes()].concat()
        } else {
            row[..row.len() - 1].to_vec()
        };
        assert_eq!(&record[4], kept);
    }
    assert_eq!(dump.reject_lines().len(), bad.len());

    // Read again: nothing is kept twice; half a line, as a crash may leave it, is made whole.
    all_lines(&mut dump.reader());
    assert_eq!(dump.reject_lines().len(), bad.len());
    fs::write(dump.rejects().path, &file[..file.len() - 10]).unwrap();
    all_lines(&mut dump.reader());
    assert_eq!(fs::read(dump.rejects().path).unwrap(), file);
}

#[test]
fn given_a_resume_in_the_middle_when_a_row_is_refused_then_its_line_number_is_that_of_the_file() {
    let dump = Dump::new(HEADER.to_owned() + &row(1, 0, "A", "1") + &row(1, 0, "B", "1") + "bad\n");
    let resume = vec![(HEADER.len() + row(1, 0, "A", "1").len()) as u64];
    let mut reader = dump.open(CsvOptions { resume, rejects: Some(dump.rejects()), ..CsvOptions::new(1) }).unwrap();
    assert_eq!(all_lines(&mut reader).len(), 1);
    assert!(dump.reject_lines()[0].contains(",4,short,"), "{:?}", dump.reject_lines());
}

#[test]
fn given_a_full_reject_file_when_rows_are_refused_then_they_are_counted() {
    let dump = Dump::new(HEADER.to_owned() + &"bad\n".repeat(100));
    let rejects = RejectOptions { max_bytes: 500, ..dump.rejects() };
    let mut reader = dump.open(CsvOptions { rejects: Some(rejects), ..CsvOptions::new(1) }).unwrap();
    all_lines(&mut reader);
    let kept = dump.reject_lines().len() as u64;
    assert!(kept > 0);
    assert_eq!((kept + reader.rejects_unkept(), reader.totals().rejected_total()), (100, 100));
}

#[test]
fn given_another_file_as_the_reject_file_when_opened_then_it_is_left_alone() {
    let dump = Dump::new(HEADER);
    fs::write(dump.rejects().path, "precious").unwrap();
    let error = dump.open(CsvOptions { rejects: Some(dump.rejects()), ..CsvOptions::new(1) }).err().unwrap();
    assert_eq!(error.code().as_str(), "csv.rejects");
    assert_eq!(fs::read(dump.rejects().path).unwrap(), b"precious");
}

#[test]
fn given_files_that_are_no_dump_when_opened_then_each_error_has_its_code_and_names_the_file() {
    let dump = Dump::new("");
    let refused = |text: &[u8]| {
        fs::write(dump.path(), text).unwrap();
        let error = dump.open(CsvOptions::new(1)).err().unwrap();
        assert!(error.to_string().contains("dump.csv"), "{error}");
        (error.code().as_str(), error.to_string())
    };
    assert_eq!(refused(b"").0, "csv.empty");
    assert_eq!(refused(b"\xEF\xBB\xBF\r\n\n").0, "csv.empty");
    let (code, text) = refused(b"timestamp,uuid,value\n");
    assert_eq!(code, "csv.header");
    assert!(text.contains("no column metric_name, gpu_id"), "{text}");
    let (code, text) = refused(&vec![b'x'; 5 << 20]);
    assert_eq!(code, "csv.header");
    assert!(text.len() < 600, "{text}");
    for (content, words) in [
        (&b"\xFF\xFEt\0i\0"[..], "UTF-16"),
        (b"\x1F\x8B\x08\x00garbage\xFF", "gunzip"),
        (b"PK\x03\x04garbage", "zip"),
        (b"\xE9t\xE9", "save the file as UTF-8"),
    ] {
        let (code, text) = refused(content);
        assert_eq!(code, "csv.header");
        assert!(text.contains(words) && !text.contains("garbage"), "{text}");
    }

    let folder = CsvReader::open(dump.folder.path(), CsvOptions::new(1)).err().unwrap();
    assert_eq!(folder.code().as_str(), "csv.unreadable");
    let device = CsvReader::open("/dev/zero".as_ref(), CsvOptions::new(1)).err().unwrap();
    assert_eq!(device.code().as_str(), "csv.unreadable");
    assert!(device.message().contains("not a regular file"), "{device}");
    let none = CsvReader::open(&dump.folder.path().join("none"), CsvOptions::new(1)).err().unwrap();
    assert_eq!(none.code().as_str(), "csv.not_found");
    fs::write(dump.path(), HEADER).unwrap();
    assert_eq!(dump.open(CsvOptions::new(0)).err().unwrap().code().as_str(), "invalid.argument");
    let resume = vec![1, 2];
    assert_eq!(
        dump.open(CsvOptions { resume, ..CsvOptions::new(1) }).err().unwrap().code().as_str(),
        "invalid.argument"
    );
    let resume = vec![HEADER.len() as u64 + 1];
    assert_eq!(dump.open(CsvOptions { resume, ..CsvOptions::new(1) }).err().unwrap().code().as_str(), "csv.shrunk");
}

#[test]
fn given_a_last_row_that_grew_after_it_was_read_when_resumed_then_the_rest_is_refused_as_torn() {
    let first = HEADER.to_owned() + &row(1, 0, "A", "1");
    for (appended, torn, samples) in [("", 0, 0), ("\n", 0, 0), ("\r\n", 0, 0), ("garbage\n", 1, 0)] {
        let cut = first.trim_end();
        let dump = Dump::new(cut);
        let end = dump.reader().next_block(None).unwrap().unwrap().end;
        assert_eq!(end, cut.len() as u64);
        let more = if appended.is_empty() { String::new() } else { row(2, 0, "A", "2") };
        fs::write(dump.path(), format!("{cut}{appended}{more}")).unwrap();
        let mut reader = dump.open(CsvOptions { resume: vec![end], ..CsvOptions::new(1) }).unwrap();
        let lines = all_lines(&mut reader);
        assert_eq!(lines.len(), if more.is_empty() { samples } else { 1 }, "{appended:?}");
        assert_eq!(reader.totals().rejected(RowFault::Torn), torn, "{appended:?}");
    }
}

#[test]
fn given_a_name_in_another_case_when_resumed_behind_the_first_one_then_it_is_refused_all_the_same() {
    let first = HEADER.to_owned() + &row(1, 0, "UTIL", "1");
    let dump = Dump::new(first.clone() + &row(2, 0, "util", "2") + &row(3, 0, "UTIL", "3"));
    for resume in [vec![], vec![first.len() as u64]] {
        let mut reader = dump.open(CsvOptions { resume, ..CsvOptions::new(1) }).unwrap();
        assert!(all_lines(&mut reader).iter().all(|line| line.contains(" UTIL=")));
        assert_eq!(reader.totals().rejected(RowFault::Metric), 1);
    }
    let metrics = vec!["util".to_owned()];
    let mut reader = dump.open(CsvOptions { metrics, ..CsvOptions::new(1) }).unwrap();
    assert_eq!((all_lines(&mut reader).len(), reader.totals().rejected(RowFault::Metric)), (1, 2));
}

#[test]
fn given_a_metric_named_as_a_label_of_its_row_when_read_then_the_rows_that_follow_go_through() {
    let dump = Dump::new(HEADER.to_owned() + &row(1, 0, "job", "1") + &row(2, 0, "UTIL", "2"));
    let mut reader = dump.reader();
    assert_eq!((all_lines(&mut reader).len(), reader.totals().rejected(RowFault::Metric)), (1, 1));
}

#[test]
fn given_options_for_time_when_read_then_rows_have_it() {
    let dump = Dump::new(HEADER.to_owned() + &row(1, 0, "A", "1") + &row(2, 0, "B", "1"));
    let shifted = CsvOptions { time_shift_ns: 5, ..CsvOptions::new(1) };
    let lines = all_lines(&mut dump.open(shifted).unwrap());
    assert!(lines[0].ends_with(" A=1 1752871321000000005") && lines[1].ends_with(" B=1 1752871322000000005"));
    let scrape = CsvOptions { time_ns: Some(7), ..CsvOptions::new(1) };
    let lines = all_lines(&mut dump.open(scrape).unwrap());
    assert!(lines.len() == 1 && lines[0].ends_with(" A=1,B=1 7"), "{lines:?}");
    let past_the_end = CsvOptions { time_shift_ns: i64::MAX, ..CsvOptions::new(1) };
    let mut reader = dump.open(past_the_end).unwrap();
    assert!(all_lines(&mut reader).is_empty());
    assert_eq!(reader.totals().rejected(RowFault::Timestamp), 2);
}

#[test]
fn given_rows_that_grow_when_encoded_then_blocks_are_cut_before_a_bound() {
    // Minimal rows, each a point of its own, then one point of ever more long metric names.
    let mut text = HEADER.to_owned();
    for index in 0..100_000 {
        writeln!(text, "2025-07-18T20:42:01.{index:09}Z,m,,,u,,,,,,1,").unwrap();
    }
    for index in 0..40 {
        writeln!(text, "2025-07-18T20:42:01Z,{}{index},,,u,,,,,,1,", "m".repeat(100_000)).unwrap();
    }
    // A row that alone is too much: its tags are written with escapes, its uuid twice.
    writeln!(text, "2025-07-18T20:42:01Z,m,,,\"{}\",,,,,,1,", ",".repeat(600_000)).unwrap();
    let dump = Dump::new(text);
    let mut reader = dump.open(CsvOptions { block_bytes: 64 << 20, ..CsvOptions::new(1) }).unwrap();
    let mut blocks = 0;
    while let Some(block) = reader.next_block(None).unwrap() {
        blocks += 1;
        assert!(block.batches[0].records.len() <= MAX_BATCH_BYTES && block.batches[0].count <= MAX_BATCH_RECORDS);
        assert!(values(&block.batches[0].records).all(|value| value.len() < MAX_RECORD_BYTES));
    }
    assert!(blocks >= 3, "{blocks}");
    assert_eq!((reader.totals().samples, reader.totals().rejected(RowFault::TooLong)), (100_040, 1));
}

#[test]
fn given_blocks_when_cut_then_at_the_last_row_end_before_each_multiple() {
    let mut text = HEADER.to_owned();
    for index in 0..60 {
        text.push_str(&row(index % 60, index, "UTIL", "1"));
    }
    text.push_str(&row(1, 1, &"M".repeat(5000), "1"));
    text.push_str(&row(2, 1, "UTIL", "1"));
    let block_bytes = 1000;
    let mut ends = vec![HEADER.len() as u64];
    let mut position = HEADER.len() as u64;
    for line in text[HEADER.len()..].split_inclusive('\n') {
        let end = position + line.len() as u64;
        let last = *ends.last().unwrap();
        if position > last && end.div_ceil(block_bytes) > position.div_ceil(block_bytes) {
            ends.push(position);
        }
        position = end;
    }
    ends.push(position);
    let dump = Dump::new(text);
    let mut reader = dump.open(CsvOptions { block_bytes, ..CsvOptions::new(3) }).unwrap();
    let mut got = vec![HEADER.len() as u64];
    while let Some(block) = reader.next_block(None).unwrap() {
        got.push(block.end);
    }
    assert_eq!(got, ends);
}

/// A row of the generated dumps: good, a sentinel, bad, or blank.
fn any_row() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..4_u8, 0..6_u8, "[A-D]", "[0-4]").prop_map(|(time, gpu, name, value)| row(time, gpu, &name, &value)),
        1 => (0..4_u8, 0..6_u8, "[A-D]").prop_map(|(time, gpu, metric)| row(time, gpu, &metric, "2147483633")),
        1 => Just("short,row\n".to_owned()),
        1 => Just(row(1, 1, "A", "\"")),
        1 => Just("\r\n".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With rows that are all different, so that cuts cannot hide a repeat: what partitions hold after any crashes,
    /// each with other cuts, is each row once. A partition refuses what is at or below its highest sequence.
    #[test]
    fn given_any_crashes_and_cuts_when_resumed_then_each_row_is_stored_once(
        count in 1..60_u8,
        partitions in 1..4_u32,
        runs in prop::collection::vec(
            (1..9_u64, 200..5000_u64, prop::collection::vec(any::<u8>(), 1..6), 1..60_u8),
            0..5,
        ),
    ) {
        let distinct = |index: u8| row(index % 7, index % 5, &format!("M{index}"), &index.to_string());
        let rows: Vec<_> = (0..count).map(distinct).collect();
        let dump = Dump::new(HEADER);
        let (mut highest, mut stored) = (vec![0; partitions as usize], vec![Vec::new(); partitions as usize]);
        let last = (u64::MAX, 4 << 20, vec![], count);
        for (max_rows, block_bytes, crashes, grown) in runs.into_iter().chain([last]) {
            // The file may have grown meanwhile, but never shrinks.
            let size = fs::metadata(dump.path()).unwrap().len();
            let text = HEADER.to_owned() + &rows[..usize::from(grown.min(count))].concat();
            if text.len() as u64 > size {
                fs::write(dump.path(), text).unwrap();
            }
            let options = CsvOptions { resume: highest.clone(), block_bytes, ..CsvOptions::new(partitions) };
            let mut reader = dump.open(options).unwrap();
            let mut crashes = crashes.into_iter();
            'run: while let Some(block) = reader.next_block(Some(max_rows)).unwrap() {
                // A byte per block says which partitions get their batch before the crash; 0x80: no crash here.
                let crash = crashes.next().filter(|crash| crash & 0x80 == 0);
                for partition in 0..partitions as usize {
                    if crash.is_none_or(|crash| crash >> partition & 1 == 1) && block.end > highest[partition] {
                        highest[partition] = block.end;
                        let values = values(&block.batches[partition].records);
                        stored[partition].extend(values.map(|value| String::from_utf8(value.to_vec()).unwrap()));
                    }
                }
                if crash.is_some() {
                    break 'run;
                }
            }
        }
        let mut got = Vec::new();
        for (partition, lines) in stored.iter().enumerate() {
            for ((series, _, metric), value) in cells(lines) {
                let (_, uuid) = series.rsplit_once("uuid=").unwrap();
                prop_assert_eq!(partition_for_key(uuid.as_bytes(), partitions) as usize, partition);
                prop_assert_eq!(&metric[1..], value.as_str());
                got.push(value.parse::<u8>().unwrap());
            }
        }
        got.sort_unstable();
        prop_assert_eq!(got, (0..count).collect::<Vec<_>>());
    }

    /// One block: the points are those of a plain pivot, the counters add up.
    #[test]
    fn given_any_rows_when_read_then_a_plain_pivot_of_them(
        rows in prop::collection::vec(any_row(), 0..60),
        max_rows in 1..80_u64,
    ) {
        let dump = Dump::new(HEADER.to_owned() + &rows.concat());
        let mut reader = dump.open(CsvOptions { rejects: Some(dump.rejects()), ..CsvOptions::new(2) }).unwrap();
        let mut plain = csv::ReaderBuilder::new();
        plain.flexible(true).has_headers(false);
        let rows: Vec<_> = rows.into_iter().filter(|row| row != "\r\n").collect();
        for part in rows.chunks(usize::try_from(max_rows).unwrap()) {
            let block = reader.next_block(Some(max_rows)).unwrap().unwrap();
            let mut model: HashMap<(String, String, String), String> = HashMap::new();
            let (mut missing, mut rejected, mut good) = (0, 0, 0);
            for row in part {
                let record = plain.from_reader(row.as_bytes()).into_records().next().unwrap().unwrap();
                if record.len() != 12 || row.contains("\"\"\"\",\"__name__") {
                    rejected += 1;
                } else if record[10] == *"2147483633" {
                    missing += 1;
                } else {
                    good += 1;
                    let text = |column: usize| record[column].to_owned();
                    model.insert((text(4), text(0), text(1)), text(10));
                }
            }
            let counts = &block.counts;
            prop_assert_eq!(counts.rows, part.len() as u64);
            prop_assert_eq!((counts.missing, counts.rejected_total()), (missing, rejected));
            prop_assert_eq!((counts.samples, counts.samples + counts.duplicates), (model.len() as u64, good));
            let got: HashMap<_, _> = cells(&lines(&block)).into_iter().map(|((series, time, metric), value)| {
                let uuid = series.rsplit_once("uuid=").unwrap().1.to_owned();
                let second = time[8..10].parse::<u64>().unwrap() - 20;
                ((uuid, format!("2025-07-18T20:42:{second:02}Z"), metric), value)
            }).collect();
            prop_assert_eq!(got, model);
            prop_assert_eq!(counts.points, block.batches.iter().map(|batch| u64::from(batch.count)).sum::<u64>());
        }
        prop_assert!(reader.next_block(None).unwrap().is_none());
        prop_assert_eq!(dump.reject_lines().len() as u64, reader.totals().rejected_total());
    }

    #[test]
    fn given_any_bytes_after_a_header_when_read_then_every_line_is_counted(
        bytes in prop::collection::vec(
            prop_oneof![3 => prop::sample::select(b"\",\n\r0aTZ:-=".to_vec()), 1 => any::<u8>()],
            0..300,
        ),
    ) {
        let dump = Dump::new([HEADER.as_bytes(), &bytes].concat());
        let mut reader = dump.reader();
        all_lines(&mut reader);
        let counts = reader.totals();
        let blank = |line: &&[u8]| matches!(*line, b"" | b"\r");
        let expected = bytes.split(|&byte| byte == b'\n').filter(|line| !blank(line)).count();
        prop_assert_eq!(counts.rows, expected as u64);
        let values = counts.samples + counts.duplicates;
        prop_assert_eq!(counts.rows, values + counts.missing + counts.rejected_total());
    }

    #[test]
    fn given_a_good_dump_with_damaged_bytes_when_read_then_the_counters_add_up(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut text = (0..30).map(|index| row(index % 3, index % 4, "UTIL", "1")).collect::<String>().into_bytes();
        for (index, byte) in damage {
            let at = index.index(text.len());
            text[at] = byte;
        }
        let dump = Dump::new([HEADER.as_bytes(), &text].concat());
        let mut reader = dump.reader();
        all_lines(&mut reader);
        let counts = reader.totals();
        prop_assert_eq!(counts.rows, counts.samples + counts.duplicates + counts.missing + counts.rejected_total());
    }
}
