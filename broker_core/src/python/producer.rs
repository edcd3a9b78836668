//! `ProducerBuffer`: records become one batch per partition, encoded as they come. `BufferedSend`: the way of one record
//! into it, without a frame of Python.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prost::Message;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping};

use super::bytes::with_bytes;
use super::encoded::{Address, Body, MOST_STREAM_BYTES, PyEncodedBatch};
use super::errors::to_py_err;
use crate::error::{Code, Error};
use crate::log::frame::FrameBody;
use crate::partitioner::partition_for_key;
use crate::wire::record::{
    MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_RECORD_BYTES, put_record,
};
use crate::wire::v1;

/// What `send` answers when no batch is ready.
const NOT_READY: i64 = -1;
/// What it answers when the buffer was empty before.
const FIRST: i64 = -2;

/// Longest linger and longest wait: more is no different, and no time to come is further away than a clock can tell.
const MAX_LINGER_SECONDS: f64 = 1e9;

/// The next batch of one partition, encoded as it grows.
struct Part {
    body: FrameBody,
    records: u32,
    sequence: u64,
    /// When its first record came; None: there is none, or `due` has given it out.
    since: Option<Instant>,
}

impl Part {
    fn bytes(&self) -> usize {
        self.body.records().len()
    }
}

struct Buffer {
    parts: Vec<Part>,
    records: usize,
    bytes: usize,
    /// Where records without a key go until that batch is taken.
    sticky: usize,
    /// Until when a thread sleeps in `due`, if one does.
    sleeps: Sleep,
    /// `wake` was called, and no thread has seen it yet.
    woken: bool,
}

/// The sleep of the thread that waits for what lingers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    For(Instant),
    Forever,
}

#[pyclass(name = "ProducerBuffer", module = "telemetry_broker._core", frozen)]
pub struct PyProducerBuffer {
    address: Mutex<Arc<Address>>,
    /// What a request has in front of its records, on a stream too, at most.
    most_head_bytes: usize,
    batch_bytes: usize,
    batch_records: u32,
    linger: Duration,
    buffer: Mutex<Buffer>,
    lingers: Condvar,
    halted: AtomicBool,
}

fn invalid(message: String) -> PyErr {
    to_py_err(&Error::new(Code::InvalidArgument, message))
}

impl Buffer {
    fn partition(&self, partition: Option<usize>, key: Option<&[u8]>) -> Result<usize, String> {
        match (partition, key) {
            (Some(partition), _) if partition < self.parts.len() => Ok(partition),
            (Some(partition), _) => {
                Err(format!("partition {partition} does not exist: the topic has 0 to {}", self.parts.len() - 1))
            }
            (None, Some(key)) => {
                Ok(partition_for_key(key, u32::try_from(self.parts.len()).unwrap_or(u32::MAX)) as usize)
            }
            (None, None) => Ok(self.sticky),
        }
    }

    fn add(
        &mut self,
        limits: Limits<'_>,
        value: &[u8],
        key: Option<&[u8]>,
        partition: Option<usize>,
        timestamp_ns: i64,
        headers: &[(&str, &[u8])],
    ) -> Result<i64, String> {
        let number = self.partition(partition, key)?;
        let was_empty = self.records == 0;
        let part = &mut self.parts[number];
        let before = part.bytes();
        if part.records == MAX_BATCH_RECORDS
            || before >= MAX_BATCH_BYTES - 2 * MAX_RECORD_BYTES && before >= limits.bytes
        {
            return Err(format!("the batch of partition {number} is full: take it before more is sent"));
        }
        put_record(part.body.end(), value, key, timestamp_ns, headers).map_err(|size| {
            format!("a record of {size} bytes: a record may have {MAX_RECORD_BYTES}, its key and headers included")
        })?;
        part.records += 1;
        if part.records == 1 {
            let since = Instant::now();
            part.since = Some(since);
            if self.sleeps.is_beyond(since + limits.linger) {
                limits.lingers.notify_one();
            }
        }
        self.records += 1;
        let after = part.bytes();
        self.bytes += after - before;
        if after >= limits.bytes || part.records >= limits.records {
            return Ok(i64::try_from(number).unwrap_or(i64::MAX));
        }
        Ok(if was_empty { FIRST } else { NOT_READY })
    }
}

