//! A simulated fleet: hosts with GPUs, jobs that come and go on them, and what dcgm-exporter would say of it.
//!
//! [`workload`] says what jobs are like and [`load`] when there are many; [`host`] runs them; [`gpu`] is what they do to a
//! GPU, and [`fields`] what is read off it; [`write`] makes lines and rows of that.
//!
//! The same options give the same bytes, on every machine and in every version that has not changed what a GPU does
//! (test: `tests/fleet.rs`). So only arithmetic that IEEE 754 fixes to the last bit is used, and random numbers come from
//! the seed. A host depends on the seed and its own number alone: a larger fleet has the smaller one in it.

mod fields;
mod gpu;
mod host;
mod load;
mod random;
mod workload;
mod write;

use self::host::Host;
use self::load::load_at;
use self::write::{LineFields, push_rows, rfc3339};
use crate::error::{Code, Error, Result};
use crate::partitioner::partition_for_key;
use crate::telemetry::Batch;
use crate::wire::record::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, put_record};

pub use fields::{FIELDS, Field};
pub use write::CSV_HEADER;

/// Most hosts of a fleet.
pub const MAX_HOSTS: u32 = 65_536;
/// Most GPUs of a host.
pub const MAX_GPUS: u32 = 16;
const MIN_INTERVAL_NS: i64 = 1_000_000;
const MAX_INTERVAL_NS: i64 = 86_400_000_000_000;
/// The year 2250: 64 bits hold the ends of all jobs before it.
const END_NS: i64 = 8_835_955_200_000_000_000;
const MAX_PARTITIONS: u32 = 65_536;

/// More than any record here takes; see the test of it.
const MAX_POINT_BYTES: usize = 4096;
/// Rows of a block end when they take this.
const ROWS_BYTES: usize = 4 << 20;

/// Which fleet, and which part of its life.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// 1 to 65,536.
    pub hosts: u32,
    /// GPUs of each host, 1 to 16.
    pub gpus: u32,
    /// How many of [`FIELDS`] there are, the first ones: 1 to 30.
    pub metrics: u32,
    /// Time of the first scrape, nanoseconds since the epoch.
    pub start_ns: i64,
    /// From one scrape to the next: a millisecond to a day.
    pub interval_ns: i64,
    /// Scrapes until it ends; without: endless.
    pub scrapes: Option<u64>,
    /// Says which of all fleets like this one it is.
    pub seed: u64,
}

impl FleetOptions {
    fn check(&self) -> Result<()> {
        let problem = if !(1..=MAX_HOSTS).contains(&self.hosts) {
            format!("{} hosts; a fleet has 1 to {MAX_HOSTS}", self.hosts)
        } else if !(1..=MAX_GPUS).contains(&self.gpus) {
            format!("{} GPUs; a host has 1 to {MAX_GPUS}", self.gpus)
        } else if self.metrics == 0 || self.metrics as usize > FIELDS.len() {
            format!("{} metrics; there are {}, give 1 or more of them", self.metrics, FIELDS.len())
        } else if !(MIN_INTERVAL_NS..=MAX_INTERVAL_NS).contains(&self.interval_ns) {
            format!("an interval of {} ns; give 1 ms to 1 day", self.interval_ns)
        } else if !(0..END_NS).contains(&self.start_ns) {
            format!("a start at {}; give one from 1970 to 2249", rfc3339(self.start_ns))
        } else {
            return Ok(());
        };
        Err(Error::new(Code::InvalidArgument, problem))
    }
}

/// Consecutive GPUs of one scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetBlock<T> {
    /// When they were scraped, nanoseconds since the epoch.
    pub time_ns: i64,
    /// How many GPUs.
    pub points: u64,
    /// Their values, all together.
    pub samples: u64,
    /// What was written.
    pub data: T,
}

/// A fleet that is scraped GPU by GPU, host by host, interval by interval. As lines or as rows; each GPU moves on when it
/// is read.
pub struct Fleet {
    options: FleetOptions,
    hosts: Vec<Host>,
    line_fields: LineFields,
    line: Vec<u8>,
    time_ns: i64,
    scrapes_left: Option<u64>,
    is_first: bool,
    load: f64,
    /// The next GPU: its host, and its index there.
    next: (usize, usize),
}

impl Fleet {
    /// A fleet that has worked for some time already.
    pub fn new(options: FleetOptions) -> Result<Self> {
        options.check()?;
        let hosts = (0..u64::from(options.hosts))
            .map(|number| Host::new(options.seed, number, options.gpus as usize, options.start_ns))
            .collect::<Result<_>>()?;
        Ok(Self {
            hosts,
            line_fields: LineFields::new(options.metrics as usize),
            line: Vec::with_capacity(MAX_POINT_BYTES),
            time_ns: options.start_ns,
            scrapes_left: options.scrapes,
            is_first: true,
            load: load_at(options.start_ns),
            next: (0, 0),
            options,
        })
    }

