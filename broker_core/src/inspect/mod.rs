//! Looking after a broker's folder while no broker has it open: verify, repair, dump.
//!
//! [`verify`] reads every file and changes nothing. [`repair`] mends what verify finds: it keeps every whole frame and
//! every readable entry, leaves the damaged original beside the mended file (`<name>.damaged`), and explains the offsets
//! that are gone by a frame's `skipped`, so that reading goes on behind them. Each step leaves a folder that can be
//! repaired again, and repairing a sound folder changes nothing. [`Dump`] shows frames and records.
//!
//! All of them lock the folder as a broker does. The functions that end in `_on` take any disk and lock nothing.

mod dump;
mod partition;
mod repair;
mod scan;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::dump::{Dump, Dumped};
pub use self::scan::{Hole, Piece, Scan};

use self::partition::PartitionFolder;
use self::repair::Fix;
use crate::broker::{MAX_PARTITIONS, folder};
use crate::disk::{Disk, RealDisk};
use crate::error::{Code, Error, Result};
use crate::log::state::FORMAT;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What is wrong with a file. The texts are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Kind {
            /// The stable text, such as `torn_tail`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $text,)+ }
            }
        }
    };
}

kinds! {
    /// The last write of an unclean end is not whole. The broker cuts it by itself.
    TornTail = "torn_tail",
    /// Frames that were whole once are not.
    DamagedFrames = "damaged_frames",
    /// The first bytes of a segment, which say whose it is.
    DamagedHeader = "damaged_header",
    /// Offsets between two segments, or below the end of the log, are in none.
    MissingSegment = "missing_segment",
    /// A segment of another log, or one that was renamed.
    ForeignSegment = "foreign_segment",
    /// Two segments hold the same offsets.
    OverlappingSegments = "overlapping_segments",
    /// A file that a newer version wrote.
    NewerFormat = "newer_format",
    /// `state.json` is missing or not readable.
    UnreadableState = "unreadable_state",
    /// `state.json` allows offsets to be given twice.
    LowCeiling = "low_ceiling",
    /// `producers.json` is not readable.
    UnreadableProducers = "unreadable_producers",
    /// A group's journal is not readable, or of another log.
    UnreadableJournal = "unreadable_journal",
    /// Entries of a group's journal are damaged.
    DamagedJournal = "damaged_journal",
    /// `topic.json` is not readable.
    UnreadableTopic = "unreadable_topic",
    /// A partition has no folder.
    MissingPartition = "missing_partition",
    /// `broker.json` is not readable.
    UnreadableBroker = "unreadable_broker",
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Its topic, where it belongs to one.
    pub topic: Option<String>,
    /// Its partition, where it belongs to one.
    pub partition: Option<u32>,
    /// What it is.
    pub kind: Kind,
    /// First bad byte of the file.
    pub position: u64,
    /// How many bytes are bad.
    pub bytes: u64,
    /// Offsets that cannot be read any more, at most; None where no record is lost.
    pub lost: Option<Range<u64>>,
    /// A sentence about it.
    pub what: String,
    /// What repair does about it, or what a person has to do.
    pub remedy: String,
    /// Whether repair did that.
    pub mended: bool,
}

/// Which part of a folder is looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this partition of each topic.
    pub partition: Option<u32>,
}

/// Told how many bytes of how many have been read; an error ends the work, with nothing half done.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Bytes read and to be read.
struct Meter<'a> {
    done: u64,
    total: u64,
    told: u64,
    progress: &'a mut Progress<'a>,
}

/// Bytes between two calls of a [`Progress`].
const TELL_EVERY_BYTES: u64 = 8 << 20;

impl Meter<'_> {
    fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        if self.done - self.told < TELL_EVERY_BYTES {
            return Ok(());
        }
        self.told = self.done;
        (self.progress)(self.done, self.total.max(self.done))
    }

    fn finish(self) -> Result<()> {
        (self.progress)(self.total.max(self.done), self.total.max(self.done))
    }
}

