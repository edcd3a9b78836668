//! The tags of a GPU: which columns and labels of a DCGM row become which tags.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::MEASUREMENT;
use super::lines::escape::{push_measurement, push_name};
use super::names::{self, Kind};
use super::sample::RowFault;

/// The texts of a row that say which GPU it is about; empty where the row has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuLabels<'a> {
    /// Column `Hostname`.
    pub hostname: &'a str,
    /// Column `gpu_id`: the index of the GPU in its host.
    pub gpu: &'a str,
    /// Column `uuid`.
    pub uuid: &'a str,
    /// Column `device`.
    pub device: &'a str,
    /// Column `modelName`.
    pub model: &'a str,
    /// Column `namespace`.
    pub namespace: &'a str,
    /// Column `pod`.
    pub pod: &'a str,
    /// Column `container`.
    pub container: &'a str,
    /// Column `labels_raw`: `key="value"` pairs as Prometheus writes them.
    pub labels: &'a str,
}

/// The tag set of a point: what, with the time, makes its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSet {
    /// The beginning of the line: measurement and tags, escaped, tags in the order of their names' bytes. Two tag sets
    /// are the same if and only if these bytes are.
    pub series: Vec<u8>,
    /// The GPU's uuid as written, the key of its records.
    pub uuid: String,
    /// The names of the tags, sorted.
    pub names: Vec<String>,
}

impl TagSet {
    /// Makes the tags of a row.
    ///
    /// Every column becomes a tag; so does every label, MIG's `GPU_I_ID` among them, but for `__name__` and the repeats
    /// of columns (the tag names above in any case, and `modelName`): such a label fills its column if that is empty.
    /// Empty values are left out. Of a label that comes twice the last one counts; two that differ only in case, or one
    /// whose name is taken (see [`names`]), are a fault.
    pub fn new(row: &GpuLabels<'_>) -> Result<Self, RowFault> {
        let columns = [
            ("container", row.container),
            ("device", row.device),
            ("gpu", row.gpu),
            ("hostname", row.hostname),
            ("model", row.model),
            ("namespace", row.namespace),
            ("pod", row.pod),
            ("uuid", row.uuid),
        ];
        let labels = parse_labels(row.labels)?;
        let mut tags: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
        for (name, value) in labels {
            if name == "__name__" {
                continue;
            }
            let repeated =
                columns.iter().find(|(column, _)| name.eq_ignore_ascii_case(column)).map(|(column, _)| *column);
            let name = if name == "modelName" { "model" } else { repeated.unwrap_or(name) };
            names::check(Kind::Tag, name).map_err(|_| RowFault::Labels)?;
            tags.insert(name, value);
        }
        for (name, value) in columns {
            if !value.is_empty() {
                tags.insert(name, Cow::Borrowed(value));
            }
        }
        let uuid = tags.get("uuid").filter(|uuid| !uuid.trim().is_empty()).ok_or(RowFault::Uuid)?.to_string();
        let mut series = Vec::with_capacity(256);
        push_measurement(&mut series, MEASUREMENT);
        let mut names = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let before = series.len();
            series.push(b',');
            push_name(&mut series, name);
            series.push(b'=');
            if push_name(&mut series, &value) {
                names.push(name.to_owned());
            } else {
                series.truncate(before);
            }
        }
        let folded: HashSet<_> = names.iter().map(|name| names::fold(name)).collect();
        if folded.len() < names.len() {
            return Err(RowFault::Labels);
        }
        Ok(Self { series, uuid, names })
    }

    /// Whether a field of this name would share it with a tag, in any case.
    pub fn has_name(&self, field: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(field))
    }
}

/// Reads `key="value"` pairs, comma separated, with Prometheus' escapes (`\\`, `\"`, `\n`) in the values.
pub fn parse_labels(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>, RowFault> {
    let mut labels = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or(RowFault::Labels)?;
        if !is_label_name(name) {
            return Err(RowFault::Labels);
        }
        let end = closing_quote(after).ok_or(RowFault::Labels)?;
        labels.push((name, unescape(&after[..end])));
        let after = after[end + 1..].trim_start();
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return Err(RowFault::Labels),
        };
    }
    Ok(labels)
}