    /// Time of the scrape that the next GPU belongs to.
    pub fn time_ns(&self) -> i64 {
        self.time_ns
    }

    /// The next GPUs as records, one each with the uuid as its key, in a batch for each partition of a topic.
    ///
    /// A block ends after `max_points`, where a batch is full, and with its scrape. None when all scrapes are done.
    pub fn next_records(&mut self, partitions: u32, max_points: usize) -> Result<Option<FleetBlock<Vec<Batch>>>> {
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let problem = format!("{partitions} partitions; expected 1 to {MAX_PARTITIONS}");
            return Err(Error::new(Code::InvalidArgument, problem));
        }
        let mut batches = vec![Batch::default(); partitions as usize];
        let block = self.scrape(max_points, |fleet, (host, index)| {
            let slot = &fleet.hosts[host].slots[index];
            let key = slot.uuid.as_bytes();
            let batch = &mut batches[partition_for_key(key, partitions) as usize];
            fleet.line.clear();
            fleet.line_fields.push_line(&mut fleet.line, slot, fleet.time_ns);
            // It is far below the bound of a record.
            let _ = put_record(&mut batch.records, &fleet.line, Some(key), 0, &[]);
            batch.count += 1;
            batch.count == MAX_BATCH_RECORDS || batch.records.len() + MAX_POINT_BYTES > MAX_BATCH_BYTES
        })?;
        Ok(block.map(|block| block.with(batches)))
    }

    /// The next GPUs as rows of a dump, without [`CSV_HEADER`]: one a GPU and metric.
    ///
    /// A block ends after `max_points`, at some 4 MiB, and with its scrape. None when all scrapes are done.
    pub fn next_rows(&mut self, max_points: usize) -> Result<Option<FleetBlock<Vec<u8>>>> {
        let mut rows = Vec::new();
        let time = rfc3339(self.time_ns);
        let block = self.scrape(max_points, |fleet, (host, index)| {
            let host = &fleet.hosts[host];
            push_rows(&mut rows, fleet.options.metrics as usize, host, &host.slots[index], &time);
            rows.len() >= ROWS_BYTES
        })?;
        Ok(block.map(|block| block.with(rows)))
    }

    /// Gives GPUs to `write`, each moved on to now, until it says that it is full or the block ends otherwise.
    fn scrape(
        &mut self,
        max_points: usize,
        mut write: impl FnMut(&mut Self, (usize, usize)) -> bool,
    ) -> Result<Option<FleetBlock<()>>> {
        if self.scrapes_left == Some(0) {
            return Ok(None);
        }
        let time_ns = self.time_ns;
        let mut points = 0;
        loop {
            let place @ (host, index) = self.next;
            self.move_on(host, index)?;
            let is_full = write(self, place);
            points += 1;
            self.next = if index + 1 < self.hosts[host].slots.len() { (host, index + 1) } else { (host + 1, 0) };
            if self.next.0 == self.hosts.len() {
                self.begin_scrape()?;
                break;
            }
            if is_full || points >= max_points as u64 {
                break;
            }
        }
        Ok(Some(FleetBlock { time_ns, points, samples: points * u64::from(self.options.metrics), data: () }))
    }

    fn move_on(&mut self, host: usize, index: usize) -> Result<()> {
        let host = &mut self.hosts[host];
        if index == 0 {
            host.advance(self.time_ns)?;
        }
        // At the first scrape it is where it settled.
        if !self.is_first {
            let seconds = self.options.interval_ns as f64 / 1e9;
            host.slots[index].gpu.step(self.load, seconds, &mut host.random);
        }
        Ok(())
    }

    fn begin_scrape(&mut self) -> Result<()> {
        self.next = (0, 0);
        self.is_first = false;
        self.scrapes_left = self.scrapes_left.map(|left| left - 1);
        self.time_ns += self.options.interval_ns;
        if self.time_ns >= END_NS && self.scrapes_left != Some(0) {
            return Err(Error::new(Code::InvalidArgument, "the next scrape is after 2249; let it end or start before"));
        }
        self.load = load_at(self.time_ns);
        Ok(())
    }
}

impl FleetBlock<()> {
    fn with<T>(self, data: T) -> FleetBlock<T> {
        FleetBlock { time_ns: self.time_ns, points: self.points, samples: self.samples, data }
    }
}
