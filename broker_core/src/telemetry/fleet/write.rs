//! A GPU's fields as a line of line protocol, or as the rows of a dump.

use super::fields::{FIELDS, Field};
use super::gpu::Gpu;
use super::host::{DRIVER, EXPORTER, Host, MODEL, PORT, Slot};
use crate::telemetry::lines::escape::{push_digits, push_name, push_time};

/// First line of a dump.
pub const CSV_HEADER: &str =
    "timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace,value,labels_raw\n";

/// The fields in the order of their names, ready to be written.
pub(super) struct LineFields(Vec<(Vec<u8>, &'static Field)>);

impl LineFields {
    /// The first `metrics` ones.
    pub fn new(metrics: usize) -> Self {
        let mut fields: Vec<_> = FIELDS.iter().take(metrics).collect();
        fields.sort_unstable_by_key(|field| field.name);
        let written = |field: &&'static Field| {
            let mut name = Vec::new();
            push_name(&mut name, field.name);
            name.push(b'=');
            (name, *field)
        };
        Self(fields.iter().map(written).collect())
    }

    /// Appends the point of a GPU, without a line end.
    pub fn push_line(&self, out: &mut Vec<u8>, slot: &Slot, time_ns: i64) {
        out.extend_from_slice(&slot.series);
        let mut separator = b' ';
        for (name, field) in &self.0 {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(name);
            push_value(out, field, &slot.gpu);
        }
        out.push(b' ');
        push_time(out, time_ns);
    }
}

/// Appends the rows of a GPU, one a metric: columns and labels as Prometheus has them of dcgm-exporter.
pub(super) fn push_rows(out: &mut Vec<u8>, metrics: usize, host: &Host, slot: &Slot, time: &str) {
    let [namespace, pod, container] = slot.place();
    let (hostname, uuid, index, device) = (&host.name, &slot.uuid, &slot.index, &slot.device);
    let head = format!("\"{time}\",\"");
    let columns = format!(
        "\",\"{index}\",\"{device}\",\"{uuid}\",\"{MODEL}\",\"{hostname}\",\"{container}\",\"{pod}\",\"{namespace}\",\""
    );
    let labels = format!(
        "\",\"DCGM_FI_DRIVER_VERSION=\"\"{DRIVER}\"\",Hostname=\"\"{hostname}\"\",UUID=\"\"{uuid}\"\",__name__=\"\""
    );
    let label = |name, value: &str| if value.is_empty() { String::new() } else { format!(",{name}=\"\"{value}\"\"") };
    let tail = format!(
        "\"\"{}{}{}{}{}{}{}{}\"\n",
        label("container", container),
        label("device", device),
        label("gpu", index),
        label("instance", &format!("{hostname}:{PORT}")),
        label("job", EXPORTER),
        label("modelName", MODEL),
        label("namespace", namespace),
        label("pod", pod),
    );
    for field in FIELDS.iter().take(metrics) {
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(columns.as_bytes());
        push_value(out, field, &slot.gpu);
        out.extend_from_slice(labels.as_bytes());
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(tail.as_bytes());
    }
}

/// Appends a value with as many digits behind the point as it needs, up to those that DCGM gives.
fn push_value(out: &mut Vec<u8>, field: &Field, gpu: &Gpu) {
    const POWERS: [u32; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let decimals = usize::from(field.decimals);
    let power = POWERS[decimals];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no field is below 0 or above 2^53")]
    let scaled = ((field.read)(gpu) * f64::from(power) + 0.5) as u64;
    let (whole, mut fraction) = (scaled / u64::from(power), scaled % u64::from(power));
    push_digits(out, whole);
    if fraction == 0 {
        return;
    }
    out.push(b'.');
    let start = out.len();
    out.resize(start + decimals, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit += (fraction % 10) as u8;
        fraction /= 10;
    }
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

/// RFC 3339 in UTC, with as many digits behind the second as there are.
pub(super) fn rfc3339(time_ns: i64) -> String {
    const SECOND_NS: i64 = 1_000_000_000;
    let (seconds, fraction) = (time_ns.div_euclid(SECOND_NS), time_ns.rem_euclid(SECOND_NS));
    let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years of 365.2425 days that begin in March, counted from 0000-03-01: the leap day is the last of its year.
    let day = days + 719_468;
    let mut year = (day * 400 + 591).div_euclid(146_097);
    let first_of = |year: i64| year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    while first_of(year) > day {
        year -= 1;
    }
    let of_year = day - first_of(year);
    let month = (of_year * 5 + 2) / 153;
    let of_month = of_year - (month * 153 + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut text = format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        text.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sample::parse_time;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn given_any_time_when_written_then_it_reads_back(time_ns in any::<i64>(), whole in any::<bool>()) {
            let time_ns = if whole { time_ns / 1_000_000_000 * 1_000_000_000 } else { time_ns };
            prop_assert_eq!(parse_time(rfc3339(time_ns).as_bytes()), Some(time_ns), "{}", rfc3339(time_ns));
        }
    }

    #[test]
    fn given_known_times_when_written_then_short() {
        assert_eq!(rfc3339(1_752_871_354_000_000_000), "2025-07-18T20:42:34Z");
        assert_eq!(rfc3339(1_709_251_199_250_000_000), "2024-02-29T23:59:59.25Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
