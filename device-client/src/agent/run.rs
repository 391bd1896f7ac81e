//! The agent: everything opened and checked before the first dial, then the loop that
//! waits for what the client wants.

use core::fmt;
use std::{
    format,
    path::Path,
    string::{String, ToString as _},
    time::{Duration, Instant},
    vec::Vec,
};

use dialhome_proto::{
    device::{self, ComponentConfig, LinkState, TASK_LOG},
    limits::{PING_S, RECORD_HEADER},
    link::DeviceKey,
    time::Millis,
};

use super::{
    boot_linux::{Again, LinuxBoot},
    config::{Config, RECEIVE_BUFFERS},
    journal_file::FileJournal,
    launcher,
    rng_system::SystemRng,
    signals::Signals,
    slot_file::FileSlot,
    state::State,
    transport_tcp::TcpTransport,
};
#[cfg(feature = "quic")]
use super::{config::Quic, networks::Networks, transport_quic::QuicTransport, way::Way};
use crate::{
    client::{self, Client, Provision},
    slot::Slot as _,
};

/// Name and version of this program, as Hello has it.
const CLIENT: &str = concat!("dialhome-agent ", env!("CARGO_PKG_VERSION"));
/// Tasks that are always allowed: ping and report.
const TASKS: u32 = 0b11;
/// A wait without a deadline still ends after so long.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Stages of an update in which the gateway is to say something next, and soon.
#[cfg(feature = "quic")]
const OWED: [&str; 2] = ["Receiving", "Trial"];
/// Time for Bye to leave when the agent is asked to end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The way to the gateway.
#[cfg(feature = "quic")]
pub type Link = Way;
/// The way to the gateway.
#[cfg(not(feature = "quic"))]
pub type Link = TcpTransport;

/// What an agent works with.
#[derive(Debug)]
pub struct Parts {
    /// The way to the gateway.
    pub transport: Link,
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
        again: Option<Again>,
    ) -> Result<Self, StartError> {
        let state = match again {
            Some(Again::Launcher) => State::open_launched(state),
            _ => State::open(state),
        };
        let state = state.map_err(|error| StartError(error.to_string()))?;
        let journal = FileJournal::open(&state)
            .map_err(|error| StartError::new("the journal in the state directory", &error))?;
        let directory = |error| StartError::new("the state directory", &error);
        let mut boot =
            LinuxBoot::open(&state, config.commands.clone(), again).map_err(directory)?;
        let mut slot = FileSlot::new(&state, config.agent.slot_size);
        for child in &config.components {
            boot.add(child).map_err(directory)?;
            slot.add(&state, child.number, child.slot_size)
                .map_err(directory)?;
        }
        Ok(Self {
            transport: link(config, &state, &signals)?,
            slot,
            journal,
            boot,
            rng: SystemRng::open()
                .map_err(|error| StartError::new("the system's random source", &error))?,
            signals,
            state,
        })
    }
}

#[cfg(feature = "quic")]
fn link(config: &Config, state: &State, signals: &Signals) -> Result<Link, StartError> {
    let tcp = tcp(config, signals);
    let choice = config.agent.quic;
    let quic = if choice == Quic::Off {
        None
    } else if config.pins.is_empty() {
        tracing::info!("over TCP alone: the configuration pins no gateway's key for QUIC");
        None
    } else {
        let keepalive = Duration::from_secs(config.agent.quic_keepalive_s.into());
        match QuicTransport::new(&config.pins, keepalive, signals.clone()) {
            Ok(quic) => Some(quic),
            Err(error) if choice == Quic::Only => return Err(StartError::new("QUIC", &error)),
            // A board is not lost for want of its second way.
            Err(error) => {
                tracing::warn!(%error, "over TCP alone: QUIC cannot be used");
                None
            }
        }
    };
    let networks = Networks::open(state.dir().join("networks"), &config.pins);
    Ok(Way::new(tcp, choice, quic, networks))
}

#[cfg(not(feature = "quic"))]
fn link(config: &Config, _state: &State, signals: &Signals) -> Result<Link, StartError> {
    Ok(tcp(config, signals))
}

fn tcp(config: &Config, signals: &Signals) -> TcpTransport {
    TcpTransport::new(
        Duration::from_millis(config.agent.connect_ms.into()),
        config.agent.link,
        &config.agent.network,
        signals.clone(),
    )
}

