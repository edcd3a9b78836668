//! `Access`, `Caller` and `access_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use super::errors::to_py_err;
use crate::access::{Access, CALLS, Caller, Digest, Grant, Need, Pattern, need_of};
use crate::error::Result;

/// Client, SHA-256 of its token, seconds since the epoch when it expires, and patterns of topics by role.
type GrantFields = (String, [u8; 32], Option<u64>, Vec<String>, Vec<String>, Vec<String>);

#[pyclass(name = "Access", module = "telemetry_broker._core", frozen)]
pub struct PyAccess(pub Arc<Access>);

#[pymethods]
impl PyAccess {
    #[new]
    #[pyo3(signature = (*, max_calls_per_client))]
    fn new(max_calls_per_client: usize) -> Self {
        Self(Access::new(max_calls_per_client))
    }

    fn replace(&self, grants: Vec<GrantFields>) -> PyResult<()> {
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>>>();
        let grants = grants.into_iter().map(|(client, digest, expires_s, produce, consume, admin)| {
            Ok(Grant {
                client,
                digest: Digest::from_bytes(digest),
                expires_s,
                produce: patterns(produce)?,
                consume: patterns(consume)?,
                admin: patterns(admin)?,
            })
        });
        self.0.replace(grants.collect::<Result<_>>().map_err(|err| to_py_err(&err))?);
        Ok(())
    }

    fn enter(&self, token: Option<&str>) -> PyResult<PyCaller> {
        self.0.enter(token).map(PyCaller).map_err(|err| to_py_err(&err))
    }

    #[getter]
    fn refused(&self) -> BTreeMap<&'static str, u64> {
        let refused = &self.0.refused;
        [("unauthenticated", &refused.unauthenticated), ("denied", &refused.denied), ("limited", &refused.limited)]
            .map(|(why, count)| (why, count.load(Ordering::Relaxed)))
            .into()
    }
}

#[pyclass(name = "Caller", module = "telemetry_broker._core", frozen)]
pub struct PyCaller(Caller);

#[pymethods]
impl PyCaller {
    #[getter]
    fn is_current(&self) -> bool {
        self.0.is_current()
    }

    fn check(&self, path: &str, topic: &str) -> PyResult<()> {
        let method = path.rsplit('/').next().unwrap_or(path);
        self.0.check(need_of(path), method, topic).map_err(|err| to_py_err(&err))
    }

    fn sees(&self, topic: &str) -> bool {
        self.0.sees(topic)
    }
}

#[pyfunction]
pub fn access_rules() -> BTreeMap<&'static str, String> {
    let shown = |need: &Need| match need {
        Need::Nothing => "nothing".to_owned(),
        Need::Token => "a token".to_owned(),
        Need::AnyRole => "any role".to_owned(),
        Need::Role(role) => role.as_str().to_owned(),
        Need::RoleEverywhere(role) => format!("{} on *", role.as_str()),
        Need::Everything => "every role on *".to_owned(),
    };
    CALLS.iter().map(|(path, need)| (*path, shown(need))).collect()
}
