//! Messages in the data of HTTP/2: in front of each stands whether it is compressed, and how long it is
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
//!
//! Large messages are what costs time, so that they are copied as little as can be. One that came in one piece is a slice
//! of that; one that came in several is joined once, behind room for what a log puts in front of it.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::io::Read;
use std::ops::Deref;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Body;
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::MAX_MESSAGE_BYTES;
use crate::log::frame::HEADER_BYTES;

/// Bytes in front of a message.
pub const PREFIX_BYTES: usize = 5;
/// The header that names how messages are compressed.
pub const ENCODING: &str = "grpc-encoding";
/// The header that names what an end takes.
pub const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The only compression that there is.
pub const GZIP: &str = "gzip";
/// Small messages leave together, up to so many bytes.
pub const GATHERED_BYTES: usize = 64 << 10;
/// As tonic compresses.
const GZIP_LEVEL: Compression = Compression::new(6);

/// What stands in front of a message of so many bytes.
pub fn prefix(compressed: bool, len: usize) -> Result<[u8; PREFIX_BYTES], Status> {
    let Some(size) = u32::try_from(len).ok().filter(|_| len <= MAX_MESSAGE_BYTES) else {
        return Err(Status::out_of_range(format!(
            "Error, encoded message length too large: found {len} bytes, the limit is: {MAX_MESSAGE_BYTES} bytes"
        )));
    };
    let [a, b, c, d] = size.to_be_bytes();
    Ok([u8::from(compressed), a, b, c, d])
}

/// A message that came.
#[derive(Debug)]
pub enum Message {
    /// In one piece.
    Slice(Bytes),
    /// In several, joined, behind so many bytes of room.
    Joined(Vec<u8>, usize),
}

impl Message {
    /// The message, for whoever has no use for the room.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Joined(bytes, room) => Bytes::from(bytes).slice(room..),
        }
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Joined(bytes, room) => &bytes[*room..],
        }
    }
}

/// Which of a call's messages.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// A client's. They may be compressed, and behind the room for a header a batch is a frame of the log.
    Requests,
    /// A server's, which came with this status.
    Answers(StatusCode),
}

impl Which {
    fn room(self) -> usize {
        match self {
            Self::Requests => HEADER_BYTES,
            Self::Answers(_) => 0,
        }
    }

    fn may_be_compressed(self) -> bool {
        matches!(self, Self::Requests)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests => f.write_str("while sending request"),
            Self::Answers(status) => write!(f, "while receiving response with status: {status}"),
        }
    }
}

/// What is known of the next message.
#[derive(Debug)]
enum Next {
    /// So many bytes of its prefix.
    Prefix([u8; PREFIX_BYTES], usize),
    /// A part of it, behind the room.
    Part { joined: Vec<u8>, missing: usize, compressed: bool },
}

impl Next {
    const NOTHING: Self = Self::Prefix([0; PREFIX_BYTES], 0);
}

/// The messages of one direction of a call.
#[derive(Debug)]
pub struct Messages<B> {
    body: B,
    /// Came, and was not looked at yet.
    rest: Bytes,
    next: Next,
    which: Which,
    /// Whether one that says that it is compressed is.
    gzip: bool,
    trailers: Option<HeaderMap>,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Those in `body`, which came with these headers.
    pub fn of(which: Which, headers: &HeaderMap, body: B) -> Result<Self, Status> {
        let gzip = is_gzip(headers, which.may_be_compressed())?;
        Ok(Self { body, rest: Bytes::new(), next: Next::NOTHING, which, gzip, trailers: None })
    }

