//! What verify says of damaged folders, and what repair leaves of them: every whole frame, at the offset it had.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::broker::{Broker, BrokerOptions};
use broker_core::disk::{Disk, MemoryDisk};
use broker_core::error::{Code, Result};
use broker_core::inspect::{Dump, Dumped, Finding, Kind, Scope, repair, repair_on, verify, verify_on};
use broker_core::log::frame::Frame;
use broker_core::log::{Durability, Log, LogId, LogOptions};
use broker_core::queue::journal::{ENTRY_BYTES, Journal};
use broker_core::wire::record::put_record;
use proptest::prelude::*;

use support::{ID, TestDisk, entries, options, read_all};

const ROOT: &str = "/b";
const PARTITION: &str = "/b/t/partition-0";
const FRAMES: u64 = 40;
const RECORDS: u64 = 3;

fn open(disk: &Arc<dyn Disk>, durability: Durability) -> Result<Log> {
    let options = LogOptions { segment_bytes: 900, ..options(durability) };
    Log::open(disk.clone(), PathBuf::from(PARTITION), "t/0".into(), ID, options)
}

/// A topic of one partition with forty frames in several segments, and a group that has acked some of them.
fn write_folder(disk: &Arc<dyn Disk>, clean: bool) {
    let mut log = open(disk, Durability::Os).unwrap();
    for number in 0..FRAMES {
        let first = RECORDS * number;
        log.append(&entries(&[first, first + 1, first + 2]), 3, Some((9, number + 1)), number as i64).unwrap();
    }
    let (mut journal, _) = Journal::open(&**disk, &groups(), "g", ID, 0).unwrap();
    for start in [0, 10, 20, 30] {
        journal.acked(std::slice::from_ref(&(start..start + 5)));
    }
    journal.flush().unwrap();
    if clean {
        log.close(0).unwrap();
    }
    disk.replace(Path::new("/b/t/topic.json"), br#"{"format":1,"config":{"partitions":1},"version":1,"groups":{}}"#)
        .unwrap();
}

fn folder(clean: bool) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    write_folder(&disk, clean);
    disk
}

fn groups() -> PathBuf {
    Path::new(PARTITION).join("groups")
}

fn in_partition(name: &str) -> PathBuf {
    Path::new(PARTITION).join(name)
}

fn segments(disk: &dyn Disk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(PARTITION)).unwrap();
    names.iter().filter(|name| name.ends_with(".log")).map(|name| in_partition(name)).collect()
}

/// Every file under the root, by path.
fn files(disk: &dyn Disk) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![PathBuf::from(ROOT)]);
    while let Some(dir) = waiting.pop() {
        for name in disk.list(&dir).unwrap() {
            let path = dir.join(name);
            match disk.read(&path) {
                Ok(bytes) => drop(found.insert(path, bytes)),
                Err(_) => waiting.push(path),
            }
        }
    }
    found
}

