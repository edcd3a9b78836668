//! The physical lines of a file, with their positions, in bounded memory.

use std::io::{self, Read};

use memchr::memchr;

/// Longest row, without its line end. Of a longer one only the first [`KEPT_BYTES`] are kept.
pub const MAX_ROW_BYTES: usize = 1 << 20;
pub(super) const KEPT_BYTES: usize = 1024;
const READ_BYTES: usize = 256 << 10;

/// One physical line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// Rows that the reader passed before it, blank ones too.
    pub index: u64,
    /// Position of its first byte in the file.
    pub start: u64,
    /// Position after its line end, or the end of the file.
    pub end: u64,
    /// The line without `\n` or `\r\n`; its beginning, if it is too long.
    pub bytes: &'a [u8],
    /// Over [`MAX_ROW_BYTES`].
    pub too_long: bool,
}

#[derive(Clone, Copy)]
struct Found {
    /// Bytes of the line in the buffer, line end included where it is there.
    buffered: usize,
    /// Bytes of the line in the file.
    length: u64,
    too_long: bool,
}

/// Reads rows one at a time; [`Self::peek`] shows the next one until [`Self::advance`] passes it.
pub(super) struct Rows<R> {
    source: R,
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    index: u64,
    position: u64,
    ended: bool,
    found: Option<Found>,
}

impl<R: Read> Rows<R> {
    /// Reads from `source`, whose first byte stands at `position` of the file.
    pub fn new(source: R, position: u64) -> Self {
        Self { source, buffer: Vec::new(), head: 0, tail: 0, index: 0, position, ended: false, found: None }
    }

    /// Position of the next row.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Rows passed so far.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Counts rows from here on.
    pub fn restart_index(&mut self) {
        self.index = 0;
    }

    /// The source, without what is in the buffer.
    pub fn into_source(self) -> R {
        self.source
    }

    /// The next row, or none at the end of the file. A last line without a line end is a row.
    pub fn peek(&mut self) -> io::Result<Option<Row<'_>>> {
        let found = match self.found {
            Some(found) => found,
            None => match self.find()? {
                Some(found) => *self.found.insert(found),
                None => return Ok(None),
            },
        };
        let line = &self.buffer[self.head..self.head + found.buffered];
        let bytes = if found.too_long {
            &line[..KEPT_BYTES]
        } else {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        };
        Ok(Some(Row {
            index: self.index,
            start: self.position,
            end: self.position + found.length,
            bytes,
            too_long: found.too_long,
        }))
    }

    /// Passes the row that `peek` showed.
    pub fn advance(&mut self) {
        if let Some(found) = self.found.take() {
            self.head += found.buffered;
            self.position += found.length;
            self.index += 1;
        }
    }

    fn find(&mut self) -> io::Result<Option<Found>> {
        let mut scanned = 0;
        loop {
            let unread = &self.buffer[self.head..self.tail];
            if let Some(at) = memchr(b'\n', &unread[scanned..]) {
                return Ok(Some(Self::whole(scanned + at + 1)));
            }
            scanned = unread.len();
            if self.ended {
                return Ok((scanned > 0).then(|| Self::whole(scanned)));
            }
            if scanned > MAX_ROW_BYTES {
                return self.skip_line().map(Some);
            }
            self.fill()?;
        }
    }

    fn whole(length: usize) -> Found {
        Found { buffered: length, length: length as u64, too_long: length > MAX_ROW_BYTES + 2 }
    }

    /// Reads past a line that is too long; its beginning stays in the buffer, followed by what comes after the line.
    fn skip_line(&mut self) -> io::Result<Found> {
        let mut length = (self.tail - self.head) as u64;
        let kept = self.head + KEPT_BYTES;
        self.tail = kept;
        loop {
            self.fill()?;
            let more = &self.buffer[kept..self.tail];
            if let Some(at) = memchr(b'\n', more) {
                let after = kept + at + 1;
                self.buffer.copy_within(after..self.tail, kept);
                self.tail -= after - kept;
                length += (after - kept) as u64;
                break;
            }
            length += more.len() as u64;
            self.tail = kept;
            if self.ended {
                break;
            }
        }
        Ok(Found { buffered: KEPT_BYTES, length, too_long: true })
    }

    /// Reads once more, moving what is unread to the front where there is no room behind it.
    fn fill(&mut self) -> io::Result<()> {
        if self.head > 0 && self.buffer.len() - self.tail < READ_BYTES {
            self.buffer.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        if self.buffer.len() - self.tail < READ_BYTES {
            self.buffer.resize(self.tail + READ_BYTES, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.tail..]) {
                Ok(count) => {
                    self.tail += count;
                    self.ended = count == 0;
                    return Ok(());
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives out a few bytes a read, as a pipe may.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(out.len()).min(self.1);
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn rows(text: &[u8], step: usize) -> Vec<(u64, u64, Vec<u8>, bool)> {
        let mut rows = Rows::new(Trickle(text, step), 0);
        let mut all = Vec::new();
        while let Some(row) = rows.peek().unwrap() {
            all.push((row.start, row.end, row.bytes.to_vec(), row.too_long));
            rows.advance();
        }
        assert_eq!(rows.position(), text.len() as u64);
        all
    }

    proptest! {
        #[test]
        fn given_any_text_when_read_in_any_steps_then_its_lines(text in "[ab\r\n]{0,40}", step in 1_usize..50) {
            let mut position = 0;
            let expected: Vec<_> = text.as_bytes().split_inclusive(|&byte| byte == b'\n').map(|line| {
                let start = position;
                position += line.len() as u64;
                let plain = line.strip_suffix(b"\n").unwrap_or(line);
                (start, position, plain.strip_suffix(b"\r").unwrap_or(plain).to_vec(), false)
            }).collect();
            prop_assert_eq!(rows(text.as_bytes(), step), expected);
        }

        #[test]
        fn given_lines_about_the_bound_when_read_then_only_longer_ones_are_cut(
            over in 0_usize..200_000,
            step in 1000_usize..400_000,
            ended: bool,
        ) {
            let length = MAX_ROW_BYTES - 3 + over;
            let mut text = b"first\n".to_vec();
            text.extend(std::iter::repeat_n(b'x', length));
            text.extend_from_slice(if ended { b"\nlast\n" } else { b"" });
            let rows = rows(&text, step);
            prop_assert_eq!(rows[0].2.as_slice(), b"first");
            let (start, end, bytes, too_long) = &rows[1];
            prop_assert_eq!((*start, *end), (6, 6 + length as u64 + u64::from(ended)));
            // One or two bytes more may be a line end, so the bound is exact to two bytes.
            if over <= 3 { prop_assert!(!too_long) }
            if over > 5 { prop_assert!(*too_long) }
            prop_assert_eq!(bytes.len(), if *too_long { KEPT_BYTES } else { length });
            if ended { prop_assert_eq!(rows[2].2.as_slice(), b"last") }
        }
    }

    #[test]
    fn given_a_line_of_100_mib_when_read_then_memory_stays_bounded() {
        let mut rows = Rows::new((&b"a\n"[..]).chain(io::repeat(b'x').take(100 << 20)).chain(&b"\nb\n"[..]), 0);
        rows.peek().unwrap();
        rows.advance();
        let row = rows.peek().unwrap().unwrap();
        assert_eq!((row.start, row.end, row.too_long), (2, (100 << 20) + 3, true));
        rows.advance();
        assert_eq!(rows.peek().unwrap().unwrap().bytes, b"b");
        assert!(rows.buffer.len() <= MAX_ROW_BYTES + 3 * READ_BYTES, "{}", rows.buffer.len());
    }
}
