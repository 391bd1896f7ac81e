//! `dialhome-modem`: the emulated modem as a program.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dialhome_modem::{Config, Faults, Options, Program};

/// An emulated u-blox SARA modem: a board's serial line on one side, TCP on the other.
///
/// Orders are lines on standard input, or on the control port; each is answered by a line
/// that starts with "ok" or "error":
///
/// drop_registration MS, drop_context, close_socket [N], garbage N, lose N, lose_urcs N,
/// stall MS, freeze MS, mute, unmute, hang, error [N], silent [N], rubbish [N],
/// cut_power [MS], no_network, network, status
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Where the serial line connects (QEMU: -serial tcp:HOST:PORT,nodelay=on); port 0: any,
    /// said on standard output.
    #[arg(long, default_value = "127.0.0.1:0")]
    uart: String,
    /// Where orders are taken besides standard input.
    #[arg(long)]
    control: Option<String>,
    /// Bits a second; 0: as fast as it goes.
    #[arg(long, default_value_t = 0)]
    baud: u32,
    /// Milliseconds between a command and its answer.
    #[arg(long, default_value_t = 20)]
    latency: u64,
    /// Milliseconds that a start takes.
    #[arg(long, default_value_t = 3000)]
    start: u64,
    /// Milliseconds from then until there is a network.
    #[arg(long, default_value_t = 1000)]
    register: u64,
    /// Faults by chance: SEED for all, or SEED:NAME[=PER_MILLE],...
    #[arg(long)]
    faults: Option<String>,
    /// Longest stall, freeze or loss of registration by chance, milliseconds.
    #[arg(long, default_value_t = 30_000)]
    pause_max: u64,
    /// ADDRESS[:PORT] that connections may go to besides loopback; may be repeated.
    #[arg(long)]
    allow: Vec<String>,
    /// NAME=ADDRESS that the network knows; may be repeated.
    #[arg(long, value_parser = name)]
    name: Vec<(String, String)>,
    /// The only access point name that the network takes.
    #[arg(long, default_value = "")]
    apn: String,
    /// Access technology: 0 GSM, 2 UMTS, 7 LTE, 9 NB-IoT.
    #[arg(long, default_value_t = 2)]
    technology: u32,
    /// A file for the whole dialogue.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Do not say on standard error what goes wrong.
    #[arg(long)]
    quiet: bool,
}

fn name(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .ok_or_else(|| format!("`{text}` is not NAME=ADDRESS"))
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "dialhome-modem: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let mut config = Config {
        baud: arguments.baud,
        latency: Duration::from_millis(arguments.latency),
        start: Duration::from_millis(arguments.start),
        register: Duration::from_millis(arguments.register),
        technology: arguments.technology,
        apn: arguments.apn,
        ..Config::default()
    };
    config.names.extend(arguments.name);
    let mut faults = match &arguments.faults {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => Faults::none(),
    };
    faults.pause_max = Duration::from_millis(arguments.pause_max);
    let program = Program::start(Options {
        uart: arguments.uart,
        control: arguments.control,
        config,
        faults,
        allow: arguments.allow,
        trace: arguments.trace,
        verbose: !arguments.quiet,
    })?;
    let mut out = io::stdout();
    writeln!(out, "uart {}", program.uart())?;
    if let Some(control) = program.control() {
        writeln!(out, "control {control}")?;
    }
    out.flush()?;
    program.take_orders(io::stdin(), out)?;
    // Standard input ended, as with a program in the background: the modem goes on.
    loop {
        std::thread::park();
    }
}
