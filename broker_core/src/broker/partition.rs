//! One partition: its log, the cursors of its groups, and the group commit that makes both durable.
//!
//! Locks: the partition's lock guards log and cursors; it is never held while the log is synced. A sync is run by one of
//! the threads that wait for it, for all of them. Whoever redrives takes `redriving` before any partition's lock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::chunk::{Bounds, Chunk, Leased, Received, collect};
use super::config::TopicConfig;
use super::cursor::Cursor;
use super::group_commit::GroupCommit;
use super::info::{GroupInfo, PartitionInfo};
use super::metrics::{GroupState, PartitionState, TopicCounts};
use super::sync::{Guard as MutexGuard, Mutex};
use super::topic::Context;
use crate::disk::Disk;
use crate::error::{Code, Error, Result};
use crate::log::frame::Entries;
use crate::log::producers::producer_id;
use crate::log::{Appended, Durability, Log, LogId, LogOptions};
use crate::queue::journal::Journal;
use crate::queue::{Given, Mode, Queue, Settled};
use crate::wire::Records;

/// Who holds the leases of records on their way to the dead letters.
const NOBODY: &str = "";
/// How long a named producer is remembered after its last batch: 7 days.
const PRODUCER_IDLE_NS: i64 = 7 * 86_400 * 1_000_000_000;

/// What was written and may not be on disk yet; see [`Partition::settle`].
#[derive(Debug)]
pub struct UnsettledWrite {
    ticket: u64,
    journals: Journals,
}

/// Whose journals a write changed.
#[derive(Debug)]
enum Journals {
    Untouched,
    Of(String),
    All,
}

struct Inner {
    log: Log,
    cursors: BTreeMap<String, Cursor>,
    /// Rises with every write that a sync must cover.
    ticket: u64,
    /// Whether the names of the journals may be in memory only: one may have been rewritten just before a crash.
    groups_unsynced: bool,
    /// Set by the broker's end: whoever still holds the partition may not touch its files any more.
    closed: bool,
    /// Set once everything is on disk behind a close.
    flushed: bool,
}

impl Inner {
    /// Everything below was acked by every group; 0 where there is no group, since one may still come.
    fn acked_below(&self) -> u64 {
        self.cursors.values().map(|cursor| cursor.queue.floor()).min().unwrap_or(0)
    }

    /// Records that the log has.
    fn records(&self) -> u64 {
        let all = self.log.start()..self.log.end();
        all.end - all.start - self.log.gap_offsets(&all)
    }

    /// Records below `end` that the group has not acked and that are still there.
    fn lag(&self, queue: &Queue, end: u64) -> u64 {
        let (floor, next) = (queue.floor(), queue.next());
        if self.log.start() <= floor && next <= end && self.log.gap_offsets(&(floor..end)) == 0 {
            // As nearly always: there is a record behind each offset, so nobody need look at every range.
            return queue.open() + (end - next);
        }
        let progress = queue.progress();
        let given = progress.open.into_iter().map(|given| given.range);
        let there = |range: Range<u64>| range.start.max(self.log.start())..range.end.min(end);
        let open = given.chain(std::iter::once(progress.next..end)).map(there).filter(|range| !range.is_empty());
        open.map(|range| range.end - range.start - self.log.gap_offsets(&range)).sum()
    }

    /// Ends an operation that wrote: what is to be waited for, where the topic is `fsync`.
    fn wrote(&mut self, journals: Journals) -> Option<UnsettledWrite> {
        self.ticket += 1;
        let waits = self.log.durability() == Durability::Fsync;
        waits.then_some(UnsettledWrite { ticket: self.ticket, journals })
    }

    /// Writes what the topic's durability does not leave in memory.
    fn flush_if_due(&mut self, disk: &dyn Disk) -> Result<()> {
        if self.log.wants_flush() {
            let below = self.acked_below();
            self.log.flush(below)?;
            for cursor in self.cursors.values_mut() {
                cursor.write_journal(disk, &self.log)?;
            }
        }
        Ok(())
    }
}

/// A partition of a topic.
pub struct Partition {
    number: u32,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    inner: Mutex<Inner>,
    commit: GroupCommit,
    counts: Arc<TopicCounts>,
    /// See [`BrokerOptions::journal_entries`](super::BrokerOptions::journal_entries).
    journal_entries: u64,
    /// Held while dead letters of the partition are put back: what one call is putting back another would as well.
    redriving: Mutex<()>,
}

