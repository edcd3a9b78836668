//! The `ProduceStream`: several requests under way, answers in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use prost::Message as _;
use tokio::sync::{oneshot, watch};
use tonic::Status;

use super::answers::Answer;
use super::calls::{Calls, settled};
use super::service::authorize;
use super::{Reply, Requests, message, stopped};
use crate::access::{Caller, Need, Role};
use crate::error::Result;
use crate::grpc::framing::Message;
use crate::grpc::status;
use crate::wire::cursor::put_bytes;
use crate::wire::stream::produce_request;

/// Requests of one stream that are not answered yet; behind them, the client's next ones wait in its connection.
const IN_FLIGHT: usize = 16;
/// Fields of `ProduceStreamResponse`.
const PRODUCED: u8 = 1;
const ERROR: u8 = 2;

/// Runs one stream. Once the server stops it answers what it has read and ends: a client that is connected and has nothing
/// to say must not hold up the end.
pub(super) fn produce_stream(
    calls: Arc<Calls>,
    caller: Arc<Caller>,
    requests: Requests,
) -> impl Stream<Item = Reply<Answer>> + Send {
    let stopping = calls.stopping.clone();
    let unanswered = VecDeque::new();
    let stream = ProduceStream { calls, caller, requests, stopping, ended: false, failure: None, unanswered };
    unfold(stream, |mut stream| async move { stream.next().await.map(|answer| (answer, stream)) })
}

struct ProduceStream {
    calls: Arc<Calls>,
    caller: Arc<Caller>,
    requests: Requests,
    stopping: watch::Receiver<bool>,
    /// Nothing more is read.
    ended: bool,
    /// Why, where that is an error.
    failure: Option<Status>,
    unanswered: VecDeque<Unanswered>,
}

/// A request that was carried out.
struct Unanswered {
    answer: Result<Vec<u8>>,
    /// Until what it wrote is durable.
    settling: Option<oneshot::Receiver<Result<()>>>,
}

impl ProduceStream {
    async fn next(&mut self) -> Option<Reply<Answer>> {
        loop {
            if self.ended && self.unanswered.is_empty() {
                return self.failure.take().map(Err);
            }
            let has_room = !self.ended && self.unanswered.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = settle_first(&mut self.unanswered), if !self.unanswered.is_empty() => {
                    let answer = self.unanswered.pop_front()?.answer;
                    return Some(Ok(Answer::Message(in_stream(answer))));
                }
                request = message(&mut self.requests), if has_room => match request {
                    Ok(Some(request)) => {
                        let unanswered = self.produce(request);
                        self.unanswered.push_back(unanswered);
                    }
                    Ok(None) => self.ended = true,
                    Err(status) => (self.ended, self.failure) = (true, Some(status)),
                },
                () = stopped(&mut self.stopping), if !self.ended => self.ended = true,
            }
        }
    }

    /// Writes at once, so that requests are stored in their order, and those of an `fsync` topic wait together.
    fn produce(&self, message: Message) -> Unanswered {
        let produced = self.calls.refuse_when_stopping().and_then(|()| {
            let request = produce_request(&message)?;
            authorize(&self.caller, Need::Role(Role::Produce), "ProduceStream", &message[request.clone()])?;
            self.calls.produce(message, request)
        });
        match produced {
            Ok((answer, unsettled)) => Unanswered {
                answer: Ok(answer),
                settling: unsettled.map(|unsettled| self.calls.settling.settle(unsettled)),
            },
            Err(error) => Unanswered { answer: Err(error), settling: None },
        }
    }
}

/// Waits until the first one can be answered. May be called again when it was cancelled.
async fn settle_first(unanswered: &mut VecDeque<Unanswered>) {
    let Some(first) = unanswered.front_mut() else { return };
    if let Some(settling) = &mut first.settling {
        let outcome = settled(settling).await;
        first.settling = None;
        if let Err(error) = outcome {
            first.answer = Err(error);
        }
    }
}

fn in_stream(answer: Result<Vec<u8>>) -> Vec<u8> {
    match answer {
        Ok(answer) => wrap(PRODUCED, &answer),
        Err(error) => wrap(ERROR, &status::in_stream(&error).encode_to_vec()),
    }
}

/// A message as a field, below 16, of another one.
pub(super) fn wrap(field: u8, message: &[u8]) -> Vec<u8> {
    let mut wrapped = Vec::with_capacity(message.len() + 6);
    put_bytes(&mut wrapped, field, message);
    wrapped
}
