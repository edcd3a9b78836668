//! Opens a dump and gives it out block by block.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memchr_iter;
use xxhash_rust::xxh3::Xxh3;

use super::counts::Counts;
use super::error;
use super::header::{Columns, METRIC, TIMESTAMP, VALUE, parse_header};
use super::intern::Interner;
use super::pivot::{Pivot, Sample};
use super::rejects::{RejectOptions, Rejects};
use super::rows::{Row, Rows};
use super::split::{Field, split};
use crate::error::{Code, Error, Result};
use crate::telemetry::Batch;
use crate::telemetry::sample::{Reading, RowFault, parse_time, parse_value};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const MAX_BLOCK_BYTES: u64 = 64 << 20;
/// How far from the beginning names are learned before a resume.
const NAMES_BYTES: u64 = 4 << 20;
const MAX_PARTITIONS: u32 = 65_536;

/// How a dump is read.
#[derive(Debug, Clone)]
pub struct CsvOptions {
    /// Partitions of the topic, 1 to 65,536.
    pub partitions: u32,
    /// Per partition the highest sequence it holds: the end of the last block whose batch it stored. Empty: from the
    /// start.
    pub resume: Vec<u64>,
    /// File positions that are multiples of this end a block, 1 byte to 64 MiB.
    pub block_bytes: u64,
    /// Where refused rows are kept; without it they are counted only.
    pub rejects: Option<RejectOptions>,
    /// Added to every row's time.
    pub time_shift_ns: i64,
    /// Metrics that the store has already: another spelling of one is refused.
    pub metrics: Vec<String>,
    /// Every row's time, instead of its own (which must be a good one nevertheless).
    pub time_ns: Option<i64>,
}

impl CsvOptions {
    /// Reads all, for a topic of so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            resume: Vec::new(),
            block_bytes: 4 << 20,
            rejects: None,
            time_shift_ns: 0,
            metrics: Vec::new(),
            time_ns: None,
        }
    }

    fn check(&self) -> Result<()> {
        let problem = if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            format!("{} partitions; expected 1 to {MAX_PARTITIONS}", self.partitions)
        } else if !self.resume.is_empty() && self.resume.len() != self.partitions as usize {
            format!(
                "resume has {} sequences for {} partitions; give one for each, the same partitions as before",
                self.resume.len(),
                self.partitions
            )
        } else if self.block_bytes == 0 || self.block_bytes > MAX_BLOCK_BYTES {
            format!("block_bytes is {}; expected 1 to {MAX_BLOCK_BYTES}", self.block_bytes)
        } else {
            return Ok(());
        };
        Err(Error::new(Code::InvalidArgument, problem))
    }
}

/// What is made of some consecutive rows.
#[derive(Debug, Clone)]
pub struct CsvBlock {
    /// File position after its last row: the sequence of its batches.
    pub end: u64,
    /// One a partition, empty ones too.
    pub batches: Vec<Batch>,
    /// What became of its rows.
    pub counts: Counts,
}

/// Reads a dump from start (or from where it was left) to end. See the module for the guarantees.
///
/// A last line without a line end is taken as a row when it is reached. A file that is still written to should
/// therefore end in a line end while it is read: what is appended to such a row later is refused as `torn`.
pub struct CsvReader {
    path: PathBuf,
    options: CsvOptions,
    producer_name: String,
    size: u64,
    columns: Columns,
    rows: Rows<File>,
    /// Lines of the file before the first of `rows`; after a resume unknown until a reject needs it.
    lines_before: Option<u64>,
    started_at: u64,
    /// The first row continues one that was read before it was whole.
    torn: bool,
    interner: Interner,
    pivot: Pivot,
    fields: Vec<Field>,
    rejects: Option<Rejects>,
    totals: Counts,
    failed: bool,
}

