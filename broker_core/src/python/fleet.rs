//! Bindings of the simulated fleet. Documented in `_core.pyi`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::errors::to_py_err;
use crate::telemetry::fleet::{CSV_HEADER, FIELDS, Fleet, FleetBlock, FleetOptions};

/// Adds the classes and constants of this file to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySimulatedFleet>()?;
    module.add_class::<PyFleetBlock>()?;
    module.add("CSV_HEADER", PyBytes::new(module.py(), CSV_HEADER.as_bytes()))?;
    module.add("FLEET_METRICS", PyTuple::new(module.py(), FIELDS.iter().map(|field| field.name))?)
}

#[pyclass(name = "SimulatedFleet", module = "telemetry_broker._core")]
struct PySimulatedFleet {
    fleet: Fleet,
}

#[pymethods]
impl PySimulatedFleet {
    #[new]
    #[pyo3(signature = (*, hosts, gpus, metrics, start_ns, interval_ns, scrapes = None, seed = 0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        hosts: u32,
        gpus: u32,
        metrics: u32,
        start_ns: i64,
        interval_ns: i64,
        scrapes: Option<u64>,
        seed: u64,
    ) -> PyResult<Self> {
        let options = FleetOptions { hosts, gpus, metrics, start_ns, interval_ns, scrapes, seed };
        let fleet = py.detach(|| Fleet::new(options)).map_err(|err| to_py_err(&err))?;
        Ok(Self { fleet })
    }

    #[getter]
    fn time_ns(&self) -> i64 {
        self.fleet.time_ns()
    }

    fn next_records(&mut self, py: Python<'_>, partitions: u32, max_points: usize) -> PyResult<Option<PyFleetBlock>> {
        let fleet = &mut self.fleet;
        let block = py.detach(|| fleet.next_records(partitions, max_points)).map_err(|err| to_py_err(&err))?;
        Ok(block.map(|block| PyFleetBlock::new(py, &block, block.data.iter().map(|batch| batch.records.as_slice()))))
    }

    fn next_rows(&mut self, py: Python<'_>, max_points: usize) -> PyResult<Option<PyFleetBlock>> {
        let fleet = &mut self.fleet;
        let block = py.detach(|| fleet.next_rows(max_points)).map_err(|err| to_py_err(&err))?;
        Ok(block.map(|block| PyFleetBlock::new(py, &block, std::iter::once(block.data.as_slice()))))
    }
}

#[pyclass(frozen, get_all, name = "FleetBlock", module = "telemetry_broker._core")]
struct PyFleetBlock {
    time_ns: i64,
    points: u64,
    samples: u64,
    data: Vec<Py<PyBytes>>,
}

impl PyFleetBlock {
    fn new<'a, T>(py: Python<'_>, block: &'a FleetBlock<T>, data: impl Iterator<Item = &'a [u8]>) -> Self {
        Self {
            time_ns: block.time_ns,
            points: block.points,
            samples: block.samples,
            data: data.map(|bytes| PyBytes::new(py, bytes).unbind()).collect(),
        }
    }
}