impl Partition {
    /// Opens the partition's log in `dir`.
    pub(super) fn open(
        context: &Context,
        dir: PathBuf,
        topic: &str,
        number: u32,
        options: LogOptions,
        counts: Arc<TopicCounts>,
    ) -> Result<Partition> {
        let disk = context.disk.clone();
        let log = Log::open(disk.clone(), dir.clone(), format!("{topic}/{number}"), (context.new_log_id)()?, options)?;
        counts.cut_bytes.add(log.recovered_cut_bytes());
        Ok(Partition {
            number,
            dir,
            disk,
            inner: Mutex::new(Inner {
                log,
                cursors: BTreeMap::new(),
                // What was found may be in the page cache only.
                ticket: 1,
                groups_unsynced: true,
                closed: false,
                flushed: false,
            }),
            commit: GroupCommit::default(),
            counts,
            journal_entries: context.options.journal_entries,
            redriving: Mutex::default(),
        })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The partition's state, while the broker is open.
    fn open_inner(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.inner.lock();
        if inner.closed { Err(closed()) } else { Ok(inner) }
    }

    /// Its log.
    pub fn log_id(&self) -> LogId {
        self.inner.lock().log.id()
    }

    /// Offset that the next record gets.
    pub fn end(&self) -> u64 {
        self.inner.lock().log.end()
    }

    /// Changes how the log is kept.
    pub fn configure(&self, options: LogOptions) -> Result<()> {
        let mut inner = self.open_inner()?;
        let leaves_memory = inner.log.durability() == Durability::Memory && options.durability != Durability::Memory;
        inner.log.configure(options)?;
        inner.flush_if_due(&*self.disk)?;
        if leaves_memory {
            inner.log.keep_end()?;
        }
        // A log that becomes `fsync` shows only what is synced.
        let unsettled = inner.wrote(Journals::Untouched);
        drop(inner);
        self.settle(unsettled.as_ref())
    }

    /// Returns once everything up to `ticket` is on disk.
    fn wait_synced(&self, ticket: u64) -> Result<()> {
        self.commit.wait(ticket, || self.sync())
    }

    /// Syncs what was written and returns the highest ticket that this covers.
    fn sync(&self) -> Result<u64> {
        let (plan, ticket, durability) = {
            let mut inner = self.inner.lock();
            if inner.closed {
                // What a close has flushed is on disk; anything else is nobody's to write any more.
                return if inner.flushed { Ok(inner.ticket) } else { Err(closed()) };
            }
            let mut plan = inner.log.sync_plan()?;
            for cursor in inner.cursors.values_mut() {
                if let Some(file) = cursor.journal.take_unsynced() {
                    plan.add(file);
                }
            }
            if std::mem::take(&mut inner.groups_unsynced) && !inner.cursors.is_empty() {
                plan.add_dir(self.disk.clone(), self.dir.join("groups"));
            }
            (plan, inner.ticket, inner.log.durability())
        };
        let began = Instant::now();
        let outcome = plan.run();
        self.counts.syncs.of(durability).observe(began.elapsed());
        self.inner.lock().log.finish_sync(&plan, outcome)?;
        Ok(ticket)
    }

    /// Syncs what was written, if anything was; for the background.
    pub fn sync_written(&self) -> Result<()> {
        let (ticket, lazily) = {
            let inner = self.inner.lock();
            (inner.ticket, inner.log.durability() == Durability::Os)
        };
        if lazily { self.wait_synced(ticket) } else { Ok(()) }
    }

    /// Bytes that wait for [`Partition::sync_written`].
    pub fn unsynced_bytes(&self) -> u64 {
        let inner = self.inner.lock();
        if inner.log.durability() == Durability::Os { inner.log.unsynced_bytes() } else { 0 }
    }

    /// Returns once a write is on disk.
    pub fn settle(&self, unsettled: Option<&UnsettledWrite>) -> Result<()> {
        let Some(UnsettledWrite { ticket, journals }) = unsettled else { return Ok(()) };
        self.wait_synced(*ticket)?;
        // A rewrite may have taken the entries out of the file that was synced, and have failed to bring them to the disk.
        let inner = self.inner.lock();
        let is_meant = |group: &str| match journals {
            Journals::Untouched => false,
            Journals::Of(meant) => meant == group,
            Journals::All => true,
        };
        let mut meant = inner.cursors.iter().filter(|(name, _)| is_meant(name));
        meant.try_for_each(|(_, cursor)| cursor.journal.check())
    }

    /// Appends a batch and returns once the durability holds. `producer` is a name and a sequence.
    pub fn append(&self, records: &Records<'_>, producer: Option<(&str, u64)>, now_ns: i64) -> Result<Appended> {
        let entries = Entries::Borrowed(records.bytes());
        let (appended, unsettled) = self.append_unsettled(entries, records.count(), producer, now_ns)?;
        self.settle(unsettled.as_ref())?;
        Ok(appended)
    }

    /// As [`Partition::append`], but nobody may be told before [`Partition::settle`].
    pub fn append_unsettled(
        &self,
        entries: Entries<'_>,
        count: u32,
        producer: Option<(&str, u64)>,
        now_ns: i64,
    ) -> Result<(Appended, Option<UnsettledWrite>)> {
        let mut inner = self.open_inner()?;
        inner.flush_if_due(&*self.disk)?;
        let producer = producer.map(|(name, sequence)| (producer_id(name), sequence));
        let bytes = entries.bytes().len() as u64;
        let appended =
            self.counting_losses(&mut inner.log, |log| log.append_entries(entries, count, producer, now_ns))?;
        if let Appended::At { .. } = appended {
            self.counts.produced.add(u64::from(count));
            self.counts.appended_bytes.add(bytes);
        }
        // A duplicate, too: it may be one whose first copy still waits for its sync.
        Ok((appended, inner.wrote(Journals::Untouched)))
    }

    /// Counts the records and the producers that `act` lets go to make room, also where it fails.
    fn counting_losses<T>(&self, log: &mut Log, act: impl FnOnce(&mut Log) -> T) -> T {
        let before = (log.dropped_records(), log.forgotten_producers());
        let outcome = act(log);
        self.counts.dropped.add(log.dropped_records() - before.0);
        self.counts.forgotten_producers.add(log.forgotten_producers() - before.1);
        outcome
    }

    /// How far the log has a producer's batches, once the durability holds for them. Refuses a name that it has no room for.
    pub fn producer_sequence(&self, name: &str, now_ns: i64) -> Result<u64> {
        let mut inner = self.open_inner()?;
        if inner.log.poisoned().is_some() {
            // What of the sequences is on the disk only a reopen tells.
            return Err(inner.log.poison(""));
        }
        self.counting_losses(&mut inner.log, |log| log.admit_producer(producer_id(name), now_ns))?;
        let sequence = inner.log.producer_sequence(name);
        let (ticket, waits) = (inner.ticket, inner.log.durability() == Durability::Fsync && sequence > 0);
        drop(inner);
        if waits {
            self.wait_synced(ticket)?;
        }
        Ok(sequence)
    }

    /// Gives a group its cursor, reading what it had acked. A new one begins at `start`, or at the oldest record.
    pub fn add_group(&self, group: &str, mode: Mode, start: Option<u64>, first_grant: u64) -> Result<()> {
        let mut inner = self.open_inner()?;
        if inner.cursors.contains_key(group) {
            return Ok(());
        }
        let start = start.map_or(inner.log.start(), |start| start.clamp(inner.log.start(), inner.log.end()));
        let (mut journal, progress) =
            Journal::open(&*self.disk, &self.dir.join("groups"), group, inner.log.id(), start)?;
        journal.compact_from(self.journal_entries);
        if mode == Mode::Ordered && progress.has_acked_above_floor() {
            // An entry before them was lost, and all of it is given again: then it is open again, also after a restart.
            journal.reset(progress.floor, progress.seek_grant);
            progress.open.iter().filter(|given| given.attempt > 0).for_each(|given| journal.leased(given));
        }
        let doubted = inner.log.is_doubted();
        if doubted {
            let why = "an fsync failed before the broker was started, and its journal could not be written anew yet";
            journal.distrust(Error::new(Code::DataIo, format!("{}: {why}; see to the disk", inner.log.label())));
        }
        self.counts.journal_bad_bytes.add(journal.bad_bytes());
        let counts = self.counts.group(group);
        let mut cursor = Cursor { queue: Queue::new(mode, &progress, first_grant), journal, redelivered: 0, counts };
        if doubted {
            // What fails here is tried again, and told, by the next ack.
            let _ = cursor.write_journal(&*self.disk, &inner.log);
        }
        inner.cursors.insert(group.to_owned(), cursor);
        Ok(())
    }

    /// To be called once all groups are there: what a failed fsync left in doubt was written anew by now.
    pub fn opened(&self) {
        let mut inner = self.inner.lock();
        if inner.log.is_doubted() && inner.cursors.values().all(|cursor| cursor.journal.check().is_ok()) {
            inner.log.trust_again();
        }
    }

    /// Takes the cursor of a group away that could not be made everywhere.
    pub fn forget_group(&self, group: &str) {
        self.inner.lock().cursors.remove(group);
    }

    /// Takes a group and what it had acked away.
    pub fn remove_group(&self, group: &str) -> Result<()> {
        self.inner.lock().cursors.remove(group);
        Journal::remove(&*self.disk, &self.dir.join("groups"), group)
    }

    fn with_cursor<T>(&self, group: &str, act: impl FnOnce(&mut Inner, &mut Cursor) -> Result<T>) -> Result<T> {
        let mut inner = self.open_inner()?;
        let mut cursor = inner.cursors.remove(group).ok_or_else(|| group_not_found(group))?;
        let outcome = act(&mut inner, &mut cursor);
        inner.cursors.insert(group.to_owned(), cursor);
        outcome
    }

    /// Leases records to a consumer, unless they were given out `max_attempts` times already.
    pub fn receive(
        &self,
        group: &str,
        consumer: &Arc<str>,
        bounds: Bounds,
        max_attempts: Option<u32>,
        now_ns: u64,
        deadline_ns: u64,
    ) -> Result<Received> {
        self.with_cursor(group, |inner, cursor| {
            let visible_end = inner.log.visible_end();
            while let Some(candidate) = cursor.queue.candidate(consumer, now_ns, visible_end) {
                let max_attempts = max_attempts.filter(|_| cursor.queue.mode() == Mode::Shared);
                // The last attempt is made alone: what kills its consumer must not take its neighbours along.
                let last = max_attempts == Some(candidate.attempt);
                let bounds = Bounds { records: if last { 1 } else { bounds.records }, ..bounds };
                let chunks = collect(&mut inner.log, &(candidate.start..candidate.end), bounds)?;
                let from = chunks.first().map_or(candidate.end, |chunk| chunk.from);
                if from > candidate.start {
                    let gap = candidate.start..from;
                    cursor.queue.skip_gap(gap.clone());
                    // So that the acks behind it count for an ordered group after a restart.
                    cursor.journal.acked(&[gap]);
                    continue;
                }
                let range = from..chunks.last().map_or(from, |chunk| chunk.to);
                let (records, attempt) = (range.end - range.start, candidate.attempt);
                if max_attempts.is_some_and(|max| attempt > max) {
                    let grant = cursor.queue.grant(&NOBODY.into(), range.clone(), deadline_ns);
                    return Ok(Received::Exhausted { grant, range, attempts: attempt - 1 });
                }
                let grant = cursor.queue.grant(consumer, range.clone(), deadline_ns);
                cursor.note_lease(&*self.disk, &inner.log, &Given { range, attempt, grant });
                self.counts.consumed.add(records);
                cursor.counts.delivered.add(records);
                if attempt > 1 {
                    cursor.redelivered += records;
                    cursor.counts.redelivered.add(records);
                }
                return Ok(Received::Leased(Leased { grant, attempt, last, chunks }));
            }
            Ok(Received::Nothing)
        })
    }

    /// Who has records of an ordered group in flight at `now_ns`; empty: nobody.
    pub fn holder(&self, group: &str, now_ns: u64) -> String {
        let mut inner = self.inner.lock();
        let cursor = inner.cursors.get_mut(group);
        cursor.and_then(|cursor| cursor.queue.holder(now_ns)).unwrap_or_default().to_owned()
    }

    /// When a lease or a delay of the group ends next.
    pub fn next_due_ns(&self, group: &str) -> Option<u64> {
        self.inner.lock().cursors.get(group)?.queue.next_due_ns()
    }

    /// Acks ranges of leases and returns what became of each, once the durability holds.
    pub fn ack(&self, group: &str, leases: &[(u64, Range<u64>)]) -> Result<Vec<Settled>> {
        let (settled, unsettled) = self.ack_unsettled(group, leases)?;
        self.settle(unsettled.as_ref())?;
        Ok(settled)
    }

    /// As [`Partition::ack`], but nobody may be told before [`Partition::settle`].
    pub fn ack_unsettled(
        &self,
        group: &str,
        leases: &[(u64, Range<u64>)],
    ) -> Result<(Vec<Settled>, Option<UnsettledWrite>)> {
        let mut inner = self.open_inner()?;
        let Inner { log, cursors, .. } = &mut *inner;
        let cursor = cursors.get_mut(group).ok_or_else(|| group_not_found(group))?;
        let (mut settled, mut acked) = (Vec::with_capacity(leases.len()), 0);
        for (grant, range) in leases {
            let outcome = cursor.queue.ack(*grant, range.clone(), log.end());
            cursor.journal.acked(&outcome.done);
            acked += outcome.done.iter().map(|range| range.end - range.start - log.gap_offsets(range)).sum::<u64>();
            settled.push(outcome);
        }
        cursor.counts.acked.add(acked);
        cursor.write_journal_unless_in_memory(&*self.disk, log)?;
        Ok((settled, inner.wrote(Journals::Of(group.to_owned()))))
    }

    /// Whether the group was kept short since the last call, see [`Queue::take_withheld`].
    pub fn take_withheld(&self, group: &str) -> bool {
        self.inner.lock().cursors.get_mut(group).is_some_and(|cursor| cursor.queue.take_withheld())
    }

    /// Keeps other redrives of the partition out.
    pub fn redriving(&self) -> MutexGuard<'_, ()> {
        self.redriving.lock()
    }

