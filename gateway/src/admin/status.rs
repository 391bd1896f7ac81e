//! /v1/status, and the hold over everything.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorDoc};
use super::{Admin, Api};

/// How the gateway is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusDoc {
    /// The gateway's version.
    pub version: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// Where boards dial.
    pub listen: Option<String>,
    /// QUIC: where boards dial over UDP, and what they know this gateway by.
    #[serde(default)]
    pub quic: QuicDoc,
    /// The data directory.
    pub data: String,
    /// Everything is on hold.
    pub hold: bool,
    /// Devices on hold by themselves.
    pub devices_held: u64,
    /// Devices known.
    pub devices: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Handshakes under way.
    pub handshakes: u64,
    /// Connections that got no session since the start.
    pub refused: u64,
    /// The same by reason.
    pub refused_for: BTreeMap<String, u64>,
    /// Times since the start that the system gave no connection, and why it gives none now.
    pub accept: AcceptHealth,
    /// Deliveries under way.
    pub transfers: u64,
    /// Transfers that run and wait, and what limits them.
    pub turns: TurnsDoc,
    /// Updates by state.
    pub updates: BTreeMap<String, u64>,
    /// Updates that ended otherwise than confirmed or canceled, by reason.
    pub failures: BTreeMap<String, u64>,
    /// The store.
    pub store: StoreHealth,
    /// Updates that wait for an image that cannot be read, and what to do; null where there is none.
    #[serde(default)]
    pub images_problem: Option<String>,
    /// The disk of the data directory.
    pub disk: Disk,
    /// Open files.
    pub open_files: OpenFiles,
    /// The number of the last event.
    pub last_seq: u64,
}

/// QUIC: where boards dial over UDP, and what they know this gateway by.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct QuicDoc {
    /// Where boards dial over UDP; null where QUIC is off.
    pub listen: Option<String>,
    /// SHA-256 of the gateway's public key, 64 hexadecimal digits: the pin of provisioning files.
    pub pin: String,
    /// Open sessions over QUIC.
    pub sessions: u64,
    /// Open connections: sessions, handshakes and what is being closed.
    pub connections: u64,
    /// Packets that were lost and sent anew, of all sessions since the start.
    pub lost_packets: u64,
    /// The bytes of those.
    pub lost_bytes: u64,
    /// Times that a session went on from another address, since the start.
    pub address_changes: u64,
    /// Connections that had to prove their address first (Retry), since the start.
    pub retries: u64,
}

/// Transfers that run and wait, and what limits them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TurnsDoc {
    /// Transfers that have a place.
    pub running: u64,
    /// Of these: so slow that another runs in their place meanwhile.
    pub lent: u64,
    /// Updates of boards that are online, waiting for a place.
    pub waiting: u64,
    /// Of those that run: waiting for their share of a rate.
    pub throttled: u64,
    /// Transfers that run at a time, at most.
    pub limit: u32,
    /// Transfers of one /24 or /48 that run at a time, at most.
    pub network_limit: u32,
    /// Bytes per second of all transfers, at most; null: no limit.
    pub rate: Option<u64>,
    /// Bytes per second of the transfers of one /24 or /48, at most; null: no limit.
    pub network_rate: Option<u64>,
}

/// Whether new connections can be accepted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AcceptHealth {
    /// Times since the start that the system gave none.
    pub failures: u64,
    /// Why it gave none within the last minute, and what to do.
    pub problem: Option<String>,
}

/// Whether the store can be written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoreHealth {
    /// The last change was stored.
    pub writable: bool,
    /// Why not, and what to do.
    pub problem: Option<String>,
}

/// Room on the disk of the data directory, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Free for the gateway.
    pub free: u64,
    /// The whole disk.
    pub total: u64,
    /// Used by the database.
    pub database: u64,
    /// Used by images.
    pub images: u64,
}

/// Open files of the gateway's process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OpenFiles {
    /// Open now.
    pub used: u64,
    /// At most.
    pub limit: u64,
}

/// The hold over everything.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct HoldDoc {
    /// Everything is on hold.
    pub(crate) hold: bool,
}

