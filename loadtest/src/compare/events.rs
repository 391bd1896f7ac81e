//! The gateway's events, as they come.

use super::Setup;
use super::clients::program;
use crate::Error;
use crate::site::Site;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// Starts `dialhome events --follow`: all that happened, and happens from now on. It ends with the child.
pub(super) fn start(setup: &Setup, site: &Site) -> Result<(Child, ChildStdout), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::of("`dialhome events`", error);
    let mut child = program(&setup.gateway, None)
        .arg("--socket")
        .arg(site.data().join("admin.sock"))
        .args(["--json", "events", "--follow", "--since", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    let output = child.stdout.take().ok_or_else(|| failed(&"no output"))?;
    Ok((child, output))
}

/// `dialhome events --follow`. It ends with this value.
#[derive(Debug)]
pub(super) struct Events {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// When each update came into each state.
    seen: BTreeMap<(String, String), Instant>,
}

impl Events {
    /// All that happened, and happens from now on.
    pub(super) fn follow(setup: &Setup, site: &Site) -> Result<Self, Error> {
        let (child, output) = start(setup, site)?;
        Ok(Self {
            _child: child,
            lines: BufReader::new(output).lines(),
            seen: BTreeMap::new(),
        })
    }

    /// Waits until this update has come into this state, and says when it did.
    pub(super) async fn reached(
        &mut self,
        update: &str,
        state: &str,
        most: Duration,
    ) -> Result<Instant, Error> {
        let key = (update.to_owned(), state.to_owned());
        let until = tokio::time::Instant::now() + most;
        loop {
            if let Some(at) = self.seen.get(&key) {
                return Ok(*at);
            }
            let line = match tokio::time::timeout_at(until, self.lines.next_line()).await {
                Ok(Ok(Some(line))) => line,
                Ok(_) => return Err(Error::new("`dialhome events` ended")),
                Err(_) => {
                    return Err(Error::new(format!(
                        "{update} was not {state} within {} s",
                        most.as_secs()
                    )));
                }
            };
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if event["type"] != "update.state" {
                continue;
            }
            let (Some(update), Some(to)) = (event["update"].as_str(), event["to"].as_str()) else {
                continue;
            };
            if ["failed", "reverted", "declined", "canceled"].contains(&to) {
                return Err(Error::new(format!("an update ended badly: {event}")));
            }
            self.seen
                .entry((update.to_owned(), to.to_owned()))
                .or_insert_with(Instant::now);
        }
    }
}
