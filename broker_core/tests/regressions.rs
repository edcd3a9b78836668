//! Faults that were found once, each by the way it showed.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::single_range_in_vec_init,
    reason = "a test says what is wrong by failing"
)]

mod support;
use broker_core::broker::{Bounds, Broker, BrokerOptions, Receive};
use broker_core::clock::ManualClock;
use broker_core::disk::{Disk, File, MemoryDisk};
use broker_core::error::{Code, Error};
use broker_core::log::producers::{IDLE_NS, MAX_PRODUCERS};
use broker_core::log::{Appended, Durability, LogOptions, Retention};
use broker_core::queue::journal::Journal;
use broker_core::queue::{Given, MAX_IN_FLIGHT, Mode, Progress, Queue};
use broker_core::wire::v1;
use prost::Message;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{TestDisk, entries, options, read_all, segments};

fn call<M: Message + Default>(broker: &Broker, method: &str, request: &impl Message) -> Result<M, Error> {
    Ok(M::decode(broker.call(method, &request.encode_to_vec())?.as_slice()).unwrap())
}
fn try_create(broker: &Broker, name: &str, partitions: u32, durability: v1::Durability) -> Result<(), Error> {
    let config = v1::TopicConfig { partitions: Some(partitions), durability: durability.into(), ..Default::default() };
    call::<v1::CreateTopicResponse>(
        broker,
        "CreateTopic",
        &v1::CreateTopicRequest { name: name.into(), config: Some(config), ..Default::default() },
    )
    .map(drop)
}
fn create(b: &Broker, n: &str, p: u32, d: v1::Durability) {
    try_create(b, n, p, d).unwrap()
}
fn produce_as(
    b: &Broker,
    t: &str,
    p: Option<u32>,
    producer: &str,
    sequence: u64,
    values: &[&str],
) -> Result<v1::ProduceResponse, Error> {
    let records = values.iter().map(|v| v1::Record { value: v.as_bytes().to_vec(), ..Default::default() }).collect();
    call(
        b,
        "Produce",
        &v1::ProduceRequest {
            topic: t.into(),
            partition: p,
            producer: producer.into(),
            sequence,
            records,
            ..Default::default()
        },
    )
}
fn produce(b: &Broker, t: &str, values: &[&str]) {
    produce_as(b, t, Some(0), "", 0, values).unwrap();
}
fn wish(t: &str, g: &str) -> v1::ReceiveRequest {
    v1::ReceiveRequest { topic: t.into(), group: g.into(), consumer: "c".into(), ..Default::default() }
}
fn receive(b: &Broker, w: &v1::ReceiveRequest) -> Vec<v1::Delivery> {
    call::<v1::ReceiveResponse>(b, "Receive", w).unwrap().deliveries
}
fn values(d: &[v1::Delivery]) -> Vec<String> {
    d.iter().flat_map(|d| d.records.iter().map(|r| String::from_utf8(r.value.clone()).unwrap())).collect()
}
fn lease(d: &v1::Delivery) -> Vec<v1::LeaseRange> {
    vec![v1::LeaseRange { lease_id: d.lease_id.clone(), ranges: vec![] }]
}
fn ack(b: &Broker, d: &v1::Delivery, g: &str) -> Result<v1::AckResponse, Error> {
    call(b, "Ack", &v1::AckRequest { topic: d.topic.clone(), group: g.into(), leases: lease(d) })
}
fn on(disk: &Arc<dyn Disk>) -> Broker {
    Broker::open_on(disk.clone(), Path::new("/b"), BrokerOptions::default(), Arc::new(ManualClock::new(1))).unwrap()
}
fn disk() -> (Arc<TestDisk>, Arc<dyn Disk>) {
    let d = Arc::new(TestDisk::default());
    (d.clone(), d)
}

