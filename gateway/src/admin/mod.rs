//! The admin API: HTTP/1.1 and JSON on a Unix socket, described by `GET /v1/openapi.json`.
//!
//! The command line and the console use it and nothing else. Whoever may open the socket may do everything:
//! its mode and the directory that it lies in are the access control.

mod archive;
mod check;
mod devices;
mod error;
mod events;
mod images;
mod live;
mod logs;
mod metrics;
mod serve;
mod socket;
mod status;
mod updates;
mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use check::CheckDoc;
pub use devices::{DeviceAdded, DeviceToAdd, GatewaysToSet};
pub use error::{ErrorBody, ErrorDoc};
pub(crate) use events::EventPage;
pub use images::{ImageAdded, ImageDoc, ImageEntryDoc};
pub use live::{Live, LiveCounts, NoSessions, Presence, QuicCounts, RefusedFor, TurnCounts};
pub use logs::LogsDoc;
pub use serve::serve;
pub(crate) use socket::check_length;
pub use socket::{AdminSocket, SOCKET_PATH_MAX, SocketError};
pub use status::StatusDoc;
pub(crate) use status::open_files;
pub use updates::{PushDoc, UpdateToCreate};
pub(crate) use waiting::{place as waits_for_place, risk, unreadable, unreadable_images};

use crate::image::store::ImageStore;
use crate::store::Store;
use error::ApiError;

/// Largest JSON body, in bytes. Images and backups are streamed and have limits of their own.
const BODY_MAX: usize = 64 * 1024;

/// What the API works on.
#[derive(Clone)]
pub struct Admin {
    /// The store.
    pub store: Store,
    /// The image files.
    pub images: Arc<ImageStore>,
    /// The sessions.
    pub live: Arc<dyn Live>,
    /// Where boards dial.
    pub listen: Option<SocketAddr>,
    /// Where they dial over QUIC, where they can.
    pub quic: Option<SocketAddr>,
    /// When the gateway started.
    pub started: Timestamp,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give it as `after` to go on; null at the end.
    pub next: Option<String>,
}

/// Where a list goes on, and how much of it is wanted.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The `next` of the page before.
    after: Option<String>,
    /// Items in a page, 1 to 1000 (100 where it is not given).
    limit: Option<u32>,
}

impl Paging {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100)
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Dialhome admin API",
    description = "HTTP/1.1 and JSON on the gateway's Unix socket. Fields may be added, none is renamed. \
        Times are RFC 3339 in UTC, absent is null, lists are {items, next}, errors are {error: {code, message, hint}}. \
        An update whose push deadline has passed ends as `canceled` if the board never heard of it; otherwise its state \
        is shown as `overdue`, `reason` names the deadline and `detail` begins with the state below it, which goes on. \
        What a board states after an update has ended is added to `detail`. `update.progress` events are live only: \
        they carry the number of the last stored event, and `to` holds the committed bytes.",
))]
struct Described;

/// The API, and its description.
pub fn router(admin: Admin) -> Router {
    let (router, openapi) = OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(devices::list, devices::add))
        .routes(routes!(devices::show, devices::remove))
        .routes(routes!(devices::log))
        .routes(routes!(devices::rotate_key))
        .routes(routes!(devices::gateways_epoch, devices::set_gateways))
        .routes(routes!(check::check))
        .routes(routes!(logs::logs))
        .routes(routes!(devices::hold))
        .routes(routes!(devices::release))
        .routes(routes!(images::list, images::add))
        .routes(routes!(images::show, images::remove))
        .routes(routes!(updates::list, updates::create))
        .routes(routes!(updates::show))
        .routes(routes!(updates::cancel))
        .routes(routes!(updates::abandon))
        .routes(routes!(status::status))
        .routes(routes!(status::hold))
        .routes(routes!(status::release))
        .routes(routes!(events::events))
        .routes(routes!(archive::backup))
        .routes(routes!(archive::restore))
        .routes(routes!(metrics::metrics))
        .split_for_parts();
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(move || async move { axum::Json(openapi) }),
        )
        .fallback(|| async {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "no_such_path",
                "the API has no such path",
            )
            .hint("GET /v1/openapi.json lists them.")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong_method",
                "this path does not take that method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(admin)
}

/// The state that handlers take.
type Api = State<Admin>;