/// Runs the agent until a signal asks it to end.
///
/// # Errors
/// The system refuses to wait for the connection.
pub fn run(config: &Config, parts: Parts) -> Result<(), StartError> {
    let [small, usual, _] = RECEIVE_BUFFERS;
    let parts = std::boxed::Box::new(parts);
    // The client's buffer is part of its type.
    match config.agent.receive_buffer {
        size if size == small => {
            run_with::<{ RECEIVE_BUFFERS[0] as usize + RECORD_HEADER }>(config, *parts)
        }
        size if size == usual => {
            run_with::<{ RECEIVE_BUFFERS[1] as usize + RECORD_HEADER }>(config, *parts)
        }
        _ => run_with::<{ RECEIVE_BUFFERS[2] as usize + RECORD_HEADER }>(config, *parts),
    }
}

fn run_with<const RX: usize>(config: &Config, parts: Parts) -> Result<(), StartError> {
    let Parts {
        transport,
        slot,
        journal,
        boot,
        rng,
        signals,
        state: _locked,
    } = parts;
    let geometry = slot.geometry();
    let own = (0, config.agent.slot_size, config.agent.window);
    let children = config.components.iter();
    let all = children.map(|child| (child.number, child.slot_size, child.window));
    let components: Vec<_> = core::iter::once(own)
        .chain(all)
        .map(|(component, slot_size, window)| ComponentConfig {
            component,
            slot_size,
            write_unit: geometry.write_unit,
            erase_unit: geometry.erase_unit,
            window,
            commit_ms: config.agent.commit_ms,
            // Never more than the window: a child's may be smaller.
            claim_every: config.agent.claim_bytes.min(window),
        })
        .collect();
    let gateways: Vec<&str> = config.gateways.iter().map(String::as_str).collect();
    let key = DeviceKey::new(*config.key.0);
    let reconnect = config.reconnect;
    let client_config = device::Config {
        device: &config.id,
        product: &config.product,
        hardware: config.agent.hardware,
        client: CLIENT,
        receive_buffer: config.agent.receive_buffer,
        tasks: TASKS | if config.agent.remote_log { TASK_LOG } else { 0 },
        ping_s: config.agent.ping_s,
        // A configuration that asks for less than a gateway may is a test's.
        ping_s_min: config.agent.ping_s.min(*PING_S.start()),
        wake_s: 0,
        backoff_ms: (reconnect.first_ms.into(), reconnect.max_ms.into()),
        gateways: 0,
        components: &components,
    };
    let provision = Provision {
        key: &key,
        gateways: &gateways,
        trust: config.trust.as_ref(),
        seed: None,
    };
    let parts = client::Parts {
        transport,
        slot,
        journal,
        boot,
        rng,
    };
    let start = Instant::now();
    let clock = || Millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
    let mut client = Client::<_, _, _, _, _, RX>::start(client_config, provision, parts, clock());
    let mut state = client.machine().stage_name();
    let mut was_online = false;
    let mut stop_due = None;
    let beat_every = if config.agent.self_update {
        Duration::from_secs(config.agent.heartbeat_s.into()) / 4
    } else {
        WAIT_MAX
    };
    loop {
        if signals.stop() && stop_due.is_none() {
            client.stop();
            stop_due = Some(Instant::now() + STOP_MAX);
        }
        if let Some(due) = stop_due
            && (client.has_left() || Instant::now() >= due)
        {
            tracing::info!("ends");
            return Ok(());
        }
        let wake = client.poll(clock());
        if client.machine().stage_name() != state {
            state = client.machine().stage_name();
            tracing::info!(state, "update");
        }
        let online = matches!(client.machine().link_state(), LinkState::Online);
        if online != was_online {
            was_online = online;
            if online {
                tracing::info!(online, "session");
            } else {
                // `lost`, the gateway's own word, or none where this agent goes.
                let last_close = client.machine().last_close();
                tracing::info!(online, %last_close, "session");
            }
        }
        if wake.restarting {
            // Only where it cannot start itself again: whoever started it will.
            return Ok(());
        }
        let time = wake
            .at
            .map_or(WAIT_MAX, |at| Duration::from_millis(at.since(clock())));
        let time = stop_due.map_or(time, |due| {
            time.min(due.saturating_duration_since(Instant::now()))
        });
        let time = time.min(beat_every);
        launcher::beat();
        let transport = &mut client.parts().transport;
        #[cfg(feature = "quic")]
        transport.expect(online && OWED.contains(&state));
        transport
            .wait(wake.on_receive, wake.on_send, time.min(WAIT_MAX))
            .map_err(|error| StartError::new("waiting for the connection", &error))?;
    }
}
