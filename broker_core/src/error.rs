//! The one error of the core: a stable code, a sentence for the person who reads it, and whether waiting helps.

use std::fmt;
use std::io;
use std::path::Path;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// What happened, as a program sees it. A code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)+ }

        impl Code {
            /// Every code, for the test that holds the Python table against it.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// The code of such a text, if this version knows it.
            pub fn of(text: &str) -> Option<Code> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }

            /// The stable text, such as `log.corrupt`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// An argument is out of its bounds.
    InvalidArgument = "invalid.argument",
    /// A topic, group or consumer name breaks the rules for names.
    InvalidName = "invalid.name",
    /// A batch or record is malformed or over a bound; nothing was appended.
    InvalidBatch = "invalid.batch",
    /// A lease id that no broker of this version made.
    InvalidLease = "invalid.lease",
    /// No such topic.
    TopicNotFound = "topic.not_found",
    /// No such partition.
    PartitionNotFound = "partition.not_found",
    /// No such group.
    GroupNotFound = "group.not_found",
    /// A position in a log that the partition no longer has.
    PositionLogId = "position.log_id",
    /// An offset behind the end of the log.
    PositionOutOfRange = "position.out_of_range",
    /// A topic of that name with another configuration, or a folder that is no topic's.
    TopicExists = "topic.exists",
    /// A group of that name with another mode.
    GroupExists = "group.exists",
    /// The topic's configuration has another version than the caller expected.
    TopicVersion = "topic.version",
    /// The group has another mode than the caller expected.
    GroupMode = "group.mode",
    /// No room for more records; nothing was appended.
    LogFull = "log.full",
    /// Stored bytes are damaged.
    LogCorrupt = "log.corrupt",
    /// An earlier write or fsync failed; the partition is closed to writes until a reopen.
    LogPoisoned = "log.poisoned",
    /// The disk refused a read or a write.
    DataIo = "data.io",
    /// Another process has the folder open.
    DataInUse = "data.in_use",
    /// The folder was written by a newer version, or is no broker's.
    DataFormat = "data.format",
    /// The broker takes no new records.
    BrokerDraining = "broker.draining",
    /// The broker was closed.
    BrokerClosed = "broker.closed",
    /// A batch was sent to a broker and not answered: it may be stored there or not.
    ProduceUnknown = "produce.unknown",
    /// A service that answers again soon: what was asked may be asked anew.
    Unavailable = "broker.unavailable",
    /// No token, or one that is not valid.
    Unauthenticated = "auth.unauthenticated",
    /// The token's client may not do this.
    Denied = "auth.denied",
    /// A client has too much under way.
    LimitExceeded = "limit.exceeded",
    /// This broker does not know the call.
    Unsupported = "unsupported",
    /// A fault of this program.
    Internal = "internal",
    /// There is no such CSV file.
    CsvNotFound = "csv.not_found",
    /// A CSV file that cannot be read.
    CsvUnreadable = "csv.unreadable",
    /// A CSV file without a row.
    CsvEmpty = "csv.empty",
    /// A CSV file whose header lacks columns.
    CsvHeader = "csv.header",
    /// A CSV file that is shorter than what is stored of it.
    CsvShrunk = "csv.shrunk",
    /// The file for refused rows cannot be used.
    CsvRejects = "csv.rejects",
}

/// Bytes of a message, at most: it travels in HTTP/2 trailers, twice, and many clients take no more than 8 KiB of those.
const MAX_MESSAGE: usize = 1024;
/// What stays of the end of a longer one, where the remedy stands.
const KEPT_END: usize = 256;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    retry_after_ms: Option<u32>,
    field: Option<&'static str>,
}

/// What every fallible call of the core gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `code`; the message names the object, the value, what was expected and what to do. Of a message over
    /// 1 KiB the middle is left out: a name that a client sent may have 8 MiB.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: shortened(message.into()), retry_after_ms: None, field: None }
    }

    /// The same error, which is about one field of the request: its path in the proto, such as `config.partitions`.
    #[must_use]
    pub fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// The same error, worth a retry after so long.
    #[must_use]
    pub fn retry_after_ms(mut self, delay: u32) -> Self {
        self.retry_after_ms = Some(delay);
        self
    }

    /// A refused disk operation on `path`; `doing` completes "could not ...".
    pub fn io(doing: &str, path: &Path, err: &io::Error) -> Self {
        if is_disk_full(err) {
            let message =
                format!("could not {doing} {}: {err}; make room, then it works again by itself", path.display());
            return Self::new(Code::LogFull, message).retry_after_ms(1000);
        }
        Self::new(
            Code::DataIo,
            format!(
                "could not {doing} {}: {err}; check that the disk is there and that this user may write it",
                path.display()
            ),
        )
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence, without the code.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field of the request that is wrong, where it is one.
    pub fn wrong_field(&self) -> Option<&'static str> {
        self.field
    }

    /// Milliseconds after which the same call may succeed.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after_ms
    }
}

fn shortened(message: String) -> String {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let mut start = MAX_MESSAGE - KEPT_END;
    while !message.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = message.len() - KEPT_END;
    while !message.is_char_boundary(end) {
        end += 1;
    }
    format!("{} [...] {}", &message[..start], &message[end..])
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {}

/// Whether an error of the operating system says that there is no room, now.
pub(crate) fn is_disk_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
