//! A token's digest, and what its client may do.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::rules::Need;
use crate::error::{Code, Error, Result};

/// Patterns that a refusal lists.
const MOST_LISTED: usize = 5;
/// Bytes of a name or pattern that a refusal shows.
const MOST_SHOWN: usize = 200;

/// SHA-256 of a token. Comparing two takes the same time whatever they are.
#[derive(Clone, Copy, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// One that is known already.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// What a client does with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Adds records.
    Produce,
    /// Reads, leases and acks records.
    Consume,
    /// Makes, changes, empties and deletes it and its groups.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Produce, Self::Consume, Self::Admin];

    /// Its name in a token file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Admin => "admin",
        }
    }
}

/// Topics: one by its name, or all whose names begin with what stands before a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Name(String),
    /// Those that begin so.
    Prefix(String),
}

impl Pattern {
    /// `telemetry`, `telemetry*` or `*`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.len() > MOST_SHOWN || !name.chars().all(allowed) || (name.is_empty() && !is_prefix) {
            let shown: String = text.chars().take(MOST_SHOWN).collect();
            let message = format!(
                "{shown:?} is no pattern of topics: expected a topic's name, or its beginning and one `*` behind it, such \
                 as telemetry, telemetry* or *"
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(if is_prefix { Self::Prefix(name.to_owned()) } else { Self::Name(name.to_owned()) })
    }

    /// Whether a topic is among them.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Name(name) => name == topic,
            Self::Prefix(prefix) => topic.starts_with(prefix.as_str()),
        }
    }

    fn is_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// One token: whose it is, until when, and for what. A client may have several.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The client's name, for people and for limits.
    pub client: String,
    /// The token's.
    pub digest: Digest,
    /// Seconds since the epoch from which on it is not valid; None: it is for ever.
    pub expires_s: Option<u64>,
    /// Where the client may produce.
    pub produce: Vec<Pattern>,
    /// Where it may consume.
    pub consume: Vec<Pattern>,
    /// What it looks after.
    pub admin: Vec<Pattern>,
}

impl Grant {
    pub(super) fn has_expired(&self, now_s: u64) -> bool {
        self.expires_s.is_some_and(|expires| now_s >= expires)
    }

    fn patterns(&self, role: Role) -> &[Pattern] {
        match role {
            Role::Produce => &self.produce,
            Role::Consume => &self.consume,
            Role::Admin => &self.admin,
        }
    }

    fn has_role(&self, role: Role, topic: &str) -> bool {
        self.patterns(role).iter().any(|pattern| pattern.matches(topic))
    }

    pub(super) fn has(&self, need: Need, topic: &str) -> bool {
        match need {
            Need::Nothing | Need::Token => true,
            Need::AnyRole => Role::ALL.iter().any(|role| self.has_role(*role, topic)),
            Need::Role(role) => self.has_role(role, topic),
            Need::RoleEverywhere(role) => self.patterns(role).iter().any(Pattern::is_all),
            Need::Everything => Role::ALL.iter().all(|role| self.patterns(*role).iter().any(Pattern::is_all)),
        }
    }

    /// Why a call is refused. Says nothing of whether the topic exists.
    pub(super) fn refusal(&self, need: Need, method: &str, topic: &str) -> String {
        let topic: String = topic.chars().take(MOST_SHOWN).collect();
        let has = |role: Role| {
            let patterns = self.patterns(role);
            let mut listed: Vec<String> = patterns.iter().take(MOST_LISTED).map(Pattern::to_string).collect();
            if patterns.len() > MOST_LISTED {
                listed.push(format!("{} more", patterns.len() - MOST_LISTED));
            }
            if listed.is_empty() { "no topic".to_owned() } else { listed.join(", ") }
        };
        let client = &self.client;
        match need {
            Need::Role(role) => format!(
                "client {client:?} may not call {method} on topic {topic:?}: that takes the role `{0}`, which it has on \
                 {1}; ask for it",
                role.as_str(),
                has(role)
            ),
            Need::RoleEverywhere(role) => format!(
                "client {client:?} may not call {method}: that takes the role `{0}` on all topics (`*`), and it has it \
                 on {1}",
                role.as_str(),
                has(role)
            ),
            Need::AnyRole => {
                format!("client {client:?} may not call {method} on topic {topic:?}: it has no role there; ask for one")
            }
            Need::Nothing | Need::Token | Need::Everything => {
                format!("client {client:?} may not call {method}: that takes every role on all topics (`*`)")
            }
        }
    }
}
