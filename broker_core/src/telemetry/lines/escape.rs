//! Writing names, tag values and numbers into a line.
//!
//! Two things cannot be carried by the protocol and are mended: a line feed, carriage return or tab becomes a space,
//! and backslashes at the end are dropped. A text that is empty after that counts as empty.

use std::borrow::Cow;
use std::io::Write as _;

/// Appends a measurement; false (and nothing appended) if it is empty.
pub fn push_measurement(out: &mut Vec<u8>, text: &str) -> bool {
    push_escaped(out, text, b"\\, ")
}

/// Appends a tag's name or value or a field's name; false (and nothing appended) if it is empty.
pub fn push_name(out: &mut Vec<u8>, text: &str) -> bool {
    push_escaped(out, text, b"\\, =")
}

fn push_escaped(out: &mut Vec<u8>, text: &str, special: &[u8]) -> bool {
    let text = text.trim_end_matches('\\');
    for &byte in text.as_bytes() {
        match byte {
            b'\n' | b'\r' | b'\t' => out.extend_from_slice(b"\\ "),
            byte if special.contains(&byte) => out.extend_from_slice(&[b'\\', byte]),
            byte => out.push(byte),
        }
    }
    !text.is_empty()
}

/// The text that [`push_name`] writes, before escaping: what a reader of the line gets.
pub fn carried(text: &str) -> Cow<'_, str> {
    let text = text.trim_end_matches('\\');
    if text.contains(['\n', '\r', '\t']) {
        Cow::Owned(text.replace(['\n', '\r', '\t'], " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// Undoes the escapes of a measurement, name or tag value.
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = if byte == b'\\' { bytes.next_if(|next| b"\\, =".contains(next)) } else { None };
        plain.push(escaped.unwrap_or(byte));
    }
    Cow::Owned(plain)
}

/// Longest text of [`push_number`].
pub const MAX_NUMBER_BYTES: usize = 25;

/// Appends a finite number in the shortest form that reads back as the same `f64`: `87`, `0.25`, `1.5e-7`.
pub fn push_number(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let size = value.abs();
    // Writing to a Vec cannot fail.
    let _ = if size < EXACT && value.fract() == 0.0 {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number in 0..2^53")]
        let whole = size as u64;
        push_digits(out, whole);
        Ok(())
    } else if (1e-5..1e16).contains(&size) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

/// Appends a time in nanoseconds.
pub fn push_time(out: &mut Vec<u8>, time_ns: i64) {
    if time_ns < 0 {
        out.push(b'-');
    }
    push_digits(out, time_ns.unsigned_abs());
}

pub(in crate::telemetry) fn push_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(value: f64) -> String {
        let mut out = Vec::new();
        push_number(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn given_numbers_when_written_then_short() {
        for (value, text) in [
            (87.0, "87"),
            (-0.0, "-0"),
            (0.25, "0.25"),
            (-1.5, "-1.5"),
            (1.5e-7, "1.5e-7"),
            (1e300, "1e300"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (i64::MIN as f64, "-9.223372036854776e18"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn given_what_the_protocol_cannot_carry_when_written_then_mended() {
        let mut out = Vec::new();
        assert!(push_name(&mut out, "a\nb\\\\"));
        assert_eq!(out, b"a\\ b");
        assert!(!push_name(&mut out, "\\"));
        assert_eq!(out, b"a\\ b");
    }

    proptest! {
        #[test]
        fn given_any_finite_number_when_written_then_it_reads_back(bits in any::<u64>(), whole in any::<i32>()) {
            for value in [f64::from_bits(bits), f64::from(whole), f64::from(whole) / 1000.0] {
                if value.is_finite() {
                    let text = number(value);
                    prop_assert!(text.len() <= MAX_NUMBER_BYTES, "{}", text);
                    prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
                    prop_assert_eq!(fast_float2::parse::<f64, _>(&text).unwrap().to_bits(), value.to_bits());
                }
            }
        }

        #[test]
        fn given_any_text_when_escaped_then_it_returns_as_carried(text in "[\\\\ ,=\n\ta-cé\"]{0,12}") {
            let mut out = Vec::new();
            let written = push_name(&mut out, &text);
            prop_assert_eq!(written, !carried(&text).is_empty());
            let carried = carried(&text).into_owned();
            prop_assert_eq!(unescape(&out).into_owned(), carried.into_bytes());
        }
    }
}
