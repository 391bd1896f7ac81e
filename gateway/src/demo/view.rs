//! What the demo shows: bars on a terminal, otherwise a line for each change.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::site::Cli;

/// Between two attempts to follow the events of a gateway that is down.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// States that every session passes through again: lines for them would drown the others.
const PASSING: [&str; 5] = [
    "offered",
    "accepted",
    "preparing",
    "verifying",
    "activating",
];

/// The demo's output. Clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct View {
    bars: Option<Bars>,
    /// Bytes that each board had on flash when it last said so.
    committed: Arc<Mutex<HashMap<String, u64>>>,
    finished: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Bars {
    all: MultiProgress,
    boards: Arc<HashMap<String, ProgressBar>>,
}

impl View {
    /// Output for these boards, with bars where stdout is a terminal.
    pub(super) fn new(boards: &[&str]) -> Self {
        let bars = io::stdout().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template(
                "  {prefix} {bar:32} {bytes:>10} of {total_bytes:10} {msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            let add = |board: &&str| {
                let bar = ProgressBar::no_length()
                    .with_style(style.clone())
                    .with_prefix((*board).to_owned());
                ((*board).to_owned(), all.add(bar))
            };
            let boards = Arc::new(boards.iter().map(add).collect());
            Bars { all, boards }
        });
        Self {
            bars,
            committed: Arc::default(),
            finished: Arc::default(),
        }
    }

    /// One line for the reader.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        let line = line.as_ref();
        // A reader who is gone is no reason to leave processes behind.
        let _ = match &self.bars {
            Some(bars) if !self.finished.load(Ordering::Relaxed) => bars.all.println(line),
            _ => writeln!(io::stdout(), "{line}"),
        };
    }

    /// Takes the bars away. The report says where they ended.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        if let Some(bars) = &self.bars {
            for bar in bars.boards.values() {
                bar.finish_and_clear();
            }
            bars.all.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Shows what one event says of an update to one of the boards.
    fn show(&self, event: &Value, size: u64) {
        let text = |key| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let (device, to) = (text("device"), text("to"));
        let mut committed = self
            .committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let committed = committed.entry(device.to_owned()).or_default();
        let bar = self.bars.as_ref().and_then(|bars| bars.boards.get(device));
        match text("type") {
            "update.progress" => {
                *committed = to.parse().unwrap_or(*committed);
                if let Some(bar) = bar {
                    bar.set_length(size);
                    bar.set_position(*committed);
                }
            }
            "update.state" => {
                if let Some(bar) = bar {
                    bar.set_length(size);
                    bar.set_message(to.to_owned());
                    if to == "confirmed" {
                        bar.set_position(size);
                    }
                } else if !PASSING.contains(&to) {
                    let at = match to {
                        "transferring" => format!(" from {committed} of {size} bytes on"),
                        _ => String::new(),
                    };
                    let reason = text("reason");
                    let because = if reason.is_empty() { "" } else { ": " };
                    self.say(format!("  {device}: {to}{at}{because}{reason}"));
                }
            }
            _ => {}
        }
    }

    /// Follows the gateway's events, also over its restarts, and shows what they
    /// say of updates to images of `size` bytes. Never ends.
    pub(super) async fn follow(self, cli: Cli, size: u64) {
        let mut seen: Option<u64> = None;
        loop {
            let since = seen.map(|seq| seq.to_string());
            let mut args = vec!["events", "--follow"];
            args.extend(since.iter().flat_map(|since| ["--since", since.as_str()]));
            let following = cli
                .command(&args)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            if let Ok(mut child) = following
                && let Some(output) = child.stdout.take()
            {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(event) = serde_json::from_str::<Value>(&line) {
                        seen = event.get("seq").and_then(Value::as_u64).or(seen);
                        self.show(&event, size);
                    }
                }
            }
            tokio::time::sleep(FOLLOW_AGAIN).await;
        }
    }
}