impl CsvReader {
    /// Opens the file and checks its header.
    pub fn open(path: &Path, options: CsvOptions) -> Result<Self> {
        options.check()?;
        let unreadable = |cause: io::Error| error::unreadable(path, &cause);
        let missing_or = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => error::not_found(path),
            _ => unreadable(cause),
        };
        // Before it is opened, for that alone waits at a pipe until someone writes.
        if !fs::metadata(path).map_err(missing_or)?.is_file() {
            return Err(error::not_a_file(path));
        }
        let file = File::open(path).map_err(missing_or)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mut rows = Rows::new(file, 0);
        let (columns, producer_name) = read_head(&mut rows, path)?;
        let (mut lines_before, mut torn) = (Some(rows.index()), false);
        let mut interner = Interner::new(options.partitions, &options.metrics);
        let mut fields = vec![Field::default(); columns.count];
        let resume = options.resume.iter().copied().min().unwrap_or_default();
        if resume > rows.position() {
            let size = metadata.len();
            if resume > size {
                return Err(error::shrunk(path, size, resume));
            }
            learn_names(&mut rows, resume, &options, &columns, &mut fields, &mut interner).map_err(unreadable)?;
            let mut file = rows.into_source();
            let mut before = [0];
            file.seek(SeekFrom::Start(resume - 1)).and_then(|_| file.read_exact(&mut before)).map_err(unreadable)?;
            torn = before != *b"\n";
            lines_before = None;
            rows = Rows::new(file, resume);
        } else {
            rows.restart_index();
        }
        let rejects = options.rejects.clone().map(|rejects| Rejects::open(rejects, &producer_name)).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            producer_name,
            size: metadata.len(),
            started_at: rows.position(),
            rows,
            lines_before,
            torn,
            interner,
            pivot: Pivot::new(options.partitions as usize),
            fields,
            columns,
            rejects,
            totals: Counts::default(),
            failed: false,
            options,
        })
    }

    /// `csv-` and 32 hexadecimal digits: XXH3-128 of the header and the first row.
    pub fn producer_name(&self) -> &str {
        &self.producer_name
    }

    /// Bytes of the file when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// File position of the next row.
    pub fn position(&self) -> u64 {
        self.rows.position()
    }

    /// What became of the rows of all blocks so far.
    pub fn totals(&self) -> &Counts {
        &self.totals
    }

    /// The reject file, once there is one.
    pub fn rejects_path(&self) -> Option<&Path> {
        self.rejects.as_ref().filter(|rejects| rejects.exists()).map(Rejects::path)
    }

    /// Refused rows that were not kept because the reject file is full.
    pub fn rejects_unkept(&self) -> u64 {
        self.rejects.as_ref().map_or(0, |rejects| rejects.unkept)
    }

    /// The next block, of at most `max_rows` rows, or none at the end of the file.
    ///
    /// After an error the reader is of no further use: open it again, to resume at what the broker holds.
    pub fn next_block(&mut self, max_rows: Option<u64>) -> Result<Option<CsvBlock>> {
        if self.failed {
            return Err(error::unreadable(&self.path, &io::Error::other("an earlier read failed; open it again")));
        }
        // Rows of a block that fails half way are gone from the reader.
        self.failed = true;
        let block = self.read_block(max_rows.unwrap_or(u64::MAX).max(1))?;
        self.failed = false;
        Ok(block)
    }

    fn read_block(&mut self, max_rows: u64) -> Result<Option<CsvBlock>> {
        self.interner.begin_block();
        let mut counts = Counts::default();
        let mut limit = u64::MAX;
        let mut end = 0;
        loop {
            let row = match self.rows.peek() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(cause) => {
                    return Err(error::unreadable(&self.path, &cause));
                }
            };
            if row.bytes.is_empty() {
                self.torn = false;
                self.rows.advance();
                continue;
            }
            if counts.rows == 0 {
                limit = row.end.div_ceil(self.options.block_bytes).saturating_mul(self.options.block_bytes);
            } else if row.end > limit || counts.rows == max_rows {
                break;
            }
            let outcome = if self.torn {
                Err(RowFault::Torn)
            } else {
                decode(&row, &self.options, &self.columns, &mut self.fields, &mut self.interner)
            };
            let fault = match outcome {
                Ok(Decoded::Resumed) => {
                    counts.resumed += 1;
                    None
                }
                Ok(Decoded::Missing) => {
                    counts.missing += 1;
                    None
                }
                Ok(Decoded::Sample(sample)) if self.pivot.add(sample, &self.interner) => None,
                Ok(Decoded::Sample(_)) if counts.rows > 0 => break,
                Ok(Decoded::Sample(_)) => Some(RowFault::TooLong),
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                counts.reject(fault);
                if let Some(rejects) = self.rejects.as_mut().filter(|rejects| rejects.wants(&row)) {
                    if self.lines_before.is_none() {
                        let counted = count_lines(&self.path, self.started_at);
                        let counted = counted.map_err(|cause| error::unreadable(&self.path, &cause))?;
                        self.lines_before = Some(counted);
                    }
                    let before = self.lines_before.unwrap_or_default();
                    rejects.push(&row, before + row.index + 1, fault)?;
                }
            }
            self.torn = false;
            counts.rows += 1;
            end = row.end;
            self.rows.advance();
        }
        if counts.rows == 0 {
            return Ok(None);
        }
        if let Some(rejects) = &mut self.rejects {
            rejects.flush()?;
        }
        let batches = self.pivot.encode(&self.interner, &mut counts);
        self.totals.add(&counts);
        Ok(Some(CsvBlock { end, batches, counts }))
    }
}

