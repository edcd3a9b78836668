//! Records to line protocol: the same points as the columns have, each line with its record.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use broker_core::telemetry::lines::{ColumnBuilder, LineBatch, LineBuilder};
use proptest::prelude::*;

fn builder() -> LineBuilder {
    LineBuilder::new("gpu", &[], &[], None)
}

fn text(batch: &LineBatch) -> String {
    String::from_utf8(batch.lines.clone()).unwrap()
}

#[test]
fn given_lines_when_finished_then_they_are_as_they_came_but_for_numbers_that_are_no_floats() {
    let mut builder = builder();
    builder.append_values(&[b"gpu,uuid=a\\ b util=1.50,temp=-2e3 10 \r\n"], 0).unwrap();
    builder
        .append_values(&[b"# x\n\n  gpu util=7i,temp=3u,on=t,off=False,half=.5,whole=1. 20\ngpu util=0 5"], 7)
        .unwrap();
    assert_eq!((builder.rows(), builder.rejected().len()), (3, 0));
    let batch = builder.finish().unwrap();
    assert_eq!(
        text(&batch),
        "gpu,uuid=a\\ b util=1.50,temp=-2e3 10\ngpu util=7,temp=3,on=1,off=0,half=0.5,whole=1 20\ngpu util=0 5\n"
    );
    assert_eq!((batch.index.len(), batch.index.samples()), (3, 9));
    assert_eq!((builder.rows(), builder.finish().unwrap().index.len()), (0, 0));
}

#[test]
fn given_a_line_without_time_when_there_is_a_default_then_it_is_written() {
    let mut builder = LineBuilder::new("gpu", &[], &[], Some(-7));
    builder.append_values(&[b"gpu util=1\ngpu util=2  \ngpu util=3 4"], 0).unwrap();
    assert_eq!(text(&builder.finish().unwrap()), "gpu util=1 -7\ngpu util=2 -7\ngpu util=3 4\n");
}

#[test]
fn given_records_with_bad_lines_between_when_a_line_is_asked_for_then_its_record_is_told() {
    let mut builder = builder();
    builder.append_values(&[&b"gpu util=1 1\nbad\ngpu util=2 2"[..], b"bad", b"gpu util=3 3"], 40).unwrap();
    builder.append_values(&[b"gpu util=4 4"], 0).unwrap();
    let rejected: Vec<_> = builder.rejected().iter().map(|line| (line.offset, line.reason.as_str())).collect();
    assert_eq!(rejected, [(40, "syntax"), (41, "syntax")]);
    let index = builder.finish().unwrap().index;
    let places: Vec<_> =
        (0..index.len()).map(|line| index.place(line).map(|place| (place.append, place.offset)).unwrap()).collect();
    assert_eq!(places, [(0, 40), (0, 40), (0, 42), (1, 0)]);
    assert!(index.place(4).is_none());
}

#[test]
fn given_a_bound_when_cut_then_runs_of_whole_lines_below_it() {
    let mut builder = builder();
    let long = format!("gpu {}=1 1", "x".repeat(100));
    builder.append_values(&[b"gpu a=1 1", b"gpu a=2 2", long.as_bytes(), b"gpu a=3 3"], 0).unwrap();
    let batch = builder.finish().unwrap();
    let index = &batch.index;
    assert_eq!(index.cut(20), [(0, 2), (2, 3), (3, 4)]);
    assert_eq!(index.cut(19), [(0, 1), (1, 2), (2, 3), (3, 4)]);
    assert_eq!(index.cut(usize::MAX), [(0, 4)]);
    assert_eq!(batch.lines[index.bytes(1, 2)], *b"gpu a=2 2\n");
    assert_eq!((index.bytes(2, 2), index.bytes(9, 10)), (0..0, 0..0));
    assert_eq!(index.bytes(0, 9), 0..batch.lines.len());
    assert_eq!(builder.finish().unwrap().index.cut(20), []);
}

proptest! {
    #[test]
    fn given_any_records_when_passed_on_then_columns_of_the_lines_are_columns_of_the_records(
        values in prop::collection::vec(
            "(gpu|cpu)?(,a=[a1\\\\ ,]{1,3})?( [ab]=(1|-2i|3u|t|\\.5|1\\.|1e3|[1it\",]{1,3}))?(,c=[0-9]{1,3}i?)?[ ]{0,2}(1|2)?[ \r\n#]{0,2}",
            0..12,
        ),
        default_time_ns in proptest::option::of(any::<i64>()),
    ) {
        let mut columns = ColumnBuilder::new("gpu", &[], &[], default_time_ns);
        columns.append_values(&values, 5).unwrap();
        let mut lines = LineBuilder::new("gpu", &[], &[], default_time_ns);
        lines.append_values(&values, 5).unwrap();
        prop_assert_eq!(lines.rejected(), columns.rejected());
        prop_assert_eq!(lines.rows(), columns.rows());
        let batch = lines.finish().unwrap();
        let mut again = ColumnBuilder::new("gpu", &[], &[], None);
        again.append_values(&[&batch.lines], 0).unwrap();
        prop_assert_eq!(again.rejected().len(), usize::from(batch.index.is_empty()));
        prop_assert_eq!(again.finish().unwrap().batch, columns.finish().unwrap().batch);
    }
}
