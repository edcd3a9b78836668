//! `HashRing` for Python. Documented in `_core.pyi`.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyMemoryView, PyString};

use super::errors::to_py_err;
use crate::error::{Code, Error};
use crate::ring::{DEFAULT_VIRTUAL_NODES, HashRing, RingError};

// The signature below names the number itself, as `_core.pyi` does: Python sees a constant's name as `...`.
const _: () = assert!(DEFAULT_VIRTUAL_NODES == 150);

/// Adds the class to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyHashRing>()
}

/// Documented in `_core.pyi`.
///
/// The lock is held for a lookup or for the swap of a rebuilt ring: never over work, and never while Python code runs.
#[pyclass(name = "HashRing", module = "telemetry_broker", frozen)]
struct PyHashRing {
    members: RwLock<Members>,
}

struct Members {
    ring: Arc<HashRing>,
    /// The nodes' names in the ring's order, made once so that a lookup only counts a reference.
    names: Vec<Py<PyString>>,
}

impl Members {
    fn of(py: Python<'_>, ring: HashRing) -> Self {
        let names = ring.nodes().iter().map(|node| PyString::new(py, node.name()).unbind()).collect();
        Self { ring: Arc::new(ring), names }
    }

    fn name<'py>(&self, py: Python<'py>, index: u32) -> Bound<'py, PyString> {
        self.names[index as usize].bind(py).clone()
    }
}

impl PyHashRing {
    fn read(&self) -> RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> Arc<HashRing> {
        Arc::clone(&self.read().ring)
    }

    /// Rebuilds the ring aside and swaps it in; of two changes at once, the later is made on top of the earlier.
    fn change(&self, py: Python<'_>, change: impl Fn(&mut HashRing) -> Result<(), RingError>) -> PyResult<()> {
        loop {
            let before = self.ring();
            let mut ring = HashRing::clone(&before);
            change(&mut ring).map_err(|err| invalid(&err))?;
            let after = Members::of(py, ring);
            let mut members = self.write();
            if Arc::ptr_eq(&members.ring, &before) {
                let replaced = std::mem::replace(&mut *members, after);
                drop(members);
                drop(replaced);
                return Ok(());
            }
        }
    }
}

#[pymethods]
impl PyHashRing {
    #[new]
    #[pyo3(signature = (nodes = None, *, virtual_nodes = 150))]
    fn new(py: Python<'_>, nodes: Option<&Bound<'_, PyAny>>, virtual_nodes: i64) -> PyResult<Self> {
        let members = nodes.map(members_of).transpose()?.unwrap_or_default();
        let virtual_nodes = count("virtual_nodes", virtual_nodes)?;
        let ring = HashRing::with_nodes(virtual_nodes, members).map_err(|err| invalid(&err))?;
        Ok(Self { members: RwLock::new(Members::of(py, ring)) })
    }

    #[pyo3(signature = (node, weight = 1.0))]
    fn add_node(&self, py: Python<'_>, node: &str, weight: f64) -> PyResult<()> {
        self.change(py, |ring| ring.add_node(node, weight))
    }

    fn remove_node(&self, py: Python<'_>, node: &str) -> PyResult<()> {
        self.change(py, |ring| ring.remove_node(node))
    }

    fn set_healthy(&self, py: Python<'_>, node: &str, healthy: bool) -> PyResult<()> {
        self.change(py, |ring| ring.set_healthy(node, healthy))
    }

    #[getter]
    fn unhealthy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ring = self.ring();
        let unhealthy = ring.nodes().iter().filter(|node| !node.healthy());
        PyList::new(py, unhealthy.map(crate::ring::RingNode::name))
    }

    #[getter]
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.ring().nodes().iter().map(crate::ring::RingNode::name))
    }

    #[getter]
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let weights = PyDict::new(py);
        for node in self.ring().nodes() {
            weights.set_item(node.name(), node.weight())?;
        }
        Ok(weights)
    }

    #[getter]
    fn virtual_nodes(&self) -> u32 {
        self.read().ring.virtual_nodes()
    }

    fn node_for<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        let key = key_bytes(key)?;
        let members = self.read();
        let node = members.ring.index_for(&key).map(|index| members.name(py, index));
        drop(members);
        node.map_err(|err| invalid(&err))
    }

    fn nodes_for<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>, n: i64) -> PyResult<Vec<Bound<'py, PyString>>> {
        let n = count("n", n)?;
        let key = key_bytes(key)?;
        let members = self.read();
        let preference = members.ring.preference_for(&key, n as usize);
        let nodes = preference.map(|indexes| indexes.into_iter().map(|index| members.name(py, index)).collect());
        drop(members);
        nodes.map_err(|err| invalid(&err))
    }

    fn node_for_each<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        refuse_single_key(keys)?;
        let ring = self.ring();
        let mut indexes = Vec::with_capacity(keys.len().unwrap_or(0));
        for key in keys.try_iter()? {
            indexes.push(ring.index_for(&key_bytes(&key?)?).map_err(|err| invalid(&err))?);
        }
        names_of(py, &ring, &indexes)
    }

    #[pyo3(signature = (keys, offsets = None))]
    fn indexes_for<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        offsets: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ring = self.ring();
        let width = PyUntypedBuffer::get(keys)?.item_size();
        let data = contiguous_bytes(keys)?;
        let indexes = match offsets {
            Some(offsets) => {
                let bounds = checked_offsets(offsets, data.len())?;
                py.detach(|| ring.indexes_for(bounds.windows(2).map(|pair| &data[pair[0]..pair[1]])))
            }
            None => py.detach(|| ring.indexes_for(data.chunks_exact(width.max(1)))),
        };
        let indexes = indexes.map_err(|err| invalid(&err))?;
        let bytes = PyBytes::new_with(py, indexes.len() * size_of::<u32>(), |out| {
            for (place, index) in out.chunks_exact_mut(size_of::<u32>()).zip(&indexes) {
                place.copy_from_slice(&index.to_ne_bytes());
            }
            Ok(())
        })?;
        PyMemoryView::from(bytes.as_any())?.call_method1("cast", ("I",))
    }

    fn place<'py>(&self, py: Python<'py>, topic: &str, partitions: i64) -> PyResult<Bound<'py, PyList>> {
        let partitions = count("partitions", partitions)?;
        let ring = self.ring();
        let placed = py.detach(|| ring.place(topic, partitions)).map_err(|err| invalid(&err))?;
        names_of(py, &ring, &placed)
    }

    fn __len__(&self) -> usize {
        self.read().names.len()
    }

    fn __contains__(&self, node: &str) -> bool {
        self.read().ring.nodes().iter().any(|member| member.name() == node)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("HashRing({}, virtual_nodes={})", self.weights(py)?.repr()?, self.virtual_nodes()))
    }
}

