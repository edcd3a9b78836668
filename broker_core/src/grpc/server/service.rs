//! One call, from its headers to its trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use super::calls::{Answer, Calls};
use super::consume::consume;
use super::forward::Forward;
use super::produce::produce_stream;
use super::{Reply, message};
use crate::grpc::codec::RawCodec;
use crate::grpc::{MAX_MESSAGE_BYTES, SERVICE};

/// A client's wish that answers be compressed, in the metadata of a call. All gRPC libraries say that they accept gzip,
/// wanted or not, so that alone is no wish for it.
const COMPRESS: (&str, &str) = ("telemetry-compress", "gzip");
/// Deliveries that wait for room in the client's window; they are leased.
const SENT_AHEAD: usize = 1;

type Answers = Pin<Box<dyn Stream<Item = Reply<Answer>> + Send>>;

/// What answers the calls of all connections.
pub(super) struct Service {
    pub calls: Arc<Calls>,
    pub forward: Option<Forward>,
    /// Calls of `BrokerService` under way.
    pub active: Arc<AtomicUsize>,
    /// Connections that are open.
    pub connections: Arc<AtomicUsize>,
}

impl Service {
    /// Answers a call. A failed one is an answer, too.
    pub async fn call(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Some(method) = request.uri().path().strip_prefix(SERVICE) else {
            return Ok(self.pass_on(request).await);
        };
        let method = method.to_owned();
        let compresses = request.headers().get(COMPRESS.0).is_some_and(|value| value == COMPRESS.1);
        let deadline = timeout(request.headers()).map(|timeout| Instant::now() + timeout);
        let handler = Handler { calls: self.calls.clone(), method, deadline, active: Some(Active::of(&self.active)) };
        let mut grpc = Grpc::new(RawCodec::default())
            .accept_compressed(Gzip)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        if compresses {
            grpc = grpc.send_compressed(Gzip);
        }
        Ok(grpc.streaming(handler, request).await)
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = match &self.forward {
            Some(forward) => forward.call(request).await,
            None => Err(Status::unimplemented(format!("{} is not known here", request.uri().path()))),
        };
        match answer {
            Ok(response) => response.map(Body::new),
            Err(status) => status.into_http(),
        }
    }
}

/// A call or a connection, which counts while it lives.
pub(super) struct Active(Arc<AtomicUsize>);

impl Active {
    /// Counts one more.
    pub(super) fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One call of `BrokerService`. On the wire a unary call is a stream of one message each way.
struct Handler {
    calls: Arc<Calls>,
    method: String,
    deadline: Option<Instant>,
    /// Until the call begins.
    active: Option<Active>,
}

impl StreamingService<Bytes> for Handler {
    type Response = Answer;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Reply<tonic::Response<Answers>>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let calls = self.calls.clone();
        let requests = request.into_inner();
        let active = self.active.take();
        let deadline = self.deadline;
        let answers: Answers = match self.method.as_str() {
            "ProduceStream" => Box::pin(produce_stream(calls, requests)),
            "Consume" => {
                let (out, answers) = mpsc::channel(SENT_AHEAD);
                tokio::spawn(consume(calls, requests, out));
                Box::pin(ReceiverStream::new(answers))
            }
            method => {
                let answer = unary(calls, method.to_owned(), requests);
                return Box::pin(async move {
                    let _active = active;
                    let answer = match deadline {
                        Some(deadline) => tokio::time::timeout_at(deadline, answer).await.map_err(|_| late())?,
                        None => answer.await,
                    };
                    let answers: Answers = Box::pin(futures_util::stream::iter([Ok(answer?)]));
                    Ok(tonic::Response::new(answers))
                });
            }
        };
        let answers = UntilDeadline {
            answers,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            _active: active,
        };
        Box::pin(std::future::ready(Ok(tonic::Response::new(answers.boxed()))))
    }
}

async fn unary(calls: Arc<Calls>, method: String, mut requests: Streaming<Bytes>) -> Reply<Answer> {
    let Some(request) = message(&mut requests).await? else {
        return Err(Status::internal(format!("{method} takes one message, and none came")));
    };
    calls.unary(&method, request).await.map(Answer::Message).map_err(Status::from)
}

fn late() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

/// The answers of a stream, until its client's deadline.
struct UntilDeadline {
    answers: Answers,
    deadline: Option<Pin<Box<Sleep>>>,
    _active: Option<Active>,
}

impl Stream for UntilDeadline {
    type Item = Reply<Answer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(late())));
        }
        self.answers.as_mut().poll_next(context)
    }
}

/// The `grpc-timeout` of a call: up to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). What is none is no deadline.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(of("300m"), Some(Duration::from_millis(300)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(of("1n"), Some(Duration::from_nanos(1)));
        for wrong in ["", "m", "123456789S", "-1S", "1x", "1.5S", "S1"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