/// Lists what is wrong in a broker's folder, which no broker may have open.
pub fn verify(dir: &Path, scope: &Scope, progress: &mut Progress<'_>) -> Result<Vec<Finding>> {
    let (dir, _lock) = enter(dir)?;
    verify_on(&RealDisk, &dir, scope, progress)
}

/// Mends what can be mended in a broker's folder, which no broker may have open. Returns what was found, in order.
pub fn repair(dir: &Path, scope: &Scope, progress: &mut Progress<'_>) -> Result<Vec<Finding>> {
    let (dir, _lock) = enter(dir)?;
    repair_on(&RealDisk, &dir, scope, progress)
}

/// See [`verify`].
pub fn verify_on(disk: &dyn Disk, dir: &Path, scope: &Scope, progress: &mut Progress<'_>) -> Result<Vec<Finding>> {
    walk(disk, dir, scope, progress, false)
}

/// See [`repair`].
pub fn repair_on(disk: &dyn Disk, dir: &Path, scope: &Scope, progress: &mut Progress<'_>) -> Result<Vec<Finding>> {
    walk(disk, dir, scope, progress, true)
}

/// Locks the folder, if it is a broker's.
fn enter(dir: &Path) -> Result<(PathBuf, File)> {
    let dir = dir.canonicalize().map_err(|err| Error::io("find the folder", dir, &err))?;
    if topics(&RealDisk, &dir)?.is_empty() && RealDisk.open(&dir.join("broker.json")).is_err() {
        return Err(Error::new(
            Code::DataFormat,
            format!("{} is no broker's folder: it has no broker.json and no topic; name another one", dir.display()),
        ));
    }
    let lock = folder::lock(&dir)?;
    Ok((dir, lock))
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>> {
    match disk.list(dir) {
        Ok(names) => Ok(names),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(err) => Err(Error::io("list", dir, &err)),
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>> {
    match disk.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(err) => Err(Error::io("read", path, &err)),
    }
}

/// Folders that have partitions or a `topic.json`: what belongs to a topic, and what did before it was damaged.
fn topics(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>> {
    let mut topics = Vec::new();
    for name in list(disk, dir)?.into_iter().filter(|name| !name.starts_with('.')) {
        let inside = list(disk, &dir.join(&name))?;
        if inside.iter().any(|name| name == "topic.json" || partition_number(name).is_some()) {
            topics.push(name);
        }
    }
    Ok(topics)
}

fn partition_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("partition-")?;
    digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
}

/// What is wrong, and what would mend it.
struct Wrong {
    finding: Finding,
    fix: Fix,
}

/// A file outside the logs that has to be JSON of this format, as far as this page needs to know.
fn check_json(disk: &dyn Disk, path: &Path, kind: Kind, remedy: &str, fix: Fix) -> Result<Checked> {
    let Some(bytes) = read(disk, path)? else { return Ok(Checked::Absent) };
    let finding = |kind, what: String, remedy: &str| Finding {
        path: path.to_owned(),
        topic: None,
        partition: None,
        kind,
        position: 0,
        bytes: bytes.len() as u64,
        lost: None,
        what,
        remedy: remedy.to_owned(),
        mended: false,
    };
    match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Err(err) => {
            let finding = finding(kind, format!("it is not readable: {err}"), remedy);
            Ok(Checked::Wrong(Wrong { finding, fix }))
        }
        Ok(json) => match json.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format > u64::from(FORMAT) => {
                let what = format!("it has format {format}, this version reads up to {FORMAT}");
                let finding = finding(Kind::NewerFormat, what, "upgrade telemetry-broker");
                Ok(Checked::Wrong(Wrong { finding, fix: Fix::Nothing }))
            }
            _ => Ok(Checked::Json(json)),
        },
    }
}

enum Checked {
    Absent,
    Json(serde_json::Value),
    Wrong(Wrong),
}

const RESTORE_TOPIC: &str = "restore it from a backup, or copy the topic.json of a topic that is configured alike: the \
                             broker does not start without it, and repair cannot know the configuration and the groups";
