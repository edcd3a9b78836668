//! `BrokerService` over HTTP/2. What it does not know is passed on to another server of the process.
//!
//! Everything runs on the threads of one runtime. A call that waits for the disk does so in a thread of its own, and one
//! that waits for records sleeps until the core says that its topic changed.

mod answers;
mod calls;
mod changes;
mod connection;
mod consume;
mod forward;
mod leased;
mod produce;
mod service;
mod settling;
mod tls;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Code, Status};

use self::calls::Calls;
use self::connection::{Accepting, Connections, Listening};
pub(crate) use self::consume::{HEARTBEAT, MAX_ANSWERS, MAX_CREDIT, MAX_CREDIT_DELIVERIES, credit_of};
use self::forward::Forward;
use self::service::{Callee, Service};
use crate::access::Access;
use crate::broker::Broker;
use crate::cluster::Cluster;
use crate::error;
use crate::grpc::framing::{Message, Messages};

/// Threads that answer calls. They wait for nothing, so that more than processors are no use; past these, the partitions'
/// locks are what they would wait for.
const MAX_WORKERS: usize = 4;
/// Threads that wait for the disk: so many partitions and rare calls can do that at once; more wait for those.
const BLOCKING_THREADS: usize = 64;
/// What a thread that waits for the disk has left to end, once nobody waits for it.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a server is told once and for all.
pub struct Options {
    /// The Unix socket of a server for all other services.
    pub forward_to: Option<PathBuf>,
    /// Who may do what over TCP; None: everybody may everything. A Unix socket is for whom its file lets in.
    pub access: Option<Arc<Access>>,
    /// Connections at the same time; further ones are closed at once.
    pub max_connections: usize,
}

/// Who carries out the calls of `BrokerService`.
pub enum Backend {
    /// Nobody: all calls are passed on.
    Nobody,
    /// A broker of this process.
    Broker(Arc<Broker>),
    /// Brokers elsewhere, on whose runtime the server runs, too.
    Cluster(Arc<Cluster>),
}

/// A server.
pub struct Server {
    /// None once stopped.
    runtime: Mutex<Option<Running>>,
    handle: Handle,
    service: Arc<Service>,
    connections: Arc<Connections>,
    max_connections: usize,
    tls: Arc<RwLock<Option<Arc<ServerConfig>>>>,
    listeners: Mutex<Vec<Listening>>,
    stop: watch::Sender<bool>,
    /// Open while something is served: each connection has a copy.
    serving: Mutex<(Option<mpsc::Sender<()>>, mpsc::Receiver<()>)>,
}

/// Where a server runs.
enum Running {
    Here(Runtime),
    /// In what outlives it.
    Elsewhere,
}