impl Admin {
    pub(super) async fn status(&self) -> Result<StatusDoc, ApiError> {
        let live = self.live.counts();
        let (mut updates, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for (state, reason, count) in self.store.update_counts() {
            if matches!(
                state.as_str(),
                "reverted" | "declined" | "failed" | "overdue"
            ) {
                *failures
                    .entry(reason.unwrap_or_else(|| state.clone()))
                    .or_default() += count;
            }
            *updates.entry(state).or_default() += count;
        }
        let (devices, devices_held) = self.store.device_counts().await?;
        let fault = self.store.fault();
        let (data, images) = (
            self.store.data().to_path_buf(),
            std::sync::Arc::clone(&self.images),
        );
        let disk = tokio::task::spawn_blocking(move || disk(&data, &images))
            .await
            .unwrap_or_default();
        Ok(StatusDoc {
            version: env!("CARGO_PKG_VERSION").into(),
            started: self.started,
            listen: self.listen.map(|listen| listen.to_string()),
            quic: QuicDoc {
                listen: self.quic.map(|listen| listen.to_string()),
                pin: self.store.quic_pin(),
                sessions: live.quic.sessions,
                connections: live.quic.connections,
                lost_packets: live.quic.lost_packets,
                lost_bytes: live.quic.lost_bytes,
                address_changes: live.quic.address_changes,
                retries: live.quic.retries,
            },
            data: self.store.data().display().to_string(),
            hold: self.store.held(),
            devices_held,
            devices,
            sessions: live.sessions,
            handshakes: live.handshakes,
            refused: live.refused.iter().map(|(_, count)| count).sum(),
            refused_for: live
                .refused
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), *count))
                .collect(),
            accept: AcceptHealth {
                failures: live.accept_faults,
                problem: live.accept_problem,
            },
            transfers: live.transfers,
            turns: TurnsDoc {
                running: live.turns.running,
                lent: live.turns.lent,
                waiting: live.turns.waiting,
                throttled: live.turns.throttled,
                limit: live.limits.transfers,
                network_limit: live.limits.network_transfers,
                rate: live.limits.rate,
                network_rate: live.limits.network_rate,
            },
            updates,
            failures,
            store: StoreHealth {
                writable: fault.is_none(),
                problem: fault.map(|fault| fault.to_string()),
            },
            images_problem: live.images_problem,
            disk,
            open_files: open_files(),
            last_seq: self.store.last_seq(),
        })
    }
}

fn disk(data: &std::path::Path, images: &crate::image::store::ImageStore) -> Disk {
    let room = rustix::fs::statvfs(data)
        .map(|room| (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize))
        .unwrap_or_default();
    let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len());
    Disk {
        free: room.0,
        total: room.1,
        database: size("dialhome.db") + size("dialhome.db-wal") + size("dialhome.db-shm"),
        images: images
            .list()
            .map_or(0, |images| images.iter().map(|(_, size)| size).sum()),
    }
}

/// Open files of this process now.
pub(crate) fn open_files() -> OpenFiles {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    // The listing itself is one of them.
    let used = std::fs::read_dir("/proc/self/fd")
        .map_or(0, |files| files.count().saturating_sub(1) as u64);
    OpenFiles { used, limit }
}

/// How the gateway is.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = StatusDoc), (status = 500, body = ErrorDoc)))]
pub(super) async fn status(State(admin): Api) -> Result<Json<StatusDoc>, ApiError> {
    admin.status().await.map(Json)
}

/// Holds everything: nothing is offered, sent or activated. It survives a restart.
#[utoipa::path(post, path = "/v1/hold", responses((status = 200, body = HoldDoc)))]
pub(super) async fn hold(State(admin): Api) -> Result<Json<HoldDoc>, ApiError> {
    admin.store.set_hold(true).await?;
    Ok(Json(HoldDoc { hold: true }))
}

/// Releases everything; devices on hold by themselves stay so.
#[utoipa::path(post, path = "/v1/release", responses((status = 200, body = HoldDoc)))]
pub(super) async fn release(State(admin): Api) -> Result<Json<HoldDoc>, ApiError> {
    admin.store.set_hold(false).await?;
    Ok(Json(HoldDoc { hold: false }))
}
