//! `dialhome-agent`: the Dialhome client on Linux.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use dialhome_device::agent::{
    boot_linux::{Again, Reexec},
    config::Config,
    launcher::{self, Launcher},
    log_ring::{LogRing, Secrets},
    run::{Parts, run},
    signals::Signals,
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    prelude::*,
};

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
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            eprintln!("dialhome-agent: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent, or its launcher; the exit code.
fn start(arguments: &Arguments) -> Result<u8, String> {
    let mut config = Config::load(&arguments.config).map_err(|error| error.to_string())?;
    if let Some(gateway) = &arguments.gateway {
        config.set_gateway(gateway)?;
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.agent.log.clone());
    // Without filters by span, which nobody misses here: they cost a third of the executable.
    let filter: Targets = filter.parse().map_err(|error| {
        format!("log filter `{filter}`: {error}. Use one such as `info`, in agent.log or RUST_LOG")
    })?;
    // What the gateway may ask for does not depend on what this machine's log is to hold.
    let ring = LogRing::default();
    let kept = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .with_writer(ring.clone());
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(kept.with_filter(LevelFilter::INFO))
        .init();
    if config.readable_by_others {
        tracing::warn!(
            "{} holds the device key and others may read it: chmod 600 it",
            arguments.config.display()
        );
    }
    let signals = Signals::take().map_err(|error| format!("signals: {error}"))?;
    let own = Reexec::this_process().map_err(|error| format!("own executable: {error}"))?;
    let again = if !config.agent.self_update {
        Again::Exec(own)
    } else if launcher::is_launched().map_err(|error| error.to_string())? {
        Again::Launcher
    } else {
        // A dial may take its whole time, and an agent that dials gives no sign of life.
        let agent = &config.agent;
        let silence = Duration::from_secs(agent.heartbeat_s.into())
            + 2 * Duration::from_millis(agent.connect_ms.into());
        // It waits for long: without the configuration, and the key in it.
        drop(config);
        let launcher = Launcher::open(
            &arguments.state,
            own.program,
            own.arguments,
            silence,
            signals,
        );
        return Ok(launcher.map_err(|error| error.to_string())?.run());
    };
    let mut parts = Parts::open(&config, &arguments.state, signals, Some(again))
        .map_err(|error| error.to_string())?;
    let secrets = Secrets::of(&*config.key.0);
    let ring = config.agent.remote_log.then_some(ring);
    parts.boot.set_log(ring, secrets);
    tracing::info!(device = config.id, state = %parts.state.dir().display(), "starts");
    run(&config, parts)
        .map(|()| 0)
        .map_err(|error| error.to_string())
}
