//! The Consume stream: the broker sends while credit lasts; when the stream dies, its leases are given back at once.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answers::Answer;
use super::calls::{Calls, settled};
use super::produce::wrap;
use super::{Reply, Requests, message, stopped};
use crate::access::{Caller, Need, Role};
use crate::broker::{Broker, DEFAULT_RECORDS, Handed};
use crate::error::{Code, Error, Result};
use crate::grpc::status;
use crate::wire::stream::{consume_request, consume_response};
use crate::wire::v1;
use crate::wire::v1::consume_request::Request;
use crate::wire::v1::consume_response::Response;

pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
pub(crate) const MAX_CREDIT: u64 = 1_000_000;
pub(crate) const MAX_CREDIT_DELIVERIES: u64 = 1000;
/// Answers to acks that a client does not read; then its requests are not read either.
pub(crate) const MAX_ANSWERS: usize = 1000;
/// Fields of `ConsumeResponse`.
const ACKED: u8 = 2;
const NACKED: u8 = 3;
const EXTENDED: u8 = 4;

/// Topic, group and consumer.
type Consumer = (String, String, String);

/// The answer to a request that waits for the disk.
type Pending = Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>>;

/// The Consume streams of a server: one a consumer, so that a late death takes nothing from who came after.
#[derive(Default)]
pub(super) struct ConsumeStreams(Mutex<HashMap<Consumer, Arc<Life>>>);

/// What is to be known of a stream from outside.
#[derive(Default)]
struct Life {
    /// Nothing may be leased for it any more. Held while something is.
    ended: Mutex<bool>,
    replaced: Notify,
    keep_leases: AtomicBool,
}

impl Life {
    /// What is ready, for a stream that has not ended.
    fn hand_out(&self, broker: &Broker, receive: &v1::ReceiveRequest) -> Result<(Vec<Handed>, u32)> {
        let ended = self.ended.lock();
        if *ended { Ok((Vec::new(), 0)) } else { broker.hand_out(receive) }
    }
}

/// A stream's place among those of its server. Dropping it gives back what the stream leased.
struct Place {
    calls: Arc<Calls>,
    consumer: Consumer,
    life: Arc<Life>,
}

impl Place {
    /// Takes the place of an older stream of the consumer, which receives nothing from here on.
    fn take(calls: Arc<Calls>, consumer: Consumer, life: Arc<Life>) -> Self {
        let older = calls.consume_streams.0.lock().insert(consumer.clone(), life.clone());
        let place = Self { calls, consumer, life };
        if let Some(older) = older {
            *older.ended.lock() = true;
            older.replaced.notify_one();
            place.release(&older);
        }
        place
    }

