//! What a log makes of damaged files: torn tails are cut, other damage is told and never skipped.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]

mod support;

use std::sync::Arc;

use broker_core::disk::Disk;
use broker_core::error::Code;
use broker_core::log::frame::{Entries, FrameBody};
use broker_core::log::state::CEILING_STEP;
use broker_core::log::{Appended, Durability, LogOptions, Retention};

use support::{TestDisk, entries, open, options, read_all, segments};

fn disk() -> (Arc<TestDisk>, Arc<dyn Disk>) {
    let disk = Arc::new(TestDisk::default());
    (disk.clone(), disk)
}

/// Ten frames of three records; returns the file's length after each.
fn write_frames(disk: &Arc<dyn Disk>, durability: Durability) -> Vec<u64> {
    let mut log = open(disk, options(durability)).unwrap();
    let mut ends = vec![];
    for number in 0..10u64 {
        log.append(&entries(&[3 * number, 3 * number + 1, 3 * number + 2]), 3, None, 1).unwrap();
        ends.push(disk.open(segments(&**disk).last().unwrap()).unwrap().len().unwrap());
    }
    ends
}

#[test]
fn given_a_torn_tail_at_any_byte_when_opened_then_exactly_the_whole_frames_before_it_survive() {
    let (_, sample) = disk();
    let ends = write_frames(&sample, Durability::Os);
    for cut in 0..*ends.last().unwrap() {
        let (_, disk) = disk();
        write_frames(&disk, Durability::Os);
        disk.open(&segments(&*disk)[0]).unwrap().set_len(cut).unwrap();
        let mut log = open(&disk, options(Durability::Os)).unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count() as u64;
        let kept = read_all(&mut log, 0).unwrap();
        assert_eq!(kept, (0..3 * whole).map(|value| (value, value)).collect::<Vec<_>>(), "cut at byte {cut}");
        // The log goes on, and what follows is found again.
        let Appended::At { base } = log.append(&entries(&[77]), 1, None, 2).unwrap() else { panic!() };
        assert_eq!(read_all(&mut log, base).unwrap(), [(base, 77)]);
        drop(log);
        assert_eq!(read_all(&mut open(&disk, options(Durability::Os)).unwrap(), base).unwrap(), [(base, 77)]);
    }
}

#[test]
fn given_a_torn_tail_then_the_cut_bytes_are_counted() {
    let (_, disk) = disk();
    let ends = write_frames(&disk, Durability::Os);
    disk.open(&segments(&*disk)[0]).unwrap().set_len(ends[8] + 10).unwrap();
    assert_eq!(open(&disk, options(Durability::Os)).unwrap().recovered_cut_bytes(), 10);
}

#[test]
fn given_the_system_went_down_when_the_tail_is_damaged_then_it_is_cut_and_no_offset_is_given_again() {
    let (system, disk) = disk();
    let ends = write_frames(&disk, Durability::Os);
    // Pages reach the disk in any order: the fourth frame is lost, later ones are whole.
    disk.open(&segments(&*disk)[0]).unwrap().write_at(ends[2] + 30, &[0xEE; 8]).unwrap();
    system.reboot();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(read_all(&mut log, 0).unwrap().len(), 9);
    let Appended::At { base } = log.append(&entries(&[1]), 1, None, 2).unwrap() else { panic!() };
    assert_eq!(base, CEILING_STEP, "offsets 9 to 29 may have been seen and are not given again");
    let frame = log.frame_at(base).unwrap().unwrap();
    assert_eq!(frame.header().skipped, CEILING_STEP - 9);
}

#[test]
fn given_the_system_stayed_up_when_whole_frames_follow_damage_then_it_is_told_and_nothing_is_cut() {
    let (_, disk) = disk();
    let ends = write_frames(&disk, Durability::Os);
    let path = segments(&*disk)[0].clone();
    disk.open(&path).unwrap().write_at(ends[2] + 30, &[0xEE; 8]).unwrap();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(disk.open(&path).unwrap().len().unwrap(), ends[9], "nothing is cut");
    let err = read_all(&mut log, 0).unwrap_err();
    assert_eq!(err.code(), Code::LogCorrupt);
    assert!(err.message().contains(&format!("{}: damaged at byte {} (offset 9)", path.display(), ends[2])), "{err}");
    // Writing goes on behind every offset that may have been lost, in a new segment, and is read from there.
    let Appended::At { base } = log.append(&entries(&[5]), 1, None, 2).unwrap() else { panic!() };
    assert!(base >= CEILING_STEP);
    assert_eq!(read_all(&mut log, base).unwrap(), [(base, 5)]);
    assert_eq!(segments(&*disk).len(), 2);
    drop(log);
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(read_all(&mut log, 0).unwrap_err().code(), Code::LogCorrupt);
    assert_eq!(read_all(&mut log, base).unwrap(), [(base, 5)]);
}

