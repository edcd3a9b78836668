//! How busy a fleet's people are: by the hour and the day of the week, in UTC.

/// Share of the busiest hour, hour by hour from midnight. A table and straight lines between its entries: a sine would
/// differ from one C library to the next, and the same seed must give the same bytes everywhere.
const BY_HOUR: [f64; 24] = [
    0.42, 0.38, 0.35, 0.33, 0.33, 0.35, 0.41, 0.52, 0.68, 0.83, 0.93, 0.98, 0.95, 0.97, 1.00, 0.99, 0.95, 0.88, 0.80,
    0.73, 0.67, 0.61, 0.54, 0.47,
];
const WEEKEND: f64 = 0.65;

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;

/// Load at a time, nanoseconds since the epoch: above 0, at most 1.
pub(super) fn load_at(time_ns: i64) -> f64 {
    let in_day = time_ns.rem_euclid(DAY_NS);
    let hour = usize::try_from(in_day / HOUR_NS).unwrap_or_default();
    let (from, to) = (BY_HOUR[hour], BY_HOUR[(hour + 1) % BY_HOUR.len()]);
    let part = (in_day % HOUR_NS) as f64 / HOUR_NS as f64;
    // The epoch began on a Thursday.
    let is_weekend = matches!(time_ns.div_euclid(DAY_NS).rem_euclid(7), 2 | 3);
    (from + (to - from) * part) * if is_weekend { WEEKEND } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::parse_time;

    fn load(time: &str) -> f64 {
        load_at(parse_time(time.as_bytes()).unwrap())
    }

    #[test]
    fn given_nights_and_weekends_when_asked_then_there_is_less_to_do() {
        assert!(load("2025-07-18T14:00:00Z") > 2.5 * load("2025-07-18T03:00:00Z"));
        assert!(load("2025-07-18T14:00:00Z") > 1.4 * load("2025-07-19T14:00:00Z"), "a Friday and a Saturday");
        assert!((load("2025-07-20T14:00:00Z") - load("2025-07-19T14:00:00Z")).abs() < 1e-9, "a Sunday and a Saturday");
    }

    #[test]
    fn given_an_hour_that_ends_when_asked_then_load_goes_on_from_where_it_was() {
        for hour in 0..72 {
            let before = load_at(hour * HOUR_NS - 1);
            let after = load_at(hour * HOUR_NS);
            let midnight = hour % 24 == 0;
            assert!(midnight || (before - after).abs() < 1e-6, "hour {hour}: {before} then {after}");
        }
    }
}
