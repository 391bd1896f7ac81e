//! How a command ends badly: an exit code, a code for scripts, and sentences for people.

use std::fmt;

/// Exit code of a command that failed.
pub const FAILED: u8 = 1;
/// Exit code of wrong use of the command line.
pub const WRONG_USE: u8 = 2;
/// Exit code of a push that was not finished when the command stopped waiting.
pub const NOT_FINISHED: u8 = 3;
/// Exit code where the gateway's socket was not reached.
pub const NOT_REACHED: u8 = 4;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// The process's exit code: [`FAILED`], [`WRONG_USE`], [`NOT_FINISHED`] or [`NOT_REACHED`].
    pub exit: u8,
    /// The error's name for scripts, in `snake_case`.
    pub code: &'static str,
    /// One sentence that says what was wrong.
    pub message: String,
    /// One sentence that says what to do, where there is something to do.
    pub hint: Option<String>,
}

impl CliError {
    /// The command failed (exit code 1).
    #[must_use]
    pub fn failed(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit: FAILED,
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The command line was wrong (exit code 2).
    #[must_use]
    pub fn wrong_use(message: impl Into<String>) -> Self {
        Self {
            exit: WRONG_USE,
            code: "wrong_use",
            message: message.into(),
            hint: None,
        }
    }

    /// The gateway was not reached (exit code 4).
    #[must_use]
    pub fn not_reached(message: impl Into<String>) -> Self {
        Self {
            exit: NOT_REACHED,
            code: "not_reached",
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with a sentence that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}
