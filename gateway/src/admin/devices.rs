//! /v1/devices

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dialhome_proto::code::CloseCode;
use dialhome_proto::id::{UpdateId, decode_hex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, Args, Body, ErrorDoc, Name};
use super::waiting::{self, Hold};
use super::{Admin, Api, Page, Paging};
use crate::store::docs::{DeviceDoc, EventDoc};
use crate::store::{NewDevice, StoreError, hex};

/// A device to add.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceToAdd {
    /// Its id, `[A-Za-z0-9_-]{1,64}`.
    pub device: String,
    /// Its product, of the same letters.
    pub product: String,
    /// Ed25519 public keys that it will trust, 64 hexadecimal digits each, 1 to 4.
    pub trust: Vec<String>,
    /// Gateways that it will dial, HOST:PORT, 1 to 4.
    pub gateways: Vec<String>,
}

/// A device that was added: the only answer that carries a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceAdded {
    /// The device.
    pub device: DeviceDoc,
    /// The device key, 64 hexadecimal digits. It is shown once.
    pub key: String,
    /// Public keys that it trusts.
    pub trust: Vec<String>,
    /// The TrustSet's epoch.
    pub trust_epoch: u32,
    /// Signatures that a manifest needs.
    pub trust_threshold: u8,
    /// Gateways that it dials.
    pub gateways: Vec<String>,
    /// SHA-256 of the key that it knows this gateway by over QUIC, 64 hexadecimal digits each.
    #[serde(default)]
    pub pins: Vec<String>,
}

/// A signed list of gateways.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GatewaysToSet {
    /// The statement (spec/protocol.md section 7), in hexadecimal digits.
    pub statement: String,
}

/// The epoch to count from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct GatewaysEpoch {
    /// The highest epoch that the device has or is about to have: sign a higher one.
    pub(crate) epoch: u32,
}

impl Admin {
    /// The device's document with presence and what it waits for.
    pub(crate) async fn dress_device(&self, mut doc: DeviceDoc) -> Result<DeviceDoc, StoreError> {
        let presence = self.live.presence(&doc.device);
        let open = match doc.update.as_deref().and_then(UpdateId::from_hex) {
            Some(update) => self.store.update_doc(update).await.ok(),
            None => None,
        };
        let hold = Hold {
            all: self.store.held(),
            device: doc.hold,
        };
        doc.waiting_for = waiting::device(&doc, open.as_ref(), &presence, hold);
        doc.online = presence.online;
        doc.presence = if presence.state.is_empty() {
            "offline"
        } else {
            presence.state
        }
        .into();
        if presence.online {
            doc.last_contact = presence.heard.or(doc.last_contact);
            doc.transport = presence.transport.map(Into::into).or(doc.transport);
            doc.peer = presence.peer.or(doc.peer);
            doc.quic = presence.quic;
            doc.network = presence.network.or(doc.network);
        }
        Ok(doc)
    }

    async fn device(&self, id: &str) -> Result<Json<DeviceDoc>, ApiError> {
        Ok(Json(
            self.dress_device(self.store.device_doc(id).await?).await?,
        ))
    }
}

/// The devices, by id.
#[utoipa::path(get, path = "/v1/devices", params(Paging), responses((status = 200, body = Page<DeviceDoc>)))]
pub(super) async fn list(
    State(admin): Api,
    Args(paging): Args<Paging>,
) -> Result<Json<Page<DeviceDoc>>, ApiError> {
    let (docs, next) = admin
        .store
        .device_docs(paging.after.clone(), paging.limit())
        .await?;
    let mut items = Vec::with_capacity(docs.len());
    for doc in docs {
        items.push(admin.dress_device(doc).await?);
    }
    Ok(Json(Page { items, next }))
}