    /// The next one; None: there are no more. May be called again when it was cancelled.
    pub async fn next(&mut self) -> Result<Option<Message>, Status> {
        loop {
            if let Some((message, compressed)) = self.cut()? {
                return Ok(Some(if compressed { Message::Slice(self.decompressed(&message)?) } else { message }));
            }
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        return Ok(None);
                    }
                },
                Some(Err(error)) => return Err(Status::from_error(error.into())),
                None if matches!(self.next, Next::Prefix(_, 0)) => return Ok(None),
                None => return Err(Status::internal("Unexpected EOF decoding stream.")),
            }
        }
    }

    /// What came behind the last message.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The next message and whether it is compressed, if all of it is there; else all that is there is taken up.
    fn cut(&mut self) -> Result<Option<(Message, bool)>, Status> {
        if let Next::Prefix(prefix, have) = &mut self.next {
            let taken = self.rest.len().min(PREFIX_BYTES - *have);
            prefix[*have..*have + taken].copy_from_slice(&self.rest[..taken]);
            self.rest.advance(taken);
            *have += taken;
            if *have < PREFIX_BYTES {
                self.rest.clear();
                return Ok(None);
            }
            let prefix = *prefix;
            let (compressed, len) = self.parse(prefix)?;
            if len <= self.rest.len() {
                self.next = Next::NOTHING;
                return Ok(Some((Message::Slice(self.rest.split_to(len)), compressed)));
            }
            let mut joined = Vec::with_capacity(self.which.room() + len);
            joined.resize(self.which.room(), 0);
            self.next = Next::Part { joined, missing: len, compressed };
        }
        if let Next::Part { joined, missing, compressed } = &mut self.next {
            let taken = self.rest.len().min(*missing);
            joined.extend_from_slice(&self.rest[..taken]);
            self.rest.advance(taken);
            *missing -= taken;
            if *missing == 0 {
                let whole = (Message::Joined(std::mem::take(joined), self.which.room()), *compressed);
                self.next = Next::NOTHING;
                return Ok(Some(whole));
            }
        }
        // An empty slice would keep what it is of.
        self.rest = Bytes::new();
        Ok(None)
    }

    /// Whether a message is compressed, and its length.
    fn parse(&self, [flag, a, b, c, d]: [u8; PREFIX_BYTES]) -> Result<(bool, usize), Status> {
        let compressed = match flag {
            0 => false,
            1 if self.gzip => true,
            1 => {
                return Err(Status::internal(
                    "protocol error: received message with compressed-flag but no grpc-encoding was specified",
                ));
            }
            flag => {
                let comma = if self.which.may_be_compressed() { "," } else { "" };
                return Err(Status::internal(format!(
                    "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and \
                     1){comma} {}",
                    self.which
                )));
            }
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > MAX_MESSAGE_BYTES {
            return Err(Status::out_of_range(format!(
                "Error, decoded message length too large: found {len} bytes, the limit is: {MAX_MESSAGE_BYTES} bytes"
            )));
        }
        Ok((compressed, len))
    }

    fn decompressed(&self, message: &[u8]) -> Result<Bytes, Status> {
        let mut bytes = Vec::new();
        GzDecoder::new(message)
            .take(MAX_MESSAGE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Status::internal(format!("Error decompressing: {error}, {}", self.which)))?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Status::resource_exhausted(format!(
                "Error decompressing: size limit, of {MAX_MESSAGE_BYTES} bytes, exceeded while decompressing message"
            )));
        }
        Ok(bytes.into())
    }
}

/// Whether messages with these headers may be compressed; an error names a compression that is not taken here.
fn is_gzip(headers: &HeaderMap, gzip: bool) -> Result<bool, Status> {
    match headers.get(ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(name) if gzip && name == GZIP.as_bytes() => Ok(true),
        Some(other) => {
            let name = std::str::from_utf8(other).map_or_else(|_| format!("{other:?}"), str::to_owned);
            let mut status =
                Status::unimplemented(format!("Content is compressed with `{name}` which isn't supported"));
            let accepted = if gzip { "gzip,identity" } else { "identity" };
            status.metadata_mut().insert(ACCEPT_ENCODING, MetadataValue::from_static(accepted));
            Err(status)
        }
    }
}

