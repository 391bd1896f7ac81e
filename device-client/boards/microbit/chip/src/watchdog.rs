//! The watchdog (WDT). The bootloader starts it, and nothing but a reset stops it; so an
//! image that hangs is reset, and counted by the bootloader. QEMU 7.2 has none: these
//! registers do nothing there.

use crate::register::Register;

const WDT: u32 = 0x4001_0000;
const START: Register = Register::new(WDT, 0x000);
const RELOAD_VALUE: Register = Register::new(WDT, 0x504);
const RELOAD_ENABLE: Register = Register::new(WDT, 0x508);
const CONFIG: Register = Register::new(WDT, 0x50C);
const RELOAD_0: Register = Register::new(WDT, 0x600);
const RELOAD: u32 = 0x6E52_4635;
const TICKS_PER_S: u32 = 32_768;
/// It counts while the core sleeps, and stands while a debugger holds the core.
const RUN_IN_SLEEP: u32 = 1;

/// Seconds without [`feed`] after which the board is reset: above the longest time that
/// the modem's recovery ladder or a swap of two slots takes without a feed.
pub const WITHIN_S: u32 = 240;

/// Starts it; has no effect where it runs already.
pub fn start() {
    CONFIG.set(RUN_IN_SLEEP);
    RELOAD_VALUE.set(WITHIN_S * TICKS_PER_S - 1);
    RELOAD_ENABLE.set(1);
    START.set(1);
    feed();
}

/// All is well.
pub fn feed() {
    RELOAD_0.set(RELOAD);
}
