//! One partition's folder: what is wrong with its state, its segments and its journals.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::repair::Fix;
use super::{Finding, Kind, Meter, Piece, Scan, Wrong, list, read};
use crate::disk::Disk;
use crate::error::{Code, Error, Result};
use crate::log::LogId;
use crate::log::producers::Producers;
use crate::log::segment::{self, Identity};
use crate::log::state::State;
use crate::queue::journal::{self, Survey};

/// How far a rebuilt ceiling lies above every offset that is known: more than the lives of any broker since the last
/// frame can have given.
const CEILING_MARGIN: u64 = 1 << 32;

/// Where a partition's files are.
pub(super) struct PartitionFolder {
    pub dir: PathBuf,
    pub topic: String,
    pub number: u32,
}

/// A segment that was walked.
struct Walked {
    path: PathBuf,
    base: u64,
    len: u64,
    header_is_sound: bool,
    holes: Vec<super::Hole>,
    end: u64,
    last_append_ns: i64,
}

impl Walked {
    /// The hole that reaches the end of the file.
    fn tail(&self) -> Option<&super::Hole> {
        self.holes.last().filter(|hole| hole.bytes.end == self.len && !hole.bytes.is_empty())
    }

    fn is_sound(&self) -> bool {
        self.header_is_sound && self.holes.is_empty()
    }
}

/// What the segments say together.
struct Log {
    id: LogId,
    segments: Vec<Walked>,
    synced_end: u64,
    may_be_torn: bool,
    /// With a ceiling that lies above every offset found.
    state: State,
}

impl Log {
    /// Where the offsets go on behind a last segment that lacks something and ends at `end`.
    fn goes_on(&self, end: u64) -> u64 {
        if self.state.clean && self.state.end > end { self.state.end } else { self.state.ceiling }
    }
}

/// Segments by what their names and headers say.
#[derive(Default)]
struct Found {
    /// Base offset, and whose the header says it is; None where it says nothing.
    ours: Vec<(u64, Option<LogId>)>,
    /// Name, and what the header says.
    misnamed: Vec<(String, LogId, u64)>,
    newer: Vec<(String, u32)>,
}

impl PartitionFolder {
    /// Bytes that a survey reads.
    pub fn bytes(&self, disk: &dyn Disk) -> Result<u64> {
        let (mut total, groups) = (0, self.dir.join("groups"));
        for (dir, suffix) in [(&self.dir, ".log"), (&groups, ".acks")] {
            for name in list(disk, dir)?.into_iter().filter(|name| has_suffix(name, suffix)) {
                let path = dir.join(name);
                total += disk.open(&path).and_then(|file| file.len()).map_err(|err| Error::io("open", &path, &err))?;
            }
        }
        Ok(total)
    }

