//! What a user would pick instead, each started here with a configuration of its own.

pub(super) mod mosquitto;
pub(super) mod nginx;

use super::clients::program;
use crate::Error;
use crate::measure::process::status_bytes;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Child;

/// A server that does not listen after so long will not any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that runs, with its folder on tmpfs. Both end with this value.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pid: u32,
    folder: TempDir,
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Error> {
    fs::write(path, text).map_err(|error| Error::of(&path.display().to_string(), &error))
}

/// A loopback address that nobody listens on.
pub(super) fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::of("no free port", &error))
}

/// A program of a Debian package.
fn installed(name: &str, package: &str) -> Result<std::path::PathBuf, Error> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::new(format!(
                "{name} is not installed (Debian: `apt-get install {package}`; `make compare` does it)"
            ))
        })
}

impl Server {
    /// Starts a program, `within` a network namespace where one is named, and waits until
    /// it listens on all of these ports.
    async fn start(
        path: &Path,
        arguments: &[&str],
        folder: TempDir,
        ports: &[u16],
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let what = path.display().to_string();
        let failed = |error: &dyn std::fmt::Display| Error::of(&what, error);
        let log = folder.path().join("log");
        let output = File::create(&log).map_err(|error| failed(&error))?;
        let mut child = program(path, within)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(|error| failed(&error))?)
            .stderr(output)
            .spawn()
            .map_err(|error| failed(&error))?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let pid = child.id().unwrap_or(0);
        let until = Instant::now() + PATIENCE;
        while !ports.iter().all(|port| listens(pid, *port)) {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(failed(&format!("it ended ({status}): {}", said())));
            }
            if Instant::now() > until {
                let _ = child.start_kill();
                return Err(failed(&format!("it does not listen: {}", said())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { child, pid, folder })
    }

    /// Its process and those that it has started.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid];
        let Ok(processes) = fs::read_dir("/proc") else {
            return pids;
        };
        for process in processes.flatten() {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if parent(pid) == Some(self.pid) {
                pids.push(pid);
            }
        }
        pids
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In order: a master that is killed leaves its workers behind.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.start_kill();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Anonymous memory of processes, in bytes: what user space holds.
pub(super) fn user_bytes(pids: &[u32]) -> Result<u64, Error> {
    pids.iter().try_fold(0, |sum, pid| {
        status_bytes(*pid, "RssAnon")
            .map(|bytes| sum + bytes)
            .ok_or_else(|| Error::new(format!("/proc/{pid}/status has no RssAnon")))
    })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Whether somebody listens on a TCP port in the network of this process.
fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    fs::read_to_string(format!("/proc/{pid}/net/tcp"))
        .unwrap_or_default()
        .lines()
        .any(|line| {
            let mut words = line.split_whitespace();
            words.nth(1).is_some_and(|local| local.ends_with(&wanted))
                && words.nth(1) == Some(LISTEN)
        })
}

/// An address with a free port, or this one's port at an address of a namespace.
fn listen_on(address: Option<IpAddr>, port: u16) -> Result<SocketAddr, Error> {
    match address {
        Some(address) => Ok((address, port).into()),
        None => free_address(),
    }
}