    fn release(&self, life: &Life) {
        if !life.keep_leases.load(Ordering::Relaxed) {
            let (topic, group, consumer) = &self.consumer;
            // It fails only when the broker is closed, and then holds no leases.
            let _ = self.calls.broker.release(topic, group, consumer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.calls.consume_streams.0.lock();
        if streams.get(&self.consumer).is_some_and(|life| Arc::ptr_eq(life, &self.life)) {
            streams.remove(&self.consumer);
            drop(streams);
            self.release(&self.life);
        }
    }
}

/// Runs one stream, until its client ends its side or is gone, or the server stops. An error ends it.
pub(super) async fn consume(
    calls: Arc<Calls>,
    caller: Arc<Caller>,
    mut requests: Requests,
    out: mpsc::Sender<Reply<Answer>>,
) {
    let outcome = match begin(calls, &caller, &mut requests).await {
        Ok(mut stream) => stream.run(&mut requests, &out).await,
        Err(status) => Err(status),
    };
    if let Err(status) = outcome {
        let _ = out.send(Err(status)).await; // the client may be gone
    }
}

async fn begin(calls: Arc<Calls>, caller: &Caller, requests: &mut Requests) -> Reply<ConsumeStream> {
    let request = match message(requests).await? {
        Some(first) => consume_request(&first)?.request,
        None => None,
    };
    let Some(Request::Start(start)) = request else {
        let message = "the first message of a Consume stream must be `start`; send it first";
        return Err(Error::new(Code::InvalidArgument, message).into());
    };
    let topic = start.receive.as_ref().map_or("", |receive| &receive.topic);
    caller.check(Need::Role(Role::Consume), "Consume", topic)?;
    // Told also to a client that ends its side at once.
    calls.broker.topic(topic)?;
    Ok(ConsumeStream::start(calls, start)?)
}

struct ConsumeStream {
    calls: Arc<Calls>,
    place: Place,
    receive: v1::ReceiveRequest,
    max_records: u32,
    counts_deliveries: bool,
    credit: u64,
    /// Whether it has said that it has no credit, since it had some; None: it does not say so.
    told_waiting: Option<bool>,
    changes: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
    /// There may be records.
    ready: bool,
    /// When there may be records without a change.
    due: Option<Instant>,
    /// When the stream has been silent for too long.
    heartbeat: Instant,
    /// What is to be sent in front of the next delivery.
    answers: VecDeque<Vec<u8>>,
    /// While there is one, no other request is taken up.
    pending: Option<Pending>,
    /// The client said its last word.
    ended: bool,
}

impl ConsumeStream {
    fn start(calls: Arc<Calls>, start: v1::ConsumeStart) -> Result<Self> {
        let counts_deliveries = start.credit_deliveries > 0 || (start.tell_waiting && start.count_deliveries);
        let credit = credit_of(&start)?;
        let mut receive = start.receive.unwrap_or_default();
        receive.wait_ms = 0;
        receive.max_deliveries = 1;
        let max_records = if receive.max_records == 0 { DEFAULT_RECORDS } else { receive.max_records };
        let life = Arc::new(Life { keep_leases: AtomicBool::new(start.keep_leases), ..Life::default() });
        let consumer = (receive.topic.clone(), receive.group.clone(), receive.consumer.clone());
        Ok(Self {
            changes: calls.changes.of(&receive.topic),
            stopping: calls.stopping.clone(),
            place: Place::take(calls.clone(), consumer, life),
            calls,
            receive,
            max_records,
            counts_deliveries,
            credit,
            told_waiting: start.tell_waiting.then_some(false),
            ready: true,
            due: None,
            heartbeat: Instant::now() + HEARTBEAT,
            answers: VecDeque::new(),
            pending: None,
            ended: false,
        })
    }

    async fn run(&mut self, requests: &mut Requests, out: &mpsc::Sender<Reply<Answer>>) -> Reply<()> {
        let life = self.place.life.clone();
        let alarm = sleep_until(self.heartbeat);
        tokio::pin!(alarm);
        loop {
            if self.ended && self.answers.is_empty() && self.pending.is_none() {
                return Ok(());
            }
            self.tell_waiting();
            self.set(alarm.as_mut());
            let stopping = self.calls.is_stopping();
            let listens = !self.ended && self.pending.is_none() && self.answers.len() < MAX_ANSWERS;
            let delivers = self.ready && self.credit > 0 && !self.ended;
            let sends = delivers || stopping || !self.answers.is_empty();
            tokio::select! {
                () = life.replaced.notified() => return Err(self.replaced().into()),
                answer = ready(&mut self.pending), if self.pending.is_some() => {
                    self.pending = None;
                    self.answers.push_back(answer);
                }
                request = message(requests), if listens => match request? {
                    Some(request) => self.take(&request)?,
                    None => self.ended = true,
                },
                permit = out.reserve(), if sends => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(answer) = self.answers.pop_front() {
                        permit.send(Ok(Answer::Message(answer)));
                    } else if stopping {
                        permit.send(Ok(response(Response::Goodbye(v1::Goodbye {}))));
                        return Ok(());
                    } else if let Some(handed) = self.lease().await? {
                        permit.send(Ok(Answer::Delivery(Box::new(handed))));
                    } else {
                        continue;
                    }
                    self.heartbeat = Instant::now() + HEARTBEAT;
                }
                () = out.closed(), if !sends => return Ok(()),
                _ = self.changes.changed(), if !self.ready => self.ready = true,
                () = stopped(&mut self.stopping), if !stopping => {}
                () = alarm.as_mut() => self.ring(),
            }
        }
    }

    fn tell_waiting(&mut self) {
        let Some(told) = &mut self.told_waiting else { return };
        if self.credit > 0 {
            *told = false;
        } else if self.ready && !*told {
            *told = true;
            self.answers.push_back(consume_response(Response::Waiting(v1::Waiting {})));
        }
    }

    /// Sets the alarm, unless it rings soon enough: one that rings too early costs less than setting it for each message.
    fn set(&self, alarm: Pin<&mut Sleep>) {
        let at = self.due.map_or(self.heartbeat, |due| due.min(self.heartbeat));
        if at < alarm.deadline() || alarm.is_elapsed() {
            alarm.reset(at);
        }
    }

    fn ring(&mut self) {
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            (self.ready, self.due) = (true, None);
        }
        if self.heartbeat <= now {
            // A client that does not read is sent nothing: what waits for it says as much.
            if self.answers.is_empty() {
                self.answers.push_back(consume_response(Response::Heartbeat(v1::Heartbeat {})));
            }
            self.heartbeat = now + HEARTBEAT;
            self.ready = true; // a hold of an ordered group may have moved
        }
    }

