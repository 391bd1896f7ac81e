//! A board's decision on an offered manifest, in the order of spec/protocol.md section 6.4.

use heapless::{String, Vec};

use super::{Entry, Manifest, TrialBudget};
use crate::code::Reason;
use crate::device::COMPONENTS;
use crate::id::Digest;
use crate::limits::{COMPONENTS_MAX, ENCODING_RAW, REMEMBERED_LEN, VERSION_MAX};
use crate::stored::{Stored, Way, load};
use crate::trust::{SignatureVerified, TrustSet, VerifySignature};
use crate::wire::Writer;

/// What the board knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct BoardFacts<'a> {
    /// Its product.
    pub product: &'a str,
    /// Its device id.
    pub device: &'a str,
    /// Its hardware revision.
    pub hardware: u16,
    /// Whom it trusts; `None` refuses every update.
    pub trust: Option<&'a TrustSet>,
}

/// What the board knows of one of its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentFacts {
    /// Its number.
    pub component: u8,
    /// Largest image that fits, in bytes.
    pub slot_size: u32,
    /// SHA-256 of the image that runs; `None`: unknown.
    pub running_digest: Option<Digest>,
    /// Counter of the image that runs, 0: unknown.
    pub running_counter: u64,
    /// Lowest counter that is accepted.
    pub floor: u64,
}

/// The unsigned half of an Offer or Resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The component that the offer is for.
    pub component: u8,
    /// An older counter, above the floor, is meant.
    pub downgrade: bool,
    /// How the payload is encoded, 0: raw.
    pub encoding: u8,
    /// Bytes of the payload.
    pub payload_size: u32,
}

/// An image that the board may take, and the proof that it was signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What the board keeps of it.
    pub image: Remembered,
    /// The proof.
    pub verified: SignatureVerified,
    /// Entries of the manifest; 1 on a Resume.
    pub entries: u8,
}

/// What a board keeps of a verified manifest: enough to take a Resume without seeing it again, to run the
/// trial, and to state the image in Hello. 137 bytes at most in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remembered {
    /// SHA-256 of the manifest's body.
    pub manifest: Digest,
    /// The component that it is for.
    pub component: u8,
    /// For Hello.
    pub version: String<VERSION_MAX>,
    /// Bytes of the image.
    pub size: u32,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// Its place in the order of images.
    pub counter: u64,
    /// Lowest counter that may follow once it is confirmed.
    pub floor: u64,
    /// With the defaults filled in.
    pub trial: TrialBudget,
    /// Epoch of the TrustSet under which it was verified.
    pub trust_epoch: u32,
}

impl Stored for Remembered {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.bytes(&mut self.manifest.0);
        way.byte(&mut self.component);
        way.text(&mut self.version);
        way.number(&mut self.size);
        way.bytes(&mut self.sha256.0);
        way.counter(&mut self.counter);
        way.counter(&mut self.floor);
        way.byte(&mut self.trial.boots);
        way.short(&mut self.trial.dials);
        way.number(&mut self.trial.awake_s);
        way.number(&mut self.trust_epoch);
    }
}

/// Decides whether the board takes the offered image.
///
/// # Errors
/// The first [`Reason`] of section 6.4 that applies: what the board states in Decline.
#[inline(never)]
pub fn check(
    manifest: &[u8],
    offered: &Offered,
    board: &BoardFacts<'_>,
    components: &[ComponentFacts],
    verifier: &mut impl VerifySignature,
) -> Result<Accepted, Reason> {
    let trust = board.trust.ok_or(Reason::NO_TRUST)?;
    let manifest = Manifest::parse(manifest).map_err(|_| Reason::BAD_MANIFEST)?;
    let verified = trust.verify(manifest.body(), manifest.signatures(), verifier)?;
    if manifest.product() != board.product {
        return Err(Reason::WRONG_PRODUCT);
    }
    if !manifest.is_for(board.device) {
        return Err(Reason::WRONG_DEVICE);
    }
    let entry = manifest
        .entry(offered.component)
        .ok_or(Reason::WRONG_COMPONENT)?;
    judge(
        &manifest,
        &entry,
        offered,
        board.hardware,
        components,
        trust,
    )?;
    let image = Remembered {
        manifest: manifest.digest(),
        component: entry.component,
        version: String::try_from(entry.version).map_err(|_| Reason::BAD_MANIFEST)?,
        size: entry.size,
        sha256: entry.sha256,
        counter: entry.counter,
        floor: entry.floor,
        trial: manifest.trial().or_defaults(),
        trust_epoch: trust.epoch,
    };
    Ok(Accepted {
        image,
        verified,
        entries: manifest.entries().how_many(),
    })
}

/// Everything of one entry that needs no key, from `wrong_component` on.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "a board with one component has one call, and saves the flash of a second"
)]
fn judge(
    manifest: &Manifest<'_>,
    entry: &Entry<'_>,
    offered: &Offered,
    hardware: u16,
    components: &[ComponentFacts],
    trust: &TrustSet,
) -> Result<(), Reason> {
    let component = find(components, entry.component).ok_or(Reason::WRONG_COMPONENT)?;
    if !entry.fits_hardware(hardware) {
        return Err(Reason::WRONG_HARDWARE);
    }
    check_offer(entry.size, offered, component)?;
    check_order(entry.counter, entry.sha256, offered, component, trust)?;
    if !is_satisfied(manifest, entry, components) {
        return Err(Reason::REQUIRED_DIGEST);
    }
    Ok(())
}

