//! Images, manifests and keys that are made once per run.

use super::boot::Nature;
use dialhome_device::client::Provision;
use dialhome_proto::device::{ComponentConfig, Config};
use dialhome_proto::gateway::{Part, Plan};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::limits::{MANIFEST_MAX, STATEMENT_MAX};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::manifest::{
    EntryFields, Manifest, ManifestFields, TrialBudget, assemble, encode_body,
};
use dialhome_proto::statement;
use dialhome_proto::trust::{TrustSet, signer_id};
use ed25519_dalek::{Signer as _, SigningKey};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::Digest as _;

/// The board's id.
pub const DEVICE: &str = "sim-1";
/// Its product.
pub const PRODUCT: &str = "sim";

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[0x51; 32])
}

/// Whom the board trusts.
#[must_use]
pub fn trust() -> TrustSet {
    TrustSet {
        epoch: 1,
        threshold: 1,
        keys: [signing_key().verifying_key().to_bytes()]
            .into_iter()
            .collect(),
        minimums: heapless::Vec::new(),
    }
}

/// The configuration of a simulated board with these components.
#[must_use]
pub const fn config(components: &[ComponentConfig]) -> Config<'_> {
    Config {
        device: DEVICE,
        product: PRODUCT,
        hardware: 1,
        client: "sim",
        receive_buffer: 0,
        tasks: 0,
        ping_s: 120,
        ping_s_min: 10,
        wake_s: 0,
        backoff_ms: (1000, 60_000),
        gateways: 0,
        components,
    }
}

/// What a simulated board is provisioned with.
#[must_use]
pub const fn provision<'p>(key: &'p DeviceKey, trust: &'p TrustSet) -> Provision<'p> {
    Provision {
        key,
        gateways: &["gateway:7040"],
        trust: Some(trust),
        seed: None,
    }
}

/// An image and its signed manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its component.
    pub component: u8,
    /// The image.
    pub bytes: Vec<u8>,
    /// Its manifest, signed.
    pub manifest: Vec<u8>,
    /// Digest of the manifest's body.
    pub manifest_digest: Digest,
    /// Digest of the image.
    pub sha256: Digest,
}

impl Image {
    /// Makes an image of this nature.
    #[must_use]
    pub fn new(nature: Nature, size: usize, counter: u64, trial: TrialBudget, seed: u64) -> Self {
        Self::of(bytes(nature, size, seed), counter, trial)
    }

    /// Signs an image of these bytes.
    #[must_use]
    pub fn of(bytes: Vec<u8>, counter: u64, trial: TrialBudget) -> Self {
        let mut images = Self::several(vec![(0, bytes)], counter, trial);
        images.pop().expect("one went in")
    }

    /// Signs one manifest for images of these components, in this order: an update with
    /// several entries, where there is more than one.
    #[must_use]
    pub fn several(parts: Vec<(u8, Vec<u8>)>, counter: u64, trial: TrialBudget) -> Vec<Self> {
        let digest = |bytes: &[u8]| Digest(sha2::Sha256::digest(bytes).into());
        let entries: Vec<_> = parts
            .iter()
            .map(|(component, bytes)| EntryFields {
                component: *component,
                version: "1.0",
                counter,
                floor: 0,
                size: u32::try_from(bytes.len()).expect("fits"),
                sha256: digest(bytes),
                hardware_min: 0,
                hardware_max: u16::MAX,
                requires: &[],
            })
            .collect();
        let fields = ManifestFields {
            product: PRODUCT,
            flags: 0,
            trial,
            devices: &[],
            entries: &entries,
        };
        let mut manifest = vec![0; MANIFEST_MAX];
        let body = encode_body(&fields, &mut manifest).expect("the fields are right");
        let key = signing_key();
        let signature = key.sign(&manifest[..body]).to_bytes();
        let signer = signer_id(&key.verifying_key().to_bytes());
        let len = assemble(&mut manifest, body, &[(signer, signature)]).expect("it fits");
        manifest.truncate(len);
        let manifest_digest = Manifest::parse(&manifest)
            .expect("what was made is one")
            .digest();
        let made = parts.into_iter().map(|(component, bytes)| Self {
            component,
            sha256: digest(&bytes),
            bytes,
            manifest: manifest.clone(),
            manifest_digest,
        });
        made.collect()
    }

    /// The plan that delivers it.
    #[must_use]
    pub fn plan(&self, update: UpdateId) -> Plan {
        plan_of(std::slice::from_ref(self), update)
    }
}

/// Bytes of an image of this nature.
#[must_use]
pub fn bytes(nature: Nature, size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes[0] = nature.mark();
    bytes
}

/// The plan that delivers the images of one manifest.
#[must_use]
pub fn plan_of(images: &[Image], update: UpdateId) -> Plan {
    let parts = images.iter().map(|image| Part {
        component: image.component,
        image: image.sha256,
        size: u32::try_from(image.bytes.len()).expect("fits"),
    });
    Plan {
        update,
        manifest: images.first().expect("one at least").manifest_digest,
        parts: parts.collect(),
        downgrade: false,
    }
}

/// A signed list of gateways.
#[must_use]
pub fn gateways(epoch: u32, gateways: &[&str]) -> Vec<u8> {
    let mut out = vec![0; STATEMENT_MAX];
    let body = statement::encode_body(DEVICE, epoch, gateways, &mut out).expect("it is right");
    let key = signing_key();
    let signature = key.sign(&out[..body]).to_bytes();
    let signer = signer_id(&key.verifying_key().to_bytes());
    let len = statement::assemble(&mut out, body, &[(signer, signature)]).expect("it fits");
    out.truncate(len);
    out
}