fn verified(disk: &dyn Disk) -> Vec<Finding> {
    let before = files(disk);
    let findings = verify_on(disk, Path::new(ROOT), &Scope::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(files(disk), before, "verify changes nothing");
    findings
}

fn repaired(disk: &dyn Disk) -> Vec<Finding> {
    repair_on(disk, Path::new(ROOT), &Scope::default(), &mut |_, _| Ok(())).unwrap()
}

/// Repairs, and holds the promises that are the same for all damage.
fn repaired_for_good(disk: &dyn Disk) -> Vec<Finding> {
    let findings = repaired(disk);
    assert!(findings.iter().all(|finding| finding.mended), "{findings:#?}");
    assert_eq!(verified(disk), [], "nothing is left to be found");
    let before = files(disk);
    assert_eq!(repaired(disk), []);
    assert_eq!(files(disk), before, "a second repair changes nothing");
    findings
}

fn kinds(findings: &[Finding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

fn flip(disk: &dyn Disk, path: &Path, at: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_at(at, &mut byte).unwrap();
    file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
}

fn overwrite(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
}

fn all() -> Vec<(u64, u64)> {
    (0..FRAMES * RECORDS).map(|offset| (offset, offset)).collect()
}

/// All records but those of the offsets given.
fn all_but(lost: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    all().into_iter().filter(|(offset, _)| !lost.contains(offset)).collect()
}

fn read(disk: &Arc<dyn Disk>) -> Vec<(u64, u64)> {
    read_all(&mut open(disk, Durability::Os).unwrap(), 0).unwrap()
}

/// Frames of a file: position and bytes.
fn frames(disk: &dyn Disk, path: &Path) -> Vec<(u64, Vec<u8>)> {
    let bytes = disk.read(path).unwrap();
    let (mut found, mut at) = (Vec::new(), 40);
    while at < bytes.len() {
        let len = 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        found.push((at as u64, bytes[at..at + len].to_vec()));
        at += len;
    }
    found
}

#[test]
fn given_a_sound_folder_then_nothing_is_found_and_repair_changes_nothing() {
    for clean in [true, false] {
        let disk = folder(clean);
        assert!(segments(&*disk).len() > 2);
        let before = files(&*disk);
        assert_eq!(verified(&*disk), []);
        assert_eq!(repaired(&*disk), []);
        assert_eq!(files(&*disk), before);
    }
}

#[test]
fn given_any_flipped_bit_in_a_segment_then_it_is_found_there_and_repair_keeps_all_other_frames() {
    let sample = folder(true);
    for (index, path) in segments(&*sample).iter().enumerate().filter(|(index, _)| index % 2 == 1) {
        let in_file = frames(&*sample, path);
        for at in 0..sample.open(path).unwrap().len().unwrap() {
            let disk = folder(true);
            flip(&*disk, path, at);
            if at < 8 || (12..40).contains(&at) {
                let findings = repaired_for_good(&*disk);
                assert_eq!(kinds(&findings), [Kind::DamagedHeader], "byte {at} of segment {index}");
                assert_eq!(read(&disk), all(), "byte {at}: no record is touched");
                continue;
            }
            let findings = verified(&*disk);
            if (8..12).contains(&at) {
                // The format: it may as well be a newer one.
                assert_eq!(kinds(&findings), [Kind::NewerFormat]);
                continue;
            }
            let hit = in_file.iter().rfind(|(position, _)| *position <= at).unwrap();
            let header = *Frame::parse(hit.1.clone()).unwrap().header();
            assert_eq!(kinds(&findings), [Kind::DamagedFrames], "byte {at}");
            assert_eq!((findings[0].path.as_path(), findings[0].position), (path.as_path(), hit.0));
            let lost = findings[0].lost.clone().unwrap();
            assert_eq!(lost.start, header.base_offset);
            assert!(lost.end >= header.end_offset(), "byte {at}: {lost:?}");
            let damaged = disk.read(path).unwrap();
            repaired_for_good(&*disk);
            assert_eq!(read(&disk), all_but(header.base_offset..header.end_offset()), "byte {at}");
            let kept = path.with_file_name(format!("{}.damaged", path.file_name().unwrap().to_str().unwrap()));
            assert_eq!(disk.read(&kept).unwrap(), damaged, "the damaged original is kept");
        }
    }
}

#[test]
fn given_a_record_that_carries_a_frame_when_it_is_damaged_then_that_frame_is_not_taken_for_one_of_the_log() {
    let disk = folder(true);
    let mut log = open(&disk, Durability::Os).unwrap();
    let end = log.end();
    let mut later = *Frame::parse(frames(&*disk, &segments(&*disk)[1])[0].1.clone()).unwrap().header();
    (later.base_offset, later.skipped, later.append_ns) = (end + 1, 0, 1000);
    let carried = Frame::new(later, &entries(&[7, 7, 7]));
    let mut batch = Vec::new();
    put_record(&mut batch, carried.bytes(), Some(b"damaged key"), 0, &[]).unwrap();
    log.append(&batch, 1, None, 1000).unwrap();
    log.append(&entries(&[end + 1]), 1, None, 1000).unwrap();
    log.close(0).unwrap();
    let last = segments(&*disk).pop().unwrap();
    let at = disk.read(&last).unwrap().windows(11).position(|window| window == b"damaged key").unwrap();
    flip(&*disk, &last, at as u64);
    assert_eq!(repaired_for_good(&*disk)[0].lost, Some(end..end + 1));
    assert_eq!(read(&disk), [all(), vec![(end + 1, end + 1)]].concat());
}

#[test]
fn given_damage_at_the_end_of_a_clean_log_when_repaired_then_no_offset_is_given_again() {
    let disk = folder(true);
    let last = segments(&*disk).pop().unwrap();
    let len = disk.open(&last).unwrap().len().unwrap();
    flip(&*disk, &last, len - 1);
    let findings = repaired_for_good(&*disk);
    assert_eq!(kinds(&findings), [Kind::DamagedFrames]);
    assert_eq!(read(&disk), all_but(117..120));
    assert!(findings[0].lost.clone().unwrap().contains(&119));
    assert!(open(&disk, Durability::Fsync).unwrap().end() >= FRAMES * RECORDS);
}

#[test]
fn given_a_torn_tail_at_any_byte_then_repair_cuts_what_the_broker_would_cut() {
    let sample = folder(false);
    let path = segments(&*sample).pop().unwrap();
    let ends: Vec<u64> = frames(&*sample, &path).iter().map(|(at, bytes)| at + bytes.len() as u64).collect();
    for len in 0..*ends.last().unwrap() {
        let disk = folder(false);
        disk.open(&path).unwrap().set_len(len).unwrap();
        let by_broker = {
            let disk = folder(false);
            disk.open(&path).unwrap().set_len(len).unwrap();
            let mut log = open(&disk, Durability::Os).unwrap();
            (read_all(&mut log, 0).unwrap(), log.end())
        };
        let findings = repaired_for_good(&*disk);
        let expected: &[Kind] = if ends.contains(&len) || len == 40 { &[] } else { &[Kind::TornTail] };
        assert_eq!(kinds(&findings), expected, "cut at byte {len}");
        assert!(findings.iter().all(|finding| finding.lost.is_none()));
        let mut log = open(&disk, Durability::Os).unwrap();
        assert_eq!(read_all(&mut log, 0).unwrap(), by_broker.0, "cut at byte {len}");
        assert!(log.end() >= by_broker.1, "cut at byte {len}: no offset is given again");
        assert!(files(&*disk).keys().all(|path| !path.to_str().unwrap().contains("damaged")));
    }
}

#[test]
fn given_a_missing_segment_then_the_gap_is_told_and_reading_goes_on_behind_it() {
    let disk = folder(true);
    let paths = segments(&*disk);
    let lost = frames(&*disk, &paths[1])
        .iter()
        .map(|(_, bytes)| *Frame::parse(bytes.clone()).unwrap().header())
        .collect::<Vec<_>>();
    let lost = lost[0].base_offset..lost[lost.len() - 1].end_offset();
    disk.remove_file(&paths[1]).unwrap();
    let findings = repaired_for_good(&*disk);
    assert_eq!(kinds(&findings), [Kind::MissingSegment]);
    assert_eq!((&findings[0].path, findings[0].lost.clone()), (&paths[1], Some(lost.clone())));
    assert_eq!(read(&disk), all_but(lost));
}

#[test]
fn given_a_missing_last_segment_then_the_end_is_known_and_no_offset_is_given_again() {
    let disk = folder(true);
    let last = segments(&*disk).pop().unwrap();
    let first = Frame::parse(frames(&*disk, &last)[0].1.clone()).unwrap().header().base_offset;
    disk.remove_file(&last).unwrap();
    let findings = repaired_for_good(&*disk);
    assert_eq!(kinds(&findings), [Kind::MissingSegment]);
    assert_eq!((&findings[0].path, findings[0].lost.clone()), (&last, Some(first..120)));
    assert_eq!(read(&disk), all_but(first..120));
    assert_eq!(open(&disk, Durability::Os).unwrap().end(), 120);
    // What the broker makes of it first is mended, too.
    let disk = folder(true);
    disk.remove_file(&last).unwrap();
    open(&disk, Durability::Os).unwrap().append(&entries(&[120]), 1, None, 99).unwrap();
    assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::MissingSegment]);
    assert_eq!(read(&disk), [all_but(first..120), vec![(120, 120)]].concat());
}

#[test]
fn given_no_segment_at_all_then_the_end_is_known_and_no_offset_is_given_again() {
    for opened_before in [false, true] {
        let disk = folder(true);
        segments(&*disk).iter().for_each(|path| disk.remove_file(path).unwrap());
        if opened_before {
            open(&disk, Durability::Os).unwrap();
        }
        let findings = repaired_for_good(&*disk);
        assert_eq!(
            (kinds(&findings).as_slice(), findings[0].lost.clone()),
            ([Kind::MissingSegment].as_slice(), Some(0..120))
        );
        assert_eq!((read(&disk), open(&disk, Durability::Os).unwrap().end()), (vec![], 120));
    }
}

#[test]
fn given_a_segment_of_another_log_then_it_is_moved_aside() {
    let disk = folder(true);
    let other: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let dir = PathBuf::from("/other");
    let mut log = Log::open(other.clone(), dir.clone(), "o/0".into(), LogId([9; 16]), options(Durability::Os)).unwrap();
    log.append(&entries(&[1]), 1, None, 1).unwrap();
    let bytes = other.read(&dir.join("00000000000000000000.log")).unwrap();
    let stray = in_partition("00000000000000000999.log");
    disk.create(&stray).unwrap().write_at(0, &bytes).unwrap();
    assert_eq!(open(&disk, Durability::Os).err().unwrap().code(), Code::DataFormat);
    let findings = repaired_for_good(&*disk);
    assert_eq!((kinds(&findings).as_slice(), &findings[0].path), ([Kind::ForeignSegment].as_slice(), &stray));
    assert_eq!(read(&disk), all());
}

#[test]
fn given_a_renamed_segment_then_it_gets_its_name_back_and_nothing_is_lost() {
    for name in ["00000000000000000999.log", "copy of a segment.log"] {
        let disk = folder(true);
        disk.rename(&segments(&*disk)[1], &in_partition(name)).unwrap();
        assert!(kinds(&verified(&*disk)).contains(&Kind::ForeignSegment));
        assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::ForeignSegment]);
        assert_eq!(read(&disk), all());
    }
}

