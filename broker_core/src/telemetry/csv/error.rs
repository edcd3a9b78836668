//! Why a file as a whole cannot be read.

use std::io;
use std::path::Path;

use super::header::COLUMNS;
use crate::error::{Code, Error};

/// Of a first line that is no header.
const SHOWN_CHARS: usize = 80;

pub(super) fn not_found(path: &Path) -> Error {
    Error::new(Code::CsvNotFound, format!("{}: no such file; give the path of a CSV dump", path.display()))
}

pub(super) fn unreadable(path: &Path, cause: &io::Error) -> Error {
    let message =
        format!("{}: cannot be read: {cause}; give the path of a CSV file that this user may read", path.display());
    Error::new(Code::CsvUnreadable, message)
}

pub(super) fn not_a_file(path: &Path) -> Error {
    let message = format!(
        "{}: not a regular file but a folder, a pipe or a device; a dump is read more than once, so write it to a file \
         and give that",
        path.display()
    );
    Error::new(Code::CsvUnreadable, message)
}

pub(super) fn empty(path: &Path) -> Error {
    let message =
        format!("{}: the file is empty; expected a first line with the columns {}", path.display(), COLUMNS.join(","));
    Error::new(Code::CsvEmpty, message)
}

/// `line` is the first one, or its beginning.
pub(super) fn header(path: &Path, problem: &str, line: &[u8]) -> Error {
    let found = match foreign(line) {
        Some(remedy) => remedy.to_owned(),
        None => match std::str::from_utf8(line) {
            Ok(text) => format!("the first line begins {:?}", text.chars().take(SHOWN_CHARS).collect::<String>()),
            Err(_) => "save the file as UTF-8".to_owned(),
        },
    };
    let message = format!(
        "{}: {problem}; {found}; expected a header with the columns {} in any order",
        path.display(),
        COLUMNS.join(",")
    );
    Error::new(Code::CsvHeader, message)
}

/// What a file of another kind is, and how to make a dump of it.
fn foreign(line: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 6] = [
        (b"\x1F\x8B", "the file is compressed by gzip: unpack it with gunzip"),
        (b"\x28\xB5\x2F\xFD", "the file is compressed by zstd: unpack it with unzstd"),
        (b"\xFD7zXZ", "the file is compressed by xz: unpack it with unxz"),
        (b"PK\x03\x04", "the file is a zip archive or a spreadsheet: unpack it, or export it as CSV"),
        (b"\xFF\xFE", "the file is UTF-16: save it as UTF-8"),
        (b"\xFE\xFF", "the file is UTF-16: save it as UTF-8"),
    ];
    KINDS.iter().find(|(magic, _)| line.starts_with(magic)).map(|(_, remedy)| *remedy)
}

pub(super) fn shrunk(path: &Path, size: u64, resume: u64) -> Error {
    let message = format!(
        "{}: has {size} bytes, but rows up to byte {resume} are already stored: the file was cut or replaced; \
         restore it, or store what it holds now under a new name (--again)",
        path.display()
    );
    Error::new(Code::CsvShrunk, message)
}

pub(super) fn rejects(path: &Path, cause: &io::Error) -> Error {
    let message = format!(
        "{}: rejected rows cannot be kept here: {cause}; make room, or name another reject file",
        path.display()
    );
    Error::new(Code::CsvRejects, message)
}
