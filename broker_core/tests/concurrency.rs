//! The broker's two pieces of hand-made concurrency, the group commit and the wake-ups, under many thousand schedules.
//!
//! Both rooms are compiled into this test with locks of [shuttle](https://docs.rs/shuttle), which decides who runs next
//! at each of them; a schedule that fails is printed and can be replayed with `shuttle::replay`.
//! `SOAK_SECONDS=n` goes on for so long.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by failing")]
#![allow(dead_code, reason = "the rooms have more than the models use")]

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;
use support::soak::Soak;

mod support;

#[path = "../src/broker/group_commit.rs"]
mod group_commit;
#[path = "../src/broker/wakeup.rs"]
mod wakeup;

const SCHEDULES: usize = 2_000;

/// What the rooms take from their crate.
mod error {
    pub use broker_core::error::{Error, Result};
}

/// The face of the rooms' own locks over shuttle's.
mod sync {
    use std::ops::{Deref, DerefMut};

    use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[derive(Default)]
    pub struct Mutex<T> {
        lock: shuttle::sync::Mutex<T>,
        released: AtomicBool,
    }

    pub struct Guard<'a, T> {
        /// Empty only inside [`Condvar::wait`].
        guard: Option<shuttle::sync::MutexGuard<'a, T>>,
        released: &'a AtomicBool,
    }

    #[derive(Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    impl<T> Mutex<T> {
        pub fn lock(&self) -> Guard<'_, T> {
            Guard { guard: Some(self.lock.lock().unwrap()), released: &self.released }
        }
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            self.guard.take();
            // Shuttle switches threads in front of an operation only. What a room does behind a lock that it let go of,
            // such as a system call, can be too late as well.
            if !std::thread::panicking() {
                self.released.load(Ordering::SeqCst);
            }
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.guard.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().unwrap()
        }
    }

    impl Condvar {
        pub fn wait<'a, T>(&self, mut guard: Guard<'a, T>) -> Guard<'a, T> {
            guard.guard = Some(self.0.wait(guard.guard.take().unwrap()).unwrap());
            guard
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// Counts, since time is not part of a schedule.
    pub struct Patience(AtomicU64);

    impl Patience {
        pub fn new(_: std::time::Duration) -> Patience {
            Patience(AtomicU64::new(3))
        }

        pub fn is_over(&self) -> bool {
            self.0.load(Ordering::SeqCst) == 0
        }

        pub fn yield_now(&self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
            shuttle::thread::yield_now();
        }
    }
}

/// Tries schedules at random, and such that need few switches at the right places; others at every run.
fn check(model: impl Fn() + Send + Sync + Copy + 'static) {
    let soak = Soak::asked();
    loop {
        shuttle::check_random(model, SCHEDULES);
        shuttle::check_pct(model, SCHEDULES, 3);
        if soak.as_ref().is_none_or(Soak::is_over) {
            break;
        }
    }
}

mod the_group_commit {
    use super::group_commit::GroupCommit;
    use super::*;
    use broker_core::error::{Code, Error, Result};

    /// A file whose syncs take a while, and of which one may fail.
    #[derive(Default)]
    struct Device {
        commit: GroupCommit,
        /// Highest ticket given.
        written: AtomicU64,
        /// Highest ticket that is safe.
        durable: AtomicU64,
        syncing: AtomicBool,
        failed: AtomicBool,
        syncs: AtomicU64,
        failing_sync: Option<u64>,
    }

    impl Device {
        fn sync(&self, ticket: u64) -> Result<u64> {
            assert!(!self.syncing.swap(true, Ordering::SeqCst), "two syncs at once");
            assert!(!self.failed.load(Ordering::SeqCst), "a sync behind one that failed");
            assert!(self.durable.load(Ordering::SeqCst) < ticket, "a sync that nobody needs");
            let covered = self.written.load(Ordering::SeqCst);
            thread::yield_now();
            let failing = self.failing_sync == Some(self.syncs.fetch_add(1, Ordering::SeqCst));
            if failing {
                self.failed.store(true, Ordering::SeqCst);
            } else {
                self.durable.store(covered, Ordering::SeqCst);
            }
            self.syncing.store(false, Ordering::SeqCst);
            if failing { Err(Error::new(Code::LogPoisoned, "an fsync failed")) } else { Ok(covered) }
        }

