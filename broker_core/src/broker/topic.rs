//! One topic: its configuration, its groups and its partitions.
//!
//! `<topic>/topic.json` holds configuration and groups, replaced as a whole and synced with every change. A folder is a
//! topic's exactly when it has one.
//!
//! Locks: `Topic::meta` before `Topic::partitions` before a partition's own. A dead-letter topic's `meta` before that of
//! the topic that the letters come from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::DELETED_PREFIX;
use super::config::{BrokerOptions, TopicConfig};
use super::metrics::{Counts, TopicCounts};
use super::names;
use super::partition::Partition;
use super::spread::{Share, Spread};
use crate::disk::Disk;
use crate::error::{Code, Error, Result};
use crate::log::LogId;
use crate::log::state::FORMAT;
use crate::queue::Mode;

/// Groups of a topic, at most.
pub(super) const MAX_GROUPS: usize = 1000;
/// How long a group is kept without a consumer: 7 days.
const GROUP_IDLE_NS: i64 = 7 * 86_400 * 1_000_000_000;
/// How long a group is left, once it was found idle, for consumers to say that they are there: 10 min.
///
/// Those who wait are woken and ask at once; others come back after a stop of the broker or a sleep of the machine.
const GROUP_GRACE_NS: u64 = 600 * 1_000_000_000;
/// How exactly it is known when a group was last used: 1 h.
const SEEN_STEP_NS: i64 = 3_600 * 1_000_000_000;
const META_FILE: &str = "topic.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Meta {
    format: u32,
    config: TopicConfig,
    version: u64,
    groups: BTreeMap<String, GroupMeta>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GroupMeta {
    mode: Mode,
    /// Random: a group made anew under an old name is another one, and takes no acks of the old one's leases.
    id: u64,
    /// When a consumer last asked for records, to the hour, nanoseconds since the epoch.
    #[serde(default)]
    seen_ns: i64,
}

/// What a topic needs of its broker.
#[derive(Clone)]
pub(crate) struct Context {
    pub disk: Arc<dyn Disk>,
    pub options: Arc<BrokerOptions>,
    pub counts: Arc<Counts>,
    pub new_log_id: fn() -> Result<LogId>,
    pub new_group_id: fn() -> Result<u64>,
}

/// Which configuration a change is made to.
#[derive(Clone, Copy)]
pub enum Basis {
    /// Whichever there is.
    Any,
    /// The one of this version, or it is refused.
    Version(u64),
    /// It was made at another broker and has this version there: taken over if that is newer, else left alone.
    Elsewhere(u64),
}

/// Where a new group begins in one partition.
pub type StartOf<'a> = &'a dyn Fn(&Partition) -> Result<Option<u64>>;

/// A topic.
pub struct Topic {
    name: Arc<str>,
    dir: PathBuf,
    counts: Arc<TopicCounts>,
    context: Context,
    meta: Mutex<Meta>,
    partitions: RwLock<Vec<Arc<Partition>>>,
    turn: AtomicU32,
    /// Of the ordered groups.
    spreads: Mutex<BTreeMap<String, Spread>>,
    /// Groups found idle, and since when by the monotonic clock.
    idle: Mutex<BTreeMap<String, u64>>,
}

/// What became of the groups that nobody used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// How many were deleted.
    pub deleted: u64,
    /// Whether others are about to be: consumers that wait should ask again.
    pub doubted: bool,
}

impl Topic {
    /// Makes a topic's folder. Fails where a folder of that name is something else.
    pub(crate) fn create(context: Context, root: &Path, name: &str, config: TopicConfig) -> Result<Topic> {
        let dir = root.join(name);
        let is_foreign = |entry: &String| entry != ".topic.json.tmp";
        if context.disk.list(&dir).is_ok_and(|entries| entries.iter().any(is_foreign)) {
            return Err(Error::new(
                Code::TopicExists,
                format!(
                    "{} exists although the broker knows no such topic: it is something else's, or was put there since the \
                     start; choose another topic name, move it away, or restart the broker if it is a topic's",
                    dir.display()
                ),
            ));
        }
        let meta = Meta { format: FORMAT, config, version: 1, groups: BTreeMap::new() };
        let topic = Topic {
            name: name.into(),
            dir,
            counts: context.counts.topic(name),
            context,
            meta: Mutex::new(meta.clone()),
            partitions: RwLock::default(),
            turn: AtomicU32::new(0),
            spreads: Mutex::default(),
            idle: Mutex::default(),
        };
        let made = topic.make(root, &meta);
        if made.is_err() {
            // What a crash leaves here is opened as a topic; what an error leaves is nobody's. In one step: half of a folder
            // would stand in the way of the next try.
            let doomed = root.join(format!("{DELETED_PREFIX}{name}-{}", (topic.context.new_group_id)()?));
            let renamed = topic.context.disk.rename(&topic.dir, &doomed);
            renamed.map_err(|err| Error::io("rename", &topic.dir, &err))?;
            // What is left of it goes at the next start.
            let _ = topic.context.disk.remove_dir_all(&doomed);
        }
        made.map(|()| topic)
    }

