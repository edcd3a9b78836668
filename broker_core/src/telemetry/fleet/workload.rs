//! What a job asks of the GPUs that it has.

use super::random::Random;

/// Letters and digits that Kubernetes ends a pod's name with: no vowels, so no words.
const POD_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const NAMESPACES: [&str; 5] = ["research", "vision", "speech", "search", "platform"];

/// A job to be started: who runs it, and what it does.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub namespace: &'static str,
    pub pod: String,
    pub container: &'static str,
    /// GPUs that it wants; it takes fewer where a host has no more.
    pub gpus: usize,
    /// When it ends, nanoseconds since the epoch.
    pub end_ns: i64,
    pub workload: Workload,
}

/// What each GPU of a job does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Share of the time in which the GPU works, at full load.
    pub busy: f64,
    /// How far that wanders up and down.
    pub swing: f64,
    /// How much of it follows the load of the day: 0 for a training run, 1 for a server.
    pub by_day: f64,
    /// Share of the working time in which tensor cores work.
    pub tensor: f64,
    /// The same of its memory.
    pub dram: f64,
    /// Memory that it holds, in MiB.
    pub fb_mib: f64,
}

impl Job {
    /// What is submitted next: training runs, servers and notebooks, in the shares of a research cluster.
    pub fn submitted(time_ns: i64, random: &mut Random) -> Self {
        let namespace = random.pick(&NAMESPACES);
        match random.below(10) {
            0..=3 => Self {
                namespace,
                pod: pod_name(random.pick(&["llm-pretrain", "llm-finetune", "diffusion-train", "asr-train"]), random),
                container: "trainer",
                gpus: random.pick(&[8, 8, 4, 2]),
                // Most are short, some run for days.
                end_ns: time_ns + hours(0.5 + 48.0 * random.unit() * random.unit() * random.unit()),
                workload: Workload {
                    busy: random.between(0.86, 1.0),
                    swing: 0.06,
                    by_day: 0.0,
                    tensor: random.between(0.35, 0.62),
                    dram: random.between(0.30, 0.80),
                    fb_mib: random.between(60_000.0, 77_400.0),
                },
            },
            4..=7 => Self {
                namespace,
                pod: pod_name(random.pick(&["llm-server", "embedder", "reranker", "tts-server"]), random),
                container: "server",
                gpus: random.pick(&[1, 1, 2, 4]),
                end_ns: time_ns + hours(random.between(2.0, 24.0)),
                workload: Workload {
                    busy: random.between(0.45, 0.90),
                    swing: 0.20,
                    by_day: 1.0,
                    tensor: random.between(0.10, 0.30),
                    dram: random.between(0.30, 0.70),
                    fb_mib: random.between(24_000.0, 74_000.0),
                },
            },
            _ => Self {
                namespace,
                pod: pod_name("jupyter", random),
                container: "notebook",
                gpus: 1,
                end_ns: time_ns + hours(random.between(0.5, 9.0)),
                workload: Workload {
                    busy: random.between(0.02, 0.25),
                    swing: 0.45,
                    by_day: 0.6,
                    tensor: random.between(0.05, 0.25),
                    dram: random.between(0.10, 0.40),
                    fb_mib: random.between(741.0, 24_700.0),
                },
            },
        }
    }
}

/// Hours in nanoseconds.
#[expect(clippy::cast_possible_truncation, reason = "days at most")]
pub(super) fn hours(hours: f64) -> i64 {
    (hours * 3600e9) as i64
}

fn pod_name(name: &str, random: &mut Random) -> String {
    let mut pod = format!("{name}-");
    for _ in 0..5 {
        pod.push(char::from(random.pick(POD_LETTERS)));
    }
    pod
}
