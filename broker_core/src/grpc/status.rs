//! An error as a gRPC status, with the details that every gRPC language reads with its own library.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Code, Error};
use crate::wire::v1;

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

/// An error inside of a stream that goes on.
pub fn in_stream(error: &Error) -> v1::Error {
    v1::Error {
        code: error.code().as_str().to_owned(),
        message: error.message().to_owned(),
        retry_after_ms: error.retry_after().unwrap_or(0),
        field: error.wrong_field().unwrap_or_default().to_owned(),
        broker: String::new(),
    }
}

/// The status of an error that another broker told: its field, and the broker that it names in the metadata.
pub fn told(error: &Error, field: &str, broker: &str) -> Status {
    let metadata = [("broker", broker)].into_iter().filter(|(_, value)| !value.is_empty());
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut details = details_of(error, metadata);
    if !field.is_empty() {
        details.add_bad_request_violation(field, error.message());
    }
    Status::with_error_details(status_code(error.code()), error.message(), details)
}

/// The status of an error: `ErrorInfo`, `RetryInfo` if a retry may help, `BadRequest` if one field is wrong.
fn status_of(error: &Error) -> Status {
    let mut details = details_of(error, HashMap::new());
    if let Some(field) = error.wrong_field() {
        details.add_bad_request_violation(field, error.message());
    }
    Status::with_error_details(status_code(error.code()), error.message(), details)
}

fn details_of(error: &Error, metadata: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(error.code().as_str(), DOMAIN, metadata);
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(Duration::from_millis(u64::from(delay.max(1)))));
    }
    details
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        status_of(&error)
    }
}
