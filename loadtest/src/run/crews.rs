//! The crews of a run: their processes, the orders to them and their words.

use super::play::Heard;
use crate::Error;
use crate::fleet::words::{Order, Roll, Word};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A crew that has not ended for so long will not any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that plays boards. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Crew {
    child: Child,
    orders: UnboundedSender<String>,
    log: PathBuf,
}

impl Crew {
    /// Starts a crew with this roll. Its words go to `heard`, with `number`.
    pub(super) fn start(
        number: usize,
        roll: &Roll,
        folder: &Path,
        heard: UnboundedSender<Heard>,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of("a crew cannot be started", error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let log = folder.join(format!("crew-{number}.log"));
        let errors = File::create(&log).map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg("crew")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // A Ctrl-C at the terminal is for the run, which ends its crews in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"it has no pipes"));
        };
        let (orders, lines) = unbounded_channel();
        tokio::spawn(write(stdin, lines));
        tokio::spawn(read(number, stdout, heard));
        let crew = Self { child, orders, log };
        crew.say(roll)?;
        Ok(crew)
    }

    /// Gives it an order.
    pub(super) fn order(&self, order: &Order) -> Result<(), Error> {
        self.say(order)
    }

    fn say(&self, what: &impl serde::Serialize) -> Result<(), Error> {
        let line = serde_json::to_string(what)
            .map_err(|error| Error::of("an order cannot be written", &error))?;
        // A crew that has ended is noticed by its silence.
        let _ = self.orders.send(line);
        Ok(())
    }

    /// What it wrote to standard error, the last lines of it.
    pub(super) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    /// Waits until it has ended, and kills it where it does not.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        drop(self.orders);
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Error::new(format!("a crew ended with {status}"))),
            Ok(Err(error)) => Err(Error::of("a crew's end is not known", &error)),
            Err(_) => {
                let _ = self.child.kill().await;
                Err(Error::new(format!(
                    "a crew did not end within {} s and was killed",
                    PATIENCE.as_secs()
                )))
            }
        }
    }
}

async fn write(mut stdin: ChildStdin, mut lines: tokio::sync::mpsc::UnboundedReceiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read(number: usize, stdout: ChildStdout, heard: UnboundedSender<Heard>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let word = match serde_json::from_str::<Word>(&line) {
            Ok(word) => word,
            Err(error) => Word::Failed {
                why: format!("its line {line:?} cannot be read: {error}"),
            },
        };
        if heard.send(Heard::Crew(number, Box::new(word))).is_err() {
            return;
        }
    }
    let _ = heard.send(Heard::Silent(number));
}
