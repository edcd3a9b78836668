//! `Cluster` and `Member`: several brokers as one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tokio::runtime::Runtime;

use super::channel::credentials;
use super::errors::to_py_err;
use crate::cluster::{Cluster, Member, Options};
use crate::error::{Code, Error};
use crate::grpc::server::runtime;

/// How often the brokers' topics are listed anew, by who serves many clients.
const REFRESH: Duration = Duration::from_secs(5);

#[pyclass(name = "Cluster", module = "telemetry_broker._core", frozen)]
pub struct PyCluster(Mutex<Option<(Arc<Cluster>, Runtime)>>);

impl PyCluster {
    pub fn get(&self) -> PyResult<Arc<Cluster>> {
        let open = self.0.lock();
        let cluster = open.as_ref().map(|(cluster, _)| cluster.clone());
        cluster.ok_or_else(|| to_py_err(&Error::new(Code::BrokerClosed, "the cluster was closed; make another one")))
    }
}

#[pymethods]
impl PyCluster {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own in Python")]
    #[pyo3(signature = (
        members, *, virtual_nodes = 150, token = None, token_file = None, tls = false, ca = None, identity = None
    ))]
    fn new(
        py: Python<'_>,
        members: Vec<(String, String)>,
        virtual_nodes: u32,
        token: Option<&str>,
        token_file: Option<PathBuf>,
        tls: bool,
        ca: Option<PyBackedBytes>,
        identity: Option<(PyBackedBytes, PyBackedBytes)>,
    ) -> PyResult<Self> {
        let credentials =
            credentials(token, token_file, tls, ca.as_deref(), identity.as_ref()).map_err(|err| to_py_err(&err))?;
        let options = Options { virtual_nodes, credentials, refresh: REFRESH, follow: false };
        py.detach(|| {
            let runtime = runtime()?;
            let cluster = Cluster::new(&members, options, runtime.handle()).map_err(|err| to_py_err(&err))?;
            Ok(Self(Mutex::new(Some((cluster, runtime)))))
        })
    }

    fn set_members(&self, py: Python<'_>, members: Vec<(String, String)>) -> PyResult<()> {
        let cluster = self.get()?;
        py.detach(|| cluster.set_members(&members)).map_err(|err| to_py_err(&err))
    }

    fn members(&self) -> PyResult<Vec<PyMember>> {
        Ok(self.get()?.members().iter().map(|member| PyMember::of(member)).collect())
    }

    fn placement(&self) -> PyResult<Vec<(String, Vec<String>)>> {
        let placed = self.get()?.placement().into_iter();
        Ok(placed.map(|(topic, names)| (topic, names.iter().map(ToString::to_string).collect())).collect())
    }

    fn take_events(&self) -> PyResult<Vec<(&'static str, String)>> {
        let events = self.get()?.take_events().into_iter();
        Ok(events.map(|event| (if event.is_warning { "warning" } else { "info" }, event.text)).collect())
    }

    fn close(&self, py: Python<'_>) {
        let open = self.0.lock().take();
        py.detach(|| {
            if let Some((cluster, runtime)) = open {
                drop(cluster);
                runtime.shutdown_background();
            }
        });
    }
}

#[pyclass(name = "Member", module = "telemetry_broker._core", frozen, get_all)]
pub struct PyMember {
    name: String,
    address: String,
    state: &'static str,
    draining: bool,
    broker_id: Py<PyBytes>,
    version: String,
    calls_itself: String,
    error: String,
    requests: u64,
    failures: u64,
    health_checks: u64,
    failures_detected: u64,
}

impl PyMember {
    fn of(member: &Member) -> Self {
        let known = member.known();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            name: member.name.to_string(),
            address: member.address.clone(),
            state: member.state().as_str(),
            draining: known.draining,
            broker_id: Python::attach(|py| PyBytes::new(py, &known.broker_id).unbind()),
            version: known.version,
            calls_itself: known.name,
            error: known.error,
            requests: count(&member.counts.requests),
            failures: count(&member.counts.failures),
            health_checks: count(&member.counts.health_checks),
            failures_detected: count(&member.counts.failures_detected),
        }
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyCluster>()?;
    m.add_class::<PyMember>()
}
