//! The records of the store: one writer each, whole-record upserts with a revision.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dialhome_proto::gateway;
pub use dialhome_proto::gateway::State;
use dialhome_proto::id::UpdateId;
use dialhome_proto::time::Millis;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A device's id, `[A-Za-z0-9_-]{1,64}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// The id, where `text` is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        dialhome_proto::id::is_name(text).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id that this store wrote, and so checked, before.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for DeviceId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.0)
    }
}

/// Which of a device's keys a handle belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhichKey {
    /// The key in force.
    Current,
    /// The key that a rotation has made and that no authenticated record has used yet.
    Pending,
}

/// A device's key as the handshake needs it; wiped when dropped.
pub struct KeyRecord {
    /// The device.
    pub device: DeviceId,
    /// Current or pending.
    pub which: WhichKey,
    /// The 32-byte device key (spec/protocol.md section 2.1), never used directly.
    pub key: [u8; 32],
    /// The suites that the device may use, bit N for suite N.
    pub suites: u8,
    /// How often it was dialed with lately. Here it costs a device nothing more.
    pub(crate) dials: Dials,
}

/// Counts dials within a running minute.
#[derive(Debug, Default)]
pub(crate) struct Dials(AtomicU64);

impl Dials {
    /// One more; how many there are within the minute, this one included.
    pub(crate) fn count(&self, now: Millis) -> u32 {
        let now = now.0 / 1000;
        // The minute's first second above, the count below.
        let more = |known: u64| {
            let (since, count) = (known >> 32, known & u64::from(u32::MAX));
            if count == 0 || now.saturating_sub(since) > 60 {
                (now << 32) | 1
            } else {
                (since << 32) | (count + 1).min(u64::from(u32::MAX))
            }
        };
        let mut known = self.0.load(Ordering::Acquire);
        loop {
            let next = more(known);
            match self
                .0
                .compare_exchange_weak(known, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return u32::try_from(next & u64::from(u32::MAX)).unwrap_or(u32::MAX),
                Err(changed) => known = changed,
            }
        }
    }

    /// Counts from 0 again.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod dials_tests {
    use super::*;

    #[test]
    fn dials_count_within_a_minute_and_from_0_once_they_are_forgotten() {
        let dials = Dials::default();
        assert_eq!(dials.count(Millis(5_000)), 1);
        assert_eq!(dials.count(Millis(65_000)), 2);
        assert_eq!(dials.count(Millis(66_000)), 1, "another minute");
        dials.forget();
        assert_eq!(dials.count(Millis(66_000)), 1);
    }
}

impl Drop for KeyRecord {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRecord({}, {:?})", self.device, self.which)
    }
}

/// The `device` record. Its one writer is the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The id.
    pub id: String,
    /// The product.
    pub product: String,
    /// The TrustSet's Ed25519 public keys, 64 hexadecimal digits each.
    pub trust_keys: Vec<String>,
    /// Signatures that a manifest needs.
    pub trust_threshold: u8,
    /// The TrustSet's epoch.
    pub trust_epoch: u32,
    /// The provisioned list of gateways, HOST:PORT.
    pub gateways: Vec<String>,
    /// The suites that the device may use, bit N for suite N.
    pub suites: u8,
    /// Nothing is offered, sent or activated.
    pub hold: bool,
    /// The newest signed list of gateways, and whether the board has stored it.
    #[serde(default)]
    pub gateways_statement: Option<GatewaysStatement>,
    /// When it was added.
    pub added: Timestamp,
}

/// A signed list of gateways on its way to a board (spec/protocol.md section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaysStatement {
    /// The statement's epoch.
    pub epoch: u32,
    /// HOST:PORT, as the statement has them.
    pub gateways: Vec<String>,
    /// The statement's bytes, signatures included.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
    /// The board has said that it stored this epoch.
    #[serde(default)]
    pub stored: bool,
    /// The board has refused it, having this epoch in force.
    #[serde(default)]
    pub refused: Option<u32>,
}

