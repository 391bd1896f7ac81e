//! Samples of the gateway: what `/proc` says of its process, and what it says of itself.

use super::play::Heard;
use crate::measure::clock::now_ns;
use crate::measure::process::{self, CpuTime};
use crate::site::admin::Admin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    /// Handshakes that were refused or given up, by reason, since this process began.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) updates: BTreeMap<String, u64>,
}

impl Status {
    fn of(at_ns: u64, document: &Value) -> Self {
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        let counts = |name: &str| {
            let counts = document[name].as_object().into_iter().flatten();
            counts
                .filter_map(|(what, count)| Some((what.clone(), count.as_u64()?)))
                .collect()
        };
        Self {
            at_ns,
            sessions: number("sessions"),
            handshakes: number("handshakes"),
            transfers: number("transfers"),
            refused: counts("refused_for"),
            updates: counts("updates"),
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

/// Asks over the connection of before, or over a new one.
async fn ask(admin: &mut Option<Admin>, socket: &Path) -> Result<Status, crate::Error> {
    let admin = match admin {
        Some(admin) => admin,
        None => admin.insert(Admin::connect(socket).await?),
    };
    status(admin).await
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
        socket: PathBuf,
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
            let mut admin = None;
            loop {
                ticks.tick().await;
                // One that does not answer is asked again: it may only be busy, and where it
                // has ended that is noticed elsewhere.
                let heard = match ask(&mut admin, &socket).await {
                    Ok(status) => Heard::Status(status),
                    Err(error) => {
                        admin = None;
                        Heard::Unanswered(error.to_string())
                    }
                };
                if said.send(heard).is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_gateway_that_fails_to_answer_is_told_and_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            drop(listener.accept().await);
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let body = r#"{"sessions":3,"refused_for":{"busy":2}}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            std::future::pending::<()>().await;
        });
        let (tell, mut heard) = unbounded_channel();
        let pid = std::process::id();
        let cpu = Arc::new(CpuTime::of(vec![pid]));
        let _sampler = Sampler::start(pid, cpu, socket, Duration::from_millis(5), tell);
        let mut told = false;
        let wait = async {
            loop {
                match heard.recv().await {
                    Some(Heard::Unanswered(_)) => told = true,
                    Some(Heard::Status(status)) => return status,
                    Some(_) => {}
                    None => panic!("the sampler has ended"),
                }
            }
        };
        let status = timeout(Duration::from_secs(60), wait).await;
        let status = status.expect("it is asked again");
        assert!(told, "its silence is told");
        assert_eq!((status.sessions, status.refused["busy"]), (3, 2));
    }
}
