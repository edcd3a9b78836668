//! One segment: a run of frames in one file.
//!
//! File `{base_offset:020}.log`; the name is built and parsed only here. It starts with
//! `magic "TBRKLOG\0" | format u32 | crc32c u32 of the rest | log id [16] | base_offset u64`, [`HEADER_BYTES`] in all.
//!
//! The index has an entry for the first frame behind every [`INDEX_STEP`] bytes, in memory only, rebuilt from the frame
//! headers when the segment is opened.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Frame, Header};
use super::state::{FORMAT, LogId};
use crate::disk::{Disk, File};
use crate::error::{Code, Error, Result};

const MAGIC: &[u8; 8] = b"TBRKLOG\0";
/// Bytes in front of the first frame.
pub const HEADER_BYTES: u64 = 40;
/// Bytes between index entries, about.
const INDEX_STEP: u64 = 64 << 10;
/// Bytes read at a time in a scan of small frames.
const READ_BYTES: usize = 256 << 10;
/// How far behind the last read another one may begin to be taken for a scan of small frames.
const NEAR_BYTES: u64 = 4 << 10;
/// Bytes of frames that wait to be written together, at most.
const MAX_DEFERRED_BYTES: usize = 1 << 20;
/// Space reserved ahead of the last frame: four times as much as the segment has, so that a small log takes little, within
/// these.
///
/// A write into space that is reserved costs the file system a third less: it looks for blocks once, not at each page. A
/// reservation itself can wait milliseconds for the file system's journal.
const RESERVE_BYTES: RangeInclusive<u64> = 64 << 10..=16 << 20;
/// Frames above this are read by themselves: they gain nothing from reading ahead, and are not copied twice.
const LARGE_FRAME_BYTES: usize = 64 << 10;

/// Where a frame stands, and when it came.
#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    offset: u64,
    position: u64,
    append_ns: i64,
}

/// Where a segment stops being readable.
#[derive(Debug, Clone)]
pub struct Damage {
    /// Byte of the first bad frame.
    pub position: u64,
    /// The offset that frame should hold first.
    pub offset: u64,
    /// Behind the last offset that is lost.
    pub end: u64,
}

/// A segment that is open.
pub struct Segment {
    path: PathBuf,
    file: Arc<dyn File>,
    base: u64,
    end: u64,
    len: u64,
    last_append_ns: i64,
    index: Vec<IndexEntry>,
    damage: Option<Damage>,
    /// The last frames, where they are not in the file yet; part of `len`.
    deferred: Vec<u8>,
    /// Bytes of the file for which space is sure; 0: not known.
    reserved: u64,
    /// Size that the segment may come to; nothing is reserved behind it but for a frame that crosses it.
    room: u64,
    /// Size that it is expected to come to: space up to there is reserved at once.
    expected: u64,
}

/// What opening a segment found behind the last frame that is whole.
pub enum Tail {
    /// Nothing.
    Whole,
    /// Bytes that are no frame, from the segment's `len` on.
    Torn {
        /// How many.
        bytes: u64,
    },
}

/// The name of the segment that begins at `base`.
pub(crate) fn name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The base offset in a segment's file name; None for other files.
pub fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// What the first bytes of a file say about it.
pub(crate) enum Identity {
    /// A segment.
    Of {
        /// Of this log.
        log_id: LogId,
        /// Its first offset.
        base: u64,
    },
    /// A segment of a format to come.
    Newer {
        /// That one.
        format: u32,
    },
    /// Nothing.
    Unreadable,
}

/// Reads a segment's header; `raw` may be longer or shorter.
pub(crate) fn identify(raw: &[u8]) -> Identity {
    let Some(raw) = raw.first_chunk::<40>() else { return Identity::Unreadable };
    let (magic, rest) = (&raw[..8], &raw[16..]);
    let format = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]);
    let crc = u32::from_le_bytes([raw[12], raw[13], raw[14], raw[15]]);
    if magic == MAGIC && format > FORMAT {
        return Identity::Newer { format };
    }
    if magic != MAGIC || crc != crc32c::crc32c(rest) {
        return Identity::Unreadable;
    }
    let (mut log_id, mut base) = (LogId([0; 16]), [0; 8]);
    log_id.0.copy_from_slice(&rest[..16]);
    base.copy_from_slice(&rest[16..]);
    Identity::Of { log_id, base: u64::from_le_bytes(base) }
}