#[test]
fn given_a_copy_of_a_segment_then_it_is_moved_aside() {
    let disk = folder(true);
    let bytes = disk.read(&segments(&*disk)[1]).unwrap();
    disk.create(&in_partition("backup.log")).unwrap().write_at(0, &bytes).unwrap();
    assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::ForeignSegment]);
    assert_eq!(read(&disk), all());
}

#[test]
fn given_a_bad_state_then_it_is_rebuilt_and_no_offset_is_given_again() {
    let broken: [Option<&[u8]>; 4] = [Some(b""), Some(b"{"), Some(br#"{"format":1}"#), None];
    for bytes in broken {
        let disk = folder(true);
        let path = in_partition("state.json");
        match bytes {
            Some(bytes) => overwrite(&*disk, &path, bytes),
            None => disk.remove_file(&path).unwrap(),
        }
        let findings = repaired_for_good(&*disk);
        assert_eq!((kinds(&findings).as_slice(), &findings[0].path), ([Kind::UnreadableState].as_slice(), &path));
        let mut log = open(&disk, Durability::Os).unwrap();
        assert_eq!(log.id(), ID);
        assert!(log.end() > FRAMES * RECORDS, "the next record comes behind a gap");
        assert_eq!(read_all(&mut log, 0).unwrap(), all());
    }
}

#[test]
fn given_a_bad_state_and_a_damaged_tail_then_no_offset_is_given_again_whatever_the_durability() {
    let disk = folder(true);
    let last = segments(&*disk).pop().unwrap();
    let len = disk.open(&last).unwrap().len().unwrap();
    flip(&*disk, &last, len - 1);
    overwrite(&*disk, &in_partition("state.json"), b"?");
    repaired_for_good(&*disk);
    let mut log = open(&disk, Durability::Fsync).unwrap();
    assert!(log.end() >= FRAMES * RECORDS);
    assert_eq!(read_all(&mut log, 0).unwrap(), all_but(117..120));
}

#[test]
fn given_an_older_state_then_its_ceiling_is_raised() {
    let disk = folder(true);
    let path = in_partition("state.json");
    let text = String::from_utf8(disk.read(&path).unwrap()).unwrap();
    overwrite(&*disk, &path, text.replace("\"ceiling\":1048576", "\"ceiling\":5").as_bytes());
    assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::LowCeiling]);
    let mut log = open(&disk, Durability::Os).unwrap();
    assert!(log.end() > FRAMES * RECORDS);
    assert_eq!(read_all(&mut log, 0).unwrap(), all());
}

