//! Firmware for QEMU's lm3s6965evb, in the shape of a MKR GSM 1400's: a boot stage in the
//! first 16 KiB, 32 KiB of RAM, and images over a card. The drivers are here; the client
//! and what is done with the card are `dialhome_device`.
#![no_std]
#![no_main]

mod clock;
mod ethernet;
mod network;
mod registers;
mod sketch;
mod spi;
mod stage;

use clock::Clock;
use core::mem::MaybeUninit;
use cortex_m::singleton;
use cortex_m_rt::entry;
use dialhome_board::constants::{self, Behaviour};
use dialhome_board::{console, reset, stack};
use dialhome_device::client::{Client, Parts, Provision};
use dialhome_device::provision::Record;
use dialhome_device::rng::Rng;
use dialhome_device::sd::{Card, SdJournal, SdSlot, SduBoot};
use dialhome_proto::code::BootReason;
use dialhome_proto::device::{ComponentConfig, Config, LinkState};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use embedded_sdmmc::SdCard;
use embedded_sdmmc::sdcard::spi::AcquireOpts;
use network::Network;
use registers::Register;
use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

/// Longest record that is taken, with its length: chunks of 1 KiB.
const RECEIVE: usize = 1090;
/// What flash takes between the stage and the record.
const SLOT_SIZE: u32 = 252 * 1024;
const WINDOW: u32 = 8 * 1024;
/// Buffers of the TCP socket.
const TCP_RECEIVE: usize = 4096;
const TCP_SEND: usize = 1024;
/// Configuration and Control Register: unaligned accesses trap, as on a Cortex-M0.
const CCR: Register = Register::at(0xe000_ed14, 0);
const UNALIGN_TRP: u32 = 1 << 3;
/// Turns of the client between two looks at the stack.
const TELL_STACK: u32 = 8;

/// The machine has no generator of noise. Its record's seed and the journal's make the
/// secrets; this only tells two starts apart where the timer does.
struct TimerNoise(u32);

impl Rng for TimerNoise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [.., high] = (self.0 ^ cortex_m::peripheral::SYST::get_current()).to_be_bytes();
            *byte = high;
        }
    }
}

#[entry]
fn main() -> ! {
    let reason = reset::take_reason();
    CCR.write(CCR.read() | UNALIGN_TRP);
    console::text("firmware ");
    console::text(constants::version());
    console::text(" starts: ");
    console::line(reason.name().unwrap_or("?"));
    match constants::behaviour() {
        Behaviour::CrashesAtStart => panic!(),
        Behaviour::Hangs => loop {
            cortex_m::asm::wfi();
        },
        _ => {}
    }
    match set_up(reason) {
        Some((client, clock)) => work(client, clock, reason),
        None => loop {
            cortex_m::asm::wfi();
        },
    }
}

type Medium = SdCard<spi::Spi, spi::Cycles>;
type Board = Client<
    'static,
    Network<'static>,
    SdSlot<'static, 'static, Medium>,
    SdJournal<'static, 'static, Medium>,
    SduBoot<'static, 'static, Medium, sketch::Sketch>,
    TimerNoise,
    RECEIVE,
>;

static COMPONENTS: [ComponentConfig; 1] = [ComponentConfig {
    component: 0,
    slot_size: SLOT_SIZE,
    write_unit: 512,
    erase_unit: 512,
    window: WINDOW,
    commit_ms: 10_000,
    claim_every: 16 * 1024,
}];

