//! Records to the broker that takes them: one stream of a client becomes one stream to each broker that it has records for.
//!
//! A batch that did not leave, or that its broker refused for a reason of its own, goes to the next broker on the
//! partition's preference list. One that left and was not answered goes nowhere: its client is told who may have it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesOrdered, unfold};
use futures_util::task::AtomicWaker;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;
use tonic::Status;

use super::member::{AWAY_RETRY_MS, Member, is_fault};
use super::{Client, Cluster, Messages, Reply, Stopping, failed_call, is};
use crate::error::{Code, Error};
use crate::grpc::client::Failure;
use crate::grpc::status::in_stream;
use crate::wire::cursor::put_bytes;
use crate::wire::stream::{PRODUCE, produce_request};
use crate::wire::v1::produce_stream_response::Result as Produced;
use crate::wire::{ProduceAddress, ProduceHead, v1};

/// Requests of one stream that are not answered yet; behind them, the client's next ones wait in its connection.
const IN_FLIGHT: usize = 32;
/// What a `ProduceStreamResponse` of a batch that is stored begins with: field 1, with a length.
const PRODUCED_TAG: u8 = 1 << 3 | 2;

/// Answers a `ProduceStream`.
pub(super) fn stream(cluster: Arc<Cluster>, requests: Messages, client: Client) -> Messages {
    let stopping = client.stopping.clone();
    let lanes = Arc::new(Lanes { cluster, client, by_member: Mutex::default() });
    let stream =
        ProduceStream { lanes, requests, stopping, ended: false, failure: None, unanswered: FuturesOrdered::new() };
    Box::pin(unfold(stream, |mut stream| async move { stream.next().await.map(|answer| (answer, stream)) }))
}

/// Answers a `Produce`.
pub(super) async fn one(cluster: &Arc<Cluster>, request: Bytes) -> Reply<Bytes> {
    let lanes = Arc::new(Lanes { cluster: cluster.clone(), client: Client::default(), by_member: Mutex::default() });
    let mut message = Vec::with_capacity(request.len() + 6);
    put_bytes(&mut message, PRODUCE, &request);
    let answer = lanes.produce(&message.into()).await;
    match decode(&answer)? {
        Some(Produced::Produced(produced)) => Ok(produced.encode_to_vec().into()),
        Some(Produced::Error(error)) => Err(failed_call(&error)),
        None => Err(Status::internal("a broker answered Produce with nothing")),
    }
}

fn decode(answer: &[u8]) -> Reply<Option<Produced>> {
    v1::ProduceStreamResponse::decode(answer)
        .map(|response| response.result)
        .map_err(|err| Status::internal(format!("a broker answered ProduceStream unreadably: {err}")))
}

type Answer = Pin<Box<dyn Future<Output = Bytes> + Send>>;

struct ProduceStream {
    lanes: Arc<Lanes>,
    requests: Messages,
    stopping: Stopping,
    /// Nothing more is read.
    ended: bool,
    /// Why, where that is an error.
    failure: Option<Status>,
    unanswered: FuturesOrdered<Answer>,
}

impl ProduceStream {
    async fn next(&mut self) -> Option<Reply<Bytes>> {
        loop {
            if self.ended && self.unanswered.is_empty() {
                return self.failure.take().map(Err);
            }
            tokio::select! {
                biased;
                Some(answer) = self.unanswered.next(), if !self.unanswered.is_empty() => return Some(Ok(answer)),
                request = self.requests.next(), if !self.ended && self.unanswered.len() < IN_FLIGHT => match request {
                    Some(Ok(request)) => {
                        let answer = self.lanes.produce(&request);
                        self.unanswered.push_back(answer);
                    }
                    Some(Err(status)) => (self.ended, self.failure) = (true, Some(status)),
                    None => self.ended = true,
                },
                () = super::stopped(&mut self.stopping), if !self.ended => self.ended = true,
            }
        }
    }
}

