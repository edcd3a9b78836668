//! Frames of one partition, as they stand in its segments.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use super::partition::segment_paths;
use super::{Hole, Piece, Scan, enter};
use crate::disk::{Disk, RealDisk};
use crate::error::{Code, Error, Result};
use crate::log::frame::{HEADER_BYTES, Header};

/// What stands next in a partition.
#[derive(Debug, Clone)]
pub enum Dumped {
    /// A whole frame.
    Frame {
        /// Its segment.
        segment: PathBuf,
        /// Its first byte.
        position: u64,
        /// Its fields.
        header: Header,
        /// Its records, as entries.
        records: Vec<u8>,
    },
    /// Damage.
    Hole {
        /// Its segment.
        segment: PathBuf,
        /// Where, and what is lost.
        hole: Hole,
    },
}

/// A walk over the frames of a partition that reach into a range of offsets.
pub struct Dump {
    disk: Arc<dyn Disk>,
    segments: vec::IntoIter<(u64, PathBuf)>,
    current: Option<(PathBuf, Scan)>,
    offsets: Range<u64>,
    _lock: Option<File>,
}

impl Dump {
    /// Opens a partition in a broker's folder, which is locked as long as the walk lives.
    pub fn open(dir: &Path, topic: &str, partition: u32, offsets: Range<u64>) -> Result<Dump> {
        let (dir, lock) = enter(dir)?;
        let dump = Self::open_on(Arc::new(RealDisk), &dir, topic, partition, offsets)?;
        Ok(Dump { _lock: Some(lock), ..dump })
    }

    /// See [`Dump::open`]; on any disk, and without a lock.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, topic: &str, partition: u32, offsets: Range<u64>) -> Result<Dump> {
        if !super::topics(&*disk, dir)?.iter().any(|name| name == topic) {
            return Err(Error::new(Code::TopicNotFound, format!("{} has no topic {topic:?}", dir.display())));
        }
        let partition_dir = dir.join(topic).join(format!("partition-{partition}"));
        if super::list(&*disk, &partition_dir)?.is_empty() {
            let message = format!("topic {topic:?} in {} has no partition {partition}", dir.display());
            return Err(Error::new(Code::PartitionNotFound, message));
        }
        let mut segments = segment_paths(&*disk, &partition_dir)?;
        let first = segments.partition_point(|&(base, _)| base <= offsets.start).saturating_sub(1);
        segments.drain(..first);
        Ok(Dump { disk, segments: segments.into_iter(), current: None, offsets, _lock: None })
    }

    /// The next frame, or damage; None at the end. Frames without records are shown too.
    pub fn next_dumped(&mut self) -> Result<Option<Dumped>> {
        loop {
            let Some((path, scan)) = &mut self.current else {
                match self.segments.next() {
                    Some((base, _)) if base >= self.offsets.end => return Ok(None),
                    Some((base, path)) => self.current = Some((path.clone(), Scan::open(&*self.disk, &path, base)?)),
                    None => return Ok(None),
                }
                continue;
            };
            match scan.next_piece()? {
                None => self.current = None,
                Some(Piece::Frame { header, .. }) if header.base_offset >= self.offsets.end => return Ok(None),
                Some(Piece::Frame { position, header }) => {
                    if header.end_offset().max(header.base_offset + 1) > self.offsets.start {
                        let records = scan.frame_bytes(position, &header)?[HEADER_BYTES..].to_vec();
                        return Ok(Some(Dumped::Frame { segment: path.clone(), position, header, records }));
                    }
                }
                Some(Piece::Hole(hole)) => return Ok(Some(Dumped::Hole { segment: path.clone(), hole })),
            }
        }
    }
}
