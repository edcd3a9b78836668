//! A broker's address, and calls of it for whoever is in a runtime.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::once;
use futures_util::{Stream, StreamExt};
use http::uri::{PathAndQuery, Uri};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::answers::Answers;
use super::credentials::Token;
use super::requests::request;
use super::tls::{Connector, Tls};
use crate::error::{Code as ErrorCode, Error, Result};
use crate::grpc::SERVICE;

/// What a broker may send ahead of its reader, on a stream and on all of them. A message that finds room comes in one
/// piece, and need not be joined.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a frame of HTTP/2, at most: what an answer that asks for no more comes to.
const FRAME_BYTES: u32 = 2 << 20;
const USER_AGENT: &str = concat!("telemetry-broker/", env!("CARGO_PKG_VERSION"));

/// How soon it is noticed that a broker is not there.
#[derive(Clone, Copy)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// Pause between pings.
    pub ping_interval: Duration,
    /// For the answer to a ping.
    pub ping_timeout: Duration,
}

/// Who calls.
#[derive(Clone, Default)]
pub struct Credentials {
    /// What is sent with each call.
    pub token: Option<Arc<Token>>,
    /// None: plain text.
    pub(super) connector: Option<Connector>,
}

impl Credentials {
    /// Those of a token, and of TLS.
    pub fn new(token: Option<Token>, tls: Option<&Tls>) -> Result<Self> {
        Ok(Self { token: token.map(Arc::new), connector: tls.map(Tls::connector).transpose()? })
    }
}

/// Where a broker is, and who calls it.
#[derive(Clone)]
pub struct Address {
    endpoint: Endpoint,
    credentials: Credentials,
    patience: Patience,
}

impl Address {
    /// That of `host:port`, `[v6]:port` or `unix:/path`.
    pub fn new(target: &str, credentials: Credentials, patience: Patience) -> Result<Self> {
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
            let scheme = if credentials.connector.is_some() { "https" } else { "http" };
            let origin = Uri::try_from(format!("{scheme}://{target}")).map_err(|err| invalid(&err))?;
            Ok(Endpoint::from(uri).origin(origin))
        };
        let endpoint = endpoint
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|err| invalid(&err))?
            .connect_timeout(patience.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(patience.ping_interval)
            .keep_alive_timeout(patience.ping_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES);
        Ok(Self { endpoint, credentials, patience })
    }

    /// The token to send, if one is.
    pub fn token(&self) -> Option<&Token> {
        self.credentials.token.as_deref()
    }

    /// A connection that the first call makes, and the first one after each break. To be called inside of a runtime.
    pub fn connect(&self) -> Channel {
        match self.credentials.connector.clone() {
            Some(connector) => {
                let limit = self.patience.connect;
                self.endpoint.connect_with_connector_lazy(service_fn(move |uri| connector.clone().connect(uri, limit)))
            }
            None => self.endpoint.connect_lazy(),
        }
    }
}

/// A broker to be called from inside of a runtime.
pub struct Remote {
    channel: Channel,
    address: Address,
}

impl Remote {
    /// That at an address. To be called inside of a runtime.
    pub fn new(address: Address) -> Self {
        Self { channel: address.connect(), address }
    }

    /// Begins a call: a method of `BrokerService`, or a whole path.
    pub async fn stream(
        &self,
        method: &str,
        requests: impl Stream<Item = Bytes> + Send + 'static,
        limit: Option<Duration>,
    ) -> std::result::Result<Answers, Status> {
        let path = if method.starts_with('/') { method.to_owned() } else { format!("{SERVICE}{method}") };
        let path = PathAndQuery::try_from(path)
            .map_err(|_| Error::new(ErrorCode::InvalidArgument, format!("{method:?} is no method")))?;
        let authorization = self.address.token().map(Token::header);
        Answers::to(self.channel.clone(), request(path, authorization, limit, Box::pin(requests.map(Ok)))).await
    }

    /// Runs a unary call.
    pub async fn unary(&self, method: &str, request: Bytes, limit: Duration) -> std::result::Result<Bytes, Status> {
        let call = async {
            let mut answers = self.stream(method, once(std::future::ready(request)), Some(limit)).await?;
            let answer = answers.message().await?;
            if answers.message().await?.is_some() {
                return Err(Status::internal(format!("several answers came to {method}")));
            }
            answer.ok_or_else(|| Status::internal(format!("no answer came to {method}")))
        };
        tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("{method} was not answered within {limit:?}"))))
    }
}