const RENEW_BROKER: &str =
    "repair moves it aside and the next start makes a new one; lease ids given before are refused then";

fn walk(disk: &dyn Disk, dir: &Path, scope: &Scope, progress: &mut Progress<'_>, mend: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut conclude = |wrong: Wrong| -> Result<()> {
        let Wrong { mut finding, fix } = wrong;
        finding.mended = mend && fix.apply(disk, &finding.path)?;
        findings.push(finding);
        Ok(())
    };
    let path = dir.join("broker.json");
    if let Checked::Wrong(wrong) = check_json(disk, &path, Kind::UnreadableBroker, RENEW_BROKER, Fix::SetAside)? {
        conclude(wrong)?;
    }
    let mut partitions = Vec::new();
    for topic in topics(disk, dir)? {
        if scope.topic.as_ref().is_some_and(|wanted| *wanted != topic) {
            continue;
        }
        let topic_dir = dir.join(&topic);
        let path = topic_dir.join("topic.json");
        let mut known = 0;
        match check_json(disk, &path, Kind::UnreadableTopic, RESTORE_TOPIC, Fix::Nothing)? {
            Checked::Json(json) => {
                known = json.pointer("/config/partitions").and_then(serde_json::Value::as_u64).unwrap_or(0);
            }
            Checked::Wrong(mut wrong) => {
                wrong.finding.topic = Some(topic.clone());
                conclude(wrong)?;
            }
            Checked::Absent => conclude(missing_topic(&path, &topic))?,
        }
        let names = list(disk, &topic_dir)?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| partition_number(name)).collect();
        numbers.sort_unstable();
        for number in 0..u32::try_from(known).unwrap_or(u32::MAX).min(MAX_PARTITIONS) {
            if !numbers.contains(&number) && scope.partition.is_none_or(|wanted| wanted == number) {
                conclude(missing_partition(&topic_dir, &topic, number))?;
            }
        }
        for number in numbers {
            if scope.partition.is_none_or(|wanted| wanted == number) {
                let dir = topic_dir.join(format!("partition-{number}"));
                partitions.push(PartitionFolder { dir, topic: topic.clone(), number });
            }
        }
    }
    if partitions.is_empty() && (scope.topic.is_some() || scope.partition.is_some()) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("{} has no partition that was asked for; leave the restriction out to see all", dir.display()),
        ));
    }
    let mut total = 0;
    for partition in &partitions {
        total += partition.bytes(disk)?;
    }
    let mut meter = Meter { done: 0, total, told: 0, progress: &mut |done, total| progress(done, total) };
    for partition in &partitions {
        if mend {
            findings.extend(partition.repair(disk, &mut meter)?);
        } else {
            findings.extend(partition.survey(disk, &mut meter)?.into_iter().map(|wrong| wrong.finding));
        }
    }
    meter.finish()?;
    Ok(findings)
}

fn missing_topic(path: &Path, topic: &str) -> Wrong {
    let finding = Finding {
        path: path.to_owned(),
        topic: Some(topic.to_owned()),
        partition: None,
        kind: Kind::UnreadableTopic,
        position: 0,
        bytes: 0,
        lost: None,
        what: "it is missing, so the broker does not see the topic's partitions".to_owned(),
        remedy: format!("{RESTORE_TOPIC}; remove the folder where making the topic was interrupted"),
        mended: false,
    };
    Wrong { finding, fix: Fix::Nothing }
}

fn missing_partition(topic_dir: &Path, topic: &str, number: u32) -> Wrong {
    let finding = Finding {
        path: topic_dir.join(format!("partition-{number}")),
        topic: Some(topic.to_owned()),
        partition: Some(number),
        kind: Kind::MissingPartition,
        position: 0,
        bytes: 0,
        lost: None,
        what: "the folder is missing, and with it all records of the partition".to_owned(),
        remedy: "restore it from a backup; otherwise the next start of the broker makes an empty partition".to_owned(),
        mended: false,
    };
    Wrong { finding, fix: Fix::Nothing }
}
