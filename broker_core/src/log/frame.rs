//! Frames: what a batch becomes in a segment.
//!
//! Layout (little-endian, [`HEADER_BYTES`] in front of the records):
//! `len u32 | crc32c u32 | base_offset u64 | count u32 | skipped u64 | append_ns i64 | producer_id u64 | sequence u64 |
//! synced_end u64 | records`. `len` counts what follows the CRC, and the CRC covers exactly that. The records are the
//! entries of a checked batch, see [`crate::wire::record`].

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, entries_end};

/// Bytes in front of a frame's records.
pub const HEADER_BYTES: usize = 60;
/// Bytes of `len` and CRC, which `len` does not count.
pub const PREFIX_BYTES: usize = 8;

/// A frame's memory may be larger than its bytes by this part of them.
const MOST_SPARE: usize = 8;

/// No offset is as high, so that sums of two of them cannot overflow.
pub const MAX_OFFSET: u64 = 1 << 62;

/// The fields of a frame in front of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes behind the CRC.
    pub len: u32,
    /// CRC-32C of them.
    pub crc: u32,
    /// Offset of the first record; of the next one where there is none.
    pub base_offset: u64,
    /// Records.
    pub count: u32,
    /// Offsets left out in front of `base_offset`, never given to any record.
    pub skipped: u64,
    /// When the broker appended it, wall clock.
    pub append_ns: i64,
    /// Hash of the producer's name; 0: none.
    pub producer_id: u64,
    /// The batch's sequence; 0: none.
    pub sequence: u64,
    /// Everything below was on disk when this was written.
    pub synced_end: u64,
}

macro_rules! field {
    ($bytes:expr, $at:literal, $type:ty) => {{
        let mut raw = [0; size_of::<$type>()];
        raw.copy_from_slice(&$bytes[$at..$at + size_of::<$type>()]);
        <$type>::from_le_bytes(raw)
    }};
}

impl Header {
    /// Reads a header; None when its numbers cannot be a frame's.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let header = Header {
            len: field!(bytes, 0, u32),
            crc: field!(bytes, 4, u32),
            base_offset: field!(bytes, 8, u64),
            count: field!(bytes, 16, u32),
            skipped: field!(bytes, 20, u64),
            append_ns: field!(bytes, 28, i64),
            producer_id: field!(bytes, 36, u64),
            sequence: field!(bytes, 44, u64),
            synced_end: field!(bytes, 52, u64),
        };
        let records = (header.len as usize).checked_sub(HEADER_BYTES - PREFIX_BYTES)?;
        let plausible = records <= MAX_BATCH_BYTES
            && header.count <= MAX_BATCH_RECORDS
            && records >= 2 * header.count as usize
            && (header.count > 0 || records == 0)
            && header.synced_end <= header.base_offset
            && header.base_offset < MAX_OFFSET;
        plausible.then_some(header)
    }

    /// Writes it to the first [`HEADER_BYTES`].
    fn put(&self, frame: &mut [u8]) {
        frame[..4].copy_from_slice(&self.len.to_le_bytes());
        frame[4..8].copy_from_slice(&self.crc.to_le_bytes());
        frame[8..16].copy_from_slice(&self.base_offset.to_le_bytes());
        frame[16..20].copy_from_slice(&self.count.to_le_bytes());
        frame[20..28].copy_from_slice(&self.skipped.to_le_bytes());
        frame[28..36].copy_from_slice(&self.append_ns.to_le_bytes());
        frame[36..44].copy_from_slice(&self.producer_id.to_le_bytes());
        frame[44..52].copy_from_slice(&self.sequence.to_le_bytes());
        frame[52..60].copy_from_slice(&self.synced_end.to_le_bytes());
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        u64::from(self.len) + PREFIX_BYTES as u64
    }

    /// Behind its last record.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// The gap in front of it.
    pub fn skipped_range(&self) -> Range<u64> {
        self.base_offset.saturating_sub(self.skipped)..self.base_offset
    }
}

/// Entries that are to become a frame without being copied: in front of them is room for its header.
#[derive(Debug, Default)]
pub struct FrameBody {
    /// Empty once a frame was made of it, else never shorter than the room.
    bytes: Vec<u8>,
    room: usize,
}

impl FrameBody {
    /// No entries, with room for so many bytes of both in front of them and for as many of theirs.
    pub fn with_room(prefix_bytes: usize, capacity: usize) -> FrameBody {
        let room = prefix_bytes.max(HEADER_BYTES);
        let mut bytes = Vec::with_capacity(room + capacity);
        bytes.resize(room, 0);
        FrameBody { bytes, room }
    }

