//! What a metric or a tag may be called, so that every table can hold it as a column: the one list of names taken.
//!
//! Names are told apart without regard to case, as Delta Lake does. A name that is refused here is refused by each way
//! in: rows of a dump, points over REST, lines in the topic.

use std::collections::HashMap;
use std::fmt;

/// Columns that a store keeps for itself: the time, its day, and its nanoseconds past the microsecond.
pub const RESERVED: [&str; 3] = ["time", "date", "nanos"];

/// Tags that every table has from the start; the last one tells the MIG slices of a GPU apart.
pub const TAGS: [&str; 9] = ["hostname", "gpu", "uuid", "device", "model", "namespace", "pod", "container", "GPU_I_ID"];

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Tag,
    /// A number.
    Metric,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Metric => "metric",
        }
    }
}

/// Why a name cannot be used; as a text it completes "the name ...".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing, or blanks only.
    Empty,
    /// A control character, such as a tab or a NUL.
    Control(char),
    /// One of [`RESERVED`].
    Reserved,
    /// Known as the other kind, or under another spelling, both of which are given.
    Known(Kind, String),
}

impl fmt::Display for NameFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(out, "is empty"),
            Self::Control(char) => write!(out, "holds the control character U+{:04X}", u32::from(*char)),
            Self::Reserved => write!(out, "is one of {}, which the store keeps for itself", RESERVED.join(", ")),
            Self::Known(kind, name) => write!(out, "is known as the {} {name:?}", kind.as_str()),
        }
    }
}

/// The form in which two names are compared.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Checks a name by itself: whether any table could have such a column.
pub fn check(kind: Kind, name: &str) -> Result<(), NameFault> {
    if let Some(char) = name.chars().find(|char| char.is_control()) {
        return Err(NameFault::Control(char));
    }
    if name.trim().is_empty() {
        return Err(NameFault::Empty);
    }
    let folded = fold(name);
    if RESERVED.contains(&folded.as_str()) {
        return Err(NameFault::Reserved);
    }
    match TAGS.iter().find(|tag| fold(tag) == folded) {
        Some(tag) if kind == Kind::Metric || *tag != name => Err(NameFault::Known(Kind::Tag, (*tag).to_owned())),
        _ => Ok(()),
    }
}

/// The names that were met so far. Of several spellings, and of tag and metric, the first one counts.
#[derive(Debug, Default)]
pub struct Names {
    by_folded: HashMap<String, (Kind, String)>,
    bytes: usize,
}

impl Names {
    /// Checks a name by itself and against those met so far; it is not taken in.
    pub fn check(&self, kind: Kind, name: &str) -> Result<(), NameFault> {
        check(kind, name)?;
        match self.by_folded.get(&fold(name)) {
            Some((known, spelling)) if *known != kind || spelling != name => {
                Err(NameFault::Known(*known, spelling.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Takes a name in that passed the check.
    pub fn add(&mut self, kind: Kind, name: &str) {
        self.by_folded.entry(fold(name)).or_insert_with(|| {
            self.bytes += 2 * name.len() + 64;
            (kind, name.to_owned())
        });
    }

    /// About the memory they take.
    pub fn nbytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_names_no_table_can_hold_when_checked_then_each_is_refused_by_kind() {
        for name in ["", " ", "x\0", "a\tb", "\u{7f}", "\u{85}x"] {
            assert!(matches!(check(Kind::Metric, name), Err(NameFault::Empty | NameFault::Control(_))), "{name:?}");
        }
        for name in ["time", "date", "nanos", "Date", "NANOS"] {
            assert_eq!(check(Kind::Metric, name), Err(NameFault::Reserved), "{name}");
            assert_eq!(check(Kind::Tag, name), Err(NameFault::Reserved), "{name}");
        }
        for name in ["uuid", "UUID", "GPU_I_ID", "gpu_i_id", "Pod"] {
            assert!(matches!(check(Kind::Metric, name), Err(NameFault::Known(Kind::Tag, _))), "{name}");
        }
        assert_eq!(check(Kind::Tag, "gpu_i_id"), Err(NameFault::Known(Kind::Tag, "GPU_I_ID".to_owned())));
        for name in ["GPU_I_ID", "uuid", "job", "température"] {
            assert_eq!(check(Kind::Tag, name), Ok(()), "{name}");
        }
    }

    #[test]
    fn given_names_met_before_when_checked_then_the_first_spelling_and_kind_count() {
        let mut names = Names::default();
        names.add(Kind::Metric, "Util");
        names.add(Kind::Metric, "UTIL");
        assert_eq!(names.check(Kind::Metric, "Util"), Ok(()));
        let known = Err(NameFault::Known(Kind::Metric, "Util".to_owned()));
        assert_eq!(names.check(Kind::Metric, "util"), known);
        assert_eq!(names.check(Kind::Tag, "Util"), known);
        assert_eq!(names.check(Kind::Tag, "other"), Ok(()));
    }
}
