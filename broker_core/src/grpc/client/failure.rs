//! Why a call failed, out of what tonic, hyper, h2 and the broker say.

use std::error::Error as StdError;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::grpc::status::DOMAIN;

/// A failed call.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// gRPC's number for it.
    pub status: Code,
    /// What went wrong.
    pub message: String,
    /// The broker's code; without one the failure was made on the way.
    pub code: Option<String>,
    /// Seconds after which the same call may succeed; only with a code, as the next one.
    pub retry_after: Option<f64>,
    /// What of the request is wrong.
    pub field: Option<String>,
    /// Whether the request can have reached the broker.
    pub sent: bool,
}

impl Failure {
    /// One of this side's.
    pub fn here(status: Code, message: impl Into<String>, sent: bool) -> Self {
        Self { status, message: message.into(), code: None, retry_after: None, field: None, sent }
    }

    /// What a status means: the broker's own, or one that tonic made of an error of the connection.
    pub fn of(status: &Status) -> Self {
        if let Some(source) = status.source() {
            return Self::of_connection(source);
        }
        let mut failure = Self::here(status.code(), status.message(), true);
        let details = status.get_error_details();
        if let Some(info) = details.error_info()
            && info.domain == DOMAIN
            && !info.reason.is_empty()
        {
            failure.code = Some(info.reason.clone());
            let delay = details.retry_info().and_then(|info| info.retry_delay);
            failure.retry_after = delay.map(|delay| delay.as_secs_f64());
            let violations = details.bad_request().map(|request| &request.field_violations);
            failure.field = violations.and_then(|found| found.first()).map(|found| found.field.clone());
        }
        failure
    }

    /// What an error of the connection means.
    pub fn of_connection(error: &(dyn StdError + 'static)) -> Self {
        let mut status = Code::Unavailable;
        let mut connecting = false;
        let mut deepest = error;
        let mut next = Some(error);
        while let Some(cause) = next {
            if cause.is::<tonic::ConnectError>() {
                connecting = true;
            } else if cause.is::<tonic::TimeoutExpired>() {
                status = Code::DeadlineExceeded;
            } else if let Some(reset) = cause.downcast_ref::<h2::Error>() {
                status = status_of(reset);
            }
            deepest = cause;
            next = cause.source();
        }
        let message = if connecting {
            format!("failed to connect: {deepest}")
        } else if status == Code::DeadlineExceeded {
            "Deadline Exceeded".into()
        } else {
            format!("the connection broke: {deepest}")
        };
        Self::here(status, message, !connecting)
    }
}

/// The status that gRPC gives a stream that was reset (`PROTOCOL-HTTP2.md`, "Errors"); a lost connection is none.
fn status_of(error: &h2::Error) -> Code {
    if !error.is_reset() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(h2::Reason::REFUSED_STREAM) | None => Code::Unavailable,
        Some(_) => Code::Internal,
    }
}
