//! Line protocol to Arrow columns against a plain model.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, TimestampNanosecondType};
use arrow_array::{Array, StringArray};
use broker_core::telemetry::lines::escape::carried;
use broker_core::telemetry::lines::{ColumnBuilder, Columns, LineFault, encode_point};
use broker_core::wire::record::put_record;
use proptest::prelude::*;

type Row = (i64, BTreeMap<String, String>, BTreeMap<String, f64>);

fn builder() -> ColumnBuilder {
    ColumnBuilder::new("gpu", &[], &[], None)
}

fn append(builder: &mut ColumnBuilder, value: &[u8], offset: u64) {
    builder.append_values(&[value], offset).unwrap();
}

fn rows(columns: &Columns) -> Vec<Row> {
    let batch = &columns.batch;
    let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
    (0..batch.num_rows())
        .map(|row| {
            let tags = columns.tags.iter().enumerate().filter_map(|(index, name)| {
                let column = batch.column(1 + index).as_dictionary::<Int32Type>();
                let values = column.downcast_dict::<StringArray>().unwrap();
                column.is_valid(row).then(|| (name.clone(), values.into_iter().nth(row).unwrap().unwrap().to_owned()))
            });
            let fields = columns.fields.iter().enumerate().filter_map(|(index, name)| {
                let column = batch.column(1 + columns.tags.len() + index).as_primitive::<Float64Type>();
                column.is_valid(row).then(|| (name.clone(), column.value(row)))
            });
            (times.value(row), tags.collect(), fields.collect())
        })
        .collect()
}

fn reasons(builder: &ColumnBuilder) -> Vec<(u64, &'static str)> {
    builder.rejected().iter().map(|line| (line.offset, line.reason.as_str())).collect()
}

#[test]
fn given_lines_of_other_shapes_when_finished_then_columns_by_name_with_nulls() {
    let mut builder = builder();
    append(&mut builder, b"gpu,uuid=a,host=h\\ 1 util=1,temp=2i 10\n\n# comment\r\ngpu,uuid=b util=t 20\r\n", 0);
    append(&mut builder, b"gpu power=-1.5e3,util=4u,temp=F 30", 1);
    assert_eq!((builder.rows(), builder.rejected().len()), (3, 0));
    let columns = builder.finish().unwrap();
    let names: Vec<_> = columns.batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["time", "host", "uuid", "power", "temp", "util"]);
    let text = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let numbers = |pairs: &[(&str, f64)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<BTreeMap<_, _>>();
    assert_eq!(
        rows(&columns),
        [
            (10, text(&[("host", "h 1"), ("uuid", "a")]), numbers(&[("temp", 2.0), ("util", 1.0)])),
            (20, text(&[("uuid", "b")]), numbers(&[("util", 1.0)])),
            (30, text(&[]), numbers(&[("power", -1500.0), ("temp", 0.0), ("util", 4.0)])),
        ]
    );
    assert_eq!((builder.rows(), rows(&builder.finish().unwrap()).len()), (0, 0));
}

