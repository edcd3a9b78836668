//! A single point as a line.

use crate::error::{Code, Error, Result};

use super::escape::{push_measurement, push_name, push_number, push_time};

/// Writes a point as one line, without a line end. Tags and fields keep their order; tags with an empty value are left
/// out.
pub fn encode_point<'a>(
    measurement: &str,
    tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    fields: impl IntoIterator<Item = (&'a str, f64)>,
    time_ns: i64,
) -> Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    if !push_measurement(&mut line, measurement) {
        return Err(empty_name("measurement"));
    }
    for (name, value) in tags {
        let before = line.len();
        line.push(b',');
        if !push_name(&mut line, name) {
            return Err(empty_name("tag name"));
        }
        line.push(b'=');
        if !push_name(&mut line, value) {
            line.truncate(before);
        }
    }
    let mut separator = b' ';
    for (name, value) in fields {
        line.push(separator);
        separator = b',';
        if !push_name(&mut line, name) {
            return Err(empty_name("field name"));
        }
        if !value.is_finite() {
            return Err(refused(format!(
                "field {name:?} is NaN or infinite; line protocol has finite numbers only, so leave it out"
            )));
        }
        line.push(b'=');
        push_number(&mut line, value);
    }
    if separator == b' ' {
        return Err(refused(format!("the point of measurement {measurement:?} has no field; give it at least one")));
    }
    line.push(b' ');
    push_time(&mut line, time_ns);
    Ok(line)
}

fn refused(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

fn empty_name(what: &str) -> Error {
    refused(format!("the point has an empty {what}; give it a name (backslashes at its end do not count)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_point_when_encoded_then_names_and_values_are_escaped() {
        let line =
            encode_point("my gpu", [("a=b", "c, d"), ("empty", "")], [("util", 87.0), ("x y", 0.5)], -5).unwrap();
        assert_eq!(line, br"my\ gpu,a\=b=c\,\ d util=87,x\ y=0.5 -5");
    }

    #[test]
    fn given_points_without_a_line_when_encoded_then_each_is_refused_by_kind() {
        let none: [(&str, &str); 0] = [];
        let refused = |result: Result<Vec<u8>>| {
            let err = result.unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument);
            err.message().to_owned()
        };
        assert!(refused(encode_point("", none, [("f", 1.0)], 0)).contains("empty measurement"));
        assert!(refused(encode_point("m", [("", "x")], [("f", 1.0)], 0)).contains("empty tag name"));
        assert!(refused(encode_point("m", none, [("\\", 1.0)], 0)).contains("empty field name"));
        assert!(refused(encode_point("m", none, [], 0)).contains("\"m\" has no field"));
        assert!(refused(encode_point("m", none, [("f", f64::NAN)], 0)).contains("\"f\" is NaN"));
    }
}
