//! `GrpcServer`.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use super::access::PyAccess;
use super::broker::PyBroker;
use super::cluster::PyCluster;
use super::errors::to_py_err;
use crate::error::{Code, Error};
use crate::grpc::server::{Backend, Options, Server};

#[pyclass(name = "GrpcServer", module = "telemetry_broker._core", frozen)]
pub struct PyGrpcServer(Server);

/// Whose calls it serves.
#[derive(FromPyObject)]
enum Backing<'py> {
    Broker(Bound<'py, PyBroker>),
    Cluster(Bound<'py, PyCluster>),
}

#[pymethods]
impl PyGrpcServer {
    #[new]
    #[pyo3(signature = (broker, *, forward_to = None, access = None, max_connections = 10_000))]
    fn new(
        py: Python<'_>,
        broker: Option<Backing<'_>>,
        forward_to: Option<PathBuf>,
        access: Option<&PyAccess>,
        max_connections: usize,
    ) -> PyResult<Self> {
        let backend = match broker {
            None => Backend::Nobody,
            Some(Backing::Broker(broker)) => {
                Backend::Broker(broker.get().mine().cloned().map_err(|err| to_py_err(&err))?)
            }
            Some(Backing::Cluster(cluster)) => Backend::Cluster(cluster.get().get()?),
        };
        let options = Options { forward_to, access: access.map(|access| access.0.clone()), max_connections };
        Ok(Self(py.detach(|| Server::new(backend, options))?))
    }

    #[pyo3(signature = (chain, key, client_ca = None))]
    fn set_tls(&self, chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> PyResult<()> {
        self.0.set_tls(chain, key, client_ca).map_err(|err| to_py_err(&err))
    }

    fn listen(&self, py: Python<'_>, host: &str, port: u16) -> PyResult<u16> {
        Ok(py.detach(|| self.0.listen(host, port))?.port())
    }

    fn listen_unix(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        Ok(py.detach(|| self.0.listen_unix(&path))?)
    }

    fn start(&self, py: Python<'_>) {
        py.detach(|| self.0.start());
    }

    fn stop(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        let grace = Duration::try_from_secs_f64(grace).map_err(|err| {
            to_py_err(&Error::new(Code::InvalidArgument, format!("grace is {grace} seconds: {err}; give 0 or more")))
        })?;
        py.detach(|| self.0.stop(grace));
        Ok(())
    }

    #[getter]
    fn active(&self) -> usize {
        self.0.active()
    }

    #[getter]
    fn connections(&self) -> (usize, u64) {
        self.0.connections()
    }
}
