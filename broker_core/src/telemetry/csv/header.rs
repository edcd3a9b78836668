//! Which column of the file is which.

use super::split::{Field, split};

/// The columns that a dump must have, in the order of [`Columns::indexes`].
pub(super) const COLUMNS: [&str; 12] = [
    "timestamp",
    "metric_name",
    "gpu_id",
    "device",
    "uuid",
    "modelName",
    "Hostname",
    "container",
    "pod",
    "namespace",
    "value",
    "labels_raw",
];
pub(super) const TIMESTAMP: usize = 0;
pub(super) const METRIC: usize = 1;
pub(super) const GPU: usize = 2;
pub(super) const DEVICE: usize = 3;
pub(super) const UUID: usize = 4;
pub(super) const MODEL: usize = 5;
pub(super) const HOSTNAME: usize = 6;
pub(super) const CONTAINER: usize = 7;
pub(super) const POD: usize = 8;
pub(super) const NAMESPACE: usize = 9;
pub(super) const VALUE: usize = 10;
pub(super) const LABELS: usize = 11;

const MAX_COLUMNS: usize = 1024;

/// Where the columns are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// Field number in a row, by position in [`COLUMNS`].
    pub indexes: [usize; COLUMNS.len()],
    /// Fields of a row, those that are not read included.
    pub count: usize,
}

/// Reads the first line; on failure says what is wrong with it.
pub(super) fn parse_header(line: &[u8]) -> Result<Columns, String> {
    if std::str::from_utf8(line).is_err() {
        return Err("the first line is not UTF-8".to_owned());
    }
    let commas = memchr::memchr_iter(b',', line).count();
    if commas >= MAX_COLUMNS {
        return Err(format!("the first line has over {MAX_COLUMNS} columns"));
    }
    // A quoted name may hold a comma, so the count of commas is a bound only.
    let (count, names) = (1..=commas + 1)
        .rev()
        .find_map(|count| {
            let mut fields = vec![Field::default(); count];
            split(line, &mut fields)
                .ok()
                .map(|()| (count, fields.iter().map(|field| field.text(line).trim().to_owned()).collect::<Vec<_>>()))
        })
        .ok_or_else(|| "the quotes of the first line are not closed".to_owned())?;
    let mut indexes = [0; COLUMNS.len()];
    let mut missing = Vec::new();
    for (index, column) in indexes.iter_mut().zip(COLUMNS) {
        let mut found = names.iter().enumerate().filter(|(_, name)| *name == column).map(|(position, _)| position);
        match (found.next(), found.next()) {
            (Some(position), None) => *index = position,
            (Some(_), Some(_)) => return Err(format!("the column {column} comes twice")),
            (None, _) => missing.push(column),
        }
    }
    if missing.is_empty() { Ok(Columns { indexes, count }) } else { Err(format!("no column {}", missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_columns_in_another_order_and_more_of_them_when_parsed_then_found_by_name() {
        let mut names: Vec<_> = COLUMNS.iter().map(|name| format!("\"{name}\"")).collect();
        names.reverse();
        names.insert(3, "\"more, or less\"".to_owned());
        let columns = parse_header(names.join(",").as_bytes()).unwrap();
        assert_eq!((columns.count, columns.indexes[LABELS], columns.indexes[TIMESTAMP]), (13, 0, 12));
    }

    #[test]
    fn given_headers_gone_wrong_when_parsed_then_the_problem_is_named() {
        let without = COLUMNS.join(",").replace("uuid,", "").replace("value,", "");
        assert_eq!(parse_header(without.as_bytes()), Err("no column uuid, value".to_owned()));
        assert_eq!(
            parse_header(format!("{},pod", COLUMNS.join(",")).as_bytes()),
            Err("the column pod comes twice".to_owned())
        );
        assert!(parse_header(b"\xff\xfet\0").unwrap_err().contains("UTF-8"));
        assert!(parse_header(b"\"timestamp,uuid").unwrap_err().contains("quotes"));
        assert!(parse_header(&[b','; 5000]).unwrap_err().contains("1024"));
    }
}
