//! One Consume stream of a client out of one of each broker: their records as they come, one credit among them, acks to
//! whoever gave the lease.
//!
//! The client's credit is handed on in shares. A broker says when it has records and no credit for them (`waiting`); then
//! it gets what comes next, or what another broker, which has been silent, is asked to give back. So what the client may
//! be sent is never more than it gave, and never lies for long where there is nothing to send.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code as Grpc, Status};

use super::member::Member;
use super::settle::{self, Merged, Part};
use super::{Client, Cluster, Messages, Reply, Stopping, is, stopped};
use crate::error::{Code, Error};
use crate::grpc::client::Failure;
use crate::grpc::server::{HEARTBEAT, MAX_ANSWERS, MAX_CREDIT, MAX_CREDIT_DELIVERIES, credit_of};
use crate::grpc::status::in_stream;
use crate::wire::delivery::{DELIVERY_TAG, records_in_response};
use crate::wire::stream::{consume_request, consume_response};
use crate::wire::v1;
use crate::wire::v1::consume_request::Request;
use crate::wire::v1::consume_response::Response;

/// Messages of brokers that wait for the client.
const READ_AHEAD: usize = 2;
/// Requests that wait for a broker.
const MAX_REQUESTS: usize = 2048;
/// A broker that has sent nothing for so long may be asked for its credit.
const SILENCE: Duration = Duration::from_millis(20);
/// Pause before a broker that ended a stream is given another one.
const REOPEN: Duration = Duration::from_millis(200);

