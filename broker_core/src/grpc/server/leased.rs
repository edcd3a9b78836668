//! The answer of a Receive. What it leases is given back if it never leaves: its client was gone when it was there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use prost::Message;
use tokio::runtime::Handle;

use super::Reply;
use super::calls::{Answer, Calls};
use crate::wire::v1;

/// One answer, until it is taken.
pub(super) struct Leased {
    calls: Arc<Calls>,
    topic: String,
    group: String,
    answer: Option<Vec<u8>>,
}

impl Leased {
    pub fn new(calls: Arc<Calls>, asked: v1::ReceiveRequest, answer: Vec<u8>) -> Self {
        Self { calls, topic: asked.topic, group: asked.group, answer: Some(answer) }
    }
}

impl Stream for Leased {
    type Item = Reply<Answer>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.answer.take().map(|answer| Ok(Answer::Message(answer))))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let (Ok(answer), Ok(runtime)) = (v1::ReceiveResponse::decode(answer.as_slice()), Handle::try_current()) else {
            return; // a server that stops: they end with their visibility timeout
        };
        let lease = |delivery: v1::Delivery| v1::LeaseRange { lease_id: delivery.lease_id, ..Default::default() };
        let leases: Vec<_> = answer.deliveries.into_iter().map(lease).collect();
        if leases.is_empty() {
            return;
        }
        let (topic, group) = (std::mem::take(&mut self.topic), std::mem::take(&mut self.group));
        let nack = v1::NackRequest { topic, group, leases, ..Default::default() };
        let calls = self.calls.clone();
        // An error leaves them to their visibility timeout.
        runtime.spawn(async move { calls.nack(nack).await });
    }
}
