//! Time: TIMER0 counts microseconds in 32 bits, and the program counts its rounds.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::register::Register;

const CLOCK: u32 = 0x4000_0000;
const HFCLK_START: Register = Register::new(CLOCK, 0x000);
const HFCLK_STARTED: Register = Register::new(CLOCK, 0x100);

const TIMER0: u32 = 0x4000_8000;
const START: Register = Register::new(TIMER0, 0x000);
const CLEAR: Register = Register::new(TIMER0, 0x00C);
const CAPTURE_0: Register = Register::new(TIMER0, 0x040);
const COMPARE_1: Register = Register::new(TIMER0, 0x144);
const INTERRUPT_SET: Register = Register::new(TIMER0, 0x304);
const INTERRUPT_CLEAR: Register = Register::new(TIMER0, 0x308);
const CAPTURE_2: Register = Register::new(TIMER0, 0x048);
const CC_2: Register = Register::new(TIMER0, 0x548);
const MODE: Register = Register::new(TIMER0, 0x504);
const BITS: Register = Register::new(TIMER0, 0x508);
const PRESCALER: Register = Register::new(TIMER0, 0x510);
const CC_0: Register = Register::new(TIMER0, 0x540);
const CC_1: Register = Register::new(TIMER0, 0x544);

/// TIMER0's interrupt.
pub const INTERRUPT: u8 = 8;
const COMPARE_1_BIT: u32 = 1 << 17;
const BITS_32: u32 = 3;
/// 16 MHz divided by 2 to the power of this.
const MICROSECONDS: u32 = 4;
/// Longest sleep, in microseconds: well below the timer's round of 71 minutes, so that
/// no round is missed.
const SLEEP_MAX: u64 = 600_000_000;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The clock. There is one.
#[derive(Debug)]
pub struct Clock {
    last: Cell<u32>,
    rounds: Cell<u32>,
}

impl Clock {
    /// Starts the crystal and the timer from zero; `None` the second time.
    #[must_use]
    pub fn start() -> Option<Self> {
        // One core, and no interrupt asks for it: load and store are enough.
        if TAKEN.load(Ordering::Relaxed) {
            return None;
        }
        TAKEN.store(true, Ordering::Relaxed);
        // The UART's rate needs the crystal's accuracy.
        HFCLK_STARTED.set(0);
        HFCLK_START.set(1);
        while HFCLK_STARTED.get() == 0 {}
        MODE.set(0);
        BITS.set(BITS_32);
        PRESCALER.set(MICROSECONDS);
        CLEAR.set(1);
        START.set(1);
        Some(Self {
            last: Cell::new(0),
            rounds: Cell::new(0),
        })
    }

    /// Microseconds since the start. To be asked at least once in 71 minutes.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        CAPTURE_0.set(1);
        let now = CC_0.get();
        if now < self.last.get() {
            self.rounds.set(self.rounds.get().wrapping_add(1));
        }
        self.last.set(now);
        u64::from(self.rounds.get()) << 32 | u64::from(now)
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// Sleeps until an interrupt comes or `until_us` has passed, at most ten minutes.
    /// Does not sleep where `ready` is true: it is asked while no interrupt can come
    /// between its answer and the sleep.
    pub fn sleep(&self, until_us: u64, ready: impl FnOnce() -> bool) {
        cortex_m::interrupt::free(|_| {
            let now = self.now_us();
            if until_us <= now || ready() {
                return;
            }
            let until = until_us.min(now + SLEEP_MAX);
            COMPARE_1.set(0);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the timer's low half is meant"
            )]
            CC_1.set(until as u32);
            INTERRUPT_SET.set(COMPARE_1_BIT);
            // The instant may have passed while it was being set.
            if self.now_us() < until {
                cortex_m::asm::wfi();
            }
            INTERRUPT_CLEAR.set(COMPARE_1_BIT);
            COMPARE_1.set(0);
            // The handler need not run: the sleep is over.
            cortex_m::peripheral::NVIC::unpend(Line(INTERRUPT));
        });
    }
}

/// The low 32 bits of the clock, in microseconds, for the wait on a peripheral.
pub(crate) fn ticks() -> u32 {
    CAPTURE_2.set(1);
    CC_2.get()
}

/// An interrupt line by its number.
#[derive(Clone, Copy)]
pub(crate) struct Line(pub(crate) u8);

// SAFETY: the number is that of a line of this chip, constant for each `Line`.
unsafe impl cortex_m::interrupt::InterruptNumber for Line {
    fn number(self) -> u16 {
        u16::from(self.0)
    }
}

/// Lets the timer wake the core.
pub fn enable_interrupt() {
    // SAFETY: no critical section depends on this line being masked.
    unsafe { cortex_m::peripheral::NVIC::unmask(Line(INTERRUPT)) };
}

/// What the program's handler of [`INTERRUPT`] calls, where one comes after its sleep.
pub fn on_interrupt() {
    INTERRUPT_CLEAR.set(COMPARE_1_BIT);
}
