//! What a delivery is for, and how it starts from what the board's Hello says.

use crate::code::{DigestFrom, SelfTest};
use crate::frame::Component;
use crate::id::{Digest, UpdateId};
use crate::limits::{CHUNK_COST, COMPONENTS_MAX};

/// What is to be delivered, fixed for the delivery's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The update.
    pub update: UpdateId,
    /// Digest of the manifest's body.
    pub manifest: Digest,
    /// The manifest's entries, in its order: the order of delivery and of installation.
    pub parts: heapless::Vec<Part, COMPONENTS_MAX>,
    /// An older counter is meant.
    pub downgrade: bool,
}

/// One image of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its component.
    pub component: u8,
    /// Digest of the image.
    pub image: Digest,
    /// Bytes of image, and of payload: the encoding is raw.
    pub size: u32,
}

impl Plan {
    /// The part at this place of the order.
    #[must_use]
    pub fn part(&self, place: u8) -> Option<&Part> {
        self.parts.get(usize::from(place))
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.before(u8::MAX)
    }

    /// Bytes of the parts before this place.
    #[must_use]
    pub fn before(&self, place: u8) -> u64 {
        let parts = self.parts.iter().take(usize::from(place));
        parts.map(|part| u64::from(part.size)).sum()
    }
}

/// How the board stands to a plan, from its Hello (spec/protocol.md section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Every planned image runs, those that the update brought on trial and well: confirm it.
    Well,
    /// The board is on trial with this update and not, or not yet, well.
    OnTrial,
    /// The journal claims bytes of the part that is next.
    Claims,
    /// The board does not know of it.
    Unknown,
    /// The board has not every component that the plan names.
    Missing,
}

impl Standing {
    /// Reads the components of the board's Hello against the plan.
    #[must_use]
    pub fn of(plan: &Plan, components: &[Component<'_>]) -> Self {
        let (mut on_trial, mut well, mut missing) = (false, true, plan.parts.is_empty());
        for part in &plan.parts {
            let Some(component) = find(components, part.component) else {
                missing = true;
                continue;
            };
            well &= runs(part, component) == Some(true);
            if let Some(trial) = component.trial.filter(|of| of.update == plan.update) {
                on_trial = true;
                // A board without a self-test has none to fail: that it dialed home is its test.
                well &= trial.self_test != SelfTest::FAILED;
            }
        }
        if on_trial {
            return if well && !missing {
                Self::Well
            } else {
                Self::OnTrial
            };
        }
        if missing {
            return Self::Missing;
        }
        let walk = Walk::new(plan, components);
        if walk.is_claimed() {
            Self::Claims
        } else {
            Self::Unknown
        }
    }
}

fn find<'c, 'a>(components: &'c [Component<'a>], number: u8) -> Option<&'c Component<'a>> {
    components.iter().find(|of| of.component == number)
}

/// Whether the component runs the part's image, where that is known.
fn runs(part: &Part, component: &Component<'_>) -> Option<bool> {
    let known = component.digest_from != DigestFrom::UNKNOWN;
    known.then_some(component.digest == part.image)
}

/// Which part is next, and what Hello said of each: a bit per place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Walk {
    at: u8,
    count: u8,
    /// The component runs the image.
    run: u8,
    /// The component runs another image.
    other: u8,
    /// The journal claims bytes of it.
    claimed: u8,
    /// It was staged, or skipped, in this session.
    done: u8,
    /// Write units, in bytes.
    units: [u32; COMPONENTS_MAX],
}

impl Walk {
    pub(super) fn new(plan: &Plan, components: &[Component<'_>]) -> Self {
        let mut walk = Self {
            at: 0,
            count: u8::try_from(plan.parts.len()).unwrap_or(0),
            run: 0,
            other: 0,
            claimed: 0,
            done: 0,
            units: [1; COMPONENTS_MAX],
        };
        for (place, part) in (0_u8..).zip(&plan.parts) {
            let Some(component) = find(components, part.component) else {
                continue;
            };
            match runs(part, component) {
                Some(true) => walk.run |= 1 << place,
                Some(false) => walk.other |= 1 << place,
                None => {}
            }
            if component
                .claim
                .is_some_and(|of| of.manifest == plan.manifest)
            {
                walk.claimed |= 1 << place;
            }
            if let Some(unit) = walk.units.get_mut(usize::from(place)) {
                *unit = component.write_unit.max(1);
            }
        }
        walk.at = walk.next(0).unwrap_or(0);
        walk
    }

    /// The first place from this one on whose part is to be sent.
    fn next(&self, from: u8) -> Option<u8> {
        (from..self.count).find(|place| self.run & 1 << place == 0)
    }

    /// The place of the part that is under way.
    pub(super) const fn at(&self) -> u8 {
        self.at
    }

    /// The part under way is staged; false where it was the last.
    pub(super) fn advance(&mut self) -> bool {
        self.done |= 1 << self.at;
        match self.next(self.at + 1) {
            Some(place) => {
                self.at = place;
                true
            }
            None => false,
        }
    }

    pub(super) const fn is_claimed(&self) -> bool {
        self.claimed & 1 << self.at != 0
    }

    /// The board has accepted one part, and so has verified the manifest of all: those that
    /// follow are asked for without it.
    pub(super) const fn accepted(&mut self) {
        self.claimed = u8::MAX;
    }

    /// Write unit of the part under way, in bytes.
    pub(super) fn unit(&self) -> u32 {
        let unit = self.units.get(usize::from(self.at));
        unit.copied().unwrap_or(1)
    }

    /// The board runs this part's image already, and another part is sent.
    pub(super) const fn is_skipped(&self, place: u8) -> bool {
        self.run & 1 << place != 0 && self.run.count_ones() < self.count as u32
    }

    /// The part was staged in this session, or is skipped.
    pub(super) const fn is_done(&self, place: u8) -> bool {
        self.done & 1 << place != 0 || self.is_skipped(place)
    }

    /// Every planned image runs; `seen` counts for those of which nobody knows.
    pub(super) const fn all_run(&self, seen: bool) -> bool {
        self.other == 0 && (seen || self.run.count_ones() == self.count as u32)
    }
}

/// Payload bytes of a full chunk for a board's receive buffer and write unit: a
/// multiple of 1,024 or 256 where that fits, so that boards share chunk borders.
#[must_use]
pub(super) fn chunk_len(receive_buffer: u16, write_unit: u32) -> u32 {
    let most = u32::from(receive_buffer).saturating_sub(CHUNK_COST);
    let unit = write_unit.max(1);
    let step = [1024, 256]
        .into_iter()
        .find(|step| step % unit == 0 && *step <= most)
        .unwrap_or(unit);
    most / step * step
}

#[cfg(test)]
mod tests {
    use super::chunk_len;

    #[test]
    fn chunks_fill_the_receive_buffer_in_write_units() {
        assert_eq!(chunk_len(1088, 64), 1024);
        assert_eq!(chunk_len(832, 64), 768);
        assert_eq!(chunk_len(832, 1), 768);
        assert_eq!(chunk_len(8192, 4), 7168);
        assert_eq!(chunk_len(832, 96), 768);
        assert_eq!(chunk_len(832, 768), 768);
    }
}
