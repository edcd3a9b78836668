//! The answer of a Receive. What it leases is given back if it never leaves: its client was gone when it was there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use prost::Message;

use super::Reply;
use super::answers::Answer;
use crate::wire::v1;

/// Gives leases back, in its own time.
type GiveBack = Box<dyn FnOnce(v1::NackRequest) + Send>;

/// One answer, until it is taken.
pub(super) struct Leased {
    give_back: Option<GiveBack>,
    topic: String,
    group: String,
    answer: Option<Answer>,
}

impl Leased {
    pub fn new(give_back: GiveBack, asked: v1::ReceiveRequest, answer: Answer) -> Self {
        Self { give_back: Some(give_back), topic: asked.topic, group: asked.group, answer: Some(answer) }
    }
}

impl Stream for Leased {
    type Item = Reply<Answer>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.answer.take().map(Ok))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let (Some(answer), Some(give_back)) = (self.answer.take(), self.give_back.take()) else { return };
        let encoded = match answer {
            Answer::Message(message) => Bytes::from(message),
            Answer::Encoded(message) => message,
            Answer::Delivery(_) => return,
        };
        let Ok(answer) = v1::ReceiveResponse::decode(encoded) else { return };
        let lease = |delivery: v1::Delivery| v1::LeaseRange { lease_id: delivery.lease_id, ..Default::default() };
        let leases: Vec<_> = answer.deliveries.into_iter().map(lease).collect();
        if leases.is_empty() {
            return;
        }
        let (topic, group) = (std::mem::take(&mut self.topic), std::mem::take(&mut self.group));
        let nack = v1::NackRequest { topic, group, leases, ..Default::default() };
        give_back(nack);
    }
}
