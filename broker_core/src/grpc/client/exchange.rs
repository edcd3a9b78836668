//! One call: messages out, messages in, and an end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};

use super::Callee;
use super::answers::Answers;
use super::bell::{Watcher, Woken};
use super::failure::Failure;
use super::requests;
use crate::cluster::{Client, Messages};
use crate::grpc::{MAX_MESSAGE_BYTES, SERVICE};

/// Untaken messages, and bytes of them, from which on nothing more is read: then HTTP/2 holds the broker back.
const MOST_MESSAGES: usize = 256;
const MOST_BYTES: usize = 4 << 20;

/// What is there for whoever asks.
#[derive(Debug)]
pub enum Taken {
    /// Messages, at least one.
    Messages(VecDeque<Bytes>),
    /// Nothing yet.
    Nothing,
    /// The end, with or without a failure; every message was taken.
    End(Result<(), Failure>),
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Bytes>,
    bytes: usize,
    end: Option<Result<(), Failure>>,
    /// The watcher was told since something was taken last.
    told: bool,
}

/// What the task of a call and its owner have in common. The lock is held for moments and nothing is called under it.
struct Shared {
    inbox: Mutex<Inbox>,
    room: Notify,
    watcher: Watcher,
    /// One answer is expected: the watcher is told of the end alone.
    unary: bool,
}

impl Shared {
    fn push(&self, message: Bytes) {
        let mut inbox = self.inbox.lock();
        inbox.bytes += message.len();
        inbox.messages.push_back(message);
        let news = !self.unary && !std::mem::replace(&mut inbox.told, true);
        drop(inbox);
        if news {
            self.watcher.tell();
        }
    }

    /// The first end holds.
    fn end(&self, end: Result<(), Failure>) {
        let mut inbox = self.inbox.lock();
        if inbox.end.is_some() {
            return;
        }
        inbox.end = Some(end);
        let news = !std::mem::replace(&mut inbox.told, true);
        drop(inbox);
        if news {
            self.watcher.tell();
        }
    }

    fn take(&self) -> Taken {
        let mut inbox = self.inbox.lock();
        inbox.told = false;
        match &inbox.end {
            None if self.unary || inbox.messages.is_empty() => return Taken::Nothing,
            Some(end) if inbox.messages.is_empty() || (self.unary && end.is_err()) => return Taken::End(end.clone()),
            _ => {}
        }
        let was_full = inbox.is_full();
        inbox.bytes = 0;
        // The end is news of its own to who takes one by one.
        inbox.told = inbox.end.is_some();
        let ended = inbox.end.is_some() && !self.unary;
        let messages = std::mem::take(&mut inbox.messages);
        drop(inbox);
        if was_full {
            self.room.notify_one();
        }
        if ended {
            self.watcher.tell();
        }
        Taken::Messages(messages)
    }

    /// Waits until another message may come. An only answer is taken behind the end, which must not wait for that.
    async fn has_room(&self) -> Result<(), Failure> {
        if self.unary {
            return match self.inbox.lock().messages.len() {
                0 | 1 => Ok(()),
                _ => Err(Failure::here(Code::Internal, "several answers came to one request", true)),
            };
        }
        while self.inbox.lock().is_full() {
            self.room.notified().await;
        }
        Ok(())
    }
}

impl Inbox {
    fn is_full(&self) -> bool {
        self.messages.len() >= MOST_MESSAGES || self.bytes >= MOST_BYTES
    }
}

/// What is to be sent.
#[derive(Default)]
struct Outbox {
    queue: Mutex<Queue>,
    sender: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    finished: bool,
    /// The call is over: what was not sent is not to be sent.
    cancelled: bool,
}

impl Outbox {
    fn pop(&self) -> Poll<Option<Result<Bytes, Status>>> {
        let mut queue = self.queue.lock();
        if queue.cancelled {
            return Poll::Ready(Some(Err(cancelled())));
        }
        match queue.messages.pop_front() {
            None if !queue.finished => Poll::Pending,
            message => Poll::Ready(message.map(Ok)),
        }
    }

    fn cancel(&self) {
        self.queue.lock().cancelled = true;
        self.sender.wake();
    }
}

/// What HTTP/2 tells the broker of a call that is over on this side alone.
fn cancelled() -> Status {
    let mut status = Status::cancelled("the call was cancelled");
    status.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
    status
}

/// The end of an outbox that HTTP/2 takes from.
struct Requests(Arc<Outbox>);

impl Stream for Requests {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(message) = self.0.pop() {
            return Poll::Ready(message);
        }
        self.0.sender.register(cx.waker());
        self.0.pop() // something may have come before the waker was there
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.finished = true;
        queue.messages = VecDeque::new();
    }
}

/// Ends a call whose task ends, whatever ends that.
struct Ending {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.end(Err(Failure::here(Code::Cancelled, "the connection was closed", true)));
        self.outbox.cancel(); // else the stream would stay open for requests
    }
}

/// What a call is.
pub struct Call {
    /// Its path.
    pub path: PathAndQuery,
    /// What it shows.
    pub authorization: Option<MetadataValue<Ascii>>,
    /// After so long it has failed; the broker is told, too.
    pub timeout: Option<Duration>,
    /// Who is told of news.
    pub watcher: Watcher,
    /// The only request of a unary call, whose answer is there to be taken once the call has ended; None: a stream.
    pub request: Option<Bytes>,
}

