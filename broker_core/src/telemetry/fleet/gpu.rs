//! One GPU: what is measured at it, and how that moves from one scrape to the next.

use super::random::Random;
use super::workload::Workload;

/// Power that the GPU never passes for long, in watts: an H100 SXM's.
const POWER_LIMIT_W: f64 = 700.0;
/// Memory in MiB, used and free together.
const FB_MIB: f64 = 81_007.0;
/// Times in seconds in which about two thirds of a change are through.
const WANDER_SECONDS: f64 = 90.0;
const POWER_SECONDS: f64 = 4.0;
const TEMP_SECONDS: f64 = 45.0;
const FB_SECONDS: f64 = 15.0;

/// The state behind the fields. Its units are theirs.
#[derive(Debug)]
pub struct Gpu {
    workload: Option<Workload>,
    /// Share of the time in which it works.
    pub(super) busy: f64,
    pub(super) power_w: f64,
    pub(super) temp_c: f64,
    pub(super) fb_used_mib: f64,
    /// Since its host was started.
    pub(super) energy_mj: f64,
    pub(super) nvlink_mb: f64,
    pub(super) power_violation_ns: f64,
    /// From -1 to 1: where the work wanders.
    wander: f64,
    jitter: f64,
    idle_w: f64,
    inlet_c: f64,
}

impl Gpu {
    /// A GPU without a job, in a host whose air comes in at this temperature.
    pub(super) fn new(inlet_c: f64, random: &mut Random) -> Self {
        let idle_w = random.between(66.5, 74.5);
        let inlet_c = inlet_c + random.between(0.0, 6.0);
        let up_seconds = random.between(1.0, 60.0) * 86_400.0;
        Self {
            workload: None,
            busy: 0.0,
            power_w: idle_w,
            temp_c: settled_temp_c(inlet_c, idle_w),
            fb_used_mib: 4.0,
            energy_mj: up_seconds * random.between(250.0, 450.0) * 1000.0,
            nvlink_mb: up_seconds * random.between(10_000.0, 60_000.0),
            power_violation_ns: 0.0,
            wander: 0.0,
            jitter: 0.0,
            idle_w,
            inlet_c,
        }
    }

    pub(super) fn assign(&mut self, workload: Option<Workload>) {
        self.workload = workload;
    }

    /// Moves on by a scrape interval.
    pub(super) fn step(&mut self, load: f64, seconds: f64, random: &mut Random) {
        let wanted_w = self.follow(load, seconds, random);
        self.energy_mj += self.power_w * seconds * 1000.0;
        self.nvlink_mb += 120_000.0 * self.tensor() * seconds;
        if wanted_w > POWER_LIMIT_W {
            self.power_violation_ns += seconds * 1e9 * (1.0 - POWER_LIMIT_W / wanted_w);
        }
    }

    /// Takes the values that the job has long brought about. The counters stay.
    pub(super) fn settle(&mut self, load: f64, random: &mut Random) {
        self.follow(load, 86_400.0, random);
    }

    /// Work wanders about what the job asks for, power follows work, temperature follows power. Returns the power that
    /// would be taken without a limit.
    fn follow(&mut self, load: f64, seconds: f64, random: &mut Random) -> f64 {
        let [drift, jitter, power_noise, _] = random.noise();
        self.wander += share(seconds, WANDER_SECONDS) * (1.6 * drift - self.wander);
        self.jitter = jitter;
        let (busy, fb_mib) = match &self.workload {
            Some(work) => {
                let asked = work.busy * (1.0 - work.by_day * (1.0 - load));
                ((asked + work.swing * self.wander + 0.01 * jitter).clamp(0.0, 1.0), work.fb_mib)
            }
            None => (0.0, 4.0),
        };
        self.busy = busy;
        self.fb_used_mib += share(seconds, FB_SECONDS) * (fb_mib - self.fb_used_mib);
        let wanted_w = self.idle_w + 640.0 * (0.35 * busy + 0.9 * self.tensor() + 0.2 * self.dram());
        self.power_w += share(seconds, POWER_SECONDS) * (wanted_w.min(POWER_LIMIT_W) - self.power_w);
        self.power_w = (self.power_w * (1.0 + 0.004 * power_noise)).clamp(self.idle_w - 2.0, POWER_LIMIT_W);
        self.temp_c += share(seconds, TEMP_SECONDS) * (settled_temp_c(self.inlet_c, self.power_w) - self.temp_c);
        wanted_w
    }

    pub(super) fn tensor(&self) -> f64 {
        self.workload.as_ref().map_or(0.0, |work| self.busy * work.tensor)
    }

    pub(super) fn dram(&self) -> f64 {
        self.workload.as_ref().map_or(0.0, |work| self.busy * work.dram)
    }

    pub(super) fn fb_free_mib(&self) -> f64 {
        // Of the rounded number: both are read together, and make up the whole.
        FB_MIB - self.fb_used_mib.round()
    }

    pub(super) fn memory_temp_c(&self) -> f64 {
        self.temp_c + 6.0 + 9.0 * self.dram()
    }

    pub(super) fn sm_clock_mhz(&self) -> f64 {
        if self.busy < 0.005 {
            345.0
        } else if self.power_w > 0.97 * POWER_LIMIT_W {
            1965.0
        } else {
            1980.0
        }
    }

    pub(super) fn pcie_bytes(&self, part: f64) -> f64 {
        part * (1.2e6 + 4.0e9 * self.dram() * (1.0 + 0.3 * self.jitter))
    }
}

/// Share of the way to its target that a value with inertia goes in a time. A quotient, not an exponential, for the
/// same reason as in [`super::load`].
fn share(seconds: f64, inertia_seconds: f64) -> f64 {
    seconds / (seconds + inertia_seconds)
}

fn settled_temp_c(inlet_c: f64, power_w: f64) -> f64 {
    inlet_c + 0.063 * power_w
}
