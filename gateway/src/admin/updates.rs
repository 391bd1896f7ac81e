//! /v1/updates

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dialhome_proto::id::UpdateId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, Args, Body, ErrorDoc, Name};
use super::waiting::{self, Hold};
use super::{Admin, Api, Page};
use crate::store::docs::UpdateDoc;
use crate::store::{Push, StoreError};

/// Deadline of a push that names none, in seconds (7 days).
const DEADLINE_S: u64 = 7 * 24 * 3600;

/// A push.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct UpdateToCreate {
    /// The device.
    pub device: String,
    /// The image, `P[/component]@V`; of several components `P/1,0@2.0,1.4`.
    pub image: String,
    /// Seconds until the deadline (7 days where it is null).
    #[serde(default)]
    pub deadline_s: Option<u64>,
    /// Takes the place of another update that is open.
    #[serde(default)]
    pub replace: bool,
    /// An older counter, above the floor, is meant.
    #[serde(default)]
    pub downgrade: bool,
    /// Payload bytes that may be sent before it pauses (three times the size where it is null).
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

/// The update of a push.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PushDoc {
    /// The update.
    #[serde(flatten)]
    pub update: UpdateDoc,
    /// The same push was open already: this is that one.
    pub joined: bool,
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Updates of this device only.
    device: Option<String>,
    /// Updates only that have not ended.
    #[serde(default)]
    open: bool,
    /// The `next` of the page before.
    after: Option<String>,
    /// Items in a page, 1 to 1000 (100 where it is not given).
    limit: Option<u32>,
}

impl Admin {
    /// The update's document with what it waits for.
    pub(crate) async fn dress_update(&self, mut doc: UpdateDoc) -> Result<UpdateDoc, StoreError> {
        let presence = self.live.presence(&doc.device);
        let held = self.store.work(&doc.device).held;
        let all = self.store.held();
        doc.warning = waiting::risks(&doc);
        doc.waiting_for = waiting::update(
            &doc,
            &presence,
            Hold {
                all,
                device: held && !all,
            },
        );
        Ok(doc)
    }
}

fn id(text: &str) -> Result<UpdateId, ApiError> {
    UpdateId::from_hex(text).ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("\"{text}\" is no update: an id has 16 hexadecimal digits"),
        )
    })
}

/// Updates, newest first.
#[utoipa::path(get, path = "/v1/updates", params(Which), responses((status = 200, body = Page<UpdateDoc>)))]
pub(super) async fn list(
    State(admin): Api,
    Args(which): Args<Which>,
) -> Result<Json<Page<UpdateDoc>>, ApiError> {
    let limit = which.limit.unwrap_or(100);
    let (docs, next) = admin
        .store
        .update_docs(which.device, which.open, which.after, limit)
        .await?;
    let mut items = Vec::with_capacity(docs.len());
    for doc in docs {
        items.push(admin.dress_update(doc).await?);
    }
    Ok(Json(Page { items, next }))
}

/// Pushes an image to a device. 201: a new update; 200: the same push was open already, and this is it.
#[utoipa::path(post, path = "/v1/updates", request_body = UpdateToCreate,
    responses((status = 201, body = PushDoc), (status = 200, body = PushDoc), (status = 404, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn create(
    State(admin): Api,
    Body(new): Body<UpdateToCreate>,
) -> Result<(StatusCode, Json<PushDoc>), ApiError> {
    let push = Push {
        device: new.device,
        image: new.image,
        deadline_s: new.deadline_s.unwrap_or(DEADLINE_S),
        replace: new.replace,
        downgrade: new.downgrade,
        max_bytes: new.max_bytes,
    };
    let created = admin.store.push(push).await?;
    let update = admin.dress_update(created.update).await?;
    let status = if created.joined {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        Json(PushDoc {
            update,
            joined: created.joined,
        }),
    ))
}

/// One update.
#[utoipa::path(get, path = "/v1/updates/{id}", responses((status = 200, body = UpdateDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn show(
    State(admin): Api,
    Name(update): Name,
) -> Result<Json<UpdateDoc>, ApiError> {
    let doc = admin.store.update_doc(id(&update)?).await?;
    Ok(Json(admin.dress_update(doc).await?))
}

/// Cancels an update. What the board never heard of ends at once; otherwise the board decides which came first.
#[utoipa::path(post, path = "/v1/updates/{id}/cancel",
    responses((status = 200, body = UpdateDoc), (status = 404, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn cancel(
    State(admin): Api,
    Name(update): Name,
) -> Result<Json<UpdateDoc>, ApiError> {
    let doc = admin.store.cancel_update(id(&update)?).await?;
    Ok(Json(admin.dress_update(doc).await?))
}

/// Ends an update in the record, without the board's word.
#[utoipa::path(post, path = "/v1/updates/{id}/abandon",
    responses((status = 200, body = UpdateDoc), (status = 404, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn abandon(
    State(admin): Api,
    Name(update): Name,
) -> Result<Json<UpdateDoc>, ApiError> {
    let doc = admin.store.abandon_update(id(&update)?).await?;
    Ok(Json(admin.dress_update(doc).await?))
}
