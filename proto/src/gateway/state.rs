//! Where an update stands, as the record and the operator see it (spec/states.md section 3).

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident $text:literal,)+) => {
        /// Where an update stands.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum State {
            $($(#[$doc])* $name,)+
        }

        impl State {
            /// Every state, in the order of an update's life.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for it in records, messages and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The state with this name.
            #[must_use]
            pub fn from_name(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

states! {
    /// The board has not heard of it.
    Queued "queued",
    /// An Offer or Resume was sent; no answer yet.
    Offered "offered",
    /// The board asked to be asked again later.
    Deferred "deferred",
    /// The board accepted; its prefix is being checked.
    Accepted "accepted",
    /// The board erases.
    Preparing "preparing",
    /// Chunks are under way.
    Transferring "transferring",
    /// Every byte is committed; the board checks the whole.
    Verifying "verifying",
    /// The whole image is on flash and verified.
    Staged "staged",
    /// The board is about to boot the image.
    Activating "activating",
    /// The image runs, on trial.
    Trial "trial",
    /// The board runs the image and has made that durable.
    Confirmed "confirmed",
    /// The board runs the old image again.
    Reverted "reverted",
    /// The board refused the image.
    Declined "declined",
    /// The board gave up.
    Failed "failed",
    /// An operator asked to cancel; the board has not answered.
    Canceling "canceling",
    /// Given up before activation.
    Canceled "canceled",
    /// An operator stopped waiting for it.
    Abandoned "abandoned",
}

impl State {
    /// Whether nothing more is done about the update.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Confirmed
                | Self::Reverted
                | Self::Declined
                | Self::Failed
                | Self::Canceled
                | Self::Abandoned
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a delivery waits for: the operator's `waiting_for` in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaits {
    /// The operator, who holds deliveries.
    Release,
    /// Its turn among the transfers of the gateway.
    Turn,
    /// The gateway's own record.
    Record,
    /// The board's answer to an Offer or Resume.
    Answer,
    /// The end of the board's Defer.
    Deferral,
    /// The gateway's check of the prefix.
    PrefixCheck,
    /// The board's erase.
    Erase,
    /// The board's Ack.
    Ack,
    /// The board's check of the whole image.
    Verification,
    /// The board's answer to Activate.
    ActivateAnswer,
    /// The board's restart.
    Restart,
    /// The trial image's self-test, or the board's revert.
    TrialEnd,
    /// The board's answer to Confirm.
    ConfirmAnswer,
    /// The board's answer to Cancel.
    CancelAnswer,
    /// Nothing: it has ended.
    Nothing,
}
