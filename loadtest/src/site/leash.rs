//! What a run starts must not outlive it, however the run ends: processes that end with the one
//! that started them, folders that the next run removes, and signals that end it in order.

use crate::Error;
use rustix::process::{Pid, Signal, test_kill_process};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const TMPFS: &str = "/dev/shm";
/// The program of util-linux that asks the kernel for a signal at the parent's end.
const SETPRIV: &str = "/usr/bin/setpriv";

/// `path` as a command, within a network namespace where one is named. The process gets `at_end`
/// when the thread that has started it ends, also by SIGKILL (where `setpriv` is installed). A
/// Ctrl-C at the terminal is not for it but for the run, which ends it in order.
#[must_use]
pub fn command(path: &Path, within: Option<&str>, at_end: Signal) -> Command {
    let mut words: Vec<&str> = Vec::new();
    if Path::new(SETPRIV).is_file() {
        let name = if at_end == Signal::KILL {
            "KILL"
        } else {
            "TERM"
        };
        words.extend([SETPRIV, "--pdeathsig", name]);
    }
    if let Some(namespace) = within {
        words.extend(["ip", "netns", "exec", namespace]);
    }
    // Each of them becomes the next: the process keeps its id.
    let mut command = match words.split_first() {
        None => Command::new(path),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(path);
            command
        }
    };
    command.process_group(0);
    command
}

/// A folder on tmpfs, `dialhome-NAME-PID-...`. It goes with this value; those of processes that
/// were killed go now.
///
/// # Errors
/// There is no room for it.
pub fn folder(name: &str) -> Result<TempDir, Error> {
    sweep(Path::new(TMPFS));
    tempfile::Builder::new()
        .prefix(&format!("dialhome-{name}-{}-", std::process::id()))
        .tempdir_in(TMPFS)
        .map_err(|error| Error::of("no folder in /dev/shm", &error))
}

/// Removes the folders whose processes are no more.
fn sweep(within: &Path) {
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_left) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left(name: &str) -> bool {
    let words: Vec<&str> = name.split('-').collect();
    let ["dialhome", _, pid, _] = words[..] else {
        return false;
    };
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Tells the name of each signal that asks this process to end, instead of ending it, until
/// nobody hears it any more. Within a runtime.
///
/// # Errors
/// Signals cannot be heard.
pub fn interrupts(
    tell: impl Fn(&'static str) -> bool + Clone + Send + 'static,
) -> Result<(), Error> {
    for (kind, name) in [
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::hangup(), "SIGHUP"),
    ] {
        let mut signals =
            signal(kind).map_err(|error| Error::of("signals cannot be heard", &error))?;
        let tell = tell.clone();
        tokio::spawn(async move { while signals.recv().await.is_some() && tell(name) {} });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_processes_that_are_no_more_are_removed() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = child.id();
        child.wait().unwrap();
        let within = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = within.path().join(name);
            fs::create_dir_all(path.join("data")).unwrap();
            path
        };
        let left = make(&format!("dialhome-load-{gone}-abc123"));
        let kept = [
            make(&format!("dialhome-load-{}-abc123", std::process::id())),
            make("dialhome-load-abc123"),
            make(&format!("another-load-{gone}-abc123")),
        ];
        sweep(within.path());
        assert!(!left.exists());
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    }
}