    /// Finds what is wrong and mends it.
    pub fn repair(&self, disk: &dyn Disk, meter: &mut Meter<'_>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut mend = |wrong: Wrong| -> Result<()> {
            let Wrong { mut finding, fix } = wrong;
            finding.mended = fix.apply(disk, &finding.path)?;
            findings.push(finding);
            Ok(())
        };
        let mut wrongs = self.survey(disk, meter)?;
        if wrongs.iter().any(|wrong| wrong.fix.changes_the_whole()) {
            // What the other findings are depends on these.
            for wrong in wrongs.into_iter().filter(|wrong| wrong.fix.changes_the_whole()) {
                mend(wrong)?;
            }
            let mut silent = |_, _| Ok(());
            let mut meter = Meter { done: 0, total: 0, told: 0, progress: &mut silent };
            wrongs = self.survey(disk, &mut meter)?;
        }
        for wrong in wrongs {
            mend(wrong)?;
        }
        Ok(findings)
    }

    fn wrong(&self, path: PathBuf, kind: Kind, what: String, remedy: &str, fix: Fix) -> Wrong {
        let finding = Finding {
            path,
            topic: Some(self.topic.clone()),
            partition: Some(self.number),
            kind,
            position: 0,
            bytes: 0,
            lost: None,
            what,
            remedy: remedy.to_owned(),
            mended: false,
        };
        Wrong { finding, fix }
    }

    /// Finds what is wrong.
    pub fn survey(&self, disk: &dyn Disk, meter: &mut Meter<'_>) -> Result<Vec<Wrong>> {
        let mut wrongs = Vec::new();
        let mut state_damage = None;
        let state = match State::load(disk, &self.dir) {
            Ok(state) => state,
            Err(err) if err.code() == Code::DataFormat => {
                wrongs.push(self.newer(self.dir.join("state.json"), err.message().to_owned()));
                return Ok(wrongs);
            }
            Err(err) if err.code() == Code::LogCorrupt => {
                state_damage = Some("it is not readable");
                None
            }
            Err(err) => return Err(err),
        };
        let found = self.find_segments(disk)?;
        for (name, format) in &found.newer {
            let what = format!("it has format {format}, which this version cannot read");
            wrongs.push(self.newer(self.dir.join(name), what));
        }
        if !found.newer.is_empty() {
            return Ok(wrongs);
        }
        if state.is_none() && !(found.ours.is_empty() && found.misnamed.is_empty()) {
            state_damage = state_damage.or(Some("it is missing"));
        }
        let log_id = state.as_ref().map(|state| state.log_id).or_else(|| found.most_frequent_id());
        let mut bases = Vec::new();
        for &(base, id) in &found.ours {
            match (id, log_id) {
                (Some(id), Some(log_id)) if id != log_id => {
                    wrongs.push(self.foreign(&found, &segment::name(base), id, base, log_id));
                }
                _ => bases.push((base, id.is_some())),
            }
        }
        for (name, id, base) in &found.misnamed {
            wrongs.push(self.foreign(&found, name, *id, *base, log_id.unwrap_or(*id)));
        }
        let mut synced_end = state.as_ref().map_or(0, |state| state.end);
        let mut segments = Vec::with_capacity(bases.len());
        for (base, header_is_sound) in bases {
            segments.push(self.walk_segment(disk, base, header_is_sound, &mut synced_end, meter)?);
        }
        let end = segments.iter().map(|segment| segment.end).max().unwrap_or(0);
        match (&state, log_id) {
            (Some(state), Some(id)) => {
                if end > state.ceiling {
                    wrongs.push(self.low_ceiling(state, end));
                }
                let may_be_torn = may_be_torn(state);
                let state = State { ceiling: state.ceiling.max(end), ..state.clone() };
                self.check_segments(&Log { id, segments, synced_end, may_be_torn, state }, &mut wrongs);
            }
            _ if state_damage.is_some() => wrongs.push(self.unreadable_state(state_damage, log_id, end)),
            _ => {}
        }
        self.check_producers(disk, &mut wrongs)?;
        if let Some(log_id) = log_id {
            let is_torn = state.as_ref().is_some_and(may_be_torn);
            self.check_journals(disk, log_id, is_torn, meter, &mut wrongs)?;
        }
        Ok(wrongs)
    }

    fn newer(&self, path: PathBuf, what: String) -> Wrong {
        self.wrong(path, Kind::NewerFormat, what, "upgrade telemetry-broker", Fix::Nothing)
    }

    fn find_segments(&self, disk: &dyn Disk) -> Result<Found> {
        let mut found = Found::default();
        for name in list(disk, &self.dir)?.into_iter().filter(|name| has_suffix(name, ".log")) {
            let header = Scan::open(disk, &self.dir.join(&name), 0)?.segment_header()?;
            match (segment::base_of(&name), segment::identify(&header)) {
                (_, Identity::Newer { format }) => found.newer.push((name, format)),
                (Some(base), Identity::Of { log_id, base: said }) if base == said => {
                    found.ours.push((base, Some(log_id)));
                }
                (_, Identity::Of { log_id, base }) => found.misnamed.push((name, log_id, base)),
                (Some(base), Identity::Unreadable) => found.ours.push((base, None)),
                // No name and no content of ours: the broker does not look at it either.
                (None, Identity::Unreadable) => {}
            }
        }
        Ok(found)
    }

    fn foreign(&self, found: &Found, name: &str, id: LogId, base: u64, log_id: LogId) -> Wrong {
        let true_name_is_free = found.ours.iter().all(|&(taken, _)| taken != base);
        let path = self.dir.join(name);
        if id == log_id && true_name_is_free {
            let true_name = segment::name(base);
            let what = format!("it was renamed: its header says that it is {true_name}");
            let fix = Fix::RenameTo(self.dir.join(true_name));
            return self.wrong(path, Kind::ForeignSegment, what, "repair gives it its name back", fix);
        }
        let what = if id == log_id {
            format!("it is a copy of {}", segment::name(base))
        } else {
            format!("it belongs to log {}, this is {}", id.hex(), log_id.hex())
        };
        let remedy = "repair moves it aside; where it belongs to another partition, move it there";
        self.wrong(path, Kind::ForeignSegment, what, remedy, Fix::SetAside)
    }

    fn walk_segment(
        &self,
        disk: &dyn Disk,
        base: u64,
        header_is_sound: bool,
        synced_end: &mut u64,
        meter: &mut Meter<'_>,
    ) -> Result<Walked> {
        let path = self.dir.join(segment::name(base));
        let mut scan = Scan::open(disk, &path, base)?;
        let (mut holes, mut told) = (Vec::new(), 0);
        while let Some(piece) = scan.next_piece()? {
            if let Piece::Hole(hole) = piece {
                holes.push(hole);
            }
            meter.add(scan.position() - told)?;
            told = scan.position();
        }
        meter.add(scan.file_bytes() - told)?;
        *synced_end = scan.synced_end().max(*synced_end);
        let (len, end, last_append_ns) = (scan.file_bytes(), scan.end(), scan.last_append_ns());
        Ok(Walked { path, base, len, header_is_sound, holes, end, last_append_ns })
    }

    fn check_segments(&self, log: &Log, wrongs: &mut Vec<Wrong>) {
        for (index, segment) in log.segments.iter().enumerate() {
            let next = log.segments.get(index + 1).map(|next| next.base);
            if let Some(next) = next.filter(|&next| next < segment.end) {
                let what = format!("it ends at offset {}, and another segment begins at {next}", segment.end);
                let remedy = "move the one that does not belong here away";
                let path = segment.path.clone();
                wrongs.push(self.wrong(path, Kind::OverlappingSegments, what, remedy, Fix::Nothing));
            }
            self.check_segment(log, segment, next, wrongs);
        }
        if log.segments.is_empty() && log.state.end > 0 {
            let goes_on = log.goes_on(0);
            let fix = Fix::Begin { log_id: log.id, base: goes_on };
            wrongs.push(self.missing(self.dir.join(segment::name(goes_on)), 0..goes_on, fix));
        }
    }

    fn missing(&self, path: PathBuf, lost: Range<u64>, fix: Fix) -> Wrong {
        let what = format!("no file has the offsets {} to {}", lost.start, lost.end - 1);
        let remedy = "put the missing file back; otherwise repair explains the gap, and reading goes on behind it";
        let mut wrong = self.wrong(path, Kind::MissingSegment, what, remedy, fix);
        wrong.finding.lost = Some(lost);
        wrong
    }

    fn check_segment(&self, log: &Log, segment: &Walked, next: Option<u64>, wrongs: &mut Vec<Wrong>) {
        let is_torn = next.is_none() && log.may_be_torn && segment.end >= log.synced_end;
        let tail_is_torn = is_torn && segment.tail().is_some();
        let ends_damaged = segment.tail().is_some() || !segment.header_is_sound && segment.len < segment::HEADER_BYTES;
        // Where the offsets go on behind the last frame, if that is not where it ends. What a cut takes away may have been
        // seen, whole, before it was damaged: those offsets are not given again either.
        let ends_early = ends_damaged || segment.end < log.state.end;
        let last_goes_on = ends_early.then(|| log.goes_on(segment.end));
        let goes_on = next.or(last_goes_on).filter(|&goes_on| goes_on > segment.end);
        let gap = |position, goes_on| Fix::Fill {
            segment: segment.path.clone(),
            position,
            end: segment.end,
            goes_on,
            append_ns: segment.last_append_ns,
            synced_end: log.synced_end.min(segment.end),
        };
        let mut fix = Some(match (tail_is_torn && segment.holes.len() == 1 && segment.header_is_sound, goes_on) {
            (true, Some(goes_on)) => gap(segment.holes[0].bytes.start, goes_on),
            (true, None) => Fix::Truncate(segment.holes[0].bytes.start),
            (false, _) => {
                Fix::Rewrite { log_id: log.id, base: segment.base, goes_on, keep: segment.len >= segment::HEADER_BYTES }
            }
        });
        if !segment.header_is_sound {
            let end = segment.len.min(segment::HEADER_BYTES);
            let (kind, what) = if is_torn && segment.len < segment::HEADER_BYTES {
                (Kind::TornTail, "the file was made and its header not written".to_owned())
            } else {
                (Kind::DamagedHeader, format!("the first {end} bytes are no header of a segment"))
            };
            let remedy = "repair writes the header again; no record is touched";
            let mut wrong = self.wrong(segment.path.clone(), kind, what, remedy, fix.take().unwrap_or(Fix::Along));
            wrong.finding.bytes = end;
            wrongs.push(wrong);
        }
        for hole in &segment.holes {
            let at_end = segment.tail() == Some(hole);
            let lost = match (at_end, is_torn, goes_on) {
                (true, false, Some(goes_on)) => segment.end..goes_on,
                (true, ..) => segment.end..segment.end,
                (false, ..) => hole.lost.clone(),
            };
            let fix = fix.take().unwrap_or(Fix::Along);
            wrongs.push(self.hole(segment, hole, &lost, at_end && is_torn, fix));
        }
        if let Some(goes_on) = goes_on.filter(|_| !ends_damaged) {
            let fix = if segment.is_sound() { gap(segment.len, goes_on) } else { Fix::Along };
            wrongs.push(self.missing(self.dir.join(segment::name(segment.end)), segment.end..goes_on, fix));
        }
    }

    fn hole(&self, segment: &Walked, hole: &super::Hole, lost: &Range<u64>, is_torn: bool, fix: Fix) -> Wrong {
        let Range { start, end } = hole.bytes;
        let (kind, what, remedy) = if is_torn {
            (
                Kind::TornTail,
                format!(
                    "the last write was interrupted: {} bytes behind offset {} are no frame",
                    end - start,
                    segment.end
                ),
                "repair cuts them, as the next start of the broker does; nothing that was synced is among them",
            )
        } else if hole.bytes.is_empty() {
            (
                Kind::DamagedFrames,
                "the frames before and behind this byte do not follow each other".to_owned(),
                "repair explains the gap, and reading goes on behind it",
            )
        } else {
            (
                Kind::DamagedFrames,
                format!("{} bytes are no whole frames", end - start),
                "restore the file from a backup; otherwise repair takes the damaged bytes out, keeps the file beside it as \
                 `.damaged`, and reading goes on behind them",
            )
        };
        let mut wrong = self.wrong(segment.path.clone(), kind, what, remedy, fix);
        (wrong.finding.position, wrong.finding.bytes) = (start, end - start);
        wrong.finding.lost = Some(lost.clone()).filter(|lost| !lost.is_empty());
        wrong
    }

    fn low_ceiling(&self, state: &State, end: u64) -> Wrong {
        let what = format!(
            "its ceiling {} lies below the end of the log, {end}: it was replaced by an older one",
            state.ceiling
        );
        let remedy = "repair raises it, so that no offset is given twice; the next records come behind a gap";
        let fix = Fix::State(renewed(state.log_id, end));
        self.wrong(self.dir.join("state.json"), Kind::LowCeiling, what, remedy, fix)
    }

    fn unreadable_state(&self, damage: Option<&str>, log_id: Option<LogId>, end: u64) -> Wrong {
        let (remedy, fix) = match log_id {
            Some(log_id) => (
                "repair rebuilds it from the segments; the next records come behind a gap, so that no offset is given twice",
                Fix::State(renewed(log_id, end)),
            ),
            None => ("restore it from a backup: no segment says which log this is", Fix::Nothing),
        };
        let what = damage.unwrap_or_default().to_owned();
        self.wrong(self.dir.join("state.json"), Kind::UnreadableState, what, remedy, fix)
    }

    fn check_producers(&self, disk: &dyn Disk, wrongs: &mut Vec<Wrong>) -> Result<()> {
        match Producers::load(disk, &self.dir) {
            Ok(_) => Ok(()),
            Err(err) if err.code() == Code::LogCorrupt => {
                let remedy = "restore it from a backup; otherwise repair moves it aside: a batch of a named producer that is \
                              sent again, and whose first copy retention has deleted, is stored a second time then";
                let path = self.dir.join("producers.json");
                let what = "it is not readable".to_owned();
                wrongs.push(self.wrong(path, Kind::UnreadableProducers, what, remedy, Fix::SetAside));
                Ok(())
            }
            Err(err) => Err(err),
        }
    }

    fn check_journals(
        &self,
        disk: &dyn Disk,
        log_id: LogId,
        may_be_torn: bool,
        meter: &mut Meter<'_>,
        wrongs: &mut Vec<Wrong>,
    ) -> Result<()> {
        let dir = self.dir.join("groups");
        for name in list(disk, &dir)? {
            let Some(group) = name.strip_suffix(".acks") else { continue };
            let path = dir.join(&name);
            let bytes = read(disk, &path)?.unwrap_or_default();
            meter.add(bytes.len() as u64)?;
            wrongs.extend(self.check_journal(path, group, &bytes, log_id, may_be_torn));
        }
        Ok(())
    }

    fn check_journal(
        &self,
        path: PathBuf,
        group: &str,
        bytes: &[u8],
        log_id: LogId,
        may_be_torn: bool,
    ) -> Option<Wrong> {
        let len = bytes.len() as u64;
        let forgotten = format!(
            "restore it from a backup; otherwise repair moves it aside: group {group:?} gets every record of this partition again"
        );
        match journal::survey(bytes, log_id) {
            Survey::Newer { format } => {
                let what = format!("it has format {format}, which this version cannot read");
                Some(self.newer(path, what))
            }
            Survey::OtherLog => {
                let what = "it is of another log, whose acks mean nothing here".to_owned();
                Some(self.wrong(path, Kind::UnreadableJournal, what, &forgotten, Fix::SetAside))
            }
            Survey::Unreadable => {
                let what = "it has no header and no entry of a journal".to_owned();
                let mut wrong = self.wrong(path, Kind::UnreadableJournal, what, &forgotten, Fix::SetAside);
                wrong.finding.bytes = len;
                Some(wrong)
            }
            Survey::Entries { sound, bad } => {
                let first = bad.first()?;
                let count: u64 = bad.iter().map(|range| range.end - range.start).sum();
                let is_torn = may_be_torn && bad.len() == 1 && first.end == len;
                let mut wrong = if is_torn {
                    let what = format!("the last write was interrupted: {count} bytes are no entry");
                    let remedy = "repair cuts them, as the next start of the broker does";
                    self.wrong(path, Kind::TornTail, what, remedy, Fix::Truncate(first.start))
                } else {
                    let what = format!("{count} bytes, in {} places, are no entries", bad.len());
                    let remedy = format!(
                        "repair keeps the others, and this file as `.damaged`: what group {group:?} acked only there is \
                         delivered again, and a seek noted only there is forgotten"
                    );
                    self.wrong(path, Kind::DamagedJournal, what, &remedy, Fix::Replace(sound))
                };
                (wrong.finding.position, wrong.finding.bytes) = (first.start, count);
                Some(wrong)
            }
        }
    }
}