/// The streams to brokers that belong to one stream of a client.
struct Lanes {
    cluster: Arc<Cluster>,
    client: Client,
    by_member: Mutex<HashMap<Arc<str>, Arc<Lane>>>,
}

impl Lanes {
    /// Puts a request on its way before it returns, so that those of a partition leave in their order; the rest is waiting.
    fn produce(self: &Arc<Self>, message: &Bytes) -> Answer {
        match self.route(message) {
            Ok(answer) => answer,
            Err(error) => Box::pin(std::future::ready(refused(&error))),
        }
    }

    fn route(self: &Arc<Self>, message: &Bytes) -> crate::error::Result<Answer> {
        let request = &message[produce_request(message)?];
        let address = ProduceAddress::parse(request)?;
        self.client.check(address.topic)?;
        let topic = address.topic.to_owned();
        let Some(partition) = address.partition else {
            let request = message.slice_ref(request);
            return self.spread(topic, request);
        };
        let attempt = Attempt::new(self.clone(), topic, partition, message.clone());
        Ok(match address.resent_to {
            None => attempt.begin(),
            Some(broker) => {
                let (broker, producer, sequence) = (broker.to_owned(), address.producer.to_owned(), address.sequence);
                Box::pin(async move { attempt.resend(&broker, &producer, sequence).await })
            }
        })
    }

    /// Splits a batch by the keys of its records.
    fn spread(self: &Arc<Self>, topic: String, request: Bytes) -> crate::error::Result<Answer> {
        let head = ProduceHead::parse(&request)?;
        if !head.producer.is_empty() {
            let message =
                format!("producer {:?} named no partition; sequences count per partition, so it must", head.producer);
            return Err(Error::new(Code::InvalidArgument, message).field("partition"));
        }
        if let Some(known) = self.cluster.topic(&topic) {
            return Ok(self.spread_over(&known, &head));
        }
        drop(head);
        let lanes = self.clone();
        Ok(Box::pin(async move {
            let known = match super::admin::find_topic(&lanes.cluster, &topic).await {
                Ok(known) => known,
                Err(status) => return failed(&status),
            };
            match ProduceHead::parse(&request) {
                Ok(head) => lanes.spread_over(&known, &head),
                Err(error) => return refused(&error),
            }
            .await
        }))
    }

    fn spread_over(self: &Arc<Self>, topic: &v1::Topic, head: &ProduceHead<'_>) -> Answer {
        let partitions = topic.config.as_ref().and_then(|config| config.partitions).unwrap_or(1).max(1);
        let keyless = self.cluster.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % partitions;
        let parts: BTreeMap<u32, (Vec<u8>, u32)> = head.records.by_key(partitions, keyless);
        let answers: Vec<Answer> = parts
            .into_iter()
            .map(|(partition, (records, _))| {
                let part = v1::ProduceRequest {
                    topic: topic.name.clone(),
                    partition: Some(partition),
                    ..v1::ProduceRequest::default()
                };
                let part = [part.encode_to_vec(), records].concat();
                let mut message = Vec::with_capacity(part.len() + 6);
                put_bytes(&mut message, PRODUCE, &part);
                Attempt::new(self.clone(), topic.name.clone(), partition, message.into()).begin()
            })
            .collect();
        if answers.is_empty() {
            return Box::pin(std::future::ready(produced(Vec::new())));
        }
        Box::pin(async move {
            let mut appended = Vec::new();
            for answer in join_all(answers).await {
                match decode(&answer) {
                    Ok(Some(Produced::Produced(part))) => appended.extend(part.appended),
                    Ok(_) => return answer,
                    Err(status) => return failed(&status),
                }
            }
            produced(appended)
        })
    }

