//! `dialhome-loadtest run`: a scenario, from its file to its report.

use crate::Error;
use crate::cli::RunArgs;
use std::process::ExitCode;

/// Plays a scenario.
///
/// # Errors
/// It could not be played: the scenario is wrong, or a process could not be started.
pub fn run(args: &RunArgs) -> Result<ExitCode, Error> {
    Err(Error::new(format!(
        "{} cannot be played yet",
        args.scenario.display()
    )))
}
