//! The broker: topics of partitions, groups over them, producers into them. The one public API of the crate.
//!
//! A broker is one folder, locked while it is open, or none (in memory). Everything below is driven by calls; the one
//! thread it starts syncs `os` topics in the background. Waiting is the caller's part, by [`Wakeups`].

mod chunk;
mod config;
mod cursor;
mod dead_letter;
mod flusher;
pub(crate) mod folder;
mod group_commit;
mod info;
mod metrics;
mod names;
mod partition;
mod rpc;
mod space;
mod spread;
mod sync;
mod topic;
mod unsettled;
mod wakeup;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

pub use self::chunk::{Bounds, Chunk, Leased, Received};
pub use self::config::{BrokerOptions, FullPolicy, MAX_PARTITIONS, MAX_VISIBILITY_TIMEOUT_MS, TopicConfig};
use self::flusher::{Flusher, MAX_UNSYNCED_BYTES};
use self::folder::Identity;
pub use self::info::{GroupInfo, PartitionInfo};
pub use self::partition::Partition;
pub use self::rpc::{DEFAULT_RECORDS, Handed, decode_request, received};
use self::space::Space;
use self::topic::Context;
pub use self::topic::Topic;
pub use self::unsettled::Unsettled;
pub use self::wakeup::{Listener, Subscription, Wakeups};
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, MemoryDisk, RealDisk};
use crate::error::{Code, Error, Result};
use crate::log::frame::{Entries, FrameBody};
use crate::log::{Appended, Durability, LogId};
use crate::queue::Mode;
use crate::queue::lease::LeaseId;
use crate::wire::record::MAX_BATCH_BYTES;
use crate::wire::{ProduceHead, Records};

/// Topics of a broker, at most.
const MAX_TOPICS: usize = 10_000;
/// Grants of one life of a group, at most: what separates the lives.
const GRANTS_PER_LIFE: u64 = 1 << 40;
/// How much longer than it said a waiting consumer counts: until its next question is here.
const WAIT_GRACE_MS: u64 = 1000;
/// Pause before a record is tried again that could not become a dead letter.
const DEAD_LETTER_RETRY_NS: u64 = 1_000_000_000;
/// Bytes of records in one answer, at most, beyond a last record.
pub(crate) const MAX_ANSWER_BYTES: usize = MAX_BATCH_BYTES;
/// Prefix of a folder that is being deleted.
const DELETED_PREFIX: &str = ".deleted-";

/// An embedded broker.
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    context: Context,
    clock: Arc<dyn Clock>,
    identity: Identity,
    started_ns: i64,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held while a topic is made or deleted, which takes several syncs: calls for other topics need not wait for them.
    /// Taken before `topics`.
    naming: parking_lot::Mutex<()>,
    wakeups: Arc<Wakeups>,
    flusher: Arc<Flusher>,
    space: parking_lot::Mutex<Space>,
    /// Groups deleted because nobody used them.
    expired_groups: AtomicU64,
    draining: AtomicBool,
    closed: AtomicBool,
    in_memory: bool,
    /// Held while the broker is open; dropped by `close`.
    lock: parking_lot::Mutex<Option<File>>,
}

/// Where an append went, and what is needed to say so.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// The partition.
    pub partition: u32,
    /// Its log.
    pub log_id: LogId,
    /// Records.
    pub count: u32,
    /// Where.
    pub appended: Appended,
}

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub struct Receive<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The group; made if there is none.
    pub group: &'a str,
    /// Who asks.
    pub consumer: &'a str,
    /// Only these; empty: all.
    pub partitions: &'a [u32],
    /// For each delivery.
    pub bounds: Bounds,
    /// Of all deliveries, at most, beyond a last record.
    pub total_bytes: usize,
    /// Deliveries, at most.
    pub deliveries: usize,
    /// How long the consumer is going to wait if there is nothing, milliseconds.
    pub wait_ms: u32,
    /// Length of the leases; 0: the topic's.
    pub visibility_timeout_ms: u32,
    /// What the group must be, or becomes.
    pub mode: Option<Mode>,
}

/// A lease and its records.
#[derive(Debug)]
pub struct Delivered {
    /// The lease's id.
    pub lease: LeaseId,
    /// Length of the lease.
    pub visibility_timeout_ms: u32,
    /// The records.
    pub leased: Leased,
}