/// Adds a device and makes its key.
#[utoipa::path(post, path = "/v1/devices", request_body = DeviceToAdd,
    responses((status = 201, body = DeviceAdded), (status = 400, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn add(
    State(admin): Api,
    Body(new): Body<DeviceToAdd>,
) -> Result<(StatusCode, Json<DeviceAdded>), ApiError> {
    let trust_keys = new
        .trust
        .iter()
        .map(|text| key(text))
        .collect::<Result<_, _>>()?;
    let new = NewDevice {
        id: new.device,
        product: new.product,
        trust_keys,
        gateways: new.gateways,
    };
    let made = admin.store.add_device(new).await?;
    let Json(device) = admin.device(&made.device.id).await?;
    let added = DeviceAdded {
        device,
        key: hex(&*made.key),
        trust: made.device.trust_keys,
        trust_epoch: made.device.trust_epoch,
        trust_threshold: made.device.trust_threshold,
        gateways: made.device.gateways,
        pins: vec![admin.store.quic_pin()],
    };
    Ok((StatusCode::CREATED, Json(added)))
}

fn key(text: &str) -> Result<[u8; 32], ApiError> {
    let mut key = [0; 32];
    if decode_hex(text, &mut key) {
        return Ok(key);
    }
    Err(ApiError::bad(
        "bad_trust",
        "a public key is 64 hexadecimal digits",
    ))
}

/// One device.
#[utoipa::path(get, path = "/v1/devices/{id}", responses((status = 200, body = DeviceDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn show(State(admin): Api, Name(id): Name) -> Result<Json<DeviceDoc>, ApiError> {
    admin.device(&id).await
}

/// Removes a device with its key and ends its session; its open update ends, too.
#[utoipa::path(delete, path = "/v1/devices/{id}", responses((status = 204), (status = 404, body = ErrorDoc)))]
pub(super) async fn remove(State(admin): Api, Name(id): Name) -> Result<StatusCode, ApiError> {
    admin.store.remove_device(&id).await?;
    admin.live.close(&id, CloseCode::REMOVED);
    Ok(StatusCode::NO_CONTENT)
}

/// The device's last events, oldest first.
#[utoipa::path(get, path = "/v1/devices/{id}/log", params(Paging), responses((status = 200, body = Page<EventDoc>), (status = 404, body = ErrorDoc)))]
pub(super) async fn log(
    State(admin): Api,
    Name(id): Name,
    Args(paging): Args<Paging>,
) -> Result<Json<Page<EventDoc>>, ApiError> {
    let items = admin.store.device_log(&id, paging.limit()).await?;
    Ok(Json(Page { items, next: None }))
}

/// Gives the device a new key, in band. A rotation that is under way goes on.
#[utoipa::path(post, path = "/v1/devices/{id}/rotate-key", responses((status = 200, body = DeviceDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn rotate_key(
    State(admin): Api,
    Name(id): Name,
) -> Result<Json<DeviceDoc>, ApiError> {
    admin.store.rotate_key(&id).await?;
    admin.device(&id).await
}

/// The epoch above which a new list of gateways must be signed.
#[utoipa::path(get, path = "/v1/devices/{id}/gateways", responses((status = 200, body = GatewaysEpoch), (status = 404, body = ErrorDoc)))]
pub(super) async fn gateways_epoch(
    State(admin): Api,
    Name(id): Name,
) -> Result<Json<GatewaysEpoch>, ApiError> {
    Ok(Json(GatewaysEpoch {
        epoch: admin.store.gateways_epoch(&id).await?,
    }))
}

/// Gives the device a new list of gateways, in band.
#[utoipa::path(put, path = "/v1/devices/{id}/gateways", request_body = GatewaysToSet,
    responses((status = 200, body = DeviceDoc), (status = 400, body = ErrorDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn set_gateways(
    State(admin): Api,
    Name(id): Name,
    Body(new): Body<GatewaysToSet>,
) -> Result<Json<DeviceDoc>, ApiError> {
    let mut statement = vec![0; new.statement.len() / 2];
    if !decode_hex(&new.statement, &mut statement) {
        return Err(ApiError::bad(
            "bad_statement",
            "a statement is hexadecimal digits",
        ));
    }
    admin.store.set_gateways(&id, statement).await?;
    admin.device(&id).await
}

/// Holds one device: nothing is offered to it, sent or activated.
#[utoipa::path(post, path = "/v1/devices/{id}/hold", responses((status = 200, body = DeviceDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn hold(State(admin): Api, Name(id): Name) -> Result<Json<DeviceDoc>, ApiError> {
    admin.store.set_device_hold(&id, true).await?;
    admin.device(&id).await
}

/// Releases one device.
#[utoipa::path(post, path = "/v1/devices/{id}/release", responses((status = 200, body = DeviceDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn release(
    State(admin): Api,
    Name(id): Name,
) -> Result<Json<DeviceDoc>, ApiError> {
    admin.store.set_device_hold(&id, false).await?;
    admin.device(&id).await
}
