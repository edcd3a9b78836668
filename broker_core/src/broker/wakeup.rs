//! Wake-ups: waiting consumers learn that records may have become ready.
//!
//! A [`Subscription`] says so on a file descriptor. Its subscriber drains, looks for records, and then waits for its descriptor. A change behind the drain makes the
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
}

/// Who is told of every change. Called by whoever made it, under no lock of the broker's: it must be quick.
pub trait Listener: Send + Sync {
    /// Records of the topic may have become ready.
    fn changed(&self, topic: &Arc<str>);
}

impl Listener for Subscription {
    fn changed(&self, topic: &Arc<str>) {
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

/// All listeners of a broker.
#[derive(Default)]
pub struct Wakeups {
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
}

impl Wakeups {
    /// A new subscriber to one topic or to all. It ends when it is dropped.
    pub fn subscribe(&self, topic: Option<String>) -> Result<Arc<Subscription>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|err| Error::io("make a wake-up descriptor near", Path::new("/proc/self/fd"), &err.into()))?;
        let subscription = Arc::new(Subscription { fd, topic, changed: Mutex::default() });
        let listener: Arc<dyn Listener> = subscription.clone();
        self.listen(&listener);
        Ok(subscription)
    }

    /// Tells `listener` of every change, until it is dropped.
    pub fn listen(&self, listener: &Arc<dyn Listener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Tells every listener that a topic changed.
    pub fn signal(&self, topic: &Arc<str>) {
        for listener in self.listeners.lock().iter() {
            if let Some(listener) = listener.upgrade() {
                listener.changed(topic);
            }
        }
    }
}
