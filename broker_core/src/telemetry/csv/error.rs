//! Why a file as a whole cannot be read.

use std::io;
use std::path::Path;

use super::header::COLUMNS;
use crate::error::{Code, Error};

pub(super) fn not_found(path: &Path) -> Error {
    Error::new(Code::CsvNotFound, format!("{}: no such file; give the path of a CSV dump", path.display()))
}

pub(super) fn unreadable(path: &Path, cause: &io::Error) -> Error {
    let message =
        format!("{}: cannot be read: {cause}; give the path of a CSV file that this user may read", path.display());
    Error::new(Code::CsvUnreadable, message)
}

pub(super) fn empty(path: &Path) -> Error {
    let message =
        format!("{}: the file is empty; expected a first line with the columns {}", path.display(), COLUMNS.join(","));
    Error::new(Code::CsvEmpty, message)
}

/// `found` is the beginning of the first line.
pub(super) fn header(path: &Path, problem: &str, found: &str) -> Error {
    let message = format!(
        "{}: {problem}; the first line reads {found:?}; expected a header with the columns {} in any order",
        path.display(),
        COLUMNS.join(",")
    );
    Error::new(Code::CsvHeader, message)
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