    /// Sends a message to a broker. What is sent to one broker leaves in its order.
    fn send(&self, member: &Arc<Member>, message: Bytes) -> oneshot::Receiver<Outcome> {
        let mut lanes = self.by_member.lock();
        member.asked(1);
        let (tell, told) = oneshot::channel();
        let mut waiting = Some((message, tell));
        if let Some(lane) = lanes.get(&member.name) {
            waiting = lane.put(waiting);
        }
        if waiting.is_some() {
            let lane = Arc::new(Lane::default());
            lane.put(waiting);
            lanes.insert(member.name.clone(), lane.clone());
            tokio::spawn(run(member.clone(), lane));
        }
        told
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in self.by_member.get_mut().values() {
            lane.finish();
        }
    }
}

/// One batch on its way to the broker that takes it.
struct Attempt {
    lanes: Arc<Lanes>,
    topic: String,
    partition: u32,
    message: Bytes,
    /// Who was asked first, and could not take it.
    asked: Option<Arc<Member>>,
    /// What was answered last, by a broker that could not take it.
    refusal: Option<Bytes>,
}

impl Attempt {
    fn new(lanes: Arc<Lanes>, topic: String, partition: u32, message: Bytes) -> Self {
        Self { lanes, topic, partition, message, asked: None, refusal: None }
    }

    /// Sends it, and answers once that is answered.
    fn begin(mut self) -> Answer {
        // Nearly always the broker that the partition is placed at is well: then nobody else needs to be known.
        let cluster = &self.lanes.cluster;
        let placed = cluster.placed_at(&self.topic, self.partition);
        let Some(member) = placed.filter(|member| member.is_up() && !member.is_draining()) else {
            return Box::pin(self.go_on());
        };
        cluster.note_route(&self.topic, self.partition, &member, &member);
        let told = self.lanes.send(&member, self.message.clone());
        Box::pin(async move {
            match self.settle(&member, told).await {
                Some(answer) => answer,
                None => self.go_on().await,
            }
        })
    }

    /// Asks one broker after the other.
    async fn go_on(mut self) -> Bytes {
        let cluster = self.lanes.cluster.clone();
        if let Err(away) = cluster.up_soon().await {
            return self.refusal.take().unwrap_or_else(|| failed(&away));
        }
        let preference = cluster.preference(&self.topic, self.partition);
        let asked = self.asked.clone();
        let was_asked = |member: &Arc<Member>| asked.as_ref().is_some_and(|asked| Arc::ptr_eq(asked, member));
        for member in &preference {
            if was_asked(member) || !member.is_up() || member.is_draining() {
                continue;
            }
            cluster.note_route(&self.topic, self.partition, &preference[0], member);
            let told = self.lanes.send(member, self.message.clone());
            if let Some(answer) = self.settle(member, told).await {
                return answer;
            }
        }
        self.refusal.take().unwrap_or_else(|| {
            refused(&match preference.iter().find(|member| member.is_draining()) {
                Some(_) => Error::new(
                    Code::BrokerDraining,
                    format!(
                        "every broker that could take records of {}/{} is draining or away",
                        self.topic, self.partition
                    ),
                )
                .retry_after_ms(1000),
                None if preference.is_empty() => Error::new(
                    Code::PartitionNotFound,
                    format!("partition {} does not exist: no topic has so many", self.partition),
                )
                .field("partition"),
                None => self.lanes.cluster.all_away(),
            })
        })
    }

