//! What an image costs on the air: IP bytes of both directions over its size.

use super::network::{self, Crossed, Link};
use super::site::{self, Site};
use super::{Outcome, figures, setting};
use std::time::Duration;

const SIZE: usize = 256 * 1024;
/// Image 0 is next to nothing: what it costs is what every update costs.
const SMALL: usize = 0;
const LARGE: usize = 1;

struct Case {
    receive_buffer: u16,
    window: u32,
    timestamps: bool,
}

/// Chunks of 1 KiB and 4 KiB, a small board's window and the agent's own.
const CASES: [Case; 6] = [
    Case::new(1088, 8 * 1024, false),
    Case::new(1088, 256 * 1024, false),
    Case::new(1088, 256 * 1024, true),
    Case::new(4126, 32 * 1024, false),
    Case::new(4126, 256 * 1024, false),
    Case::new(4126, 256 * 1024, true),
];

impl Case {
    const fn new(receive_buffer: u16, window: u32, timestamps: bool) -> Self {
        Self {
            receive_buffer,
            window,
            timestamps,
        }
    }

    fn settings(&self) -> String {
        format!(
            "[agent]\nlog = \"warn\"\nping_s = 3600\nreceive_buffer = {}\nwindow = {}\n",
            self.receive_buffer, self.window
        )
    }
}

/// What crossed the link, up to three points.
struct Update {
    /// From the push over a session that is open to the last byte acknowledged.
    transfer: Crossed,
    /// From the first dial to `confirmed`: two sessions, offer, transfer, restart.
    whole: Crossed,
}

pub(super) fn run() -> Outcome {
    let rounds = setting("BENCH_ROUNDS", 3)?;
    let agent = site::agent_program()?;
    let link = Link::new()?;
    let site = Site::new("10.77.0.1:7040".to_owned())?;
    let boards: Vec<_> = CASES
        .iter()
        .enumerate()
        .flat_map(|(case, settings)| {
            (0..rounds).flat_map(move |round| {
                [SMALL, LARGE].map(|image| (name(case, round, image), settings.settings()))
            })
        })
        .collect();
    let boards = site.fill(&boards, &[site::image(1, 16), site::image(2, SIZE)])?;
    let gateway = site.gateway(Some(network::GATEWAY))?;
    println!(
        "image of {} KiB, network namespaces, MTU 1500, offloads off, {rounds} rounds; bytes of IP packets, both directions",
        SIZE / 1024
    );
    println!(
        "{:>9}  {:>10}  {:>10}  {:>24}  {:>8}  {:>24}  {:>18}",
        "chunk",
        "window",
        "timestamps",
        "transfer over size, %",
        "packets",
        "whole update, %",
        "of it fixed, bytes"
    );
    for (number, case) in CASES.iter().enumerate() {
        link.timestamps(case.timestamps)?;
        let (mut transfer, mut whole) = (Vec::new(), Vec::new());
        let (mut packets, mut fixed) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut costs = Vec::new();
            for image in [SMALL, LARGE] {
                let id = name(number, round, image);
                let board = boards
                    .iter()
                    .find(|board| board.id == id)
                    .ok_or("a board is missing")?;
                let before = link.crossed()?;
                let process = site.agent(&agent, board, Some(network::BOARD))?;
                gateway.sessions(1)?;
                quiet(&link)?;
                let online = link.crossed()?;
                let events = gateway.events()?;
                let update = [gateway.push(&board.id, image)?];
                events.reached(&update, &["verifying", "staged"])?;
                let acknowledged = link.crossed()?;
                events.reached(&update, &["confirmed"])?;
                quiet(&link)?;
                costs.push(Update {
                    transfer: acknowledged - online,
                    whole: link.crossed()? - before,
                });
                drop(process);
                gateway.sessions(0)?;
            }
            let [small, large] = &costs[..] else { continue };
            transfer.push(percent(large.transfer));
            whole.push(percent(large.whole));
            packets.push(large.transfer.packets as f64);
            fixed.push(small.whole.bytes as f64);
        }
        println!(
            "{:>9}  {:>10}  {:>10}  {:>24}  {:>8}  {:>24}  {:>18}",
            u32::from(case.receive_buffer) / 1024 * 1024,
            case.window,
            if case.timestamps { "on" } else { "off" },
            figures::median(&transfer, 2),
            figures::median(&packets, 0)
                .split(' ')
                .next()
                .unwrap_or_default(),
            figures::median(&whole, 2),
            figures::median(&fixed, 0)
                .split(' ')
                .next()
                .unwrap_or_default(),
        );
    }
    Ok(())
}

/// Overhead: what crossed beyond the image, over the image.
fn percent(crossed: Crossed) -> f64 {
    (crossed.bytes as f64 / SIZE as f64 - 1.0) * 100.0
}

fn name(case: usize, round: usize, image: usize) -> String {
    format!("case-{case}-{round}-{image}")
}

/// Waits until nothing has crossed for a while: TCP acknowledges late.
fn quiet(link: &Link) -> Outcome {
    let mut last = link.crossed()?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = link.crossed()?;
        if now.packets == last.packets {
            return Ok(());
        }
        last = now;
    }
}
