//! Starts the agent: everything opened and checked before the first dial.

use core::fmt;
use std::{
    format,
    path::Path,
    string::{String, ToString as _},
    time::Duration,
};

use super::{
    boot_linux::{Commands, LinuxBoot, Reexec},
    config::Config,
    journal_file::FileJournal,
    rng_system::SystemRng,
    signals::Signals,
    slot_file::FileSlot,
    state::State,
    transport_tcp::TcpTransport,
};

/// What an agent works with.
#[derive(Debug)]
pub struct Parts {
    /// The way to the gateway.
    pub transport: TcpTransport,
    /// Where images go.
    pub slot: FileSlot,
    /// What must not be forgotten.
    pub journal: FileJournal,
    /// Which image runs.
    pub boot: LinuxBoot,
    /// Random bytes.
    pub rng: SystemRng,
    /// Requests to end.
    pub signals: Signals,
    /// The lock on the state directory, held until this is dropped.
    pub state: State,
}

/// Why an agent does not start: one sentence that says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn new(what: &str, error: &dyn fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for StartError {}

impl Parts {
    /// Opens the state directory and everything that the configuration names.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(
        config: &Config,
        state: &Path,
        signals: Signals,
        reexec: Option<Reexec>,
    ) -> Result<Self, StartError> {
        let state = State::open(state).map_err(|error| StartError(error.to_string()))?;
        let journal = FileJournal::open(&state)
            .map_err(|error| StartError::new("the journal in the state directory", &error))?;
        let commands = Commands {
            install: config.install.clone(),
            running: config.running.clone(),
            self_test: config.self_test.clone(),
        };
        let boot = LinuxBoot::open(&state, commands, reexec)
            .map_err(|error| StartError::new("the state directory", &error))?;
        Ok(Self {
            transport: TcpTransport::new(
                Duration::from_millis(config.agent.connect_ms.into()),
                config.agent.link,
                &config.agent.network,
                signals.clone(),
            ),
            slot: FileSlot::new(&state, config.agent.slot_size),
            journal,
            boot,
            rng: SystemRng::open()
                .map_err(|error| StartError::new("the system's random source", &error))?,
            signals,
            state,
        })
    }
}