#[test]
fn a_batch_that_recovery_cut_is_not_answered_as_a_duplicate() {
    for durability in [Durability::Os, Durability::Fsync] {
        let (system, disk) = disk();
        let mut log = support::open(&disk, options(durability)).unwrap();
        log.append(&entries(&[1]), 1, Some((5, 1)), 1).unwrap();
        log.sync_plan().unwrap(); // writes what `fsync` defers
        let file = disk.open(&segments(&*disk)[0]).unwrap();
        let whole = file.len().unwrap();
        log.append(&entries(&[2]), 1, Some((5, 2)), 1).unwrap();
        log.sync_plan().unwrap();
        drop(log);
        // power cut: the size and the header reached the disk, the records did not
        file.write_at(whole + 62, &[0; 6]).unwrap();
        system.reboot();
        let mut log = support::open(&disk, options(durability)).unwrap();
        assert_eq!(read_all(&mut log, 0).unwrap().len(), 1, "cut");
        let again = log.append(&entries(&[2]), 1, Some((5, 2)), 1).unwrap();
        assert!(matches!(again, Appended::At { .. }), "{durability:?}: {again:?}");
    }
}
#[test]
fn after_a_gap_that_an_empty_frame_ends_records_are_delivered() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Memory);
    produce(&b, "t", &["a"]);
    let d = receive(&b, &wish("t", "g"));
    ack(&b, &d[0], "g").unwrap();
    b.close(true).unwrap();
    let b = on(&disk);
    produce(&b, "t", &["b", "c"]);
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["b", "c"]);
    assert_eq!(values(&receive(&b, &wish("t", "other"))), ["b", "c"]);
}
#[test]
fn after_a_reboot_records_behind_an_empty_batch_are_delivered() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce_as(&b, "t", Some(0), "p", 1, &["a"]).unwrap();
    let d = receive(&b, &wish("t", "g"));
    ack(&b, &d[0], "g").unwrap();
    b.close(false).unwrap();
    system.reboot();
    let b = on(&disk);
    produce_as(&b, "t", Some(0), "p", 2, &[]).unwrap(); // a streamer's block without rows for this partition
    produce_as(&b, "t", Some(0), "p", 3, &["b"]).unwrap();
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["b"]);
}
#[test]
fn dead_letters_with_a_long_reason_survive_a_restart() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    let v: Vec<&str> = (0..3000).map(|_| "x").collect();
    produce(&b, "t", &v);
    let d = receive(&b, &v1::ReceiveRequest { max_records: 3000, ..wish("t", "g") });
    let n = v1::NackRequest {
        topic: "t".into(),
        group: "g".into(),
        leases: lease(&d[0]),
        dead_letter: true,
        reason: "r".repeat(4096),
        ..Default::default()
    };
    assert_eq!(call::<v1::NackResponse>(&b, "Nack", &n).unwrap().nacked, 3000);
    b.close(true).unwrap();
    let b = on(&disk);
    let mut seen = 0;
    loop {
        let d = call::<v1::ReceiveResponse>(
            &b,
            "Receive",
            &v1::ReceiveRequest { max_records: 65536, max_bytes: 8 << 20, ..wish("t.dlq", "g") },
        )
        .unwrap()
        .deliveries;
        if d.is_empty() {
            break;
        }
        seen += d[0].records.len();
    }
    assert_eq!(seen, 3000);
}
#[test]
fn a_full_disk_does_not_cut_a_damaged_segment_nor_give_offsets_again() {
    for room in 0..400 {
        let (system, disk) = disk();
        let mut log = support::open(&disk, options(Durability::Os)).unwrap();
        let mut ends = vec![];
        for n in 0..10u64 {
            log.append(&entries(&[3 * n, 3 * n + 1, 3 * n + 2]), 3, None, 1).unwrap();
            ends.push(disk.open(&segments(&*disk)[0]).unwrap().len().unwrap());
        }
        drop(log);
        let file = disk.open(&segments(&*disk)[0]).unwrap();
        file.write_at(ends[2] + 30, &[0xEE; 8]).unwrap();
        let mut log = support::open(&disk, options(Durability::Os)).unwrap();
        let before = file.len().unwrap();
        assert!(log.frame_at(9).is_err());
        system.leave_room(room);
        log.append(&entries(&[1; 60]), 60, None, 2).unwrap_err();
        system.make_room();
        drop(log);
        assert_eq!(file.len().unwrap(), before, "room {room}: frames behind the damage are kept");
        let log = support::open(&disk, options(Durability::Os)).unwrap();
        assert!(log.end() >= 30, "offsets would be given again: end {}", log.end());
    }
}
#[test]
fn a_roll_that_failed_leaves_no_damage_behind() {
    let (system, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    while disk.open(&segments(&*disk).last().map_or("/none".into(), |p| p.clone())).map_or(0, |f| f.len().unwrap())
        < 1900
    {
        log.append(&entries(&[1; 5]), 5, None, 1).unwrap();
    }
    let end = log.end();
    system.leave_room(10);
    let err = log.append(&entries(&[1; 20]), 20, None, 1).unwrap_err();
    assert_eq!(err.code(), Code::LogFull);
    system.make_room();
    log.close(0).unwrap();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    assert_eq!((log.end(), log.frame_at(end).map(|f| f.is_none())), (end, Ok(true)));
}
#[test]
fn a_topic_whose_making_was_interrupted_can_be_made_again() {
    let (system, disk) = disk();
    let b = on(&disk);
    system.leave_room(300);
    assert!(try_create(&b, "t", 4, v1::Durability::Os).is_err());
    system.make_room();
    b.close(false).unwrap();
    let b = on(&disk);
    try_create(&b, "t", 4, v1::Durability::Os).unwrap();
}
#[test]
fn a_lease_of_a_deleted_group_acks_nothing_of_the_new_one() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a", "b"]);
    let old = receive(&b, &wish("t", "g"));
    call::<v1::DeleteGroupResponse>(
        &b,
        "DeleteGroup",
        &v1::DeleteGroupRequest { topic: "t".into(), group: "g".into() },
    )
    .unwrap();
    let new = receive(&b, &v1::ReceiveRequest { consumer: "d".into(), ..wish("t", "g") });
    assert_eq!(values(&new), ["a", "b"]);
    let answer = ack(&b, &old[0], "g").unwrap();
    assert_eq!((answer.acked, answer.stale.len()), (0, 1));
}
#[test]
fn a_lease_of_another_group_acks_nothing() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a", "b"]);
    let one = receive(&b, &wish("t", "one"));
    let _two = receive(&b, &wish("t", "two"));
    assert_eq!(ack(&b, &one[0], "two").unwrap().acked, 0);
}
#[test]
fn records_stay_visible_when_a_topic_becomes_fsync() {
    for from in [v1::Durability::Memory, v1::Durability::Os] {
        let (_, disk) = disk();
        let b = on(&disk);
        create(&b, "t", 1, from);
        produce(&b, "t", &["a"]);
        let config = v1::TopicConfig { durability: v1::Durability::Fsync.into(), ..Default::default() };
        call::<v1::ConfigureTopicResponse>(
            &b,
            "ConfigureTopic",
            &v1::ConfigureTopicRequest { name: "t".into(), config: Some(config), ..Default::default() },
        )
        .unwrap();
        assert_eq!(values(&receive(&b, &wish("t", "g"))), ["a"], "{from:?}");
    }
}
#[test]
fn a_full_disk_is_log_full_also_for_the_first_append() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    system.leave_room(0);
    let err = produce_as(&b, "t", Some(0), "", 0, &["a"]).unwrap_err();
    assert_eq!((err.code(), err.retry_after().is_some()), (Code::LogFull, true), "{err}");
}
#[test]
fn a_full_disk_is_no_failure_for_those_who_wait_for_a_sync() {
    let (system, disk) = disk();
    let options = LogOptions { segment_bytes: 1 << 20, ..options(Durability::Fsync) };
    let mut log = support::open(&disk, options).unwrap();
    log.append(&entries(&[1]), 1, None, 1).unwrap(); // waits to be written with those that come
    system.leave_room(0);
    let mut large = Vec::new();
    broker_core::wire::record::put_record(&mut large, &[7; 400_000], None, 0, &[]).unwrap();
    let err = log.append(&large, 1, None, 1).unwrap_err();
    assert_eq!((err.code(), log.poisoned()), (Code::LogFull, None), "{err}");
    let plan = log.sync_plan().unwrap();
    let outcome = plan.run();
    log.finish_sync(&plan, outcome).unwrap();
    assert_eq!(log.visible_end(), 1);
    system.make_room();
    assert_eq!(log.append(&large, 1, None, 1).unwrap(), Appended::At { base: 1 });
}
#[test]
fn no_topic_name_keeps_the_folder_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let b = Broker::open(dir.path(), BrokerOptions::default(), None).unwrap();
    if try_create(&b, "broker.tmp", 1, v1::Durability::Os).is_err() {
        return;
    }
    b.close(true).unwrap();
    Broker::open(dir.path(), BrokerOptions::default(), None).map(drop).unwrap();
}
#[test]
fn a_group_cannot_begin_behind_the_end() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    let from = v1::Position { at: Some(v1::position::At::Offset(u64::MAX)), log_id: vec![] };
    let err = call::<v1::CreateGroupResponse>(
        &b,
        "CreateGroup",
        &v1::CreateGroupRequest { topic: "t".into(), group: "g".into(), from: Some(from), ..Default::default() },
    )
    .unwrap_err();
    assert_eq!(err.code(), Code::PositionOutOfRange);
    produce(&b, "t", &["a"]);
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["a"]);
}
#[test]
fn a_memory_log_writes_a_buffer_at_a_time() {
    let (_, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Memory)).unwrap();
    let size = || segments(&*disk).iter().map(|p| disk.open(p).unwrap().len().unwrap()).sum::<u64>();
    let (mut writes, mut last) = (0, 0);
    for n in 0..200u64 {
        if log.wants_flush() {
            log.flush(0).unwrap();
        }
        log.append(&entries(&[n]), 1, None, 1).unwrap();
        if size() != last {
            writes += 1;
            last = size();
        }
    }
    assert!(writes <= 12, "200 records, a buffer of 20: {writes} flushes");
}
#[test]
fn an_ordered_ack_stays_refused_however_often_the_records_were_given_again() {
    let mut q = Queue::new(Mode::Ordered, &Progress::default(), 1);
    let (a, bb): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    q.candidate(&a, 0, 10).unwrap();
    let old = q.grant(&a, 0..10, 1);
    for n in 1..=1002u64 {
        q.candidate(&bb, n, 10).unwrap();
        q.grant(&bb, 0..10, n + 1);
    }
    assert_eq!(q.ack(old, 0..10, 10).done, vec![]);
}
#[test]
fn a_shortened_lease_wakes_those_who_wait() {
    let clock = Arc::new(ManualClock::new(0));
    let b = Broker::in_memory(BrokerOptions::default(), Some(clock.clone())).unwrap();
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    let d = receive(&b, &wish("t", "g"));
    let s = b.wakeups().subscribe(Some("t".into())).unwrap();
    call::<v1::ExtendResponse>(
        &b,
        "Extend",
        &v1::ExtendRequest { topic: "t".into(), group: "g".into(), leases: lease(&d[0]), visibility_timeout_ms: 1000 },
    )
    .unwrap();
    assert!(!s.drain().is_empty());
}
#[test]
fn ordered_due_time_counts_the_delay_while_a_part_is_held() {
    let mut q = Queue::new(Mode::Ordered, &Progress::default(), 1);
    let a: Arc<str> = "a".into();
    q.candidate(&a, 0, 10).unwrap();
    let g = q.grant(&a, 0..10, 30_000);
    q.nack(g, 5..6, 1_000);
    assert_eq!(q.candidate(&a, 999, 10), None);
    assert_eq!(q.next_due_ns(), Some(1_000));
}

