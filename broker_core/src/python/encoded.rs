//! `EncodedBatch`: what a producer's buffer gives out, for the wire and for the core of this process.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::bytes::Input;
use super::errors::to_py_err;
use crate::broker::{Broker, Unsettled};
use crate::error::{Code, Error, Result};
use crate::log::frame::FrameBody;
use crate::wire::cursor::put_varint;
use crate::wire::{ProduceHead, Records};

/// What stands around a request on a stream, at most: a tag and a length.
pub(super) const MOST_STREAM_BYTES: usize = 6;

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
    pub(super) count: u32,
    /// The request in front of its records, encoded.
    pub(super) head: Vec<u8>,
    pub(super) body: Mutex<Body>,
}

/// The records of a batch, and with them the rest of it once that is encoded.
pub(super) enum Body {
    /// Until a broker of this process has appended them.
    Records(FrameBody),
    /// Behind the rest of a `ProduceStreamRequest`, in which the request begins so far behind.
    Framed(Bytes, usize),
}

impl PyEncodedBatch {
    /// Produces it.
    fn produce(&self, broker: &Broker) -> Result<(Vec<u8>, Option<Unsettled>)> {
        let head = ProduceHead {
            topic: &self.address.topic,
            partition: Some(self.partition),
            producer: &self.address.producer,
            sequence: self.sequence,
            records: Records::empty(),
            records_at: None,
        };
        match &mut *self.body.lock() {
            Body::Records(body) => broker.call_produce(&head, body, self.count),
            Body::Framed(message, start) => broker.call_unsettled("Produce", &message[*start..]),
        }
    }

    /// As an encoded `ProduceStreamRequest`, which is not copied; it may be sent again.
    pub fn framed(&self) -> PyResult<Bytes> {
        let mut body = self.body.lock();
        if let Body::Records(records) = &mut *body {
            let mut prefix = Vec::with_capacity(MOST_STREAM_BYTES + self.head.len());
            prefix.push(1 << 3 | 2);
            put_varint(&mut prefix, (self.head.len() + records.records().len()) as u64);
            let request_at = prefix.len();
            prefix.extend_from_slice(&self.head);
            let (bytes, start) = std::mem::take(records).into_bytes_behind(&prefix).ok_or_else(gone)?;
            *body = Body::Framed(Bytes::from(bytes).slice(start..), request_at);
        }
        match &*body {
            Body::Framed(message, _) => Ok(message.clone()),
            Body::Records(_) => Err(gone()),
        }
    }
}

fn gone() -> PyErr {
    to_py_err(&Error::new(Code::InvalidArgument, "this batch is gone: it was appended"))
}

#[pymethods]
impl PyEncodedBatch {
    fn __len__(&self) -> usize {
        self.count as usize
    }

    fn in_stream<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.framed()?))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut body = self.body.lock();
        let request = match &mut *body {
            Body::Records(body) => body.behind(&self.head).ok_or_else(gone)?,
            Body::Framed(message, start) => &message[*start..],
        };
        Ok(PyBytes::new(py, request))
    }
}

/// The request of a call.
#[derive(FromPyObject)]
pub enum Request {
    /// A batch of this process.
    Batch(Py<PyEncodedBatch>),
    /// An encoded message.
    Message(Input),
}

impl Request {
    /// As [`Broker::call_unsettled`].
    pub fn call(&self, broker: &Broker, method: &str) -> Result<(Vec<u8>, Option<Unsettled>)> {
        match self {
            Self::Message(request) => broker.call_unsettled(method, request.as_slice()),
            Self::Batch(batch) if method == "Produce" => batch.get().produce(broker),
            Self::Batch(_) => {
                Err(Error::new(Code::InvalidArgument, format!("{method}: an EncodedBatch is a request to Produce")))
            }
        }
    }
}