#[test]
fn given_a_clean_stop_when_any_byte_of_a_frame_is_flipped_then_reading_it_fails_with_its_place() {
    for at in 40..400 {
        let (_, disk) = disk();
        write_frames(&disk, Durability::Os);
        open(&disk, options(Durability::Os)).unwrap().close(0).unwrap();
        let mut log = open(&disk, options(Durability::Os)).unwrap();
        log.append(&entries(&[9]), 1, None, 1).unwrap();
        log.close(0).unwrap();
        let file = disk.open(&segments(&*disk)[0]).unwrap();
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
        let mut log = open(&disk, options(Durability::Os)).unwrap();
        let err = read_all(&mut log, 0).expect_err(&format!("byte {at}"));
        assert_eq!(err.code(), Code::LogCorrupt, "byte {at}");
    }
}

#[test]
fn given_a_memory_log_when_the_process_dies_then_numbering_goes_on_at_the_ceiling() {
    let (_, disk) = disk();
    let mut log = open(&disk, options(Durability::Memory)).unwrap();
    log.append(&entries(&[1, 2, 3]), 3, None, 1).unwrap();
    drop(log);
    let mut log = open(&disk, options(Durability::Memory)).unwrap();
    assert_eq!(read_all(&mut log, 0).unwrap(), []);
    assert_eq!(log.append(&entries(&[4]), 1, None, 1).unwrap(), Appended::At { base: CEILING_STEP });
    log.close(0).unwrap();
    let mut log = open(&disk, options(Durability::Memory)).unwrap();
    assert_eq!(read_all(&mut log, 0).unwrap(), [(CEILING_STEP, 4)]);
}

#[test]
fn given_a_full_disk_then_the_append_can_be_repeated_once_there_is_room() {
    let (system, disk) = disk();
    system.refuse_to_reserve();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    log.append(&entries(&[1]), 1, None, 1).unwrap();
    for room in 0..60 {
        system.leave_room(room);
        let err = log.append(&entries(&[2, 3]), 2, None, 1).unwrap_err();
        assert_eq!((err.code(), err.retry_after()), (Code::LogFull, Some(1000)), "{room} bytes of room: {err}");
    }
    system.make_room();
    assert_eq!(log.append(&entries(&[2, 3]), 2, None, 1).unwrap(), Appended::At { base: 1 });
    assert_eq!(read_all(&mut log, 0).unwrap(), [(0, 1), (1, 2), (2, 3)]);
    drop(log);
    assert_eq!(read_all(&mut open(&disk, options(Durability::Os)).unwrap(), 0).unwrap().len(), 3);
}

#[test]
fn given_a_full_disk_then_a_body_is_given_back_and_can_be_appended_once_there_is_room() {
    for durability in [Durability::Os, Durability::Fsync, Durability::Memory] {
        let (system, disk) = disk();
        system.refuse_to_reserve();
        let mut log = open(&disk, options(durability)).unwrap();
        log.append(&entries(&[1]), 1, None, 1).unwrap();
        // More room in front than a frame's header needs, as a producer's buffer has it for what stands there on the wire.
        let mut body = FrameBody::with_room(100, 0);
        body.end().extend_from_slice(&entries(&[2, 3]));
        if durability != Durability::Memory {
            system.leave_room(10);
            let err = log.append_entries(Entries::Body(&mut body), 2, Some((7, 1)), 1).unwrap_err();
            assert_eq!(err.code(), Code::LogFull, "{err}");
            assert_eq!(body.records(), entries(&[2, 3]));
            assert_eq!(body.behind(b"head").unwrap(), [b"head".as_slice(), &entries(&[2, 3])].concat());
            system.make_room();
        }
        let appended = log.append_entries(Entries::Body(&mut body), 2, Some((7, 1)), 1).unwrap();
        assert_eq!(appended, Appended::At { base: 1 });
        assert!(body.records().is_empty() && body.behind(b"head").is_none(), "it is the log's now");
        assert_eq!(read_all(&mut log, 0).unwrap(), [(0, 1), (1, 2), (2, 3)]);

        let mut again = FrameBody::with_room(0, 0);
        again.end().extend_from_slice(&entries(&[2, 3]));
        let appended = log.append_entries(Entries::Body(&mut again), 2, Some((7, 1)), 1).unwrap();
        assert_eq!(appended, Appended::Duplicate);
        assert_eq!(again.records(), entries(&[2, 3]), "a duplicate takes nothing");
        log.close(0).unwrap();
        assert_eq!(read_all(&mut open(&disk, options(durability)).unwrap(), 0).unwrap().len(), 3);
    }
}

