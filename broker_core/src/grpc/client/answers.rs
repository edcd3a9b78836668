//! What a broker answers: messages, and how the call ended.

use std::future::poll_fn;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use http::{Request, Response, StatusCode};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use crate::grpc::framing::{Messages, Which};

/// The answers of one call.
pub struct Answers {
    messages: Messages<Body>,
    http: StatusCode,
    /// The headers said how the call ended, and nothing has to follow.
    ended: bool,
}

impl Answers {
    /// Makes a call.
    pub(super) async fn to(mut channel: Channel, request: Request<Body>) -> Result<Self, Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(error.into());
        poll_fn(|context| channel.poll_ready(context)).await.map_err(failed)?;
        Self::of(channel.call(request).await.map_err(failed)?)
    }

    /// Those of a response; an error if it says that the call has failed.
    fn of(response: Response<Body>) -> Result<Self, Status> {
        let (head, body) = response.into_parts();
        let messages = Messages::of(Which::Answers(head.status), &head.headers, body)?;
        let ended = match Status::from_header_map(&head.headers) {
            Some(status) if status.code() != Code::Ok => return Err(status),
            status => status.is_some(),
        };
        Ok(Self { messages, http: head.status, ended })
    }

    /// The next one; None: there are no more, and the call went well. May be called again when it was cancelled.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(message) = self.messages.next().await? {
            return Ok(Some(message.into_bytes()));
        }
        match self.messages.trailers().and_then(Status::from_header_map) {
            Some(status) if status.code() == Code::Ok => Ok(None),
            Some(status) => Err(status),
            None if self.ended => Ok(None),
            None => Err(unsaid(self.http)),
        }
    }

    /// The same, one behind the other.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Status>> + Send {
        unfold(self, |mut answers| async move { Some((answers.message().await.transpose()?, answers)) })
    }
}

/// What it means that an end was not said
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
fn unsaid(http: StatusCode) -> Status {
    let code = match http {
        StatusCode::OK => {
            return Status::unknown(
                "protocol error: missing grpc-status trailer, stream was terminated without a final status (possible \
                 truncation by a proxy or load balancer)",
            );
        }
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("grpc-status header missing, mapped from HTTP status code {}", http.as_u16()))
}
