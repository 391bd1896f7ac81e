//! `dialhome-loadtest compare`: the same job done by others, side by side in one run.
//!
//! One file per row of what is compared, one per peer (`peers/`). In every round each
//! contender has its turn, so that what changes on the machine meanwhile meets all of them.

mod agent;
mod air;
mod clients;
mod connect;
mod crews;
mod deliver;
mod dialhome;
mod events;
mod figures;
mod happenings;
mod idle;
mod network;
mod peers;
mod push;
mod slow;
mod transport_costs;
mod transports;

use crate::Error;
use crate::cli::CompareArgs;
use crate::measure::process::{CpuTime, machine};
use crate::site::leash;
use figures::Figures;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

pub use clients::process::run as clients;

/// What a run is told, and what it found out about itself.
#[derive(Clone, Debug)]
struct Setup {
    /// The gateway's program.
    gateway: PathBuf,
    /// This program.
    own: PathBuf,
    /// Rounds of each.
    rounds: usize,
    /// Sessions of the rows that are about many.
    sessions: usize,
    /// Bytes of the images.
    image: usize,
}

impl Setup {
    /// Whether this run is small: one that proves that it works, and measures nothing.
    const fn is_small(&self) -> bool {
        self.sessions < 1_000
    }

    /// Time over which something that is slow is watched.
    const fn window(&self) -> Duration {
        Duration::from_secs(if self.is_small() { 1 } else { 10 })
    }

