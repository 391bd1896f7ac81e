//! Network namespaces, made and removed here, by the program `ip`: a process enters one by
//! `ip netns exec`, and this one never does.

use crate::Error;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names begin so, and end with the id of the process that made them.
const PREFIX: &str = "dialhome-compare-";

/// A namespace without IPv6 (its neighbour discovery would be counted), whose loopback is up.
/// It goes with this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one; `side` says which of this process it is. Those that interrupted runs have
    /// left go first.
    ///
    /// # Errors
    /// The user is not root, or `ip` is not there or refuses.
    pub fn new(side: &str) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new("network namespaces need root"));
        }
        remove_left();
        let name = format!("{PREFIX}{side}-{}", std::process::id());
        run(&["ip", "netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.inside(&["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1"])?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with these words, about this namespace.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, words: &[&str]) -> Result<(), Error> {
        let mut whole = vec!["ip", "-n", &self.name];
        whole.extend(words);
        run(&whole)
    }

    /// A program within it; gives its output.
    ///
    /// # Errors
    /// It cannot be run or failed, with what it said.
    pub fn inside(&self, command: &[&str]) -> Result<String, Error> {
        let mut whole = vec!["ip", "netns", "exec", &self.name];
        whole.extend(command);
        output(&whole)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(namespace: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", namespace])
        .stderr(Stdio::null())
        .status();
}

/// Removes what interrupted runs have left: their processes are no more.
fn remove_left() {
    let Ok(text) = output(&["ip", "netns", "list"]) else {
        return;
    };
    for name in text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let made_by = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit('-').next());
        if made_by.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be run or failed, with what it said.
pub fn run(command: &[&str]) -> Result<(), Error> {
    output(command).map(drop)
}

/// Runs a program to its end; gives its output.
///
/// # Errors
/// As [`run`].
pub fn output(command: &[&str]) -> Result<String, Error> {
    let failed = |why: &str| Error::new(format!("`{}` failed: {why}", command.join(" ")));
    let [program, args @ ..] = command else {
        return Ok(String::new());
    };
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
