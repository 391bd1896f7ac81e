//! The `dialhome-loadtest` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dialhome_loadtest::cli::main()
}
