//! One host: its GPUs, and the jobs that come and go on them.

use std::sync::Arc;

use super::gpu::Gpu;
use super::load::load_at;
use super::random::Random;
use super::workload::{Job, hours};
use crate::error::{Code, Error, Result};
use crate::telemetry::tags::{GpuLabels, TagSet};

pub(super) const MODEL: &str = "NVIDIA H100 80GB HBM3";
pub(super) const DRIVER: &str = "535.129.03";
/// Port and Prometheus job of the exporter.
pub(super) const PORT: u16 = 9400;
pub(super) const EXPORTER: &str = "dgx_dcgm_exporter";
/// From one job to the next at the busiest hour, on average. At the usual lengths of jobs some three quarters of the GPUs
/// have one then.
const BETWEEN_JOBS_HOURS: f64 = 1.5;
/// How long before its first scrape a host already worked.
const HISTORY_HOURS: f64 = 72.0;

pub(super) struct Host {
    pub name: String,
    pub slots: Vec<Slot>,
    pub random: Random,
    next_job_ns: i64,
}

/// A GPU in its place.
pub(super) struct Slot {
    pub gpu: Gpu,
    pub uuid: String,
    /// Its index in the host, and the name that the system has for it.
    pub index: String,
    pub device: String,
    pub job: Option<Arc<Job>>,
    /// What a line begins with, while the job is the same.
    pub series: Vec<u8>,
}

impl Host {
    pub fn new(seed: u64, number: u64, gpus: usize, start_ns: i64) -> Result<Self> {
        // From its own number alone: a fleet that grows keeps the hosts that it had.
        let mut random = Random::new(seed, [number, 0]);
        let inlet_c = random.between(21.0, 26.0);
        let slots = (0..gpus)
            .map(|index| Slot {
                gpu: Gpu::new(inlet_c, &mut random),
                uuid: uuid(&mut Random::new(seed, [number, 1 + index as u64])),
                index: index.to_string(),
                device: format!("nvidia{index}"),
                job: None,
                series: Vec::new(),
            })
            .collect();
        let next_job_ns = start_ns - hours(HISTORY_HOURS);
        let mut host = Self { name: format!("sim{seed}-hgpu-{number:04}"), slots, random, next_job_ns };
        host.schedule(start_ns);
        let load = load_at(start_ns);
        for slot in &mut host.slots {
            // By then what follows the job has long followed, but for the counters: they go on from where they are.
            slot.gpu.settle(load, &mut host.random);
        }
        for index in 0..gpus {
            host.name_series(index)?;
        }
        Ok(host)
    }

    /// Ends the jobs that are over, and starts what was submitted, up to a time.
    pub fn advance(&mut self, now_ns: i64) -> Result<()> {
        let changed = self.schedule(now_ns);
        for index in 0..self.slots.len() {
            if changed & (1 << index) != 0 {
                self.name_series(index)?;
            }
        }
        Ok(())
    }

    /// Bit by bit, the GPUs whose job is another one now.
    fn schedule(&mut self, now_ns: i64) -> u64 {
        let mut changed = 0;
        while self.next_job_ns <= now_ns {
            let submitted_ns = self.next_job_ns;
            changed |= self.end_jobs(submitted_ns);
            changed |= self.start_job(submitted_ns);
            let pause = 2.0 * BETWEEN_JOBS_HOURS * self.random.unit() / load_at(submitted_ns);
            self.next_job_ns = submitted_ns + hours(pause).max(1);
        }
        changed | self.end_jobs(now_ns)
    }

    fn end_jobs(&mut self, now_ns: i64) -> u64 {
        let mut changed = 0;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.job.as_ref().is_some_and(|job| job.end_ns <= now_ns) {
                slot.job = None;
                slot.gpu.assign(None);
                changed |= 1 << index;
            }
        }
        changed
    }

    fn start_job(&mut self, now_ns: i64) -> u64 {
        let mut changed = 0;
        let job = Arc::new(Job::submitted(now_ns, &mut self.random));
        let free = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.job.is_none());
        for (index, slot) in free.take(job.gpus) {
            slot.gpu.assign(Some(job.workload));
            slot.job = Some(Arc::clone(&job));
            changed |= 1 << index;
        }
        changed
    }

    fn name_series(&mut self, index: usize) -> Result<()> {
        let slot = &self.slots[index];
        let labels = format!(r#"DCGM_FI_DRIVER_VERSION="{DRIVER}",instance="{}:{PORT}",job="{EXPORTER}""#, self.name);
        let [namespace, pod, container] = slot.place();
        let tags = TagSet::new(&GpuLabels {
            hostname: &self.name,
            gpu: &slot.index,
            uuid: &slot.uuid,
            device: &slot.device,
            model: MODEL,
            namespace,
            pod,
            container,
            labels: &labels,
        });
        let tags = tags.map_err(|fault| {
            Error::new(Code::Internal, format!("the labels of {} cannot be tags: {}", slot.uuid, fault.as_str()))
        })?;
        self.slots[index].series = tags.series;
        Ok(())
    }
}

impl Slot {
    /// The job's namespace, pod and container; empty without a job.
    pub fn place(&self) -> [&str; 3] {
        self.job.as_deref().map_or([""; 3], |job| [job.namespace, &job.pod, job.container])
    }
}

fn uuid(random: &mut Random) -> String {
    let (high, low) = (random.next(), random.next());
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFF_FFFF_FFFF
    )
}
