//! Why something of a test's set-up did not work.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use dialhome_gateway::demo::site::SiteError;

/// Lines of a log in an error.
const TAIL_LINES: usize = 25;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The firmware could not be built.
    #[error("the firmware was not built: {0}")]
    Build(String),
    /// A built file is not as it must be.
    #[error("{}: {problem}", .path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s; the end of {}:\n{tail}", .within.as_secs(), .log.display())]
    Overdue {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// Where to look.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The machine ended while something was waited for.
    #[error("the machine ended before {what}; the end of {}:\n{tail}", .log.display())]
    Ended {
        /// What was waited for.
        what: String,
        /// Where to look.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The machine refused a command.
    #[error("QEMU refused `{command}`: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// What it said.
        answer: String,
    },
    /// Something of the gateway's side.
    #[error(transparent)]
    Site(#[from] SiteError),
}

impl Error {
    /// For `map_err`: what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: the file that was to be read or written.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(path.display().to_string())
    }

    /// Something that did not happen in time, with the end of a log.
    #[must_use]
    pub fn overdue(what: &str, within: Duration, log: &Path) -> Self {
        Self::Overdue {
            what: what.to_owned(),
            within,
            log: log.to_owned(),
            tail: tail(log),
        }
    }

    /// The machine ended, with the end of its log.
    #[must_use]
    pub fn ended(what: &str, log: &Path) -> Self {
        Self::Ended {
            what: what.to_owned(),
            log: log.to_owned(),
            tail: tail(log),
        }
    }
}

/// The last lines of a file; empty where there is none.
#[must_use]
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(TAIL_LINES)..].join("\n")
}
