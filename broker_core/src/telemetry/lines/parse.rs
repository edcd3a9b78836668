//! The parts of a line. Nothing here copies, and nothing looks past the end of the line but a quoted string, which may.

use memchr::{memchr, memchr2, memchr3};

/// Why a line was not taken. The text of each is part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineFault {
    /// Not `measurement[,tag=value...] field=value[,field=value...] [time]`.
    Syntax,
    /// Not UTF-8.
    Utf8,
    /// Of another measurement than the table's.
    Measurement,
    /// No time, and no default was given; or not a whole number of nanoseconds in 64 bits.
    Time,
    /// A field's value is not a finite number.
    Number,
    /// A field's value is a string, which no column can hold.
    String,
    /// A tag or field comes twice.
    Duplicate,
    /// A name that no column can have or that is taken (see [`names`](crate::telemetry::names)), a tag named as a field or
    /// the reverse, or two names that differ only in case.
    Name,
    /// One column more than the table may have.
    Columns,
    /// The record holds no line.
    Empty,
}

impl LineFault {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Syntax,
        Self::Utf8,
        Self::Measurement,
        Self::Time,
        Self::Number,
        Self::String,
        Self::Duplicate,
        Self::Name,
        Self::Columns,
        Self::Empty,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Utf8 => "utf8",
            Self::Measurement => "measurement",
            Self::Time => "time",
            Self::Number => "number",
            Self::String => "string",
            Self::Duplicate => "duplicate",
            Self::Name => "name",
            Self::Columns => "columns",
            Self::Empty => "empty",
        }
    }
}

/// The next line of a record and what follows it. As in other readers, a line feed inside a quoted field value does not
/// end the line; where the quote is never closed it does.
pub(super) fn split_line(rest: &[u8]) -> (&[u8], &[u8]) {
    let mut end = memchr(b'\n', rest).unwrap_or(rest.len());
    if memchr(b'"', &rest[..end]).is_some() {
        // Quotes mean something among the fields only, and only at the beginning of a value.
        let mut from = find_unescaped(&rest[..end], [b' '; 3]).unwrap_or(end);
        while let Some(open) = memchr(b'"', &rest[from..end]).map(|at| from + at) {
            from = open + 1;
            if rest[open - 1] == b'=' {
                let Some(close) = closing_quote(rest, from) else { break };
                from = close + 1;
                if from > end {
                    end = memchr(b'\n', &rest[from..]).map_or(rest.len(), |at| from + at);
                }
            }
        }
    }
    (&rest[..end], rest.get(end + 1..).unwrap_or_default())
}

fn closing_quote(text: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Where the first of three bytes stands unescaped.
pub(super) fn find_unescaped(text: &[u8], [one, two, three]: [u8; 3]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr3(one, two, three, &text[from..])?;
        // An odd number of backslashes before it escapes it.
        let backslashes = text[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(at);
        }
        from = at + 1;
    }
}

/// A tag as it stands in the line, escaped, and what follows the comma behind it.
#[derive(Debug)]
pub(super) struct Tag<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub rest: &'a [u8],
}

/// Cuts the next `name=value` off a tag section that begins after a comma.
pub(super) fn split_tag(rest: &[u8]) -> Result<Tag<'_>, LineFault> {
    let equals = find_unescaped(rest, *b"=, ").filter(|&at| at > 0 && rest[at] == b'=').ok_or(LineFault::Syntax)?;
    let (name, value) = (&rest[..equals], &rest[equals + 1..]);
    let end = find_unescaped(value, [b','; 3]).unwrap_or(value.len());
    if end == 0 {
        return Err(LineFault::Syntax);
    }
    let rest = match value.get(end + 1..) {
        Some([]) => return Err(LineFault::Syntax),
        rest => rest.unwrap_or_default(),
    };
    Ok(Tag { name, value: &value[..end], rest })
}