/// One call under way. It is cancelled when it is dropped.
pub struct Exchange {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    task: Option<AbortHandle>,
    process: u32,
}

impl Exchange {
    /// Begins a call.
    pub(super) fn begin(handle: &Handle, callee: Callee, call: Call) -> Self {
        let Call { path, authorization, timeout, watcher, request } = call;
        let unary = request.is_some();
        let shared = Arc::new(Shared { inbox: Mutex::default(), room: Notify::new(), watcher, unary });
        let outbox = Arc::new(Outbox {
            queue: Mutex::new(Queue { messages: request.into_iter().collect(), finished: unary, cancelled: false }),
            sender: AtomicWaker::new(),
        });
        let ending = Ending { shared: shared.clone(), outbox: outbox.clone() };
        let outgoing = Requests(outbox.clone());
        let task = handle.spawn(async move {
            let Ending { shared, .. } = &ending;
            let call = async {
                let answers: Messages = match callee {
                    Callee::One(channel) => {
                        let request = requests::request(path, authorization, timeout, outgoing);
                        Box::pin(Answers::to(channel, request).await?.into_stream())
                    }
                    Callee::Many(cluster) => {
                        let method = path.path().trim_start_matches(SERVICE);
                        cluster.call(method, Box::pin(outgoing), Client::default()).await?
                    }
                };
                Ok(answers)
            };
            let driven = receive(shared, call);
            let end = match timeout {
                None => driven.await,
                Some(timeout) => tokio::time::timeout(timeout, driven)
                    .await
                    .unwrap_or_else(|_| Err(Failure::here(Code::DeadlineExceeded, "Deadline Exceeded", true))),
            };
            shared.end(end);
        });
        Self { shared, outbox, task: Some(task.abort_handle()), process: std::process::id() }
    }

    /// A call that failed before it began.
    pub(super) fn failed(call: Call, failure: Failure) -> Self {
        let Call { watcher, request, .. } = call;
        let unary = request.is_some();
        let shared = Arc::new(Shared { inbox: Mutex::default(), room: Notify::new(), watcher, unary });
        shared.end(Err(failure));
        let outbox = Arc::new(Outbox::default());
        outbox.queue.lock().finished = true;
        Self { shared, outbox, task: None, process: std::process::id() }
    }

    /// Puts a message behind those before; never waits. Nothing leaves behind `finish`, or the end. `flush` must follow.
    pub fn send(&self, message: Bytes) {
        if self.is_forked() {
            return;
        }
        if message.len() > MAX_MESSAGE_BYTES {
            self.end(too_large(&message));
            return;
        }
        let mut queue = self.outbox.queue.lock();
        if !queue.finished {
            queue.messages.push_back(message);
        }
    }

    /// Puts on their way what was sent. It wakes another thread, which may take this one's place for a while.
    pub fn flush(&self) {
        if !self.is_forked() {
            self.outbox.sender.wake();
        }
    }

    /// No more is sent; what comes is still taken.
    pub fn finish(&self) {
        if !self.is_forked() {
            self.outbox.queue.lock().finished = true;
            self.flush();
        }
    }

    /// Ends the call, if it has not ended.
    pub fn cancel(&self) {
        self.end(Failure::here(Code::Cancelled, "the call was cancelled", true));
    }

    /// What came since it was asked last.
    pub fn take(&self) -> Taken {
        if self.is_forked() {
            return Taken::End(Err(Failure::here(
                Code::Cancelled,
                "the call was begun before this process was forked",
                true,
            )));
        }
        self.shared.take()
    }

    /// As `take`, but sleeps until there is something; None: a signal came. Only with a bell, and one thread at a time.
    pub fn wait(&self, until: Option<Instant>) -> Option<Taken> {
        let Watcher::Bell(bell) = &self.shared.watcher else { return Some(self.take()) };
        loop {
            match self.take() {
                Taken::Nothing => {}
                taken => return Some(taken),
            }
            match bell.wait(until) {
                Woken::Rung => {}
                Woken::Late => return Some(self.take()),
                Woken::Interrupted => return None,
            }
        }
    }

    /// Who is told of its news.
    pub fn watcher(&self) -> &Watcher {
        &self.shared.watcher
    }

    fn end(&self, failure: Failure) {
        if self.is_forked() {
            return;
        }
        self.shared.end(Err(failure));
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// The task is in another process: its locks may be held here for ever, and the watcher's descriptor is its, too.
    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Why a message is not sent.
pub(super) fn too_large(message: &Bytes) -> Failure {
    let text = format!("a message of {} bytes: at most {MAX_MESSAGE_BYTES} can be sent", message.len());
    Failure::here(Code::ResourceExhausted, text, false)
}

/// Takes what is answered, to the end.
async fn receive(shared: &Shared, call: impl Future<Output = Result<Messages, Status>>) -> Result<(), Failure> {
    let failed = |status: Status| Failure::of(&status);
    let mut answers = call.await.map_err(failed)?;
    loop {
        shared.has_room().await?;
        match answers.next().await {
            Some(message) => shared.push(message.map_err(failed)?),
            None => return Ok(()),
        }
    }
}
