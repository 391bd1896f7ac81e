//! Images over loopback to real agents: goodput of the whole, and what it costs the gateway.

use super::figures::{self, CpuTime};
use super::site::{self, Gateway, Process, Site};
use super::{Outcome, setting};
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;
/// The first state after the last byte was acknowledged, and those that follow it.
const ACKNOWLEDGED: [&str; 5] = ["verifying", "staged", "activating", "trial", "confirmed"];

#[derive(Default)]
struct Figures {
    seconds: Vec<f64>,
    goodput: Vec<f64>,
    gateway: Vec<f64>,
    agents: Vec<f64>,
}

pub(super) fn run() -> Outcome {
    let size = setting("BENCH_MIB", 16)? << 20;
    let many = setting("BENCH_BOARDS", 100)?;
    let rounds = setting("BENCH_ROUNDS", 7)?;
    let agent = site::agent_program()?;
    println!(
        "image of {} MiB, chunks of 4 KiB, windows of 256 KiB, {rounds} rounds; from `release` of held updates to the last acknowledged byte",
        size >> 20
    );
    println!(
        "{:>6}  {:>26}  {:>26}  {:>26}  {:>26}",
        "boards", "seconds", "MiB/s, all boards", "gateway CPU s/GiB", "agents CPU s/GiB"
    );
    let mut counts = vec![1, many];
    counts.dedup();
    for count in counts {
        let figures = measure(&agent, count, size, rounds)?;
        println!(
            "{count:>6}  {:>26}  {:>26}  {:>26}  {:>26}",
            figures::median(&figures.seconds, 2),
            figures::median(&figures.goodput, 0),
            figures::median(&figures.gateway, 2),
            figures::median(&figures.agents, 2),
        );
    }
    Ok(())
}

fn measure(agent: &std::path::Path, count: usize, size: usize, rounds: usize) -> Outcome<Figures> {
    let site = Site::new(site::loopback()?)?;
    let boards: Vec<_> = (0..count)
        .map(|n| (format!("board-{n}"), "[agent]\nlog = \"warn\"\n".to_owned()))
        .collect();
    // Each round has an image of its own, and the first one warms up.
    let images: Vec<_> = (0..=rounds)
        .map(|round| site::image(round as u64, size))
        .collect();
    let boards = site.fill(&boards, &images)?;
    drop(images);
    let gateway = site.gateway(None)?;
    let agents = boards
        .iter()
        .map(|board| site.agent(agent, board, None))
        .collect::<Outcome<Vec<Process>>>()?;
    gateway.sessions(count)?;
    let mut figures = Figures::default();
    for round in 0..=rounds {
        let ids: Vec<&str> = boards.iter().map(|board| board.id.as_str()).collect();
        let one = deliver(&gateway, &agents, &ids, round)?;
        if round == 0 {
            continue;
        }
        let bytes = (count * size) as f64;
        figures.seconds.push(one.time.as_secs_f64());
        figures.goodput.push(bytes / MIB / one.time.as_secs_f64());
        figures.gateway.push(one.gateway * GIB / bytes);
        figures.agents.push(one.agents * GIB / bytes);
    }
    Ok(figures)
}

struct Round {
    time: Duration,
    gateway: f64,
    agents: f64,
}

fn deliver(gateway: &Gateway, agents: &[Process], boards: &[&str], image: usize) -> Outcome<Round> {
    gateway.operate(&["hold"])?;
    let updates = boards
        .iter()
        .map(|board| gateway.push(board, image))
        .collect::<Outcome<Vec<_>>>()?;
    let events = gateway.events()?;
    let of_gateway = CpuTime::of(vec![gateway.id()]);
    let of_agents = CpuTime::of(agents.iter().map(Process::id).collect());
    let (gateway_before, agents_before) = (of_gateway.seconds(), of_agents.seconds());
    let began = Instant::now();
    gateway.operate(&["release"])?;
    let ended = events.reached(&updates, &ACKNOWLEDGED)?;
    let round = Round {
        time: ended - began,
        gateway: of_gateway.seconds() - gateway_before,
        agents: of_agents.seconds() - agents_before,
    };
    // The boards restart into the image; the next round begins when all have confirmed it.
    gateway.events()?.reached(&updates, &["confirmed"])?;
    gateway.sessions(boards.len())?;
    Ok(round)
}