type OnRename = Box<dyn FnOnce(&Path) + Send>;

struct Hooked {
    disk: MemoryDisk,
    fail_sync_dir: Arc<AtomicBool>,
    on_rename: parking_lot::Mutex<Option<OnRename>>,
    sync_gate: Arc<parking_lot::Mutex<()>>,
    in_sync: Arc<AtomicBool>,
    log: Arc<parking_lot::Mutex<Vec<String>>>,
}
struct HookedFile(Arc<dyn File>, Arc<parking_lot::Mutex<()>>, Arc<AtomicBool>, bool);
impl File for HookedFile {
    fn read_at(&self, p: u64, b: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(p, b)
    }
    fn write_at(&self, p: u64, b: &[u8]) -> std::io::Result<()> {
        self.0.write_at(p, b)
    }
    fn set_len(&self, l: u64) -> std::io::Result<()> {
        self.0.set_len(l)
    }
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn sync(&self) -> std::io::Result<()> {
        if self.3 && !self.2.load(Ordering::SeqCst) {
            self.2.store(true, Ordering::SeqCst);
            drop(self.1.lock());
            return Err(std::io::Error::other("injected"));
        }
        self.0.sync()
    }
}
impl Hooked {
    fn new() -> Arc<Hooked> {
        Arc::new(Hooked {
            disk: MemoryDisk::default(),
            fail_sync_dir: Default::default(),
            on_rename: Default::default(),
            sync_gate: Default::default(),
            in_sync: Arc::new(AtomicBool::new(true)),
            log: Default::default(),
        })
    }
    fn wrap(&self, path: &Path, f: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(HookedFile(
            f,
            self.sync_gate.clone(),
            self.in_sync.clone(),
            path.extension().is_some_and(|e| e == "log"),
        ))
    }
}
impl Disk for Hooked {
    fn create_dir_all(&self, p: &Path) -> std::io::Result<()> {
        self.log.lock().push(format!("mkdir {}", p.display()));
        self.disk.create_dir_all(p)
    }
    fn open(&self, p: &Path) -> std::io::Result<Arc<dyn File>> {
        Ok(self.wrap(p, self.disk.open(p)?))
    }
    fn create(&self, p: &Path) -> std::io::Result<Arc<dyn File>> {
        Ok(self.wrap(p, self.disk.create(p)?))
    }
    fn rename(&self, a: &Path, b: &Path) -> std::io::Result<()> {
        self.disk.rename(a, b)?;
        let hook = self.on_rename.lock().take();
        if let Some(h) = hook {
            h(b)
        }
        Ok(())
    }
    fn remove_file(&self, p: &Path) -> std::io::Result<()> {
        self.disk.remove_file(p)
    }
    fn remove_dir_all(&self, p: &Path) -> std::io::Result<()> {
        self.disk.remove_dir_all(p)
    }
    fn list(&self, p: &Path) -> std::io::Result<Vec<String>> {
        self.disk.list(p)
    }
    fn sync_dir(&self, p: &Path) -> std::io::Result<()> {
        self.log.lock().push(format!("syncdir {}", p.display()));
        if self.fail_sync_dir.load(Ordering::SeqCst) && p.ends_with("groups") {
            return Err(std::io::Error::other("injected: EMFILE"));
        }
        self.disk.sync_dir(p)
    }
    fn free_bytes(&self, p: &Path) -> std::io::Result<u64> {
        self.disk.free_bytes(p)
    }
    fn boot_id(&self) -> String {
        "boot".into()
    }
}
#[test]
fn what_was_appended_before_another_partition_failed_wakes_its_consumers() {
    let (system, disk) = disk();
    system.refuse_to_reserve();
    let b = on(&disk);
    create(&b, "t", 2, v1::Durability::Os);
    for p in 0..2 {
        produce_as(&b, "t", Some(p), "", 0, &["warm"]).unwrap();
    }
    let s = b.wakeups().subscribe(Some("t".into())).unwrap();
    let records = (0..20u8).map(|k| v1::Record { key: Some(vec![k]), ..Default::default() }).collect();
    system.leave_room(150);
    let r = v1::ProduceRequest { topic: "t".into(), records, ..Default::default() };
    let err = call::<v1::ProduceResponse>(&b, "Produce", &r).unwrap_err();
    assert_eq!(err.code(), Code::LogFull);
    system.make_room();
    let woken = !s.drain().is_empty();
    let d = receive(&b, &v1::ReceiveRequest { max_deliveries: 4, ..wish("t", "g") });
    let new: usize = d.iter().map(|d| d.records.len()).sum::<usize>() - 2;
    assert!(new == 0 || woken, "{new} records, no wake-up");
}
#[test]
fn on_a_full_disk_acks_go_on_in_reserved_space_and_outlive_a_crash() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    let v: Vec<&str> = (0..5000).map(|_| "x").collect();
    produce(&b, "t", &v);
    let one = v1::ReceiveRequest { max_records: 1, ..wish("t", "g") };
    // A rewrite of the journal falls due in the middle, and fails.
    for n in 0..2100 {
        if n == 2000 {
            system.leave_room(0);
        }
        let d = receive(&b, &one);
        assert_eq!(ack(&b, &d[0], "g").map(|answer| answer.acked), Ok(1), "ack {n}");
    }
    b.close(false).unwrap();
    system.make_room();
    let b = on(&disk);
    assert_eq!(receive(&b, &one)[0].base_offset, 2100);
}
#[test]
fn a_close_waits_for_the_sync_that_runs() {
    let hooked = Hooked::new();
    let disk: Arc<dyn Disk> = hooked.clone();
    let b = Arc::new(on(&disk));
    create(&b, "t", 1, v1::Durability::Fsync);
    let gate = hooked.sync_gate.clone();
    let held = gate.lock();
    hooked.in_sync.store(false, Ordering::SeqCst);
    let producer = {
        let b = b.clone();
        std::thread::spawn(move || produce_as(&b, "t", Some(0), "", 0, &["a"]))
    };
    while !hooked.in_sync.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let (tx, rx) = std::sync::mpsc::channel();
    {
        let b = b.clone();
        std::thread::spawn(move || tx.send(b.close(true)));
    }
    // would hang here if close waits; then the gate opens
    let _ = rx.recv_timeout(std::time::Duration::from_secs(2));
    let state = String::from_utf8(disk.read(Path::new("/b/t/partition-0/state.json")).unwrap()).unwrap();
    drop(held);
    assert!(producer.join().unwrap().is_err());
    assert!(!(state.contains("\"clean\":true")), "clean was stored although the fsync then failed");
}
#[test]
fn the_groups_folder_itself_is_synced() {
    let hooked = Hooked::new();
    let disk: Arc<dyn Disk> = hooked.clone();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Fsync);
    produce(&b, "t", &["a"]);
    hooked.log.lock().clear();
    let d = receive(&b, &wish("t", "g"));
    ack(&b, &d[0], "g").unwrap();
    let log = hooked.log.lock().clone();
    assert!(log.contains(&"syncdir /b/t/partition-0".to_string()), "{log:?}");
}
#[test]
fn the_name_of_a_journal_is_on_the_disk_before_the_first_ack_of_a_life_is_answered() {
    let hooked = Hooked::new();
    let disk: Arc<dyn Disk> = hooked.clone();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Fsync);
    produce(&b, "t", &["a", "b"]);
    receive(&b, &wish("t", "g"));
    drop(b);
    // The life before may have ended between renaming a journal and syncing its folder.
    let b = on(&disk);
    hooked.log.lock().clear();
    let d = receive(&b, &wish("t", "g"));
    ack(&b, &d[0], "g").unwrap();
    let log = hooked.log.lock().clone();
    assert!(log.contains(&"syncdir /b/t/partition-0/groups".to_string()), "{log:?}");
}
#[test]
fn a_topic_that_is_being_deleted_leaves_nothing_for_the_next_of_its_name() {
    let hooked = Hooked::new();
    let disk: Arc<dyn Disk> = hooked.clone();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    let topic = b.topic("t").unwrap();
    // a consumer's first Receive that looked the topic up before: runs between the rename and the close
    *hooked.on_rename.lock() = Some(Box::new(move |to: &Path| {
        if to.to_string_lossy().contains(".deleted") {
            let _ = topic.ensure_group("g", None, &|_| Ok(None), 1, Code::GroupMode);
        }
    }));
    call::<v1::DeleteTopicResponse>(&b, "DeleteTopic", &v1::DeleteTopicRequest { name: "t".into() }).map(drop).unwrap();
    try_create(&b, "t", 1, v1::Durability::Os).unwrap();
}
#[test]
fn purge_that_fails_changes_nothing() {
    let mut bad = vec![];
    for room in 0..400 {
        let (system, disk) = disk();
        let mut log = support::open(&disk, options(Durability::Os)).unwrap();
        log.append(&entries(&[1, 2]), 2, None, 1).unwrap();
        system.leave_room(room);
        if log.purge().is_ok() {
            continue;
        }
        system.make_room();
        let n = read_all(&mut log, 0).unwrap().len();
        if n != 2 {
            bad.push((room, n, log.start(), log.end()))
        }
    }
    assert!(bad.is_empty(), "{} {:?}", bad.len(), bad.first());
}
#[test]
fn sequences_of_empty_batches_survive_a_roll() {
    let (_, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    for n in 1..=100u64 {
        log.append(&[], 0, Some((n % 50 + 1, n)), 1).unwrap();
    }
    drop(log);
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    let again = (1..=100u64)
        .rev()
        .take(50)
        .filter(|n| matches!(log.append(&[], 0, Some((n % 50 + 1, *n)), 1).unwrap(), Appended::At { .. }))
        .count();
    assert_eq!(again, 0, "batches taken as new");
}

#[test]
fn a_close_that_failed_is_not_told_as_done_the_second_time() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Memory);
    produce(&b, "t", &["a", "b"]);
    receive(&b, &wish("t", "g"));
    system.leave_room(0);
    assert!(b.close(true).is_err());
    system.make_room();
    let second = b.close(true);
    drop(b);
    let b = on(&disk);
    let d = receive(&b, &wish("t", "new"));
    assert!(second.is_err() || values(&d) == ["a", "b"], "told {second:?}, kept {:?}", values(&d));
}
#[test]
fn a_damaged_partition_is_told_while_another_one_flows() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 2, v1::Durability::Os);
    for p in 0..2 {
        for _ in 0..5 {
            produce_as(&b, "t", Some(p), "", 0, &["0123456789"]).unwrap();
        }
    }
    b.close(true).unwrap();
    disk.open(Path::new("/b/t/partition-0/00000000000000000000.log")).unwrap().write_at(40 + 65, &[0xEE; 2]).unwrap();
    let b = on(&disk);
    let mut told = 0;
    for _ in 0..200 {
        produce_as(&b, "t", Some(1), "", 0, &["x"]).unwrap();
        match call::<v1::ReceiveResponse>(&b, "Receive", &wish("t", "g")) {
            Err(_) => told += 1,
            Ok(r) => {
                for d in &r.deliveries {
                    ack(&b, d, "g").unwrap();
                }
            }
        }
    }
    assert!(told > 0, "200 receives, never told");
}
#[test]
fn what_waits_for_the_journal_of_a_memory_topic_is_bounded() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Memory);
    let v: Vec<&str> = (0..20000).map(|_| "x").collect();
    for _ in 0..3 {
        produce(&b, "t", &v);
    }
    for _ in 0..60000 {
        let d = receive(&b, &v1::ReceiveRequest { max_records: 1, ..wish("t", "g") });
        ack(&b, &d[0], "g").unwrap();
    }
    b.close(true).unwrap();
    let written = disk.open(Path::new("/b/t/partition-0/groups/g.acks")).unwrap().len().unwrap();
    assert!(written < 600_000, "120,000 entries were boiled down, {written} bytes");
}
#[test]
fn a_torn_header_does_not_switch_the_check_off() {
    let (system, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    log.append(&entries(&[1]), 1, None, 1).unwrap();
    let file = disk.open(&segments(&*disk)[0]).unwrap();
    let whole = file.len().unwrap();
    log.append(&entries(&[2]), 1, None, 1).unwrap();
    drop(log);
    file.write_at(whole + 52, &[0xEE; 8]).unwrap(); // its synced_end
    system.reboot();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    assert_eq!(read_all(&mut log, 0).map(|r| r.len()), Ok(1));
}

fn lag(b: &Broker, t: &str, g: &str) -> v1::GroupPartitionState {
    let request = v1::DescribeGroupRequest { topic: t.into(), group: g.into() };
    call::<v1::DescribeGroupResponse>(b, "DescribeGroup", &request).unwrap().partitions.remove(0)
}
#[test]
fn offsets_that_hold_no_record_are_no_lag() {
    for durability in [v1::Durability::Os, v1::Durability::Memory] {
        let (system, disk) = disk();
        let b = on(&disk);
        create(&b, "t", 1, durability);
        produce(&b, "t", &["a", "b"]);
        let d = receive(&b, &wish("t", "g"));
        ack(&b, &d[0], "g").unwrap();
        b.close(durability == v1::Durability::Memory).unwrap();
        system.reboot();
        let b = on(&disk);
        // `os` goes on at the ceiling: a gap of about a million offsets that no frame tells of yet.
        assert_eq!(lag(&b, "t", "g").lag, 0, "{durability:?}");
        produce(&b, "t", &["c", "d", "e"]);
        assert_eq!(lag(&b, "t", "g").lag, 3, "{durability:?}");
        b.close(true).unwrap();
        let b = on(&disk);
        assert_eq!(lag(&b, "t", "g").lag, 3, "{durability:?}: from the frames");
        let d = receive(&b, &wish("t", "g"));
        assert_eq!(values(&d), ["c", "d", "e"]);
        ack(&b, &d[0], "g").unwrap();
        assert_eq!(lag(&b, "t", "g").lag, 0);
        let purge = v1::PurgeTopicRequest { name: "t".into(), partitions: vec![] };
        let purged = call::<v1::PurgeTopicResponse>(&b, "PurgeTopic", &purge).unwrap().records;
        assert_eq!(purged, if durability == v1::Durability::Os { 5 } else { 3 });
    }
}
#[test]
fn records_lost_to_damage_stay_lag_before_and_after_the_next_append() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    produce(&b, "t", &["b"]);
    assert!(receive(&b, &v1::ReceiveRequest { max_records: 1, ..wish("t", "g") }).len() == 1);
    b.close(true).unwrap();
    let path = Path::new("/b/t/partition-0");
    let segment = disk.list(path).unwrap().into_iter().find(|name| name.ends_with(".log")).unwrap();
    disk.open(&path.join(segment)).unwrap().write_at(44, &[0xff; 4]).unwrap(); // the first frame's CRC and on
    let b = on(&disk);
    let before = lag(&b, "t", "g").lag;
    produce(&b, "t", &["c"]);
    assert_eq!(lag(&b, "t", "g").lag, before + 1);
    b.close(true).unwrap();
    assert_eq!(lag(&on(&disk), "t", "g").lag, before + 1, "the same after a restart");
}
#[test]
fn a_damaged_entry_of_a_journal_is_passed_over_and_counted() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    for value in ["a", "b", "c"] {
        produce(&b, "t", &[value]);
        let d = receive(&b, &wish("t", "g"));
        ack(&b, &d[0], "g").unwrap();
    }
    b.close(true).unwrap();
    let path = Path::new("/b/t/partition-0/groups/g.acks");
    let file = disk.open(path).unwrap();
    // Behind the header and the reset: leased a, acked a, leased b, acked b, leased c, acked c.
    file.write_at(32 * 5, &[0xff; 4]).unwrap();
    let b = on(&disk);
    let state = lag(&b, "t", "g");
    assert_eq!((state.journal_bad_bytes, state.lag), (32, 1), "only the ack of b is lost");
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["b"]);
}

