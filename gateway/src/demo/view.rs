//! What the demo shows: bars on a terminal, otherwise a line for each change.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::site::Cli;

/// A bar is drawn afresh at most this often for each board.
const REFRESH: Duration = Duration::from_millis(150);
/// Between two attempts to follow the events of a gateway that is down.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// The demo's output. Clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct View {
    bars: Option<Bars>,
    /// The last state that was told of each update.
    told: Arc<Mutex<HashMap<String, String>>>,
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
            told: Arc::default(),
        }
    }

    /// One line for the reader.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        let line = line.as_ref();
        // A reader who is gone is no reason to leave processes behind.
        let _ = match &self.bars {
            Some(bars) => bars.all.println(line),
            None => writeln!(io::stdout(), "{line}"),
        };
    }

    /// Leaves the bars as they are; lines from now on go below them.
    pub(super) fn finish(&self) {
        if let Some(bars) = &self.bars {
            for bar in bars.boards.values() {
                bar.abandon();
            }
        }
    }

    /// Shows where an update stands, from its document.
    fn show(&self, update: &Value) {
        let text = |key| update.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key| update.get(key).and_then(Value::as_u64).unwrap_or_default();
        let (device, state) = (text("device"), text("state"));
        if let Some(bar) = self.bars.as_ref().and_then(|bars| bars.boards.get(device)) {
            bar.set_length(number("size"));
            bar.set_position(number("committed"));
            bar.set_message(state.to_owned());
        } else {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let before = told.insert(text("update").to_owned(), state.to_owned());
            if before.as_deref() != Some(state) {
                self.say(format!(
                    "  {device}: {state}, {} of {} bytes on flash",
                    number("committed"),
                    number("size")
                ));
            }
        }
    }

    /// Follows the gateway's events, also over its restarts, and shows each update
    /// that they name. Never ends.
    pub(super) async fn follow(self, cli: Cli) {
        let mut seen: Option<u64> = None;
        let mut shown: HashMap<String, Instant> = HashMap::new();
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
                    let Ok(event) = serde_json::from_str::<Value>(&line) else {
                        continue;
                    };
                    seen = event.get("seq").and_then(Value::as_u64).or(seen);
                    if let Some(update) = event.get("update").and_then(Value::as_str) {
                        let progress =
                            event.get("type").and_then(Value::as_str) == Some("update.progress");
                        let early = shown.get(update).is_some_and(|at| at.elapsed() < REFRESH);
                        if !(progress && early) {
                            shown.insert(update.to_owned(), Instant::now());
                            self.refresh(&cli, update).await;
                        }
                    }
                }
            }
            tokio::time::sleep(FOLLOW_AGAIN).await;
        }
    }

    /// Asks for the update and shows it. A gateway that is down just now is asked again
    /// with the next event.
    pub(super) async fn refresh(&self, cli: &Cli, update: &str) {
        if let Ok(update) = cli.json(&["update", "show", update]).await {
            self.show(&update);
        }
    }
}
