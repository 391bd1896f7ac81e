//! The noise generator (RNG), with its bias correction: about 0.7 ms a byte.

use dialhome_device::rng::Rng;

use crate::register::Register;

const RNG: u32 = 0x4000_D000;
const START: Register = Register::new(RNG, 0x000);
const STOP: Register = Register::new(RNG, 0x004);
const VALUE_READY: Register = Register::new(RNG, 0x100);
const CONFIG: Register = Register::new(RNG, 0x504);
const VALUE: Register = Register::new(RNG, 0x508);
const BIAS_CORRECTION: u32 = 1;
/// Looks at a byte that does not come: half a second or so, and a byte has no longest time
/// but a mean one.
const LOOKS: u32 = 1_000_000;

/// The chip's noise. It runs only while bytes are drawn. Where the generator is broken,
/// the bytes stay as they are: the provisioned seed and the journal's are enough, and a
/// board that stands still here would never dial again.
#[derive(Debug, Default)]
pub struct Noise;

impl Rng for Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        CONFIG.set(BIAS_CORRECTION);
        START.set(1);
        for byte in bytes {
            VALUE_READY.set(0);
            if (0..LOOKS).all(|_| VALUE_READY.get() == 0) {
                break;
            }
            *byte = VALUE.get().to_le_bytes()[0];
        }
        STOP.set(1);
    }
}