#[test]
fn damage_to_what_was_synced_does_not_take_along_what_is_written_behind_it() {
    let (_, disk) = disk();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    for value in 0..3 {
        log.append(&entries(&[value]), 1, None, 1).unwrap();
    }
    log.close(0).unwrap();
    let file = disk.open(&segments(&*disk)[0]).unwrap();
    file.write_at(file.len().unwrap() - 1, &[0xEE]).unwrap();

    // After a clean end nothing is verified, so nobody knows yet.
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(log.append(&entries(&[3]), 1, None, 1).unwrap(), Appended::At { base: 3 });
    drop(log);
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(log.frame_at(2).unwrap_err().code(), Code::LogCorrupt, "the loss is told");
    assert_eq!(read_all(&mut log, 3).unwrap(), [(3, 3)], "and this one was never damaged");
}

#[test]
fn deleted_segments_hold_their_space_until_they_are_taken() {
    let (_, disk) = disk();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    while segments(&*disk).len() < 3 {
        log.append(&entries(&[1; 5]), 5, None, 1).unwrap();
    }
    let (bytes, oldest) = (log.bytes(), segments(&*disk)[0].clone());
    let rule = Retention { below: log.end(), appended_before_ns: 0, max_bytes: bytes - 1 };
    assert_eq!(log.retain(&rule).unwrap(), 1);
    assert!(disk.open(&oldest).is_err(), "its name is gone");
    let removed = log.take_removed();
    assert_eq!(removed.iter().map(broker_core::log::segment::Segment::path).collect::<Vec<_>>(), [oldest]);
    assert!(log.take_removed().is_empty());
}

#[test]
fn given_a_full_disk_then_what_waits_for_a_sync_keeps_its_room() {
    let (system, disk) = disk();
    let options = LogOptions { segment_bytes: 1 << 20, ..options(Durability::Fsync) };
    let mut log = open(&disk, options).unwrap();
    system.leave_room(100_000);
    log.append(&entries(&[1]), 1, None, 1).unwrap();
    system.leave_room(0);
    let err = log.append(&entries(&[2; 20_000]), 20_000, None, 1).unwrap_err();
    assert_eq!(err.code(), Code::LogFull, "{err}");
    system.leave_room(0);
    let plan = log.sync_plan().unwrap();
    let outcome = plan.run();
    log.finish_sync(&plan, outcome).unwrap();
    assert_eq!(read_all(&mut log, 0).unwrap(), [(0, 1)]);
}

#[test]
fn given_a_write_that_fails_while_others_wait_for_a_sync_then_what_is_safe_is_read_on() {
    let (system, disk) = disk();
    let options = LogOptions { segment_bytes: 1 << 20, ..options(Durability::Fsync) };
    let mut log = open(&disk, options).unwrap();
    for value in 0..30 {
        log.append(&entries(&[value]), 1, None, 1).unwrap();
    }
    let plan = log.sync_plan().unwrap();
    let outcome = plan.run();
    log.finish_sync(&plan, outcome).unwrap();
    log.append(&entries(&[30]), 1, None, 1).unwrap();
    system.fail_writes(true);
    // So far back that it is not in memory any more.
    assert_eq!(log.frame_at(0).unwrap().unwrap().header().base_offset, 0);
    assert_eq!(log.sync_plan().map(drop).unwrap_err().code(), Code::LogPoisoned);
    assert_eq!(log.frame_at(0).unwrap().unwrap().header().base_offset, 0);
    system.fail_writes(false);
    let err = log.sync_plan().map(drop).unwrap_err();
    assert_eq!(err.code(), Code::LogPoisoned, "what failed once is not tried again: {err}");
}

#[test]
fn given_a_log_that_is_closed_then_it_keeps_no_space_that_it_does_not_need() {
    for durability in [Durability::Memory, Durability::Os, Durability::Fsync] {
        let (system, disk) = disk();
        let mut log = open(&disk, options(durability)).unwrap();
        system.leave_room(1 << 20);
        log.append(&entries(&[1]), 1, None, 1).unwrap();
        log.close(0).unwrap();
        let used = (1 << 20) - system.room();
        assert!(used < 1000, "{durability:?}: {used} bytes for one record");
    }
}