    /// The answer of a broker; None: another one is to be asked.
    async fn settle(&mut self, member: &Arc<Member>, told: oneshot::Receiver<Outcome>) -> Option<Bytes> {
        self.asked = Some(member.clone());
        let mut told = told;
        loop {
            match told.await.unwrap_or_else(|_| Outcome::Unanswered(Status::unavailable("the stream was given up"))) {
                Outcome::Answer(answer) => {
                    let Some(error) = error_in(&answer) else {
                        member.well();
                        return Some(answer);
                    };
                    if error.code == Code::TopicNotFound.as_str()
                        && super::admin::bring_topic(&self.lanes.cluster, member, &self.topic).await
                    {
                        told = self.lanes.send(member, self.message.clone());
                        continue;
                    }
                    if error.code == Code::BrokerDraining.as_str() {
                        member.note_draining(true);
                    } else if is_fault(&error.code) {
                        member.at_fault();
                    } else {
                        member.well();
                        return Some(answer);
                    }
                    self.refusal = Some(answer);
                    return None;
                }
                Outcome::Unsent(status) => {
                    member.failed(&status);
                    self.refusal = Some(failed(&member.explained(&status)));
                    return None;
                }
                Outcome::Unanswered(status) => {
                    member.failed(&status);
                    let why = Failure::of(&status).message;
                    return Some(unknown(&member.name, &format!("{why}; it was sent there and not answered")));
                }
            }
        }
    }

    /// Sends again what some broker may have.
    async fn resend(mut self, broker: &str, producer: &str, sequence: u64) -> Bytes {
        let cluster = self.lanes.cluster.clone();
        if producer.is_empty() {
            return self.begin().await; // it has no sequence to be known by
        }
        if let Some(member) = cluster.named(broker) {
            // Not waited for: answers are in the order of requests, and those behind have nothing to do with it.
            if !member.is_up() {
                return unknown(broker, &member.known().error);
            }
            let told = self.lanes.send(&member, self.message.clone());
            if let Some(answer) = self.settle(&member, told).await {
                return answer;
            }
            // It takes nothing now, but says what it has.
            return match self.stored_at(&member, producer, sequence).await {
                Ok(Some(answer)) => answer,
                Ok(None) => self.go_on().await,
                Err(why) => unknown(broker, &why),
            };
        }
        if let Some(away) = cluster.missing().first() {
            return unknown("", &format!("{} may have it, and is away: {}", away.name, away.known().error));
        }
        let members = cluster.members();
        let asked = members.iter().map(|member| self.stored_at(member, producer, sequence));
        for (member, stored) in members.iter().zip(join_all(asked).await) {
            match stored {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(why) => return unknown("", &format!("{} may have it, and {why}", member.name)),
            }
        }
        self.begin().await
    }

    /// The answer for a batch that a broker has, by its sequence; None: it has not; an error: nobody knows, and why.
    async fn stored_at(&self, member: &Member, producer: &str, sequence: u64) -> Result<Option<Bytes>, String> {
        let asked =
            v1::OpenProducerRequest { topic: self.topic.clone(), producer: producer.to_owned(), new_name: false };
        let state: v1::OpenProducerResponse = match member.ask("OpenProducer", &asked).await {
            Ok(state) => state,
            Err(status) if is(&status, Code::TopicNotFound) => return Ok(None),
            Err(status) => return Err(status.message().to_owned()),
        };
        let stored = state.partitions.into_iter().find(|state| state.partition == self.partition);
        Ok(stored.filter(|stored| stored.sequence >= sequence).map(|stored| {
            produced(vec![v1::Appended {
                partition: self.partition,
                log_id: stored.log_id,
                duplicate: true,
                ..v1::Appended::default()
            }])
        }))
    }
}

/// What became of a message.
enum Outcome {
    /// The broker answered.
    Answer(Bytes),
    /// It did not leave, or was not read: it is not stored.
    Unsent(Status),
    /// It left, and nothing came back.
    Unanswered(Status),
}

type Waiting = (Bytes, oneshot::Sender<Outcome>);

/// One stream to a broker.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    unsent: VecDeque<Waiting>,
    sent: VecDeque<oneshot::Sender<Outcome>>,
    /// Nothing more comes.
    finished: bool,
    /// Nothing more is taken.
    ended: bool,
}

