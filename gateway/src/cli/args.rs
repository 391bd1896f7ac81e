//! The command line, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::key::KeyCommand;
use super::sign::{SignArgs, SignCommand};

/// Firmware updates for boards that dial home.
#[derive(Debug, Parser)]
#[command(
    name = "dialhome",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// The gateway's socket [default: ./dialhome-data/admin.sock; for serve DIR/admin.sock]
    #[arg(long, global = true, env = "DIALHOME_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway
    Serve(ServeArgs),
    /// Show a whole update on this machine: a gateway, three boards and a hostile link
    Demo(crate::demo::Options),
    /// Make signing keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Add, show and change devices
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Sign, add and show images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Send an image to a device, and wait until the board has confirmed it
    Push(PushArgs),
    /// Show, cancel and abandon updates
    #[command(subcommand)]
    Update(UpdateCommand),
    /// Offer, send and activate nothing: for one device, or for all
    Hold(OneOrAll),
    /// End a hold
    Release(OneOrAll),
    /// Show sessions, transfers, failures, disk and open files
    Status,
    /// Show what happened
    Events(EventsArgs),
    /// Show the end of a board's own log: its agent's lines, and those of the commands that it ran
    Logs {
        /// The device
        #[arg(value_parser = super::values::name)]
        id: String,
        /// Newest lines to show, 1 to 1000; at most 6,144 bytes of them come [default: 50]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        lines: Option<u16>,
    },
    /// Write everything, keys included, to a file
    Backup {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Put a backup in place of everything
    Restore {
        /// The backup
        file: PathBuf,
    },
}

/// `dialhome serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where the gateway keeps everything
    #[arg(long, value_name = "DIR", default_value = "./dialhome-data")]
    pub(crate) data: PathBuf,
    /// Where boards dial
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7040")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where boards dial over QUIC, or "off" [default: the address and port of --listen, over UDP]
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = super::values::quic)]
    pub(crate) quic: Option<crate::serve::QuicAt>,
    /// Transfers that run at a time; more wait for their turn
    #[arg(long, value_name = "N", default_value_t = crate::session::Limits::TRANSFERS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) transfers_max: u32,
    /// Transfers that run at a time in one network, a /24 or /48 [default: three quarters of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) network_transfers: Option<u32>,
    /// Bytes per second of all transfers, as in 500K, 10M or 1G [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = super::values::rate)]
    pub(crate) rate: Option<u64>,
    /// Bytes per second of the transfers in one network [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = super::values::rate)]
    pub(crate) network_rate: Option<u64>,
}

/// `dialhome device ...`
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Make a device's id and key, and write the file that its agent takes
    Add(DeviceAddArgs),
    /// Make of a device's file the record for a board that reads no TOML; needs no gateway
    Pack(super::pack::PackArgs),
    /// List the devices
    List,
    /// Show a device
    Show {
        /// The device
        id: String,
    },
    /// Show what happened to a device
    Log {
        /// The device
        id: String,
    },
    /// Ping a board through its open session: round trips, losses, link; exit code 1 where none is answered
    Check {
        /// The device
        #[arg(value_parser = super::values::name)]
        id: String,
        /// Pings to send, one after another, 1 to 100 [default: 10]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
        count: Option<u32>,
        /// Time for each to be answered, 1s to 30s; the whole check ends after 50 s [default: 5s]
        #[arg(long, value_name = "DUR", value_parser = super::values::ping_wait)]
        within: Option<Duration>,
    },
    /// Remove a device and its key
    Remove {
        /// The device
        id: String,
    },
    /// Give a device a new key, in band
    RotateKey {
        /// The device
        id: String,
    },
    /// Give a device a new list of gateways, in band
    SetGateways {
        /// The device
        id: String,
        /// The gateways, in the order in which they are dialled
        #[arg(required = true, num_args = 1..=4, value_name = "HOST:PORT", value_parser = super::values::gateway)]
        gateways: Vec<String>,
        /// A private key that the device trusts
        #[arg(long, required = true, value_name = "FILE")]
        key: Vec<PathBuf>,
    },
}

/// `dialhome device add`.
#[derive(Debug, Args)]
pub(crate) struct DeviceAddArgs {
    /// The device's id: 1 to 64 letters, digits, _ and -
    #[arg(value_parser = super::values::name)]
    pub(crate) id: String,
    /// Its product
    #[arg(long, value_parser = super::values::name)]
    pub(crate) product: String,
    /// Public keys whose signatures it trusts
    #[arg(long, required = true, num_args = 1.., value_name = "FILE.pub")]
    pub(crate) trust: Vec<PathBuf>,
    /// Gateways that it dials, in this order
    #[arg(long, required = true, num_args = 1.., value_name = "HOST:PORT", value_parser = super::values::gateway)]
    pub(crate) gateway: Vec<String>,
    /// The file for the agent (mode 0600); it must not exist. Without it the text goes to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `dialhome image ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Sign a firmware file; needs no gateway
    Sign(SignCommand),
    /// Give the gateway a signed image, or a firmware file that is signed on the spot
    Add(AddArgs),
    /// List the images
    List,
    /// Show an image
    Show {
        /// P[/component]@V; of several components P/1,0@V,V
        #[arg(value_parser = super::values::image)]
        image: String,
    },
    /// Remove an image that no open update needs
    Remove {
        /// P[/component]@V; of several components P/1,0@V,V
        #[arg(value_parser = super::values::image)]
        image: String,
    },
}

/// `dialhome image add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The file, and how to sign it.
    #[command(flatten)]
    pub(crate) sign: SignArgs,
    /// Let this image's check, or that it has none, be what its product and component need from now on
    #[arg(long)]
    pub(crate) change_check: bool,
}

/// `dialhome push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The device
    #[arg(value_parser = super::values::name)]
    pub(crate) device: String,
    /// P[/component]@V; of several components P/1,0@V,V
    #[arg(value_parser = super::values::image)]
    pub(crate) image: String,
    /// Do not wait for the end (exit code 3, unless it has ended already)
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Wait so long for the end, then leave with exit code 3; the update goes on
    #[arg(long, value_name = "DUR", value_parser = super::values::duration)]
    pub(crate) wait: Option<Duration>,
    /// After this it is canceled, or overdue if the board has heard of it [default: 7d]
    #[arg(long, value_name = "DUR", value_parser = super::values::duration)]
    pub(crate) deadline: Option<Duration>,
    /// Take the place of another update that is open
    #[arg(long)]
    pub(crate) replace: bool,
    /// Send an image that is older than the running one
    #[arg(long)]
    pub(crate) downgrade: bool,
    /// Pause when so many bytes were sent [default: 3 times the size]
    #[arg(long, value_name = "N")]
    pub(crate) max_bytes: Option<u64>,
}

/// `dialhome update ...`
#[derive(Debug, Subcommand)]
pub(crate) enum UpdateCommand {
    /// Show an update
    Show {
        /// The update
        id: String,
    },
    /// Cancel an update, if the board has not begun to activate it
    Cancel {
        /// The update
        id: String,
    },
    /// End an update in the record, without the board's word
    Abandon {
        /// The update
        id: String,
    },
}

/// A device, or none for all of them.
#[derive(Debug, Args)]
pub(crate) struct OneOrAll {
    /// The device; without one, everything
    pub(crate) device: Option<String>,
}

/// `dialhome events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on as things happen
    #[arg(long)]
    pub(crate) follow: bool,
    /// Begin after this event
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
}
