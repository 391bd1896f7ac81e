//! Frames that keep a session, its keys and its addresses (spec/frames.md section 3).

use crate::code::{BootReason, ByeReason, CloseCode, DigestFrom, Link, Revert, SelfTest};
use crate::id::{Digest, Handle, UpdateId, is_name};
use crate::limits::{
    COMPONENTS_MAX, NETWORK_MAX, RECEIVE_BUFFER_MAX, RECEIVE_BUFFER_MIN, RECORD_WINDOW_MIN,
    VERSION_MAX, WRITE_UNIT_MAX,
};
use crate::wire::fields;
use serde::Serialize;

fields! {
    /// Asks the other side for a Pong.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Ping {
        /// Repeated by the Pong.
        pub nonce: u8,
    }
}

fields! {
    /// Answers a Ping.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Pong {
        /// The nonce of the Ping.
        pub nonce: u8,
    }
}

fields! {
    /// A frame number that the receiver does not know was skipped.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Unsupported {
        /// The number that was skipped.
        pub number: u8,
    }
}

fields! {
    /// The board's first frame: who it is, what runs, what it can take.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize)]
    pub struct Hello<'a> {
        /// Product name, `[A-Za-z0-9_-]{1,64}`.
        pub product: &'a str,
        /// Hardware revision.
        pub hardware: u16,
        /// Name and version of the client program, at most 32 bytes.
        pub client: &'a str,
        /// Longest ciphertext that the board takes in one record, in bytes.
        pub receive_buffer: u16,
        /// The network's name as the board knows it, at most 32 bytes.
        pub network: &'a str,
        /// How the board reaches the network.
        pub link: Link,
        /// The board's ping interval, in seconds.
        pub ping_s: u32,
        /// The board sleeps and dials again after so many seconds; 0: it stays connected.
        pub wake_s: u32,
        /// Battery in percent; 255: unknown.
        pub battery_percent: u8,
        /// Signal in dBm; -128: unknown.
        pub signal_dbm: i8,
        /// Temperature in degrees Celsius; -128: unknown.
        pub temperature_c: i8,
        /// The board would defer an Offer now.
        pub busy: bool,
        /// Why the last session ended.
        pub last_close: CloseCode,
        /// Dials that failed since the last session.
        pub failed_dials: u32,
        /// Epoch of the TrustSet; 0: none.
        pub trust_epoch: u32,
        /// Epoch of the list of gateways; 0: the provisioned list.
        pub gateways_epoch: u32,
        /// Bit set of tasks that the board's configuration allows.
        pub tasks: u32,
        /// Number of the last task that was started; 0: none.
        pub last_task: u64,
        /// What runs, component by component; at least one.
        pub components: heapless::Vec<Component<'a>, COMPONENTS_MAX>,
    }
}

impl Hello<'_> {
    /// Whether the fields agree with each other and with their limits (spec/limits.md section 8).
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let buffer = usize::from(self.receive_buffer);
        is_name(self.product)
            && self.client.len() <= VERSION_MAX
            && self.network.len() <= NETWORK_MAX
            && (RECEIVE_BUFFER_MIN..=RECEIVE_BUFFER_MAX).contains(&buffer)
            && !self.components.is_empty()
            && self
                .components
                .iter()
                .enumerate()
                .all(|(index, component)| {
                    component.is_consistent()
                        && self
                            .components
                            .iter()
                            .skip(index + 1)
                            .all(|next| next.component != component.component)
                })
    }
}

fields! {
    /// One component of a board, as its Hello states it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Component<'a> {
        /// Its number; 0 is the main one.
        pub component: u8,
        /// Version of the running image, at most 32 bytes; empty: unknown.
        pub version: &'a str,
        /// Counter of the running image; 0: unknown.
        pub counter: u64,
        /// Lowest counter that is accepted.
        pub floor: u64,
        /// Digest of the running image; zeros where `digest_from` is unknown.
        pub digest: Digest,
        /// How the digest is known.
        pub digest_from: DigestFrom,
        /// Why the running image was started.
        pub boot_reason: BootReason,
        /// What the board can do about a bad image.
        pub revert: Revert,
        /// Largest image that fits, in bytes.
        pub slot_size: u32,
        /// Chunks are multiples of it, in bytes, the last excepted.
        pub write_unit: u32,
        /// Committed offsets are multiples of it, in bytes, or the end.
        pub erase_unit: u32,
        /// Most payload bytes that may be sent and not yet committed.
        pub window: u32,
        /// The running image is on trial.
        pub trial: Option<Trial>,
        /// What the journal says of an image in the slot.
        pub claim: Option<Claim>,
    }
}

impl Component<'_> {
    fn is_consistent(&self) -> bool {
        self.version.len() <= VERSION_MAX
            && (1..=WRITE_UNIT_MAX).contains(&self.write_unit)
            && self.erase_unit.is_multiple_of(self.write_unit)
            && self.erase_unit > 0
            && self.window >= RECORD_WINDOW_MIN.max(self.erase_unit)
    }
}

fields! {
    /// An image on trial.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Trial {
        /// The update that brought it.
        pub update: UpdateId,
        /// Its verdict on itself.
        pub self_test: SelfTest,
    }
}

fields! {
    /// What the board's journal says of an image in the slot: a claim, no proof.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Claim {
        /// Digest of the manifest.
        pub manifest: Digest,
        /// Image bytes committed at least.
        pub committed: u32,
        /// The whole image was verified.
        pub staged: bool,
    }
}

fields! {
    /// A pending key is stored (spec/protocol.md section 5.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct KeyStored {
        /// Number in the outbox.
        pub sequence: u32,
        /// Handle of the pending key.
        pub handle: Handle,
    }
}

fields! {
    /// A list of gateways is stored (spec/protocol.md section 5.4).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct GatewaysStored {
        /// Number in the outbox; 0: the statement was refused.
        pub sequence: u32,
        /// Epoch of the list in force.
        pub epoch: u32,
    }
}

fields! {
    /// The board goes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Bye {
        /// Why.
        pub reason: ByeReason,
        /// It dials again after about so many seconds.
        pub back_in_s: u32,
    }
}

fields! {
    /// The gateway's first frame.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Welcome {
        /// Unix seconds; 0: unknown. Advice only.
        pub time_s: u64,
        /// Advised ping interval, in seconds; 0: none.
        pub ping_s: u32,
    }
}

fields! {
    /// An outbox entry is stored by the gateway; the board may drop it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Settled {
        /// The entry's number.
        pub sequence: u32,
    }
}

fields! {
    /// A new device key (spec/protocol.md section 5.1).
    #[derive(Clone, Copy, PartialEq, Eq, Serialize)]
    pub struct NewKey {
        /// The key.
        pub key: [u8; 32],
    }
}

impl core::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NewKey(..)")
    }
}

fields! {
    /// A new list of gateways (spec/protocol.md section 7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct SetGateways<'a> {
        /// The signed statement.
        pub statement: &'a [u8],
    }
}

fields! {
    /// Advice on the ping interval.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Keepalive {
        /// In seconds.
        pub ping_s: u32,
    }
}

fields! {
    /// The gateway goes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Close {
        /// Why.
        pub code: CloseCode,
        /// The board dials again no sooner, in seconds.
        pub reconnect_after_s: u32,
    }
}
