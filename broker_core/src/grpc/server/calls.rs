//! The unary calls: what is quick at once, what waits for the disk in threads of its own, what waits for records by
//! wake-up.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::changes::Changes;
use super::consume::ConsumeStreams;
use super::settling::Settling;
use super::stopped;
use crate::access::Caller;
use crate::broker::{Broker, Listener, Unsettled, decode_request, received};
use crate::error::{Code, Error, Result};
use crate::grpc::framing::Message;
use crate::wire::delivery::DELIVERY_TAG;
use crate::wire::v1;

/// What all calls of a server share.
pub(super) struct Calls {
    pub broker: Arc<Broker>,
    pub changes: Arc<Changes>,
    pub settling: Settling,
    pub consume_streams: ConsumeStreams,
    /// True once the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Calls {
    pub fn new(broker: Arc<Broker>, stopping: watch::Receiver<bool>) -> Self {
        let changes = Arc::new(Changes::default());
        let listener: Arc<dyn Listener> = changes.clone();
        broker.wakeups().listen(&listener);
        let settling = Settling::new(broker.clone());
        Self { broker, changes, settling, consume_streams: ConsumeStreams::default(), stopping }
    }

    /// Runs one call that its caller may make: an encoded request in, the encoded response out.
    pub async fn unary(&self, method: &str, caller: &Caller, request: Message) -> Result<Vec<u8>> {
        match method {
            "ListTopics" if !caller.is_anyone() => {
                topics_of(caller, &request, |asked| std::future::ready(self.broker.call("ListTopics", &asked))).await
            }
            "Receive" => self.receive(&request).await,
            "Read" => self.read(&request).await,
            "Produce" => {
                let whole = 0..request.len();
                self.durable(self.produce(request, whole)?).await
            }
            "Ack" => self.durable(self.broker.call_unsettled(method, &request)?).await,
            "Nack" => {
                let request: v1::NackRequest = decode_request(method, &request)?;
                self.nack(request).await
            }
            // Microseconds: a thread would take longer.
            "OpenProducer" | "Extend" | "ListTopics" | "DescribeTopic" | "ListGroups" | "DescribeGroup"
            | "DescribeBroker" => self.broker.call(method, &request),
            _ => {
                let method = method.to_owned();
                self.blocking(move |broker| broker.call(&method, &request)).await
            }
        }
    }

    /// An answer, once what it tells of is as durable as it has to be.
    async fn durable(&self, (answer, unsettled): (Vec<u8>, Option<Unsettled>)) -> Result<Vec<u8>> {
        if let Some(unsettled) = unsettled {
            settled(self.settling.settle(unsettled)).await?;
        }
        Ok(answer)
    }

    /// The `Produce` in this part of a message. Records that were joined behind room for a header are not copied again.
    pub fn produce(&self, message: Message, part: Range<usize>) -> Result<(Vec<u8>, Option<Unsettled>)> {
        match message {
            Message::Slice(bytes) => self.broker.call_unsettled("Produce", &bytes[part]),
            Message::Joined(bytes, room) => self.broker.call_produce_in(bytes, room + part.start..room + part.end),
        }
    }

    /// Gives records back, in a thread where that waits for the disk.
    pub async fn nack(&self, request: v1::NackRequest) -> Result<Vec<u8>> {
        if self.broker.produce_waits(&request.topic) {
            self.blocking(move |broker| broker.nack(request)).await
        } else {
            self.broker.nack(request)
        }
    }

    /// Runs what may wait for the disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Broker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let broker = self.broker.clone();
        spawn_blocking(move || act(&broker)).await.unwrap_or_else(|_| Err(gone()))
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// A broker that stops ends waits with an error: an empty answer would be asked for again at once.
    pub fn refuse_when_stopping(&self) -> Result<()> {
        if self.is_stopping() { Err(stopping_error()) } else { Ok(()) }
    }

