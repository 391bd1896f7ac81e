//! Measurements of the gateway, each against real processes or the real code.
//!
//! ```text
//! cargo bench -p dialhome-gateway                 all of them
//! cargo bench -p dialhome-gateway -- deliver air  some of them
//! ```
//!
//! | name | what | settings (environment) |
//! |---|---|---|
//! | `handshake` | handshakes per second of one core | |
//! | `deliver` | goodput, and CPU seconds per GiB, for 1 and many boards | `BENCH_MIB` 16, `BENCH_BOARDS` 100, `BENCH_ROUNDS` 7 |
//! | `air` | IP bytes for an image of 256 KiB; needs root, `ip` and `ethtool` | `BENCH_ROUNDS` 3 |
//! | `idle` | memory of the gateway per idle session | `BENCH_SESSIONS` 2000 |
//!
//! Figures are medians over rounds, with the least and the greatest. Everything
//! that is written goes to `/dev/shm`, so that no disk is measured.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod air;
mod deliver;
mod figures;
mod handshake;
mod idle;
mod network;
mod site;

use std::process::ExitCode;

/// What a benchmark gives back; an error is a sentence for the person who runs it.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

type Benchmark = (&'static str, fn() -> Outcome);

const ALL: [Benchmark; 4] = [
    ("handshake", handshake::run),
    ("deliver", deliver::run),
    ("air", air::run),
    ("idle", idle::run),
];

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --all-targets`, which does not, must not take minutes.
    if !wanted.iter().any(|arg| arg == "--bench") {
        println!("Nothing is measured without `cargo bench -p dialhome-gateway`.");
        return ExitCode::SUCCESS;
    }
    wanted.retain(|arg| !arg.starts_with("--"));
    if let Some(unknown) = wanted
        .iter()
        .find(|name| ALL.iter().all(|(known, _)| known != name))
    {
        println!("There is no benchmark `{unknown}`: it is handshake, deliver, air or idle.");
        return ExitCode::from(2);
    }
    println!("{}", figures::machine());
    let mut code = ExitCode::SUCCESS;
    for (name, run) in ALL {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("\n== {name}");
        if let Err(error) = run() {
            println!("{name} gave no figures: {error}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// A number from the environment, or its default.
fn setting(name: &str, default: usize) -> Outcome<usize> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{name} is `{text}`: give a number above 0").into()),
        },
    }
}
