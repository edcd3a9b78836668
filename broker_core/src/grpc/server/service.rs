//! One call, from its headers to its trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::answers::{Answer, Answers, Outgoing, response};
use super::calls::{Calls, stopping_error, topics_of};
use super::consume::consume;
use super::forward::Forward;
use super::leased::Leased;
use super::produce::produce_stream;
use super::{Reply, Requests, message, stopped};
use crate::access::{Access, Caller, Need, bearer, changed_error, need_of};
use crate::broker::decode_request;
use crate::cluster::{Client, Cluster};
use crate::error;
use crate::grpc::SERVICE;
use crate::grpc::framing::{ACCEPT_ENCODING, GZIP, Message, Messages, Which};
use crate::wire::{ProduceHead, topic_of, v1};

/// A client's wish that answers be compressed, in the metadata of a call. All gRPC libraries say that they accept gzip,
/// wanted or not, so that alone is no wish for it.
const COMPRESS: (&str, &str) = ("telemetry-compress", "gzip");
/// Deliveries that wait for room in the client's window; they are leased.
const SENT_AHEAD: usize = 1;

/// How a connection came in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Over TCP: whoever can reach the port.
    Guarded,
    /// Through a Unix socket, which lets in whom its file lets in.
    Private,
}

/// Who carries out calls of `BrokerService`.
#[derive(Clone)]
pub(super) enum Callee {
    /// A broker of this process.
    Broker(Arc<Calls>),
    /// Brokers elsewhere. The receiver says when the server stops.
    Cluster(Arc<Cluster>, watch::Receiver<bool>),
}

/// What answers the calls of all connections.
pub(super) struct Service {
    /// None: there is no broker.
    pub callee: Option<Callee>,
    pub forward: Option<Forward>,
    pub access: Option<Arc<Access>>,
    /// Calls of `BrokerService` under way.
    pub active: Arc<AtomicUsize>,
}

impl Service {
    /// Answers a call. A failed one is an answer, too.
    pub async fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        door: Door,
    ) -> Result<Response<Outgoing>, Infallible> {
        let path = request.uri().path();
        let need = need_of(path);
        let caller = match self.caller(request.headers(), need, door) {
            Ok(caller) => caller,
            Err(refused) => return Ok(Status::from(refused).into_http()),
        };
        let (Some(callee), Some(method)) = (&self.callee, path.strip_prefix(SERVICE)) else {
            return Ok(match caller.check(need, path, "") {
                Ok(()) => self.pass_on(request).await,
                Err(refused) => Status::from(refused).into_http(),
            });
        };
        let method = method.to_owned();
        let compresses = compresses(request.headers());
        let deadline = timeout(request.headers()).map(|timeout| Instant::now() + timeout);
        let active = Active::of(&self.active);
        let (head, body) = request.into_parts();
        let answers = match Messages::of(Which::Requests, &head.headers, body) {
            Ok(requests) => {
                let call = Call { callee: callee.clone(), caller: Arc::new(caller), need, deadline, active };
                call.answer(method, requests).await
            }
            Err(status) => Err(status),
        };
        Ok(answers.map_or_else(Status::into_http, |answers| response(answers, compresses)))
    }

    /// Who calls, before anything of the call but its headers is looked at.
    fn caller(&self, headers: &HeaderMap, need: Need, door: Door) -> error::Result<Caller> {
        match &self.access {
            Some(access) if door == Door::Guarded && need != Need::Nothing => {
                let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                access.enter(authorization.and_then(bearer))
            }
            _ => Ok(Caller::anyone()),
        }
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Response<Outgoing> {
        let answer = match &self.forward {
            Some(forward) => forward.call(request).await,
            None => Err(Status::unimplemented(format!("{} is not known here", request.uri().path()))),
        };
        match answer {
            Ok(response) => response.map(Outgoing::Forwarded),
            Err(status) => status.into_http(),
        }
    }
}

/// Counts one call while it lives.
struct Active(Arc<AtomicUsize>);