#[test]
fn given_bad_producers_then_they_are_moved_aside_and_the_consequence_is_said() {
    let disk = folder(true);
    let path = in_partition("producers.json");
    disk.replace(&path, b"[").unwrap();
    let findings = repaired_for_good(&*disk);
    assert_eq!(kinds(&findings), [Kind::UnreadableProducers]);
    assert!(findings[0].remedy.contains("a second time"), "{}", findings[0].remedy);
    assert_eq!(read(&disk), all());
}

#[test]
fn given_any_flipped_bit_in_a_journal_then_only_the_acks_of_its_entry_are_forgotten() {
    let sample = folder(true);
    let path = groups().join("g.acks");
    for at in (0..sample.open(&path).unwrap().len().unwrap()).filter(|at| !(8..12).contains(at)) {
        let disk = folder(true);
        flip(&*disk, &path, at);
        let findings = repaired_for_good(&*disk);
        assert_eq!(kinds(&findings), [Kind::DamagedJournal], "byte {at}");
        let (_, progress) = Journal::open(&*disk, &groups(), "g", ID, 0).unwrap();
        let hit = (at as usize).checked_sub(32).map(|at| at / ENTRY_BYTES);
        let acked = |offset: u64| {
            offset < progress.floor
                || offset < progress.next && !progress.open.iter().any(|open| open.range.contains(&offset))
        };
        for (index, start) in [0, 10, 20, 30].into_iter().enumerate() {
            assert_eq!(acked(start + 2), hit != Some(index + 1), "byte {at}, acks of {start}");
            assert!(!acked(start + 7), "byte {at}: nothing unacked is lost");
        }
    }
}