    /// The entries that `bytes` end with. In front of them there is room, at least [`HEADER_BYTES`]: what stands there is
    /// written over.
    pub fn of(bytes: Vec<u8>, room: usize) -> FrameBody {
        debug_assert!((HEADER_BYTES..=bytes.len()).contains(&room));
        FrameBody { bytes, room }
    }

    /// The entries.
    pub fn records(&self) -> &[u8] {
        self.bytes.get(self.room..).unwrap_or_default()
    }

    /// To put entries at its end.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The entries behind `prefix`, for which there must be room; None once a frame was made of them.
    pub fn behind(&mut self, prefix: &[u8]) -> Option<&[u8]> {
        let start = self.room.checked_sub(prefix.len())?;
        self.bytes.get_mut(start..self.room)?.copy_from_slice(prefix);
        Some(&self.bytes[start..])
    }

    /// As [`FrameBody::behind`], for good: the bytes, and where the prefix begins in them.
    pub fn into_bytes_behind(mut self, prefix: &[u8]) -> Option<(Vec<u8>, usize)> {
        let start = self.room.checked_sub(prefix.len())?;
        self.behind(prefix)?;
        Some((self.bytes, start))
    }

    /// A frame for a segment, or one in memory only, which needs no CRC; `header.len` and `header.crc` are filled in.
    fn into_frame(self, mut header: Header, is_written: bool) -> Frame {
        let FrameBody { mut bytes, room } = self;
        // A frame may stay in memory for long, and a small batch behind a large one was given room for another large one.
        if bytes.capacity() > bytes.len() + bytes.len() / MOST_SPARE + HEADER_BYTES {
            bytes.shrink_to_fit();
        }
        let start = room - HEADER_BYTES;
        let frame = &mut bytes[start..];
        header.len = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        header.crc = 0;
        header.put(frame);
        if is_written {
            header.crc = crc32c::crc32c(&frame[PREFIX_BYTES..]);
            frame[4..PREFIX_BYTES].copy_from_slice(&header.crc.to_le_bytes());
        }
        Frame { bytes, start, header, walked: Walked::default() }
    }
}

/// The entries of a frame to come, to be copied or taken.
#[derive(Debug)]
pub enum Entries<'a> {
    /// These.
    Borrowed(&'a [u8]),
    /// These, which are gone once they are appended.
    Body(&'a mut FrameBody),
}

impl Entries<'_> {
    /// The entries.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Body(body) => body.records(),
        }
    }

    /// See [`FrameBody::into_frame`].
    pub(super) fn take(&mut self, header: Header, is_written: bool) -> Frame {
        match self {
            Self::Borrowed(bytes) if is_written => Frame::new(header, bytes),
            Self::Borrowed(bytes) => Frame::in_memory(header, bytes),
            Self::Body(body) => std::mem::take(*body).into_frame(header, is_written),
        }
    }

    /// Gives a frame that was not appended back to where it was taken from.
    pub(super) fn give_back(&mut self, frame: Frame) {
        if let Self::Body(body) = self {
            **body = FrameBody { bytes: frame.bytes, room: frame.start + HEADER_BYTES };
        }
    }
}

/// A whole frame in memory.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Where it begins.
    start: usize,
    header: Header,
    walked: Walked,
}

impl Frame {
    /// Builds a frame for a segment; `header.len` and `header.crc` are filled in.
    pub fn new(header: Header, records: &[u8]) -> Frame {
        Self::of(header, records, true)
    }

    /// Builds a frame that no segment may have: the CRC is left out, which is half of what a frame costs.
    pub fn in_memory(header: Header, records: &[u8]) -> Frame {
        Self::of(header, records, false)
    }

    fn of(header: Header, records: &[u8], is_written: bool) -> Frame {
        let mut body = FrameBody::with_room(HEADER_BYTES, records.len());
        body.end().extend_from_slice(records);
        body.into_frame(header, is_written)
    }

    /// Takes a frame's bytes; None unless they are one whole frame and its CRC holds.
    pub fn parse(bytes: Vec<u8>) -> Option<Frame> {
        let header = Header::parse(bytes.first_chunk()?)?;
        let whole = header.frame_bytes() == bytes.len() as u64;
        let sound = whole && crc32c::crc32c(&bytes[PREFIX_BYTES..]) == header.crc;
        sound.then(|| Frame { bytes, start: 0, header, walked: Walked::default() })
    }

