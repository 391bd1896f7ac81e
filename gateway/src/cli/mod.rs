//! The `dialhome` command line: a client of the admin API, and nothing else.
//!
//! Exit codes: 0 done (a push: confirmed), 1 failed, 2 wrong use, 3 not finished yet, 4 gateway not reached.

mod advice;
mod archive;
mod args;
mod check;
mod client;
mod device;
pub mod entries;
pub mod error;
mod events;
mod image;
pub mod key;
mod logs;
mod output;
mod pack;
mod push;
pub mod sign;
mod sse;
mod status;
mod update;
mod values;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ErrorKind};

use args::{Cli, Command, DeviceCommand, ImageCommand};
use client::Client;
pub(crate) use client::sentence;
use error::{CliError, WRONG_USE};
use key::KeyCommand;
use output::Output;

/// Name of the socket in a data directory.
pub(crate) const SOCKET: &str = "admin.sock";
/// Where a client looks for the socket when nothing names one.
const DEFAULT_DATA: &str = "./dialhome-data";

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let out = Output { json: cli.json };
    match run(cli, out) {
        Ok(code) => code,
        Err(error) => out.fail(&error),
    }
}

fn run(cli: Cli, out: Output) -> Result<ExitCode, CliError> {
    match cli.command {
        Command::Serve(args) => {
            let socket = cli.socket.unwrap_or_else(|| args.data.join(SOCKET));
            let options = crate::serve::Options {
                data: args.data,
                listen: args.listen,
                quic: args.quic.unwrap_or(crate::serve::QuicAt::Listen),
                socket,
                limits: crate::session::Limits::new(
                    args.transfers_max,
                    args.network_transfers,
                    args.rate,
                    args.network_rate,
                ),
            };
            threads()?.block_on(crate::serve::run(options))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(options) => {
            let told = threads()?.block_on(crate::demo::run(options));
            told.map(|()| ExitCode::SUCCESS)
                .map_err(|error| CliError::failed("demo", sentence(&error.to_string())))
        }
        Command::Key(KeyCommand::Generate(args)) => out.done(&key::run(&args)?),
        Command::Image(ImageCommand::Sign(command)) => {
            out.done(&sign::run_to_file(&command)?.summary(Some(&command.out)))
        }
        Command::Device(DeviceCommand::Pack(args)) => out.done(&pack::run(&args)?),
        command => {
            let client = Client::new(cli.socket.unwrap_or_else(default_socket))?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .map_err(no_runtime)?
                .block_on(ask(command, &client, out))
        }
    }
}

/// The commands that ask the gateway.
async fn ask(command: Command, client: &Client, out: Output) -> Result<ExitCode, CliError> {
    match command {
        Command::Device(command) => device::run(command, client, out).await,
        Command::Image(command) => image::run(command, client, out).await,
        Command::Push(args) => push::run(args, client, out).await,
        Command::Update(command) => update::run(command, client, out).await,
        Command::Hold(args) => status::hold(args.device.as_deref(), true, client, out).await,
        Command::Release(args) => status::hold(args.device.as_deref(), false, client, out).await,
        Command::Status => status::run(client, out).await,
        Command::Logs { id, lines } => logs::run(&id, lines, client, out).await,
        Command::Events(args) => events::run(&args, client, out).await,
        Command::Backup { file } => archive::backup(&file, client, out).await,
        Command::Restore { file } => archive::restore(&file, client, out).await,
        Command::Serve(_) | Command::Demo(_) | Command::Key(_) => Ok(ExitCode::SUCCESS),
    }
}

fn default_socket() -> PathBuf {
    Path::new(DEFAULT_DATA).join(SOCKET)
}

fn threads() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)
}

fn no_runtime(error: std::io::Error) -> CliError {
    CliError::failed(
        "system",
        format!("The system gave no threads or files: {error}."),
    )
}

/// Says what is wrong with the command line; help and version are no errors.
fn refuse(error: &clap::Error) -> ExitCode {
    let wanted = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if wanted {
        // Nobody is left to tell where printing fails.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let rendered = error.render().to_string();
    let message = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(name)) => format!("unknown command \"{name}\""),
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand, _) => {
            "a command is missing".to_owned()
        }
        _ => rendered
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned(),
    };
    if std::env::args().any(|arg| arg == "--json") {
        Output { json: true }.print_error(
            &CliError::wrong_use(sentence(&message)).hint("`dialhome --help` lists the commands."),
        );
    }
    output::say(&match error.kind() {
        ErrorKind::InvalidSubcommand => format!(
            "{}\n\nFor more information, try '--help'.",
            sentence(&message)
        ),
        _ => rendered.trim_end().to_owned(),
    });
    ExitCode::from(WRONG_USE)
}
