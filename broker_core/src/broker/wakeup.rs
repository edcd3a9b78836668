//! Wake-ups: waiting consumers learn on a file descriptor that records may have become ready.
//!
//! A subscriber drains, looks for records, and then waits for its descriptor. A change behind the drain makes the
//! descriptor readable, so none is missed; a descriptor may be readable without records, so looking again is its part.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::event::{EventfdFlags, eventfd};

use super::sync::Mutex;
use crate::error::{Error, Result};

/// One subscriber's descriptor and the topics that changed.
pub struct Subscription {
    fd: OwnedFd,
    topic: Option<String>,
    changed: Mutex<BTreeSet<Arc<str>>>,
}

impl Subscription {
    /// Readable when a topic changed since the last drain.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The topics that changed since the last drain.
    pub fn drain(&self) -> Vec<Arc<str>> {
        let mut changed = self.changed.lock();
        let mut counter = [0; 8];
        // An empty counter (EAGAIN) is what an early drain finds; it clears nothing.
        let _ = rustix::io::read(&self.fd, &mut counter);
        std::mem::take(&mut *changed).into_iter().collect()
    }

    fn signal(&self, topic: &Arc<str>) {
        if self.topic.as_deref().is_some_and(|only| only != &**topic) {
            return;
        }
        let mut changed = self.changed.lock();
        if changed.insert(topic.clone()) && changed.len() == 1 {
            // The counter cannot overflow: it is written once per drain.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}

/// All subscribers of a broker.
#[derive(Default)]
pub struct Wakeups {
    subscribers: Mutex<Vec<Weak<Subscription>>>,
}

impl Wakeups {
    /// A new subscriber to one topic or to all. It ends when it is dropped.
    pub fn subscribe(&self, topic: Option<String>) -> Result<Arc<Subscription>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|err| Error::io("make a wake-up descriptor near", Path::new("/proc/self/fd"), &err.into()))?;
        let subscription = Arc::new(Subscription { fd, topic, changed: Mutex::default() });
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|other| other.strong_count() > 0);
        subscribers.push(Arc::downgrade(&subscription));
        Ok(subscription)
    }

    /// Tells every subscriber that a topic changed.
    pub fn signal(&self, topic: &Arc<str>) {
        for subscriber in self.subscribers.lock().iter() {
            if let Some(subscriber) = subscriber.upgrade() {
                subscriber.signal(topic);
            }
        }
    }
}