#[test]
fn given_each_kind_of_bad_line_between_good_ones_when_appended_then_only_it_is_refused() {
    let many: Vec<_> = (0..501).map(|index| format!("f{index}=1")).collect();
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"gpu".to_vec(), "syntax"),
        (b"gpu,uuid=x".to_vec(), "syntax"),
        (b"gpu, util=1 1".to_vec(), "syntax"),
        (b"gpu,uuid util=1 1".to_vec(), "syntax"),
        (b"gpu,uuid= util=1 1".to_vec(), "syntax"),
        (b"gpu,=x util=1 1".to_vec(), "syntax"),
        (b"gpu,uuid=x, util=1 1".to_vec(), "syntax"),
        (b"gpu,,uuid=x util=1 1".to_vec(), "syntax"),
        (b"gpu =1 1".to_vec(), "syntax"),
        (b"gpu util 1".to_vec(), "syntax"),
        (b"gpu util=,temp=1 1".to_vec(), "syntax"),
        (b"gpu util=1, 1".to_vec(), "syntax"),
        (b"gpu util=1,,temp=2 1".to_vec(), "syntax"),
        (b"cpu util=1 1".to_vec(), "measurement"),
        (b",uuid=x util=1 1".to_vec(), "measurement"),
        (b"gpu util=1".to_vec(), "time"),
        (b"gpu util=1 x".to_vec(), "time"),
        (b"gpu util=1 1 2".to_vec(), "time"),
        (b"gpu util=1 9223372036854775808".to_vec(), "time"),
        (b"gpu util=nan 1".to_vec(), "number"),
        (b"gpu util=1e999 1".to_vec(), "number"),
        (b"gpu util=1x 1".to_vec(), "number"),
        (b"gpu util=\"text\" 1".to_vec(), "string"),
        (b"gpu util=\"two\nlines\" 1".to_vec(), "string"),
        (b"gpu util=1,util=2 1".to_vec(), "duplicate"),
        (b"gpu new=1,new=2 1".to_vec(), "duplicate"),
        (b"gpu,new=x,new=y util=1 1".to_vec(), "duplicate"),
        (b"gpu,util=x temp=1 1".to_vec(), "name"),
        (b"gpu,x=1 uuid=1 1".to_vec(), "name"),
        (b"gpu,new=x new=1 1".to_vec(), "name"),
        (b"gpu,time=x util=1 1".to_vec(), "name"),
        (b"gpu Time=1 1".to_vec(), "name"),
        (b"gpu UTIL=1 1".to_vec(), "name"),
        (b"gpu new=1,NEW=1 1".to_vec(), "name"),
        (b"gpu new\0=1 1".to_vec(), "name"),
        (b"gpu new\x1b=1 1".to_vec(), "name"),
        (b"gpu,ne\0w=x util=1 1".to_vec(), "name"),
        (b"gpu date=1 1".to_vec(), "name"),
        (b"gpu,Nanos=x util=1 1".to_vec(), "name"),
        (b"gpu pod=1 1".to_vec(), "name"),
        (b"gpu,Hostname=x util=1 1".to_vec(), "name"),
        (format!("gpu {} 1", many.join(",")).into_bytes(), "columns"),
        (b"gpu,uuid=\xff util=1 1".to_vec(), "utf8"),
        (b"gpu \xff=1 1".to_vec(), "utf8"),
        (b"".to_vec(), "empty"),
        (b"\n# only a comment\n".to_vec(), "empty"),
    ];
    for neighbours_in_one_record in [false, true] {
        let mut builder = builder();
        append(&mut builder, b"gpu,uuid=a util=1,temp=2 1", 0);
        for (offset, (line, _)) in (1..).zip(&bad) {
            if neighbours_in_one_record {
                append(
                    &mut builder,
                    &[b"gpu,uuid=a util=1,temp=2 1\n", &line[..], b"\ngpu,uuid=b temp=3 2"].concat(),
                    offset,
                );
            } else {
                append(&mut builder, line, offset);
                append(&mut builder, b"gpu,uuid=a util=1,temp=2 1", 1000);
            }
        }
        let expected = (1..).zip(&bad).map(|(offset, (_, reason))| (offset, *reason));
        let kept = |(_, reason): &(u64, &str)| !neighbours_in_one_record || *reason != "empty";
        assert_eq!(reasons(&builder), expected.filter(kept).collect::<Vec<_>>());
        for (rejected, (line, _)) in builder.rejected().iter().zip(&bad) {
            assert_eq!(&rejected.line, line);
        }
        assert_eq!(builder.rows(), 1 + bad.len() * if neighbours_in_one_record { 2 } else { 1 });
        let columns = builder.finish().unwrap();
        assert_eq!(
            (columns.tags, columns.fields),
            (vec!["uuid".to_owned()], vec!["temp".to_owned(), "util".to_owned()])
        );
        assert!(builder.rejected().is_empty());
    }
}

#[test]
fn given_names_of_the_table_when_a_line_uses_one_otherwise_then_the_line_is_refused_and_not_its_followers() {
    let mut builder = ColumnBuilder::new("gpu", &["uuid".to_owned()], &["util".to_owned(), "old".to_owned()], Some(5));
    append(&mut builder, b"gpu,util=poison x=1", 0);
    append(&mut builder, b"gpu,uuid=a util=1", 1);
    append(&mut builder, b"gpu Old=1", 2);
    assert_eq!(reasons(&builder), [(0, "name"), (2, "name")]);
    let columns = builder.finish().unwrap();
    assert_eq!((&*columns.tags, &*columns.fields), (&["uuid".to_owned()][..], &["util".to_owned()][..]));
    assert_eq!(rows(&columns)[0].0, 5);
    // What is known stays known after a batch.
    append(&mut builder, b"gpu,util=poison x=1", 0);
    assert_eq!(reasons(&builder), [(0, "name")]);
}