impl Active {
    fn of(count: &Arc<AtomicUsize>) -> Self {
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
struct Call {
    callee: Callee,
    caller: Arc<Caller>,
    need: Need,
    deadline: Option<Instant>,
    active: Active,
}

impl Call {
    /// Begins it: a unary one is over then.
    async fn answer(self, method: String, requests: Requests) -> Reply<Answers> {
        let Self { callee, caller, need, deadline, active } = self;
        let changed = (!caller.is_anyone()).then(|| Box::pin(caller.changed()) as Pin<Box<_>>);
        let answers: Answers = match (method.as_str(), callee) {
            ("ProduceStream", Callee::Broker(calls)) => Box::pin(produce_stream(calls, caller, requests)),
            ("Consume", Callee::Broker(calls)) => {
                let (out, answers) = mpsc::channel(SENT_AHEAD);
                tokio::spawn(consume(calls, caller, requests, out));
                Box::pin(ReceiverStream::new(answers))
            }
            ("ProduceStream" | "Consume", Callee::Cluster(cluster, stopping)) => {
                let name = method.clone();
                let check = move |topic: &str| caller.check(need, &name, topic);
                let client = Client { stopping: Some(stopping), check: Some(Arc::new(check)) };
                let messages = cluster.stream(&method, Box::pin(read(requests)), client);
                Box::pin(messages.map(|message| message.map(Answer::Encoded)))
            }
            (_, callee) => {
                let answer = unary(callee, caller, need, method, requests);
                return match deadline {
                    Some(deadline) => timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(late())),
                    None => answer.await,
                };
            }
        };
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Ok(Box::pin(Bounded { answers, deadline, changed, _active: active }))
    }
}

async fn unary(
    callee: Callee,
    caller: Arc<Caller>,
    need: Need,
    method: String,
    mut requests: Requests,
) -> Reply<Answers> {
    let Some(request) = message(&mut requests).await? else {
        return Err(Status::internal(format!("{method} takes one message, and none came")));
    };
    authorize(&caller, need, &method, &request)?;
    let receive = if method == "Receive" { Some(decode_request(&method, &request)?) } else { None };
    let answer = callee.unary(&method, &caller, request);
    let answer = if matches!(method.as_str(), "Receive" | "Read") && !caller.is_anyone() {
        // Only what waits for records ends with its token: nothing was done yet.
        tokio::select! {
            biased;
            () = caller.changed() => Err(changed_error().into()),
            answer = answer => answer,
        }
    } else {
        answer.await
    };
    let answer = answer?;
    Ok(match receive {
        Some(asked) => Box::pin(Leased::new(callee.give_back(), asked, answer)),
        None => Box::pin(futures_util::stream::iter([Ok(answer)])),
    })
}

impl Callee {
    async fn unary(&self, method: &str, caller: &Caller, request: Message) -> Reply<Answer> {
        match self {
            Self::Broker(calls) => Ok(Answer::Message(calls.unary(method, caller, request).await?)),
            Self::Cluster(cluster, _) if method == "ListTopics" && !caller.is_anyone() => {
                let ask = |asked: Vec<u8>| cluster.unary(method, asked.into());
                topics_of(caller, &request, ask).await.map(Answer::Message)
            }
            Self::Cluster(cluster, stopping) => {
                let mut stopping = stopping.clone();
                tokio::select! {
                    answer = cluster.unary(method, request.into_bytes()) => answer.map(Answer::Encoded),
                    () = stopped(&mut stopping), if matches!(method, "Receive" | "Read") => Err(stopping_error().into()),
                }
            }
        }
    }

    /// What gives back leases that nobody was told of. An error leaves them to their visibility timeout.
    fn give_back(&self) -> Box<dyn FnOnce(v1::NackRequest) + Send> {
        let callee = self.clone();
        Box::new(move |nack| {
            // A server that has stopped has no runtime: they end with their visibility timeout.
            let Ok(runtime) = Handle::try_current() else { return };
            runtime.spawn(async move {
                match callee {
                    Self::Broker(calls) => drop(calls.nack(nack).await),
                    Self::Cluster(cluster, _) => drop(cluster.unary("Nack", nack.encode_to_vec().into()).await),
                }
            });
        })
    }
}

/// The messages of a client.
fn read(requests: Requests) -> impl Stream<Item = Reply<Bytes>> + Send {
    unfold(requests, |mut requests| async move {
        let next = message(&mut requests).await.transpose()?;
        Some((next.map(Message::into_bytes), requests))
    })
}

/// Refuses a request that its caller may not make.
pub(super) fn authorize(caller: &Caller, need: Need, method: &str, request: &[u8]) -> error::Result<()> {
    if caller.is_anyone() {
        return Ok(());
    }
    let topic = match need {
        Need::AnyRole | Need::Role(_) => match topic_of(request) {
            Ok(topic) => topic,
            Err(broken) => {
                if method.starts_with("Produce") {
                    ProduceHead::parse(request)?; // says which record it is
                }
                return Err(broken);
            }
        },
        _ => "",
    };
    caller.check(need, method, topic)
}

fn late() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

/// The answers of a stream, until its client's deadline, and while its token is valid.
struct Bounded {
    answers: Answers,
    deadline: Option<Pin<Box<Sleep>>>,
    changed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _active: Active,
}

impl Stream for Bounded {
    type Item = Reply<Answer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(late())));
        }
        if let Some(changed) = &mut self.changed
            && changed.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(changed_error().into())));
        }
        self.answers.as_mut().poll_next(context)
    }
}

/// Whether a client that takes gzip has asked for it.
fn compresses(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|name| name.trim() == GZIP)
        && headers.get(COMPRESS.0).is_some_and(|value| value == COMPRESS.1)
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