/// What a record is added under.
#[derive(Clone, Copy)]
struct Limits<'a> {
    bytes: usize,
    records: u32,
    linger: Duration,
    lingers: &'a Condvar,
}

impl Sleep {
    fn is_beyond(self, due: Instant) -> bool {
        match self {
            Self::Awake => false,
            Self::For(until) => due < until,
            Self::Forever => true,
        }
    }
}

impl Buffer {
    /// The partitions whose oldest record has lingered, each given out once.
    fn take_due(&mut self, now: Instant, linger: Duration) -> Vec<usize> {
        let mut due = Vec::new();
        for (number, part) in self.parts.iter_mut().enumerate() {
            if part.since.is_some_and(|since| since + linger <= now) {
                part.since = None;
                due.push(number);
            }
        }
        due
    }
}

impl PyProducerBuffer {
    fn limits(&self) -> Limits<'_> {
        Limits { bytes: self.batch_bytes, records: self.batch_records, linger: self.linger, lingers: &self.lingers }
    }

    /// Adds values from `start` on while they are `bytes`, until a batch is ready. Returns the last one's index, and what
    /// adding it came to; -2 where that is so of any of them.
    fn add_run(&self, values: &Bound<'_, PyList>, start: usize) -> PyResult<(usize, Result<i64, String>)> {
        let limits = self.limits();
        let mut buffer = self.buffer.lock();
        let (mut at, mut answer) = (start, NOT_READY);
        loop {
            let value = values.get_item(at)?;
            let Ok(bytes) = value.cast::<PyBytes>() else { return Ok((at - 1, Ok(answer))) };
            match buffer.add(limits, bytes.as_bytes(), None, None, 0, &[]) {
                Ok(NOT_READY) => {}
                Ok(FIRST) => answer = FIRST,
                ready => return Ok((at, ready)),
            }
            if at + 1 == values.len() {
                return Ok((at, Ok(answer)));
            }
            at += 1;
        }
    }
}

/// What a request has in front of its records.
fn head(address: &Address, partition: u32, sequence: u64) -> Vec<u8> {
    let head = v1::ProduceRequest {
        topic: address.topic.clone(),
        partition: Some(partition),
        producer: address.producer.clone(),
        sequence,
        ..Default::default()
    };
    head.encode_to_vec()
}

fn check_headers(headers: &[(String, Vec<u8>)]) -> PyResult<()> {
    if headers.len() > MAX_HEADERS {
        return Err(invalid(format!("{} headers: a record may have {MAX_HEADERS}", headers.len())));
    }
    match headers.iter().find(|(name, _)| !(1..=MAX_HEADER_NAME_BYTES).contains(&name.len())) {
        Some((name, _)) => Err(invalid(format!(
            "header name {name:?} has {} bytes, it must have 1 to {MAX_HEADER_NAME_BYTES}",
            name.len()
        ))),
        None => Ok(()),
    }
}

#[pymethods]
impl PyProducerBuffer {
    #[new]
    fn new(
        topic: String,
        producer: String,
        sequences: Vec<u64>,
        batch_bytes: usize,
        batch_records: u32,
        linger: f64,
    ) -> PyResult<Self> {
        if sequences.is_empty() {
            return Err(invalid("a producer needs at least one partition, sequences is empty".to_owned()));
        }
        if !(1..=MAX_BATCH_BYTES).contains(&batch_bytes) {
            return Err(invalid(format!("batch_bytes is {batch_bytes}, it must be 1 to {MAX_BATCH_BYTES}")));
        }
        if !(1..=MAX_BATCH_RECORDS).contains(&batch_records) {
            return Err(invalid(format!("batch_records is {batch_records}, it must be 1 to {MAX_BATCH_RECORDS}")));
        }
        // A linger without an end is one that never ends while somebody watches.
        let linger = Duration::try_from_secs_f64(linger.clamp(0.0, MAX_LINGER_SECONDS))
            .map_err(|err| invalid(format!("linger is {linger}: {err}")))?;
        let address = Arc::new(Address { topic, producer });
        let most_head_bytes = head(&address, u32::MAX, u64::MAX).len() + MOST_STREAM_BYTES;
        let new_part =
            |sequence| Part { body: FrameBody::with_room(most_head_bytes, 0), records: 0, sequence, since: None };
        let parts = sequences.into_iter().map(new_part).collect();
        let buffer = Mutex::new(Buffer { parts, records: 0, bytes: 0, sticky: 0, sleeps: Sleep::Awake, woken: false });
        Ok(Self {
            address: Mutex::new(address),
            most_head_bytes,
            // A batch is ready before the record that could pass the bound of a request.
            batch_bytes: batch_bytes.min(MAX_BATCH_BYTES - MAX_RECORD_BYTES - 16),
            batch_records,
            linger,
            buffer,
            lingers: Condvar::new(),
            halted: AtomicBool::new(false),
        })
    }

