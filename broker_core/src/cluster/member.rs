//! One broker among others: the connection to it, and whether it is well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tonic::{Code as Grpc, Status};

use super::Reply;
use super::breaker::{Breaker, State};
use crate::error::{Code, Error};
use crate::grpc::client::{Answers, Failure, Remote};
use crate::wire::v1;

/// How long an attempt to find out whether a broker is well may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call that waits for nothing may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker must have been well until it is trusted to stay so.
const TRUSTED_AFTER: Duration = Duration::from_secs(10);
/// Retry time of what a broker that is away could not do.
pub(super) const AWAY_RETRY_MS: u32 = 250;
/// However much somebody needs a broker that is away, it is left alone for so long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// What is known of a broker. `error` is why it is away.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// 8 bytes; empty: not known yet.
    pub broker_id: Vec<u8>,
    /// It takes no new records.
    pub draining: bool,
    /// Of its program.
    pub version: String,
    /// What it calls itself.
    pub name: String,
    /// Names and addresses of the brokers that it knows of, itself included; empty: none.
    pub members: Vec<(String, String)>,
    /// Why it is away; empty: it is not.
    pub error: String,
}

struct Inner {
    breaker: Breaker,
    known: Known,
    /// Its topics when they were listed last, by name.
    topics: HashMap<String, v1::Topic>,
}

/// What a broker was asked, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls and messages.
    pub requests: AtomicU64,
    /// Those that failed by its fault.
    pub failures: AtomicU64,
    /// How often it was found out whether it is well.
    pub health_checks: AtomicU64,
    /// How often it was found to be away.
    pub failures_detected: AtomicU64,
}

/// One broker.
pub struct Member {
    /// As the ring has it.
    pub name: Arc<str>,
    /// `host:port`, or `unix:/path`.
    pub address: String,
    /// What it was asked.
    pub counts: Counts,
    remote: Remote,
    inner: Mutex<Inner>,
    up: watch::Sender<bool>,
    /// Rung when too many calls failed.
    tripped: Notify,
    /// Rung when somebody needs it although it is away.
    wanted: Notify,
}

impl Member {
    pub(super) fn new(name: &str, address: &str, remote: Remote) -> Self {
        Self {
            name: name.into(),
            address: address.to_owned(),
            counts: Counts::default(),
            remote,
            inner: Mutex::new(Inner { breaker: Breaker::default(), known: Known::default(), topics: HashMap::new() }),
            up: watch::channel(false).0,
            tripped: Notify::new(),
            wanted: Notify::new(),
        }
    }

    /// Whether it is called.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Its breaker.
    pub fn state(&self) -> State {
        self.inner.lock().breaker.state()
    }

    /// What is known of it.
    pub fn known(&self) -> Known {
        self.inner.lock().known.clone()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.inner.lock().known.draining
    }

    pub(super) fn has_id(&self, broker_id: &[u8]) -> bool {
        self.inner.lock().known.broker_id == broker_id
    }

    /// A topic as it was when they were listed last.
    pub(super) fn topic(&self, name: &str) -> Option<v1::Topic> {
        self.inner.lock().topics.get(name).cloned()
    }

    pub(super) fn topics(&self) -> Vec<v1::Topic> {
        self.inner.lock().topics.values().cloned().collect()
    }

    pub(super) fn note_topic(&self, topic: v1::Topic) {
        self.inner.lock().topics.insert(topic.name.clone(), topic);
    }

    pub(super) fn forget_topic(&self, name: &str) {
        self.inner.lock().topics.remove(name);
    }

    pub(super) fn note_draining(&self, draining: bool) {
        self.inner.lock().known.draining = draining;
    }

    /// Returns once it is away.
    pub(super) async fn down(&self) {
        let _ = self.up.subscribe().wait_for(|up| !up).await; // a member that is gone is away
    }

