//! How deep the client's stack gets in a whole update, from the first dial to the outcome
//! that the gateway has settled: the real client with the real cryptography, in QEMU,
//! against a gateway in the same memory. Only what lies below the caller's stack counts.
#![no_std]
#![no_main]

mod depth;
mod gateway;
mod parts;
mod runtime;

use core::cell::RefCell;
use cortex_m_rt::entry;
use depth::measure;
use dialhome_board::console;
use dialhome_board_size::{COMPONENT, config};
use dialhome_device::client::{Client, Parts, Provision};
use dialhome_proto::device::ComponentConfig;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
use gateway::Gateway;
use heapless::Vec;
use parts::{Board, Part};

/// Record length included: a "1 KiB board".
const RX: usize = 1090;
/// Polls of a whole update are a few hundred.
const POLLS_MAX: u32 = 10_000;

static KEY: DeviceKey = DeviceKey::new([0x42; 32]);

static TRUST: TrustSet = TrustSet {
    epoch: 1,
    threshold: 1,
    keys: Vec::from_array([*include_bytes!(concat!(env!("OUT_DIR"), "/signer"))]),
    minimums: Vec::new(),
};

static COMPONENTS: [ComponentConfig; 1] = [ComponentConfig {
    slot_size: 16 * 1024,
    claim_every: 2048,
    ..COMPONENT
}];

#[entry]
fn main() -> ! {
    if !runtime::is_right() {
        console::line("boards/runtime copies, clears or divides wrong");
        console::exit(1);
    }
    let board = RefCell::new(Board::new());
    let mut gateway = Gateway::new(&KEY);
    let mut peak = 0;
    let mut now = 0;
    for _ in 0..2 {
        let part = Part(&board);
        let provision = Provision {
            key: &KEY,
            gateways: &["gateway.example:7040"],
            trust: Some(&TRUST),
            seed: Some(&[9; 32]),
        };
        let parts = Parts {
            transport: part,
            slot: part,
            journal: part,
            boot: part,
            rng: part,
        };
        let (mut client, used) = measure(|| {
            Client::<_, _, _, _, _, RX>::start(config(&COMPONENTS), provision, parts, Millis(now))
        });
        report("start", "", used, &mut peak);
        let mut polls = 0;
        loop {
            let before = client.machine().stage_name();
            let (wake, used) = measure(|| client.poll(Millis(now)));
            report(before, client.machine().stage_name(), used, &mut peak);
            if wake.restarting {
                break;
            }
            gateway.serve(&mut board.borrow_mut().wire);
            if gateway.is_settled() && client.machine().cells().outbox.entries().is_empty() {
                console::number("peak", peak);
                console::exit(0);
            }
            now += 50;
            polls += 1;
            if polls > POLLS_MAX {
                console::line("the update did not end");
                console::exit(1);
            }
        }
        // What was activated runs from here on.
        board.borrow_mut().restart();
    }
    console::line("the image on trial restarted the board");
    console::exit(1);
}

/// Every new peak, with the stages before and after the poll that reached it.
fn report(before: &str, after: &str, used: u32, peak: &mut u32) {
    if used <= *peak {
        return;
    }
    *peak = used;
    console::text(before);
    if !after.is_empty() && after != before {
        console::text(" to ");
        console::text(after);
    }
    console::number("", used);
}
