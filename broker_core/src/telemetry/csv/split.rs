//! The fields of one row.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use crate::telemetry::sample::RowFault;

/// One field, as a range of its row's bytes: what is between the commas or between the quotes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Field {
    start: usize,
    end: usize,
    /// Has doubled quotes.
    doubled: bool,
}

impl Field {
    /// The field's bytes as they stand in the row.
    pub fn raw(self, row: &[u8]) -> &[u8] {
        &row[self.start..self.end]
    }

    /// The field's text. A row that is UTF-8 has fields that are, for they end at ASCII bytes.
    pub fn text(self, row: &[u8]) -> Cow<'_, str> {
        let text = String::from_utf8_lossy(self.raw(row));
        if self.doubled { Cow::Owned(text.replace("\"\"", "\"")) } else { text }
    }
}

/// Splits a row into exactly `fields.len()` fields, by RFC 4180 with a row on one line.
///
/// A quote belongs around a whole field or, doubled, inside a quoted one; anywhere else it is a fault.
pub(super) fn split(row: &[u8], fields: &mut [Field]) -> Result<(), RowFault> {
    let count = fields.len();
    let mut start = 0;
    for (position, field) in fields.iter_mut().enumerate() {
        let end = if row.get(start) == Some(&b'"') {
            *field = quoted(row, start + 1)?;
            field.end + 1
        } else {
            let end = memchr2(b',', b'"', &row[start..]).map_or(row.len(), |at| start + at);
            *field = Field { start, end, doubled: false };
            end
        };
        start = match row.get(end) {
            None if position + 1 == count => return Ok(()),
            None => return Err(RowFault::Short),
            Some(b',') => end + 1,
            Some(_) => return Err(RowFault::Quotes),
        };
    }
    Err(RowFault::Long)
}

/// The quoted field that begins at `start`, after its opening quote.
fn quoted(row: &[u8], start: usize) -> Result<Field, RowFault> {
    let (mut from, mut doubled) = (start, false);
    loop {
        let end = from + memchr(b'"', &row[from..]).ok_or(RowFault::Quotes)?;
        if row.get(end + 1) != Some(&b'"') {
            return Ok(Field { start, end, doubled });
        }
        doubled = true;
        from = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(row: &str, count: usize) -> Result<Vec<String>, RowFault> {
        let mut fields = vec![Field::default(); count];
        split(row.as_bytes(), &mut fields)?;
        Ok(fields.into_iter().map(|field| field.text(row.as_bytes()).into_owned()).collect())
    }

    #[test]
    fn given_rows_gone_wrong_when_split_then_each_has_its_reason() {
        for (row, fault) in [
            ("a,b", RowFault::Short),
            ("", RowFault::Short),
            ("a,b,c,d", RowFault::Long),
            ("a,b,c,", RowFault::Long),
            ("a,\"b,c", RowFault::Quotes),
            ("a,b\"\",c", RowFault::Quotes),
            ("a,\"b\"x,c", RowFault::Quotes),
            ("a, \"b\",c", RowFault::Quotes),
            ("a,b,\"c\"\"", RowFault::Quotes),
            ("a,b,\"", RowFault::Quotes),
        ] {
            assert_eq!(texts(row, 3), Err(fault), "{row}");
        }
        assert_eq!(texts("a,\"b,\"\"\",\"\"", 3), Ok(vec!["a".to_owned(), "b,\"".to_owned(), String::new()]));
        assert_eq!(texts(",,", 3), Ok(vec![String::new(); 3]));
    }

    proptest! {
        #[test]
        fn given_any_fields_when_written_and_split_then_they_return(
            fields in prop::collection::vec("[a\",é ]{0,6}", 1..6),
        ) {
            let row: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            prop_assert_eq!(texts(&row.join(","), fields.len()), Ok(fields));
        }

        #[test]
        fn given_any_row_that_splits_when_read_by_another_parser_then_the_same(row in "[a\",]{0,12}") {
            if let Ok(fields) = texts(&row, 3) {
                let mut other = csv::ReaderBuilder::new().has_headers(false).from_reader(row.as_bytes());
                let record = other.records().next().unwrap().unwrap();
                prop_assert_eq!(record.iter().collect::<Vec<_>>(), fields);
            }
        }
    }
}
