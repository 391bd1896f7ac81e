//! Processor time and memory of processes, as `/proc` has them.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the figures depend on, in one line.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    format!(
        "{} x {model}, Linux {}, congestion control {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
    )
}

/// Nanoseconds that each thread of a process has run (`/proc/PID/task/*/schedstat`).
fn threads(pid: u32) -> Vec<(String, u64)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ran = text.split_whitespace().next()?.parse().ok()?;
            Some((task.file_name().into_string().ok()?, ran))
        })
        .collect()
}

/// Follows the CPU time of processes. A thread that ends takes its count along, so
/// they are read ten times a second and the last count of each is kept.
#[derive(Debug)]
pub struct CpuTime {
    pids: Vec<u32>,
    seen: Arc<Mutex<HashMap<(u32, String), u64>>>,
    stop: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
}

impl CpuTime {
    /// Begins to follow these processes.
    #[must_use]
    pub fn of(pids: Vec<u32>) -> Self {
        let seen = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let sampler = {
            let (pids, seen, stop) = (pids.clone(), Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    sample(&pids, &seen);
                    std::thread::sleep(Duration::from_millis(100));
                }
            })
        };
        Self {
            pids,
            seen,
            stop,
            sampler: Some(sampler),
        }
    }

    /// Seconds that all threads have run so far.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        sample(&self.pids, &self.seen)
    }
}

impl Drop for CpuTime {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
    }
}

fn sample(pids: &[u32], seen: &Mutex<HashMap<(u32, String), u64>>) -> f64 {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for pid in pids {
        for (thread, ran) in threads(*pid) {
            seen.insert((*pid, thread), ran);
        }
    }
    Duration::from_nanos(seen.values().sum()).as_secs_f64()
}

/// A line of `/proc/PID/status` that is in kB, in bytes.
#[must_use]
pub fn status_bytes(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kib * 1024)
}

/// Files that a process has open.
#[must_use]
pub fn open_files(pid: u32) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(files.count() as u64)
}

/// Threads of a process.
#[must_use]
pub fn thread_count(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(threads.count() as u64)
}
