//! `Channel`, `Exchange`, `Notifier` and `CallError`: calls of a broker elsewhere.
//!
//! The locks of an exchange are taken while attached: its task holds them for moments, and never needs the interpreter.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::bytes::Bytes;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use super::bytes::Input;
use super::cluster::PyCluster;
use super::delivery::Streamed;
use super::encoded::PyEncodedBatch;
use super::errors::to_py_err;
use crate::cluster::Options;
use crate::error::Result;
use crate::grpc::client::bell::{Bell, Notifier, Watcher};
use crate::grpc::client::{Channel, Credentials, Exchange, Failure, Taken, Tls, Token};

create_exception!(telemetry_broker._core, CallError, PyException);

/// Made as an object at once. A `PyErr` that is lazy lets go of the interpreter while it is made into one, and a thread that
/// waits for a stream may find it gone then, at the end of the process.
fn call_error(py: Python<'_>, failure: &Failure) -> PyErr {
    let made = py.get_type::<CallError>().call1((&failure.message,)).and_then(|value| {
        value.setattr("status", i32::from(failure.status))?;
        value.setattr("message", &failure.message)?;
        value.setattr("code", failure.code.as_deref())?;
        value.setattr("retry_after", failure.retry_after)?;
        value.setattr("field", failure.field.as_deref())?;
        value.setattr("sent", failure.sent)?;
        Ok(PyErr::from_value(value))
    });
    made.unwrap_or_else(|error| error)
}

/// A time so far away that no clock can say it is none.
fn seconds(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        Some(seconds) if seconds >= 0.0 => Ok(Duration::try_from_secs_f64(seconds).ok()),
        Some(seconds) => Err(PyValueError::new_err(format!("a timeout is 0 s or more, not {seconds}"))),
    }
}

fn until(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// What is sent.
#[derive(FromPyObject)]
pub enum Message {
    /// A batch of this process, framed for a stream.
    Batch(Py<PyEncodedBatch>),
    /// An encoded message.
    Encoded(Input),
}

impl Message {
    fn to_bytes(&self) -> PyResult<Bytes> {
        match self {
            Self::Batch(batch) => batch.get().framed(),
            Self::Encoded(message) => Ok(Bytes::copy_from_slice(message.as_slice())),
        }
    }
}

#[pyclass(name = "Notifier", module = "telemetry_broker._core", frozen)]
pub struct PyNotifier {
    notifier: Arc<Notifier>,
    numbers: AtomicU64,
}

#[pymethods]
impl PyNotifier {
    #[new]
    fn new() -> PyResult<Self> {
        let notifier = Notifier::new().map_err(|err| to_py_err(&err))?;
        Ok(Self { notifier: Arc::new(notifier), numbers: AtomicU64::new(0) })
    }

    fn fileno(&self) -> i32 {
        self.notifier.fd().as_raw_fd()
    }

    fn drain(&self) -> Vec<u64> {
        self.notifier.drain()
    }
}

#[pyclass(name = "Exchange", module = "telemetry_broker._core", frozen)]
pub struct PyExchange(Exchange);

impl PyExchange {
    /// Sleeps until there is something to take, or the time is over; Ctrl-C ends that.
    fn wait(&self, py: Python<'_>, until: Option<Instant>) -> PyResult<Taken> {
        loop {
            // What came before the sleep does not interrupt it.
            py.check_signals()?;
            if let Some(taken) = py.detach(|| self.0.wait(until)) {
                return Ok(taken);
            }
        }
    }

    fn wait_long(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Taken> {
        if matches!(self.0.watcher(), Watcher::Notifier(..)) {
            return Err(PyValueError::new_err("this exchange tells a notifier of its news: drain it"));
        }
        self.wait(py, until(seconds(timeout)?))
    }
}

/// What was taken, as a list of what `convert` makes of it.
fn list<'py>(
    py: Python<'py>,
    taken: Taken,
    convert: impl FnOnce(VecDeque<Bytes>) -> PyResult<Bound<'py, PyList>>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    match taken {
        Taken::Messages(messages) => convert(messages).map(Some),
        Taken::Nothing => Ok(Some(PyList::empty(py))),
        Taken::End(Ok(())) => Ok(None),
        Taken::End(Err(failure)) => Err(call_error(py, &failure)),
    }
}

