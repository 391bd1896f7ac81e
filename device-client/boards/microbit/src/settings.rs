//! Settings of this one board, in a flash page of their own: words, one after the other.
//! An erased word means the usual value, so a board without settings has an erased page.

use dialhome_microbit_chip::flash;

/// Ping interval to begin with, in seconds: below the 150 s after which the worst
/// carriers forget an idle connection.
const PING_S: u32 = 120;
/// First and longest wait between dials, in milliseconds.
const BACKOFF_MS: (u32, u32) = (2_000, 900_000);
/// Bytes under way and not committed: what the modem holds, and some of it on the air.
const WINDOW: u32 = 8 * 1024;
/// The journal notes progress once in so many committed bytes.
const CLAIM_EVERY: u32 = 8 * 1024;

/// The settings in force.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Ping interval to begin with, in seconds.
    pub ping_s: u32,
    /// First and longest wait between dials, in milliseconds.
    pub backoff_ms: (u32, u32),
    /// Bytes under way and not committed.
    pub window: u32,
    /// Committed bytes between two notes of progress.
    pub claim_every: u32,
    /// Largest image that is taken, in bytes, where that is less than the slot.
    pub image_max: u32,
    /// Address of a flash page that behaves as if it were worn out; 0: none. For tests.
    pub worn_page: u32,
}

impl Settings {
    /// As they are in flash.
    pub fn load() -> Self {
        let words = flash::settings();
        let mut words = words.as_chunks::<4>().0.iter();
        let mut next = |usual: u32| match words.next().map(|word| u32::from_le_bytes(*word)) {
            None | Some(u32::MAX) => usual,
            Some(value) => value,
        };
        Self {
            ping_s: next(PING_S),
            backoff_ms: (next(BACKOFF_MS.0), next(BACKOFF_MS.1)),
            window: next(WINDOW),
            claim_every: next(CLAIM_EVERY),
            image_max: next(u32::MAX),
            worn_page: next(0),
        }
    }
}
