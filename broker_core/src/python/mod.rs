//! `telemetry_broker._core`: the bindings. They convert, let go of the GIL, and do nothing else.
//!
//! Everything is documented in `_core.pyi`. No lock of the core is ever taken while attached to the interpreter,
//! but those of `channel`, which says why.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod access;
mod broker;
mod bytes;
mod channel;
mod cluster;
mod delivery;
mod encoded;
mod errors;
mod fleet;
mod inspect;
mod newest;
mod producer;
mod ring;
mod server;
mod telemetry;

use std::collections::BTreeMap;

use pyo3::prelude::*;

use crate::error::Code;
use crate::grpc::status::status_code;
use crate::partitioner;

use self::bytes::Input;

#[pyfunction]
fn error_codes() -> BTreeMap<&'static str, i32> {
    Code::ALL.iter().map(|code| (code.as_str(), status_code(*code) as i32)).collect()
}

#[pyfunction]
fn partition_for_key(key: Input, partitions: u32) -> PyResult<u32> {
    if partitions == 0 {
        let err = crate::error::Error::new(Code::InvalidArgument, "partitions is 0, it must be at least 1");
        return Err(errors::to_py_err(&err));
    }
    Ok(partitioner::partition_for_key(key.as_slice(), partitions))
}

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_function(wrap_pyfunction!(error_codes, m)?)?;
    m.add_function(wrap_pyfunction!(partition_for_key, m)?)?;
    m.add_function(wrap_pyfunction!(access::access_rules, m)?)?;
    m.add_class::<access::PyAccess>()?;
    m.add_class::<access::PyCaller>()?;
    m.add_class::<broker::PyManualClock>()?;
    m.add_class::<broker::PySubscription>()?;
    m.add_class::<broker::PyUnsettled>()?;
    m.add_class::<broker::PyBroker>()?;
    m.add_class::<server::PyGrpcServer>()?;
    m.add_class::<newest::PyNewestValues>()?;
    m.add_class::<producer::PyProducerBuffer>()?;
    m.add_class::<producer::PyBufferedSend>()?;
    m.add_class::<encoded::PyEncodedBatch>()?;
    m.add_class::<delivery::PyDelivery>()?;
    channel::register(m)?;
    cluster::register(m)?;
    fleet::register(m)?;
    inspect::register(m)?;
    ring::register(m)?;
    telemetry::register(m)
}
