//! `dialhome-loadtest compare`: the same job done by others, side by side in one run.

use crate::Error;
use crate::cli::CompareArgs;
use std::process::ExitCode;

/// Measures the rows.
///
/// # Errors
/// A program is missing, or one did not do its job.
pub fn run(args: &CompareArgs) -> Result<ExitCode, Error> {
    Err(Error::new(format!(
        "{} rows cannot be measured yet",
        args.rows.len()
    )))
}