/// Answers a `Consume`.
pub(super) fn stream(cluster: Arc<Cluster>, requests: Messages, client: Client) -> Messages {
    let (out, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(status) = run(cluster, requests, client, &out).await {
            let _ = out.send(Err(status)).await; // the client may be gone
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

async fn run(
    cluster: Arc<Cluster>,
    mut requests: Messages,
    client: Client,
    out: &mpsc::Sender<Reply<Bytes>>,
) -> Reply<()> {
    let request = match requests.next().await.transpose()? {
        Some(first) => consume_request(&first)?.request,
        None => None,
    };
    let Some(Request::Start(start)) = request else {
        let message = "the first message of a Consume stream must be `start`; send it first";
        return Err(Error::new(Code::InvalidArgument, message).into());
    };
    let credit = credit_of(&start)?;
    let topic = start.receive.as_ref().map(|receive| receive.topic.clone()).unwrap_or_default();
    client.check(&topic)?;
    super::admin::find_topic(&cluster, &topic).await?;
    let (events, coming) = mpsc::channel(READ_AHEAD);
    let mut stream = ConsumeStream {
        counts_deliveries: start.credit_deliveries > 0,
        changes: cluster.changes.subscribe(),
        cluster,
        topic,
        group: start.receive.as_ref().map(|receive| receive.group.clone()).unwrap_or_default(),
        start,
        stopping: client.stopping,
        pool: credit,
        feeds: Vec::new(),
        reopen: HashMap::new(),
        next_id: 0,
        events,
        coming,
        first_slot: 0,
        slots: VecDeque::new(),
        outgoing: VecDeque::new(),
        heartbeat: Instant::now() + HEARTBEAT,
        ended: false,
        saying_goodbye: false,
    };
    stream.run(&mut requests, out).await
}

/// What a broker's stream gives.
enum Event {
    Message(Bytes),
    Ended(Reply<()>),
}

/// What is expected of a broker, in the order in which it was asked.
enum Expected {
    /// A part of the answer to a request of the client, which is about these leases.
    Slot(u64, Vec<v1::LeaseRange>),
    /// Its credit back, for others.
    Credit,
}

/// The stream to one broker.
struct Feed {
    id: u64,
    member: Arc<Member>,
    /// None: it was told that no more comes.
    requests: Option<mpsc::Sender<Bytes>>,
    task: AbortHandle,
    /// What it may still send.
    granted: u64,
    /// It has said that it has records and no credit.
    waiting: bool,
    heard: Instant,
    expected: VecDeque<Expected>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort(); // which gives back its leases, unless they are to be kept
    }
}

impl Feed {
    /// Sends a request; false if the broker does not take them.
    fn ask(&self, request: Request) -> bool {
        let message = v1::ConsumeRequest { request: Some(request) }.encode_to_vec();
        self.requests.as_ref().is_some_and(|requests| requests.try_send(message.into()).is_ok())
    }

    fn gives_back(&self) -> bool {
        self.expected.iter().any(|expected| matches!(expected, Expected::Credit))
    }
}

/// A request of the client that is to be answered.
struct Slot {
    /// Parts that are missing.
    left: usize,
    answer: Answer,
}

enum Answer {
    Settled(Merged),
    /// The credit that is good from then on.
    Credited(u64),
}

struct ConsumeStream {
    cluster: Arc<Cluster>,
    changes: watch::Receiver<u64>,
    topic: String,
    group: String,
    start: v1::ConsumeStart,
    stopping: Stopping,
    counts_deliveries: bool,
    /// Credit of the client that no broker has.
    pool: u64,
    feeds: Vec<Feed>,
    /// Not before then, by name.
    reopen: HashMap<Arc<str>, Instant>,
    next_id: u64,
    events: mpsc::Sender<(u64, Event)>,
    coming: mpsc::Receiver<(u64, Event)>,
    /// Number of the first slot.
    first_slot: u64,
    slots: VecDeque<Slot>,
    outgoing: VecDeque<Bytes>,
    heartbeat: Instant,
    /// The client said its last word.
    ended: bool,
    saying_goodbye: bool,
}

impl ConsumeStream {
    async fn run(&mut self, requests: &mut Messages, out: &mpsc::Sender<Reply<Bytes>>) -> Reply<()> {
        let alarm = sleep_until(self.heartbeat);
        tokio::pin!(alarm);
        self.open_feeds()?;
        self.share();
        loop {
            if self.outgoing.is_empty() && (self.saying_goodbye || (self.ended && self.feeds.is_empty())) {
                return Ok(());
            }
            self.set(alarm.as_mut());
            let listens = !self.ended && !self.saying_goodbye && self.slots.len() < MAX_ANSWERS;
            tokio::select! {
                permit = out.reserve(), if !self.outgoing.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(message) = self.outgoing.pop_front() {
                        permit.send(Ok(message));
                        self.heartbeat = Instant::now() + HEARTBEAT;
                    }
                }
                Some((id, event)) = self.coming.recv(), if self.outgoing.is_empty() => self.hear(id, event).await?,
                request = requests.next(), if listens => match request.transpose()? {
                    Some(request) => self.take(&request)?,
                    None => self.end(None),
                },
                _ = self.changes.changed(), if !self.ended => {
                    self.open_feeds()?;
                    self.share();
                }
                () = out.closed(), if self.outgoing.is_empty() => return Ok(()),
                () = stopped(&mut self.stopping), if !self.saying_goodbye => {
                    self.saying_goodbye = true;
                    self.outgoing.push_back(encoded(Response::Goodbye(v1::Goodbye {})));
                }
                () = alarm.as_mut() => self.ring()?,
            }
        }
    }

    /// Gives each broker that is well a stream.
    fn open_feeds(&mut self) -> Reply<()> {
        let now = Instant::now();
        let members = self.cluster.members();
        self.reopen.retain(|name, _| members.iter().any(|member| member.name == *name));
        for member in members {
            let is_fed = self.feeds.iter().any(|feed| feed.member.name == member.name);
            let is_early = self.reopen.get(&member.name).is_some_and(|at| *at > now);
            if member.is_up() && !is_fed && !is_early && !self.ended {
                self.open(member);
            }
        }
        if self.feeds.is_empty() && self.reopen.is_empty() && !self.ended {
            return Err(self.cluster.all_away().into());
        }
        Ok(())
    }

    fn open(&mut self, member: Arc<Member>) {
        let (ask, requests) = mpsc::channel(MAX_REQUESTS);
        self.next_id += 1;
        let id = self.next_id;
        member.asked(1);
        let task = tokio::spawn(feed(id, member.clone(), requests, self.events.clone())).abort_handle();
        let feed = Feed {
            id,
            member,
            requests: Some(ask),
            task,
            granted: 0,
            waiting: false,
            heard: Instant::now(),
            expected: VecDeque::new(),
        };
        feed.ask(Request::Start(v1::ConsumeStart {
            credit_records: 0,
            credit_deliveries: 0,
            count_deliveries: self.counts_deliveries,
            tell_waiting: true,
            ..self.start.clone()
        }));
        self.feeds.push(feed);
    }

    /// Sets the alarm to what comes first.
    fn set(&self, alarm: Pin<&mut Sleep>) {
        let mut at = self.heartbeat;
        if let Some(reopen) = self.reopen.values().min() {
            at = at.min(*reopen);
        }
        if let Some(silent) = self.wants_credit_of().map(|index| self.feeds[index].heard + SILENCE) {
            at = at.min(silent);
        }
        if at != alarm.deadline() || alarm.is_elapsed() {
            alarm.reset(at);
        }
    }

    fn ring(&mut self) -> Reply<()> {
        let now = Instant::now();
        if self.heartbeat <= now {
            // A client that does not read is sent nothing: what waits for it says as much.
            if self.outgoing.is_empty() {
                self.outgoing.push_back(encoded(Response::Heartbeat(v1::Heartbeat {})));
            }
            self.heartbeat = now + HEARTBEAT;
        }
        if self.reopen.values().any(|at| *at <= now) {
            self.reopen.retain(|_, at| *at > now);
            self.open_feeds()?;
            self.share();
        }
        if let Some(index) = self.wants_credit_of()
            && self.feeds[index].heard + SILENCE <= now
        {
            self.take_back(index);
        }
        Ok(())
    }

    /// The broker whose credit another one needs, if one does: of those that do not wait, who was silent for longest.
    fn wants_credit_of(&self) -> Option<usize> {
        let needs = self.pool == 0
            && self.feeds.iter().any(|feed| feed.waiting && feed.granted == 0)
            && !self.is_replacing()
            && !self.feeds.iter().any(Feed::gives_back);
        let idle = self.feeds.iter().enumerate().filter(|(_, feed)| feed.granted > 0 && feed.requests.is_some());
        if needs { idle.min_by_key(|(_, feed)| feed.heard).map(|(index, _)| index) } else { None }
    }

    fn take_back(&mut self, index: usize) {
        let nothing = v1::ConsumeCredit { replace: true, ..v1::ConsumeCredit::default() };
        let feed = &mut self.feeds[index];
        if feed.ask(Request::Credit(nothing)) {
            feed.expected.push_back(Expected::Credit);
        }
    }

    fn is_replacing(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.answer, Answer::Credited(_)))
    }

    /// Hands on what no broker has: to those that wait for it, or else so that all have the same.
    fn share(&mut self) {
        if self.pool == 0 || self.is_replacing() {
            return;
        }
        let waits = self.feeds.iter().any(|feed| feed.waiting);
        let mut chosen: Vec<&mut Feed> = self
            .feeds
            .iter_mut()
            .filter(|feed| feed.requests.is_some() && !feed.gives_back() && (feed.waiting || !waits))
            .collect();
        if chosen.is_empty() {
            return;
        }
        let count = chosen.len() as u64;
        let level = (self.pool + chosen.iter().map(|feed| feed.granted).sum::<u64>()).div_ceil(count);
        chosen.sort_by_key(|feed| feed.granted);
        for feed in chosen {
            let more = level.saturating_sub(feed.granted).min(self.pool);
            if more == 0 {
                continue;
            }
            let amount = u32::try_from(more).unwrap_or(u32::MAX);
            let credit = if self.counts_deliveries {
                v1::ConsumeCredit { deliveries: amount, ..v1::ConsumeCredit::default() }
            } else {
                v1::ConsumeCredit { records: amount, ..v1::ConsumeCredit::default() }
            };
            if feed.ask(Request::Credit(credit)) {
                feed.granted += more;
                feed.waiting = false;
                self.pool -= more;
            }
        }
    }

    /// What a broker's stream gave.
    async fn hear(&mut self, id: u64, event: Event) -> Reply<()> {
        let Some(index) = self.feeds.iter().position(|feed| feed.id == id) else { return Ok(()) };
        match event {
            Event::Message(message) => self.pass_on(index, message),
            Event::Ended(outcome) => return self.lost(index, outcome).await,
        }
        Ok(())
    }

    fn pass_on(&mut self, index: usize, message: Bytes) {
        let feed = &mut self.feeds[index];
        if message.first() == Some(&DELIVERY_TAG) {
            feed.heard = Instant::now();
            let used = if self.counts_deliveries { 1 } else { records_in_response(&message) };
            feed.granted = feed.granted.saturating_sub(used);
            self.outgoing.push_back(message);
            return;
        }
        let Ok(response) = v1::ConsumeResponse::decode(message) else { return };
        let part = match response.response {
            Some(Response::Waiting(_)) => {
                feed.waiting = feed.granted == 0;
                self.share();
                return;
            }
            Some(Response::Acked(acked)) => Part::Settled(acked.acked, acked.stale),
            Some(Response::Nacked(nacked)) => Part::Settled(nacked.nacked, nacked.stale),
            Some(Response::Extended(extended)) => Part::Settled(extended.extended, extended.stale),
            Some(Response::Error(error)) => Part::Failed(error),
            Some(Response::Credited(_)) => Part::Settled(0, Vec::new()),
            // Heartbeats are made here, and a goodbye is followed by the end.
            _ => return,
        };
        match feed.expected.pop_front() {
            Some(Expected::Slot(slot, _)) => {
                if self.is_credited(slot) {
                    self.feeds[index].granted = 0;
                }
                self.fill(slot, part);
            }
            Some(Expected::Credit) => {
                self.pool += std::mem::take(&mut feed.granted);
                self.share();
            }
            None => {}
        }
        self.answer();
    }

    fn is_credited(&self, slot: u64) -> bool {
        let slot = slot.checked_sub(self.first_slot).and_then(|index| self.slots.get(usize::try_from(index).ok()?));
        slot.is_some_and(|slot| matches!(slot.answer, Answer::Credited(_)))
    }

    fn fill(&mut self, slot: u64, part: Part) {
        let slot = slot.checked_sub(self.first_slot).and_then(|index| self.slots.get_mut(usize::try_from(index).ok()?));
        if let Some(slot) = slot {
            slot.left = slot.left.saturating_sub(1);
            if let Answer::Settled(merged) = &mut slot.answer {
                merged.add(part);
            }
        }
    }

    /// Answers what can be answered, in the client's order.
    fn answer(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.left == 0) {
            let Some(slot) = self.slots.pop_front() else { return };
            self.first_slot += 1;
            match slot.answer {
                Answer::Settled(merged) => self.outgoing.push_back(encoded(merged.into_response())),
                Answer::Credited(credit) => {
                    self.outgoing.push_back(encoded(Response::Credited(v1::Credited {})));
                    self.pool = credit;
                    self.share();
                }
            }
        }
    }

    /// A broker's stream has ended. The leases that it gave have ended with it, so what was asked about them is stale, as it
    /// is for a client that comes back to one broker; whether an ack was carried out before nobody knows.
    async fn lost(&mut self, index: usize, outcome: Reply<()>) -> Reply<()> {
        let mut feed = self.feeds.swap_remove(index);
        if !self.is_replacing() {
            self.pool += feed.granted;
        }
        for expected in std::mem::take(&mut feed.expected) {
            if let Expected::Slot(slot, leases) = expected {
                self.fill(slot, Part::stale(leases));
            }
        }
        self.answer();
        if self.ended {
            return Ok(());
        }
        if let Err(status) = outcome {
            let failure = Failure::of(&status);
            let passes = match &failure.code {
                Some(code) => {
                    let codes = [Code::Unavailable, Code::BrokerDraining, Code::TopicNotFound, Code::LimitExceeded];
                    codes.iter().any(|known| known.as_str() == code)
                }
                None => matches!(
                    failure.status,
                    Grpc::Unavailable | Grpc::Cancelled | Grpc::DeadlineExceeded | Grpc::Unknown | Grpc::Internal
                ),
            };
            if !passes {
                return Err(status);
            }
            if is(&status, Code::TopicNotFound)
                && !super::admin::bring_topic(&self.cluster, &feed.member, &self.topic).await
                && self.feeds.is_empty()
            {
                return Err(status);
            }
            feed.member.failed(&status);
        }
        self.reopen.insert(feed.member.name.clone(), Instant::now() + REOPEN);
        self.open_feeds()?;
        self.share();
        Ok(())
    }

    /// Does what the client asks for. Only what is no request at all ends the stream.
    fn take(&mut self, message: &Bytes) -> Reply<()> {
        match consume_request(message)?.request {
            Some(Request::Credit(credit)) => self.grant(credit),
            Some(Request::Ack(mut ack)) => {
                self.address(&mut ack.topic, &mut ack.group);
                self.settle(settle::Asked::Ack(ack));
            }
            Some(Request::Nack(mut nack)) => {
                self.address(&mut nack.topic, &mut nack.group);
                self.settle(settle::Asked::Nack(nack));
            }
            Some(Request::Extend(mut extend)) => {
                self.address(&mut extend.topic, &mut extend.group);
                self.settle(settle::Asked::Extend(extend));
            }
            Some(Request::End(end)) => self.end(Some(end)),
            Some(Request::Start(_)) | None => {
                let message = "a message of a Consume stream was empty, or a second `start`";
                let error = in_stream(&Error::new(Code::InvalidArgument, message));
                let mut merged = Merged::of(settle::Kind::Ack);
                merged.add(Part::Failed(error));
                self.slots.push_back(Slot { left: 0, answer: Answer::Settled(merged) });
            }
        }
        self.answer();
        Ok(())
    }

    fn address(&self, topic: &mut String, group: &mut String) {
        if topic.is_empty() {
            topic.clone_from(&self.topic);
        }
        if group.is_empty() {
            group.clone_from(&self.group);
        }
    }

    fn grant(&mut self, credit: v1::ConsumeCredit) {
        let (more, most) = if self.counts_deliveries {
            (u64::from(credit.deliveries), MAX_CREDIT_DELIVERIES)
        } else {
            (u64::from(credit.records), MAX_CREDIT)
        };
        if credit.replace {
            let number = self.first_slot + self.slots.len() as u64;
            let nothing = v1::ConsumeCredit { replace: true, ..v1::ConsumeCredit::default() };
            let mut left = 0;
            for feed in &mut self.feeds {
                if feed.ask(Request::Credit(nothing)) {
                    feed.expected.push_back(Expected::Slot(number, Vec::new()));
                    left += 1;
                }
            }
            self.pool = 0;
            self.slots.push_back(Slot { left, answer: Answer::Credited(more.min(most)) });
            return;
        }
        let replacing = self.slots.iter_mut().rev().find_map(|slot| match &mut slot.answer {
            Answer::Credited(credit) => Some(credit),
            Answer::Settled(_) => None,
        });
        if let Some(credit) = replacing {
            *credit = (*credit + more).min(most);
            return;
        }
        let given: u64 = self.feeds.iter().map(|feed| feed.granted).sum();
        self.pool = (self.pool + more).min(most.saturating_sub(given));
        self.share();
    }

    /// Asks each broker for what is its own.
    fn settle(&mut self, asked: settle::Asked) {
        let number = self.first_slot + self.slots.len() as u64;
        let (parts, mut merged) = settle::split(&self.cluster, asked);
        let mut left = 0;
        for (member, part) in parts {
            let feed = self.feeds.iter_mut().find(|feed| Arc::ptr_eq(&feed.member, &member));
            let leases = part.leases().to_vec();
            match feed {
                Some(feed) if feed.ask(part.into_request()) => {
                    feed.expected.push_back(Expected::Slot(number, leases));
                    left += 1;
                }
                // It has more requests than it takes, but its leases live: the same may be asked again.
                Some(_) => merged.add(Part::Failed(in_stream(&member.away(&member.known().error)))),
                None => merged.add(Part::stale(leases)),
            }
        }
        self.slots.push_back(Slot { left, answer: Answer::Settled(merged) });
    }

    /// The client has said its last word.
    fn end(&mut self, end: Option<v1::ConsumeEnd>) {
        self.ended = true;
        self.reopen.clear();
        for feed in &mut self.feeds {
            if let Some(end) = end {
                feed.ask(Request::End(end));
            }
            feed.requests = None;
        }
    }
}

/// Drives the stream to one broker.
async fn feed(id: u64, member: Arc<Member>, requests: mpsc::Receiver<Bytes>, events: mpsc::Sender<(u64, Event)>) {
    let driven = async {
        let mut messages = member.stream("Consume", ReceiverStream::new(requests)).await?;
        while let Some(message) = messages.message().await? {
            if events.send((id, Event::Message(message))).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = driven => outcome,
        () = member.down() => Err(Status::unavailable(member.known().error)),
    };
    let _ = events.send((id, Event::Ended(outcome))).await; // who wanted to know may be gone
}

fn encoded(response: Response) -> Bytes {
    consume_response(response).into()
}