/// Reads a field's value at the start of `text`: the number, and the length of its text.
///
/// A number with or without an `i` or `u` is itself, a boolean is 1 or 0.
pub(super) fn field_value(text: &[u8]) -> Result<(f64, usize), LineFault> {
    const BOOLEANS: [(&[u8], f64); 10] = [
        (b"true", 1.0),
        (b"True", 1.0),
        (b"TRUE", 1.0),
        (b"t", 1.0),
        (b"T", 1.0),
        (b"false", 0.0),
        (b"False", 0.0),
        (b"FALSE", 0.0),
        (b"f", 0.0),
        (b"F", 0.0),
    ];
    match text.first() {
        None | Some(b',' | b' ') => Err(LineFault::Syntax),
        Some(b'"') => Err(LineFault::String),
        Some(b't' | b'T' | b'f' | b'F') => {
            let word = text.split(|byte| matches!(byte, b',' | b' ')).next().unwrap_or_default();
            BOOLEANS
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(name, value)| (*value, name.len()))
                .ok_or(LineFault::Number)
        }
        Some(_) => {
            let (value, mut length) = fast_float2::parse_partial::<f64, _>(text).map_err(|_| LineFault::Number)?;
            if matches!(text.get(length), Some(b'i' | b'u')) {
                if !text[..length].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
                    return Err(LineFault::Number);
                }
                length += 1;
            }
            match text.get(length) {
                None | Some(b',' | b' ') if value.is_finite() => Ok((value, length)),
                _ => Err(LineFault::Number),
            }
        }
    }
}

/// Whether every reader takes the text of a value for the float that it is: `1`, `-2.5e3`; not `7i`, `t`, `.5`, `1.`.
pub(super) fn is_plain_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    digits.first().is_some_and(u8::is_ascii_digit) && digits.last().is_some_and(u8::is_ascii_digit)
}

/// Reads the time section: nothing, or a whole number.
pub(super) fn time(text: &[u8]) -> Result<Option<i64>, LineFault> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    std::str::from_utf8(text).ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(LineFault::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(mut rest: &[u8]) -> Vec<&[u8]> {
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            lines.push(line);
            rest = after;
        }
        lines
    }

    #[test]
    fn given_strings_with_line_feeds_when_split_then_they_stay_whole() {
        assert_eq!(lines(b"a x=\"1\n2\\\"\n\",y=1\nb z=1"), [&b"a x=\"1\n2\\\"\n\",y=1"[..], b"b z=1"]);
        assert_eq!(lines(b"a x=\"1\",y=\"\n\"\nb"), [&b"a x=\"1\",y=\"\n\""[..], b"b"]);
    }

    #[test]
    fn given_a_string_that_never_closes_when_split_then_the_next_line_is_kept() {
        assert_eq!(lines(b"a x=\"1\nb z=1"), [&b"a x=\"1"[..], b"b z=1"]);
        assert_eq!(lines(b"a,t=\"y x=1\nb z=\"1\""), [&b"a,t=\"y x=1"[..], b"b z=\"1\""]);
    }

    #[test]
    fn given_field_values_when_read_then_numbers() {
        for (text, value) in
            [("1", 1.0), ("-2.5e3", -2500.0), ("7i", 7.0), ("-7i", -7.0), ("7u", 7.0), ("t", 1.0), ("False", 0.0)]
        {
            assert_eq!(field_value(text.as_bytes()), Ok((value, text.len())), "{text}");
            assert_eq!(field_value(format!("{text},x=1").as_bytes()), Ok((value, text.len())), "{text}");
        }
        for text in ["nan", "inf", "1e999", "1.5i", "1e3i", "1x", "tru", "truer", "abc", "1\t"] {
            assert_eq!(field_value(text.as_bytes()), Err(LineFault::Number), "{text}");
        }
        assert_eq!(field_value(b"\"s\""), Err(LineFault::String));
        assert_eq!(field_value(b""), Err(LineFault::Syntax));
    }

    proptest! {
        #[test]
        fn given_any_bytes_when_split_then_no_byte_is_lost(text in "[\\\\\"=,\na ]{0,30}") {
            let mut rest = text.as_bytes();
            let mut joined = Vec::new();
            while !rest.is_empty() {
                let (line, after) = split_line(rest);
                joined.extend_from_slice(line);
                if line.len() < rest.len() {
                    joined.push(b'\n');
                }
                rest = after;
            }
            prop_assert_eq!(joined, text.into_bytes());
        }

        #[test]
        fn given_any_bytes_when_read_then_no_panic(text in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = (field_value(&text), split_tag(&text), time(&text), find_unescaped(&text, *b"=, "));
        }
    }
}
