//! `dialhome-loadtest run`: a scenario, from its file to its report.

mod console;
mod crews;
mod gauge;
pub mod metrics;
mod play;
pub mod record;
pub mod report;
mod room;
pub mod scenario;
mod seats;
mod step;
pub mod verdict;

pub use play::Setup;

use crate::Error;
use crate::cli::RunArgs;
use crate::site::gateway;
use report::Report;
use scenario::Scenario;
use std::path::Path;
use std::process::ExitCode;

/// Plays a scenario, says how it went and writes the reports.
///
/// # Errors
/// It could not be played: the scenario is wrong, or a process could not be started.
pub fn run(args: &RunArgs) -> Result<ExitCode, Error> {
    let scenario = Scenario::load(&args.scenario)?;
    let boards = args.boards.unwrap_or(scenario.fleet().boards);
    if boards == 0 {
        return Err(Error::new("--boards is 0: give at least 1."));
    }
    let setup = Setup {
        boards,
        seed: args.seed.unwrap_or_else(rand::random),
        program: gateway::program(args.gateway.as_deref())?,
        scenario,
    };
    // A report that cannot be written is better known before the run.
    for file in [&args.json, &args.html].into_iter().flatten() {
        write(file, "")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::of("the run cannot begin", &error))?;
    let record = runtime.block_on(play::play(setup.clone()))?;
    let report = Report::new(&setup, record);
    if let Some(file) = &args.json {
        write(file, &report.json()?)?;
    }
    if let Some(file) = &args.html {
        write(file, &report.html()?)?;
    }
    console::show(&report, args.html.as_deref());
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text)
        .map_err(|error| Error::new(format!("{} cannot be written: {error}.", file.display())))
}
