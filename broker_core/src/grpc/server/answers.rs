//! The answers of a call as HTTP/2 sends them. Records leave from where the log has them, unless that kept too much of it.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body, Frame, Incoming};
use tonic::Status;

use super::Reply;
use crate::broker::{Chunk, Handed};
use crate::grpc::framing::{ENCODING, GATHERED_BYTES, GZIP, compressed, prefix};
use crate::grpc::parts::{Gathered, Parts};

/// Bytes of memory that a message on its way may keep of the log for each of its own; what would keep more is copied.
const MOST_KEPT: usize = 4;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A message of the broker.
pub enum Answer {
    /// Encoded.
    Message(Vec<u8>),
    /// Encoded by another broker.
    Encoded(Bytes),
    /// A `ConsumeResponse` with one delivery, whose records are still where the log has them.
    Delivery(Box<Handed>),
}

/// Messages of the broker, as they come.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Reply<Answer>> + Send>>;

/// The body of a response.
#[derive(Default)]
pub(super) enum Outgoing {
    /// All was said in front of it.
    #[default]
    Nothing,
    /// Our own.
    Answers { answers: Answers, compresses: bool },
    /// How it ended, once every message has left.
    Ending(HeaderMap),
    /// Of another server.
    Forwarded(Incoming),
}

/// A response with these messages; `compresses`: each by itself.
pub(super) fn response(answers: Answers, compresses: bool) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Answers { answers, compresses });
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    if compresses {
        response.headers_mut().insert(ENCODING, HeaderValue::from_static(GZIP));
    }
    response
}

impl Body for Outgoing {
    type Data = Parts;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Parts>, Self::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Nothing => Poll::Ready(None),
            Self::Answers { answers, compresses } => {
                let mut gathered = Gathered::default();
                let ending = ready!(gather(&mut gathered, answers, *compresses, context));
                if let Some(ending) = ending {
                    *this = Self::Ending(trailers(&ending));
                    if gathered.len() == 0 {
                        return Pin::new(this).poll_frame(context);
                    }
                }
                Poll::Ready(Some(Ok(Frame::data(gathered.into_parts()))))
            }
            Self::Ending(trailers) => {
                let trailers = std::mem::take(trailers);
                *this = Self::Nothing;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Self::Forwarded(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?.map_data(Parts::from))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Answers { .. } | Self::Ending(_) => false,
            Self::Forwarded(body) => body.is_end_stream(),
        }
    }
}

/// Takes what is there, and gives the end if that came. Small messages leave together.
fn gather(
    gathered: &mut Gathered,
    answers: &mut Answers,
    compresses: bool,
    context: &mut Context<'_>,
) -> Poll<Option<Status>> {
    while gathered.len() < GATHERED_BYTES {
        let put = match answers.as_mut().poll_next(context) {
            Poll::Ready(Some(answer)) => answer.and_then(|answer| put(gathered, answer, compresses)),
            Poll::Ready(None) => Err(Status::ok("")),
            Poll::Pending if gathered.len() == 0 => return Poll::Pending,
            Poll::Pending => break,
        };
        if let Err(ending) = put {
            return Poll::Ready(Some(ending));
        }
    }
    Poll::Ready(None)
}

fn put(gathered: &mut Gathered, answer: Answer, compresses: bool) -> Reply<()> {
    if compresses {
        let mut message = Gathered::default();
        put_message(&mut message, answer);
        let message = compressed(bytes::Buf::reader(message.into_parts()))?;
        gathered.copy(&prefix(true, message.len())?);
        gathered.push(message.into());
    } else {
        gathered.copy(&prefix(false, answer.len())?);
        put_message(gathered, answer);
    }
    Ok(())
}

fn put_message(gathered: &mut Gathered, answer: Answer) {
    match answer {
        Answer::Message(message) => gathered.push(message.into()),
        Answer::Encoded(message) => gathered.push(message),
        Answer::Delivery(handed) => {
            handed.put_head(gathered.end());
            for chunk in handed.chunks {
                put_chunk(gathered, chunk);
            }
        }
    }
}

fn put_chunk(gathered: &mut Gathered, chunk: Chunk) {
    if chunk.kept_bytes() > MOST_KEPT * chunk.entries().len() {
        gathered.copy(chunk.entries());
    } else {
        gathered.push(Bytes::from_owner(chunk));
    }
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Encoded(message) => message.len(),
            Self::Delivery(handed) => handed.field_len(),
        }
    }
}

/// What follows the last message.
fn trailers(ending: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unsayable) = ending.add_header(&mut trailers) {
        // Its own text can be said.
        let _ = unsayable.add_header(&mut trailers);
    }
    trailers
}
