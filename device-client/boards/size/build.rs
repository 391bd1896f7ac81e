//! Where the linker finds memory.x, cortex-m-rt's script for every program, and the signed
//! manifest of the image that `stack` receives.

use dialhome_proto::hash::sha256;
use dialhome_proto::id::Digest;
use dialhome_proto::limits::MANIFEST_MAX;
use dialhome_proto::manifest::{EntryFields, ManifestFields, TrialBudget, assemble, encode_body};
use dialhome_proto::trust::signer_id;
use ed25519_dalek::{Signer as _, SigningKey};
use std::path::Path;
use std::{env, fs};

/// As `src/bin/stack/main.rs` makes it.
const IMAGE_LEN: u32 = 8192;

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rustc-link-search={here}");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");

    let image: Vec<u8> = (0..IMAGE_LEN)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    let fields = ManifestFields {
        product: "size",
        flags: 0,
        trial: TrialBudget::default(),
        devices: &[],
        entries: &[EntryFields {
            component: 0,
            version: "2.0",
            counter: 2,
            floor: 1,
            size: IMAGE_LEN,
            sha256: Digest(sha256(&[&image])),
            hardware_min: 0,
            hardware_max: 9,
            requires: &[],
        }],
    };
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = key.verifying_key().to_bytes();
    let mut manifest = [0; MANIFEST_MAX];
    let body = encode_body(&fields, &mut manifest).expect("the fields are right");
    let signature = key.sign(&manifest[..body]).to_bytes();
    let len = assemble(&mut manifest, body, &[(signer_id(&public), signature)]).expect("it fits");

    let out = env::var("OUT_DIR").expect("cargo sets it");
    let out = Path::new(&out);
    fs::write(out.join("manifest"), &manifest[..len]).expect("a place to build in");
    fs::write(out.join("signer"), public).expect("a place to build in");
}
