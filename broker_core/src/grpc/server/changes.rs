//! Long polls without polling: whoever waits for a topic is woken when it changes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::Listener;

/// Who waits for which topic.
#[derive(Default)]
pub(super) struct Changes {
    by_topic: Mutex<HashMap<String, watch::Sender<()>>>,
}

impl Changes {
    /// Changes of a topic from now on. Mark them as seen, look for records, and wait only where there are none: what
    /// changed since the mark ends the wait at once.
    pub fn of(&self, topic: &str) -> watch::Receiver<()> {
        let mut by_topic = self.by_topic.lock();
        match by_topic.get(topic) {
            Some(sender) => sender.subscribe(),
            None => by_topic.entry(topic.to_owned()).or_default().subscribe(),
        }
    }
}

impl Listener for Changes {
    fn changed(&self, topic: &Arc<str>) {
        let mut by_topic = self.by_topic.lock();
        if let Some(sender) = by_topic.get(&**topic)
            && sender.send(()).is_err()
        {
            by_topic.remove(&**topic); // nobody waits any more
        }
    }
}
