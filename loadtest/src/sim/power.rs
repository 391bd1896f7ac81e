//! The board's power: it can fail before, or in the middle of, any step of its storage.

use std::cell::Cell;
use std::rc::Rc;

/// What a storage operation is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// All of it.
    Whole,
    /// The power fails in it: some of it may have happened.
    Torn,
    /// The power has failed: nothing.
    Off,
}

/// Shared by everything on the board that a power cut stops.
#[derive(Clone, Debug, Default)]
pub struct Power(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    steps: Cell<u64>,
    cut_at: Cell<Option<u64>>,
    off: Cell<bool>,
}

impl Power {
    /// Counts a step and says what becomes of it.
    pub fn step(&self) -> Step {
        if self.0.off.get() {
            return Step::Off;
        }
        let number = self.0.steps.get();
        self.0.steps.set(number + 1);
        if self.0.cut_at.get() == Some(number) {
            self.0.off.set(true);
            return Step::Torn;
        }
        Step::Whole
    }

    /// Steps so far, over all boots.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps.get()
    }

    /// The step with this number is cut.
    pub fn cut_at(&self, step: u64) {
        self.0.cut_at.set(Some(step));
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.off.get()
    }

    /// Power is back; steps go on counting.
    pub fn on(&self) {
        self.0.off.set(false);
    }

    /// The power fails now.
    pub fn off(&self) {
        self.0.off.set(true);
    }
}