#[test]
fn given_a_journal_that_is_none_then_it_is_moved_aside_and_the_consequence_is_said() {
    let mut of_another_log = folder(true).read(&groups().join("g.acks")).unwrap();
    of_another_log[16..32].fill(3);
    let crc = crc32c::crc32c(&of_another_log[16..32]);
    of_another_log[12..16].copy_from_slice(&crc.to_le_bytes());
    for bytes in [vec![], b"not a journal".to_vec(), vec![0; 500], of_another_log] {
        let disk = folder(true);
        overwrite(&*disk, &groups().join("g.acks"), &bytes);
        let findings = repaired_for_good(&*disk);
        assert_eq!(kinds(&findings), [Kind::UnreadableJournal]);
        assert!(findings[0].remedy.contains("\"g\" gets every record"), "{}", findings[0].remedy);
    }
}

#[test]
fn given_a_torn_journal_after_an_unclean_end_then_its_last_entry_is_cut() {
    let disk = folder(false);
    let path = groups().join("g.acks");
    let len = disk.open(&path).unwrap().len().unwrap();
    disk.open(&path).unwrap().set_len(len - 5).unwrap();
    assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::TornTail]);
    assert_eq!(disk.open(&path).unwrap().len().unwrap(), len - ENTRY_BYTES as u64);
}

