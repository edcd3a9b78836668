//! `GrpcServer`.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use super::broker::PyBroker;
use super::errors::to_py_err;
use crate::error::{Code, Error};
use crate::grpc::server::Server;

#[pyclass(name = "GrpcServer", module = "telemetry_broker._core", frozen)]
pub struct PyGrpcServer(Server);

#[pymethods]
impl PyGrpcServer {
    #[new]
    #[pyo3(signature = (broker, *, forward_to = None))]
    fn new(py: Python<'_>, broker: &PyBroker, forward_to: Option<PathBuf>) -> PyResult<Self> {
        let broker = broker.mine().map_err(|err| to_py_err(&err))?.clone();
        Ok(Self(py.detach(|| Server::new(broker, forward_to))?))
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
    fn connections(&self) -> usize {
        self.0.connections()
    }
}