fn messages(py: Python<'_>, taken: Taken) -> PyResult<Option<Bound<'_, PyList>>> {
    list(py, taken, |messages| PyList::new(py, messages.iter().map(|message| PyBytes::new(py, message))))
}

/// The same, of a Consume stream.
fn streamed(py: Python<'_>, taken: Taken) -> PyResult<Option<Bound<'_, PyList>>> {
    list(py, taken, |messages| {
        let found = py.detach(|| messages.into_iter().map(Streamed::of).collect::<Result<Vec<_>>>());
        let list = PyList::empty(py);
        for message in found.map_err(|err| to_py_err(&err))? {
            match message {
                Streamed::Delivery(delivery) => list.append(*delivery)?,
                Streamed::Message(message) => list.append(PyBytes::new(py, &message))?,
            }
        }
        Ok(list)
    })
}

#[pymethods]
impl PyExchange {
    #[getter]
    fn number(&self) -> u64 {
        match self.0.watcher() {
            Watcher::Notifier(_, number) => *number,
            Watcher::Bell(_) => 0,
        }
    }

    #[pyo3(signature = (message, waiting = None, who = None))]
    fn send(
        &self,
        py: Python<'_>,
        message: Message,
        waiting: Option<&Bound<'_, PyAny>>,
        who: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let message = message.to_bytes()?;
        if let Some(waiting) = waiting {
            // A deque runs no bytecode for this, so neither a signal nor another thread comes between it and the rest.
            waiting.call_method1("append", (who,))?;
        }
        self.0.send(message);
        py.detach(|| self.0.flush());
        Ok(())
    }

    fn finish(&self, py: Python<'_>) {
        py.detach(|| self.0.finish());
    }

    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }

    #[pyo3(signature = (timeout = None))]
    fn receive<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyList>>> {
        messages(py, self.wait_long(py, timeout)?)
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        messages(py, self.0.take())
    }

    #[pyo3(signature = (timeout = None))]
    fn receive_consume<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyList>>> {
        streamed(py, self.wait_long(py, timeout)?)
    }

    fn drain_consume<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        streamed(py, self.0.take())
    }

    fn answer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        answer(py, self.wait(py, None)?)
    }
}

#[pyclass(name = "Channel", module = "telemetry_broker._core", frozen)]
pub struct PyChannel(Channel);

impl PyChannel {
    fn begin(
        &self,
        py: Python<'_>,
        method: &str,
        timeout: Option<f64>,
        notifier: Option<&PyNotifier>,
        request: Option<&Input>,
    ) -> PyResult<PyExchange> {
        let timeout = seconds(timeout)?;
        if self.0.is_fresh() {
            self.start(py)?;
        }
        let request = request.map(|request| Bytes::copy_from_slice(request.as_slice()));
        let begin = || {
            let watcher = match notifier {
                None => Watcher::Bell(Bell::new()?),
                Some(notifier) => {
                    Watcher::Notifier(notifier.notifier.clone(), notifier.numbers.fetch_add(1, Ordering::Relaxed) + 1)
                }
            };
            self.0.exchange(method, timeout, watcher, request)
        };
        py.detach(begin).map(PyExchange).map_err(|err| to_py_err(&err))
    }

    /// Starts the thread with every signal blocked: one that it took would interrupt no wait of the main thread.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let signal = py.import("signal")?;
        let mask = signal.getattr("pthread_sigmask")?;
        let all = signal.call_method0("valid_signals")?;
        let before = mask.call1((signal.getattr("SIG_BLOCK")?, all))?;
        let started = self.0.start().map_err(|err| to_py_err(&err));
        mask.call1((signal.getattr("SIG_SETMASK")?, before))?;
        started
    }
}