    /// The fields in front of the records.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The frame as it stands in a segment.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// All records, as entries.
    pub fn records(&self) -> &[u8] {
        &self.bytes[self.start + HEADER_BYTES..]
    }

    /// The entries of the offsets `from..to`, which must lie inside the frame.
    pub fn entries(&self, from: u64, to: u64) -> &[u8] {
        &self.records()[self.entry_range(from, to)]
    }

    /// Where in [`Frame::records`] the entries of the offsets `from..to` stand. To find that takes a walk, from where
    /// the last one ended if it came no further.
    pub fn entry_range(&self, from: u64, to: u64) -> Range<usize> {
        let index = |offset: u64| u32::try_from(offset.saturating_sub(self.header.base_offset)).unwrap_or(u32::MAX);
        let (first, last) = (index(from), index(to).min(self.header.count));
        if first == 0 && last == self.header.count {
            return 0..self.records().len();
        }
        let records = self.records();
        let (known, known_at) = self.walked.get();
        let (behind, from) = if known <= first { (known, known_at) } else { (0, 0) };
        let start = entries_end(records, from, first - behind);
        let end = match last {
            last if last == self.header.count => records.len(),
            last => entries_end(records, start, last.saturating_sub(first)),
        };
        self.walked.set(last.max(first), end);
        start..end
    }
}

/// How far the last walk over a frame's entries came: who reads a frame in parts goes on from there.
#[derive(Debug, Default)]
struct Walked(AtomicU64);

impl Walked {
    /// Entries, and their bytes.
    fn get(&self) -> (u32, usize) {
        let both = self.0.load(Ordering::Relaxed);
        let low = u32::try_from(both & u64::from(u32::MAX)).unwrap_or(0);
        (u32::try_from(both >> 32).unwrap_or(0), low as usize)
    }

    fn set(&self, entries: u32, bytes: usize) {
        // A frame is far below 4 GiB.
        let bytes = u32::try_from(bytes).map_or(0, |bytes| u64::from(entries) << 32 | u64::from(bytes));
        self.0.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            len: 0,
            crc: 0,
            base_offset: 7,
            count: 2,
            skipped: 3,
            append_ns: -5,
            producer_id: 11,
            sequence: 13,
            synced_end: 4,
        }
    }

    #[test]
    fn the_layout_is_pinned_to_the_byte() {
        let frame = Frame::new(header(), &[0x7A, 0, 0x7A, 0]);
        let hex: Vec<String> = frame.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let crc = format!("{:08x}", frame.header().crc.swap_bytes());
        assert_eq!(
            hex.concat(),
            format!(
                "38000000{crc}0700000000000000020000000300000000000000fbffffffffffffff0b000000000000000d00000000000000\
                 04000000000000007a007a00"
            )
        );
        assert_eq!(frame.header().crc, crc32c::crc32c(&frame.bytes()[8..]));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let frame = Frame::new(header(), &[0x7A, 0, 0x7A, 0]);
        for bit in 0..frame.bytes().len() * 8 {
            let mut bytes = frame.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(bytes).is_none(), "bit {bit}");
        }
        assert!(Frame::parse(frame.bytes().to_vec()).is_some());
    }

    #[test]
    fn entries_are_cut_at_records() {
        let frame = Frame::new(header(), &[0x7A, 0, 0x7A, 1, 9]);
        assert_eq!(frame.entries(7, 8), [0x7A, 0]);
        assert_eq!(frame.entries(8, 9), [0x7A, 1, 9]);
        assert_eq!(frame.entries(7, 9), frame.records());
        let frame =
            Frame::new(Header { count: 5, ..header() }, &[0x7A, 0, 0x7A, 1, 9, 0x7A, 0, 0x7A, 2, 8, 7, 0x7A, 0]);
        let ends = [0, 2, 5, 7, 11, 13];
        // In any order: a walk remembers where the one before it ended.
        for (from, to) in [(7, 9), (9, 11), (11, 12), (8, 9), (7, 8), (10, 12), (8, 11), (9, 9), (12, 12), (7, 12)] {
            let (start, end) = (ends[from - 7], ends[to - 7]);
            assert_eq!(frame.entry_range(from as u64, to as u64), start..end, "{from}..{to}");
        }
    }
}