impl Inner {
    fn retain(&self, everything: bool) {
        let topics: Vec<Arc<Topic>> = self.topics.read().values().cloned().collect();
        let now_ns = self.clock.wall_ns();
        for topic in topics {
            let expiry = topic.expire_groups(now_ns, self.clock.monotonic_ns());
            self.expired_groups.fetch_add(expiry.deleted, Ordering::Relaxed);
            if expiry.doubted {
                self.wakeups.signal(topic.name());
            }
            let config = topic.config().0;
            for partition in topic.partitions() {
                // What cannot be deleted now is deleted by the next call, or tells the producer through the full disk.
                let _ = partition.retain(&config, now_ns);
            }
        }
        if everything {
            self.free_up(|| false);
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|err| {
        Error::io("get random bytes from", Path::new("the system"), &io::Error::other(err.to_string()))
    })?;
    Ok(bytes)
}

/// A version 4 UUID.
fn new_log_id() -> Result<LogId> {
    let mut id: [u8; 16] = random()?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(LogId(id))
}

fn new_group_id() -> Result<u64> {
    Ok(u64::from_le_bytes(random()?))
}

impl Broker {
    /// Opens the broker in a folder of this machine, making it if there is none, and locks the folder.
    pub fn open(dir: &Path, options: BrokerOptions, clock: Option<Arc<dyn Clock>>) -> Result<Broker> {
        let disk = Arc::new(RealDisk);
        disk.create_dir_all(dir).map_err(|err| Error::io("make the folder", dir, &err))?;
        let dir = dir.canonicalize().map_err(|err| Error::io("find the folder", dir, &err))?;
        let lock = folder::lock(&dir)?;
        let broker = Self::open_on(disk, &dir, options, clock.unwrap_or_else(|| Arc::new(SystemClock::default())))?;
        *broker.inner.lock.lock() = Some(lock);
        broker.start_flusher()?;
        Ok(broker)
    }

    /// A broker without a folder: the same in everything, but nothing outlives it.
    pub fn in_memory(options: BrokerOptions, clock: Option<Arc<dyn Clock>>) -> Result<Broker> {
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let mut broker = Self::open_on(Arc::new(MemoryDisk::default()), Path::new("/"), options, clock)?;
        if let Some(inner) = Arc::get_mut(&mut broker.inner) {
            inner.in_memory = true;
        }
        Ok(broker)
    }

