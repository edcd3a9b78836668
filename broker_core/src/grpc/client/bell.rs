//! How whoever waits learns of news: by a descriptor, which threads poll and event loops watch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::{Error, Result};

/// Readable from a ring until it is hushed.
pub struct Bell(OwnedFd);

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The bell rang.
    Rung,
    /// The time was over.
    Late,
    /// A signal came; it is its receiver's turn.
    Interrupted,
}

impl Bell {
    /// A silent one.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|err| Error::io("make a wake-up descriptor near", Path::new("/proc/self/fd"), &err.into()))?;
        Ok(Self(fd))
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Wakes who waits, now or next.
    pub fn ring(&self) {
        // It fails only where the counter is about to overflow, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes back every ring until now.
    pub fn hush(&self) {
        let mut counter = [0; 8];
        // An empty counter (EAGAIN) is what an early hush finds.
        let _ = rustix::io::read(&self.0, &mut counter);
    }

    /// Sleeps until it rings, and hushes it; `until` bounds that.
    pub fn wait(&self, until: Option<Instant>) -> Woken {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(timespec);
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => Woken::Late,
            Ok(_) => {
                self.hush();
                Woken::Rung
            }
            Err(_) => Woken::Interrupted,
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// One bell for many: says whose news there are.
pub struct Notifier {
    bell: Bell,
    news: Mutex<Vec<u64>>,
}

impl Notifier {
    /// Without news.
    pub fn new() -> Result<Self> {
        Ok(Self { bell: Bell::new()?, news: Mutex::default() })
    }

    /// Readable while there are news.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    /// Takes the numbers of those with news, in the order of these.
    pub fn drain(&self) -> Vec<u64> {
        let mut news = self.news.lock();
        self.bell.hush();
        std::mem::take(&mut *news)
    }

    fn tell(&self, number: u64) {
        let mut news = self.news.lock();
        news.push(number);
        if news.len() == 1 {
            self.bell.ring();
        }
    }
}

/// Who is told of an exchange's news.
pub enum Watcher {
    /// A thread of its own.
    Bell(Bell),
    /// Somebody who has many, and this one's number.
    Notifier(std::sync::Arc<Notifier>, u64),
}

impl Watcher {
    /// There are news.
    pub fn tell(&self) {
        match self {
            Self::Bell(bell) => bell.ring(),
            Self::Notifier(notifier, number) => notifier.tell(*number),
        }
    }
}