/// What a client shows, out of what Python gives.
pub fn credentials(
    token: Option<&str>,
    token_file: Option<PathBuf>,
    tls: bool,
    ca: Option<&[u8]>,
    identity: Option<&(PyBackedBytes, PyBackedBytes)>,
) -> Result<Credentials> {
    let token = match (token, token_file) {
        (Some(token), _) => Some(Token::fixed(token)?),
        (None, Some(path)) => Some(Token::file(path)?),
        (None, None) => None,
    };
    let tls = tls.then(|| Tls {
        ca: ca.map(<[u8]>::to_vec),
        identity: identity.map(|(chain, key)| (chain.to_vec(), key.to_vec())),
    });
    Credentials::new(token, tls.as_ref())
}

#[pymethods]
impl PyChannel {
    #[new]
    #[pyo3(signature = (target, *, token = None, token_file = None, tls = false, ca = None, identity = None))]
    fn new(
        target: &str,
        token: Option<&str>,
        token_file: Option<PathBuf>,
        tls: bool,
        ca: Option<PyBackedBytes>,
        identity: Option<(PyBackedBytes, PyBackedBytes)>,
    ) -> PyResult<Self> {
        credentials(token, token_file, tls, ca.as_deref(), identity.as_ref())
            .and_then(|credentials| Channel::new(target, credentials))
            .map(Self)
            .map_err(|err| to_py_err(&err))
    }

    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own in Python")]
    #[pyo3(signature = (
        members, *, virtual_nodes = 150, token = None, token_file = None, tls = false, ca = None, identity = None,
        follow = false
    ))]
    fn to_many(
        members: Vec<(String, String)>,
        virtual_nodes: u32,
        token: Option<&str>,
        token_file: Option<PathBuf>,
        tls: bool,
        ca: Option<PyBackedBytes>,
        identity: Option<(PyBackedBytes, PyBackedBytes)>,
        follow: bool,
    ) -> PyResult<Self> {
        credentials(token, token_file, tls, ca.as_deref(), identity.as_ref())
            .and_then(|credentials| {
                let options = Options { virtual_nodes, credentials, follow, ..Options::default() };
                Channel::to_many(&members, options)
            })
            .map(Self)
            .map_err(|err| to_py_err(&err))
    }

    #[staticmethod]
    fn of_cluster(cluster: &PyCluster) -> PyResult<Self> {
        Ok(Self(Channel::of_cluster(cluster.get()?)))
    }

    #[pyo3(signature = (method, request, timeout = None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        request: Input,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        // Dropped by an interrupt, which cancels it.
        let exchange = self.begin(py, method, timeout, None, Some(&request))?;
        answer(py, exchange.wait(py, None)?)
    }

    #[pyo3(signature = (method, request, timeout = None, notifier = None))]
    fn ask(
        &self,
        py: Python<'_>,
        method: &str,
        request: Input,
        timeout: Option<f64>,
        notifier: Option<&PyNotifier>,
    ) -> PyResult<PyExchange> {
        self.begin(py, method, timeout, notifier, Some(&request))
    }

    #[pyo3(signature = (method, timeout = None, notifier = None))]
    fn exchange(
        &self,
        py: Python<'_>,
        method: &str,
        timeout: Option<f64>,
        notifier: Option<&PyNotifier>,
    ) -> PyResult<PyExchange> {
        self.begin(py, method, timeout, notifier, None)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// The only answer of a unary call.
fn answer(py: Python<'_>, taken: Taken) -> PyResult<Bound<'_, PyBytes>> {
    if let Taken::Messages(messages) = &taken
        && let Some(message) = messages.front()
    {
        return Ok(PyBytes::new(py, message));
    }
    let failure = match taken {
        Taken::End(Err(failure)) => failure,
        _ => Failure::here(tonic::Code::Internal, "no answer came", true),
    };
    Err(call_error(py, &failure))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let error = m.py().get_type::<CallError>();
    error.setattr("__doc__", "A call that failed; see `_core.pyi`.")?;
    m.add("CallError", error)?;
    m.add_class::<PyNotifier>()?;
    m.add_class::<PyExchange>()?;
    m.add_class::<PyChannel>()
}