/// Threads for calls, and for what waits for the disk.
pub fn runtime() -> io::Result<Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_WORKERS));
    Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("grpc")
        .enable_all()
        .build()
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(backend: Backend, options: Options) -> io::Result<Self> {
        let (running, handle) = if let Backend::Cluster(cluster) = &backend {
            (Running::Elsewhere, cluster.handle().clone())
        } else {
            let runtime = runtime()?;
            let handle = runtime.handle().clone();
            (Running::Here(runtime), handle)
        };
        let (stop, stopping) = watch::channel(false);
        let Options { forward_to, access, max_connections } = options;
        let service = Service {
            callee: match backend {
                Backend::Nobody => None,
                Backend::Broker(broker) => Some(Callee::Broker(Arc::new(Calls::new(broker, stopping)))),
                Backend::Cluster(cluster) => Some(Callee::Cluster(cluster, stopping)),
            },
            forward: forward_to.map(Forward::new),
            access,
            active: Arc::default(),
        };
        let connections = Connections { places: Arc::new(Semaphore::new(max_connections)), refused: AtomicU64::new(0) };
        let (serving, served) = mpsc::channel(1);
        Ok(Self {
            handle,
            runtime: Mutex::new(Some(running)),
            service: Arc::new(service),
            connections: Arc::new(connections),
            max_connections,
            tls: Arc::default(),
            listeners: Mutex::default(),
            stop,
            serving: Mutex::new((Some(serving), served)),
        })
    }

    /// TCP connections from here on use TLS with this certificate chain and its key, all PEM; those that are there stay as
    /// they are. With `client_ca`, clients must have a certificate of that authority. An error changes nothing.
    pub fn set_tls(&self, chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> error::Result<()> {
        *self.tls.write() = Some(tls::acceptor(chain, key, client_ca)?);
        Ok(())
    }

    /// Binds a port of all addresses of a host, 0 for a free one, and returns the first of them.
    pub fn listen(&self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let mut bound: Option<SocketAddr> = None;
        for mut address in (host, port).to_socket_addrs()? {
            address.set_port(bound.map_or(port, |bound| bound.port()));
            let listener = match std::net::TcpListener::bind(address) {
                Ok(listener) => listener,
                // `localhost` may have an address that is not there.
                Err(_) if bound.is_some() => continue,
                Err(err) => return Err(err),
            };
            listener.set_nonblocking(true)?;
            bound = bound.or(Some(listener.local_addr()?));
            let _inside = self.handle.enter();
            self.listeners.lock().push(Listening::Tcp(TcpListener::from_std(listener)?));
        }
        bound.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{host} has no address")))
    }

    /// Binds a Unix socket, which must not be there.
    pub fn listen_unix(&self, path: &Path) -> io::Result<()> {
        let _inside = self.handle.enter();
        self.listeners.lock().push(Listening::Unix(UnixListener::bind(path)?, path.to_owned()));
        Ok(())
    }

    /// Takes calls from here on, unless stopped.
    pub fn start(&self) {
        let Some(serving) = self.serving.lock().0.clone() else { return };
        for listener in self.listeners.lock().drain(..) {
            let accepting = Accepting {
                service: self.service.clone(),
                connections: self.connections.clone(),
                tls: self.tls.clone(),
                stopping: self.stop.subscribe(),
                _serving: serving.clone(),
            };
            self.handle.spawn(accepting.run(listener));
        }
    }

    /// Takes no new call, lets those under way finish for so long, and ends. Repeating it is fine.
    pub fn stop(&self, grace: Duration) {
        self.stop.send_replace(true);
        let Some(running) = self.runtime.lock().take() else { return };
        let mut serving = self.serving.lock();
        serving.0 = None;
        self.handle.block_on(async {
            // Ends by itself once the last connection has.
            let _ = tokio::time::timeout(grace, serving.1.recv()).await;
        });
        self.listeners.lock().clear();
        if let Running::Here(runtime) = running {
            runtime.shutdown_timeout(LAST_WAIT);
        }
    }

    /// Calls of `BrokerService` under way.
    pub fn active(&self) -> usize {
        self.service.active.load(Ordering::Relaxed)
    }

    /// Connections now, and how many were refused because there were as many as may be.
    pub fn connections(&self) -> (usize, u64) {
        let open = self.max_connections - self.connections.places.available_permits();
        (open, self.connections.refused.load(Ordering::Relaxed))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(Running::Here(runtime)) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

/// Returns once the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await; // a server that is gone has stopped
}

/// What becomes of a call, or of a message of it.
type Reply<T> = Result<T, Status>;

/// The messages of a client.
type Requests = Messages<Incoming>;

/// The next message of a client; None: it sends no more.
async fn message(requests: &mut Requests) -> Reply<Option<Message>> {
    match requests.next().await {
        // A client that is gone asks for nothing more.
        Err(status) if status.code() == Code::Cancelled => Ok(None),
        // What other servers answer, and what clients know not to try again.
        Err(status) if status.code() == Code::OutOfRange => Err(Status::resource_exhausted(status.message())),
        message => message,
    }
}