    /// What a group has not acked, up to the end of the log.
    pub fn open_ranges(&self, group: &str) -> Result<Vec<Range<u64>>> {
        self.with_cursor(group, |inner, cursor| {
            let progress = cursor.queue.progress();
            let fresh = progress.next.max(inner.log.start())..inner.log.visible_end();
            let given = progress.open.into_iter().map(|given| given.range);
            Ok(given.chain((!fresh.is_empty()).then_some(fresh)).collect())
        })
    }

    /// Acks records that the broker itself is done with, whoever may hold them.
    pub fn settle_unleased(&self, group: &str, ranges: &[Range<u64>]) -> Result<()> {
        let mut leases = Vec::with_capacity(ranges.len());
        {
            let mut inner = self.open_inner()?;
            let cursor = inner.cursors.get_mut(group).ok_or_else(|| group_not_found(group))?;
            for range in ranges {
                leases.push((cursor.queue.take_over(range.clone()), range.clone()));
            }
        }
        self.ack(group, &leases).map(drop)
    }

    /// What an ack would take effect on, and how often those records have been given.
    pub fn owned(&self, group: &str, grant: u64, range: Range<u64>) -> Result<(Settled, u32)> {
        self.with_cursor(group, |inner, cursor| {
            let settled = cursor.queue.owned(grant, range, inner.log.end());
            let attempts = settled.done.first().map_or(0, |owned| cursor.queue.attempt(owned.start));
            Ok((settled, attempts))
        })
    }

