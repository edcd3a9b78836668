//! An error as a gRPC status, with the details that every gRPC language reads with its own library.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Code, Error};

/// The domain of our `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "telemetry-broker";

/// The status of a code.
pub fn status_code(code: Code) -> Grpc {
    match code {
        Code::InvalidArgument
        | Code::InvalidName
        | Code::InvalidBatch
        | Code::InvalidLease
        | Code::CsvEmpty
        | Code::CsvHeader => Grpc::InvalidArgument,
        Code::TopicNotFound
        | Code::PartitionNotFound
        | Code::GroupNotFound
        | Code::PositionLogId
        | Code::CsvNotFound => Grpc::NotFound,
        Code::PositionOutOfRange => Grpc::OutOfRange,
        Code::TopicExists | Code::GroupExists => Grpc::AlreadyExists,
        Code::TopicVersion
        | Code::GroupMode
        | Code::DataInUse
        | Code::DataFormat
        | Code::CsvUnreadable
        | Code::CsvShrunk
        | Code::CsvRejects => Grpc::FailedPrecondition,
        Code::LogFull | Code::LimitExceeded => Grpc::ResourceExhausted,
        Code::LogCorrupt => Grpc::DataLoss,
        Code::LogPoisoned | Code::DataIo | Code::Internal => Grpc::Internal,
        Code::BrokerDraining | Code::Unavailable => Grpc::Unavailable,
        Code::Unauthenticated => Grpc::Unauthenticated,
        Code::Denied => Grpc::PermissionDenied,
        Code::BrokerClosed => Grpc::Cancelled,
        Code::Unsupported => Grpc::Unimplemented,
        Code::ProduceUnknown => Grpc::Unknown,
    }
}

/// The status of an error: `ErrorInfo`, `RetryInfo` if a retry may help, `BadRequest` if one field is wrong.
fn status_of(error: &Error) -> Status {
    let mut details = ErrorDetails::with_error_info(error.code().as_str(), DOMAIN, HashMap::new());
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(Duration::from_millis(u64::from(delay.max(1)))));
    }
    if let Some(field) = error.wrong_field() {
        details.add_bad_request_violation(field, error.message());
    }
    Status::with_error_details(status_code(error.code()), error.message(), details)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        status_of(&error)
    }
}
