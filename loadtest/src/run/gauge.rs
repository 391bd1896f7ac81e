//! Samples of the gateway: what `/proc` says of its process, and what it says of itself.

use super::play::Heard;
use crate::measure::clock::now_ns;
use crate::measure::process::{self, CpuTime};
use crate::site::admin::Admin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

/// What `/proc` says of the gateway.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// RssAnon, VmHWM in bytes.
    pub(super) rss: Option<u64>,
    pub(super) peak: Option<u64>,
    /// Of this process, in seconds.
    pub(super) cpu_s: f64,
    pub(super) files: Option<u64>,
    pub(super) threads: Option<u64>,
}

/// What the gateway says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// When it was asked.
    pub(super) at_ns: u64,
    pub(super) sessions: u64,
    pub(super) handshakes: u64,
    pub(super) transfers: u64,
    /// Since this process began.
    pub(super) refused: u64,
    pub(super) updates: BTreeMap<String, u64>,
}

impl Status {
    fn of(at_ns: u64, document: &Value) -> Self {
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        let updates = document["updates"].as_object();
        Self {
            at_ns,
            sessions: number("sessions"),
            handshakes: number("handshakes"),
            transfers: number("transfers"),
            refused: number("refused"),
            updates: updates
                .into_iter()
                .flatten()
                .filter_map(|(state, count)| Some((state.clone(), count.as_u64()?)))
                .collect(),
        }
    }

    /// Updates that have ended, one way or another.
    pub(super) fn ended(&self) -> u64 {
        // `overdue` is not among them: it marks an update that is still open.
        const ENDED: [&str; 6] = [
            "confirmed",
            "reverted",
            "declined",
            "failed",
            "canceled",
            "abandoned",
        ];
        ENDED
            .iter()
            .filter_map(|state| self.updates.get(*state))
            .sum()
    }
}

/// Asks the gateway now.
pub(super) async fn status(admin: &mut Admin) -> Result<Status, crate::Error> {
    let at_ns = now_ns();
    admin
        .status()
        .await
        .map(|document| Status::of(at_ns, &document))
}

/// Reads what `/proc` says now.
pub(super) fn process(pid: u32, cpu: &CpuTime) -> Process {
    Process {
        rss: process::status_bytes(pid, "RssAnon"),
        peak: process::status_bytes(pid, "VmHWM"),
        cpu_s: cpu.seconds(),
        files: process::open_files(pid),
        threads: process::thread_count(pid),
    }
}

/// Samples of one gateway process, until this value is dropped.
#[derive(Debug)]
pub(super) struct Sampler(Vec<AbortHandle>);

impl Sampler {
    /// Sends what it reads every `every` to `heard`.
    pub(super) fn start(
        pid: u32,
        cpu: Arc<CpuTime>,
        mut admin: Admin,
        every: Duration,
        heard: UnboundedSender<Heard>,
    ) -> Self {
        let ticks = move || {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        let said = heard.clone();
        let of_proc = tokio::spawn(async move {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                if heard.send(Heard::Process(process(pid, &cpu))).is_err() {
                    return;
                }
            }
        });
        // By itself: a gateway that takes long to answer must not keep the other from being read.
        let of_itself = tokio::spawn(async move {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                // One that ends does not answer, and its end is noticed elsewhere.
                let Ok(status) = status(&mut admin).await else {
                    return;
                };
                if said.send(Heard::Status(status)).is_err() {
                    return;
                }
            }
        });
        Self(vec![of_proc.abort_handle(), of_itself.abort_handle()])
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
