//! Who may do what: clients are known by their tokens, and have roles on topics.
//!
//! Of a token only the SHA-256 is kept. A given one is compared with all of them, each in a time that does not depend on
//! how much of it is right. What a call needs stands in [`rules`], once for gRPC and HTTP.
//!
//! Invariants (tests: `tests/access.rs`)
//! - A call that the table does not know needs every role on every topic.
//! - [`Access::replace`] is one step: a token that is in the old list and in the new one is never refused.
//! - A stream of a client whose token is withdrawn, or expires, ends.

mod grant;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

pub use self::grant::{Digest, Grant, Pattern, Role};
pub use self::rules::{CALLS, Need, need_of};
use crate::error::{Code, Error, Result};

/// What a client that has too much under way is told to wait.
const BUSY_RETRY_MS: u32 = 1000;
/// Longest sleep until a token is looked at again: the wall clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Calls that were refused, since the start.
#[derive(Debug, Default)]
pub struct Refused {
    /// Without a token, or with one that is wrong, withdrawn or expired.
    pub unauthenticated: AtomicU64,
    /// Their client has not the role.
    pub denied: AtomicU64,
    /// Their client had too many under way.
    pub limited: AtomicU64,
}

/// The tokens that are valid now, and what each client has under way.
pub struct Access {
    grants: watch::Sender<Arc<[Arc<Grant>]>>,
    under_way: Mutex<HashMap<String, usize>>,
    max_calls_per_client: usize,
    /// What was refused.
    pub refused: Refused,
}

impl Access {
    /// One that lets nobody in yet. A client may have so many calls under way, streams and long polls included.
    pub fn new(max_calls_per_client: usize) -> Arc<Self> {
        let (grants, _) = watch::channel(Arc::from([]));
        Arc::new(Self { grants, under_way: Mutex::default(), max_calls_per_client, refused: Refused::default() })
    }

    /// From here on these tokens are valid, and no others.
    pub fn replace(&self, grants: Vec<Grant>) {
        self.grants.send_replace(grants.into_iter().map(Arc::new).collect());
    }

    /// Takes up a call of whoever sends this token.
    pub fn enter(self: &Arc<Self>, token: Option<&str>) -> Result<Caller> {
        let grant = self.grant_of(token).inspect_err(|_| count(&self.refused.unauthenticated))?;
        let mut under_way = self.under_way.lock();
        let calls = under_way.entry(grant.client.clone()).or_default();
        if *calls >= self.max_calls_per_client {
            count(&self.refused.limited);
            let message = format!(
                "client {:?} has {calls} calls and streams under way, and may have {}: end some, or raise \
                 MAX_CALLS_PER_CLIENT",
                grant.client, self.max_calls_per_client
            );
            return Err(Error::new(Code::LimitExceeded, message).retry_after_ms(BUSY_RETRY_MS));
        }
        *calls += 1;
        drop(under_way);
        Ok(Caller(Some(Entered { access: self.clone(), grant })))
    }

    fn grant_of(&self, token: Option<&str>) -> Result<Arc<Grant>> {
        let Some(token) = token else {
            let message = "this server asks for a token: send it as `authorization: Bearer TOKEN`, in Python \
                           connect(url, token=...)";
            return Err(Error::new(Code::Unauthenticated, message));
        };
        let digest = Digest::of(token);
        let found = self.grants.borrow().iter().find(|grant| grant.digest == digest).cloned();
        let Some(grant) = found else {
            let message = "the token is not known here: it is wrong, or was withdrawn; ask for a new one";
            return Err(Error::new(Code::Unauthenticated, message));
        };
        if grant.has_expired(now_s()) {
            let message = format!("the token of client {:?} has expired; ask for a new one", grant.client);
            return Err(Error::new(Code::Unauthenticated, message));
        }
        Ok(grant)
    }

    fn leave(&self, client: &str) {
        let mut under_way = self.under_way.lock();
        if let Some(calls) = under_way.get_mut(client) {
            *calls -= 1;
            if *calls == 0 {
                under_way.remove(client);
            }
        }
    }
}

/// Who makes a call. Counts as one call of its client until it is dropped.
pub struct Caller(Option<Entered>);

struct Entered {
    access: Arc<Access>,
    grant: Arc<Grant>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.access.leave(&self.grant.client);
    }
}

impl Caller {
    /// Whoever it is: nobody is asked for a token here.
    pub fn anyone() -> Self {
        Self(None)
    }

    /// Refuses a call of `method` on a topic, if the caller has not what it needs.
    pub fn check(&self, need: Need, method: &str, topic: &str) -> Result<()> {
        let Some(Entered { access, grant }) = &self.0 else { return Ok(()) };
        if grant.has(need, topic) {
            return Ok(());
        }
        count(&access.refused.denied);
        Err(Error::new(Code::Denied, grant.refusal(need, method, topic)))
    }

    /// Whether the caller has a role on a topic, and so may know of it.
    pub fn sees(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|entered| entered.grant.has(Need::AnyRole, topic))
    }

    /// Whether it is whoever: nothing is refused.
    pub fn is_anyone(&self) -> bool {
        self.0.is_none()
    }

    /// The client's name; empty for whoever.
    pub fn client(&self) -> &str {
        self.0.as_ref().map_or("", |entered| &entered.grant.client)
    }

    /// Whether the caller's token is what it was when it entered.
    pub fn is_current(&self) -> bool {
        self.0.as_ref().is_none_or(|Entered { access, grant }| is_good(&access.grants.borrow(), grant))
    }

    /// Returns once the caller's token is no longer what it was: withdrawn, expired, or with other roles.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let known = self.0.as_ref().map(|entered| (entered.access.grants.subscribe(), entered.grant.clone()));
        async move {
            let Some((mut grants, grant)) = known else { return std::future::pending().await };
            loop {
                if !is_good(&grants.borrow_and_update(), &grant) {
                    return;
                }
                let left = grant.expires_s.map_or(LONGEST_SLEEP, |expires| {
                    Duration::from_secs(expires.saturating_sub(now_s())).min(LONGEST_SLEEP)
                });
                tokio::select! {
                    changed = grants.changed() => if changed.is_err() { return },
                    () = sleep(left.max(Duration::from_millis(10))) => {}
                }
            }
        }
    }
}

/// Whether a grant is among those of now, as it was, and has not expired.
fn is_good(grants: &[Arc<Grant>], grant: &Arc<Grant>) -> bool {
    grants.contains(grant) && !grant.has_expired(now_s())
}

/// What a stream of such a caller ends with: who has a token that is valid may begin it anew.
pub fn changed_error() -> Error {
    let message = "the token of this stream was withdrawn, has expired, or has other roles now: begin the stream anew \
                   with a valid one";
    Error::new(Code::Unavailable, message).retry_after_ms(1)
}

/// The token in the value of an `authorization` header.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
