//! The requests of a call as HTTP/2 sends them. Large ones are not copied.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Version, header};
use hyper::body::{Body, Frame};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};

use crate::grpc::framing::{GATHERED_BYTES, prefix};

/// A message of at least so many bytes leaves as it is, without being copied behind others.
const LARGE_MESSAGE: usize = 16 << 10;

/// The headers of a call, and its messages. An error among these resets the call.
pub(super) fn request(
    path: PathAndQuery,
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Option<Duration>,
    messages: impl Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
) -> Request<tonic::body::Body> {
    let mut metadata = tonic::Request::new(());
    if let Some(authorization) = authorization {
        metadata.metadata_mut().insert("authorization", authorization);
    }
    if let Some(timeout) = timeout {
        metadata.set_timeout(timeout);
    }
    let (metadata, ..) = metadata.into_parts();
    let mut request = Request::new(tonic::body::Body::new(Requests { messages, next: None }));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = path.into();
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

struct Requests<S> {
    messages: S,
    /// What stands in front of it is on its way.
    next: Option<Bytes>,
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> Body for Requests<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let mut gathered = Vec::new();
        while gathered.len() < GATHERED_BYTES && self.next.is_none() {
            match Pin::new(&mut self.messages).poll_next(context)? {
                Poll::Ready(Some(message)) => {
                    gathered.extend_from_slice(&prefix(false, message.len())?);
                    if message.len() < LARGE_MESSAGE {
                        gathered.extend_from_slice(&message);
                    } else {
                        self.next = Some(message);
                    }
                }
                Poll::Ready(None) if gathered.is_empty() => return Poll::Ready(None),
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(gathered.into()))))
    }
}