    /// Gives ranges of leases back, to be given out again from `due_ns` on (0: at once).
    pub fn nack(&self, group: &str, leases: &[(u64, Range<u64>)], due_ns: u64) -> Result<Vec<Settled>> {
        self.with_cursor(group, |_, cursor| {
            Ok(leases.iter().map(|(grant, range)| cursor.queue.nack(*grant, range.clone(), due_ns)).collect())
        })
    }

    /// Moves the deadlines of leases; says for each whether it still runs.
    pub fn extend(&self, group: &str, grants: &[u64], deadline_ns: u64) -> Result<Vec<bool>> {
        self.with_cursor(group, |_, cursor| {
            Ok(grants.iter().map(|&grant| cursor.queue.extend(grant, deadline_ns)).collect())
        })
    }

    /// Gives back all that a consumer holds; says whether that was anything.
    pub fn release(&self, group: &str, consumer: &str) -> bool {
        self.inner.lock().cursors.get_mut(group).is_some_and(|cursor| cursor.queue.release(consumer))
    }

    /// Moves a group; all its leases end.
    pub fn seek(&self, group: &str, offset: u64) -> Result<()> {
        let mut inner = self.open_inner()?;
        let offset = offset.clamp(inner.log.start(), inner.log.end());
        let Inner { log, cursors, .. } = &mut *inner;
        let cursor = cursors.get_mut(group).ok_or_else(|| group_not_found(group))?;
        let seek_grant = cursor.queue.seek(offset);
        cursor.journal.reset(offset, seek_grant);
        cursor.write_journal_unless_in_memory(&*self.disk, log)?;
        let unsettled = inner.wrote(Journals::Of(group.to_owned()));
        drop(inner);
        self.settle(unsettled.as_ref())
    }

