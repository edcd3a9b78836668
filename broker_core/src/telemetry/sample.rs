//! What the texts of one DCGM sample mean: its time, its value, and what can be wrong with the row around them.

/// Why a row was not taken. The text of each is part of the interface: reject files and counters use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowFault {
    /// Over 1 MiB, or its point alone would be over the bound of a record.
    TooLong,
    /// Not UTF-8.
    Utf8,
    /// A quote inside an unquoted field, text after a closing quote, or no closing quote on the line.
    Quotes,
    /// Fewer fields than the header.
    Short,
    /// More fields than the header.
    Long,
    /// Not an RFC 3339 time between the years 1677 and 2262.
    Timestamp,
    /// No metric name, or one that is no column's: it has control characters, is taken (see [`super::names`]), or differs
    /// from a name that was met before only in case or in what it names.
    Metric,
    /// No uuid, neither in the column nor among the labels.
    Uuid,
    /// Not a number.
    Number,
    /// NaN or an infinity, written so or by overflow.
    NotFinite,
    /// The labels are not `key="value"` pairs, or the name of one is taken, as with [`Self::Metric`].
    Labels,
    /// The rest of a row whose beginning was read, as the file's last, before it was written whole.
    Torn,
}

impl RowFault {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 12] = [
        Self::TooLong,
        Self::Utf8,
        Self::Quotes,
        Self::Short,
        Self::Long,
        Self::Timestamp,
        Self::Metric,
        Self::Uuid,
        Self::Number,
        Self::NotFinite,
        Self::Labels,
        Self::Torn,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Utf8 => "utf8",
            Self::Quotes => "quotes",
            Self::Short => "short",
            Self::Long => "long",
            Self::Timestamp => "timestamp",
            Self::Metric => "metric",
            Self::Uuid => "uuid",
            Self::Number => "number",
            Self::NotFinite => "not_finite",
            Self::Labels => "labels",
            Self::Torn => "torn",
        }
    }
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// A finite number.
    Value(f64),
    /// The metric has no value: an empty text, or one of DCGM's "blank" sentinels.
    Missing,
}

/// Reads a value: a decimal number, or a sentinel of `dcgm_fields.h` (blank, not found, not supported, not
/// permissioned).
///
/// The sentinels are 2147483632..=2147483635 (int32), 9223372036854775792..=9223372036854775795 (int64), and
/// 140737488355328..=140737488355331 (double), also when written with a fraction or an exponent. Of int64 sentinels
/// only the exact digits count, unless the text went through a double, in which all of them read 2^63.
pub fn parse_value(text: &[u8]) -> Result<Reading, RowFault> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(Reading::Missing);
    }
    let value: f64 = fast_float2::parse(text).map_err(|_| RowFault::Number)?;
    if !value.is_finite() {
        return Err(RowFault::NotFinite);
    }
    Ok(if is_blank(value, text) { Reading::Missing } else { Reading::Value(value) })
}

fn is_blank(value: f64, text: &[u8]) -> bool {
    const INT64_AS_DOUBLE: f64 = 9_223_372_036_854_775_808.0;
    if (2_147_483_632.0..=2_147_483_635.0).contains(&value)
        || (140_737_488_355_328.0..=140_737_488_355_331.0).contains(&value)
    {
        return value.fract() == 0.0;
    }
    if value.to_bits() != INT64_AS_DOUBLE.to_bits() {
        return false;
    }
    let whole = text.strip_suffix(b".0").unwrap_or(text);
    match std::str::from_utf8(whole).ok().and_then(|digits| digits.parse::<u64>().ok()) {
        Some(exact) => (9_223_372_036_854_775_792..=9_223_372_036_854_775_795).contains(&exact),
        None => true,
    }
}

/// Reads an RFC 3339 time, with any fraction (past nanoseconds it is cut) and any offset, as nanoseconds since the
/// epoch.
///
/// A space in place of the `T` is accepted; leap seconds and times that do not fit are not.
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.split_at_checked(9)?;
    if date[4] != b'-'
        || date[7] != b'-'
        || !matches!(clock[0], b'T' | b't' | b' ')
        || clock[3] != b':'
        || clock[6] != b':'
    {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let (hour, minute, second) = (number(&clock[1..3])?, number(&clock[4..6])?, number(&clock[7..])?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (fraction_ns, zone) = fraction(rest)?;
    let seconds =
        days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(fraction_ns)).ok()
}