    /// Opens a broker on any disk, without a lock and without the background sync.
    #[expect(clippy::needless_pass_by_value, reason = "a broker owns its disk and its clock")]
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: BrokerOptions, clock: Arc<dyn Clock>) -> Result<Broker> {
        options.check()?;
        disk.create_dir_all(dir).map_err(|err| Error::io("make the folder", dir, &err))?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(|err| Error::io("sync", parent, &err))?;
        }
        let identity = folder::identify(&*disk, dir, random)?;
        let context = Context {
            disk: disk.clone(),
            options: Arc::new(options),
            counts: Arc::default(),
            new_log_id,
            new_group_id,
        };
        let mut topics = BTreeMap::new();
        for name in disk.list(dir).map_err(|err| Error::io("list", dir, &err))? {
            if name.starts_with(DELETED_PREFIX) {
                let path = dir.join(name);
                disk.remove_dir_all(&path).map_err(|err| Error::io("remove", &path, &err))?;
            } else if names::check("topic", &name).is_ok()
                && let Some(topic) = Topic::open(context.clone(), dir, &name, identity.opened * GRANTS_PER_LIFE)?
            {
                topics.insert(name, Arc::new(topic));
            }
        }
        let wakeups = Arc::new(Wakeups::default());
        let inner = Inner {
            dir: dir.to_owned(),
            context,
            started_ns: clock.wall_ns(),
            clock: clock.clone(),
            identity,
            topics: RwLock::new(topics),
            naming: parking_lot::Mutex::default(),
            wakeups,
            flusher: Arc::default(),
            space: parking_lot::Mutex::default(),
            expired_groups: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            in_memory: false,
            lock: parking_lot::Mutex::default(),
        };
        Ok(Broker { inner: Arc::new(inner) }.waking_on(&clock))
    }

    /// Makes a clock that is moved by hand wake everyone who waits.
    fn waking_on(self, clock: &Arc<dyn Clock>) -> Broker {
        let inner = Arc::downgrade(&self.inner);
        clock.on_jump(Box::new(move || {
            if let Some(inner) = inner.upgrade() {
                let topics: Vec<Arc<str>> = inner.topics.read().values().map(|topic| topic.name().clone()).collect();
                for topic in &topics {
                    inner.wakeups.signal(topic);
                }
            }
        }));
        self
    }

    fn start_flusher(&self) -> Result<()> {
        let (flusher, inner) = (self.inner.flusher.clone(), Arc::downgrade(&self.inner));
        let sync = move || {
            let Some(inner) = inner.upgrade() else { return false };
            // Not in the loop's head: its guard would live as long as the syncs take.
            let topics: Vec<Arc<Topic>> = inner.topics.read().values().cloned().collect();
            for topic in topics {
                for partition in topic.partitions() {
                    // A failure poisons the partition, which tells the next producer and every description.
                    let _ = partition.sync_written();
                }
            }
            inner.retain(false);
            true
        };
        let thread = std::thread::Builder::new().name("telemetry-sync".into()).spawn(move || flusher.run(sync));
        thread.map(drop).map_err(|err| Error::io("start the sync thread for", &self.inner.dir, &err))
    }

    fn check_open(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(partition::closed());
        }
        Ok(())
    }

    /// Groups that were deleted since the start because nobody used them.
    pub fn expired_groups(&self) -> u64 {
        self.inner.expired_groups.load(Ordering::Relaxed)
    }

    /// Where waiting consumers subscribe.
    pub fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    /// The broker's defaults.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.context.options
    }

    fn first_grant(&self) -> u64 {
        self.inner.identity.opened * GRANTS_PER_LIFE
    }

    /// A topic.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.check_open()?;
        match self.inner.topics.read().get(name) {
            Some(topic) => Ok(topic.clone()),
            None => Err(topic_not_found(name)),
        }
    }

    /// All topics, in the order of their names.
    pub fn topics(&self) -> Result<Vec<Arc<Topic>>> {
        self.check_open()?;
        Ok(self.inner.topics.read().values().cloned().collect())
    }

    /// Makes a topic; the same configuration again is fine.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Arc<Topic>> {
        self.check_open()?;
        names::check("topic", name)?;
        let _naming = self.inner.naming.lock();
        self.check_open()?;
        let (there, count) = {
            let topics = self.inner.topics.read();
            (topics.get(name).cloned(), topics.len())
        };
        if let Some(topic) = there {
            if topic.config().0.is_as(&config, self.options()) {
                return Ok(topic);
            }
            return Err(Error::new(
                Code::TopicExists,
                format!("topic {name:?} exists with another configuration; describe it, and configure it to change it"),
            ));
        }
        if count >= MAX_TOPICS {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("the broker has {MAX_TOPICS} topics, which is the most; delete one"),
            ));
        }
        let topic = Arc::new(Topic::create(self.inner.context.clone(), &self.inner.dir, name, config)?);
        self.inner.topics.write().insert(name.to_owned(), topic.clone());
        self.inner.wakeups.signal(topic.name());
        Ok(topic)
    }

    /// Deletes a topic and everything in it.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.check_open()?;
        let naming = self.inner.naming.lock();
        let topic = self.topic(name)?;
        let disk = &self.inner.context.disk;
        let doomed = self.inner.dir.join(format!("{DELETED_PREFIX}{name}-{}", u64::from_be_bytes(random()?)));
        // First: where it fails the topic is what it was. Nothing can be added to a folder that is elsewhere.
        disk.rename(topic.dir(), &doomed).map_err(|err| Error::io("rename", topic.dir(), &err))?;
        self.inner.topics.write().remove(name);
        // Whoever looked the topic up before finds it closed, not gone under its hands.
        topic.close(false)?;
        disk.sync_dir(&self.inner.dir).map_err(|err| Error::io("sync", &self.inner.dir, &err))?;
        drop(naming);
        self.inner.wakeups.signal(topic.name());
        disk.remove_dir_all(&doomed).map_err(|err| Error::io("remove", &doomed, &err))
    }

    /// Appends a batch, to one partition or split by its keys, and returns once the topic's durability holds.
    pub fn produce(&self, head: &ProduceHead<'_>) -> Result<Vec<Placed>> {
        let (placed, unsettled) = self.produce_unsettled(head)?;
        self.settle(&unsettled)?;
        Ok(placed)
    }

    /// As [`Broker::produce`], but nobody may be told before [`Broker::settle`].
    pub fn produce_unsettled(&self, head: &ProduceHead<'_>) -> Result<(Vec<Placed>, Unsettled)> {
        self.place(head, None)
    }

    /// As [`Broker::produce_unsettled`] for a batch of a named partition whose records are not in `head` but here, checked
    /// and `count` of them; they are taken if they are appended, and left otherwise.
    pub fn produce_body(
        &self,
        head: &ProduceHead<'_>,
        body: &mut FrameBody,
        count: u32,
    ) -> Result<(Vec<Placed>, Unsettled)> {
        self.place(head, Some((Entries::Body(body), count)))
    }

    fn place(&self, head: &ProduceHead<'_>, body: Option<(Entries<'_>, u32)>) -> Result<(Vec<Placed>, Unsettled)> {
        let topic = self.topic(head.topic)?;
        self.check_not_draining()?;
        let producer = check_producer(head)?;
        self.check_free_space()?;
        let mut unsettled = Unsettled::of(topic.clone());
        let placed = if let Some(number) = head.partition {
            let partition = topic.partition(number)?;
            let batch = body.unwrap_or_else(|| as_batch(&head.records));
            self.append_unsettled(&mut unsettled, &partition, batch, producer).map(|placed| vec![placed])
        } else {
            let split = split_by_key(&topic, &head.records)?.into_iter();
            let appended = split.map(|(partition, records)| {
                self.append_unsettled(&mut unsettled, &partition, as_batch(&records), producer)
            });
            appended.collect()
        };
        match placed {
            Ok(placed) => {
                if unsettled.is_settled() {
                    self.inner.wakeups.signal(topic.name());
                }
                Ok((placed, unsettled))
            }
            Err(err) => {
                // Other partitions may have got their part, and its consumers are waiting for it.
                let _ = self.settle(&unsettled);
                self.inner.wakeups.signal(topic.name());
                Err(err)
            }
        }
    }

    /// Returns once what a call has written is on disk.
    pub fn settle(&self, unsettled: &Unsettled) -> Result<()> {
        let outcome = unsettled.settle();
        if !unsettled.is_settled() {
            self.inner.wakeups.signal(unsettled.topic().name());
        }
        outcome
    }

    /// Refuses records while the broker is being emptied.
    fn check_not_draining(&self) -> Result<()> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(Error::new(
                Code::BrokerDraining,
                "the broker is draining and takes no new records; use another one",
            )
            .retry_after_ms(1000));
        }
        Ok(())
    }

    /// Deletes what may go by each topic's rules, and groups that nobody used for long; everything acked where `everything`
    /// is wanted. A partition where that fails is passed over: it is tried again with the next call.
    pub fn retain(&self, everything: bool) {
        self.inner.retain(everything);
    }

    /// Notes that something was written, for the background sync.
    fn written(&self, partition: &Partition) {
        if !self.inner.in_memory {
            self.inner.flusher.written(partition.unsynced_bytes() > MAX_UNSYNCED_BYTES);
        }
    }

    /// Appends records that the broker itself makes, and returns once the durability holds.
    fn append(&self, partition: &Partition, records: &Records<'_>) -> Result<()> {
        partition.append(records, None, self.inner.clock.wall_ns())?;
        self.written(partition);
        Ok(())
    }

    fn append_unsettled(
        &self,
        unsettled: &mut Unsettled,
        partition: &Arc<Partition>,
        (entries, count): (Entries<'_>, u32),
        producer: Option<(&str, u64)>,
    ) -> Result<Placed> {
        let (appended, write) = partition.append_unsettled(entries, count, producer, self.inner.clock.wall_ns())?;
        self.written(partition);
        let placed = Placed { partition: partition.number(), log_id: partition.log_id(), count, appended };
        unsettled.add(partition, write);
        Ok(placed)
    }

    /// Makes a group if there is none. See [`Topic::ensure_group`].
    fn ensure_group(&self, topic: &Topic, group: &str, mode: Option<Mode>) -> Result<Mode> {
        topic.ensure_group(group, mode, &|_| Ok(None), self.first_grant(), Code::GroupMode)
    }

    /// Leases records, at once or not at all. Also when to look again if nothing is signalled, in milliseconds.
    pub fn receive(&self, wish: &Receive<'_>) -> Result<(Vec<Delivered>, Option<u64>)> {
        let topic = self.topic(wish.topic)?;
        names::check_client("consumer", wish.consumer)?;
        let mode = self.ensure_group(&topic, wish.group, wish.mode)?;
        let group_id = topic.group_id(wish.group).unwrap_or_default();
        topic.note_consumer(wish.group, self.inner.clock.wall_ns());
        let timeout_ms = match wish.visibility_timeout_ms {
            0 => topic.config().0.visibility_timeout_ms(self.options()),
            given => given,
        };
        let now = self.inner.clock.monotonic_ns();
        let deadline = now + u64::from(timeout_ms) * 1_000_000;
        let consumer: Arc<str> = wish.consumer.into();
        let mut delivered = Vec::new();
        let mut room = wish.total_bytes;
        let mut partitions = topic.in_turn(wish.partitions)?;
        let mut next_change = None;
        if mode == Mode::Ordered && wish.partitions.is_empty() {
            let until = match wish.wait_ms {
                0 => now,
                wait => now + (u64::from(wait) + WAIT_GRACE_MS) * 1_000_000,
            };
            let share = topic.share(wish.group, &consumer, now, until);
            if share.gave_up {
                self.inner.wakeups.signal(topic.name());
            }
            partitions.retain(|partition| share.own.contains(&partition.number()));
            next_change = share.next_change_ns;
        }
        while !partitions.is_empty() && delivered.len() < wish.deliveries && room > 0 {
            let mut failed = None;
            partitions.retain(|partition| {
                if delivered.len() >= wish.deliveries || room == 0 || failed.is_some() {
                    return true;
                }
                let bounds = Bounds { bytes: wish.bounds.bytes.min(room), ..wish.bounds };
                match self.receive_from(&topic, partition, wish, &consumer, bounds, (now, deadline)) {
                    Ok(Some(leased)) => {
                        room = if leased.last { 0 } else { room.saturating_sub(leased.bytes()) };
                        delivered.push(self.deliver(partition, group_id, leased, timeout_ms));
                        true
                    }
                    Ok(None) => false,
                    Err(err) => {
                        failed = Some(err);
                        false
                    }
                }
            });
            match failed {
                // Told when it comes first in its turn; what was leased before it must not be lost with it.
                Some(err) if delivered.is_empty() => return Err(err),
                Some(_) => break,
                None => {}
            }
        }
        if !delivered.is_empty() {
            return Ok((delivered, None));
        }
        let due = topic.partitions().iter().filter_map(|partition| partition.next_due_ns(wish.group)).min();
        let next_due = due.into_iter().chain(next_change).min();
        let next_due = next_due.map(|due| due.saturating_sub(now).div_ceil(1_000_000).max(1));
        Ok((delivered, next_due))
    }

    /// Leases records of one partition; those that were given out too often become dead letters on the way.
    fn receive_from(
        &self,
        topic: &Topic,
        partition: &Partition,
        wish: &Receive<'_>,
        consumer: &Arc<str>,
        bounds: Bounds,
        (now_ns, deadline_ns): (u64, u64),
    ) -> Result<Option<Leased>> {
        let is_dead_letters = topic.name().ends_with(names::DEAD_LETTER_SUFFIX);
        let max_attempts = topic.config().0.max_attempts().filter(|_| !is_dead_letters);
        loop {
            match partition.receive(wish.group, consumer, bounds, max_attempts, now_ns, deadline_ns)? {
                Received::Leased(leased) => return Ok(Some(leased)),
                Received::Nothing => return Ok(None),
                Received::Exhausted { grant, range, attempts } => {
                    let part = (grant, range.clone());
                    let sent = self.dead_letter(topic, partition, wish.group, part, "max attempts", Some(attempts));
                    if let Err(err) = sent {
                        // Tried again later; nothing is lost, and other records need not wait for it.
                        partition.nack(wish.group, &[(grant, range)], now_ns + DEAD_LETTER_RETRY_NS)?;
                        return Err(err);
                    }
                }
            }
        }
    }

    fn deliver(&self, partition: &Partition, group_id: u64, leased: Leased, visibility_timeout_ms: u32) -> Delivered {
        let start = leased.chunks.first().map_or(0, |chunk| chunk.from);
        let end = leased.chunks.last().map_or(start, |chunk| chunk.to);
        let lease = LeaseId {
            broker_id: self.inner.identity.broker_id,
            log_id: partition.log_id(),
            partition: partition.number(),
            group_id,
            grant: leased.grant,
            start,
            count: u32::try_from(end - start).unwrap_or(u32::MAX),
        };
        Delivered { lease, visibility_timeout_ms, leased }
    }

    /// Gives back every lease of a consumer, in all partitions; unknown names are fine.
    pub fn release(&self, topic: &str, group: &str, consumer: &str) -> Result<()> {
        match self.topic(topic) {
            Ok(topic) => {
                let mut changed = topic.leave(group, consumer);
                for partition in topic.partitions() {
                    changed |= partition.release(group, consumer);
                }
                // Thousands that held nothing may go at once: each would wake all those that are still there.
                if changed {
                    self.inner.wakeups.signal(topic.name());
                }
                Ok(())
            }
            Err(err) if err.code() == Code::TopicNotFound => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Stops or goes on taking records. Returns how many records some group has not acked.
    pub fn drain(&self, draining: bool) -> Result<u64> {
        let topics = self.topics()?;
        self.inner.draining.store(draining, Ordering::Relaxed);
        Ok(topics.iter().flat_map(|topic| topic.partitions()).map(|partition| partition.remaining()).sum())
    }

    /// Whether appends to the topic wait for the disk.
    pub fn produce_waits(&self, topic: &str) -> bool {
        let options = self.options();
        self.topic(topic).is_ok_and(|topic| topic.config().0.log_options(options).durability == Durability::Fsync)
    }

    /// Writes and syncs everything, and lets go of the folder. Calls fail from now on.
    ///
    /// What could not be written can be tried again by another `close`; the folder is kept until then. Without `flush` it
    /// only stops, as if the process had died.
    pub fn close(&self, flush: bool) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        let _naming = self.inner.naming.lock();
        self.inner.flusher.stop();
        let topics: Vec<Arc<Topic>> = self.inner.topics.read().values().cloned().collect();
        let outcomes: Vec<Result<()>> = topics.iter().map(|topic| topic.close(flush)).collect();
        for topic in &topics {
            self.inner.wakeups.signal(topic.name());
        }
        outcomes.into_iter().collect::<Result<()>>()?;
        self.inner.topics.write().clear();
        if let Some(lock) = self.inner.lock.lock().take() {
            folder::unlock(&lock);
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // As good as a kill: whoever wants a clean stop calls `close` and sees its outcome.
        let _ = self.close(false);
    }
}

fn topic_not_found(name: &str) -> Error {
    Error::new(Code::TopicNotFound, format!("there is no topic {name:?}; create it first"))
}

/// The entries to append, and how many they are.
fn as_batch<'a>(records: &'a Records<'_>) -> (Entries<'a>, u32) {
    (Entries::Borrowed(records.bytes()), records.count())
}

/// The producer of a request, if it names one.
fn check_producer<'a>(head: &ProduceHead<'a>) -> Result<Option<(&'a str, u64)>> {
    if head.producer.is_empty() {
        if head.sequence != 0 {
            let message =
                format!("sequence {} without a producer; name the producer or leave the sequence out", head.sequence);
            return Err(Error::new(Code::InvalidArgument, message).field("sequence"));
        }
        return Ok(None);
    }
    names::check_client("producer", head.producer)?;
    if head.sequence == 0 {
        let message = format!("producer {:?} sent sequence 0; count from 1", head.producer);
        return Err(Error::new(Code::InvalidArgument, message).field("sequence"));
    }
    if head.partition.is_none() {
        let message =
            format!("producer {:?} named no partition; sequences count per partition, so it must", head.producer);
        return Err(Error::new(Code::InvalidArgument, message).field("partition"));
    }
    Ok(Some((head.producer, head.sequence)))
}

/// Splits a batch by the keys of its records; those without a key go together to the partition whose turn it is.
fn split_by_key(topic: &Topic, records: &Records<'_>) -> Result<Vec<(Arc<Partition>, Records<'static>)>> {
    let partitions = topic.in_turn(&[])?;
    let len = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
    let keyless = partitions.first().map_or(0, |partition| partition.number());
    let parts = records.by_key(len, keyless);
    parts
        .into_iter()
        .map(|(number, (bytes, count))| Ok((topic.partition(number)?, Records::trusted(bytes, count))))
        .collect()
}