/// The `device_state` record. Its one writer is the gateway of the device's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceState {
    /// The session that wrote it; an older one is fenced.
    pub generation: u64,
    /// What the last Hello said.
    pub hello: Option<HelloRecord>,
    /// When the last session began or ended; up to the minute while it lasts.
    pub last_contact: Option<Timestamp>,
    /// How the last session ended.
    pub last_disconnect: Option<Disconnect>,
    /// A session of this generation is thought to be open (wrong after a crash, until the gateway opens the store).
    pub connected: bool,
    /// Bytes that the gateway sent to the board over the air, headers included as far as they are known.
    pub air_sent: u64,
    /// Bytes that the gateway received from it.
    pub air_received: u64,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Disconnect {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why: the name of a close or bye code.
    pub reason: String,
}

/// What a board said in Hello, as far as it is shown or kept (spec/frames.md section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HelloRecord {
    /// `tcp` or `quic`.
    pub transport: String,
    /// The board's address as the gateway saw it.
    pub peer: Option<String>,
    /// The network's name.
    pub network: String,
    /// How the board reaches it, by the code's name.
    pub link: String,
    /// Name and version of the client program.
    pub client: String,
    /// Hardware revision.
    pub hardware: u16,
    /// Seconds until a sleeping board dials again; 0: it stays connected.
    pub wake_s: u32,
    /// Percent; none where unknown.
    pub battery_percent: Option<u8>,
    /// dBm; none where unknown.
    pub signal_dbm: Option<i8>,
    /// Degrees Celsius; none where unknown.
    pub temperature_c: Option<i8>,
    /// Epoch of the TrustSet in force, 0: none.
    pub trust_epoch: u32,
    /// Epoch of the list of gateways in force, 0: the provisioned one.
    pub gateways_epoch: u32,
    /// Bit set of the tasks that the board's configuration allows.
    pub tasks: u32,
    /// The number of the last task that was started.
    pub last_task: u64,
    /// The handle of the key that the session uses, 16 hexadecimal digits.
    pub key_handle: String,
    /// The components, one to four.
    pub components: Vec<ComponentRecord>,
}

/// A component as the last Hello described it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ComponentRecord {
    /// Its number, 0 for the main image.
    pub component: u8,
    /// Version text of the running image.
    pub version: String,
    /// Counter of the running image; none where the board does not know it.
    pub counter: Option<u64>,
    /// SHA-256 of the running image, 64 hexadecimal digits; none where unknown.
    pub digest: Option<String>,
    /// How the digest is known: `booted`, `read_back`, `slot_file` or `unknown`.
    pub digest_from: String,
    /// Why the running image was started.
    pub boot_reason: String,
    /// The update that is on trial, 16 hexadecimal digits.
    pub trial: Option<String>,
    /// Who puts the old image back if the next one is bad: `swap`, `restore_copy`, `by_image` or `none`.
    pub revert: String,
    /// Largest image that fits, in bytes.
    pub slot_size: u32,
}

/// The `update_intent` record. Its one writer is the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateIntent {
    /// The update's id, 16 hexadecimal digits; never used twice.
    pub update: String,
    /// The device.
    pub device: String,
    /// The image's name, `P[/component]@V`.
    pub image: String,
    /// SHA-256 of the image's payload, 64 hexadecimal digits.
    pub digest: String,
    /// SHA-256 of the manifest's body, 64 hexadecimal digits.
    pub manifest_digest: String,
    /// The component.
    pub component: u8,
    /// The payload's size in bytes.
    pub size: u32,
    /// When it was created.
    pub created: Timestamp,
    /// After this it is canceled, or overdue if the board has heard of it.
    pub deadline: Timestamp,
    /// An older counter, above the floor, is meant.
    pub downgrade: bool,
    /// Payload bytes that may be sent before the update pauses.
    pub max_bytes: u64,
    /// Of an update of several components, all of them in order, `component` and `digest` above being those of
    /// the first, and `size` that of the whole; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<IntentEntry>,
    /// The operator has asked to cancel.
    #[serde(default)]
    pub cancel_requested: Option<Timestamp>,
    /// The operator has abandoned it.
    #[serde(default)]
    pub abandoned: Option<Timestamp>,
    /// The update that takes its place.
    #[serde(default)]
    pub replaced_by: Option<String>,
}

/// One component of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentEntry {
    /// The component.
    pub component: u8,
    /// SHA-256 of its payload, 64 hexadecimal digits.
    pub digest: String,
    /// Its payload's size in bytes.
    pub size: u32,
}