impl Found {
    fn most_frequent_id(&self) -> Option<LogId> {
        let mut counts: HashMap<LogId, usize> = HashMap::new();
        let misnamed = self.misnamed.iter().map(|&(_, id, _)| id);
        for id in self.ours.iter().filter_map(|&(_, id)| id).chain(misnamed) {
            *counts.entry(id).or_default() += 1;
        }
        counts.into_iter().max_by_key(|&(id, count)| (count, id)).map(|(id, _)| id)
    }
}

/// Whether the last write may have been interrupted. Where it is not known which system it ran on, what stands at the end
/// is taken for damage, so that no offset is given twice.
fn may_be_torn(state: &State) -> bool {
    !state.clean && !state.boot_id.is_empty()
}

/// A state that is right for every log of this id and this end.
fn renewed(log_id: LogId, end: u64) -> State {
    State {
        log_id,
        ceiling: end.saturating_add(CEILING_MARGIN),
        begin: 0,
        end: 0,
        boot_id: String::new(),
        clean: false,
    }
}

/// Suffixes are exact: the broker itself looks at no other spelling.
fn has_suffix(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some()
}

/// Segment files of a partition, by base offset.
pub(super) fn segment_paths(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let names = disk.list(dir).map_err(|err| Error::io("list", dir, &err))?;
    Ok(names.iter().filter_map(|name| Some((segment::base_of(name)?, dir.join(name)))).collect())
}
