//! The firmware: the client behind an AT modem.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use dialhome_board::constants::{self, Behaviour};
use dialhome_board::{console, reset, stack};
use dialhome_board_microbit::line::{Line, Rest};
use dialhome_board_microbit::settings::Settings;
use dialhome_board_microbit::storage::{Part, Storage};
use dialhome_board_microbit::{keep, must};
use dialhome_device::client::{Client, Parts, Provision};
use dialhome_device::modem::{self, Modem};
use dialhome_device::nor::{NorBoot, NorJournal, NorSlot};
use dialhome_device::provision::{RECORD_MAX, Record};
use dialhome_device::slot::Slot as _;
use dialhome_microbit_chip::clock::{self, Clock};
use dialhome_microbit_chip::noise::Noise;
use dialhome_microbit_chip::uart::{self, Uart};
use dialhome_microbit_chip::{flash, map, watchdog};
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::device::{ComponentConfig, Config, LinkState};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;

/// Receive buffer in bytes, record length included: a "1 KiB board".
const RX: usize = 1090;
/// Bytes that are read from the modem ahead of the client.
const AHEAD: usize = 64;
/// Name and version of this program, as Hello has it.
const CLIENT: &str = concat!("microbit ", env!("CARGO_PKG_VERSION"));
/// Tasks that are allowed: ping and report.
const TASKS: u32 = 0b11;
/// Worst time to commit a window, in milliseconds: eight pages are erased in 0.2 s, written
/// and read back in 0.2 s; the rest is for the bytes' way from the modem.
const COMMIT_MS: u32 = 10_000;
/// The transport is asked at least this often while bytes are expected, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// Access point of the SIM.
static MODEM: modem::Config<'static> = modem::Config::new("internet");

const _: () = assert!(RECORD_MAX <= map::PROVISION.len as usize);

/// The client of this board.
type Whole = Client<'static, Line, NorSlot<Part>, NorJournal<Part>, NorBoot<Part>, Noise, RX>;

#[entry]
fn main() -> ! {
    let why = reset::take_reason();
    console::text(constants::version());
    console::number(" starts, reason", u32::from(why.0));
    match constants::behaviour() {
        Behaviour::CrashesAtStart => panic!("this image crashes"),
        Behaviour::Hangs => loop {
            // As a program that waits for what does not come: nobody feeds the watchdog.
            cortex_m::asm::nop();
        },
        _ => {}
    }
    watchdog::feed();
    let clock: &'static Clock = keep!(Clock = must(Clock::start(), "clock"));
    clock::enable_interrupt();
    let client = start(clock, why);
    console::number("stack room", stack::room());
    serve(client, clock, why)
}

fn now(clock: &Clock) -> Millis {
    Millis(clock.now_ms())
}

/// Puts the board together. The client lies in static memory: it is larger than the
/// stack should be.
#[inline(never)]
#[expect(clippy::mut_from_ref, reason = "the client is not a part of the clock")]
fn start(clock: &'static Clock, why: BootReason) -> &'static mut Whole {
    let settings = Settings::load();
    flash::wear_out(settings.worn_page);
    let storage = Storage::open(settings.image_max, why, self_test);
    let record = must(
        Record::parse(flash::provision()).ok(),
        "provisioning record",
    );
    let record: &'static Record<'static> = keep!(Record<'static> = record);
    let key = keep!(DeviceKey = DeviceKey::new(*record.key));
    let uart = must(Uart::start(), "uart");
    let ahead = keep!([u8; AHEAD] = [0; AHEAD]);
    let config = Config {
        device: record.device,
        product: record.product,
        hardware: 1,
        client: CLIENT,
        receive_buffer: 0,
        tasks: TASKS,
        ping_s: settings.ping_s,
        // Below 60 s only where a test's settings say so.
        ping_s_min: settings.ping_s.min(60),
        wake_s: 0,
        backoff_ms: (settings.backoff_ms.0.into(), settings.backoff_ms.1.into()),
        gateways: 0,
        components: components(&settings, &storage),
    };
    let provision = Provision {
        key,
        gateways: &record.gateways,
        trust: record.trust.as_ref(),
        seed: Some(record.seed),
    };
    let parts = Parts {
        transport: Line {
            modem: Modem::new(uart, Rest(clock), &MODEM, ahead),
            dials: constants::behaviour() != Behaviour::NeverDials,
        },
        slot: storage.slot,
        journal: storage.journal,
        boot: storage.boot,
        rng: Noise,
    };
    keep!(Whole = Whole::start(config, provision, parts, now(clock)))
}

/// That the image came as far as this is all that it knows of itself.
fn self_test(_: u8) -> SelfTest {
    if constants::behaviour() == Behaviour::FailsSelfTest {
        SelfTest::FAILED
    } else {
        SelfTest::PASSED
    }
}

#[inline(never)]
fn components(settings: &Settings, storage: &Storage) -> &'static [ComponentConfig] {
    let geometry = storage.slot.geometry();
    let component = ComponentConfig {
        component: 0,
        slot_size: geometry.size,
        write_unit: geometry.write_unit,
        erase_unit: geometry.erase_unit,
        window: settings.window,
        commit_ms: COMMIT_MS,
        claim_every: settings.claim_every,
    };
    keep!([ComponentConfig; 1] = [component])
}

#[inline(never)]
fn serve(client: &'static mut Whole, clock: &'static Clock, why: BootReason) -> ! {
    let mut told = ("", false);
    loop {
        watchdog::feed();
        let wake = client.poll(now(clock));
        let online = matches!(client.machine().link_state(), LinkState::Online);
        let stage = client.machine().stage_name();
        if told != (stage, online) {
            told = (stage, online);
            console::text(stage);
            let words = if online {
                ", online, stack"
            } else {
                ", offline, stack"
            };
            console::number(words, stack::high_water());
            let panics = constants::behaviour() == Behaviour::PanicsOnce;
            if panics && online && why != BootReason::PANIC && stage == "Idle" {
                panic!("this image panics once");
            }
        }
        let transport = &mut client.parts().transport;
        if transport.has_news() && wake.on_receive {
            continue;
        }
        let looks = wake.on_receive || wake.on_send;
        let look = looks.then(|| now(clock).after(LOOK_MS));
        let at = [wake.at, look].into_iter().flatten().min();
        let until = at.map_or(u64::MAX, |at| at.0.saturating_mul(1000));
        clock.sleep(until, uart::has_bytes);
    }
}