impl UpdateIntent {
    /// The components, one to four, in the order of installation.
    #[must_use]
    pub fn entries(&self) -> Vec<IntentEntry> {
        if !self.entries.is_empty() {
            return self.entries.clone();
        }
        vec![IntentEntry {
            component: self.component,
            digest: self.digest.clone(),
            size: self.size,
        }]
    }

    /// The id as the wire has it.
    #[must_use]
    pub fn id(&self) -> UpdateId {
        UpdateId::from_hex(&self.update).unwrap_or(UpdateId([0; 8]))
    }
}

/// Counters of a delivery, absolute, over all its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Payload bytes that the board has committed (and said so).
    pub committed: u64,
    /// Payload bytes that were sent.
    pub sent: u64,
    /// Of those, bytes that had been sent before.
    pub resent: u64,
    /// Bytes that the board had already of an earlier update, or of a component that it runs: they count as
    /// reached and were never sent.
    #[serde(skip_serializing_if = "is_none")]
    pub skipped: u64,
    /// Sessions that took part.
    pub sessions: u32,
    /// Of an update of several components, the place of the one that is under way.
    #[serde(skip_serializing_if = "is_first")]
    pub place: u8,
}

impl Counters {
    /// What a delivery has counted, in so many sessions, with the part that is under way.
    #[must_use]
    pub fn of(counted: &gateway::Counters, sessions: u32, place: u8) -> Self {
        let new = counted.sent.saturating_sub(counted.resent);
        Self {
            committed: counted.committed,
            sent: counted.sent,
            resent: counted.resent,
            skipped: counted.reached.saturating_sub(new),
            sessions,
            place,
        }
    }

    /// What a delivery goes on counting from.
    #[must_use]
    pub const fn counted(&self) -> gateway::Counters {
        gateway::Counters {
            committed: self.committed,
            sent: self.sent,
            resent: self.resent,
            reached: self.sent.saturating_sub(self.resent) + self.skipped,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_first(place: &u8) -> bool {
    *place == 0
}

/// The `update_state` record. Its one writer is the gateway of the device's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateState {
    /// Where it stands.
    pub state: State,
    /// Why, by a name of spec/frames.md section 4 or of the gateway's own.
    #[serde(default)]
    pub reason: Option<String>,
    /// More about it, in words.
    #[serde(default)]
    pub detail: Option<String>,
    /// The end of what the commands printed that failed for it on the board.
    #[serde(default)]
    pub output: Option<String>,
    /// What the board's last Hello before the offer said of `revert`; none where there was no Hello yet. Of several
    /// components the weakest.
    #[serde(default)]
    pub revert: Option<String>,
    /// Of an update of several components, the same for each of them in order; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reverts: Vec<Option<String>>,
    /// What was moved.
    #[serde(default)]
    pub counters: Counters,
    /// When the state last changed.
    pub changed: Timestamp,
    /// The board has heard of the update (it was offered at least once).
    #[serde(default)]
    pub heard: bool,
    /// A Hello has stated every image of the update as the one that runs, on trial.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen: bool,
    /// It should have ended by now.
    #[serde(default)]
    pub overdue: Option<Overdue>,
    /// It waits because it has sent `max_bytes`.
    #[serde(default)]
    pub paused: bool,
    /// What the board stated after the update had ended.
    #[serde(default)]
    pub later: Vec<LaterStatement>,
}

/// The mark of an update that should have ended by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    /// Since when.
    pub since: Timestamp,
    /// Which deadline passed: `deadline` for the push's own.
    pub reason: String,
}

/// What a board stated about an update that had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterStatement {
    /// When it arrived.
    pub at: Timestamp,
    /// The state stated.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
}

