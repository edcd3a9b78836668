//! JSON records of older senders: the line each becomes, or the reason for which it is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use broker_core::telemetry::json::{JsonFault, is_json, push_line};
use broker_core::telemetry::lines::{ColumnBuilder, LineBuilder};
use proptest::prelude::*;

fn line(record: &str) -> Result<Option<String>, &'static str> {
    let mut out = Vec::new();
    let pushed = push_line(&mut out, record.as_bytes(), None).map_err(JsonFault::as_str)?;
    assert_eq!(pushed, !out.is_empty());
    Ok(pushed.then(|| String::from_utf8(out).unwrap()))
}

fn row(fields: &[&str]) -> String {
    serde_json::to_string(fields).unwrap()
}

const ROW: [&str; 12] = [
    "2025-07-18T20:42:34Z",
    "DCGM_FI_DEV_GPU_UTIL",
    "0",
    "nvidia0",
    "GPU-5",
    "NVIDIA H100",
    "h1",
    "",
    "",
    "",
    "87",
    "DCGM_FI_DRIVER_VERSION=\"535.129.03\",Hostname=\"h1\",__name__=\"DCGM_FI_DEV_GPU_UTIL\",job=\"dgx\"",
];

fn row_with(index: usize, value: &str) -> String {
    let mut fields = ROW;
    fields[index] = value;
    row(&fields)
}

#[test]
fn given_a_row_as_an_array_when_read_then_the_line_of_that_row() {
    assert_eq!(
        line(&row(&ROW)).unwrap().unwrap(),
        "gpu,DCGM_FI_DRIVER_VERSION=535.129.03,device=nvidia0,gpu=0,hostname=h1,job=dgx,model=NVIDIA\\ H100,uuid=GPU-5 \
         DCGM_FI_DEV_GPU_UTIL=87 1752871354000000000"
    );
}

#[test]
fn given_an_object_when_read_then_its_line_under_either_spelling() {
    let expected = "gpu,device=nvidia0,gpu=3,hostname=h1,model=H100,namespace=n,pod=p,uuid=GPU-5 util=0.5 -1000000000";
    for (model, hostname) in [("model_name", "hostname"), ("modelName", "Hostname")] {
        let object = format!(
            r#" {{"device_id":"nvidia0","metric":"util","value":0.5,"time":"1969-12-31T23:59:59Z","gpu_id":3,
                "uuid":"GPU-5","{model}":"H100","{hostname}":"h1","container":null,"pod":"p","namespace":"n","more":[1]}}"#
        );
        assert_eq!(line(&object).unwrap().unwrap(), expected);
    }
    let least = r#"{"device_id":"nvidia0","metric":"util","value":"7","time":"1970-01-01T00:00:00Z"}"#;
    assert_eq!(line(least).unwrap().unwrap(), "gpu,device=nvidia0,uuid=nvidia0 util=7 0");
}

#[test]
fn given_an_object_without_a_time_when_there_is_a_default_then_that_is_its_time() {
    let object = br#"{"device_id":"nvidia0","metric":"util","value":7}"#;
    let mut out = Vec::new();
    assert!(push_line(&mut out, object, Some(12)).unwrap());
    assert!(out.ends_with(b" util=7 12"));
    assert_eq!(line(std::str::from_utf8(object).unwrap()), Err("timestamp"));
}

#[test]
fn given_a_sample_without_a_value_when_read_then_nothing_comes_of_it() {
    for value in ["", " ", "9223372036854775794", "2147483632"] {
        assert_eq!(line(&row_with(10, value)), Ok(None), "{value:?}");
    }
    let sentinel = r#"{"device_id":"d","metric":"m","value":9223372036854775794,"time":"1970-01-01T00:00:00Z"}"#;
    assert_eq!(line(sentinel), Ok(None));
}

#[test]
fn given_records_gone_wrong_when_read_then_each_is_refused_by_kind() {
    for (record, reason) in [
        ("[", "json"),
        ("[]", "json"),
        ("{}x", "json"),
        (&row(&ROW[..11]), "json"),
        ("{\"metric\":[\"m\"],\"device_id\":\"d\",\"time\":\"1970-01-01T00:00:00Z\"}", "json"),
        (&row_with(0, "yesterday"), "timestamp"),
        (&row_with(1, ""), "metric"),
        (&row_with(1, "time"), "metric"),
        (&row_with(1, "\\"), "metric"),
        (&row_with(1, "job"), "metric"),
        (&row_with(4, ""), "uuid"),
        (&row_with(10, "many"), "number"),
        (&row_with(10, "NaN"), "not_finite"),
        (&row_with(11, "job"), "labels"),
    ] {
        assert_eq!(line(record), Err(reason), "{record}");
    }
}

#[test]
fn given_lines_and_json_mixed_when_decoded_then_both_are_points_and_bad_ones_cost_their_record_only() {
    let bad = row_with(10, "many");
    let missing = row_with(10, "");
    let good = row(&ROW);
    let values = ["gpu,uuid=GPU-5 util=1 1", &good, &bad, &missing, "{", "gpu,uuid=GPU-6 util=2 2"];
    let mut lines = LineBuilder::new("gpu", &[], &[], None);
    lines.append_values(&values, 10).unwrap();
    let rejected: Vec<_> = lines.rejected().iter().map(|line| (line.offset, line.reason.as_str())).collect();
    assert_eq!(rejected, [(12, "number"), (14, "json")]);
    assert_eq!(lines.rejected()[0].line, bad.as_bytes());
    let index = lines.finish().unwrap().index;
    assert_eq!(index.len(), 3);
    let offsets: Vec<_> = (0..3).map(|line| index.place(line).unwrap().offset).collect();
    assert_eq!(offsets, [10, 11, 15]);
    let mut columns = ColumnBuilder::new("gpu", &[], &[], None);
    columns.append_values(&values, 10).unwrap();
    assert_eq!(columns.finish().unwrap().batch.num_rows(), 3);
}

proptest! {
    #[test]
    fn given_any_bytes_when_read_then_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[{][\\[{\"a:1,}\\]]{0,20}") {
        for record in [&bytes[..], text.as_bytes()] {
            let mut out = Vec::new();
            let taken = push_line(&mut out, record, Some(0));
            prop_assert!(taken.is_err() || is_json(record));
        }
    }

    #[test]
    fn given_any_row_when_its_line_is_taken_then_it_is_one_point(
        fields in prop::collection::vec("[a-z ,=\\\\\"\n{}é]{0,5}", 7),
        metric in "[a-z ,=\\\\\n]{0,4}",
        value in any::<f64>(),
    ) {
        let value = value.to_string();
        let row = row(&[
            ROW[0], &metric, &fields[0], &fields[1], &fields[2], &fields[3], &fields[4], &fields[5], &fields[6], "", &value, "",
        ]);
        if let Ok(Some(line)) = line(&row) {
            let mut builder = ColumnBuilder::new("gpu", &[], &[], None);
            builder.append_values(&[row.as_bytes()], 0).unwrap();
            prop_assert_eq!(builder.rows() + builder.rejected().len(), 1);
            prop_assert!(!line.contains('\n'));
        }
    }
}