/// A message, compressed.
pub fn compressed(message: impl Read) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    GzEncoder::new(message, GZIP_LEVEL)
        .read_to_end(&mut bytes)
        .map_err(|error| Status::internal(format!("Error compressing: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use tonic::Code;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&prefix(false, message.len()).unwrap()[..], message].concat()
    }

    /// What comes of these bytes in pieces of so many.
    fn taken(bytes: &[u8], piece: usize, which: Which, encoding: Option<&str>) -> Result<Vec<Message>, Status> {
        let pieces = Pieces(bytes.chunks(piece).map(Bytes::copy_from_slice).collect());
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(ENCODING, encoding.parse().unwrap());
        }
        let mut messages = Messages::of(which, &headers, pieces)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut taken = Vec::new();
            while let Some(message) = messages.next().await? {
                taken.push(message);
            }
            Ok(taken)
        })
    }

    const ANSWERS: Which = Which::Answers(StatusCode::OK);

    #[test]
    fn messages_are_found_wherever_they_are_cut() {
        let sent = [vec![], vec![1], vec![2; 300], vec![], vec![3; 5000]];
        let bytes = sent.iter().flat_map(|message| framed(message)).collect::<Vec<u8>>();
        for which in [Which::Requests, ANSWERS] {
            for piece in (1..=20).chain([299, 300, 301, 310, 5000, bytes.len()]) {
                let taken = taken(&bytes, piece, which, None).unwrap();
                assert!(taken.iter().map(|message| &message[..]).eq(sent.iter().map(Vec::as_slice)), "{which} {piece}");
                for message in taken {
                    if let Message::Joined(bytes, room) = &message {
                        assert_eq!(*room, which.room());
                        assert_eq!(bytes.capacity(), bytes.len(), "the room of a message is all that it has beside it");
                    }
                    let whole = message.to_vec();
                    assert_eq!(message.into_bytes(), whole);
                }
            }
        }
    }

    #[test]
    fn a_message_that_came_in_one_piece_is_not_copied() {
        let bytes = [framed(&[1; 100]), framed(&[2; 100])].concat();
        let taken = taken(&bytes, bytes.len(), ANSWERS, None).unwrap();
        assert!(taken.iter().all(|message| matches!(message, Message::Slice(_))));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let code = |bytes: &[u8]| taken(bytes, 3, Which::Requests, None).unwrap_err().code();
        let whole = framed(&[1; 100]);
        for end in [1, PREFIX_BYTES - 1, PREFIX_BYTES, whole.len() - 1] {
            assert_eq!(code(&whole[..end]), Code::Internal, "cut at {end}");
        }
        assert_eq!(code(&[1, 0, 0, 0, 0]), Code::Internal, "compressed, and nothing says how");
        assert_eq!(code(&[2, 0, 0, 0, 0]), Code::Internal, "no flag");
        assert_eq!(code(&[0, 1, 0, 0, 1]), Code::OutOfRange, "one byte more than may be");
        let unknown = taken(&[], 1, Which::Requests, Some("zstd")).unwrap_err();
        assert_eq!(unknown.code(), Code::Unimplemented);
        assert_eq!(unknown.metadata().get(ACCEPT_ENCODING).unwrap(), "gzip,identity");
        assert_eq!(taken(&[], 1, ANSWERS, Some("gzip")).unwrap_err().code(), Code::Unimplemented);
        assert!(prefix(false, MAX_MESSAGE_BYTES + 1).is_err());
    }

    #[test]
    fn a_compressed_message_is_what_it_was_and_stays_within_bounds() {
        let compressed = |message: &[u8]| {
            let bytes = compressed(message).unwrap();
            [&prefix(true, bytes.len()).unwrap()[..], &bytes].concat()
        };
        let bytes = [compressed(&vec![7; 100_000]), framed(b"plain"), compressed(b"")].concat();
        let of = |bytes: &[u8]| taken(bytes, 50, Which::Requests, Some("gzip"));
        let found = of(&bytes).unwrap();
        assert_eq!(found.iter().map(|message| message.len()).collect::<Vec<_>>(), [100_000, 5, 0]);
        assert!(of(&compressed(&vec![0; MAX_MESSAGE_BYTES])).is_ok());
        assert_eq!(of(&compressed(&vec![0; MAX_MESSAGE_BYTES + 1])).unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(of(&[1, 0, 0, 0, 1, 0]).unwrap_err().code(), Code::Internal);
    }
}