/// A segment's header.
pub(crate) fn header_bytes(log_id: LogId, base: u64) -> Vec<u8> {
    let mut rest = Vec::with_capacity(24);
    rest.extend_from_slice(&log_id.0);
    rest.extend_from_slice(&base.to_le_bytes());
    let mut header = Vec::with_capacity(40);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
    header.extend_from_slice(&rest);
    header
}

impl Segment {
    /// Makes the file of a new segment. The folder is not synced yet.
    pub fn create(disk: &dyn Disk, dir: &Path, log_id: LogId, base: u64) -> io::Result<Segment> {
        let path = dir.join(name(base));
        let file = match disk.create(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                // Left behind by a roll that failed before its first frame.
                disk.remove_file(&path)?;
                disk.create(&path)?
            }
            other => other?,
        };
        if let Err(err) = file.write_at(0, &header_bytes(log_id, base)) {
            // What is left would be taken for a damaged segment after a clean stop.
            disk.remove_file(&path)?;
            return Err(err);
        }
        Ok(Self::empty(path, file, base))
    }

    /// Makes a file that has space already a new segment: a rename needs none. The folder is not synced yet.
    pub fn adopt(disk: &dyn Disk, dir: &Path, log_id: LogId, base: u64, spare: &Path) -> io::Result<Segment> {
        let path = dir.join(name(base));
        let file = disk.open(spare)?;
        file.write_at(0, &header_bytes(log_id, base))?;
        file.set_len(HEADER_BYTES)?;
        disk.rename(spare, &path)?;
        Ok(Self::empty(path, file, base))
    }

    fn empty(path: PathBuf, file: Arc<dyn File>, base: u64) -> Segment {
        Segment {
            path,
            file,
            base,
            end: base,
            len: HEADER_BYTES,
            last_append_ns: 0,
            index: Vec::new(),
            damage: None,
            deferred: Vec::new(),
            reserved: 0,
            room: u64::MAX,
            expected: 0,
        }
    }

    /// Opens a segment and walks its frame headers up to the first that is none; `seen` gets each of them.
    ///
    /// CRCs are not looked at: see [`Segment::verify_from`].
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        log_id: LogId,
        base: u64,
        mut seen: impl FnMut(u64, &Header),
    ) -> Result<(Segment, Tail)> {
        let path = dir.join(name(base));
        let open = || -> io::Result<(Arc<dyn File>, u64)> {
            let file = disk.open(&path)?;
            let len = file.len()?;
            Ok((file, len))
        };
        let (file, file_len) = open().map_err(|err| Error::io("open", &path, &err))?;
        let mut segment = Self::empty(path, file, base);
        if !segment.check_header(log_id, base, file_len)? {
            segment.len = 0;
            return Ok((segment, Tail::Torn { bytes: file_len }));
        }
        let mut position = HEADER_BYTES;
        let mut reader = Reader::default();
        while file_len - position >= frame::HEADER_BYTES as u64 {
            let header = reader.header(&segment, position, file_len)?;
            let Some(header) = header else { break };
            let follows = segment.end.checked_add(header.skipped) == Some(header.base_offset);
            if !follows || header.frame_bytes() > file_len - position {
                break;
            }
            seen(position, &header);
            segment.push(&header);
            position += header.frame_bytes();
        }
        let bytes = file_len - position;
        Ok((segment, if bytes == 0 { Tail::Whole } else { Tail::Torn { bytes } }))
    }

    /// Whether the file has a header; a header of another log or of a newer format is an error.
    fn check_header(&self, log_id: LogId, base: u64, file_len: u64) -> Result<bool> {
        if file_len < HEADER_BYTES {
            return Ok(false);
        }
        let mut raw = [0; 40];
        self.read(0, &mut raw)?;
        match identify(&raw) {
            Identity::Unreadable => Ok(false),
            Identity::Of { log_id: said_id, base: said_base } if (said_id, said_base) == (log_id, base) => Ok(true),
            Identity::Of { .. } => Err(Error::new(
                Code::DataFormat,
                format!(
                    "{} belongs to another partition or was renamed; `python -m telemetry_broker log repair DIR` gives it its \
                     name back, or moves it out of the folder of {log_id:?}",
                    self.path.display()
                ),
            )),
            Identity::Newer { format } => Err(Error::new(
                Code::DataFormat,
                format!(
                    "{} has format {format}, this version reads up to {FORMAT}; upgrade telemetry-broker",
                    self.path.display()
                ),
            )),
        }
    }

    fn push(&mut self, header: &Header) {
        if self.index.last().is_none_or(|last| self.len >= last.position + INDEX_STEP) {
            self.index.push(IndexEntry { offset: header.base_offset, position: self.len, append_ns: header.append_ns });
        }
        self.len += header.frame_bytes();
        self.end = header.end_offset();
        self.last_append_ns = header.append_ns;
    }

    /// About when the first record at or above `offset` was appended, from what is in memory: the index has a frame every
    /// [`INDEX_STEP`], and between two of them offsets are taken to have come evenly. None where no such record is here.
    pub fn append_ns_near(&self, offset: u64) -> Option<i64> {
        let behind = self.index.partition_point(|entry| entry.offset <= offset).max(1);
        let before = self.index.get(behind - 1)?;
        let offset = offset.max(before.offset);
        if offset >= self.end {
            return None;
        }
        let after =
            self.index.get(behind).map_or((self.end, self.last_append_ns), |entry| (entry.offset, entry.append_ns));
        let share = (offset - before.offset) as f64 / (after.0 - before.offset) as f64;
        let ns = (after.1 - before.append_ns) as f64 * share;
        #[expect(clippy::cast_possible_truncation, reason = "a part of what is an i64")]
        Some(before.append_ns + ns as i64)
    }

    /// Checks the CRC of every frame that ends above `offset`, and cuts the segment's view at the first bad one.
    ///
    /// Returns the bytes behind the cut, 0 when all frames are sound.
    pub fn verify_from(&mut self, offset: u64) -> Result<u64> {
        let (whole_len, mut position) = (self.len, self.position_before(offset.saturating_sub(1)));
        let (mut reader, mut append_ns) = (Reader::default(), 0);
        while position < whole_len {
            let (header, next) = self.header_at(&mut reader, position)?;
            // A frame without records ends where the one before it does, so it may be newer than `offset`. One with records
            // that end there is not, and damage to it is no reason to doubt what was written behind it.
            let is_above = header.end_offset() > offset || header.count == 0 && header.end_offset() == offset;
            if is_above && self.frame_at(&mut reader, position)?.is_none() {
                self.cut_view(position, header.base_offset - header.skipped, append_ns);
                return Ok(whole_len - position);
            }
            (position, append_ns) = (next, header.append_ns);
        }
        Ok(0)
    }

    fn cut_view(&mut self, position: u64, end: u64, append_ns: i64) {
        self.index.retain(|entry| entry.position < position);
        // The header of what was cut says nothing that can be trusted.
        self.last_append_ns = append_ns.max(self.index.last().map_or(0, |entry| entry.append_ns));
        self.len = position;
        self.end = end;
    }

    /// Whether a whole frame stands anywhere behind the last one of the run: no interrupted write leaves that behind.
    pub fn frame_follows(&self) -> Result<bool> {
        let file_len = self.file.len().map_err(|err| Error::io("read", &self.path, &err))?;
        let mut rest = vec![0; usize::try_from(file_len.saturating_sub(self.len)).unwrap_or(0)];
        self.read(self.len, &mut rest)?;
        for start in 1..rest.len() {
            let Some(raw) = rest[start..].first_chunk() else { break };
            let Some(header) = Header::parse(raw) else { continue };
            let end = start.saturating_add(usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX));
            let plausible = header.base_offset >= self.end && end <= rest.len();
            if plausible && Frame::parse(rest[start..end].to_vec()).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a file without a whole header a segment without frames again.
    pub fn renew(&mut self, log_id: LogId) -> io::Result<()> {
        self.file.write_at(0, &header_bytes(log_id, self.base))?;
        self.len = HEADER_BYTES;
        self.truncate()
    }

    /// Writes every byte and the length once more, so that the next sync takes them to the disk.
    pub fn write_anew(&self) -> io::Result<()> {
        let (mut position, mut buf) = (0, vec![0; READ_BYTES]);
        loop {
            let read = self.file.read_at(position, &mut buf)?;
            if read == 0 {
                return self.file.set_len(position);
            }
            self.file.write_at(position, &buf[..read])?;
            position += read as u64;
        }
    }

    /// Cuts the file at the end of the last whole frame.
    pub fn truncate(&self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync()
    }

    /// Seals the segment with a damaged range up to `end`, exclusive: reads of it fail.
    pub fn seal_damaged(&mut self, end: u64) {
        self.damage = Some(Damage { position: self.len, offset: self.end, end });
    }

    /// Writes a frame at the end. After an error the view is unchanged; the file may have a part of the frame.
    pub fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.write_out()?;
        // What cannot be reserved may still be written: on a disk that is nearly full, or cannot reserve.
        let _ = self.reserve(frame);
        self.file.write_at(self.len, frame.bytes())?;
        self.push(frame.header());
        Ok(())
    }

    /// Whether space for the frame is sure; reserves more where it is not.
    fn reserve(&mut self, frame: &Frame) -> io::Result<bool> {
        let end = self.len + frame.bytes().len() as u64;
        if end > self.reserved {
            let ahead = end + (4 * self.len).clamp(*RESERVE_BYTES.start(), *RESERVE_BYTES.end());
            let wanted = ahead.max(self.expected).min(self.room).max(end);
            if !self.file.reserve(wanted)? {
                return Ok(false);
            }
            self.reserved = wanted;
        }
        Ok(true)
    }

    /// Appends a frame that [`Segment::write_out`] puts into the file, together with those that come until then. There is
    /// room for it: where that is not sure it is written now.
    pub fn defer(&mut self, frame: &Frame) -> io::Result<()> {
        if self.deferred.len() + frame.bytes().len() > MAX_DEFERRED_BYTES || !self.reserve(frame)? {
            return self.write(frame);
        }
        self.deferred.extend_from_slice(frame.bytes());
        self.push(frame.header());
        Ok(())
    }

    /// Writes the frames that were deferred. After an error they may stand in the file in part.
    pub fn write_out(&mut self) -> io::Result<()> {
        if !self.deferred.is_empty() {
            self.file.write_at(self.written(), &self.deferred)?;
            self.deferred.clear();
        }
        Ok(())
    }

    /// Cuts off what a failed [`Segment::write`] or [`Segment::defer`] left of its frame. What was deferred before stays so,
    /// and keeps the space reserved for it: nothing is cut where nothing was written.
    pub fn undo(&mut self) -> io::Result<()> {
        if self.file.len()? > self.written() { self.cut(self.written()) } else { Ok(()) }
    }

    /// Says how large the segment may become, and how large the one before it became.
    pub fn expect(&mut self, room: u64, before: u64) {
        (self.room, self.expected) = (room, before.min(room));
    }

    /// Gives back the space that is reserved and not needed any more, where it is more than `least`.
    pub fn trim(&mut self, least: u64) -> io::Result<()> {
        let spare = self.reserved.saturating_sub(self.len);
        if spare > least && self.deferred.is_empty() { self.cut(self.len) } else { Ok(()) }
    }

    /// Also takes the space behind the end away.
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.reserved = 0;
        self.file.set_len(len)
    }

    /// First offset, as in its name.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Behind the last record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes up to the end of the last whole frame.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Append time of the newest frame; 0 when there is none.
    pub fn last_append_ns(&self) -> i64 {
        self.last_append_ns
    }

    /// Append time of the oldest frame; None when there is none.
    pub fn first_append_ns(&self) -> Option<i64> {
        self.index.first().map(|entry| entry.append_ns)
    }

    /// Whether frames wait for [`Segment::write_out`].
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Bytes up to the end of the last frame that is in the file.
    fn written(&self) -> u64 {
        self.len - self.deferred.len() as u64
    }

    /// Its damaged range, if it has one.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The open file, for syncs.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, position: u64, buf: &mut [u8]) -> Result<()> {
        match self.file.read_at(position, buf) {
            Ok(read) if read == buf.len() => Ok(()),
            Ok(_) => Err(self.became_shorter()),
            Err(err) => Err(Error::io("read", &self.path, &err)),
        }
    }

    fn became_shorter(&self) -> Error {
        Error::new(Code::LogCorrupt, format!("{} became shorter while it was open", self.path.display()))
    }

    fn position_before(&self, offset: u64) -> u64 {
        let after = self.index.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map_or(HEADER_BYTES, |index| self.index[index].position)
    }

    /// A frame that ends above `offset`, the first such; None at the end of what is written.
    pub fn find(&self, reader: &mut Reader, offset: u64) -> Result<Option<Arc<Frame>>> {
        if let Some(frame) = reader.frame(self.base, offset) {
            return Ok(Some(frame));
        }
        let mut position = reader.next_position(self.base, offset).unwrap_or_else(|| self.position_before(offset));
        while position < self.written() {
            let (header, next) = self.header_at(reader, position)?;
            if header.count > 0 && header.end_offset() > offset {
                let frame =
                    self.frame_at(reader, position)?.ok_or_else(|| self.corrupt(position, header.base_offset))?;
                let frame = Arc::new(frame);
                reader.last = Some(Last { segment: self.base, next_position: next, frame: frame.clone() });
                return Ok(Some(frame));
            }
            position = next;
        }
        match &self.damage {
            Some(damage) if offset < damage.end => Err(self.corrupt(damage.position, damage.offset)),
            _ => Ok(None),
        }
    }

    /// The offset of the first frame appended at or after `time_ns`; None when there is none.
    pub fn offset_at(&self, reader: &mut Reader, time_ns: i64) -> Result<Option<u64>> {
        if self.last_append_ns < time_ns {
            return Ok(None);
        }
        let after = self.index.partition_point(|entry| entry.append_ns < time_ns);
        let mut position = after.checked_sub(1).map_or(HEADER_BYTES, |index| self.index[index].position);
        while position < self.written() {
            let (header, next) = self.header_at(reader, position)?;
            if header.append_ns >= time_ns && header.count > 0 {
                return Ok(Some(header.base_offset));
            }
            position = next;
        }
        Ok(None)
    }

    fn header_at(&self, reader: &mut Reader, position: u64) -> Result<(Header, u64)> {
        let header = reader.header(self, position, self.written())?.ok_or_else(|| self.corrupt(position, self.base))?;
        Ok((header, position + header.frame_bytes()))
    }

    fn frame_at(&self, reader: &mut Reader, position: u64) -> Result<Option<Frame>> {
        let (_, next) = self.header_at(reader, position)?;
        let len = usize::try_from(next - position).unwrap_or(usize::MAX);
        if len <= LARGE_FRAME_BYTES {
            return Ok(Frame::parse(reader.bytes(self, position, len, self.written())?.to_vec()));
        }
        let bytes = self.file.read(position, len).map_err(|err| Error::io("read", &self.path, &err))?;
        if bytes.len() < len {
            return Err(self.became_shorter());
        }
        Ok(Frame::parse(bytes))
    }

    fn corrupt(&self, position: u64, offset: u64) -> Error {
        Error::new(
            Code::LogCorrupt,
            format!(
                "{}: damaged at byte {position} (offset {offset}), before the last fsync, so nothing was cut; reads of these \
                 offsets fail, writing and later segments go on. Stop the broker, list the damage with `python -m \
                 telemetry_broker log verify DIR`, and restore the file, or mend it with `python -m telemetry_broker log repair \
                 DIR`; or seek the group behind the damage",
                self.path.display()
            ),
        )
    }
}

