//! The conformance checks on the board itself: slot, journal and boot side through resets
//! and power cuts, and what can be known of the modem without a gateway. It goes where
//! the firmware goes, and prints what it finds on the console.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use dialhome_board::{console, constants, reset};
use dialhome_board_microbit::line::Rest;
use dialhome_board_microbit::storage::{Storage, image_size};
use dialhome_board_microbit::{keep, must};
use dialhome_device::conformance::{
    self, Board, Check, Context, Fault, Finding, Patience, SCRATCH_LEN, SecondImage, Verdict,
};
use dialhome_device::modem::{self, Modem, Sara};
use dialhome_microbit_chip::clock::{self, Clock};
use dialhome_microbit_chip::flash::Flash;
use dialhome_microbit_chip::map::ACTIVE;
use dialhome_microbit_chip::uart::Uart;
use dialhome_microbit_chip::watchdog;
use dialhome_proto::code::{BootReason, SelfTest};
use embedded_storage::nor_flash::ReadNorFlash as _;

/// Power cuts that are asked for.
const CUTS: u8 = 3;
/// A port of the modem's own that nobody has.
const NOBODY: &str = "127.0.0.1:1";

static MODEM: modem::Config<'static> = modem::Config::new("internet");

#[entry]
fn main() -> ! {
    let why = reset::take_reason();
    console::text(constants::version());
    console::number(" starts, reason", u32::from(why.0));
    watchdog::feed();
    let clock: &'static Clock = keep!(Clock = must(Clock::start(), "clock"));
    clock::enable_interrupt();
    if why == BootReason::POWER_ON {
        dial_nobody(clock);
    }
    check(why)
}

fn told(check: Check, finding: Finding) {
    watchdog::feed();
    match finding {
        Finding::Passed => console::text("passed "),
        Finding::Skipped(_) => console::text("skipped "),
    }
    console::line(check.name());
}

fn broken(fault: &Fault) -> ! {
    console::text("broken ");
    console::text(fault.check.name());
    console::text(": ");
    console::text(fault.check.text());
    console::text("; ");
    console::text(fault.what.text());
    console::number(", at", fault.at);
    loop {
        cortex_m::asm::wfi();
    }
}

#[inline(never)]
fn dial_nobody(clock: &'static Clock) {
    let uart = must(Uart::start(), "uart");
    let mut modem: Modem<'_, _, _, Sara> = Modem::new(uart, Rest(clock), &MODEM, &mut []);
    let mut patience = Patience {
        connect_ms: u64::from(modem::CONNECT_MS),
        clock: &mut || clock.now_ms(),
    };
    if let Err(fault) = conformance::transport(&mut modem, NOBODY, &mut patience, &mut told) {
        broken(&fault);
    }
}

/// Bytes of the running image with another first letter in its version: that runs as well.
fn other_image(offset: u32, bytes: &mut [u8]) {
    let slot = Flash::region(ACTIVE).offset;
    if Flash.read(slot + offset, bytes).is_err() {
        return;
    }
    let version = u32::try_from(constants::version().as_ptr().addr()).unwrap_or(0);
    let letter = version.saturating_sub(ACTIVE.start).checked_sub(offset);
    if let Some(byte) = letter.and_then(|at| bytes.get_mut(usize::try_from(at).ok()?)) {
        *byte ^= 1;
    }
}

#[inline(never)]
fn check(why: BootReason) -> ! {
    let mut storage = Storage::open(u32::MAX, why, |_| SelfTest::NOT_RUN);
    let mut watch = told;
    let mut context = Context {
        cuts: CUTS,
        image: Some(SecondImage {
            size: image_size(),
            read: &other_image,
        }),
        ..Context::new(keep!([u8; SCRATCH_LEN] = [0; SCRATCH_LEN]), &mut watch)
    };
    let mut board = Board {
        slot: &mut storage.slot,
        journal: &mut storage.journal,
        boot: &mut storage.boot,
    };
    match conformance::run_kept(&mut board, &mut context) {
        Verdict::Reset { .. } => reset::restart(),
        Verdict::CutPower { next } => {
            console::line("cut the power now");
            if let Err(fault) = conformance::churn(&mut board, &mut context, next, u32::MAX) {
                broken(&fault);
            }
        }
        Verdict::Done => console::line("conforms"),
        Verdict::Failed(fault) => broken(&fault),
    }
    loop {
        cortex_m::asm::wfi();
    }
}
