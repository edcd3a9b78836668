//! Names of topics and groups: what they may be, so that one can never leave its folder or confuse a metric.

use super::folder::{IDENTITY_FILE, LOCK_FILE, SOCKET_FILE};
use crate::error::{Code, Error, Result};

/// Characters of a topic's or group's name, at most.
pub const MAX_NAME: usize = 200;
/// What a dead-letter topic's name ends with.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";
/// The group of a dead-letter topic whose acks say what was redriven.
pub const REDRIVE_GROUP: &str = "redrive";
/// Files beside the topics' folders.
const RESERVED: [&str; 3] = [IDENTITY_FILE, LOCK_FILE, SOCKET_FILE];
/// Bytes of a consumer's or producer's name, at most.
pub const MAX_CLIENT_NAME: usize = 255;

/// The topic that holds the dead letters of a topic.
pub fn dead_letters_of(topic: &str) -> String {
    format!("{topic}{DEAD_LETTER_SUFFIX}")
}

/// Refuses a topic or group name that breaks the rules; `what` is `topic` or `group`.
pub fn check(what: &'static str, name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if what == "topic" && RESERVED.contains(&name) {
        return Err(Error::new(
            Code::InvalidName,
            format!("topic name {name:?} is the name of one of the broker's own files; choose another"),
        )
        .field(what));
    }
    let max = if name.ends_with(DEAD_LETTER_SUFFIX) { MAX_NAME + DEAD_LETTER_SUFFIX.len() } else { MAX_NAME };
    if starts_well && name.len() <= max && name.bytes().all(legal) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidName,
        format!(
            "{what} name {:?} is not allowed: 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, the first one a letter or digit",
            name.chars().take(MAX_NAME + 8).collect::<String>()
        ),
    )
    .field(what))
}

/// Refuses a consumer's or producer's name that is empty or too long; `what` says which.
pub fn check_client(what: &'static str, name: &str) -> Result<()> {
    if (1..=MAX_CLIENT_NAME).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidName,
        format!("{what} name has {} bytes, it must have 1 to {MAX_CLIENT_NAME}", name.len()),
    )
    .field(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_a_folder_or_confuse_a_metric_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "-x",
            ".hidden",
            "a\n",
            "ü",
            "a\0",
            "broker.json",
            "broker.lock",
            &"x".repeat(201),
        ] {
            assert_eq!(check("topic", name).map_err(|err| err.code()), Err(Code::InvalidName), "{name:?}");
        }
        for name in ["t", "telemetry", "A-1_b.c", "0", &"x".repeat(200), &("x".repeat(200) + ".dlq")] {
            assert_eq!(check("topic", name), Ok(()), "{name:?}");
        }
    }
}