    /// Runs one call.
    pub(super) async fn unary(&self, method: &str, request: Bytes, limit: Duration) -> Reply<Bytes> {
        self.asked(1);
        let answer = self.remote.unary(method, request, limit).await;
        match &answer {
            Ok(_) => self.well(),
            Err(status) => self.failed(status),
        }
        answer.map_err(|status| self.explained(&status))
    }

    /// Runs one call of messages that are decoded here.
    pub(super) async fn ask<A: Message + Default>(&self, method: &str, request: &impl Message) -> Reply<A> {
        let answer = self.unary(method, request.encode_to_vec().into(), CALL_TIMEOUT).await?;
        A::decode(answer).map_err(|err| self.unreadable(method, &err))
    }

    /// Begins a stream.
    pub(super) async fn stream(
        &self,
        method: &str,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Reply<Answers> {
        self.remote.stream(method, requests, None).await
    }

    pub(super) fn asked(&self, count: u64) {
        self.counts.requests.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn well(&self) {
        self.inner.lock().breaker.success();
    }

    /// Notes a failure, if it is one of the broker.
    pub(super) fn failed(&self, status: &Status) {
        let failure = Failure::of(status);
        let fault = match &failure.code {
            Some(code) => is_fault(code),
            None => {
                matches!(status.code(), Grpc::Unavailable | Grpc::Internal | Grpc::Unknown | Grpc::DeadlineExceeded)
            }
        };
        if fault {
            self.at_fault();
        }
    }

    /// A call failed by its fault.
    pub(super) fn at_fault(&self) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        if self.inner.lock().breaker.failure() {
            self.tripped.notify_one();
        }
    }

    /// A failure of the connection says whose it was; an answer of the broker stays what it is.
    pub(super) fn explained(&self, status: &Status) -> Status {
        let failure = Failure::of(status);
        if failure.code.is_some() || !matches!(failure.status, Grpc::Unavailable | Grpc::DeadlineExceeded) {
            return status.clone();
        }
        self.away(&failure.message).into()
    }

    /// What a broker that is away answers.
    pub(super) fn away(&self, why: &str) -> Error {
        let why = if why.is_empty() { "it was not reached yet" } else { why };
        let message = format!("broker {} ({}) is away: {why}; it is tried again by itself", self.name, self.address);
        Error::new(Code::Unavailable, message).retry_after_ms(AWAY_RETRY_MS)
    }

    fn unreadable(&self, method: &str, err: &prost::DecodeError) -> Status {
        let message = format!("broker {} ({}) answered {method} unreadably: {err}", self.name, self.address);
        Error::new(Code::Internal, message).into()
    }

    /// Finds out whether it is well, says so by `came_up`, and watches it. Returns why it is not, or no longer.
    /// Each time that it was looked at, `looked` gets the members that it knows of.
    pub(super) async fn probe<F: Future<Output = ()>>(
        &self,
        refresh: Duration,
        came_up: impl FnOnce(Known) -> F,
        looked: impl Fn(&[(String, String)]),
    ) -> String {
        self.inner.lock().breaker.try_it();
        let watched = async {
            self.look().await?;
            let request = HealthCheckRequest { service: crate::grpc::SERVICE.trim_matches('/').to_owned() };
            let request = futures_util::stream::once(std::future::ready(Bytes::from(request.encode_to_vec())));
            let mut watch = self.remote.stream(HEALTH_WATCH, request, None).await?;
            is_serving(watch.message().await)?;
            Ok::<_, Status>(watch)
        };
        let mut watch = match timeout(PROBE_TIMEOUT, watched).await {
            Ok(Ok(watch)) => watch,
            Ok(Err(status)) => return Failure::of(&status).message,
            Err(_) => return format!("it did not answer within {PROBE_TIMEOUT:?}"),
        };
        let known = {
            let mut inner = self.inner.lock();
            inner.breaker.close();
            inner.known.error = String::new();
            inner.known.clone()
        };
        self.up.send_replace(true);
        looked(&known.members);
        came_up(known).await;
        let begun = Instant::now();
        let mut ticks = interval_at(begun + refresh, refresh);
        loop {
            tokio::select! {
                message = watch.message() => {
                    if let Err(status) = is_serving(message) {
                        return Failure::of(&status).message;
                    }
                }
                () = self.tripped.notified() => return "too many calls in a row failed".to_owned(),
                _ = ticks.tick() => {
                    if begun.elapsed() > TRUSTED_AFTER {
                        self.inner.lock().breaker.trust();
                    }
                    match timeout(PROBE_TIMEOUT, self.look()).await {
                        Ok(Ok(())) => looked(&self.known().members),
                        Ok(Err(status)) => return Failure::of(&status).message,
                        Err(_) => return format!("it did not answer within {PROBE_TIMEOUT:?}"),
                    }
                }
            }
        }
    }

    /// It is away. Says whether it was not before, and how long to leave it alone.
    pub(super) fn open(&self, why: String, random: f64) -> (bool, Duration) {
        let pause = {
            let mut inner = self.inner.lock();
            inner.known.error = why;
            inner.breaker.open(random)
        };
        let was_up = self.up.send_replace(false);
        if was_up {
            self.counts.failures_detected.fetch_add(1, Ordering::Relaxed);
        }
        (was_up, pause)
    }

    /// Leaves it alone for so long; not so long where somebody needs it.
    pub(super) async fn pause(&self, pause: Duration) {
        sleep(pause.min(SHORTEST_PAUSE)).await;
        let _ = timeout(pause.saturating_sub(SHORTEST_PAUSE), self.wanted.notified()).await; // either way it is over
    }

    /// Somebody needs it: it is tried as soon as may be.
    pub(super) fn try_now(&self) {
        self.wanted.notify_one();
    }

    /// Learns what it is and which topics it has.
    async fn look(&self) -> Reply<()> {
        self.counts.health_checks.fetch_add(1, Ordering::Relaxed);
        let answer = self.remote.unary("DescribeBroker", Bytes::new(), PROBE_TIMEOUT).await?;
        let described =
            v1::DescribeBrokerResponse::decode(answer).map_err(|err| self.unreadable("DescribeBroker", &err))?;
        let mut topics = HashMap::new();
        let mut asked = v1::ListTopicsRequest::default();
        loop {
            let answer = self.remote.unary("ListTopics", asked.encode_to_vec().into(), PROBE_TIMEOUT).await?;
            let page = v1::ListTopicsResponse::decode(answer).map_err(|err| self.unreadable("ListTopics", &err))?;
            if let Some(last) = page.topics.last() {
                asked.after.clone_from(&last.name);
            }
            let more = page.more && !page.topics.is_empty();
            topics.extend(page.topics.into_iter().map(|topic| (topic.name.clone(), topic)));
            if !more {
                break;
            }
        }
        let mut inner = self.inner.lock();
        inner.topics = topics;
        inner.known = Known {
            broker_id: described.broker_id,
            draining: described.draining,
            version: described.version,
            name: described.name,
            members: described.members.into_iter().map(|member| (member.name, member.address)).collect(),
            error: std::mem::take(&mut inner.known.error),
        };
        Ok(())
    }
}

/// Whether an error of this code is the broker's fault and may not befall another one.
pub(super) fn is_fault(code: &str) -> bool {
    let faults = [Code::LogPoisoned, Code::DataIo, Code::Internal, Code::Unavailable, Code::LogCorrupt];
    Code::of(code).is_some_and(|code| faults.contains(&code))
}

fn is_serving(message: Reply<Option<Bytes>>) -> Reply<()> {
    let Some(message) = message? else { return Err(Status::unavailable("it ended its health watch")) };
    match HealthCheckResponse::decode(message) {
        Ok(HealthCheckResponse { status: SERVING }) => Ok(()),
        Ok(HealthCheckResponse { status }) => {
            Err(Status::unavailable(format!("it says that it does not serve (health status {status})")))
        }
        Err(err) => Err(Status::internal(format!("its health watch is unreadable: {err}"))),
    }
}
