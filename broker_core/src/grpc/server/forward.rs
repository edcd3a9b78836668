//! Calls of other services, passed on as they came to a server of this process behind a Unix socket.

use std::io;
use std::path::PathBuf;

use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::Status;

/// A server that knows more services. Its connection is made with the first call.
pub(super) struct Forward {
    path: PathBuf,
    sender: Mutex<Option<SendRequest<Incoming>>>,
}

impl Forward {
    pub fn new(path: PathBuf) -> Self {
        Self { path, sender: Mutex::default() }
    }

    /// Passes on a call, and gives its answer while it comes.
    pub async fn call(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Status> {
        let unreachable =
            |why: String| Status::unavailable(format!("{} cannot be served now: {why}", self.path.display()));
        if request.uri().authority().is_none() {
            *request.uri_mut() = with_authority(request.uri()).map_err(|err| unreachable(err.to_string()))?;
        }
        let mut sender = self.connection().await.map_err(|err| unreachable(err.to_string()))?;
        sender.send_request(request).await.map_err(|err| unreachable(err.to_string()))
    }

    async fn connection(&self) -> io::Result<SendRequest<Incoming>> {
        let mut known = self.sender.lock().await;
        if let Some(sender) = known.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = UnixStream::connect(&self.path).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(known.insert(sender).clone())
    }
}

/// HTTP/2 lets a client leave the authority out, hyper's client does not.
fn with_authority(uri: &Uri) -> Result<Uri, http::Error> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme(Scheme::HTTP).authority("localhost").path_and_query(path).build()
}
