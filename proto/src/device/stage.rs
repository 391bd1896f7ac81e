//! What the board is at with an update (spec/states.md section 1).

use super::proof::DigestVerified;
use super::receiving::Receiving;
use crate::code::BootReason;
use crate::manifest::Offered;

/// What the board is at with an update. States say what they wait for.
#[derive(Clone, Debug)]
#[repr(u8)]
pub(super) enum Stage {
    /// An Offer.
    Idle,
    /// The check of the offered manifest.
    Checking { offered: Offered, restart: bool },
    /// The claimed prefix, read back into the digest.
    Proving,
    /// The slot, erased.
    Preparing {
        opened: bool,
        erased: u32,
        until: u32,
        unit: u32,
    },
    /// Chunks.
    Receiving(Receiving),
    /// Activate.
    Staged(DigestVerified),
    /// `Boot::activate`.
    Activating,
    /// The restart.
    Restarting(BootReason),
    /// `Boot::running`, after a change without a restart.
    Looking,
    /// The trial image's verdict on itself.
    SelfTesting,
    /// Confirm.
    Trial,
    /// `Boot::confirm`.
    Confirming,
    /// `Boot::revert`.
    Reverting,
}

impl Stage {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Checking { .. } => "Checking",
            Self::Proving => "Proving",
            Self::Preparing { .. } => "Preparing",
            Self::Receiving(_) => "Receiving",
            Self::Staged(_) => "Staged",
            Self::Activating => "Activating",
            Self::Restarting(_) => "Restarting",
            Self::Looking => "Looking",
            Self::SelfTesting => "SelfTesting",
            Self::Trial => "Trial",
            Self::Confirming => "Confirming",
            Self::Reverting => "Reverting",
        }
    }

    /// Whether the record in the buffer is done with.
    pub(super) const fn is_idle_for_records(&self) -> bool {
        match self {
            Self::Checking { .. } | Self::Confirming => false,
            Self::Receiving(receiving) => receiving.is_ready(),
            _ => true,
        }
    }

    /// Whether the board dials now: not between an image and its self-test.
    pub(super) const fn may_dial(&self) -> bool {
        !matches!(
            self,
            Self::Activating
                | Self::Restarting(_)
                | Self::Looking
                | Self::SelfTesting
                | Self::Confirming
                | Self::Reverting
        )
    }

    /// Whether it ends with the link.
    pub(super) const fn is_transfer(&self) -> bool {
        matches!(
            self,
            Self::Checking { .. }
                | Self::Proving
                | Self::Preparing { .. }
                | Self::Receiving(_)
                | Self::Staged(_)
        )
    }
}
