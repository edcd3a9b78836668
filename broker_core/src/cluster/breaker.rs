//! Whether a broker is called, and when it is tried again after it was found away.
//!
//! The circuit breaker of M. Nygard, "Release It!": closed while all is well, open for a pause after a failure, half-open
//! while one attempt finds out. Pauses double up to a bound and are multiplied by a random number from 0.5 to 1, so that
//! many who lost one broker do not come back as one.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Calls in a row that failed by the broker's fault, after which it is not called.
const MOST_FAILURES: u32 = 5;

/// What a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The broker is called.
    Closed,
    /// It is away.
    Open,
    /// It is being tried.
    HalfOpen,
}

impl State {
    /// As people say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The state of one broker's breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Failures in a row while closed.
    failures: u32,
    /// How often it was opened since it was closed for long enough to be believed.
    opened: u32,
}

impl Default for Breaker {
    /// Half-open: nothing is known yet.
    fn default() -> Self {
        Self { state: State::HalfOpen, failures: 0, opened: 0 }
    }
}

impl Breaker {
    /// What it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The broker answered an attempt.
    pub fn close(&mut self) {
        (self.state, self.failures) = (State::Closed, 0);
    }

    /// The broker is away. Returns the pause until it may be tried; `random` is from 0 to 1.
    pub fn open(&mut self, random: f64) -> Duration {
        (self.state, self.failures) = (State::Open, 0);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.opened.min(16)).min(LONGEST_PAUSE);
        self.opened += 1;
        pause.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The pause is over.
    pub fn try_it(&mut self) {
        self.state = State::HalfOpen;
    }

    /// It has been well for a while: the next pause is a short one again.
    pub fn trust(&mut self) {
        self.opened = 0;
    }

    /// A call succeeded, or failed by its caller's fault.
    pub fn success(&mut self) {
        self.failures = 0;
    }

    /// A call failed by the broker's fault. Says whether these are too many: then it is to be opened.
    pub fn failure(&mut self) -> bool {
        self.failures += 1;
        self.state == State::Closed && self.failures >= MOST_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_once_the_broker_is_trusted() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.state(), State::HalfOpen);
        let pauses: Vec<u128> = (0..8).map(|_| breaker.open(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        breaker.close();
        assert_eq!(breaker.open(0.0).as_millis(), 2500, "a broker that flaps is tried rarely");
        breaker.close();
        breaker.trust();
        assert_eq!(breaker.open(0.0).as_millis(), 50);
        assert_eq!(breaker.state(), State::Open);
        breaker.try_it();
        assert_eq!(breaker.state(), State::HalfOpen);
    }

    #[test]
    fn only_failures_in_a_row_are_too_many() {
        let mut breaker = Breaker::default();
        breaker.close();
        for _ in 0..MOST_FAILURES - 1 {
            assert!(!breaker.failure());
        }
        breaker.success();
        for _ in 0..MOST_FAILURES - 1 {
            assert!(!breaker.failure());
        }
        assert!(breaker.failure());
        breaker.open(0.5);
        assert!(!breaker.failure(), "it is open already");
    }
}