fn is_label_name(name: &str) -> bool {
    !name.as_bytes().first().is_none_or(u8::is_ascii_digit)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &text.as_bytes()[from..])?;
        if text.as_bytes()[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
        if from > text.len() {
            return None;
        }
    }
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some(escaped @ ('\\' | '"'))) => plain.push(escaped),
            ('\\', Some(other)) => plain.extend(['\\', other]),
            (char, _) => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(row: &GpuLabels<'_>) -> String {
        String::from_utf8(TagSet::new(row).unwrap().series).unwrap()
    }

    #[test]
    fn given_a_real_row_when_made_then_tags_are_sorted_and_repeats_are_gone() {
        let row = GpuLabels {
            hostname: "node-1",
            gpu: "0",
            uuid: "GPU-1",
            device: "nvidia0",
            model: "NVIDIA H100",
            labels: concat!(
                r#"DCGM_FI_DRIVER_VERSION="535.129.03",Hostname="node-1",UUID="GPU-1",__name__="UTIL",device="#,
                r#""nvidia0",gpu="0",instance="node-1:9400",job="dgx",modelName="NVIDIA H100""#
            ),
            ..GpuLabels::default()
        };
        assert_eq!(
            series(&row),
            concat!(
                "gpu,DCGM_FI_DRIVER_VERSION=535.129.03,device=nvidia0,gpu=0,hostname=node-1,instance=node-1:9400,",
                r"job=dgx,model=NVIDIA\ H100,uuid=GPU-1"
            )
        );
    }

    #[test]
    fn given_mig_slices_when_made_then_their_tag_sets_differ() {
        let slice = |id| {
            let labels = format!("GPU_I_ID=\"{id}\"");
            series(&GpuLabels { uuid: "GPU-1", labels: &labels, ..GpuLabels::default() })
        };
        assert_eq!(slice(1), "gpu,GPU_I_ID=1,uuid=GPU-1");
        assert_ne!(slice(1), slice(2));
    }

    #[test]
    fn given_an_empty_column_when_its_label_has_a_value_then_the_label_fills_it() {
        let row = GpuLabels {
            pod: "",
            hostname: "column",
            labels: r#"UUID="GPU-9",pod="p",Hostname="label""#,
            ..GpuLabels::default()
        };
        assert_eq!(series(&row), "gpu,hostname=column,pod=p,uuid=GPU-9");
        assert_eq!(TagSet::new(&row).unwrap().uuid, "GPU-9");
    }

    #[test]
    fn given_no_uuid_when_made_then_refused() {
        assert_eq!(TagSet::new(&GpuLabels { hostname: "h", ..GpuLabels::default() }), Err(RowFault::Uuid));
        assert_eq!(TagSet::new(&GpuLabels { uuid: "  ", ..GpuLabels::default() }), Err(RowFault::Uuid));
    }

    #[test]
    fn given_labels_gone_wrong_when_parsed_then_refused() {
        for text in [
            "a",
            "a=b",
            "a=\"b",
            "a=\"b\"c=\"d\"",
            "=\"b\"",
            "1a=\"b\"",
            "a b=\"c\"",
            "a=\"b\\",
            "a=\"b\\\"",
            ",a=\"b\"",
        ] {
            assert_eq!(parse_labels(text), Err(RowFault::Labels), "{text}");
        }
        let time = GpuLabels { uuid: "u", labels: "time=\"1\"", ..GpuLabels::default() };
        assert_eq!(TagSet::new(&time), Err(RowFault::Labels));
    }

    #[test]
    fn given_escapes_and_a_trailing_comma_when_parsed_then_values_are_plain() {
        assert_eq!(
            parse_labels(r#"a="x\"y\\z\n", b="=\"",c="","#).unwrap(),
            [("a", Cow::from("x\"y\\z\n")), ("b", Cow::from("=\"")), ("c", Cow::from(""))]
        );
    }

    proptest! {
        #[test]
        fn given_any_labels_when_written_and_parsed_then_they_return(
            pairs in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,5}", any::<String>()), 0..5),
        ) {
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let text: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let text = text.join(",");
            let parsed = parse_labels(&text).unwrap();
            prop_assert_eq!(parsed.len(), pairs.len());
            for ((name, value), (got_name, got_value)) in pairs.iter().zip(parsed) {
                prop_assert_eq!((name.as_str(), value.as_str()), (got_name, &*got_value));
            }
        }

        #[test]
        fn given_any_text_when_parsed_then_no_panic(text in "[\\\\\"=,a é]{0,20}") {
            let _ = parse_labels(&text);
        }
    }
}
