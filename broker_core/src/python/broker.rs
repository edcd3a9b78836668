//! `Broker`, `Subscription`, `Unsettled` and `ManualClock`.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::bytes::Input;
use super::delivery::PyDelivery;
use super::encoded::Request;
use super::errors::to_py_err;
use crate::broker::{Broker, BrokerOptions, Subscription, Unsettled};
use crate::clock::{Clock, ManualClock};
use crate::error::{Code, Error, Result};
use crate::log::Durability;

#[pyclass(name = "ManualClock", module = "telemetry_broker._core", frozen)]
pub struct PyManualClock(Arc<ManualClock>);

#[pymethods]
impl PyManualClock {
    #[new]
    #[pyo3(signature = (now_ns = 1_700_000_000_000_000_000))]
    fn new(now_ns: i64) -> Self {
        Self(Arc::new(ManualClock::new(now_ns)))
    }

    fn now(&self) -> f64 {
        self.0.wall_ns() as f64 / 1e9
    }

    fn now_ns(&self) -> i64 {
        self.0.wall_ns()
    }

    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        if !(0.0..=1e9).contains(&seconds) {
            let message = format!("a clock can be advanced by 0 to 1e9 seconds, not {seconds}");
            return Err(to_py_err(&Error::new(Code::InvalidArgument, message)));
        }
        let ns = std::time::Duration::from_secs_f64(seconds).as_nanos();
        py.detach(|| self.0.advance_ns(u64::try_from(ns).unwrap_or(u64::MAX)));
        Ok(())
    }
}

#[pyclass(name = "Subscription", module = "telemetry_broker._core", frozen)]
pub struct PySubscription(Mutex<Option<Arc<Subscription>>>);

impl PySubscription {
    fn open(&self) -> PyResult<Arc<Subscription>> {
        let open = self.0.lock().clone();
        open.ok_or_else(|| to_py_err(&Error::new(Code::BrokerClosed, "the subscription was closed")))
    }
}

#[pymethods]
impl PySubscription {
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.open()?.fd().as_raw_fd())
    }

    fn drain(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let subscription = self.open()?;
        Ok(py.detach(|| subscription.drain().iter().map(ToString::to_string).collect()))
    }

    fn close(&self) {
        self.0.lock().take();
    }
}

#[pyclass(name = "Unsettled", module = "telemetry_broker._core", frozen)]
pub struct PyUnsettled(Unsettled);

#[pymethods]
impl PyUnsettled {
    #[getter]
    fn lane(&self) -> String {
        self.0.lane()
    }
}

#[pyclass(name = "Broker", module = "telemetry_broker._core", frozen)]
pub struct PyBroker {
    broker: Arc<Broker>,
    process: u32,
}

impl PyBroker {
    /// The broker, unless this is a fork of the process that opened it.
    pub(super) fn mine(&self) -> Result<&Arc<Broker>> {
        if std::process::id() == self.process {
            return Ok(&self.broker);
        }
        Err(Error::new(
            Code::BrokerClosed,
            format!(
                "this broker belongs to process {}, of which this is a fork; open it after the fork, or use the `spawn` \
                 start method",
                self.process
            ),
        ))
    }

    fn run<T: Send>(&self, py: Python<'_>, act: impl FnOnce(&Broker) -> Result<T> + Send) -> PyResult<T> {
        py.detach(|| self.mine().and_then(|broker| act(broker))).map_err(|err| to_py_err(&err))
    }
}

fn durability_of(name: &str) -> Result<Durability> {
    match name {
        "memory" => Ok(Durability::Memory),
        "os" => Ok(Durability::Os),
        "fsync" => Ok(Durability::Fsync),
        other => Err(Error::new(
            Code::InvalidArgument,
            format!("durability {other:?} is not known; it is memory, os or fsync"),
        )),
    }
}

