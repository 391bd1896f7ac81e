//! What a delivery is for, and how it starts from what the board's Hello says.

use crate::code::{DigestFrom, SelfTest};
use crate::frame::Component;
use crate::id::{Digest, UpdateId};
use crate::limits::CHUNK_COST;

/// What is to be delivered, fixed for the delivery's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The update.
    pub update: UpdateId,
    /// Digest of the manifest's body.
    pub manifest: Digest,
    /// Digest of the image.
    pub image: Digest,
    /// Its component.
    pub component: u8,
    /// Bytes of image, and of payload: the encoding is raw.
    pub size: u32,
    /// An older counter is meant.
    pub downgrade: bool,
}

/// How the board stands to a plan, from its Hello (spec/protocol.md section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The planned image runs on trial and is well: confirm it.
    Well,
    /// The board is on trial with this update and not, or not yet, well.
    OnTrial,
    /// The journal claims bytes of this manifest.
    Claims,
    /// The board does not know of it.
    Unknown,
}

impl Standing {
    /// Reads the board's Hello against the plan.
    #[must_use]
    pub fn of(plan: &Plan, component: &Component<'_>) -> Self {
        match (component.trial, component.claim) {
            (Some(trial), _) if trial.update == plan.update => {
                let runs =
                    component.digest_from != DigestFrom::UNKNOWN && component.digest == plan.image;
                // A board without a self-test has none to fail: that it dialed home is its test.
                if runs && trial.self_test != SelfTest::FAILED {
                    Self::Well
                } else {
                    Self::OnTrial
                }
            }
            (_, Some(claim)) if claim.manifest == plan.manifest => Self::Claims,
            _ => Self::Unknown,
        }
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
