//! The client's side: a connection to a broker, and calls over it.
//!
//! Everything that waits for the network runs on one thread of the connection's own, which knows no Python and which no
//! process-wide runtime owns: a connection made in the child of a fork works as any other.

mod answers;
pub mod bell;
mod credentials;
mod exchange;
mod failure;
mod remote;
mod requests;
mod tls;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tonic::Code;

use self::bell::{Bell, Watcher};
use super::{MAX_MESSAGE_BYTES, SERVICE};
use crate::cluster::{self, Cluster};
use crate::error::{Code as ErrorCode, Error, Result};

pub use self::answers::Answers;
pub use self::credentials::Token;
pub use self::exchange::{Exchange, Taken};
pub use self::failure::Failure;
pub use self::remote::{Address, Credentials, Patience, Remote};
pub use self::tls::Tls;

/// A dead peer is noticed after 40 s at most, also without a call; servers refuse pings that come more often than each
/// 10 s.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    ping_timeout: Duration::from_secs(10),
};
/// Bytes of a block that is allocated and freed with each connection, and never touched. Buffers of messages come and
/// go all the time; glibc gives each back to the system and gets it anew, page by page, which costs as much as to fill it,
/// until it has seen so large a block freed (mallopt(3), `M_MMAP_THRESHOLD`). Elsewhere it does nothing.
const LARGEST_BUFFER: usize = 8 << 20;
/// How long `close` waits for the thread, which has nothing to do but to let go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one broker. The first call connects, and so does the first one after a break.
pub struct Channel {
    target: Target,
    state: Mutex<State>,
    process: u32,
}

enum Target {
    One(Box<Address>),
    /// Names and addresses.
    Many {
        members: Vec<(String, String)>,
        options: cluster::Options,
    },
}

/// Who answers.
#[derive(Clone)]
enum Callee {
    One(tonic::transport::Channel),
    Many(Arc<Cluster>),
}

enum State {
    /// No call was made yet.
    Fresh,
    Running(Box<Running>),
    Closed,
}

/// What runs, seen from outside.
struct Running {
    handle: Handle,
    remote: Callee,
    /// None: somebody else's.
    thread: Option<Thread>,
}

struct Thread {
    /// Ends the thread, also when it is dropped.
    stop: oneshot::Sender<()>,
    /// Rings once the thread has let go of everything.
    gone: Arc<Bell>,
}

impl Channel {
    /// One to `host:port`, `[v6]:port` or `unix:/path`.
    pub fn new(target: &str, credentials: Credentials) -> Result<Self> {
        Address::new(target, credentials, PATIENCE).map(|address| Self::to(Target::One(Box::new(address))))
    }

    /// One to several brokers, of names and addresses, which are one for whoever calls it.
    pub fn to_many(members: &[(String, String)], options: cluster::Options) -> Result<Self> {
        cluster::check(members, &options)?;
        Ok(Self::to(Target::Many { members: members.to_vec(), options }))
    }

    /// One to brokers that others call, too.
    pub fn of_cluster(cluster: Arc<Cluster>) -> Self {
        let channel = Self::to(Target::Many { members: Vec::new(), options: cluster::Options::default() });
        let running = Running { handle: cluster.handle().clone(), remote: Callee::Many(cluster), thread: None };
        *channel.state.lock() = State::Running(Box::new(running));
        channel
    }

    fn to(target: Target) -> Self {
        Self { target, state: Mutex::new(State::Fresh), process: std::process::id() }
    }

    /// Whether the next call starts the thread.
    pub fn is_fresh(&self) -> bool {
        !self.is_forked() && matches!(*self.state.lock(), State::Fresh)
    }

    /// Starts the thread, if no call has. It takes over the signal mask of this one.
    pub fn start(&self) -> Result<()> {
        if self.is_forked() {
            return Ok(());
        }
        let mut state = self.state.lock();
        if matches!(*state, State::Fresh) {
            *state = State::Running(Box::new(Running::start(&self.target)?));
        }
        Ok(())
    }

    /// Begins a call of `BrokerService`; on a closed channel it has failed. `timeout` bounds all of it. With a
    /// request it is unary: its answer is taken when the call has ended.
    pub fn exchange(
        &self,
        method: &str,
        timeout: Option<Duration>,
        watcher: Watcher,
        request: Option<Bytes>,
    ) -> Result<Exchange> {
        let path = PathAndQuery::try_from(format!("{SERVICE}{method}"))
            .map_err(|_| Error::new(ErrorCode::InvalidArgument, format!("{method:?} is no method")))?;
        let too_large = request.as_ref().filter(|request| request.len() > MAX_MESSAGE_BYTES).map(exchange::too_large);
        let authorization = match &self.target {
            Target::One(address) => address.token().map(Token::header),
            Target::Many { .. } => None,
        };
        let call = exchange::Call { path, authorization, timeout, watcher, request };
        if let Some(failure) = too_large {
            return Ok(Exchange::failed(call, failure));
        }
        let failed = |call, why| Ok(Exchange::failed(call, Failure::here(Code::Cancelled, why, false)));
        if self.is_forked() {
            return failed(call, "the connection was opened before this process was forked");
        }
        self.start()?;
        match &*self.state.lock() {
            State::Running(running) => Ok(Exchange::begin(&running.handle, running.remote.clone(), call)),
            _ => failed(call, "the connection was closed"),
        }
    }

    /// Ends every call and lets go of the connection. In the child of a fork it does nothing.
    pub fn close(&self) {
        if self.is_forked() {
            return;
        }
        let state = std::mem::replace(&mut *self.state.lock(), State::Closed);
        if let State::Running(running) = state
            && let Some(Thread { stop, gone }) = running.thread
        {
            // It fails only where the thread has ended.
            let _ = stop.send(());
            let until = Instant::now() + CLOSE_TIMEOUT;
            while gone.wait(Some(until)) == bell::Woken::Interrupted {}
        }
    }

    /// The thread is in another process, whose locks may be held here for ever.
    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.is_forked() {
            std::mem::forget(std::mem::replace(self.state.get_mut(), State::Closed));
        }
    }
}

impl Running {
    fn start(target: &Target) -> Result<Self> {
        let failed = |err: std::io::Error| Error::io("start a thread for", std::path::Path::new("a connection"), &err);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let remote = {
            let _entered = handle.enter();
            match target {
                Target::One(address) => Callee::One(address.connect()),
                Target::Many { members, options } => Callee::Many(Cluster::new(members, options.clone(), &handle)?),
            }
        };
        drop(black_box(Vec::<u8>::with_capacity(LARGEST_BUFFER)));
        let (stop, stopped) = oneshot::channel();
        let gone = Arc::new(Bell::new()?);
        let rings = gone.clone();
        let life = move || {
            // An error means that the channel was dropped.
            let _ = runtime.block_on(stopped);
            // Not to wait for a name that is being looked up.
            runtime.shutdown_background();
            rings.ring();
        };
        std::thread::Builder::new().name("broker calls".into()).spawn(life).map_err(failed)?;
        Ok(Self { handle, remote, thread: Some(Thread { stop, gone }) })
    }
}