        /// One append: its outcome is Ok exactly when it is safe.
        fn write(&self) {
            let ticket = self.written.fetch_add(1, Ordering::SeqCst) + 1;
            match self.commit.wait(ticket, || self.sync(ticket)) {
                Ok(()) => assert!(self.durable.load(Ordering::SeqCst) >= ticket, "answered before it was safe"),
                Err(_) => assert!(self.durable.load(Ordering::SeqCst) < ticket, "failed although it is safe"),
            }
        }
    }

    #[test]
    fn lets_an_end_in_only_between_syncs() {
        check(|| {
            let device = Arc::new(Device::default());
            let writer = device.clone();
            let writer = thread::spawn(move || (0..2).for_each(|_| writer.write()));
            let end = device.commit.between_syncs(|| {
                assert!(!device.syncing.load(Ordering::SeqCst), "a sync runs");
                thread::yield_now();
                assert!(!device.syncing.load(Ordering::SeqCst), "a sync began");
                Ok(())
            });
            assert_eq!(end, Ok(()));
            writer.join().unwrap();
        });
    }

    fn write_from(threads: usize, failing_sync: Option<u64>) -> Arc<Device> {
        let device = Arc::new(Device { failing_sync, ..Device::default() });
        let writers: Vec<_> = (0..threads)
            .map(|_| {
                let device = device.clone();
                thread::spawn(move || (0..2).for_each(|_| device.write()))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        device
    }

    #[test]
    fn answers_each_writer_once_its_write_is_safe_and_never_syncs_twice_at_once() {
        check(|| {
            let device = write_from(3, None);
            assert_eq!(device.durable.load(Ordering::SeqCst), 6);
        });
    }

    #[test]
    fn fails_every_write_that_is_not_safe_after_a_failed_sync_and_never_syncs_again() {
        check(|| {
            let device = write_from(3, Some(1));
            assert_eq!(device.failed.load(Ordering::SeqCst), device.syncs.load(Ordering::SeqCst) == 2);
        });
    }
}

mod a_wake_up {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::wakeup::{Subscription, Wakeups};
    use super::*;

    fn readable(subscription: &Subscription) -> bool {
        let fd = subscription.fd();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    /// Takes `expected` records as a consumer does: drain, look, wait for the descriptor.
    fn consume(subscription: &Subscription, ready: &AtomicU64, expected: u64, signalled: &AtomicU64, signals: u64) {
        let mut taken = 0;
        loop {
            subscription.drain();
            taken += ready.swap(0, Ordering::SeqCst);
            if taken == expected {
                return;
            }
            loop {
                // Read first: a signal between this and the poll is one that the poll must see.
                let all = signalled.load(Ordering::SeqCst) == signals;
                if readable(subscription) {
                    break;
                }
                assert!(!all, "asleep with {} records ready", ready.load(Ordering::SeqCst));
                thread::yield_now();
            }
        }
    }

    fn check_consumers(topics: &'static [&'static str], only: &'static [Option<&'static str>]) {
        check(move || {
            let wakeups = Arc::new(Wakeups::default());
            let ready: Arc<Vec<AtomicU64>> = Arc::new(only.iter().map(|_| AtomicU64::new(0)).collect());
            let signalled = Arc::new(AtomicU64::new(0));
            let subscriptions: Vec<Arc<Subscription>> =
                only.iter().map(|topic| wakeups.subscribe(topic.map(str::to_owned)).unwrap()).collect();
            let mut threads = Vec::new();
            for &topic in topics {
                let (wakeups, ready, signalled) = (wakeups.clone(), ready.clone(), signalled.clone());
                threads.push(thread::spawn(move || {
                    for _ in 0..2 {
                        for (consumer, wanted) in only.iter().enumerate() {
                            if wanted.is_none_or(|wanted| wanted == topic) {
                                ready[consumer].fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        wakeups.signal(&topic.into());
                        signalled.fetch_add(1, Ordering::SeqCst);
                    }
                }));
            }
            let signals = 2 * topics.len() as u64;
            for (consumer, (wanted, subscription)) in only.iter().zip(subscriptions).enumerate() {
                let (ready, signalled) = (ready.clone(), signalled.clone());
                let expected =
                    2 * topics.iter().filter(|topic| wanted.is_none_or(|only| only == **topic)).count() as u64;
                threads.push(thread::spawn(move || {
                    consume(&subscription, &ready[consumer], expected, &signalled, signals);
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn is_never_missed_however_signals_and_drains_meet() {
        check_consumers(&["a", "a"], &[None]);
    }

    #[test]
    fn reaches_every_subscriber_of_the_topic() {
        check_consumers(&["a", "b"], &[None, Some("a")]);
    }
}
