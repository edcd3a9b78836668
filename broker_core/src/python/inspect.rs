//! `log_verify`, `log_repair` and `LogDump`: looking after a folder that no broker has open.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::to_py_err;
use crate::error::{Code, Error, Result};
use crate::inspect::{self, Dump, Dumped, Finding, Kind, Progress, Scope};
use crate::log::frame::Header;
use crate::wire::{RecordView, record_entries};

/// Bytes of records in one batch of a dump, about.
const BATCH_BYTES: usize = 1 << 20;
/// Frames in one batch of a dump, at most.
const BATCH_FRAMES: usize = 1000;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[pyclass(name = "LogFinding", module = "telemetry_broker._core", frozen, get_all)]
pub struct PyFinding {
    path: String,
    topic: Option<String>,
    partition: Option<u32>,
    kind: &'static str,
    position: u64,
    damaged_bytes: u64,
    lost: Option<(u64, u64)>,
    what: String,
    remedy: String,
    mended: bool,
}

impl From<Finding> for PyFinding {
    fn from(finding: Finding) -> Self {
        Self {
            path: text(&finding.path),
            topic: finding.topic,
            partition: finding.partition,
            kind: finding.kind.as_str(),
            position: finding.position,
            damaged_bytes: finding.bytes,
            lost: finding.lost.map(|lost| (lost.start, lost.end)),
            what: finding.what,
            remedy: finding.remedy,
            mended: finding.mended,
        }
    }
}

type Work = fn(&Path, &Scope, &mut Progress<'_>) -> Result<Vec<Finding>>;

fn run(
    py: Python<'_>,
    work: Work,
    path: PathBuf,
    topic: Option<String>,
    partition: Option<u32>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PyFinding>> {
    let scope = Scope { topic, partition };
    let mut raised = None;
    let outcome = py.detach(|| {
        let mut tell = |done, total| {
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (done, total)).map(drop))
            });
            told.map_err(|err| {
                raised = Some(err);
                Error::new(Code::Internal, "the progress callback raised")
            })
        };
        work(&path, &scope, &mut tell)
    });
    match (outcome, raised) {
        (_, Some(raised)) => Err(raised),
        (Ok(findings), None) => Ok(findings.into_iter().map(PyFinding::from).collect()),
        (Err(err), None) => Err(to_py_err(&err)),
    }
}

#[pyfunction]
#[pyo3(signature = (path, *, topic = None, partition = None, progress = None))]
fn log_verify(
    py: Python<'_>,
    path: PathBuf,
    topic: Option<String>,
    partition: Option<u32>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PyFinding>> {
    run(py, inspect::verify, path, topic, partition, progress)
}

#[pyfunction]
#[pyo3(signature = (path, *, topic = None, partition = None, progress = None))]
fn log_repair(
    py: Python<'_>,
    path: PathBuf,
    topic: Option<String>,
    partition: Option<u32>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PyFinding>> {
    run(py, inspect::repair, path, topic, partition, progress)
}

/// Offset, the producer's time, key, value, bytes of the value.
type Record<'py> = (u64, i64, Option<Bound<'py, PyBytes>>, Option<Bound<'py, PyBytes>>, usize);

#[pyclass(name = "LogFrame", module = "telemetry_broker._core", frozen)]
pub struct PyFrame {
    segment: String,
    #[pyo3(get)]
    position: u64,
    header: Header,
    entries: Vec<u8>,
}

#[pymethods]
impl PyFrame {
    #[getter]
    fn segment(&self) -> &str {
        &self.segment
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.header.frame_bytes()
    }

    #[getter]
    fn base_offset(&self) -> u64 {
        self.header.base_offset
    }

    #[getter]
    fn count(&self) -> u32 {
        self.header.count
    }

    #[getter]
    fn skipped(&self) -> u64 {
        self.header.skipped
    }

    #[getter]
    fn append_ns(&self) -> i64 {
        self.header.append_ns
    }

    #[getter]
    fn producer_id(&self) -> u64 {
        self.header.producer_id
    }

    #[getter]
    fn sequence(&self) -> u64 {
        self.header.sequence
    }

    #[getter]
    fn synced_end(&self) -> u64 {
        self.header.synced_end
    }

    #[pyo3(signature = (values = false))]
    fn records<'py>(&self, py: Python<'py>, values: bool) -> Vec<Record<'py>> {
        let records = (self.header.base_offset..).zip(record_entries(&self.entries));
        let shown = records.map(|(offset, entry)| {
            let view = RecordView::of(entry.record);
            let key = view.key.map(|key| PyBytes::new(py, key));
            let value = values.then(|| PyBytes::new(py, view.value));
            (offset, view.timestamp_ns, key, value, view.value.len())
        });
        shown.collect()
    }
}

#[derive(IntoPyObject)]
enum Shown {
    Frame(PyFrame),
    Damage(PyFinding),
}

#[pyclass(name = "LogDump", module = "telemetry_broker._core", frozen)]
pub struct PyDump {
    topic: String,
    partition: u32,
    dump: Mutex<Option<Dump>>,
}

impl PyDump {
    fn batch(&self) -> Result<Vec<Shown>> {
        let mut guard = self.dump.lock();
        let Some(dump) = guard.as_mut() else { return Ok(Vec::new()) };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_FRAMES {
            match dump.next_dumped()? {
                Some(Dumped::Frame { segment, position, header, records }) => {
                    bytes += records.len();
                    batch.push(Shown::Frame(PyFrame { segment: text(&segment), position, header, entries: records }));
                }
                Some(Dumped::Hole { segment, hole }) => {
                    let lost = Some((hole.lost.start, hole.lost.end)).filter(|(start, end)| start < end);
                    batch.push(Shown::Damage(PyFinding {
                        path: text(&segment),
                        topic: Some(self.topic.clone()),
                        partition: Some(self.partition),
                        kind: Kind::DamagedFrames.as_str(),
                        position: hole.bytes.start,
                        damaged_bytes: hole.bytes.end - hole.bytes.start,
                        lost,
                        what: "no whole frame stands here".to_owned(),
                        remedy: "verify says what it is, and what to do".to_owned(),
                        mended: false,
                    }));
                }
                None => {
                    // Lets go of the folder.
                    *guard = None;
                    break;
                }
            }
        }
        Ok(batch)
    }
}

#[pymethods]
impl PyDump {
    #[new]
    #[pyo3(signature = (path, topic, partition, *, start = 0, end = None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        topic: String,
        partition: u32,
        start: u64,
        end: Option<u64>,
    ) -> PyResult<Self> {
        let open = || Dump::open(&path, &topic, partition, start..end.unwrap_or(u64::MAX));
        let dump = py.detach(open).map_err(|err| to_py_err(&err))?;
        Ok(Self { topic, partition, dump: Mutex::new(Some(dump)) })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Vec<Shown>>> {
        let batch = py.detach(|| self.batch()).map_err(|err| to_py_err(&err))?;
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.dump.lock().take()));
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(log_verify, m)?)?;
    m.add_function(wrap_pyfunction!(log_repair, m)?)?;
    m.add_class::<PyFinding>()?;
    m.add_class::<PyFrame>()?;
    m.add_class::<PyDump>()
}