#[test]
fn given_an_fsync_that_fails_then_the_log_is_poisoned_until_it_is_opened_again() {
    let (system, disk) = disk();
    let mut log = open(&disk, options(Durability::Fsync)).unwrap();
    log.append(&entries(&[1]), 1, None, 1).unwrap();
    system.fail_syncs(true);
    let plan = log.sync_plan().unwrap();
    let outcome = plan.run();
    assert_eq!(log.finish_sync(&plan, outcome).unwrap_err().code(), Code::LogPoisoned);
    assert_eq!(log.visible_end(), 0, "an unsynced record is shown to nobody");
    system.fail_syncs(false);
    let err = log.append(&entries(&[2]), 1, None, 1).unwrap_err();
    assert_eq!(err.code(), Code::LogPoisoned);
    assert!(err.message().contains("injected: the device lost a write"), "{err}");
    drop(log);
    let mut log = open(&disk, options(Durability::Fsync)).unwrap();
    log.append(&entries(&[2]), 1, None, 1).unwrap();
}

#[test]
fn given_a_newer_format_then_the_log_is_refused_with_the_remedy() {
    let (_, disk) = disk();
    write_frames(&disk, Durability::Os);
    disk.open(&segments(&*disk)[0]).unwrap().write_at(8, &2u32.to_le_bytes()).unwrap();
    let err = open(&disk, options(Durability::Os)).err().unwrap();
    assert_eq!(err.code(), Code::DataFormat);
    assert!(err.message().contains("format 2") && err.message().contains("upgrade"), "{err}");
}

#[test]
fn given_another_logs_segment_then_it_is_refused() {
    let (_, disk) = disk();
    write_frames(&disk, Durability::Os);
    let path = segments(&*disk)[0].clone();
    disk.rename(&path, &path.with_file_name("00000000000000000005.log")).unwrap();
    assert_eq!(open(&disk, options(Durability::Os)).err().unwrap().code(), Code::DataFormat);
}

#[test]
fn given_a_clean_stop_when_the_last_segments_are_gone_then_it_is_told_and_no_offset_is_given_again() {
    type Lose = fn(&Arc<dyn Disk>);
    let lose: [(&str, Lose); 3] = [
        ("the last", |disk| disk.remove_file(segments(&**disk).last().unwrap()).unwrap()),
        ("all", |disk| segments(&**disk).iter().for_each(|path| disk.remove_file(path).unwrap())),
        ("the last frame", |disk| {
            let file = disk.open(segments(&**disk).last().unwrap()).unwrap();
            let frame = 60 + entries(&[0, 0, 0]).len() as u64;
            file.set_len(file.len().unwrap() - frame).unwrap();
        }),
    ];
    for (what, lose) in lose {
        let (_, disk) = disk();
        let mut log = open(&disk, options(Durability::Os)).unwrap();
        for number in 0..30u64 {
            log.append(&entries(&[3 * number, 3 * number + 1, 3 * number + 2]), 3, None, 1).unwrap();
        }
        assert!(segments(&*disk).len() > 1);
        log.close(0).unwrap();
        lose(&disk);
        let mut log = open(&disk, options(Durability::Os)).unwrap();
        assert_eq!(log.end(), 90, "{what}");
        assert_eq!(log.frame_at(89).unwrap_err().code(), Code::LogCorrupt, "{what}");
        assert_eq!(log.append(&entries(&[7]), 1, None, 2).unwrap(), Appended::At { base: 90 }, "{what}");
        for clean in [false, true] {
            if clean {
                log.close(0).unwrap();
            }
            log = open(&disk, options(Durability::Os)).unwrap();
            assert_eq!(log.frame_at(89).unwrap_err().code(), Code::LogCorrupt, "{what}, again");
            assert_eq!(read_all(&mut log, 90).unwrap(), [(90, 7)], "{what}");
        }
    }
}

#[test]
fn given_a_kill_when_what_an_earlier_life_closed_is_gone_then_it_is_told() {
    let (_, disk) = disk();
    write_frames(&disk, Durability::Os);
    open(&disk, options(Durability::Os)).unwrap().close(0).unwrap();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    log.append(&entries(&[30]), 1, None, 1).unwrap();
    drop(log);
    disk.remove_file(&segments(&*disk)[0]).unwrap();
    let mut log = open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(log.frame_at(0).unwrap_err().code(), Code::LogCorrupt);
    let Appended::At { base } = log.append(&entries(&[5]), 1, None, 2).unwrap() else { panic!() };
    assert_eq!(base, CEILING_STEP, "offset 30 was given, too");
}
