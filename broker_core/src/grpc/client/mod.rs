//! The client's side: a connection to a broker, and calls over it.
//!
//! Everything that waits for the network runs on one thread of the connection's own, which knows no Python and which no
//! process-wide runtime owns: a connection made in the child of a fork works as any other.

pub mod bell;
mod credentials;
mod exchange;
mod failure;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tower::service_fn;

use self::bell::{Bell, Watcher};
use self::tls::Connector;
use super::{FRAME_BYTES, MAX_MESSAGE_BYTES, SERVICE};
use crate::error::{Code as ErrorCode, Error, Result};

pub use self::credentials::Token;
pub use self::exchange::{Exchange, Taken};
pub use self::failure::Failure;
pub use self::tls::Tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after 40 s at most, also without a call; servers refuse pings that come more often than each
/// 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What a broker may send ahead of its reader: half a message on a stream, and one over all of them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long `close` waits for the thread, which has nothing to do but to let go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("telemetry-broker/", env!("CARGO_PKG_VERSION"));

/// A connection to one broker. The first call connects, and so does the first one after a break.
pub struct Channel {
    endpoint: Endpoint,
    token: Option<Token>,
    /// None: plain text.
    connector: Option<Connector>,
    state: Mutex<State>,
    process: u32,
}

enum State {
    /// No call was made yet.
    Fresh,
    Running(Box<Running>),
    Closed,
}

/// The thread, seen from outside.
struct Running {
    handle: Handle,
    grpc: Grpc<tonic::transport::Channel>,
    /// Ends the thread, also when it is dropped.
    stop: oneshot::Sender<()>,
    /// Rings once the thread has let go of everything.
    gone: Arc<Bell>,
}

impl Channel {
    /// One to `host:port`, `[v6]:port` or `unix:/path`, which sends the token with each call.
    pub fn new(target: &str, token: Option<Token>, tls: Option<&Tls>) -> Result<Self> {
        let invalid = |why: &dyn std::fmt::Display| {
            Error::new(ErrorCode::InvalidArgument, format!("{target:?} is no address of a broker: {why}"))
        };
        let endpoint = if let Some(path) = target.strip_prefix("unix:") {
            // The host is what other gRPC clients say on a socket.
            let host = Uri::from_static("http://localhost");
            Endpoint::from_shared(format!("unix://{path}")).map(|endpoint| endpoint.origin(host))
        } else {
            let uri = Uri::try_from(format!("http://{target}")).map_err(|err| invalid(&err))?;
            if uri.port().is_none() || uri.host().is_none_or(str::is_empty) {
                return Err(invalid(&"it does not have a host and a port"));
            }
            // With TLS the connector brings it: tonic is to know of it only what it tells the broker.
            let scheme = if tls.is_some() { "https" } else { "http" };
            let origin = Uri::try_from(format!("{scheme}://{target}")).map_err(|err| invalid(&err))?;
            Ok(Endpoint::from(uri).origin(origin))
        };
        let endpoint = endpoint
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|err| invalid(&err))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES);
        let connector = tls.map(Tls::connector).transpose()?;
        Ok(Self { endpoint, token, connector, state: Mutex::new(State::Fresh), process: std::process::id() })
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
            *state = State::Running(Box::new(Running::start(&self.endpoint, self.connector.clone())?));
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
        let authorization = self.token.as_ref().map(Token::header);
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
            State::Running(running) => Ok(Exchange::begin(&running.handle, running.grpc.clone(), call)),
            _ => failed(call, "the connection was closed"),
        }
    }

    /// Ends every call and lets go of the connection. In the child of a fork it does nothing.
    pub fn close(&self) {
        if self.is_forked() {
            return;
        }
        let state = std::mem::replace(&mut *self.state.lock(), State::Closed);
        if let State::Running(running) = state {
            let Running { stop, gone, .. } = *running;
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
    fn start(endpoint: &Endpoint, connector: Option<Connector>) -> Result<Self> {
        let failed = |err: std::io::Error| Error::io("start a thread for", std::path::Path::new("a connection"), &err);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let grpc = {
            let _entered = handle.enter();
            let channel = match connector {
                Some(connector) => endpoint.connect_with_connector_lazy(service_fn(move |uri| {
                    connector.clone().connect(uri, CONNECT_TIMEOUT)
                })),
                None => endpoint.connect_lazy(),
            };
            Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
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
        Ok(Self { handle, grpc, stop, gone })
    }
}
