//! `dialhome demo`: a gateway and three boards behind a hostile link, on one machine.
//!
//! Everything runs from the real executables and is asked through the command
//! line: what the demo shows is what an operator would get.

mod firmware;
pub mod process;
pub mod relay;
pub mod site;
mod story;
mod view;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use site::{Programs, SiteError};
use view::View;

/// From the first process to the last report. It takes 10 to 20 s where nothing is wrong.
const DEADLINE: Duration = Duration::from_secs(120);

/// What `dialhome demo` is told.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The firmware image to send; by default the agent's own executable, which
    /// the boards then really run
    pub image: Option<PathBuf>,
    /// Keep the directory with data and logs (it is kept after a failure anyway)
    #[arg(long)]
    pub keep: bool,
}

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something on the site did not work.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// An update ended in another way than `confirmed`.
    #[error("{board}: the push ended with exit code {}, {outcome}", .code.map_or("none".to_owned(), |code| code.to_string()))]
    NotConfirmed {
        /// The device.
        board: String,
        /// The push's exit code; none where a signal ended it.
        code: Option<i32>,
        /// State and reason, or what the push said.
        outcome: String,
    },
    /// A board says `confirmed`, and its files say something else.
    #[error("{board} is confirmed, but {problem}")]
    Untrue {
        /// The device.
        board: String,
        /// What is wrong.
        problem: String,
    },
    /// It took too long.
    #[error("not done after {} s; the last of the gateway's log:\n{tail}", DEADLINE.as_secs())]
    Overdue {
        /// The end of the gateway's log.
        tail: String,
    },
    /// Ctrl-C, or another signal to end.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the demo and prints it. When this returns, every process that it started has ended.
///
/// # Errors
/// Something did not go as it must; the directory with the logs is kept, and named.
pub async fn run(options: Options) -> Result<(), DemoError> {
    let view = View::new(&story::BOARDS);
    let own = std::env::current_exe().map_err(SiteError::io("the path of this program"))?;
    let programs = Programs::beside(&own)?;
    let mut folder = tempfile::Builder::new()
        .prefix("dialhome-demo-")
        .tempdir()
        .map_err(SiteError::io("a temporary directory could not be made"))?;
    folder.disable_cleanup(options.keep);
    let image = options.image.unwrap_or_else(|| programs.agent.clone());
    // Dropped when one of the others is done: its processes are killed with it.
    let told = tokio::select! {
        told = story::tell(folder.path(), programs, &image, &view) => told,
        () = tokio::time::sleep(DEADLINE) => {
            Err(DemoError::Overdue { tail: process::tail(&folder.path().join("logs/gateway.log"), 12) })
        }
        interrupted = interrupted() => Err(match interrupted {
            Ok(()) => DemoError::Interrupted,
            Err(source) => SiteError::io("signals cannot be received")(source).into(),
        }),
    };
    view.finish();
    let logs = folder.path().join("logs");
    match &told {
        Ok(()) | Err(DemoError::Interrupted) if !options.keep => {}
        _ if !logs.exists() => {}
        Ok(()) => view.say(format!(
            "\nEverything is kept in {}",
            folder.path().display()
        )),
        Err(_) => {
            folder.disable_cleanup(true);
            view.say(format!("\nThe logs are in {}", logs.display()));
        }
    }
    told
}

/// Returns when the demo is asked to end.
async fn interrupted() -> io::Result<()> {
    let mut terminal = signal(SignalKind::interrupt())?;
    let mut manager = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminal.recv() => {}
        _ = manager.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
