//! Bytes from Python: borrowed from `bytes` and `bytearray`-likes where that is safe without the GIL, else copied.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// The bytes of an argument, usable without the GIL.
pub enum Input {
    /// An immutable `bytes`, kept alive.
    Borrowed(PyBackedBytes),
    /// What another buffer held.
    Copied(Vec<u8>),
}

impl Input {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Input {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Borrowed(PyBackedBytes::from(bytes.to_owned())));
        }
        let buffer: PyBuffer<u8> = PyBuffer::get(&value)?;
        Ok(Self::Copied(buffer.to_vec(value.py())?))
    }
}

/// Runs `with` on the bytes of an argument, without touching a reference count for `bytes`; attached all the while.
pub fn with_bytes<T>(value: &Bound<'_, PyAny>, with: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(with(bytes.as_bytes()));
    }
    let buffer: PyBuffer<u8> = PyBuffer::get(value)?;
    Ok(with(&buffer.to_vec(value.py())?))
}