    /// Makes the folder. Its `topic.json` comes first: with it the folder is a topic's, whatever is missing of the rest.
    fn make(&self, root: &Path, meta: &Meta) -> Result<()> {
        let make = || -> io::Result<()> {
            self.context.disk.create_dir_all(&self.dir)?;
            self.context.disk.sync_dir(root)
        };
        make().map_err(|err| Error::io("make the folder", &self.dir, &err))?;
        self.store(meta)?;
        let made = self.open_partitions(meta, 0)?;
        self.partitions.write().extend(made);
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.context.disk.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))
    }

    /// Opens the topic in a folder; None where the folder is none's. `first_grant`: see [`crate::queue::Queue::new`].
    pub(crate) fn open(context: Context, root: &Path, name: &str, first_grant: u64) -> Result<Option<Topic>> {
        let dir = root.join(name);
        let path = dir.join(META_FILE);
        let bytes = match context.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(err) => return Err(Error::io("read", &path, &err)),
        };
        let format =
            serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|meta| meta.get("format")?.as_u64());
        if format.is_some_and(|format| format > FORMAT.into()) {
            return Err(Error::new(
                Code::DataFormat,
                format!("{} was written by a newer telemetry-broker; upgrade to that version or newer", path.display()),
            ));
        }
        let meta: Meta = serde_json::from_slice(&bytes).map_err(|err| {
            Error::new(Code::LogCorrupt, format!("{}: not readable: {err}; restore it from a backup", path.display()))
        })?;
        let topic = Topic {
            name: name.into(),
            dir,
            counts: context.counts.topic(name),
            context,
            meta: Mutex::new(meta.clone()),
            partitions: RwLock::default(),
            turn: AtomicU32::new(0),
            spreads: Mutex::default(),
            idle: Mutex::default(),
        };
        let there = topic.open_partitions(&meta, first_grant)?;
        topic.partitions.write().extend(there);
        // Also the entries of partitions that a process made which died.
        topic.sync()?;
        Ok(Some(topic))
    }

    fn store(&self, meta: &Meta) -> Result<()> {
        let path = self.dir.join(META_FILE);
        let bytes = serde_json::to_vec_pretty(meta).map_err(io::Error::other);
        bytes.and_then(|bytes| self.context.disk.replace(&path, &bytes)).map_err(|err| Error::io("write", &path, &err))
    }

    /// Opens the partitions that are not open yet, with their groups. Nobody sees them before they are published.
    fn open_partitions(&self, meta: &Meta, first_grant: u64) -> Result<Vec<Arc<Partition>>> {
        let options = meta.config.log_options(&self.context.options);
        let open = u32::try_from(self.partitions.read().len()).unwrap_or(u32::MAX);
        let mut opened = Vec::new();
        for number in open..meta.config.partitions {
            let dir = self.dir.join(format!("partition-{number}"));
            self.context.disk.create_dir(&dir).map_err(|err| Error::io("make the folder", &dir, &err))?;
            let partition = Partition::open(&self.context, dir, &self.name, number, options, self.counts.clone())?;
            for (group, group_meta) in &meta.groups {
                partition.add_group(group, group_meta.mode, None, first_grant)?;
            }
            partition.opened();
            opened.push(Arc::new(partition));
        }
        Ok(opened)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is counted under its name.
    pub(super) fn counts(&self) -> &Arc<TopicCounts> {
        &self.counts
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration, and the version of it.
    pub fn config(&self) -> (TopicConfig, u64) {
        let meta = self.meta.lock();
        (meta.config.clone(), meta.version)
    }

    /// Changes the configuration by `change`, which gets the one there is.
    pub fn configure(
        &self,
        basis: Basis,
        first_grant: u64,
        change: impl FnOnce(&TopicConfig) -> Result<TopicConfig>,
    ) -> Result<()> {
        let mut meta = self.meta.lock();
        let version = match basis {
            Basis::Any | Basis::Version(_) => meta.version + 1,
            Basis::Elsewhere(version) if version > meta.version => version,
            Basis::Elsewhere(_) => return Ok(()),
        };
        if let Basis::Version(expected) = basis
            && expected != meta.version
        {
            return Err(Error::new(
                Code::TopicVersion,
                format!(
                    "topic {:?} has configuration version {}, not {expected}; describe it and try again",
                    self.name, meta.version
                ),
            ));
        }
        let config = change(&meta.config)?;
        if config.partitions < meta.config.partitions {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "topic {:?} has {} partitions, they cannot become {}: partitions can only be added",
                    self.name, meta.config.partitions, config.partitions
                ),
            )
            .field("config.partitions"));
        }
        if config == meta.config && !matches!(basis, Basis::Elsewhere(_)) {
            return Ok(());
        }
        let next = Meta { config, version, ..meta.clone() };
        let added = self.open_partitions(&next, first_grant)?;
        self.sync()?;
        // Only what a restart finds is used: a record in a partition that topic.json does not count would be lost.
        self.store(&next)?;
        let options = next.config.log_options(&self.context.options);
        *meta = next;
        self.partitions.write().extend(added);
        let outcomes: Vec<Result<()>> =
            self.partitions().iter().map(|partition| partition.configure(options)).collect();
        outcomes.into_iter().collect()
    }

    /// All partitions, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    /// How many partitions it has.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.read().len()).unwrap_or(u32::MAX)
    }

    /// One partition.
    pub fn partition(&self, number: u32) -> Result<Arc<Partition>> {
        let partitions = self.partitions.read();
        partitions.get(number as usize).cloned().ok_or_else(|| {
            Error::new(
                Code::PartitionNotFound,
                format!(
                    "topic {:?} has partitions 0 to {}, not {number}; give one of these, or add partitions",
                    self.name,
                    partitions.len().saturating_sub(1)
                ),
            )
        })
    }

    /// The named partitions, or all, beginning with another one at each call.
    pub fn in_turn(&self, numbers: &[u32]) -> Result<Vec<Arc<Partition>>> {
        let mut chosen = if numbers.is_empty() {
            self.partitions()
        } else {
            let numbers: BTreeSet<u32> = numbers.iter().copied().collect();
            numbers.into_iter().map(|number| self.partition(number)).collect::<Result<Vec<_>>>()?
        };
        let len = u32::try_from(chosen.len()).unwrap_or(u32::MAX).max(1);
        chosen.rotate_left((self.turn.fetch_add(1, Ordering::Relaxed) % len) as usize);
        Ok(chosen)
    }

    /// What a consumer of an ordered group may take from; it counts until `until_ns`.
    pub fn share(&self, group: &str, consumer: &Arc<str>, now_ns: u64, until_ns: u64) -> Share {
        let holders: Vec<(u32, String)> =
            self.partitions().iter().map(|partition| (partition.number(), partition.holder(group, now_ns))).collect();
        self.spreads.lock().entry(group.to_owned()).or_default().share(consumer, now_ns, until_ns, &holders)
    }

    /// Forgets a consumer that has left; says whether it was known.
    pub fn leave(&self, group: &str, consumer: &str) -> bool {
        self.spreads.lock().get_mut(group).is_some_and(|spread| spread.leave(consumer))
    }

    /// Groups and their modes, in the order of their names.
    pub fn groups(&self) -> Vec<(String, Mode)> {
        self.meta.lock().groups.iter().map(|(name, group)| (name.clone(), group.mode)).collect()
    }

    /// The mode of a group; None when there is no such group.
    pub fn group_mode(&self, group: &str) -> Option<Mode> {
        self.meta.lock().groups.get(group).map(|group| group.mode)
    }

    /// What the leases of a group carry; None when there is no such group.
    pub fn group_id(&self, group: &str) -> Option<u64> {
        self.meta.lock().groups.get(group).map(|group| group.id)
    }

    /// Makes a group if there is none, with `mode` (default shared) and `start` (default the oldest record). One of
    /// another mode fails with `mismatch`.
    pub fn ensure_group(
        &self,
        group: &str,
        mode: Option<Mode>,
        start: StartOf<'_>,
        first_grant: u64,
        mismatch: Code,
    ) -> Result<Mode> {
        let mut meta = self.meta.lock();
        if let Some(existing) = meta.groups.get(group) {
            if mode.is_some_and(|mode| mode != existing.mode) {
                return Err(Error::new(
                    mismatch,
                    format!(
                        "group {group:?} of topic {:?} is {}, not {}; use that mode, another group, or delete the group",
                        self.name,
                        existing.mode.as_str(),
                        mode.unwrap_or(existing.mode).as_str()
                    ),
                ));
            }
            return Ok(existing.mode);
        }
        names::check("group", group)?;
        if meta.groups.len() >= MAX_GROUPS {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("topic {:?} has {MAX_GROUPS} groups, which is the most; delete one", self.name),
            ));
        }
        let mode = mode.unwrap_or(Mode::Shared);
        let mut next = meta.clone();
        next.groups.insert(group.to_owned(), GroupMeta { mode, id: (self.context.new_group_id)()?, seen_ns: 0 });
        let make = || {
            for partition in self.partitions.read().iter() {
                let at = start(partition)?;
                partition.remove_group(group)?;
                partition.add_group(group, mode, at, first_grant)?;
            }
            self.store(&next)
        };
        if let Err(err) = make() {
            // A cursor without a group would count as a group, and hold back or let go what it must not.
            for partition in self.partitions.read().iter() {
                partition.forget_group(group);
            }
            return Err(err);
        }
        *meta = next;
        Ok(mode)
    }

    /// Notes that a consumer of the group is there. Kept to the hour, so that it costs nothing.
    pub fn note_consumer(&self, group: &str, now_ns: i64) {
        let mut meta = self.meta.lock();
        let Some(known) = meta.groups.get_mut(group) else { return };
        if now_ns.saturating_sub(known.seen_ns) < SEEN_STEP_NS {
            return;
        }
        known.seen_ns = now_ns;
        // Not stored, it is as old as it was: the group expires earlier, after a week of such failures.
        let _ = self.store(&meta);
    }

    /// Deletes the groups that had no consumer for 7 days, by the wall clock, and were found so before, by the monotonic.
    pub fn expire_groups(&self, wall_ns: i64, monotonic_ns: u64) -> Expiry {
        let found: BTreeSet<String> = {
            let mut meta = self.meta.lock();
            let mut is_first_look = false;
            // One that never had a consumer counts from when it is first looked at; stored, so that a restart changes nothing.
            for group in meta.groups.values_mut().filter(|group| group.seen_ns == 0) {
                group.seen_ns = wall_ns;
                is_first_look = true;
            }
            if is_first_look {
                // Not stored, it is looked at anew by the next broker.
                let _ = self.store(&meta);
            }
            let is_idle = |group: &GroupMeta| wall_ns.saturating_sub(group.seen_ns) > GROUP_IDLE_NS;
            // What keeps the dead letters has no consumers, and must not let them go.
            let is_kept = |name: &str| self.name.ends_with(names::DEAD_LETTER_SUFFIX) && name == names::REDRIVE_GROUP;
            let idle = meta.groups.iter().filter(|(name, group)| is_idle(group) && !is_kept(name));
            idle.map(|(name, _)| name.clone()).collect()
        };
        let (doomed, doubted) = {
            let mut idle = self.idle.lock();
            idle.retain(|group, _| found.contains(group));
            for group in &found {
                idle.entry(group.clone()).or_insert(monotonic_ns);
            }
            let is_over = |since: u64| monotonic_ns.saturating_sub(since) >= GROUP_GRACE_NS;
            let doomed: Vec<String> =
                idle.iter().filter(|(_, since)| is_over(**since)).map(|(name, _)| name.clone()).collect();
            let doubted = idle.len() > doomed.len();
            (doomed, doubted)
        };
        Expiry { deleted: doomed.iter().filter(|group| self.delete_group(group).is_ok()).count() as u64, doubted }
    }

    /// Deletes a group.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        let mut meta = self.meta.lock();
        let mut next = meta.clone();
        if next.groups.remove(group).is_none() {
            return Err(group_not_found(&self.name, group));
        }
        self.store(&next)?;
        *meta = next;
        self.spreads.lock().remove(group);
        for partition in self.partitions.read().iter() {
            partition.remove_group(group)?;
        }
        Ok(())
    }

    /// Ends all partitions, see [`Partition::close`]. All are tried; the first failure is told.
    pub fn close(&self, flush: bool) -> Result<()> {
        let partitions = self.partitions();
        let outcomes: Vec<Result<()>> = partitions.iter().map(|partition| partition.close(flush)).collect();
        outcomes.into_iter().collect()
    }
}

/// What a group that is not there answers.
pub fn group_not_found(topic: &str, group: &str) -> Error {
    Error::new(
        Code::GroupNotFound,
        format!("topic {topic:?} has no group {group:?}; a group is made by its first consumer, or with CreateGroup"),
    )
}
