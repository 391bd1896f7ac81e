//! A real gateway for a run: its folder on tmpfs, devices and images that it knows before it
//! starts, its process, and a client of its admin socket.

pub mod admin;
pub mod gateway;
pub mod leash;
pub mod namespace;

use crate::Error;
use dialhome_gateway::image::container::{Head, Origin};
use dialhome_gateway::image::sign::{Description, sign};
use dialhome_gateway::image::source::{self, Format, Source};
use dialhome_gateway::image::store::ImageStore;
use dialhome_gateway::store::{NewDevice, Store, now};
use dialhome_proto::manifest::TrialBudget;
use ed25519_dalek::SigningKey;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The product of every simulated board.
pub const PRODUCT: &str = "simulated";

/// A gateway's data and what belongs to it. The folder goes with this value.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    operator: SigningKey,
}

/// A device as the gateway knows it, and what its board needs.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: [u8; 32],
}

impl Site {
    /// An empty site. Everything is written to `/dev/shm`, so that no disk is measured.
    ///
    /// # Errors
    /// There is no room for the folder.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            folder: leash::folder("load")?,
            operator: SigningKey::from_bytes(&[7; 32]),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The gateway's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The public key that the boards trust for images.
    #[must_use]
    pub fn trusted(&self) -> [u8; 32] {
        self.operator.verifying_key().to_bytes()
    }

    /// Makes devices with these ids and images `simulated@0`, `simulated@1` and so on, before
    /// the gateway starts.
    ///
    /// # Errors
    /// The store refused one.
    pub async fn fill(&self, ids: &[String], images: &[Vec<u8>]) -> Result<Vec<Device>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of("the site cannot be filled", error);
        let store = Store::open(&self.data()).map_err(|error| failed(&error))?;
        for (number, image) in images.iter().enumerate() {
            self.add_image(&store, number, image).await?;
        }
        let mut devices = Vec::with_capacity(ids.len());
        for id in ids {
            let provisioned = store
                .add_device(NewDevice {
                    id: id.clone(),
                    product: PRODUCT.into(),
                    trust_keys: vec![self.trusted()],
                    gateways: vec!["gateway.invalid:7040".into()],
                })
                .await
                .map_err(|error| failed(&error))?;
            devices.push(Device {
                id: id.clone(),
                key: *provisioned.key,
            });
        }
        store.flush().await.map_err(|error| failed(&error))?;
        Ok(devices)
    }

    async fn add_image(&self, store: &Store, number: usize, image: &[u8]) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of("an image cannot be added", error);
        let about = Description {
            product: PRODUCT.into(),
            version: number.to_string(),
            component: 0,
            counter: number as u64 + 1,
            floor: 0,
            hardware: 0..=u16::MAX,
            devices: Vec::new(),
            security: false,
            trial: TrialBudget {
                boots: 0,
                dials: 0,
                awake_s: 0,
            },
            requires: Vec::new(),
        };
        let signers = std::slice::from_ref(&self.operator);
        let manifest = sign(image, &about, signers).map_err(|error| failed(&error))?;
        let source = Source {
            name: "simulated.bin".into(),
            format: Format::Raw,
            size: image.len() as u64,
            sha256: source::digest(image),
        };
        let origin = Origin {
            source,
            check: None,
        };
        let head = Head {
            manifest,
            origins: vec![origin],
        };
        ImageStore::open(&self.data())
            .and_then(|images| images.put(image))
            .map_err(|error| failed(&error))?;
        store
            .add_image(head.record(now()), false)
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// An image whose bytes no two places share.
#[must_use]
pub fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