    fn rename(&self, producer: String) -> PyResult<()> {
        let mut address = self.address.lock();
        if producer.len() != address.producer.len() {
            let (new, old) = (producer.len(), address.producer.len());
            return Err(invalid(format!("the new name has {new} bytes, it must have {old} as the one before")));
        }
        *address = Arc::new(Address { topic: address.topic.clone(), producer });
        Ok(())
    }

    #[pyo3(signature = (value, key = None, partition = None, timestamp_ns = 0, headers = None))]
    fn send(
        &self,
        value: &Bound<'_, PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        partition: Option<usize>,
        timestamp_ns: i64,
        headers: Option<&Bound<'_, PyMapping>>,
    ) -> PyResult<i64> {
        let limits = self.limits();
        let mut owned = Vec::new();
        if let Some(headers) = headers {
            for header in headers.items()? {
                let (name, value): (String, Bound<'_, PyAny>) = header.extract()?;
                owned.push((name, with_bytes(&value, <[u8]>::to_vec)?));
            }
            check_headers(&owned)?;
        }
        let headers: Vec<(&str, &[u8])> = owned.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let add = |value: &[u8], key: Option<&[u8]>| {
            self.buffer.lock().add(limits, value, key, partition, timestamp_ns, &headers)
        };
        let added = match key {
            None => with_bytes(value, |value| add(value, None))?,
            Some(key) => with_bytes(value, |value| with_bytes(key, |key| add(value, Some(key))))??,
        };
        added.map_err(invalid)
    }

    #[pyo3(signature = (values, keys = None, start = 0))]
    fn send_many(
        &self,
        values: &Bound<'_, PyAny>,
        keys: Option<&Bound<'_, PyAny>>,
        start: usize,
    ) -> PyResult<(usize, i64)> {
        let py = values.py();
        let values = as_list(values)?;
        let keys = keys.map(as_list).transpose()?;
        if let Some(keys) = keys.as_ref().filter(|keys| keys.len() != values.len()) {
            return Err(invalid(format!("{} values but {} keys", values.len(), keys.len())));
        }
        let limits = self.limits();
        let (mut answer, mut index) = (NOT_READY, start);
        while index < values.len() {
            let value = values.get_item(index)?;
            let key = keys.as_ref().map(|keys| keys.get_item(index)).transpose()?.filter(|key| !key.is_none());
            let added = match (value.cast::<PyBytes>(), key) {
                // No other code runs between two of these, so that they need one lock.
                (Ok(_), None) if keys.is_none() => {
                    let (next, added) = self.add_run(&values, index)?;
                    index = next;
                    added
                }
                (_, None) => with_bytes(&value, |value| self.buffer.lock().add(limits, value, None, None, 0, &[]))?,
                (_, Some(key)) => with_bytes(&value, |value| {
                    with_bytes(&key, |key| self.buffer.lock().add(limits, value, Some(key), None, 0, &[]))
                })??,
            };
            let ready = added.map_err(invalid)?;
            index += 1;
            if ready >= 0 {
                return Ok((index, ready));
            }
            if ready == FIRST {
                answer = FIRST;
            }
        }
        py.check_signals()?;
        Ok((values.len(), answer))
    }

    fn take(&self, partition: usize) -> PyResult<Option<PyEncodedBatch>> {
        let mut buffer = self.buffer.lock();
        let parts = buffer.parts.len();
        let Some(part) = buffer.parts.get_mut(partition) else {
            return Err(invalid(format!("partition {partition} does not exist: the topic has 0 to {}", parts - 1)));
        };
        if part.records == 0 {
            return Ok(None);
        }
        part.sequence += 1;
        let (records, bytes) = (part.records, part.bytes());
        // The next batch is about as large.
        let next = FrameBody::with_room(self.most_head_bytes, bytes + bytes / 16);
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let address = self.address.lock().clone();
        let batch = PyEncodedBatch {
            partition: number,
            sequence: part.sequence,
            count: records,
            head: head(&address, number, part.sequence),
            address,
            body: Mutex::new(Body::Records(std::mem::replace(&mut part.body, next))),
        };
        (part.records, part.since) = (0, None);
        buffer.records -= records as usize;
        buffer.bytes -= bytes;
        if buffer.sticky == partition {
            buffer.sticky = (partition + 1) % parts;
        }
        Ok(Some(batch))
    }

    #[pyo3(signature = (timeout = None))]
    fn due(&self, py: Python<'_>, timeout: Option<f64>) -> Vec<usize> {
        let timeout = timeout.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, MAX_LINGER_SECONDS)));
        py.detach(|| {
            let until = timeout.map(|timeout| Instant::now() + timeout);
            let mut buffer = self.buffer.lock();
            loop {
                let now = Instant::now();
                let due = buffer.take_due(now, self.linger);
                if std::mem::take(&mut buffer.woken) || !due.is_empty() || until.is_some_and(|until| until <= now) {
                    return due;
                }
                let next = buffer.parts.iter().filter_map(|part| part.since).min().map(|since| since + self.linger);
                if let Some(end) = [next, until].into_iter().flatten().min() {
                    buffer.sleeps = Sleep::For(end);
                    self.lingers.wait_until(&mut buffer, end);
                } else {
                    buffer.sleeps = Sleep::Forever;
                    self.lingers.wait(&mut buffer);
                }
                buffer.sleeps = Sleep::Awake;
            }
        })
    }

    fn wake(&self) {
        self.buffer.lock().woken = true;
        self.lingers.notify_one();
    }

    fn waiting(&self) -> Vec<usize> {
        let buffer = self.buffer.lock();
        buffer.parts.iter().enumerate().filter(|(_, part)| part.records > 0).map(|(number, _)| number).collect()
    }

    fn __len__(&self) -> usize {
        self.buffer.lock().records
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.buffer.lock().bytes
    }

    #[getter]
    fn halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    #[setter]
    fn set_halted(&self, halted: bool) {
        self.halted.store(halted, Ordering::Release);
    }
}

