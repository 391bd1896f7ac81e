//! `dialhome-stk500`: the emulated microcontroller as a program.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dialhome_stk500::{Faults, Options, Part, Program};

/// An emulated AVR whose bootloader speaks STK500 version 1 on a pseudo-terminal, as Arduino's
/// do: program it by `avrdude -c arduino -p PART -P LINE`.
///
/// Orders are lines on standard input; each is answered by a line that starts with "ok" or
/// "error":
///
/// faults LIST, unplug, plug, reset, status
///
/// LIST has, with commas between them: silent_after=PAGES, unplug_after=PAGES,
/// stuck=ADDRESS:VALUE (hexadecimal), wrong_signature, slow=MILLISECONDS, deaf=REQUESTS,
/// sessions=NUMBER (so many sessions go wrong, and no later one)
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The file that holds the flash; made where it is not there.
    #[arg(long)]
    flash: PathBuf,
    /// m328p, m32u4 or m168.
    #[arg(long, default_value_t)]
    part: Part,
    /// A symbolic link to the line, which keeps its name when the board is plugged in again.
    #[arg(long)]
    link: Option<PathBuf>,
    /// What goes wrong, as in the order.
    #[arg(long, default_value = "")]
    faults: String,
    /// Milliseconds that the bootloader listens after a reset and after each command.
    #[arg(long, default_value_t = 20_000)]
    window: u64,
    /// Do not tell sessions on standard error.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "dialhome-stk500: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let faults: Faults = arguments.faults.parse().map_err(io::Error::other)?;
    let program = Program::start(Options {
        part: arguments.part,
        link: arguments.link,
        faults,
        window: Duration::from_millis(arguments.window),
        verbose: !arguments.quiet,
        ..Options::new(arguments.flash)
    })?;
    let mut out = io::stdout();
    writeln!(out, "line {}", program.line().display())?;
    out.flush()?;
    program.take_orders(io::stdin(), out)?;
    // Standard input ended, as with a program in the background: the board goes on.
    loop {
        std::thread::park();
    }
}
