//! `dialhome serve`: the data directory, the boards' side and the admin API, put together and taken apart again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, AdminSocket, SocketError};
use crate::cli::error::CliError;
use crate::image::store::ImageStore;
use crate::session::{self, Gateway};
use crate::store::{Store, StoreError};

/// Times that a port is looked for that both TCP and UDP have free.
const PORTS_TRIED: usize = 32;

/// Where boards dial over QUIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuicAt {
    /// Nowhere.
    Off,
    /// At the address and port where they dial over TCP.
    Listen,
    /// Here.
    Address(SocketAddr),
}

/// What `dialhome serve` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// Where boards dial.
    pub listen: SocketAddr,
    /// Where they dial over QUIC.
    pub quic: QuicAt,
    /// The admin socket.
    pub socket: PathBuf,
    /// How much is delivered at a time.
    pub limits: session::Limits,
}

/// Runs the gateway until it is told to end (Ctrl-C, SIGTERM).
///
/// # Errors
/// In words, where it cannot start: the directory, the address or the socket is taken, damaged or not allowed.
pub async fn run(options: Options) -> Result<(), CliError> {
    log_to_stderr();
    // First of all: who asks for the end while it starts is answered with an end in order.
    let ended = ended().map_err(|error| not_listening_for_signals(&error))?;
    // Keys are in these files: whatever is made is for the gateway's user alone, the admin socket excepted.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_open_files();
    let store = Store::open(&options.data)?;
    let images =
        ImageStore::open(&options.data).map_err(|error| not_opened(&options.data, &error))?;
    let images = Arc::new(images);
    let (listeners, listen, quic) = bind(options.listen, options.quic)?;
    let socket = AdminSocket::bind(&options.socket)?;
    let stop = CancellationToken::new();
    let gateway = Gateway::with_limits(store.clone(), Arc::clone(&images), options.limits)
        .map_err(|error| not_listening(listen, &error))?;
    let live = Arc::clone(&gateway.registry);
    let served = CancellationToken::new();
    let boards = tokio::spawn({
        let (until, served) = (stop.clone().cancelled_owned(), served.clone().drop_guard());
        async move {
            let _served = served;
            session::serve(gateway, listeners, until).await
        }
    });
    // Without boards there is nothing to administer.
    let ended = async move {
        tokio::select! {
            () = ended => {}
            () = served.cancelled() => {}
        }
    };
    let over_quic = quic.map_or_else(|| "off".to_owned(), |quic| quic.to_string());
    if quic.is_some_and(|quic| quic.port() != listen.port()) {
        tracing::warn!(%listen, quic = %over_quic, "boards dial one port for TCP and QUIC: without something in front that passes UDP on to this one, none comes by QUIC");
    }
    tracing::info!(%listen, quic = %over_quic, socket = %socket.path().display(), data = %options.data.display(), "the gateway is ready");
    let admin = Admin {
        store: store.clone(),
        images,
        live,
        listen: Some(listen),
        quic,
        started: crate::store::now(),
    };
    admin::serve(socket, admin::router(admin), ended).await;
    tracing::info!("the gateway stops");
    stop.cancel();
    // Every session is told to dial again, and its end is stored.
    let boards = boards.await;
    if let Err(error) = store.flush().await {
        tracing::warn!(%error, "the last counters were not stored");
    }
    if let Ok(Err(error)) = boards {
        return Err(not_listening(listen, &error));
    }
    Ok(())
}

/// Takes the addresses; which they are.
fn bind(
    listen: SocketAddr,
    quic: QuicAt,
) -> Result<(session::Listeners, SocketAddr, Option<SocketAddr>), CliError> {
    let mut tries = 0;
    loop {
        let tcp = session::bind(listen).map_err(|error| not_listening(listen, &error))?;
        let listening = tcp
            .local_addr()
            .map_err(|error| not_listening(listen, &error))?;
        let wanted = match quic {
            QuicAt::Off => return Ok((tcp.into(), listening, None)),
            QuicAt::Listen => listening,
            QuicAt::Address(address) => address,
        };
        match session::bind_quic(wanted).and_then(|udp| Ok((udp.local_addr()?, udp))) {
            Ok((address, udp)) => {
                let listeners = session::Listeners {
                    tcp,
                    quic: Some(udp),
                };
                return Ok((listeners, listening, Some(address)));
            }
            // Any port would do, and the one that TCP got is not free for UDP.
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && quic == QuicAt::Listen
                    && listen.port() == 0
                    && tries < PORTS_TRIED =>
            {
                tries += 1;
            }
            Err(error) => return Err(not_listening_for_quic(wanted, quic, &error)),
        }
    }
}

/// Every session is an open file: as many as the system lets this process have.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

/// Hears from now on when the process is asked to end; the future returns then.
fn ended() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Logs to standard error, as `RUST_LOG` says.
fn log_to_stderr() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Fails where a test has set a subscriber already: then that one is meant.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

fn not_listening(listen: SocketAddr, error: &std::io::Error) -> CliError {
    let failed = CliError::failed("listen", format!("Boards cannot dial {listen}: {error}."));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => failed
            .hint("Another program has this port: stop it, or give another one with --listen."),
        _ => failed.hint("Give an address of this machine with --listen."),
    }
}

fn not_listening_for_quic(at: SocketAddr, quic: QuicAt, error: &std::io::Error) -> CliError {
    let failed = CliError::failed(
        "listen",
        format!("Boards cannot dial {at} over UDP (QUIC): {error}."),
    );
    match (error.kind(), quic) {
        (std::io::ErrorKind::AddrInUse, _) => failed.hint(
            "Another program has this UDP port: stop it, or give --quic off. Another port (--quic ADDR:PORT) is of use only where something in front passes it the UDP of the port that boards dial: they use one port for both.",
        ),
        (_, QuicAt::Address(_)) => {
            failed.hint("Give an address of this machine with --quic, or --quic off.")
        }
        _ => failed.hint("Give --quic an address of this machine, or --quic off."),
    }
}

fn not_listening_for_signals(error: &std::io::Error) -> CliError {
    CliError::failed("signals", format!("Signals cannot be received: {error}."))
        .hint("Without them the gateway could not be ended in order.")
}

fn not_opened(data: &Path, error: &std::io::Error) -> CliError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::DiskFull { path: data.into() }.into(),
        _ => StoreError::Io {
            action: "cannot open the images in",
            path: data.into(),
            detail: error.to_string(),
        }
        .into(),
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let failed = Self::failed(error.code(), crate::cli::sentence(&error.to_string()));
        match error.hint() {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<SocketError> for CliError {
    fn from(error: SocketError) -> Self {
        let failed = match error {
            SocketError::TooLong { .. } => {
                Self::wrong_use(crate::cli::sentence(&error.to_string()))
            }
            _ => Self::failed(error.code(), crate::cli::sentence(&error.to_string())),
        };
        Self {
            code: error.code(),
            ..failed
        }
    }
}
