//! Connections: accepted, bounded, watched for a peer that is gone, and ended without cutting off a call.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::service::{Door, Service};
use super::stopped;
use crate::grpc::tls::TlsStream;

/// Streams of one connection.
const MAX_STREAMS: u32 = 10_000;
/// Bytes of a call's headers.
const MAX_HEADERS: u32 = 16 << 10;
/// Bytes that a client may have sent on a stream, and on all of its streams, before they are taken up.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of a frame of HTTP/2, at most: so many of each connection are kept until the rest of it is there.
const FRAME_BYTES: u32 = 256 << 10;
/// Bytes of a stream's answers that wait for the client.
const SEND_BUFFER: usize = 1 << 20;
/// A client that is gone without a word is noticed after 30 s, and what it leased is given back.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Who connects and says nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client says first: its preface, and the header of its settings.
const HANDSHAKE_BYTES: usize = 24 + 9;
/// Pause where there is no file descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path); // somebody may have removed it
        }
    }
}

/// Room for connections.
pub(super) struct Connections {
    pub places: Arc<Semaphore>,
    /// Those that found none.
    pub refused: AtomicU64,
}

/// What each listener and each connection has.
#[derive(Clone)]
pub(super) struct Accepting {
    pub service: Arc<Service>,
    pub connections: Arc<Connections>,
    /// What takes up TCP connections; None: they are in plain text.
    pub tls: Arc<RwLock<Option<Arc<ServerConfig>>>>,
    pub stopping: watch::Receiver<bool>,
    /// Dropped by the last one that ends.
    pub _serving: mpsc::Sender<()>,
}

impl Accepting {
    /// Takes connections until the server stops.
    pub async fn run(self, listener: Listening) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                () = stopped(&mut stopping) => return,
            };
            if accepted.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept(&self, listener: &Listening) -> io::Result<()> {
        match listener {
            Listening::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written as a whole; to hold back the end of one for more of it would only cost time.
                stream.set_nodelay(true)?;
                let Some(place) = self.place() else { return Ok(()) };
                let tls = self.tls.read().clone();
                let serving = self.clone();
                tokio::spawn(async move {
                    let Some(tls) = tls else { return serving.serve(stream, Door::Guarded, place).await };
                    // A client that cannot make it through the handshake is told by TLS itself, as far as it is told.
                    let Ok(end) = UnbufferedServerConnection::new(tls) else { return };
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, TlsStream::agreed(stream, end)).await {
                        serving.serve(stream, Door::Guarded, place).await;
                    }
                });
            }
            Listening::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let Some(place) = self.place() else { return Ok(()) };
                tokio::spawn(self.clone().serve(stream, Door::Private, place));
            }
        }
        Ok(())
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.connections.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.connections.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Serves one connection to its end.
    async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        door: Door,
        _place: OwnedSemaphorePermit,
    ) {
        let heard = Arc::new(AtomicUsize::new(0));
        let stream = TokioIo::new(Counted { stream, read: heard.clone() });
        let service = self.service.clone();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(stream, service_fn(move |request| service.clone().call(request, door)));
        tokio::pin!(connection);
        // How a connection ends is its client's matter: each call on it has its own outcome.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = silence(&heard) => return,
            () = stopped(&mut self.stopping) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Returns when a client has not said in time that it speaks HTTP/2.
async fn silence(heard: &AtomicUsize) {
    sleep(HANDSHAKE_TIMEOUT).await;
    if heard.load(Ordering::Relaxed) >= HANDSHAKE_BYTES {
        std::future::pending::<()>().await;
    }
}

/// A stream that counts what was read.
struct Counted<S> {
    stream: S,
    read: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buf))?;
        self.read.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