#[pyclass(name = "BufferedSend", module = "telemetry_broker._core", frozen)]
pub struct PyBufferedSend {
    buffer: Py<PyProducerBuffer>,
    make_way: Py<PyAny>,
    added: Py<PyAny>,
    bad_numbers: Py<PyAny>,
    eager: bool,
}

#[pymethods]
impl PyBufferedSend {
    #[new]
    fn new(
        buffer: Py<PyProducerBuffer>,
        make_way: Py<PyAny>,
        added: Py<PyAny>,
        bad_numbers: Py<PyAny>,
        eager: bool,
    ) -> Self {
        Self { buffer, make_way, added, bad_numbers, eager }
    }

    #[pyo3(signature = (value, key = None, *, partition = None, timestamp_ns = None, headers = None))]
    fn send(
        &self,
        value: &Bound<'_, PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        partition: Option<&Bound<'_, PyAny>>,
        timestamp_ns: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyMapping>>,
    ) -> PyResult<()> {
        let (py, buffer) = (value.py(), self.buffer.get());
        if buffer.halted() {
            self.make_way.call0(py)?;
        }
        let numbers = || {
            Ok((partition.map(PyAnyMethods::extract).transpose()?, timestamp_ns.map_or(Ok(0), PyAnyMethods::extract)?))
        };
        let (partition, timestamp_ns) = match numbers() {
            Err(err) if PyErr::is_instance_of::<PyOverflowError>(&err, py) => {
                let error = self.bad_numbers.call1(py, (partition, timestamp_ns))?;
                let error = PyErr::from_value(error.into_bound(py));
                error.set_cause(py, Some(err));
                return Err(error);
            }
            numbers => numbers?,
        };
        let answer = buffer.send(value, key, partition, timestamp_ns, headers)?;
        if answer != NOT_READY || self.eager {
            self.added.call1(py, (answer,))?;
        }
        Ok(())
    }
}

/// A list as it is, or another sequence as one.
fn as_list<'py>(sequence: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    match sequence.cast::<PyList>() {
        Ok(list) => Ok(list.clone()),
        Err(_) => PyList::new(sequence.py(), sequence.try_iter()?.collect::<PyResult<Vec<_>>>()?),
    }
}