impl Lane {
    /// Takes a message; gives it back once the stream has ended.
    fn put(&self, waiting: Option<Waiting>) -> Option<Waiting> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return waiting;
        }
        queue.unsent.extend(waiting);
        drop(queue);
        self.waker.wake();
        None
    }

    fn finish(&self) {
        self.queue.lock().finished = true;
        self.waker.wake();
    }

    fn pop(&self) -> Poll<Option<Bytes>> {
        let mut queue = self.queue.lock();
        match queue.unsent.pop_front() {
            Some((message, tell)) => {
                queue.sent.push_back(tell);
                Poll::Ready(Some(message))
            }
            None if queue.finished => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn answer(&self, answer: Bytes) -> bool {
        let Some(tell) = self.queue.lock().sent.pop_front() else { return false };
        let _ = tell.send(Outcome::Answer(answer)); // who asked may be gone
        true
    }

    /// Says to everybody who waits what became of their messages. `was_read`: those that left may have been read.
    fn end(&self, status: &Status, was_read: bool) {
        let (sent, unsent) = {
            let mut queue = self.queue.lock();
            queue.ended = true;
            (std::mem::take(&mut queue.sent), std::mem::take(&mut queue.unsent))
        };
        for tell in sent {
            let outcome = if was_read { Outcome::Unanswered } else { Outcome::Unsent };
            let _ = tell.send(outcome(status.clone()));
        }
        for (_, tell) in unsent {
            let _ = tell.send(Outcome::Unsent(status.clone()));
        }
    }
}

/// The end of a lane that HTTP/2 takes from.
struct Requests(Arc<Lane>);

impl Stream for Requests {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Poll::Ready(message) = self.0.pop() {
            return Poll::Ready(message);
        }
        self.0.waker.register(context.waker());
        self.0.pop() // something may have come before the waker was there
    }
}

/// Drives one stream to its end.
async fn run(member: Arc<Member>, lane: Arc<Lane>) {
    let driven = async {
        let mut answers = member.stream("ProduceStream", Requests(lane.clone())).await?;
        while let Some(answer) = answers.message().await? {
            if !lane.answer(answer) {
                return Err(Status::internal("it answered what nobody had asked"));
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = driven => outcome,
        // What hangs is not waited for: the broker may have been stopped, or its machine be gone.
        () = member.down() => Err(Status::unavailable(member.known().error)),
    };
    match outcome {
        // A broker that stops answers all that it has read, and ends.
        Ok(()) => lane.end(&Status::unavailable("the broker ended the stream"), false),
        Err(status) => lane.end(&status, Failure::of(&status).sent),
    }
}

/// The error in an answer of a stream, if it is one.
fn error_in(answer: &[u8]) -> Option<v1::Error> {
    if answer.first() == Some(&PRODUCED_TAG) {
        return None;
    }
    match decode(answer).ok()? {
        Some(Produced::Error(error)) => Some(error),
        _ => None,
    }
}

fn produced(appended: Vec<v1::Appended>) -> Bytes {
    response(Produced::Produced(v1::ProduceResponse { appended }))
}

fn response(result: Produced) -> Bytes {
    v1::ProduceStreamResponse { result: Some(result) }.encode_to_vec().into()
}

fn refused(error: &Error) -> Bytes {
    response(Produced::Error(in_stream(error)))
}

/// The answer of what failed with a status.
fn failed(status: &Status) -> Bytes {
    response(Produced::Error(super::error_of(status)))
}

/// The answer of what may be stored at a broker.
fn unknown(broker: &str, why: &str) -> Bytes {
    let whose = if broker.is_empty() { "a broker".to_owned() } else { format!("broker {broker}") };
    let message = format!(
        "{whose} may have stored the batch: {why}. Send the same batch again with resent_to = {broker:?}, until it is \
         answered"
    );
    let error = Error::new(Code::ProduceUnknown, message).retry_after_ms(AWAY_RETRY_MS);
    response(Produced::Error(v1::Error { broker: broker.to_owned(), ..in_stream(&error) }))
}
