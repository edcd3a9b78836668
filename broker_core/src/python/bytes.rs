//! Bytes from Python: borrowed from `bytes` and `bytearray`-likes where that is safe without the GIL, else copied.

use std::ops::Range;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView};

/// The bytes of an argument, usable without the GIL.
pub enum Input {
    /// Of an immutable `bytes`, kept alive.
    Borrowed(PyBackedBytes, Range<usize>),
    /// What another buffer held.
    Copied(Vec<u8>),
}

impl Input {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes, range) => &bytes[range.clone()],
            Self::Copied(bytes) => bytes,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Input {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            let bytes = PyBackedBytes::from(bytes.to_owned());
            let all = 0..bytes.len();
            return Ok(Self::Borrowed(bytes, all));
        }
        let buffer: PyBuffer<u8> = PyBuffer::get(&value)?;
        if let Ok(view) = value.cast::<PyMemoryView>()
            && let Ok(bytes) = view.getattr("obj")?.cast_into::<PyBytes>()
            && let Some(range) = part_of(bytes.as_bytes(), &buffer)
        {
            return Ok(Self::Borrowed(PyBackedBytes::from(bytes), range));
        }
        Ok(Self::Copied(buffer.to_vec(value.py())?))
    }
}

/// Where a view without gaps stands in the bytes that it is of.
fn part_of(bytes: &[u8], view: &PyBuffer<u8>) -> Option<Range<usize>> {
    let start = (view.buf_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    let range = start..start.checked_add(view.len_bytes())?;
    (view.is_c_contiguous() && bytes.get(range.clone()).is_some()).then_some(range)
}

/// Runs `with` on the bytes of an argument, without touching a reference count for `bytes`; attached all the while.
pub fn with_bytes<T>(value: &Bound<'_, PyAny>, with: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(with(bytes.as_bytes()));
    }
    let buffer: PyBuffer<u8> = PyBuffer::get(value)?;
    Ok(with(&buffer.to_vec(value.py())?))
}
