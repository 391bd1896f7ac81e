//! The machines' time: a count of milliseconds that only the caller advances.

/// Milliseconds since an instant that the caller chooses; it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The end of the count: what is due then is never due.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant, unless it is [`Self::NEVER`].
    #[must_use]
    pub const fn some(self) -> Option<Self> {
        if self.0 == u64::MAX { None } else { Some(self) }
    }

    /// This instant and `ms` milliseconds more, at most the end of the count.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds from `earlier` to this instant, at most 49 days.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u32 {
        seconds(self.since(earlier))
    }

    /// Milliseconds from `earlier` to this instant; 0 where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whole seconds of so many milliseconds, at most 49 days: a small machine has no 64-bit
/// division, and a routine for it costs a kilobyte.
#[must_use]
pub(crate) const fn seconds(ms: u64) -> u32 {
    // Lossless: clamped below.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 32 bits")]
    let ms = if ms > u32::MAX as u64 {
        u32::MAX
    } else {
        ms as u32
    };
    ms / 1000
}
