//! Images for two components, of which 1 is installed before 0, and a gateway that holds one.

use std::path::PathBuf;

use dialhome_gateway::demo::relay::Faults;
use dialhome_proto::id::Digest;
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::peer::key_of;
use super::{BOARD, Bench, PRODUCT, random_bytes};

/// What the two payloads of an image are, and what the gateway calls it.
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Of component 1, which is installed first, and of component 0.
    pub(crate) payloads: [Vec<u8>; 2],
    pub(crate) manifest: Digest,
}

impl Image {
    pub(crate) fn digest(&self, place: usize) -> Digest {
        digest(&self.payloads[place])
    }

    pub(crate) fn size(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum()
    }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Signs an image for component 1 in version `versions.0` and for component 0 in `versions.1`; one counter for both.
pub(crate) async fn sign(
    bench: &Bench,
    versions: (&str, &str),
    payloads: [Vec<u8>; 2],
    counter: u64,
) -> Image {
    let (child, main) = versions;
    let path = |name: String| bench.path().join(name);
    let files = [
        path(format!("child-{child}.bin")),
        path(format!("main-{main}.bin")),
    ];
    for (file, payload) in files.iter().zip(&payloads) {
        std::fs::write(file, payload).unwrap();
    }
    let file = path(format!("{child}+{main}.dhi"));
    let entries = [
        format!("1={}@{child},floor=1", files[0].display()),
        format!("0={}@{main}", files[1].display()),
    ];
    let (key, counter) = (bench.site.key(), counter.to_string());
    let signed = bench
        .json(&[
            "image",
            "sign",
            "--product",
            PRODUCT,
            "--key",
            key.to_str().unwrap(),
            "--counter",
            &counter,
            "--entry",
            &entries[0],
            "--entry",
            &entries[1],
            "--out",
            file.to_str().unwrap(),
        ])
        .await;
    let name = format!("{PRODUCT}/1,0@{child},{main}");
    assert_eq!(signed["image"], name.as_str(), "{signed}");
    Image {
        name,
        file,
        payloads,
        manifest: Digest::from_hex(signed["manifest_digest"].as_str().unwrap()).unwrap(),
    }
}

pub(crate) async fn add(bench: &Bench, image: &Image) -> Value {
    bench
        .json(&["image", "add", image.file.to_str().unwrap()])
        .await
}

/// A gateway that holds an image for two components, and the key of a board that only the test plays.
pub(crate) async fn bench() -> (Bench, DeviceKey, Image) {
    let mut bench = Bench::start().await;
    let board = bench.add_board("lamp-1", Faults::default(), BOARD).await;
    let payloads = [random_bytes(1, 5_000), random_bytes(2, 9_000)];
    let image = sign(&bench, ("2.0", "1.4"), payloads, 7).await;
    add(&bench, &image).await;
    (bench, key_of(&board.config), image)
}