/// Names for indexes; those of one node are one object.
fn names_of<'py>(py: Python<'py>, ring: &HashRing, indexes: &[u32]) -> PyResult<Bound<'py, PyList>> {
    let names: Vec<_> = ring.nodes().iter().map(|node| PyString::new(py, node.name())).collect();
    PyList::new(py, indexes.iter().map(|&index| &names[index as usize]))
}

fn invalid(err: &dyn std::fmt::Display) -> PyErr {
    to_py_err(&Error::new(Code::InvalidArgument, err.to_string()))
}

/// A count that Rust holds unsigned; what is within that range is judged by the ring.
fn count(name: &str, value: i64) -> PyResult<u32> {
    u32::try_from(value).map_err(|_| invalid(&format_args!("{name} is {value}; give 1 to {}", u32::MAX)))
}

fn members_of(nodes: &Bound<'_, PyAny>) -> PyResult<Vec<(String, f64)>> {
    refuse_single_key(nodes)?;
    match nodes.cast::<PyMapping>() {
        Ok(weights) => weights.items()?.iter().map(|item| item.extract()).collect(),
        Err(_) => nodes.try_iter()?.map(|node| Ok((node?.extract()?, 1.0))).collect(),
    }
}

/// A `str` is an iterable of `str` too; meant as one name or key, it would be taken for many.
fn refuse_single_key(many: &Bound<'_, PyAny>) -> PyResult<()> {
    if many.is_instance_of::<PyString>() || many.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err(
            "expected several, such as a list, got a single str or bytes; put it in a list",
        ));
    }
    Ok(())
}

/// The bytes of a key: those of `bytes` or any buffer, or the UTF-8 of a `str`.
fn key_bytes<'k>(key: &'k Bound<'_, PyAny>) -> PyResult<Cow<'k, [u8]>> {
    if let Ok(text) = key.cast::<PyString>() {
        return Ok(Cow::Borrowed(text.to_str()?.as_bytes()));
    }
    if let Ok(bytes) = key.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    match contiguous_bytes(key) {
        Ok(bytes) => Ok(Cow::Owned(bytes.to_vec())),
        Err(_) => Err(PyTypeError::new_err(format!(
            "a key is str, bytes or another buffer, not {}",
            key.get_type().qualname()?
        ))),
    }
}

/// The bytes of a buffer: borrowed from `bytes`; copied from anything else, which another thread could change meanwhile.
fn contiguous_bytes(buffer: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    match buffer.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone().into()),
        Err(_) => Ok(PyMemoryView::from(buffer)?.call_method0("tobytes")?.cast_into::<PyBytes>()?.into()),
    }
}

/// Arrow's offsets: one more than there are keys, int32 or int64, never falling, within the data.
fn checked_offsets(offsets: &Bound<'_, PyAny>, data_bytes: usize) -> PyResult<Vec<usize>> {
    let py = offsets.py();
    let wide = match PyBuffer::<i32>::get(offsets) {
        Ok(narrow) => narrow.to_vec(py)?.into_iter().map(i64::from).collect(),
        Err(_) => PyBuffer::<i64>::get(offsets)
            .map_err(|_| {
                PyTypeError::new_err("offsets are a buffer of int32 or int64, as Arrow's are; cast it to one")
            })?
            .to_vec(py)?,
    };
    let bounds = wide.iter().map(|&offset| usize::try_from(offset).ok()).collect::<Option<Vec<_>>>();
    match bounds {
        Some(bounds) if bounds.is_sorted() && bounds.last().is_none_or(|&last| last <= data_bytes) => Ok(bounds),
        _ => Err(invalid(&format_args!(
            "offsets must be 0 or more, never fall, and end within the {data_bytes} bytes of keys"
        ))),
    }
}
