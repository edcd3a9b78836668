//! The one place where a core error becomes an exception.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::Error;

/// Makes the exception that `telemetry_broker.errors` has for the error's code.
pub fn to_py_err(err: &Error) -> PyErr {
    Python::attach(|py| {
        static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = MAKE.get_or_try_init(py, || {
            py.import("telemetry_broker.errors")?.getattr("error_from_code").map(Bound::unbind)
        });
        let retry_after = err.retry_after().map(|ms| f64::from(ms) / 1000.0);
        let made =
            make.and_then(|make| make.call1(py, (err.code().as_str(), err.message(), retry_after, err.wrong_field())));
        made.map_or_else(|import_error| import_error, |made| PyErr::from_value(made.into_bound(py)))
    })
}