fn open_producer(b: &Broker, t: &str, producer: &str) -> Result<v1::OpenProducerResponse, Error> {
    call(
        b,
        "OpenProducer",
        &v1::OpenProducerRequest { topic: t.into(), producer: producer.into(), ..Default::default() },
    )
}
#[test]
fn a_sequence_whose_sync_failed_is_told_to_nobody() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Fsync);
    produce_as(&b, "t", Some(0), "p", 1, &["a"]).unwrap();
    assert_eq!(open_producer(&b, "t", "p").unwrap().partitions[0].sequence, 1);
    system.fail_syncs(true);
    produce_as(&b, "t", Some(0), "p", 2, &["b"]).unwrap_err();
    assert_eq!(open_producer(&b, "t", "p").unwrap_err().code(), Code::LogPoisoned);
}
#[test]
fn frames_are_synced_before_the_snapshot_takes_their_sequences_over() {
    let (system, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Fsync)).unwrap();
    for sequence in 1..=20 {
        log.append(&entries(&[1; 5]), 5, Some((9, sequence)), 1).unwrap();
    }
    let rule = Retention { below: log.end(), appended_before_ns: 2, max_bytes: 0 };
    system.fail_syncs(true);
    assert_eq!(log.retain(&rule).unwrap_err().code(), Code::LogPoisoned);
    assert_eq!((disk.read(Path::new("/log/producers.json")).is_err(), log.start()), (true, 0));
    system.fail_syncs(false);
    drop(log);
    let mut log = support::open(&disk, options(Durability::Fsync)).unwrap();
    log.append(&entries(&[1]), 1, Some((9, 21)), 1).unwrap();
    log.retain(&Retention { below: log.end(), ..rule }).unwrap();
    assert_eq!((log.synced_end(), log.start()), (101, 101));
    assert_eq!(log.append(&[], 0, Some((9, 21)), 1).unwrap(), Appended::Duplicate);
}
#[test]
fn a_sync_that_failed_for_a_snapshot_fails_those_who_wait_for_one_too() {
    let (system, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Fsync)).unwrap();
    log.append(&entries(&[1; 5]), 5, Some((9, 1)), 1).unwrap();
    let plan = log.sync_plan().unwrap();
    system.fail_syncs(true);
    log.purge().unwrap_err();
    system.fail_syncs(false);
    // The system tells an error once: this sync hears nothing of what was lost.
    let outcome = plan.run();
    assert_eq!(log.finish_sync(&plan, outcome).unwrap_err().code(), Code::LogPoisoned);
}
#[test]
fn only_records_are_counted_as_dropped() {
    let (_, disk) = disk();
    let options = LogOptions { max_bytes: Some(5000), drop_oldest: true, ..options(Durability::Memory) };
    let mut log = support::open(&disk, options).unwrap();
    log.append(&entries(&[1; 3]), 3, None, 1).unwrap();
    log.flush(0).unwrap();
    drop(log);
    let mut log = support::open(&disk, options).unwrap();
    let mut appended = 3;
    while log.start() < 2_000 {
        log.append(&entries(&[1; 3]), 3, None, 1).unwrap();
        log.flush(0).unwrap();
        appended += 3;
    }
    assert!(log.start() > 1 << 20, "offsets were skipped");
    let kept = read_all(&mut log, 0).unwrap().len() as u64;
    assert_eq!(log.dropped_records(), appended - kept);
}
#[test]
fn past_the_most_producers_new_ones_wait_until_some_are_idle_and_who_is_forgotten_is_counted() {
    let (_, disk) = disk();
    let mut log = support::open(&disk, options(Durability::Os)).unwrap();
    for id in 1..=MAX_PRODUCERS as u64 {
        log.append(&[], 0, Some((id, 1)), 1).unwrap();
    }
    let new = MAX_PRODUCERS as u64 + 1;
    for err in [log.append(&[], 0, Some((new, 1)), 2).unwrap_err(), log.admit_producer(new, 2).unwrap_err()] {
        assert_eq!((err.code(), err.retry_after().is_some()), (Code::LogFull, true), "{err}");
    }
    assert_eq!(log.append(&[], 0, Some((5, 2)), IDLE_NS).unwrap(), Appended::At { base: 0 }, "it is known");
    assert_eq!(log.forgotten_producers(), 0);
    log.append(&[], 0, Some((new, 1)), IDLE_NS + 1).unwrap();
    assert!(log.forgotten_producers() > 0);
    assert_eq!(log.append(&[], 0, Some((5, 2)), IDLE_NS + 2).unwrap(), Appended::Duplicate, "it was not idle");
}
#[test]
fn what_a_memory_topic_has_written_waits_for_no_sync() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Memory);
    let v: Vec<&str> = (0..3000).map(|_| "x").collect();
    for _ in 0..3 {
        produce(&b, "t", &v);
    }
    let partition = b.topic("t").unwrap().partition(0).unwrap();
    assert!(partition.info().bytes > 0 && !disk.list(Path::new("/b/t/partition-0")).unwrap().is_empty());
    assert_eq!(partition.unsynced_bytes(), 0, "the background would look for it again and again");
}
#[test]
fn partitions_that_a_failed_configure_would_have_added_take_no_records() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Broker::open(dir.path(), BrokerOptions { min_free_bytes: 0, ..Default::default() }, None).unwrap();
    let b = open();
    create(&b, "t", 2, v1::Durability::Os);
    let blocked = dir.path().join("t/.topic.json.tmp");
    std::fs::create_dir_all(blocked.join("in the way")).unwrap();
    let more = v1::ConfigureTopicRequest {
        name: "t".into(),
        config: Some(v1::TopicConfig { partitions: Some(4), ..Default::default() }),
        ..Default::default()
    };
    let err = call::<v1::ConfigureTopicResponse>(&b, "ConfigureTopic", &more).unwrap_err();
    assert_eq!(err.code(), Code::DataIo);
    let err = produce_as(&b, "t", Some(3), "", 0, &["lost"]).unwrap_err();
    assert_eq!(err.code(), Code::PartitionNotFound);
    std::fs::remove_dir_all(&blocked).unwrap();
    call::<v1::ConfigureTopicResponse>(&b, "ConfigureTopic", &more).unwrap();
    produce_as(&b, "t", Some(3), "", 0, &["kept"]).unwrap();
    b.close(true).unwrap();
    let b = open();
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["kept"]);
}
#[test]
fn a_topic_whose_deletion_failed_is_what_it_was() {
    let (system, disk) = disk();
    let _ = system;
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    // Gone from under the broker: the rename fails, and the records can still be read.
    disk.rename(Path::new("/b/t"), Path::new("/elsewhere")).unwrap();
    let delete = v1::DeleteTopicRequest { name: "t".into() };
    assert_eq!(call::<v1::DeleteTopicResponse>(&b, "DeleteTopic", &delete).unwrap_err().code(), Code::DataIo);
    disk.rename(Path::new("/elsewhere"), Path::new("/b/t")).unwrap();
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["a"]);
    call::<v1::DeleteTopicResponse>(&b, "DeleteTopic", &delete).unwrap();
    assert_eq!(produce_as(&b, "t", Some(0), "", 0, &["b"]).unwrap_err().code(), Code::TopicNotFound);
}
#[test]
fn a_folder_that_vanished_is_told_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let b = Broker::open(dir.path(), BrokerOptions { min_free_bytes: 0, ..Default::default() }, None).unwrap();
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    std::fs::remove_dir_all(dir.path().join("t")).unwrap();
    let err = call::<v1::ReceiveResponse>(&b, "Receive", &wish("t", "new")).unwrap_err();
    assert_eq!(err.code(), Code::DataIo, "a group needs its journal: {err}");
    let more = v1::ConfigureTopicRequest {
        name: "t".into(),
        config: Some(v1::TopicConfig { partitions: Some(2), ..Default::default() }),
        ..Default::default()
    };
    let err = call::<v1::ConfigureTopicResponse>(&b, "ConfigureTopic", &more).unwrap_err();
    assert_eq!(err.code(), Code::DataIo, "{err}");
    assert!(b.close(true).is_err(), "what could not be kept is told");
    assert!(!dir.path().join("t").exists(), "an empty topic would look like one that never had records");
}
#[test]
fn a_read_only_folder_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, b"a file is in the way").unwrap();
    let err = Broker::open(&path, BrokerOptions::default(), None).map(drop).unwrap_err();
    assert_eq!(err.code(), Code::DataIo);
    assert!(err.to_string().contains(path.to_str().unwrap()), "{err}");
    // To root nothing is read-only by its mode, so the disk says it.
    let err = Broker::open_on(
        Arc::new(ReadOnly(MemoryDisk::default())),
        Path::new("/b"),
        BrokerOptions::default(),
        Arc::new(ManualClock::new(1)),
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(err.code(), Code::DataIo);
    assert!(err.to_string().contains("/b"), "{err}");
}
/// A file system that was mounted read-only.
struct ReadOnly(MemoryDisk);
fn read_only<T>() -> std::io::Result<T> {
    Err(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem))
}
impl Disk for ReadOnly {
    fn create_dir_all(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn File>> {
        self.0.open(path)
    }
    fn create(&self, _: &Path) -> std::io::Result<Arc<dyn File>> {
        read_only()
    }
    fn rename(&self, _: &Path, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn remove_file(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn remove_dir_all(&self, _: &Path) -> std::io::Result<()> {
        read_only()
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        self.0.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> std::io::Result<u64> {
        self.0.free_bytes(path)
    }
    fn boot_id(&self) -> String {
        self.0.boot_id()
    }
}
#[test]
fn a_policy_that_is_not_known_is_refused_and_a_bound_can_be_taken_away() {
    let (_, disk) = disk();
    let b = on(&disk);
    let wish =
        |full_policy, max_partition_bytes| v1::TopicConfig { full_policy, max_partition_bytes, ..Default::default() };
    let request = v1::CreateTopicRequest { name: "t".into(), config: Some(wish(7, None)), ..Default::default() };
    assert_eq!(call::<v1::CreateTopicResponse>(&b, "CreateTopic", &request).unwrap_err().code(), Code::InvalidArgument);
    let request =
        v1::CreateTopicRequest { name: "t".into(), config: Some(wish(0, Some(1 << 30))), ..Default::default() };
    call::<v1::CreateTopicResponse>(&b, "CreateTopic", &request).unwrap();
    let request = v1::ConfigureTopicRequest { name: "t".into(), config: Some(wish(0, Some(0))), ..Default::default() };
    let topic = call::<v1::ConfigureTopicResponse>(&b, "ConfigureTopic", &request).unwrap().topic.unwrap();
    assert_eq!(topic.config.unwrap().max_partition_bytes, None);
}

#[test]
fn acks_survive_a_rewrite_of_their_journal_that_failed_behind_its_rename() {
    for (durability, clean) in [(v1::Durability::Os, true), (v1::Durability::Os, false), (v1::Durability::Fsync, false)]
    {
        let hooked = Hooked::new();
        let disk: Arc<dyn Disk> = hooked.clone();
        let b = on(&disk);
        create(&b, "t", 1, durability);
        produce(&b, "t", &["x"; 12_000]);
        let mut refused = 0;
        for n in 0..10_000 {
            // The first rewrite falls due in there.
            hooked.fail_sync_dir.store((8000..8400).contains(&n), Ordering::SeqCst);
            let d = receive(&b, &v1::ReceiveRequest { max_records: 1, ..wish("t", "g") });
            if let Err(err) = ack(&b, &d[0], "g") {
                assert_eq!(err.code(), Code::DataIo, "{err}");
                refused += 1;
                hooked.fail_sync_dir.store(false, Ordering::SeqCst);
                ack(&b, &d[0], "g").unwrap();
            }
        }
        assert_eq!(refused, 1, "an ack whose place is not sure is not answered as done; the next one mends it");
        b.close(clean).unwrap();
        assert_eq!(lag(&on(&disk), "t", "g").acked_end_offset, 10_000, "{durability:?} {clean}");
    }
}
#[test]
fn a_close_that_could_not_sync_a_journal_fails_until_it_is_on_disk() {
    let (system, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    b.close(true).unwrap();
    let b = on(&disk);
    let d = receive(&b, &wish("t", "g"));
    ack(&b, &d[0], "g").unwrap();
    system.fail_syncs(true);
    for attempt in 0..3 {
        assert!(b.close(true).is_err(), "attempt {attempt}");
    }
    system.fail_syncs(false);
    b.close(true).unwrap();
    drop(b);
    assert_eq!(lag(&on(&disk), "t", "g").lag, 0);
}
#[test]
fn opening_a_journal_of_many_open_leases_takes_no_more_than_reading_it() {
    let disk = MemoryDisk::default();
    disk.create_dir_all(Path::new("/")).unwrap();
    let open = || Journal::open(&disk, Path::new("/groups"), "g", support::ID, 0).unwrap();
    let (mut journal, _) = open();
    let given = |n: u64| Given { range: n..n + 1, attempt: 1, grant: n + 1 };
    let leases: Vec<Given> = (0..200_000).map(given).collect();
    leases.iter().for_each(|given| journal.leased(given));
    journal.flush().unwrap();
    let start = Instant::now();
    let (_, progress) = open();
    // Walking all open leases for each would take minutes.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(progress.open, leases);
}
#[test]
fn an_ack_of_a_memory_topic_costs_the_same_however_many_records_are_open() {
    let disk = MemoryDisk::default();
    disk.create_dir_all(Path::new("/")).unwrap();
    let (mut journal, _) = Journal::open(&disk, Path::new("/groups"), "g", support::ID, 0).unwrap();
    let given = |n: u64| Given { range: 2 * n..2 * n + 1, attempt: 1, grant: 1 };
    let open: Vec<Given> = (0..20_000).map(given).collect();
    let progress = Progress { next: 40_000, open, ..Progress::default() };
    let mut boiled_down = 0;
    for n in 0..20_000 {
        journal.acked(std::slice::from_ref(&(n..n + 1)));
        journal.bound_pending(|| {
            boiled_down += 1;
            progress.clone()
        });
    }
    assert!(boiled_down < 10, "{boiled_down} times");
}
#[test]
fn a_record_of_a_memory_topic_that_is_on_disk_and_kills_its_broker_ends_among_the_dead_letters() {
    let (_, disk) = disk();
    let mut b = on(&disk);
    let config = v1::TopicConfig {
        partitions: Some(1),
        durability: v1::Durability::Memory.into(),
        max_attempts: Some(2),
        ..Default::default()
    };
    let request = v1::CreateTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
    call::<v1::CreateTopicResponse>(&b, "CreateTopic", &request).unwrap();
    produce(&b, "t", &["x"; 2001]);
    produce(&b, "t", &["y"]); // what is behind the bound goes to disk before it
    for _ in 0..2 {
        assert_eq!(receive(&b, &wish("t", "g"))[0].base_offset, 0);
        b.close(false).unwrap();
        b = on(&disk);
    }
    assert_eq!(receive(&b, &wish("t", "g"))[0].base_offset, 1);
    let request = v1::ListDeadLettersRequest { topic: "t".into(), ..Default::default() };
    assert_eq!(call::<v1::ListDeadLettersResponse>(&b, "ListDeadLetters", &request).unwrap().total, 1);
}
#[test]
fn what_a_group_has_in_flight_is_bounded_and_an_ack_wakes_those_it_kept_waiting() {
    let b = Broker::in_memory(BrokerOptions::default(), Some(Arc::new(ManualClock::new(1)))).unwrap();
    create(&b, "t", 1, v1::Durability::Os);
    let batch = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        records: vec![v1::Record::default(); 65_536],
        ..Default::default()
    }
    .encode_to_vec();
    let most = MAX_IN_FLIGHT / 65_536;
    for _ in 0..=most {
        b.call("Produce", &batch).unwrap();
    }
    let all = Receive {
        topic: "t",
        group: "g",
        consumer: "c",
        partitions: &[],
        bounds: Bounds { records: 65_536, bytes: 8 << 20 },
        total_bytes: 8 << 20,
        deliveries: 1,
        wait_ms: 0,
        visibility_timeout_ms: 0,
        mode: None,
    };
    let leases: Vec<v1::LeaseRange> = (0..most)
        .map(|_| v1::LeaseRange { lease_id: b.receive(&all).unwrap().0[0].lease.encode(), ranges: vec![] })
        .collect();
    let ack = |lease: &v1::LeaseRange| {
        let request = v1::AckRequest { topic: "t".into(), group: "g".into(), leases: vec![lease.clone()] };
        assert_eq!(call::<v1::AckResponse>(&b, "Ack", &request).unwrap().acked, 65_536);
    };
    assert_eq!(lag(&b, "t", "g").in_flight, MAX_IN_FLIGHT);
    let waiting = b.wakeups().subscribe(Some("t".into())).unwrap();
    assert_eq!(receive(&b, &wish("t", "g")), []);
    ack(&leases[0]);
    assert!(!waiting.drain().is_empty());
    assert_eq!(receive(&b, &wish("t", "g"))[0].base_offset, MAX_IN_FLIGHT);
    ack(&leases[1]);
    assert!(waiting.drain().is_empty(), "nobody was kept waiting");
}

#[test]
fn offsets_acked_in_memory_do_not_come_again_after_the_topic_became_durable() {
    for (durability, count) in [(v1::Durability::Os, 1), (v1::Durability::Fsync, 1), (v1::Durability::Os, 2001)] {
        let (_, disk) = disk();
        let b = on(&disk);
        create(&b, "t", 1, v1::Durability::Memory);
        produce(&b, "t", &vec!["a"; count]);
        ack(&b, &receive(&b, &v1::ReceiveRequest { max_records: 3000, ..wish("t", "g") })[0], "g").unwrap();
        if count > 2000 {
            // Above the bound: what is acked is left out here already, and the batch behind it is acked as well.
            produce(&b, "t", &["a"; 2001]);
            ack(&b, &receive(&b, &v1::ReceiveRequest { max_records: 3000, ..wish("t", "g") })[0], "g").unwrap();
        }
        let config = v1::TopicConfig { durability: durability.into(), ..Default::default() };
        let request = v1::ConfigureTopicRequest { name: "t".into(), config: Some(config), ..Default::default() };
        call::<v1::ConfigureTopicResponse>(&b, "ConfigureTopic", &request).unwrap();
        b.close(false).unwrap();
        let b = on(&disk);
        produce(&b, "t", &["b"]);
        assert_eq!(values(&receive(&b, &wish("t", "g"))), ["b"], "{durability:?}");
    }
}

#[test]
fn what_an_ordered_group_gives_again_for_a_lost_ack_is_open_again() {
    let (_, disk) = disk();
    let b = on(&disk);
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a", "b", "c"]);
    let one = v1::ReceiveRequest { max_records: 1, mode: v1::GroupMode::Ordered.into(), ..wish("t", "g") };
    for _ in 0..2 {
        ack(&b, &receive(&b, &one)[0], "g").unwrap();
    }
    b.close(true).unwrap();
    // Behind the header and the reset: leased a, acked a, leased b, acked b.
    disk.open(Path::new("/b/t/partition-0/groups/g.acks")).unwrap().write_at(32 * 3, &[0xff; 4]).unwrap();
    let b = on(&disk);
    let a = receive(&b, &one);
    assert_eq!((values(&a), values(&receive(&b, &one))), (vec!["a".to_owned()], vec!["b".to_owned()]));
    ack(&b, &a[0], "g").unwrap();
    b.close(false).unwrap();
    assert_eq!(values(&receive(&on(&disk), &one)), ["b"]);
}

#[test]
fn an_ordered_ack_can_be_repeated_after_what_lay_behind_it_was_given_again() {
    let mut queue = Queue::new(Mode::Ordered, &Progress::default(), 1);
    let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
    assert!(queue.candidate(&one, 0, 7).is_some());
    let first = queue.grant(&one, 0..7, 10);
    assert_eq!(queue.ack(first, 0..5, 7).done, vec![0..5]);
    assert_eq!(queue.candidate(&two, 11, 7).map(|candidate| candidate.start), Some(5), "expired");
    let second = queue.grant(&two, 5..7, 20);
    assert!(queue.ack(first, 2..5, 7).stale.is_empty(), "acked under it before");
    assert_eq!(queue.ack(first, 4..6, 7).stale, vec![4..6], "5 is another one's by now");
    assert_eq!(queue.ack(second, 5..7, 7).done, vec![5..7]);
}
#[test]
fn an_ordered_lease_that_a_nack_cut_short_stays_short_when_it_has_ended() {
    let mut queue = Queue::new(Mode::Ordered, &Progress::default(), 1);
    let one: Arc<str> = "one".into();
    queue.candidate(&one, 0, 2).unwrap();
    let first = queue.grant(&one, 0..2, 100);
    assert_eq!(queue.nack(first, 1..2, 0).done, vec![1..2]);
    assert_eq!(queue.candidate(&one, 1, 2).map(|candidate| candidate.start), Some(1));
    queue.grant(&one, 1..2, 100);
    assert_eq!(queue.nack(first, 0..2, 0).done, vec![0..2], "and all behind it");
    let settled = queue.ack(first, 0..2, 2);
    assert_eq!((settled.done, settled.stale), (vec![0..1], vec![1..2]));
}
#[test]
fn a_segment_without_a_header_inside_another_one_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Broker::open(dir.path(), BrokerOptions { min_free_bytes: 0, ..Default::default() }, None).unwrap();
    let b = open();
    create(&b, "t", 1, v1::Durability::Fsync);
    produce(&b, "t", &["a", "b", "c"]);
    b.close(false).unwrap();
    // A roll failed, its file was removed again, and a power cut brought the name back.
    std::fs::write(dir.path().join("t/partition-0/00000000000000000001.log"), b"").unwrap();
    let b = open();
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["a", "b", "c"]);
}
#[test]
fn what_a_failed_fsync_left_in_memory_is_written_anew_by_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Broker::open(dir.path(), BrokerOptions { min_free_bytes: 0, ..Default::default() }, None).unwrap();
    let b = open();
    create(&b, "t", 1, v1::Durability::Os);
    produce(&b, "t", &["a"]);
    b.close(false).unwrap();
    let note = dir.path().join("t/partition-0/.fsyncs-hold");
    assert!(note.exists(), "no fsync has failed");
    std::fs::remove_file(&note).unwrap();
    let segment = std::fs::read_dir(dir.path().join("t/partition-0")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
    let before = std::fs::metadata(&segment).unwrap().modified().unwrap();
    let b = open();
    assert!(std::fs::metadata(&segment).unwrap().modified().unwrap() > before, "written anew");
    assert!(note.exists(), "and trusted again");
    assert_eq!(values(&receive(&b, &wish("t", "g"))), ["a"]);
}