enum Decoded {
    Sample(Sample),
    Missing,
    /// The row's partition holds it already.
    Resumed,
}

fn decode(
    row: &Row<'_>,
    options: &CsvOptions,
    columns: &Columns,
    fields: &mut [Field],
    interner: &mut Interner,
) -> std::result::Result<Decoded, RowFault> {
    if row.too_long {
        return Err(RowFault::TooLong);
    }
    let bytes = row.bytes;
    if std::str::from_utf8(bytes).is_err() {
        return Err(RowFault::Utf8);
    }
    split(bytes, fields)?;
    let field = |column: usize| fields[columns.indexes[column]];
    let own_time = parse_time(field(TIMESTAMP).raw(bytes).trim_ascii()).ok_or(RowFault::Timestamp)?;
    let time_ns = options.time_ns.or_else(|| own_time.checked_add(options.time_shift_ns)).ok_or(RowFault::Timestamp)?;
    let reading = parse_value(field(VALUE).raw(bytes))?;
    let number = interner.series(bytes, fields, columns)?;
    let metric = interner.metric(&field(METRIC).text(bytes), number)?;
    let series = interner.series_at(number);
    if options.resume.get(series.partition).is_some_and(|&held| row.end <= held) {
        return Ok(Decoded::Resumed);
    }
    Ok(match reading {
        Reading::Value(value) => Decoded::Sample(Sample { time_ns, series: number, metric, value }),
        Reading::Missing => Decoded::Missing,
    })
}

/// Reads the beginning of a dump that is gone on with, so that names are spelled as they were when it was begun.
fn learn_names(
    rows: &mut Rows<File>,
    resume: u64,
    options: &CsvOptions,
    columns: &Columns,
    fields: &mut [Field],
    interner: &mut Interner,
) -> io::Result<()> {
    while rows.position() < resume.min(NAMES_BYTES) {
        let Some(row) = rows.peek()? else { break };
        // Its faults were told when it was read for good.
        let _ = decode(&row, options, columns, fields, interner);
        rows.advance();
    }
    Ok(())
}

/// Reads the header, and looks at the first row for the name.
fn read_head(rows: &mut Rows<File>, path: &Path) -> Result<(Columns, String)> {
    let unreadable = |cause: io::Error| error::unreadable(path, &cause);
    let mut name = Xxh3::new();
    let columns = loop {
        let Some(row) = rows.peek().map_err(unreadable)? else {
            return Err(error::empty(path));
        };
        let line =
            if row.start == 0 { row.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(row.bytes) } else { row.bytes };
        if line.is_empty() {
            rows.advance();
            continue;
        }
        let parsed = if row.too_long { Err("the first line is over 1 MiB".to_owned()) } else { parse_header(line) };
        match parsed {
            Ok(columns) => {
                name.update(line);
                break columns;
            }
            Err(problem) => return Err(error::header(path, &problem, line)),
        }
    };
    rows.advance();
    while let Some(row) = rows.peek().map_err(unreadable)? {
        if !row.bytes.is_empty() {
            name.update(b"\n");
            name.update(row.bytes);
            break;
        }
        rows.advance();
    }
    Ok((columns, format!("csv-{:032x}", name.digest128())))
}

/// Line ends before a position.
fn count_lines(path: &Path, end: u64) -> io::Result<u64> {
    let mut source = File::open(path)?.take(end);
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(lines);
        }
        lines += memchr_iter(b'\n', &buffer[..count]).count() as u64;
    }
}