/// The `image` record: a signed manifest and where its payload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `P[/component]@V`, unique.
    pub name: String,
    /// The product.
    pub product: String,
    /// The component; of several the first, and so are the fields up to `digest`, `source_digest`, and `counter`
    /// to `hardware` and `check`.
    pub component: u8,
    /// The version text.
    pub version: String,
    /// SHA-256 of the payload, 64 hexadecimal digits: the name of its file.
    pub digest: String,
    /// SHA-256 of the manifest's body, 64 hexadecimal digits.
    pub manifest_digest: String,
    /// SHA-256 of the file that it was made from, where that is not the payload.
    #[serde(default)]
    pub source_digest: Option<String>,
    /// The size of all payloads together, in bytes.
    pub size: u32,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow it.
    pub floor: u64,
    /// Hardware revisions that it is for, first and last.
    pub hardware: (u16, u16),
    /// Devices that it is for; empty: every device of the product.
    #[serde(default)]
    pub devices: Vec<String>,
    /// The signers' ids, 16 hexadecimal digits each.
    pub signers: Vec<String>,
    /// What the payload was checked for when it was added, as in `sdu:0x2000`.
    #[serde(default)]
    pub check: Option<String>,
    /// Of an image for several components, all of them in the order of installation; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryRecord>,
    /// The manifest, signatures included.
    #[serde(with = "hex_bytes")]
    pub manifest: Vec<u8>,
    /// When it was added.
    pub added: Timestamp,
}

/// One component of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// The component.
    pub component: u8,
    /// The version text.
    pub version: String,
    /// SHA-256 of the payload, 64 hexadecimal digits: the name of its file.
    pub digest: String,
    /// SHA-256 of the file that it was made from, where that is not the payload.
    #[serde(default)]
    pub source_digest: Option<String>,
    /// The payload's size in bytes.
    pub size: u32,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow it.
    pub floor: u64,
    /// Hardware revisions that it is for, first and last.
    pub hardware: (u16, u16),
    /// What the payload was checked for when it was added.
    #[serde(default)]
    pub check: Option<String>,
}

impl ImageRecord {
    /// The components, one to four, in the order of installation.
    #[must_use]
    pub fn entries(&self) -> Vec<EntryRecord> {
        if !self.entries.is_empty() {
            return self.entries.clone();
        }
        vec![EntryRecord {
            component: self.component,
            version: self.version.clone(),
            digest: self.digest.clone(),
            source_digest: self.source_digest.clone(),
            size: self.size,
            counter: self.counter,
            floor: self.floor,
            hardware: self.hardware,
            check: self.check.clone(),
        }]
    }

    /// The digests of the payloads, each once.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        let mut digests: Vec<_> = self
            .entries()
            .into_iter()
            .map(|entry| entry.digest)
            .collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }
}

/// An update that has not ended, with what a delivery needs.
#[derive(Clone, Debug)]
pub struct OpenUpdate {
    /// What the operator wants.
    pub intent: UpdateIntent,
    /// Where it stands.
    pub state: UpdateState,
    /// The image.
    pub image: Arc<ImageRecord>,
}

/// What there is to do for a device, from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// An update is open: see `open_update`.
    pub update: bool,
    /// A new key waits to be told: see `pending_key`.
    pub pending_key: bool,
    /// A list of gateways waits to be told: see `gateways_statement`.
    pub gateways: bool,
    /// The device, or everything, is on hold: nothing may be offered, sent or activated.
    pub held: bool,
}

/// A change of an update's state by the session, in the words of a board or of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The new state; none leaves it.
    pub state: Option<State>,
    /// Why. A new state without a reason clears the old one.
    pub reason: Option<String>,
    /// More about it, in words.
    pub detail: Option<String>,
    /// The end of what the commands printed that failed for it; none leaves it.
    pub output: Option<String>,
    /// What was moved so far; none leaves it.
    pub counters: Option<Counters>,
    /// `Some(reason)` marks the update overdue; a new state alone clears the mark.
    pub overdue: Option<String>,
    /// Sets or clears the pause after `max_bytes`.
    pub paused: Option<bool>,
    /// The board has stated this (a Report): it is recorded even after the update ended.
    pub stated: bool,
    /// A Hello states every image of the update as the one that runs, on trial.
    pub seen: bool,
}

impl Change {
    /// A new state without a reason.
    #[must_use]
    pub fn to(state: State) -> Self {
        Self {
            state: Some(state),
            ..Self::default()
        }
    }

    /// The same change with a reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// Bytes as hexadecimal digits in JSON.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let mut out = vec![0; text.len() / 2];
        if dialhome_proto::id::decode_hex(&text, &mut out) {
            Ok(out)
        } else {
            Err(D::Error::custom("not hexadecimal"))
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The time now, to the millisecond: what every record and document carries.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
        .round(jiff::Unit::Millisecond)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}
