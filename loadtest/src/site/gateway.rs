//! The gateway's process.

use super::admin::Admin;
use super::{Site, leash};
use crate::Error;
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Child;

/// A gateway that does not answer for so long will not any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `dialhome serve` that runs. Dropping it kills the process.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

/// The program beside this one, unless `named` says another.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn program(named: Option<&Path>) -> Result<PathBuf, Error> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| Error::of("this program's own path is not known", &error))?
            .with_file_name("dialhome"),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "there is no gateway at {}: build it with `cargo build --bins` in the same profile, or name one with --gateway",
        path.display()
    )))
}

impl Gateway {
    /// Starts `program serve` on `listen` with the site's data and further arguments; `within`
    /// a network namespace, where one is named. Returns when it answers.
    ///
    /// # Errors
    /// It did not start; the message holds what it said.
    pub async fn start(
        program: &Path,
        site: &Site,
        listen: SocketAddr,
        more: &[String],
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let log = site.folder().join("gateway.log");
        let failed =
            |error: &dyn std::fmt::Display| Error::of("the gateway cannot be started", error);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| failed(&error))?;
        let child = leash::command(program, within, Signal::KILL)
            .arg("serve")
            .arg("--data")
            .arg(site.data())
            .arg("--listen")
            .arg(listen.to_string())
            .args(more)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(|error| failed(&error))?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut gateway = Self {
            child,
            socket: site.data().join("admin.sock"),
            log,
        };
        let answers = async {
            while UnixStream::connect(&gateway.socket).await.is_err() {
                if let Ok(Some(status)) = gateway.child.try_wait() {
                    return Err(status);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, answers).await {
            Ok(Ok(())) => Ok(gateway),
            Ok(Err(status)) => Err(Error::new(format!(
                "the gateway ended at its start ({status}): {}",
                gateway.said()
            ))),
            Err(_) => Err(Error::new(format!(
                "the gateway did not answer within {} s: {}",
                PATIENCE.as_secs(),
                gateway.said()
            ))),
        }
    }

    /// Its process id; 0 once it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// How it ended, where it has.
    #[must_use]
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it logged.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where its admin socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection to its admin socket.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self) -> Result<Admin, Error> {
        Admin::connect(&self.socket).await
    }

    /// Ends it in order (SIGTERM), and waits until it is gone.
    ///
    /// # Errors
    /// It did not end in time, or ended with an error.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Some(pid) = i32::try_from(self.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Error::new(format!(
                "the gateway ended with {status}: {}",
                self.said()
            ))),
            Ok(Err(error)) => Err(Error::of("the gateway's end is not known", &error)),
            Err(_) => Err(Error::new("the gateway did not end".to_owned())),
        }
    }

    /// Kills it (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// Of the system.
    pub async fn kill(mut self) -> Result<(), Error> {
        self.child
            .kill()
            .await
            .map_err(|error| Error::of("the gateway cannot be killed", &error))
    }
}
