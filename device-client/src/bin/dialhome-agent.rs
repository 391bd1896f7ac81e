//! `dialhome-agent`: the Dialhome client on Linux.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use dialhome_device::agent::{
    boot_linux::Reexec,
    config::Config,
    run::{Parts, run},
    signals::Signals,
};
use tracing_subscriber::{filter::Targets, prelude::*};

/// Dials home: takes new firmware from a Dialhome gateway, installs it, and tells how it went.
#[derive(Parser)]
#[command(name = "dialhome-agent", version)]
struct Arguments {
    /// The file that `dialhome device add --out FILE` wrote, with the agent's own tables
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Directory of this agent alone: journal, images, and `current`, which points to the running one
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Dial this gateway instead of the provisioned ones
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("dialhome-agent: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), String> {
    let mut config = Config::load(&arguments.config).map_err(|error| error.to_string())?;
    if let Some(gateway) = &arguments.gateway {
        config.set_gateway(gateway)?;
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.agent.log.clone());
    // Without filters by span, which nobody misses here: they cost a third of the executable.
    let filter: Targets = filter.parse().map_err(|error| {
        format!("log filter `{filter}`: {error}. Use one such as `info`, in agent.log or RUST_LOG")
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    if config.readable_by_others {
        tracing::warn!(
            "{} holds the device key and others may read it: chmod 600 it",
            arguments.config.display()
        );
    }
    let signals = Signals::take().map_err(|error| format!("signals: {error}"))?;
    let reexec = Reexec::this_process().map_err(|error| format!("own executable: {error}"))?;
    let parts = Parts::open(&config, &arguments.state, signals, Some(reexec))
        .map_err(|error| error.to_string())?;
    tracing::info!(device = config.id, state = %parts.state.dir().display(), "starts");
    run(&config, parts).map_err(|error| error.to_string())
}
