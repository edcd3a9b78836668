//! Reads one segment file frame by frame, and goes on behind damage.
//!
//! A frame is taken where its CRC holds and its offsets lie at or above the end of the frame before. Where none stands, the
//! search goes on behind the damaged frame if its own header is in order, else at the next byte at which a whole frame
//! of a later offset begins. A frame that a record carries in its value is therefore only mistaken for one of the log
//! where the header of the frame around it is damaged.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, File};
use crate::error::{Error, Result};
use crate::log::frame::{self, Header, PREFIX_BYTES};
use crate::log::segment;

/// Bytes read at a time; frames of up to 8 MiB are read whole beside it.
const READ_BYTES: u64 = 4 << 20;

/// Bytes of a segment that are no frame, or offsets that no frame accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The bytes: up to where whole frames go on, or to the end of the file.
    pub bytes: Range<u64>,
    /// The offsets; empty at the end of a file, which does not say how many there were.
    pub lost: Range<u64>,
}

/// The next part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A whole frame.
    Frame {
        /// Its first byte.
        position: u64,
        /// Its fields.
        header: Header,
    },
    /// Damage.
    Hole(Hole),
}

/// A walk over a segment file.
pub struct Scan {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    position: u64,
    end: u64,
    last_append_ns: i64,
    synced_end: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Scan {
    /// A walk over the file at `path`, whose first offset is `base`.
    pub fn open(disk: &dyn Disk, path: &Path, base: u64) -> Result<Scan> {
        let file = disk.open(path).map_err(|err| Error::io("open", path, &err))?;
        let len = file.len().map_err(|err| Error::io("read", path, &err))?;
        Ok(Scan {
            path: path.to_owned(),
            file,
            len,
            position: segment::HEADER_BYTES.min(len),
            end: base,
            last_append_ns: i64::MIN,
            synced_end: 0,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// The segment's header, as far as the file reaches.
    pub fn segment_header(&mut self) -> Result<Vec<u8>> {
        Ok(self.bytes(0, segment::HEADER_BYTES.min(self.len))?.to_vec())
    }

    /// Bytes in the file.
    pub fn file_bytes(&self) -> u64 {
        self.len
    }

    /// Bytes walked so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Behind the last offset met so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The highest `synced_end` met so far.
    pub fn synced_end(&self) -> u64 {
        self.synced_end
    }

    /// Append time of the last frame; 0 when there was none.
    pub fn last_append_ns(&self) -> i64 {
        if self.last_append_ns == i64::MIN { 0 } else { self.last_append_ns }
    }

    /// The next frame or hole; None at the end of the file.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.position >= self.len {
            return Ok(None);
        }
        let position = self.position;
        if let Some(header) = self.sound_at(position)? {
            let start = header.base_offset - header.skipped;
            if start == self.end {
                self.position += header.frame_bytes();
                self.end = header.end_offset();
                self.last_append_ns = self.last_append_ns.max(header.append_ns);
                self.synced_end = self.synced_end.max(header.synced_end);
                return Ok(Some(Piece::Frame { position, header }));
            }
            if header.base_offset >= self.end {
                // No byte is bad, but the frames do not follow each other.
                let lost = self.end.min(start)..start;
                self.end = start;
                return Ok(Some(Piece::Hole(Hole { bytes: position..position, lost })));
            }
        }
        let (until, start) = self.find_sound()?;
        let hole = Hole { bytes: position..until, lost: self.end..start };
        (self.position, self.end) = (until, start);
        Ok(Some(Piece::Hole(hole)))
    }

    /// The bytes of a frame that [`Scan::next_piece`] gave.
    pub fn frame_bytes(&mut self, position: u64, header: &Header) -> Result<&[u8]> {
        self.bytes(position, header.frame_bytes())
    }

    /// Where the next frame behind the damage at `position` stands and what offset it follows; the end of the file and
    /// of the offsets where there is none.
    fn find_sound(&mut self) -> Result<(u64, u64)> {
        let none = (self.len, self.end);
        if let Some(header) = self.header_at(self.position)?
            && header.base_offset - header.skipped == self.end
        {
            let behind = self.position + header.frame_bytes();
            if behind == self.len {
                return Ok(none);
            }
            if let Some(start) = self.later_at(behind)? {
                return Ok((behind, start));
            }
        }
        for position in self.position + 1..self.len {
            if let Some(start) = self.later_at(position)? {
                return Ok((position, start));
            }
        }
        Ok(none)
    }

    /// The offset that a whole frame at `position` follows, if there is one that can stand behind those before it.
    fn later_at(&mut self, position: u64) -> Result<Option<u64>> {
        let (end, last_append_ns) = (self.end, self.last_append_ns);
        let later = |header: &Header| {
            let start = header.base_offset - header.skipped;
            (start >= end && header.append_ns >= last_append_ns).then_some(start)
        };
        let Some(header) = self.header_at(position)? else { return Ok(None) };
        if later(&header).is_none() {
            return Ok(None);
        }
        Ok(self.sound_at(position)?.as_ref().and_then(later))
    }

    /// The fields of a frame that may stand at `position`, unchecked by its CRC.
    fn header_at(&mut self, position: u64) -> Result<Option<Header>> {
        let room = self.len.saturating_sub(position);
        if room < frame::HEADER_BYTES as u64 {
            return Ok(None);
        }
        let raw = self.bytes(position, frame::HEADER_BYTES as u64)?;
        let header = raw.first_chunk().and_then(Header::parse);
        Ok(header.filter(|header| header.frame_bytes() <= room && header.skipped <= header.base_offset))
    }

    fn sound_at(&mut self, position: u64) -> Result<Option<Header>> {
        let Some(header) = self.header_at(position)? else { return Ok(None) };
        let bytes = self.bytes(position, header.frame_bytes())?;
        Ok((crc32c::crc32c(&bytes[PREFIX_BYTES..]) == header.crc).then_some(header))
    }

    fn bytes(&mut self, position: u64, len: u64) -> Result<&[u8]> {
        let have = self.window_start..self.window_start + self.window.len() as u64;
        if position < have.start || position + len > have.end {
            let wanted = READ_BYTES.max(len).min(self.len - position);
            self.window.resize(usize::try_from(wanted).unwrap_or(usize::MAX), 0);
            let read = self.file.read_at(position, &mut self.window);
            let read = read.map_err(|err| Error::io("read", &self.path, &err))?;
            self.window.truncate(read);
            self.window_start = position;
            if (read as u64) < len {
                let err = std::io::Error::other("it became shorter while it was read");
                return Err(Error::io("read", &self.path, &err));
            }
        }
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        Ok(&self.window[start..start + usize::try_from(len).unwrap_or(usize::MAX)])
    }
}