#[pymethods]
impl PyBroker {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own in Python")]
    #[pyo3(signature = (
        data_dir, *, queue_size = 2000, visibility_timeout_ms = 30_000, partitions = 4, durability = "os", min_free_bytes = 268_435_456,
        clock = None, name = "", members = None
    ))]
    fn new(
        py: Python<'_>,
        data_dir: Option<&str>,
        queue_size: u64,
        visibility_timeout_ms: u32,
        partitions: u32,
        durability: &str,
        min_free_bytes: u64,
        clock: Option<&PyManualClock>,
        name: &str,
        members: Option<Vec<(String, String)>>,
    ) -> PyResult<Self> {
        let clock = clock.map(|clock| clock.0.clone() as Arc<dyn Clock>);
        let open = || {
            let durability = durability_of(durability)?;
            let options = BrokerOptions {
                name: name.to_owned(),
                members: members.unwrap_or_default(),
                queue_size,
                visibility_timeout_ms,
                partitions,
                durability,
                min_free_bytes,
                ..BrokerOptions::default()
            };
            match data_dir {
                Some(dir) => Broker::open(Path::new(dir), options, clock),
                None => Broker::in_memory(options, clock),
            }
        };
        let broker = py.detach(open).map_err(|err| to_py_err(&err))?;
        Ok(Self { broker: Arc::new(broker), process: std::process::id() })
    }

    fn call<'py>(&self, py: Python<'py>, method: &str, request: Request) -> PyResult<Bound<'py, PyBytes>> {
        let response = self.run(py, |broker| {
            let (response, unsettled) = request.call(broker, method)?;
            unsettled.map_or(Ok(()), |unsettled| broker.settle(&unsettled))?;
            Ok(response)
        })?;
        Ok(PyBytes::new(py, &response))
    }

    fn receive(&self, py: Python<'_>, request: Input) -> PyResult<(Vec<PyDelivery>, u32)> {
        let (handed, next_due_ms) = self.run(py, |broker| broker.call_receive(request.as_slice()))?;
        Ok((handed.into_iter().map(|handed| PyDelivery::of(py, handed)).collect(), next_due_ms))
    }

    fn produce_waits(&self, py: Python<'_>, topic: &str) -> PyResult<bool> {
        self.run(py, |broker| Ok(broker.produce_waits(topic)))
    }

    fn call_unsettled<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        request: Request,
    ) -> PyResult<(Bound<'py, PyBytes>, Option<PyUnsettled>)> {
        let (response, unsettled) = self.run(py, |broker| request.call(broker, method))?;
        Ok((PyBytes::new(py, &response), unsettled.map(PyUnsettled)))
    }

    fn settle(&self, py: Python<'_>, unsettled: Vec<Py<PyUnsettled>>) -> PyResult<Vec<Option<PyErr>>> {
        let writes: Vec<&Unsettled> = unsettled.iter().map(|one| &one.get().0).collect();
        let outcomes =
            self.run(py, |broker| Ok(writes.iter().map(|write| broker.settle(write)).collect::<Vec<_>>()))?;
        Ok(outcomes.into_iter().map(|outcome| outcome.err().map(|err| to_py_err(&err))).collect())
    }

    #[pyo3(signature = (topic = None))]
    fn subscribe(&self, py: Python<'_>, topic: Option<String>) -> PyResult<PySubscription> {
        let subscription = self.run(py, |broker| broker.wakeups().subscribe(topic))?;
        Ok(PySubscription(Mutex::new(Some(subscription))))
    }

    fn release(&self, py: Python<'_>, topic: &str, group: &str, consumer: &str) -> PyResult<()> {
        self.run(py, |broker| broker.release(topic, group, consumer))
    }

    fn render_metrics<'py>(&self, py: Python<'py>, service: &str) -> PyResult<Bound<'py, PyBytes>> {
        let page = self.run(py, |broker| broker.render_metrics(service))?;
        Ok(PyBytes::new(py, page.as_bytes()))
    }

    fn partition_numbers(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.run(py, |broker| {
            // A topic's are 0 up to its count, so the longest one has them all.
            let counts = broker.topics()?.iter().map(|topic| topic.partition_count()).max();
            Ok((0..counts.unwrap_or(0)).collect())
        })
    }

    #[pyo3(signature = (flush = true))]
    fn close(&self, py: Python<'_>, flush: bool) -> PyResult<()> {
        self.run(py, |broker| broker.close(flush))
    }
}