    /// Records from `offset` on, without leasing them; a gap begins a new list. Also where to read on.
    pub fn read(&self, offset: u64, bounds: Bounds) -> Result<(Vec<Vec<Chunk>>, u64)> {
        let mut inner = self.open_inner()?;
        let (start, end) = (inner.log.start(), inner.log.visible_end());
        let (mut runs, mut at, mut left) = (Vec::new(), offset.max(start), bounds);
        while at < end && left.records > 0 {
            let chunks = collect(&mut inner.log, &(at..end), left)?;
            let Some(last) = chunks.last() else {
                at = end;
                break;
            };
            at = last.to;
            let bytes: usize = chunks.iter().map(|chunk| chunk.entries().len()).sum();
            let records: u64 = chunks.iter().map(|chunk| chunk.to - chunk.from).sum();
            left.records -= u32::try_from(records).unwrap_or(left.records).min(left.records);
            runs.push(chunks);
            if bytes >= left.bytes {
                break;
            }
            left.bytes -= bytes;
        }
        Ok((runs, at))
    }

    /// The offset of the first record appended at or after `time_ns`.
    pub fn offset_at(&self, time_ns: i64) -> Result<u64> {
        self.inner.lock().log.offset_at(time_ns)
    }

    /// First and behind the last offset.
    pub fn edges(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.log.start(), inner.log.end())
    }

    /// Deletes all records; every group goes on behind them. Returns how many there were.
    pub fn purge(&self) -> Result<u64> {
        let mut records = 0;
        self.between_syncs(|inner| {
            records = inner.records();
            inner.log.purge()?;
            let Inner { log, cursors, .. } = inner;
            let end = log.end();
            for cursor in cursors.values_mut() {
                let seek_grant = cursor.queue.seek(end);
                cursor.journal.reset(end, seek_grant);
                cursor.write_journal(&*self.disk, log)?;
            }
            Ok(())
        })?;
        let unsettled = self.open_inner()?.wrote(Journals::All);
        self.settle(unsettled.as_ref())?;
        Ok(records)
    }

    /// How it is.
    pub fn info(&self) -> PartitionInfo {
        let inner = self.inner.lock();
        PartitionInfo {
            partition: self.number,
            log_id: inner.log.id(),
            start: inner.log.start(),
            end: inner.log.end(),
            synced_end: inner.log.synced_end(),
            bytes: inner.log.bytes(),
            last_append_ns: inner.log.last_append_ns(),
            poisoned: inner.log.poisoned().unwrap_or_default().to_owned(),
            recovered_cut_bytes: inner.log.recovered_cut_bytes(),
            dropped_records: inner.log.dropped_records(),
            forgotten_producers: inner.log.forgotten_producers(),
        }
    }

    /// How it is, with all of its groups, for metrics: under one lock, for moments, and without a look at the disk.
    pub(super) fn sample(&self) -> PartitionState {
        let inner = self.inner.lock();
        let end = inner.log.visible_end();
        let sample = |(name, cursor): (&String, &Cursor)| {
            let lag = inner.lag(&cursor.queue, end);
            let oldest_ns = (lag > 0).then(|| inner.log.append_ns_near(cursor.queue.floor())).flatten();
            let in_flight = cursor.queue.in_flight().1;
            GroupState { name: name.clone(), counts: cursor.counts.clone(), lag, in_flight, oldest_ns }
        };
        let groups: Vec<GroupState> = inner.cursors.iter().map(sample).collect();
        PartitionState {
            number: self.number,
            queued: groups.iter().map(|group| group.lag).max().unwrap_or_else(|| inner.records()),
            bytes: inner.log.bytes(),
            poisoned: inner.log.poisoned().is_some(),
            groups,
        }
    }

    /// How a group is doing, at `now_ns`.
    pub fn group_info(&self, group: &str, now_ns: u64) -> Result<GroupInfo> {
        self.with_cursor(group, |inner, cursor| {
            let (leases, in_flight) = cursor.queue.in_flight();
            Ok(GroupInfo {
                partition: self.number,
                log_id: inner.log.id(),
                floor: cursor.queue.floor(),
                next: cursor.queue.next(),
                lag: inner.lag(&cursor.queue, inner.log.visible_end()),
                in_flight,
                leases,
                holder: cursor.queue.holder(now_ns).unwrap_or_default().to_owned(),
                redelivered: cursor.redelivered,
                journal_bad_bytes: cursor.journal.bad_bytes(),
            })
        })
    }

    /// Deletes what may go by the topic's rules, at `now_ns`.
    pub fn retain(&self, config: &TopicConfig, now_ns: i64) -> Result<()> {
        self.between_syncs(|inner| {
            // Where there is no group nothing is acked, but nobody waits for old records either.
            let below = if inner.cursors.is_empty() { inner.log.end() } else { inner.acked_below() };
            inner.log.expire_producers(now_ns.saturating_sub(PRODUCER_IDLE_NS));
            inner.log.retain(&config.retention(below, now_ns)).map(drop)
        })
    }

    /// When the newest record of the oldest segment was appended, where every group has acked all of it.
    pub fn oldest_acked_ns(&self) -> Option<i64> {
        let inner = self.inner.lock();
        inner.log.oldest_below(inner.acked_below()).filter(|_| !inner.closed)
    }

    /// Deletes the oldest segment, where every group has acked all of it. Returns whether one went.
    pub fn remove_oldest_acked(&self) -> Result<bool> {
        let mut removed = false;
        self.between_syncs(|inner| {
            removed = inner.log.remove_oldest_below(inner.acked_below())?;
            Ok(())
        })?;
        Ok(removed)
    }

    /// Acts while no sync runs: a sync that fails tells it once, and nobody may take the silence behind it for success.
    fn between_syncs(&self, act: impl FnOnce(&mut Inner) -> Result<()>) -> Result<()> {
        self.commit.between_syncs(|| {
            let mut inner = self.open_inner()?;
            let outcome = act(&mut inner);
            let removed = inner.log.take_removed();
            drop(inner);
            drop(removed);
            outcome
        })
    }

    /// Records that some group has not acked; all records where there is no group.
    pub fn remaining(&self) -> u64 {
        let inner = self.inner.lock();
        let end = inner.log.end();
        let lags = inner.cursors.values().map(|cursor| inner.lag(&cursor.queue, end));
        lags.max().unwrap_or_else(|| inner.records())
    }

    /// Ends the partition: every later call fails. With `flush`, everything is written and synced before; what failed can
    /// be tried again.
    pub fn close(&self, flush: bool) -> Result<()> {
        self.inner.lock().closed = true;
        if !flush {
            return Ok(());
        }
        // A sync that still runs has taken files out of the next plan: its outcome belongs to this close.
        self.commit.between_syncs(|| {
            let mut inner = self.inner.lock();
            if inner.flushed {
                return Ok(());
            }
            let below = inner.acked_below();
            let log = inner.log.close(below);
            let Inner { log: of, cursors, groups_unsynced, .. } = &mut *inner;
            let mut journals: Vec<Result<()>> =
                cursors.values_mut().map(|cursor| cursor.close(&*self.disk, of)).collect();
            if *groups_unsynced && !cursors.is_empty() {
                let groups = self.dir.join("groups");
                journals.push(self.disk.sync_dir(&groups).map_err(|err| Error::io("sync", &groups, &err)));
            }
            let journals = journals.into_iter().collect::<Result<()>>();
            if journals.is_err() {
                of.note_failed_sync();
            }
            log.and(journals)?;
            inner.flushed = true;
            Ok(())
        })
    }
}

/// What a call on a closed broker is answered with.
pub fn closed() -> Error {
    Error::new(Code::BrokerClosed, "the broker was closed; open it again")
}

fn group_not_found(group: &str) -> Error {
    Error::new(Code::GroupNotFound, format!("there is no group {group:?}; a group is made by its first consumer"))
}