    async fn receive(&self, request: &[u8]) -> Result<Vec<u8>> {
        let asked: v1::ReceiveRequest = decode_request("Receive", request)?;
        let wait = Duration::from_millis(u64::from(asked.wait_ms));
        if self.broker.receive_waits(&asked.topic, &asked.group) {
            let asked = asked.clone();
            let (handed, next_due_ms) = self.blocking(move |broker| broker.hand_out(&asked)).await?;
            if !handed.is_empty() {
                return Ok(received(&handed, next_due_ms));
            }
        }
        self.poll(&asked.topic, wait, || {
            let (handed, next_due_ms) = self.broker.hand_out(&asked)?;
            Ok((received(&handed, next_due_ms), next_due_ms))
        })
        .await
    }

    async fn read(&self, request: &[u8]) -> Result<Vec<u8>> {
        let answer = self.broker.call("Read", request)?;
        if has_deliveries(&answer) {
            return Ok(answer);
        }
        let mut asked: v1::ReadRequest = decode_request("Read", request)?;
        // From here on by position: what "the end" and a time mean moves with every record that comes.
        let at: v1::ReadResponse = decode_request("Read", &answer)?;
        asked.from = Some(v1::Position { at: Some(v1::position::At::Offset(at.next_offset)), log_id: at.log_id });
        let request = asked.encode_to_vec();
        let wait = Duration::from_millis(u64::from(asked.wait_ms));
        self.poll(&asked.topic, wait, || Ok((self.broker.call("Read", &request)?, 0))).await
    }

    /// Looks until there is something or the wait is over. `look` also says after how many milliseconds it is to be called
    /// again without a change; 0: never.
    async fn poll(&self, topic: &str, wait: Duration, look: impl Fn() -> Result<(Vec<u8>, u32)>) -> Result<Vec<u8>> {
        if wait.is_zero() {
            return Ok(look()?.0);
        }
        let end = Instant::now() + wait;
        let mut changes = self.changes.of(topic);
        let mut stopping = self.stopping.clone();
        loop {
            changes.mark_unchanged();
            let (answer, due_ms) = look()?;
            let now = Instant::now();
            if has_deliveries(&answer) || now >= end {
                return Ok(answer);
            }
            self.refuse_when_stopping()?;
            let until = match due_ms {
                0 => end,
                due_ms => end.min(now + Duration::from_millis(u64::from(due_ms))),
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => {}
                () = stopped(&mut stopping) => {}
            }
        }
    }
}

/// The answer to a `ListTopics` without what its caller has no role on; `ask` gives that with it.
pub(super) async fn topics_of<A: AsRef<[u8]>, E: From<Error>, F: Future<Output = std::result::Result<A, E>>>(
    caller: &Caller,
    request: &[u8],
    ask: impl Fn(Vec<u8>) -> F,
) -> std::result::Result<Vec<u8>, E> {
    let mut asked: v1::ListTopicsRequest = decode_request("ListTopics", request)?;
    loop {
        let answer = ask(asked.encode_to_vec()).await?;
        let mut page: v1::ListTopicsResponse = decode_request("ListTopics", answer.as_ref())?;
        let last = page.topics.last().map(|topic| topic.name.clone());
        page.topics.retain(|topic| caller.sees(&topic.name));
        match last {
            // Who asks goes on behind the last name of a page, so that there has to be one.
            Some(last) if page.more && page.topics.is_empty() => asked.after = last,
            _ => return Ok(page.encode_to_vec()),
        }
    }
}

/// What is answered by a server that stops.
pub(super) fn stopping_error() -> Error {
    let message = "the broker is stopping; ask another one, or this one again later";
    Error::new(Code::BrokerDraining, message).retry_after_ms(1000)
}

/// What a wait for a sync gives.
type Told = std::result::Result<Result<()>, oneshot::error::RecvError>;

/// The outcome of a wait for a sync.
pub(super) async fn settled(told: impl Future<Output = Told>) -> Result<()> {
    told.await.unwrap_or_else(|_| Err(gone()))
}

/// Why a thread that waited for the disk did not answer.
fn gone() -> Error {
    Error::new(Code::Internal, "a call ended without an outcome: the server is stopping, or this is a fault of it")
}

/// The core writes them first.
fn has_deliveries(answer: &[u8]) -> bool {
    answer.first() == Some(&DELIVERY_TAG)
}