    /// Says on standard error what is done now.
    #[expect(clippy::print_stderr, reason = "progress is told beside the figures")]
    #[expect(clippy::unused_self, reason = "of this run")]
    fn says(&self, row: &str, round: usize, who: &str) {
        eprintln!("{row}, round {}: {who}", round + 1);
    }
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// A row: its name, what it is about, and who measures it.
struct Row {
    name: &'static str,
    about: &'static str,
    measure: for<'a> fn(&'a Setup, &'a mut Figures) -> Measuring<'a>,
}

const ROWS: [Row; 8] = [
    Row {
        name: "idle",
        about: "memory and processor time of the server for sessions that are authenticated and silent",
        measure: |setup, figures| Box::pin(idle::measure(setup, figures)),
    },
    Row {
        name: "deliver",
        about: "processor time of the server for a GiB that arrives, at 1,000 devices",
        measure: |setup, figures| Box::pin(deliver::measure(setup, figures)),
    },
    Row {
        name: "connect",
        about: "connections authenticated per second of the server's processor time",
        measure: |setup, figures| Box::pin(connect::measure(setup, figures)),
    },
    Row {
        name: "air",
        about: "bytes on the air for an image of 256 KiB; needs root",
        measure: |setup, figures| Box::pin(air::measure(setup, figures)),
    },
    Row {
        name: "push",
        about: "an operator's command to its first byte at the board",
        measure: |setup, figures| Box::pin(push::measure(setup, figures)),
    },
    Row {
        name: "slow",
        about: "an image over 2G against what the rate alone allows",
        measure: |setup, figures| Box::pin(slow::measure(setup, figures)),
    },
    Row {
        name: "transports",
        about: "an update over QUIC and over TCP on slow links, with losses and blackouts; needs root",
        measure: |setup, figures| Box::pin(transports::measure(setup, figures)),
    },
    Row {
        name: "transport-costs",
        about: "what sessions and deliveries over QUIC and over TCP cost the gateway",
        measure: |setup, figures| Box::pin(transport_costs::measure(setup, figures)),
    },
];

/// Measures the rows; exit code 0 when all could be measured.
///
/// # Errors
/// The command line names what there is not, nothing can be started or written, or the run was
/// interrupted.
pub fn run(args: &CompareArgs) -> Result<ExitCode, Error> {
    if args.rounds == 0 || args.sessions == 0 || args.image_kib == 0 {
        return Err(Error::new("rounds, sessions and the image must be above 0"));
    }
    for name in &args.rows {
        if ROWS.iter().all(|row| row.name != name) {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            return Err(Error::new(format!(
                "there is no row `{name}`: {}",
                known.join(", ")
            )));
        }
    }
    let setup = Setup {
        gateway: crate::site::gateway::program(args.gateway.as_deref())?,
        own: clients::own_program()?,
        rounds: args.rounds,
        sessions: args.sessions,
        image: args.image_kib * 1024,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Error::of("no runtime", &error))?;
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    runtime.block_on(async { leash::interrupts(move |name| tell.send(name).is_ok()) })?;
    let machine = machine();
    let settings = format!(
        "{} rounds, {} sessions, image of {} KiB{}",
        setup.rounds,
        setup.sessions,
        args.image_kib,
        if cfg!(debug_assertions) {
            "; NOT a release build: the figures mean nothing"
        } else {
            ""
        }
    );
    print(&format!("{machine}\n{settings}\n"));
    let mut rows = Map::new();
    let (mut failed, mut missed) = (Vec::new(), 0);
    for row in &ROWS {
        if !args.rows.is_empty() && args.rows.iter().all(|name| name != row.name) {
            continue;
        }
        print(&format!("\n== {}: {}\n", row.name, row.about));
        let mut figures = Figures::default();
        let measured = runtime.block_on(async {
            tokio::select! {
                outcome = (row.measure)(&setup, &mut figures) => Ok(outcome),
                Some(name) = asked.recv() => Err(Error::new(format!(
                    "the comparison was interrupted ({name}) at {}", row.name
                ))),
            }
        });
        // What was started has ended with what was measuring it.
        let outcome = measured?;
        print(&figures.table());
        let mut document = figures.json();
        missed += figures
            .goals
            .iter()
            .filter(|goal| !goal.is_reached())
            .count();
        if let Err(error) = outcome {
            print(&format!("  {} was NOT MEASURED: {error}\n", row.name));
            document["failed"] = error.to_string().into();
            failed.push(row.name);
        }
        rows.insert(row.name.to_owned(), document);
    }
    print(&match (missed, failed.is_empty()) {
        (0, true) => "\nevery goal that was measured is reached\n".to_owned(),
        (_, true) => format!("\ngoals not reached: {missed}\n"),
        (_, false) => format!(
            "\ngoals not reached: {missed}; not measured: {}\n",
            failed.join(", ")
        ),
    });
    if let Some(path) = &args.json {
        let document = document(&machine, &setup, rows);
        std::fs::write(path, format!("{document:#}\n"))
            .map_err(|error| Error::of(&path.display().to_string(), &error))?;
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn document(machine: &str, setup: &Setup, rows: Map<String, Value>) -> Value {
    let user_bytes = rows
        .get("idle")
        .and_then(|row| row["figures"].as_array())
        .into_iter()
        .flatten()
        .find(|figure| figure["who"] == figures::DIALHOME && figure["key"] == idle::USER_BYTES)
        .map_or(Value::Null, |figure| figure["median"]["value"].clone());
    json!({
        "machine": machine,
        "release_build": !cfg!(debug_assertions),
        "rounds": setup.rounds,
        "sessions": setup.sessions,
        "image_bytes": setup.image,
        idle::USER_BYTES: user_bytes,
        "rows": rows,
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the figures are what the command is for"
)]
fn print(text: &str) {
    print!("{text}");
}

/// Processor seconds that processes took while something was done, and until they were
/// quiet again after it.
async fn processor_time<T>(
    pids: Vec<u32>,
    doing: impl Future<Output = Result<T, Error>>,
) -> Result<(f64, T), Error> {
    let time = CpuTime::of(pids);
    let before = time.seconds();
    let done = doing.await?;
    let mut last = time.seconds();
    // What follows, such as the end of a connection, belongs to it.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = time.seconds();
        if now - last < 0.002 {
            last = now;
            break;
        }
        last = now;
    }
    Ok((last - before, done))
}
