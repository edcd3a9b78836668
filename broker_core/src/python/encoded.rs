//! `EncodedBatch`: what a producer's buffer gives out, ready for the wire and for the core of this process.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wire::{ProduceHead, Records};

/// What all batches of a producer say.
pub struct Address {
    /// Where they go.
    pub topic: String,
    /// Its name.
    pub producer: String,
}

/// One Produce request. Only `ProducerBuffer` makes them, and it has checked each record: nothing is checked twice.
#[pyclass(name = "EncodedBatch", module = "telemetry_broker._core", frozen)]
pub struct PyEncodedBatch {
    pub(super) address: Arc<Address>,
    pub(super) partition: u32,
    pub(super) sequence: u64,
    /// Where in the request its records begin.
    pub(super) head_bytes: usize,
    pub(super) count: u32,
    pub(super) request: Vec<u8>,
}

impl PyEncodedBatch {
    /// The encoded request.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Its fields.
    pub fn head(&self) -> ProduceHead<'_> {
        ProduceHead {
            topic: &self.address.topic,
            partition: Some(self.partition),
            producer: &self.address.producer,
            sequence: self.sequence,
            records: Records::checked(&self.request[self.head_bytes..], self.count),
        }
    }
}

#[pymethods]
impl PyEncodedBatch {
    fn __len__(&self) -> usize {
        self.count as usize
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.request)
    }
}
