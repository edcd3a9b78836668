//! What concerns leases: acks, nacks and extensions to the brokers that gave them, and the call that gets some.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use tokio::time::{Instant, sleep_until};

use super::member::{AWAY_RETRY_MS, CALL_TIMEOUT, Member};
use super::{Cluster, Reply, error_of, failed_call, is};
use crate::broker::decode_request;
use crate::error::{Code, Error};
use crate::grpc::status::in_stream;
use crate::queue::lease::LeaseId;
use crate::wire::delivery::DELIVERY_TAG;
use crate::wire::v1;
use crate::wire::v1::consume_request::Request;
use crate::wire::v1::consume_response::Response;

/// Pause between two looks of a `Receive` that waits. (A Consume stream is told, and looks at nothing.)
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a client wants done with leases.
pub(super) enum Asked {
    Ack(v1::AckRequest),
    Nack(v1::NackRequest),
    Extend(v1::ExtendRequest),
}

/// What kind of answer that has.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Ack,
    Nack,
    Extend,
}

impl Asked {
    fn decode(method: &str, request: &[u8]) -> crate::error::Result<Self> {
        Ok(match method {
            "Ack" => Self::Ack(decode_request(method, request)?),
            "Nack" => Self::Nack(decode_request(method, request)?),
            _ => Self::Extend(decode_request(method, request)?),
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Ack(_) => Kind::Ack,
            Self::Nack(_) => Kind::Nack,
            Self::Extend(_) => Kind::Extend,
        }
    }

    fn take_leases(&mut self) -> Vec<v1::LeaseRange> {
        std::mem::take(match self {
            Self::Ack(ack) => &mut ack.leases,
            Self::Nack(nack) => &mut nack.leases,
            Self::Extend(extend) => &mut extend.leases,
        })
    }

    pub(super) fn leases(&self) -> &[v1::LeaseRange] {
        match self {
            Self::Ack(ack) => &ack.leases,
            Self::Nack(nack) => &nack.leases,
            Self::Extend(extend) => &extend.leases,
        }
    }

    /// The same, of these leases.
    fn of(&self, leases: Vec<v1::LeaseRange>) -> Self {
        match self {
            Self::Ack(ack) => Self::Ack(v1::AckRequest { leases, ..ack.clone() }),
            Self::Nack(nack) => Self::Nack(v1::NackRequest { leases, ..nack.clone() }),
            Self::Extend(extend) => Self::Extend(v1::ExtendRequest { leases, ..extend.clone() }),
        }
    }

    /// As a message of a Consume stream.
    pub(super) fn into_request(self) -> Request {
        match self {
            Self::Ack(ack) => Request::Ack(ack),
            Self::Nack(nack) => Request::Nack(nack),
            Self::Extend(extend) => Request::Extend(extend),
        }
    }

    /// As a call.
    async fn call(self, member: &Member) -> Reply<Part> {
        Ok(match self {
            Self::Ack(ack) => {
                let answer: v1::AckResponse = member.ask("Ack", &ack).await?;
                Part::Settled(answer.acked, answer.stale)
            }
            Self::Nack(nack) => {
                let answer: v1::NackResponse = member.ask("Nack", &nack).await?;
                Part::Settled(answer.nacked, answer.stale)
            }
            Self::Extend(extend) => {
                let answer: v1::ExtendResponse = member.ask("Extend", &extend).await?;
                Part::Settled(answer.extended, answer.stale)
            }
        })
    }
}

/// What one broker answered.
pub(super) enum Part {
    /// How many, and what was refused.
    Settled(u64, Vec<v1::StaleLease>),
    Failed(v1::Error),
}

impl Part {
    /// None of it was done: the leases are over.
    pub(super) fn stale(leases: Vec<v1::LeaseRange>) -> Self {
        let stale = leases.into_iter().filter_map(|lease| {
            let id = LeaseId::decode(&lease.lease_id).ok()?;
            let all = v1::OffsetRange { start: id.start, end: id.end() };
            let ranges = if lease.ranges.is_empty() { vec![all] } else { lease.ranges };
            Some(v1::StaleLease { lease_id: lease.lease_id, ranges })
        });
        Self::Settled(0, stale.collect())
    }
}

/// One answer out of those of several brokers. An error is the answer, for what was done may be asked for again.
pub(super) struct Merged {
    kind: Kind,
    done: u64,
    stale: Vec<v1::StaleLease>,
    error: Option<v1::Error>,
}

impl Merged {
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, done: 0, stale: Vec::new(), error: None }
    }

    pub(super) fn add(&mut self, part: Part) {
        match part {
            Part::Settled(done, stale) => {
                self.done += done;
                self.stale.extend(stale);
            }
            Part::Failed(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    /// As a message of a Consume stream.
    pub(super) fn into_response(self) -> Response {
        let Self { kind, done, stale, error } = self;
        match (error, kind) {
            (Some(error), _) => Response::Error(error),
            (None, Kind::Ack) => Response::Acked(v1::AckResponse { acked: done, stale }),
            (None, Kind::Nack) => Response::Nacked(v1::NackResponse { nacked: done, stale }),
            (None, Kind::Extend) => Response::Extended(v1::ExtendResponse { extended: done, stale }),
        }
    }

    /// As the answer of a call.
    fn into_reply(self) -> Reply<Bytes> {
        Ok(match self.into_response() {
            Response::Acked(answer) => answer.encode_to_vec(),
            Response::Nacked(answer) => answer.encode_to_vec(),
            Response::Extended(answer) => answer.encode_to_vec(),
            Response::Error(error) => return Err(failed_call(&error)),
            _ => Vec::new(),
        }
        .into())
    }
}

/// What is for each broker, and what can be said at once: bytes that are no lease, and leases of a broker that is gone for
/// good.
pub(super) fn split(cluster: &Cluster, mut asked: Asked) -> (Vec<(Arc<Member>, Asked)>, Merged) {
    let mut merged = Merged::of(asked.kind());
    let mut parts: Vec<(Arc<Member>, Vec<v1::LeaseRange>)> = Vec::new();
    for lease in asked.take_leases() {
        let id = match LeaseId::decode(&lease.lease_id) {
            Ok(id) => id,
            Err(error) => {
                merged.add(Part::Failed(in_stream(&error)));
                continue;
            }
        };
        if let Some((_, leases)) = parts.iter_mut().find(|(member, _)| member.has_id(&id.broker_id)) {
            leases.push(lease);
        } else if let Some(member) = cluster.with_id(&id.broker_id) {
            parts.push((member, vec![lease]));
        } else if cluster.members().iter().any(|member| member.known().broker_id.is_empty()) {
            let message = "the broker that gave a lease was not reached yet; ask again";
            let error = Error::new(Code::Unavailable, message).retry_after_ms(AWAY_RETRY_MS);
            merged.add(Part::Failed(in_stream(&error)));
        } else {
            merged.add(Part::stale(vec![lease]));
        }
    }
    (parts.into_iter().map(|(member, leases)| (member, asked.of(leases))).collect(), merged)
}

/// Answers an `Ack`, `Nack` or `Extend`.
pub(super) async fn settle(cluster: &Arc<Cluster>, method: &str, request: Bytes) -> Reply<Bytes> {
    cluster.up_soon().await?;
    let (parts, mut merged) = split(cluster, Asked::decode(method, &request)?);
    let calls = parts.into_iter().map(|(member, part)| async move {
        if member.is_up() {
            part.call(&member).await.unwrap_or_else(|status| Part::Failed(error_of(&status)))
        } else {
            Part::Failed(in_stream(&member.away(&member.known().error)))
        }
    });
    for part in join_all(calls).await {
        merged.add(part);
    }
    merged.into_reply()
}

/// Answers a `Receive`: what one broker has, or what comes first.
pub(super) async fn receive(cluster: &Arc<Cluster>, request: Bytes) -> Reply<Bytes> {
    let asked: v1::ReceiveRequest = decode_request("Receive", &request)?;
    let up = cluster.up_soon().await?;
    let at_once: Bytes = v1::ReceiveRequest { wait_ms: 0, ..asked.clone() }.encode_to_vec().into();
    let end = Instant::now() + Duration::from_millis(u64::from(asked.wait_ms));
    let mut up = up;
    // One broker after the other, and never two at once: of two that answer with records, one would be told to nobody, and
    // an ordered group would go on behind what it had given there.
    loop {
        let mut next_due_ms = 0;
        let mut failure = None;
        let mut answered = false;
        for member in &up {
            match ask(cluster, member, &asked.topic, at_once.clone(), CALL_TIMEOUT).await {
                Ok(answer) if answer.first() == Some(&DELIVERY_TAG) => return Ok(answer),
                Ok(answer) => {
                    answered = true;
                    next_due_ms = sooner(next_due_ms, due_ms(&answer));
                }
                Err(status) => failure = Some(status),
            }
        }
        if let (false, Some(status)) = (answered, failure) {
            return Err(status);
        }
        if Instant::now() >= end {
            return Ok(v1::ReceiveResponse { deliveries: Vec::new(), next_due_ms }.encode_to_vec().into());
        }
        sleep_until(end.min(Instant::now() + LOOK_AGAIN)).await;
        up = cluster.up_soon().await?;
    }
}

/// Runs a `Receive`, and brings the broker the topic if it has none.
async fn ask(
    cluster: &Arc<Cluster>,
    member: &Arc<Member>,
    topic: &str,
    request: Bytes,
    limit: Duration,
) -> Reply<Bytes> {
    match member.unary("Receive", request.clone(), limit).await {
        Err(status) if is(&status, Code::TopicNotFound) && super::admin::bring_topic(cluster, member, topic).await => {
            member.unary("Receive", request, limit).await
        }
        answer => answer,
    }
}

fn due_ms(answer: &Bytes) -> u32 {
    v1::ReceiveResponse::decode(answer.clone()).map_or(0, |answer| answer.next_due_ms)
}

/// The sooner of two times, of which 0 says nothing.
fn sooner(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}
