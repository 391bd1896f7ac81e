//! The command line of `dialhome-loadtest`.

use crate::Error;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Plays fleets of boards against a real gateway, and compares it with what else could do the job.
#[derive(Debug, Parser)]
#[command(name = "dialhome-loadtest", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

const COMPARE_HELP: &str = "\
Rows:
  idle     user-space bytes per idle authenticated session (user_bytes_per_idle_session),
           idle processor time, and both as the number of sessions grows
  deliver  processor seconds of the server for a GiB, to 1,000 devices
  connect  authenticated connections per second of the server's processor time
  air      IP bytes for an image of 256 KiB over its size; needs root, ip and ethtool
  push     an operator's command to its first byte at the board, p50 and p99
  slow     an image over 100 kbit/s and 700 ms against what the rate alone allows
  transports  an update over QUIC and over TCP on slow links, with losses and blackouts;
           needs root and ip
  transport-costs  memory of idle sessions and processor seconds for a GiB, over QUIC and TCP

Every contender has its turn in each round. Figures are medians over the rounds, with the
interval that holds the median in 95 of 100 runs. Needs mosquitto and nginx (Debian:
mosquitto, nginx-light) and a release build; `make compare` sees to both.
Exit code 0: all was measured, goals that are not reached are said; 1: something could not
be measured; 2: the run could not begin.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays a scenario; exit code 0: within its limits, 1: not, 2: it could not be played.
    Run(RunArgs),
    /// The same job done by mosquitto, nginx and Dialhome, side by side.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// One process of a fleet, told what to do on its standard input.
    #[command(hide = true)]
    Crew,
    /// One process of clients of the servers that are compared, told what to do likewise.
    #[command(hide = true)]
    Clients,
}

/// What `run` is told.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The scenario's file, or the name of one that is built in.
    pub scenario: PathBuf,
    /// Begins the run's random numbers; printed, so that a run can be repeated.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Boards, in place of the scenario's number.
    #[arg(long)]
    pub boards: Option<usize>,
    /// Writes the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Writes the report as one HTML file.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// The gateway's program; without it the `dialhome` beside this one.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
}

/// What `compare` is told.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// The rows to measure, as below; without them all.
    pub rows: Vec<String>,
    /// Rounds of each, at least 1.
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Sessions of the rows that are about many.
    #[arg(long, default_value_t = 19_000)]
    pub sessions: usize,
    /// Size of the images, in KiB.
    #[arg(long, default_value_t = 1_024)]
    pub image_kib: usize,
    /// Writes the figures as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The gateway's program; without it the `dialhome` beside this one.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Command::Run(args) => crate::run::run(&args),
        Command::Compare(args) => crate::compare::run(&args),
        Command::Clients => crate::compare::clients().map(|()| ExitCode::SUCCESS),
        Command::Crew => crate::fleet::crew::run().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error: Error| {
        #[expect(clippy::print_stderr, reason = "a command tells its user what failed")]
        {
            eprintln!("error: {error}");
        }
        ExitCode::from(2)
    })
}
