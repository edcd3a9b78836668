//! The text format of Prometheus, version 0.0.4, in the manner of its Python client: both make parts of one page.

use std::fmt::Write;

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only rises; starts at 0 with the process.
    Counter,
    /// Counts by buckets.
    Histogram,
}

/// A page under construction.
#[derive(Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a family: all its samples follow before the next one. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        debug_assert!(!help.contains(['\\', '\n']), "{help:?} would have to be escaped");
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample of the family.
    pub fn sample(&mut self, labels: &Labels, value: f64) {
        let _ = writeln!(self.text, "{}{{{}}} {value:?}", self.name, labels.0);
    }

    /// Adds a sample of a histogram: `suffix` says which of its numbers.
    pub fn part(&mut self, suffix: &str, labels: &Labels, value: f64) {
        let _ = writeln!(self.text, "{}_{suffix}{{{}}} {value:?}", self.name, labels.0);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Labels of a sample, in the order they are given in.
#[derive(Debug, Clone)]
pub struct Labels(String);

impl Labels {
    /// From names, which need no escaping, and values, which may hold anything.
    pub fn of(labels: &[(&str, &str)]) -> Labels {
        let mut text = String::new();
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        Labels(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_holds_anything_stays_one_value() {
        let mut page = Page::default();
        page.family("m", Kind::Gauge, "Help.");
        page.sample(&Labels::of(&[("a", "x\" 1\nforged{b=\"\\"), ("b", "ü{},= ")]), 0.5);
        let expected = "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\" 1\\nforged{b=\\\"\\\\\",b=\"ü{},= \"} 0.5\n";
        assert_eq!(page.finish(), expected);
    }
}
