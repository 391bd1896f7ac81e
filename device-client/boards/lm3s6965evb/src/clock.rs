//! Milliseconds since the start, by the processor's own timer.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;

/// The machine's clock after its start.
const TICKS_PER_MS: u32 = 12_500;

/// It wraps after 49 days; [`Clock`] does not.
static MS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    MS.store(MS.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A clock that never goes back.
pub(crate) struct Clock {
    last: core::cell::Cell<(u32, u64)>,
}

impl Clock {
    pub(crate) fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(TICKS_PER_MS - 1);
        timer.clear_current();
        timer.enable_counter();
        timer.enable_interrupt();
        Self {
            last: core::cell::Cell::new((0, 0)),
        }
    }

    /// Milliseconds since the start.
    pub(crate) fn ms(&self) -> u64 {
        let now = MS.load(Relaxed);
        let (last, total) = self.last.get();
        let total = total + u64::from(now.wrapping_sub(last));
        self.last.set((now, total));
        total
    }
}