/// Bytes of a segment read ahead, and the last frame found, so that reading on is a sequential scan and a frame that is
/// read in parts is read from the disk once.
#[derive(Default)]
pub struct Reader {
    segment: u64,
    position: u64,
    bytes: Vec<u8>,
    last: Option<Last>,
}

struct Last {
    segment: u64,
    next_position: u64,
    frame: Arc<Frame>,
}

impl Reader {
    /// The last frame found, if it is one of this segment and has this offset.
    fn frame(&self, segment: u64, offset: u64) -> Option<Arc<Frame>> {
        let last = self.last.as_ref().filter(|last| last.segment == segment)?;
        let header = last.frame.header();
        (header.base_offset..header.end_offset()).contains(&offset).then(|| last.frame.clone())
    }

    /// Where the frame behind the last one stands, if it begins with this offset.
    fn next_position(&self, segment: u64, offset: u64) -> Option<u64> {
        let last = self.last.as_ref()?;
        (last.segment == segment && last.frame.header().end_offset() == offset).then_some(last.next_position)
    }

    /// The header at `position`; None when those bytes are none.
    fn header(&mut self, segment: &Segment, position: u64, end: u64) -> Result<Option<Header>> {
        let mut raw = [0; frame::HEADER_BYTES];
        raw.copy_from_slice(self.bytes(segment, position, frame::HEADER_BYTES, end)?);
        Ok(Header::parse(&raw))
    }

    /// `len` bytes from `position` on. In a scan of small frames, what follows up to `end` is read along.
    fn bytes(&mut self, segment: &Segment, position: u64, len: usize, end: u64) -> Result<&[u8]> {
        let have = self.position..self.position + self.bytes.len() as u64;
        if self.segment != segment.base || !have.contains(&position) || have.end < position + len as u64 {
            let available = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
            let is_scan = self.segment == segment.base && (have.start..have.end + NEAR_BYTES).contains(&position);
            let ahead = if is_scan { READ_BYTES.min(available) } else { 0 };
            self.bytes.resize(ahead.max(len), 0);
            (self.segment, self.position) = (segment.base, position);
            if let Err(err) = segment.read(position, &mut self.bytes) {
                self.bytes.clear();
                return Err(err);
            }
        }
        let start = usize::try_from(position - self.position).unwrap_or(usize::MAX);
        Ok(&self.bytes[start..start + len])
    }
}