/// Decides whether the board takes every entry of a manifest of which [`check`] has accepted
/// one, and what it keeps of each, in the manifest's order (spec/protocol.md section 9.6).
///
/// # Errors
/// As [`check`], of the first entry in the order that is not acceptable.
pub fn judge_others(
    manifest: &[u8],
    offered: &Offered,
    board: &BoardFacts<'_>,
    components: &[ComponentFacts],
    accepted: &Accepted,
) -> Result<Vec<Remembered, COMPONENTS_MAX>, Reason> {
    let trust = board.trust.ok_or(Reason::NO_TRUST)?;
    let manifest = Manifest::parse(manifest).map_err(|_| Reason::BAD_MANIFEST)?;
    // What the board has not is said before what does not fit.
    if manifest
        .entries()
        .any(|entry| find(components, entry.component).is_none())
    {
        return Err(Reason::WRONG_COMPONENT);
    }
    let mut images = Vec::new();
    for entry in manifest.entries() {
        let offered = Offered {
            component: entry.component,
            encoding: ENCODING_RAW,
            payload_size: entry.size,
            ..*offered
        };
        judge(
            &manifest,
            &entry,
            &offered,
            board.hardware,
            components,
            trust,
        )?;
        let image = Remembered {
            component: entry.component,
            version: String::try_from(entry.version).map_err(|_| Reason::BAD_MANIFEST)?,
            size: entry.size,
            sha256: entry.sha256,
            counter: entry.counter,
            floor: entry.floor,
            ..accepted.image.clone()
        };
        images.push(image).map_err(|_| Reason::BAD_MANIFEST)?;
    }
    Ok(images)
}

/// Decides again on a Resume of a manifest that was verified before: everything that may have changed
/// since, but neither the signatures nor what the entry required.
///
/// # Errors
/// As [`check`]; [`Reason::MANIFEST_UNKNOWN`] where the TrustSet has changed since, so that the gateway
/// sends the whole manifest and its signatures are checked under the new one.
pub fn recheck(
    image: Remembered,
    offered: &Offered,
    trust: Option<&TrustSet>,
    components: &[ComponentFacts],
) -> Result<Accepted, Reason> {
    let trust = trust.ok_or(Reason::NO_TRUST)?;
    if trust.epoch != image.trust_epoch {
        return Err(Reason::MANIFEST_UNKNOWN);
    }
    if image.component != offered.component {
        return Err(Reason::WRONG_COMPONENT);
    }
    let component = find(components, offered.component).ok_or(Reason::WRONG_COMPONENT)?;
    check_offer(image.size, offered, component)?;
    check_order(image.counter, image.sha256, offered, component, trust)?;
    Ok(Accepted {
        image,
        verified: SignatureVerified::remembered(),
        entries: 1,
    })
}

fn find(components: &[ComponentFacts], number: u8) -> Option<&ComponentFacts> {
    components.iter().find(|facts| facts.component == number)
}

/// `too_big`, `size_mismatch`, `unknown_encoding`.
fn check_offer(size: u32, offered: &Offered, component: &ComponentFacts) -> Result<(), Reason> {
    if size > component.slot_size {
        return Err(Reason::TOO_BIG);
    }
    if offered.encoding == ENCODING_RAW && offered.payload_size != size {
        return Err(Reason::SIZE_MISMATCH);
    }
    if offered.encoding != ENCODING_RAW {
        return Err(Reason::UNKNOWN_ENCODING);
    }
    Ok(())
}

/// `withdrawn`, `below_floor`, `counter_conflict`, `downgrade_not_asked`.
fn check_order(
    counter: u64,
    sha256: Digest,
    offered: &Offered,
    component: &ComponentFacts,
    trust: &TrustSet,
) -> Result<(), Reason> {
    if counter < trust.minimum(component.component) {
        return Err(Reason::WITHDRAWN);
    }
    if counter < component.floor {
        return Err(Reason::BELOW_FLOOR);
    }
    // An unknown digest is not an equal one.
    if counter == component.running_counter && component.running_digest != Some(sha256) {
        return Err(Reason::COUNTER_CONFLICT);
    }
    if counter < component.running_counter && !offered.downgrade {
        return Err(Reason::DOWNGRADE_NOT_ASKED);
    }
    Ok(())
}

fn is_satisfied(manifest: &Manifest<'_>, entry: &Entry<'_>, components: &[ComponentFacts]) -> bool {
    entry.requires().all(|required| {
        // What an entry before this one installs will run there by then.
        if COMPONENTS > 1
            && let Some(before) = manifest
                .entries()
                .take_while(|before| before.component != entry.component)
                .find(|before| before.component == required.component)
        {
            return before.sha256 == required.digest;
        }
        find(components, required.component)
            .is_some_and(|facts| facts.running_digest == Some(required.digest))
    })
}

impl Remembered {
    /// Reads a journal cell; `None` where it does not hold exactly one.
    ///
    /// What comes back counts as verified: only a cell that [`encode`](Self::encode) filled, behind the
    /// journal's checksum, may be read so.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut image = Self::default();
        load(&mut image, bytes).then_some(image)
    }

    /// Writes a journal cell and returns the bytes used, at most `REMEMBERED_LEN`.
    #[must_use]
    pub fn encode(&self, out: &mut [u8; REMEMBERED_LEN]) -> usize {
        let mut way = Way::Store(Writer::new(out));
        self.clone().pass(&mut way);
        way.finish().unwrap_or(0)
    }
}
