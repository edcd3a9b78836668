//! What a client shows with each call.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};

use crate::error::{Code, Error, Result};

/// Bytes of a token file, at most.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The value of the `authorization` header of each call.
pub enum Token {
    /// Always this one.
    Fixed(MetadataValue<Ascii>),
    /// The one that stands in a file now.
    File(TokenFile),
}

impl Token {
    /// A token as it is.
    pub fn fixed(token: &str) -> Result<Self> {
        header(token).map(Self::Fixed).ok_or_else(|| {
            let message = "the token cannot be sent: expected visible ASCII characters without spaces, at least one";
            Error::new(Code::InvalidArgument, message)
        })
    }

    /// A file's first token. It is read again when it has changed; while it cannot be read, the last one is good.
    pub fn file(path: PathBuf) -> Result<Self> {
        let unreadable = |err: io::Error| {
            let message = format!(
                "the token file {} cannot be used: {err}; give one that this user may read and that begins with a token",
                path.display()
            );
            Error::new(Code::InvalidArgument, message)
        };
        let stamp = Stamp::of(&fs::metadata(&path).map_err(unreadable)?);
        let value = read(&path).map_err(unreadable)?;
        Ok(Self::File(TokenFile { read: Mutex::new((stamp, value)), path }))
    }

    pub(super) fn header(&self) -> MetadataValue<Ascii> {
        match self {
            Self::Fixed(header) => header.clone(),
            Self::File(file) => file.header(),
        }
    }
}

/// A file with a token in it.
pub struct TokenFile {
    path: PathBuf,
    read: Mutex<(Stamp, MetadataValue<Ascii>)>,
}

impl TokenFile {
    fn header(&self) -> MetadataValue<Ascii> {
        let mut read_last = self.read.lock();
        if let Ok(metadata) = fs::metadata(&self.path)
            && read_last.0 != Stamp::of(&metadata)
            && let Ok(value) = read(&self.path)
        {
            *read_last = (Stamp::of(&metadata), value);
        }
        read_last.1.clone()
    }
}

/// What changes when a file is written or replaced.
#[derive(PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
    }
}

fn read(path: &Path) -> io::Result<MetadataValue<Ascii>> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = fs::read_to_string(path)?;
    let first = text.split(|c: char| c == ',' || c.is_whitespace()).find(|token| !token.is_empty());
    first.and_then(header).ok_or_else(|| io::Error::other("it holds no token of visible ASCII characters"))
}

fn header(token: &str) -> Option<MetadataValue<Ascii>> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}
