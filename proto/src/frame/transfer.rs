//! Frames that carry an update from offer to outcome (spec/frames.md section 3).

use crate::code::{Phase, Reason, Statement};
use crate::id::{Digest, UpdateId};
use crate::wire::fields;
use serde::Serialize;

/// Offer flag: an older counter, above the floor, is meant.
pub const DOWNGRADE: u8 = 1;
/// Offer flag: begin at 0 whatever the slot holds.
pub const RESTART: u8 = 2;
/// Chunk flag: answer with an Ack now.
pub const ACK_NOW: u8 = 1;

fields! {
    /// An image, with its manifest.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Offer<'a> {
        /// The update.
        pub update: UpdateId,
        /// Updates of the same group, not 0, belong together.
        pub group: u32,
        /// Place within the group.
        pub order: u8,
        /// The component that it is for.
        pub component: u8,
        /// [`DOWNGRADE`] and [`RESTART`].
        pub flags: u8,
        /// How the payload encodes the image; 0: raw.
        pub encoding: u8,
        /// First bytes of the digest that a delta starts from.
        pub base: Option<[u8; 8]>,
        /// Bytes of payload.
        pub payload_size: u32,
        /// The signed manifest.
        pub manifest: &'a [u8],
    }
}

fields! {
    /// An image whose manifest the board has verified before.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Resume {
        /// The update.
        pub update: UpdateId,
        /// Updates of the same group, not 0, belong together.
        pub group: u32,
        /// Place within the group.
        pub order: u8,
        /// The component that it is for.
        pub component: u8,
        /// [`DOWNGRADE`].
        pub flags: u8,
        /// How the payload encodes the image; 0: raw.
        pub encoding: u8,
        /// First bytes of the digest that a delta starts from.
        pub base: Option<[u8; 8]>,
        /// Bytes of payload.
        pub payload_size: u32,
        /// Digest of the manifest.
        pub manifest: Digest,
    }
}

fields! {
    /// The board takes the image, from where it proves to stand.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Accept {
        /// The update.
        pub update: UpdateId,
        /// Image bytes that are committed.
        pub image_offset: u32,
        /// Digest of those bytes, read back through the slot.
        pub prefix: Digest,
        /// Payload byte to go on from.
        pub payload_offset: u32,
        /// Payload bytes may be sent up to here.
        pub limit: u32,
        /// Worst time from the last byte of a window to its Ack, in milliseconds.
        pub commit_ms: u32,
    }
}

fields! {
    /// Not now.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Defer {
        /// The update.
        pub update: UpdateId,
        /// Why.
        pub reason: Reason,
        /// Ask again after so many seconds.
        pub for_s: u32,
    }
}

fields! {
    /// Not at all.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Decline {
        /// The update.
        pub update: UpdateId,
        /// Why.
        pub reason: Reason,
    }
}

fields! {
    /// The board is busy with the update, and alive.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Progress {
        /// The update.
        pub update: UpdateId,
        /// With what.
        pub phase: Phase,
        /// Bytes done.
        pub done: u32,
        /// Bytes to do.
        pub total: u32,
    }
}

fields! {
    /// Bytes are on flash.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Ack {
        /// Payload offset before which every decoded byte is committed.
        pub committed: u32,
        /// Payload bytes may be sent up to here.
        pub limit: u32,
    }
}

fields! {
    /// Bytes must be sent again.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Nack {
        /// Payload offset to go on from, never below an Ack.
        pub offset: u32,
        /// Why.
        pub reason: Reason,
    }
}

fields! {
    /// Where the board stands with an update.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Report<'a> {
        /// Number in the outbox; 0: a passing statement.
        pub sequence: u32,
        /// The update.
        pub update: UpdateId,
        /// The component.
        pub component: u8,
        /// What the board states.
        pub state: Statement,
        /// Why.
        pub reason: Reason,
        /// More words, at most 200 bytes.
        pub detail: &'a str,
    }
}

fields! {
    /// A piece of the payload.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Chunk<'a> {
        /// Payload offset of its first byte.
        pub offset: u32,
        /// CRC-32/ISO-HDLC of `bytes`, little-endian.
        pub crc: [u8; 4],
        /// [`ACK_NOW`].
        pub flags: u8,
        /// The payload bytes.
        pub bytes: &'a [u8],
    }
}

macro_rules! about_an_update {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        $(fields! {
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
            pub struct $name {
                /// The update.
                pub update: UpdateId,
            }
        })+
    };
}

about_an_update! {
    /// Run the staged image on trial.
    Activate,
    /// Give the update up, if it is not too late.
    Cancel,
    /// The gateway has stored that the trial image is well: keep it.
    Confirm,
}