#[test]
fn given_files_of_a_newer_version_then_they_are_named_and_nothing_is_touched() {
    let journal = groups().join("g.acks");
    for path in [segments(&*folder(true))[1].clone(), journal] {
        let disk = folder(true);
        disk.open(&path).unwrap().write_at(8, &2u32.to_le_bytes()).unwrap();
        let before = files(&*disk);
        let findings = repaired(&*disk);
        assert_eq!(kinds(&findings), [Kind::NewerFormat]);
        assert!(!findings[0].mended && findings[0].remedy.contains("upgrade"));
        assert_eq!(files(&*disk), before);
    }
    for path in [in_partition("state.json"), PathBuf::from("/b/t/topic.json"), PathBuf::from("/b/broker.json")] {
        let disk = folder(true);
        let newer: &[u8] = br#"{"format":2,"log_id":"","ceiling":0,"boot_id":"","clean":true}"#;
        disk.replace(&path, newer).unwrap();
        assert_eq!(kinds(&repaired(&*disk)), [Kind::NewerFormat], "{}", path.display());
        assert_eq!(disk.read(&path).unwrap(), newer);
    }
}

#[test]
fn given_what_repair_cannot_know_then_it_says_what_a_person_has_to_do() {
    let disk = folder(true);
    overwrite(&*disk, Path::new("/b/t/topic.json"), b"{");
    let findings = repaired(&*disk);
    assert_eq!(kinds(&findings), [Kind::UnreadableTopic]);
    assert!(!findings[0].mended && findings[0].remedy.contains("backup"));
    let disk = folder(true);
    overwrite(&*disk, Path::new("/b/t/topic.json"), br#"{"format":1,"config":{"partitions":3}}"#);
    let findings = repaired(&*disk);
    assert_eq!(kinds(&findings), [Kind::MissingPartition, Kind::MissingPartition]);
    assert_eq!(findings[1].partition, Some(2));
    let disk = folder(true);
    disk.replace(Path::new("/b/broker.json"), b"").unwrap();
    assert_eq!(kinds(&repaired_for_good(&*disk)), [Kind::UnreadableBroker]);
}

#[test]
fn given_a_disk_that_runs_full_at_any_byte_when_repair_is_repeated_then_nothing_more_is_lost() {
    for room in (0..6000).step_by(97) {
        let system = Arc::new(TestDisk::default());
        let disk: Arc<dyn Disk> = system.clone();
        write_folder(&disk, true);
        let paths = segments(&*disk);
        flip(&*disk, &paths[1], 300);
        disk.remove_file(&paths[3]).unwrap();
        let expected = {
            let disk = folder(true);
            flip(&*disk, &paths[1], 300);
            disk.remove_file(&paths[3]).unwrap();
            repaired_for_good(&*disk);
            read(&disk)
        };
        system.leave_room(room);
        let stopped = repair_on(&*disk, Path::new(ROOT), &Scope::default(), &mut |_, _| Ok(()));
        system.make_room();
        if let Err(err) = stopped {
            assert_eq!(err.code(), Code::LogFull, "{err}");
            repaired_for_good(&*disk);
        }
        assert_eq!(verified(&*disk), []);
        assert_eq!(read(&disk), expected, "{room} bytes of room");
    }
}

#[test]
fn given_a_scope_then_only_that_part_is_looked_at() {
    let disk = folder(true);
    flip(&*disk, &segments(&*disk)[1], 100);
    let look = |topic: Option<&str>, partition| {
        let scope = Scope { topic: topic.map(str::to_owned), partition };
        verify_on(&*disk, Path::new(ROOT), &scope, &mut |_, _| Ok(()))
    };
    assert_eq!(look(Some("t"), Some(0)).unwrap().len(), 1);
    for (topic, partition) in [(Some("other"), None), (Some("t"), Some(7))] {
        assert_eq!(look(topic, partition).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn progress_ends_at_the_total_and_can_stop_the_work() {
    let disk = folder(true);
    let mut told = Vec::new();
    let mut note = |done, total| {
        told.push((done, total));
        Ok(())
    };
    verify_on(&*disk, Path::new(ROOT), &Scope::default(), &mut note).unwrap();
    let bytes: u64 = segments(&*disk).iter().map(|path| disk.open(path).unwrap().len().unwrap()).sum();
    let journal = disk.open(&groups().join("g.acks")).unwrap().len().unwrap();
    assert_eq!(told.last(), Some(&(bytes + journal, bytes + journal)));
    let mut stop = |_, _| Err(broker_core::error::Error::new(Code::Internal, "stop"));
    assert!(verify_on(&*disk, Path::new(ROOT), &Scope::default(), &mut stop).is_err());
}

#[test]
fn given_a_folder_in_use_or_of_something_else_then_it_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let scope = Scope::default();
    let err = verify(dir.path(), &scope, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!((err.code(), std::fs::read_dir(dir.path()).unwrap().count()), (Code::DataFormat, 0));
    let broker = Broker::open(dir.path(), BrokerOptions::default(), None).unwrap();
    assert_eq!(verify(dir.path(), &scope, &mut |_, _| Ok(())).unwrap_err().code(), Code::DataInUse);
    assert_eq!(repair(dir.path(), &scope, &mut |_, _| Ok(())).unwrap_err().code(), Code::DataInUse);
    broker.close(true).unwrap();
    assert_eq!(verify(dir.path(), &scope, &mut |_, _| Ok(())).unwrap(), []);
    assert_eq!(verify(&dir.path().join("gone"), &scope, &mut |_, _| Ok(())).unwrap_err().code(), Code::DataIo);
}

/// Offsets of the frames shown, and how often damage was.
fn dumped(disk: &Arc<dyn Disk>, offsets: std::ops::Range<u64>) -> (Vec<u64>, usize) {
    let mut dump = Dump::open_on(disk.clone(), Path::new(ROOT), "t", 0, offsets).unwrap();
    let (mut bases, mut holes) = (vec![], 0);
    while let Some(shown) = dump.next_dumped().unwrap() {
        match shown {
            Dumped::Frame { header, records, .. } => {
                let values: Vec<u64> = (header.base_offset..header.end_offset()).collect();
                assert_eq!(records, entries(&values));
                bases.push(header.base_offset);
            }
            Dumped::Hole { .. } => holes += 1,
        }
    }
    (bases, holes)
}

#[test]
fn dump_shows_the_frames_that_reach_into_the_range_and_damage_between_them() {
    let disk = folder(true);
    let every: Vec<u64> = (0..FRAMES).map(|number| RECORDS * number).collect();
    assert_eq!(dumped(&disk, 0..u64::MAX), (every.clone(), 0));
    assert_eq!(dumped(&disk, 4..10), (vec![3, 6, 9], 0));
    assert_eq!(dumped(&disk, 119..500), (vec![117], 0));
    let path = segments(&*disk)[1].clone();
    let hit = frames(&*disk, &path)[2].clone();
    flip(&*disk, &path, hit.0 + 70);
    let lost = Frame::parse(hit.1).unwrap().header().base_offset;
    let others = every.into_iter().filter(|&base| base != lost).collect();
    assert_eq!(dumped(&disk, 0..u64::MAX), (others, 1));
    for (topic, partition, code) in [("x", 0, Code::TopicNotFound), ("t", 1, Code::PartitionNotFound)] {
        let refused = Dump::open_on(disk.clone(), Path::new(ROOT), topic, partition, 0..1);
        assert_eq!(refused.err().unwrap().code(), code);
    }
}

#[derive(Debug, Clone)]
enum Harm {
    Overwrite(prop::sample::Index, prop::sample::Index, Vec<u8>),
    TakeOut(prop::sample::Index, prop::sample::Index, usize),
    PutIn(prop::sample::Index, prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
}

type Change<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    let bytes = || prop::collection::vec(any::<u8>(), 1..200);
    prop_oneof![
        4 => (index(), index(), bytes()).prop_map(|(file, at, bytes)| Harm::Overwrite(file, at, bytes)),
        2 => (index(), index(), 1..400usize).prop_map(|(file, at, len)| Harm::TakeOut(file, at, len)),
        2 => (index(), index(), bytes()).prop_map(|(file, at, bytes)| Harm::PutIn(file, at, bytes)),
        1 => (index(), index()).prop_map(|(file, at)| Harm::Cut(file, at)),
        1 => index().prop_map(Harm::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn given_any_damage_to_segments_then_repair_keeps_every_whole_frame(
        clean in any::<bool>(), harms in prop::collection::vec(harm(), 1..4),
    ) {
        let disk = folder(clean);
        let originals: Vec<(PathBuf, Vec<Vec<u8>>)> = segments(&*disk)
            .into_iter()
            .map(|path| (path.clone(), frames(&*disk, &path).into_iter().map(|(_, bytes)| bytes).collect()))
            .collect();
        for harm in &harms {
            let (file, change): (_, Change<'_>) = match harm {
                Harm::Remove(file) => (file, Box::new(Vec::clear)),
                Harm::Overwrite(file, at, new) => (file, Box::new(move |bytes| {
                    let at = 40 + at.index(bytes.len() - 40);
                    let end = bytes.len().min(at + new.len());
                    bytes[at..end].copy_from_slice(&new[..end - at]);
                })),
                Harm::TakeOut(file, at, len) => (file, Box::new(move |bytes| {
                    let at = 40 + at.index(bytes.len() - 40);
                    bytes.drain(at..bytes.len().min(at + len));
                })),
                Harm::PutIn(file, at, new) => (file, Box::new(move |bytes| {
                    let at = 40 + at.index(bytes.len() - 40);
                    bytes.splice(at..at, new.iter().copied());
                })),
                Harm::Cut(file, at) => (file, Box::new(move |bytes| bytes.truncate(40 + at.index(bytes.len() - 40)))),
            };
            let path = &originals[file.index(originals.len())].0;
            let Ok(mut bytes) = disk.read(path) else { continue };
            if bytes.len() <= 40 {
                continue;
            }
            change(&mut bytes);
            if bytes.is_empty() { disk.remove_file(path).unwrap() } else { overwrite(&*disk, path, &bytes) }
        }
        let mut expected = Vec::new();
        for (path, frames) in &originals {
            let bytes = disk.read(path).unwrap_or_default();
            for frame in frames {
                if bytes.windows(frame.len()).any(|window| window == frame) {
                    let header = *Frame::parse(frame.clone()).unwrap().header();
                    expected.extend((header.base_offset..header.end_offset()).map(|offset| (offset, offset)));
                }
            }
        }
        let findings = repaired(&*disk);
        prop_assert!(findings.iter().all(|finding| finding.mended), "{findings:#?}");
        prop_assert_eq!(verified(&*disk), []);
        prop_assert_eq!(repaired(&*disk), []);
        prop_assert_eq!(read(&disk), expected);
    }
}