/// Digits only, at most 9 of them.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// The fraction in nanoseconds, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let padded = digits[..length].iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = padded.fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some((nanoseconds, &digits[length..]))
}

fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = hours * 3600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar; years count from March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn given_each_sentinel_when_parsed_then_missing_and_its_neighbours_are_numbers() {
        for (first, last) in [
            (2_147_483_632_u64, 2_147_483_635),
            (140_737_488_355_328, 140_737_488_355_331),
            (9_223_372_036_854_775_792, 9_223_372_036_854_775_795),
        ] {
            for sentinel in first..=last {
                assert_eq!(parse_value(sentinel.to_string().as_bytes()), Ok(Reading::Missing), "{sentinel}");
                assert_eq!(parse_value(format!("{sentinel}.0").as_bytes()), Ok(Reading::Missing), "{sentinel}.0");
            }
            for number in [first - 1, last + 1] {
                assert!(matches!(parse_value(number.to_string().as_bytes()), Ok(Reading::Value(_))), "{number}");
            }
        }
        assert_eq!(parse_value(b"1.40737488355328e14"), Ok(Reading::Missing));
        assert_eq!(parse_value(b"9.223372036854776e+18"), Ok(Reading::Missing));
        assert_eq!(parse_value(b"2147483632.5"), Ok(Reading::Value(2_147_483_632.5)));
        assert_eq!(parse_value(b" "), Ok(Reading::Missing));
    }

    #[test]
    fn given_texts_that_are_no_finite_number_when_parsed_then_refused_by_kind() {
        for text in ["abc", "1,5", "0x1f", "1e", "--1", "1 2", "N/A", "\u{661}"] {
            assert_eq!(parse_value(text.as_bytes()), Err(RowFault::Number), "{text}");
        }
        for text in ["nan", "NaN", "inf", "-inf", "Infinity", "+Inf", "1e999", "-1e999"] {
            assert_eq!(parse_value(text.as_bytes()), Err(RowFault::NotFinite), "{text}");
        }
    }

    #[test]
    fn given_times_when_parsed_then_nanoseconds_since_the_epoch() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-07-18T20:42:34Z", 1_752_871_354_000_000_000),
            ("2025-07-18 20:42:34.5z", 1_752_871_354_500_000_000),
            ("2025-07-18T22:42:34.000000001+02:00", 1_752_871_354_000_000_001),
            ("2025-07-18T20:42:34.0000000019Z", 1_752_871_354_000_000_001),
            ("2024-02-29T23:59:59-00:01", 1_709_251_259_000_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("2262-04-11T23:47:16.854775807Z", i64::MAX),
            ("1677-09-21T00:12:43.145224192Z", i64::MIN),
        ] {
            assert_eq!(parse_time(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn given_bad_times_when_parsed_then_none() {
        for text in [
            "",
            "2025-07-18",
            "2025-07-18T20:42:34",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:60:00Z",
            "2025-01-01T00:00:60Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00+2:00",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:00ZZ",
            "2262-04-11T23:47:16.854775808Z",
            "9999-12-31T23:59:59Z",
            "1752871354",
            "+025-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn given_any_second_when_written_and_parsed_then_it_returns(seconds in -9_000_000_000_i64..9_000_000_000) {
            // The model counts days from 1600-01-01 one year at a time.
            let (mut days, clock) = (seconds.div_euclid(86_400) + 135_140, seconds.rem_euclid(86_400));
            let mut year = 1600;
            let year_days = |year| 337 + days_in_month(year, 2);
            while days >= year_days(year) {
                days -= year_days(year);
                year += 1;
            }
            let mut month = 1;
            while days >= days_in_month(year, month) {
                days -= days_in_month(year, month);
                month += 1;
            }
            let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
            let text = format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1);
            prop_assert_eq!(parse_time(text.as_bytes()), Some(seconds * 1_000_000_000));
        }

        #[test]
        fn given_any_bytes_when_parsed_then_no_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_time(&text), parse_value(&text));
        }
    }
}
