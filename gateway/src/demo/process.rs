//! Child processes whose end is certain: each is known by its pid, writes to a
//! log file of its own, and dies with the value that holds it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program without input; all that it prints goes to the end of `log`.
    ///
    /// # Errors
    /// The log could not be opened, or the program not be started.
    pub fn spawn<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The name that it was given here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, where it has ended.
    ///
    /// # Errors
    /// The kernel would not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// The kernel would not say.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// `kill -9`: it does nothing more, and is gone when this returns.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub async fn kill9(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to end (SIGTERM), and kills it where it has not after `patience`.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub async fn stop(mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let pid = self.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)?;
        }
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.map(Some),
            Err(_) => self.child.kill().await.map(|()| None),
        }
    }

    /// Its last lines of output.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

/// The last lines of a file, without terminal colours; empty where there is none.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