#[test]
fn given_names_that_need_escapes_when_lines_repeat_then_the_guess_by_shape_does_not_mix_them_up() {
    let mut builder = builder();
    append(&mut builder, b"gpu a\\=b=1,c\\\\=1 1\ngpu a=1,c=2 1\ngpu a\\=b=3,c\\\\=4 1", 0);
    append(&mut builder, b"gpu a=b=1 1", 1);
    assert_eq!(reasons(&builder), [(1, "number")]);
    let columns = builder.finish().unwrap();
    assert_eq!(columns.fields, ["a", "a=b", "c", "c\\"]);
    assert_eq!(rows(&columns)[2].2, BTreeMap::from([("a=b".to_owned(), 3.0), ("c\\".to_owned(), 4.0)]));
}

#[test]
fn given_a_buffer_that_is_no_run_of_records_when_appended_then_nothing_of_it_is() {
    let mut buffer = Vec::new();
    put_record(&mut buffer, b"gpu util=1 1", Some(b"key"), 0, &[]).unwrap();
    put_record(&mut buffer, b"gpu util=2 2\nbad", Some(b"key"), 0, &[]).unwrap();
    let mut builder = builder();
    assert_eq!(builder.append_records(&buffer, 41).unwrap(), 2);
    assert_eq!(reasons(&builder), [(42, "syntax")]);
    buffer.pop();
    assert!(builder.append_records(&buffer, 43).is_err());
    assert_eq!((builder.rows(), builder.rejected().len()), (2, 1));
}

fn any_name() -> impl Strategy<Value = String> {
    // Tags and fields get different first letters; case-clashes are left to the tests above.
    "[a-c ,=\\\\é\"\n]{0,3}[a-c]"
}

proptest! {
    #[test]
    fn given_any_points_when_encoded_and_decoded_then_the_model(points in prop::collection::vec((
        prop::collection::btree_map(any_name(), "[a-c ,=\\\\é\"\n\t]{0,4}", 0..4),
        prop::collection::btree_map(any_name(), any::<f64>().prop_filter("finite", |value| value.is_finite()), 1..5),
        any::<i64>(),
    ), 0..20)) {
        let mut buffer = Vec::new();
        let mut model: Vec<Row> = Vec::new();
        for (tags, fields, time_ns) in points {
            let tags: BTreeMap<_, _> = tags.into_iter().map(|(name, value)| (format!("t{name}"), value)).collect();
            let fields: BTreeMap<_, _> = fields.into_iter().map(|(name, value)| (format!("f{name}"), value)).collect();
            let line = encode_point(
                "gpu",
                tags.iter().map(|(name, value)| (&**name, &**value)),
                fields.iter().map(|(name, value)| (&**name, *value)),
                time_ns,
            )
            .unwrap();
            let pairs = tags.iter().map(|(name, value)| (carried(name).into_owned(), carried(value).into_owned()));
            let carried_tags: BTreeMap<_, _> = pairs.filter(|(_, value)| !value.is_empty()).collect();
            let carried_fields: BTreeMap<_, _> = fields.iter().map(|(n, v)| (carried(n).into_owned(), *v)).collect();
            // Two names that are carried as one make a line that is refused.
            let unlike = tags.keys().map(|n| carried(n)).collect::<std::collections::HashSet<_>>().len() == tags.len();
            if carried_fields.len() == fields.len() && unlike {
                put_record(&mut buffer, &line, Some(b""), 0, &[]).unwrap();
                model.push((time_ns, carried_tags, carried_fields));
            }
        }
        let mut builder = builder();
        prop_assert_eq!(builder.append_records(&buffer, 0).unwrap(), model.len() as u64);
        prop_assert_eq!(reasons(&builder), []);
        let estimate = builder.nbytes();
        let columns = builder.finish().unwrap();
        prop_assert_eq!(rows(&columns), model);
        prop_assert!(columns.batch.num_rows() == 0 || estimate > 0);
    }

    #[test]
    fn given_any_bytes_when_appended_then_each_line_is_a_row_or_refused(
        values in prop::collection::vec("(gpu|cpu)?[,a=\\\\\"1 \n\r#t]{0,12}( [ab]=[1it\",]{1,3})?( 1)?", 0..12),
        junk in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut builder = builder();
        for (offset, value) in (0..).zip(values.iter().map(String::as_bytes).chain([&junk[..]])) {
            let before = builder.rows() + builder.rejected().len();
            append(&mut builder, value, offset);
            prop_assert!(builder.rows() + builder.rejected().len() > before, "a record without a trace");
        }
        let rows_before = builder.rows();
        prop_assert_eq!(builder.finish().unwrap().batch.num_rows(), rows_before);
    }
}

#[test]
fn given_every_reason_when_listed_then_names_are_distinct() {
    let names: std::collections::HashSet<_> = LineFault::ALL.iter().map(|fault| fault.as_str()).collect();
    assert_eq!(names.len(), LineFault::ALL.len());
}
