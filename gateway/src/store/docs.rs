//! The documents of the admin API: the JSON contract of updates, devices and events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ComponentRecord, Disconnect};

/// An update, as `push --json` and `update show --json` print it. Absent is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateDoc {
    /// The id, 16 hexadecimal digits.
    pub update: String,
    /// The device.
    pub device: String,
    /// The image, `P[/component]@V`; of several components `P/1,0@2.0,1.4`.
    pub image: String,
    /// The component's number; of several the first one's.
    pub component: u8,
    /// SHA-256 of the image, 64 hexadecimal digits; of several components the first one's.
    pub digest: String,
    /// Every component of the update, in the order of installation.
    #[serde(default)]
    pub entries: Vec<UpdateEntryDoc>,
    /// `queued`, `offered`, `deferred`, `accepted`, `preparing`, `transferring`, `verifying`, `staged`,
    /// `activating`, `trial`, `canceling`; `overdue` (should have ended by now; `detail` names the state below it);
    /// or an end: `confirmed`, `reverted`, `declined`, `failed`, `canceled`, `abandoned`.
    pub state: String,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// More about it, in words.
    pub detail: Option<String>,
    /// The end of what the commands printed that failed for it on the board, 6,144 bytes at most; in lists null.
    #[serde(default)]
    pub output: Option<String>,
    /// Who puts the old image back if this one is bad, as the board last said before it was offered:
    /// `swap`, `restore_copy`, `by_image` or `none`; null where it has not dialed home yet. Of several components
    /// the weakest.
    #[serde(default)]
    pub revert: Option<String>,
    /// What can go wrong for good, in one sentence for each component; null where the old image comes back by itself.
    #[serde(default)]
    pub warning: Option<String>,
    /// The payloads' size in bytes.
    pub size: u32,
    /// Bytes that the board has committed, of all payloads.
    pub committed: u64,
    /// Payload bytes sent, over all sessions.
    pub sent: u64,
    /// Of those, bytes that had been sent before.
    pub resent: u64,
    /// Sessions that took part.
    pub sessions: u32,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When its state last changed.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
    /// After this it is canceled, or overdue if the board has heard of it.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Timestamp,
    /// One plain sentence; null where it has ended.
    pub waiting_for: Option<String>,
}

/// One component of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateEntryDoc {
    /// The component's number.
    pub component: u8,
    /// SHA-256 of its image, 64 hexadecimal digits.
    pub digest: String,
    /// The payload's size in bytes.
    pub size: u32,
    /// Bytes that the board has committed; all of them where it runs the image already.
    pub committed: u64,
    /// It is the one that is sent or checked now; of a declined update, the one that was declined.
    pub under_way: bool,
    /// Who puts the old image back, as the board last said; null where it has not dialed home yet.
    pub revert: Option<String>,
}

/// What a session over QUIC has met so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuicTrafficDoc {
    /// Packets from the gateway that were lost and sent anew.
    pub lost_packets: u64,
    /// The bytes of those.
    pub lost_bytes: u64,
    /// Times that the session went on from another address.
    pub address_changes: u32,
}

/// A device, as `device show --json` prints it. Absent is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceDoc {
    /// The id.
    pub device: String,
    /// The product.
    pub product: String,
    /// A session is open now.
    pub online: bool,
    /// `online`, `asleep`, `silent` or `offline`.
    pub presence: String,
    /// When the board was last heard of, coarsely.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_contact: Option<Timestamp>,
    /// How the last session ended.
    pub last_disconnect: Option<Disconnect>,
    /// `tcp` or `quic`.
    pub transport: Option<String>,
    /// The board's address as the gateway sees it.
    pub peer: Option<String>,
    /// Of a session over QUIC: what was lost, and how often the address changed; null for others.
    #[serde(default)]
    pub quic: Option<QuicTrafficDoc>,
    /// The network's name.
    pub network: Option<String>,
    /// The public handle of the current key, 16 hexadecimal digits.
    pub key_handle: String,
    /// The components as the board last described them.
    pub components: Vec<ComponentRecord>,
    /// The update that is open.
    pub update: Option<String>,
    /// Bytes over the air.
    pub air_bytes: AirBytes,
    /// One plain sentence; null where the board waits for nothing.
    pub waiting_for: Option<String>,
    /// The revision of the operator's record; it rises with every change.
    pub revision: u64,
    /// The device is on hold.
    pub hold: bool,
    /// A new key waits to be taken over by the board.
    pub key_rotation: bool,
    /// The list of gateways as the operator last stated it.
    pub gateways: Vec<String>,
    /// The epoch of that list, 0 for the provisioned one.
    pub gateways_epoch: u32,
    /// The board has that list.
    pub gateways_stored: bool,
}

/// Bytes over the air, seen from the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AirBytes {
    /// Bytes to the board.
    pub sent: u64,
    /// Bytes from the board.
    pub received: u64,
}

/// An event. `update.progress` is live only and carries the sequence number of the last stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventDoc {
    /// Rises by one with every stored event.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// `device.online`, `device.offline`, `update.state`, `update.progress`, `image.added`,
    /// `device.changed` or `update.output` (what commands printed for the update is stored; `to` is its last line).
    #[serde(rename = "type")]
    pub kind: String,
    /// The device it is about.
    pub device: Option<String>,
    /// The update it is about.
    pub update: Option<String>,
    /// The state before.
    pub from: Option<String>,
    /// The state after; for `update.progress` the committed bytes, for `image.added` the image's name.
    pub to: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Of an update of several components, the one that it is about; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<u8>,
}