/// Everything that lives as long as the board runs; nothing where the board was never
/// provisioned. What is large is made in a function of its own and kept outside the
/// stack, so that the copies which the making needs are gone when the client runs.
#[inline(never)]
fn set_up(reason: BootReason) -> Option<(&'static mut Board, &'static Clock)> {
    let core = cortex_m::Peripherals::take()?;
    let clock: &'static Clock = singleton!(: Clock = Clock::start(core.SYST))?;
    let Ok(record) = Record::parse(sketch::record()) else {
        console::line("no provisioning record: nothing to do");
        return None;
    };
    let record: &'static Record<'static> = singleton!(: Record<'static> = record)?;
    // The card answers after a time that depends on the host: noise enough for a port.
    // A card that is gone is asked seldom: each question waits for its answer.
    let options = AcquireOpts {
        use_crc: true,
        acquire_retries: 2,
    };
    let medium: &'static Medium = singleton!(: Medium =
        SdCard::new_with_options(spi::Spi::new(), spi::Cycles, options))?;
    let noise = u64::from(cortex_m::peripheral::SYST::get_current());
    let card: &'static Card<'static, Medium> =
        singleton!(: Card<'static, Medium> = Card::new(medium))?;
    let key: &'static DeviceKey = singleton!(: DeviceKey = DeviceKey::new(*record.key))?;
    let provision = Provision {
        key,
        gateways: &record.gateways,
        trust: record.trust.as_ref(),
        seed: Some(record.seed),
    };
    let config = Config {
        device: record.device,
        product: record.product,
        hardware: 1,
        client: "lm3s6965evb",
        receive_buffer: 0,
        tasks: 0,
        ping_s: 5,
        ping_s_min: 1,
        wake_s: 0,
        backoff_ms: (50, 1000),
        gateways: 0,
        components: &COMPONENTS,
    };
    let network = connect(clock, noise)?;
    let parts = Parts {
        transport: network,
        slot: SdSlot::new(card, SLOT_SIZE),
        journal: SdJournal::new(card),
        boot: SduBoot::new(card, sketch::Sketch::new(reason)),
        rng: TimerNoise(cortex_m::peripheral::SYST::get_current()),
    };
    let client = start(config, provision, parts, Millis(clock.ms()))?;
    console::number("room for the stack", stack::room());
    console::number("stack", stack::high_water());
    Some((client, clock))
}

#[inline(never)]
fn connect(clock: &'static Clock, noise: u64) -> Option<Network<'static>> {
    let storage = singleton!(: [SocketStorage<'static>; 1] = [SocketStorage::EMPTY; 1])?;
    let receive = singleton!(: [u8; TCP_RECEIVE] = [0; TCP_RECEIVE])?;
    let send = singleton!(: [u8; TCP_SEND] = [0; TCP_SEND])?;
    let frame = singleton!(: ethernet::Buffer = ethernet::EMPTY)?;
    let socket = Socket::new(
        SocketBuffer::new(&mut receive[..]),
        SocketBuffer::new(&mut send[..]),
    );
    Some(Network::new(
        ethernet::Ethernet::new(frame),
        SocketSet::new(&mut storage[..]),
        socket,
        clock,
        noise,
        constants::behaviour() == Behaviour::NeverDials,
    ))
}

#[inline(never)]
fn start(
    config: Config<'static>,
    provision: Provision<'static>,
    parts: Parts<
        Network<'static>,
        SdSlot<'static, 'static, Medium>,
        SdJournal<'static, 'static, Medium>,
        SduBoot<'static, 'static, Medium, sketch::Sketch>,
        TimerNoise,
    >,
    now: Millis,
) -> Option<&'static mut Board> {
    // Made where it stays: it is too large to be moved over the stack.
    let place = singleton!(: MaybeUninit<Board> = MaybeUninit::uninit())?;
    Some(place.write(Client::start(config, provision, parts, now)))
}

fn work(client: &mut Board, clock: &Clock, reason: BootReason) -> ! {
    let now = || Millis(clock.ms());
    let mut turns = 0_u32;
    let mut deepest = 0;
    let mut online = false;
    loop {
        let wake = client.poll(now());
        let is_online = matches!(client.machine().link_state(), LinkState::Online);
        if is_online && !online {
            console::line("online");
            if constants::behaviour() == Behaviour::PanicsOnce && reason != BootReason::PANIC {
                panic!();
            }
        }
        if online && !is_online {
            console::line("offline");
        }
        online = is_online;
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TELL_STACK) {
            let high = stack::high_water();
            if high > deepest {
                deepest = high;
                console::number("stack", high);
            }
        }
        let network = &mut client.parts().transport;
        while wake.at.is_none_or(|at| now() < at)
            && !(wake.on_receive && network.can_receive())
            && !(wake.on_send && network.can_send())
        {
            if !network.poll() {
                cortex_m::asm::wfi();
            }
        }
    }
}
