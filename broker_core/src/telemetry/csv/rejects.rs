//! The reject file: rows that were refused, as they came.
//!
//! A CSV of `source,position,line,reason,row`: the producer name of the dump, the byte position and the number of the
//! physical line (from 1), the [`RowFault`], and the row itself (bytes that are not UTF-8 as they are; of one that is
//! too long its first 1 KiB, with ` [cut: 1024 of N bytes]` behind it).
//!
//! Guarantee. A row is written here before its block is returned. On a new start rows of this dump up to the last one
//! that the file already holds are not written again, so through any crash of the process each refused row is here
//! once, as long as the file is used by one dump at a time. The file is made with its first row.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error;
use super::rows::Row;
use crate::error::{Error, Result};
use crate::telemetry::sample::RowFault;

const HEADER: &[u8] = b"source,position,line,reason,row\n";
const PENDING_BYTES: usize = 1 << 20;
/// Holds any line of ours: a row of at most 1 MiB, its quotes doubled, and the columns before it.
const TAIL_BYTES: u64 = (2 << 20) + 4096;

/// Where refused rows are kept.
#[derive(Debug, Clone)]
pub struct RejectOptions {
    /// The file; it is appended to.
    pub path: PathBuf,
    /// Size at which rows are counted only, no longer kept.
    pub max_bytes: u64,
}

pub(super) struct Rejects {
    options: RejectOptions,
    source: String,
    file: Option<File>,
    size: u64,
    /// Rows at or before this position are already in the file.
    last_position: Option<u64>,
    pending: Vec<u8>,
    /// Rows that were not kept because the file is full.
    pub unkept: u64,
}

impl Rejects {
    /// Looks into the file, if there is one, for the last row of this source; cuts off half a line.
    pub fn open(options: RejectOptions, source: &str) -> Result<Self> {
        let mut rejects = Self {
            options,
            source: source.to_owned(),
            file: None,
            size: 0,
            last_position: None,
            pending: Vec::new(),
            unkept: 0,
        };
        match OpenOptions::new().read(true).append(true).open(&rejects.options.path) {
            Ok(file) => rejects.read_tail(file).map_err(|cause| rejects.failed(&cause))?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(rejects.failed(&cause)),
        }
        Ok(rejects)
    }

    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether there is a file.
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    fn failed(&self, cause: &io::Error) -> Error {
        error::rejects(&self.options.path, cause)
    }

    fn read_tail(&mut self, mut file: File) -> io::Result<()> {
        let mut header = [0; HEADER.len()];
        let size = file.metadata()?.len();
        if size > 0 && (file.read_exact(&mut header).is_err() || header != *HEADER) {
            let cause = "it is not a reject file, and would be spoiled";
            return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
        }
        let start = size.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(TAIL_BYTES).read_to_end(&mut tail)?;
        let whole = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
        self.size = start + whole as u64;
        if self.size < size {
            file.set_len(self.size)?;
        }
        let lines = &tail[..whole.saturating_sub(1)];
        let last = &lines[memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1)..];
        let mut columns = last.split(|&byte| byte == b',');
        if columns.next() == Some(self.source.as_bytes()) {
            self.last_position = columns.next().and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        }
        self.file = Some(file);
        Ok(())
    }

    /// Whether this row is not there yet.
    pub fn wants(&self, row: &Row<'_>) -> bool {
        self.last_position.is_none_or(|last| row.start > last)
    }

    /// Notes a row; [`Self::flush`] writes it at the latest.
    pub fn push(&mut self, row: &Row<'_>, line: u64, reason: RowFault) -> Result<()> {
        if self.size + self.pending.len() as u64 >= self.options.max_bytes {
            self.unkept += 1;
            return Ok(());
        }
        if self.size == 0 && self.pending.is_empty() {
            self.pending.extend_from_slice(HEADER);
        }
        // Writing to a Vec cannot fail.
        let _ = write!(self.pending, "{},{},{line},{},\"", self.source, row.start, reason.as_str());
        for part in row.bytes.split_inclusive(|&byte| byte == b'"') {
            self.pending.extend_from_slice(part);
            if part.ends_with(b"\"") {
                self.pending.push(b'"');
            }
        }
        if row.too_long {
            let _ = write!(self.pending, " [cut: {} of {} bytes]", row.bytes.len(), row.end - row.start);
        }
        self.pending.extend_from_slice(b"\"\n");
        if self.pending.len() >= PENDING_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what was noted.
    pub fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write_pending().map_err(|cause| self.failed(&cause))
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().create(true).append(true).open(&self.options.path)?),
        };
        file.write_all(&self.pending)?;
        self.size += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