    /// One delivery, paid for with credit.
    async fn lease(&mut self) -> Result<Option<Handed>> {
        self.changes.mark_unchanged();
        (self.ready, self.due) = (false, None);
        if !self.counts_deliveries {
            self.receive.max_records = self.max_records.min(u32::try_from(self.credit).unwrap_or(u32::MAX));
        }
        let (mut handed, next_due_ms) = if self.calls.broker.receive_waits(&self.receive.topic, &self.receive.group) {
            let (life, receive) = (self.place.life.clone(), self.receive.clone());
            self.calls.blocking(move |broker| life.hand_out(broker, &receive)).await?
        } else {
            self.place.life.hand_out(&self.calls.broker, &self.receive)?
        };
        let handed = handed.pop();
        match &handed {
            Some(handed) => {
                self.ready = true;
                self.credit -= if self.counts_deliveries { 1 } else { handed.records().min(self.credit) };
            }
            None if next_due_ms > 0 => {
                self.due = Some(Instant::now() + Duration::from_millis(u64::from(next_due_ms)));
            }
            None => {}
        }
        Ok(handed)
    }

    /// Does what the client asks for. Only what is no request at all ends the stream.
    fn take(&mut self, request: &[u8]) -> Result<()> {
        let answer = match consume_request(request)?.request {
            Some(Request::Credit(credit)) => {
                self.grant(credit);
                return Ok(());
            }
            Some(Request::Ack(mut ack)) => {
                self.address(&mut ack.topic, &mut ack.group);
                match self.calls.broker.ack_unsettled(ack) {
                    Ok((answer, None)) => Ok(wrap(ACKED, &answer)),
                    Ok((answer, Some(unsettled))) => {
                        let told = self.calls.settling.settle(unsettled);
                        self.pending = Some(Box::pin(async move {
                            settled(told).await?;
                            Ok(wrap(ACKED, &answer))
                        }));
                        return Ok(());
                    }
                    Err(error) => Err(error),
                }
            }
            Some(Request::Nack(mut nack)) => {
                self.address(&mut nack.topic, &mut nack.group);
                let calls = self.calls.clone();
                self.pending = Some(Box::pin(async move { Ok(wrap(NACKED, &calls.nack(nack).await?)) }));
                return Ok(());
            }
            Some(Request::Extend(mut extend)) => {
                self.address(&mut extend.topic, &mut extend.group);
                self.calls.broker.extend(extend).map(|answer| wrap(EXTENDED, &answer))
            }
            Some(Request::End(end)) => {
                if end.keep_leases {
                    self.place.life.keep_leases.store(true, Ordering::Relaxed);
                }
                self.ended = true;
                return Ok(());
            }
            Some(Request::Start(_)) | None => {
                Err(Error::new(Code::InvalidArgument, "a message of a Consume stream was empty, or a second `start`"))
            }
        };
        self.answers.push_back(answered(answer));
        Ok(())
    }

    fn grant(&mut self, credit: v1::ConsumeCredit) {
        if credit.replace {
            self.credit = 0;
            self.answers.push_back(consume_response(Response::Credited(v1::Credited {})));
        }
        let (more, most) = if self.counts_deliveries {
            (credit.deliveries, MAX_CREDIT_DELIVERIES)
        } else {
            (credit.records, MAX_CREDIT)
        };
        self.credit = (self.credit + u64::from(more)).min(most);
    }

    fn address(&self, topic: &mut String, group: &mut String) {
        if topic.is_empty() {
            topic.clone_from(&self.receive.topic);
        }
        if group.is_empty() {
            group.clone_from(&self.receive.group);
        }
    }

    fn replaced(&self) -> Error {
        Error::new(
            Code::BrokerClosed,
            format!(
                "another Consume stream of consumer {:?} took the place of this one; give each consumer a name of its own",
                self.receive.consumer
            ),
        )
    }
}

/// The credit that a stream begins with.
pub(crate) fn credit_of(start: &v1::ConsumeStart) -> Result<u64> {
    let credit = u64::from(start.credit_deliveries);
    if credit > MAX_CREDIT_DELIVERIES {
        let message = format!(
            "credit_deliveries is {credit}: expected 1 to {MAX_CREDIT_DELIVERIES}, or 0 for a credit in records"
        );
        return Err(Error::new(Code::InvalidArgument, message).field("start.credit_deliveries"));
    }
    if credit > 0 || (start.tell_waiting && start.credit_records == 0) {
        return Ok(credit);
    }
    let credit = u64::from(start.credit_records);
    if !(1..=MAX_CREDIT).contains(&credit) {
        let message = format!("credit_records is {credit}: expected 1 to {MAX_CREDIT}");
        return Err(Error::new(Code::InvalidArgument, message).field("start.credit_records"));
    }
    Ok(credit)
}

/// The answer that is waited for. May be called again when it was cancelled.
async fn ready(pending: &mut Option<Pending>) -> Vec<u8> {
    match pending {
        Some(pending) => answered(pending.await),
        None => std::future::pending().await,
    }
}

fn answered(answer: Result<Vec<u8>>) -> Vec<u8> {
    answer.unwrap_or_else(|error| consume_response(Response::Error(status::in_stream(&error))))
}

fn response(response: Response) -> Answer {
    Answer::Message(consume_response(response))
}
