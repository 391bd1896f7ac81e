//! /v1/events: a page of stored events, or all of them from a number on, and then live.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Args, ErrorDoc};
use crate::store::docs::EventDoc;
use crate::store::{Store, StoreError};

/// Events on their way to one listener: beyond it the listener reads from the database.
const QUEUE: usize = 64;
/// Stored events that are read at once.
const PAGE: u32 = 500;
/// A comment is sent so often where nothing happens, so that a dead listener is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Events above this number; the last ones where it is not given.
    since: Option<u64>,
    /// Go on with live events, as server-sent events.
    #[serde(default)]
    follow: bool,
    /// Events of this device only (while following).
    device: Option<String>,
    /// Events of this update only (while following).
    update: Option<String>,
    /// Events in a page, 1 to 1000 (100 where it is not given).
    limit: Option<u32>,
}

/// Stored events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct EventPage {
    /// The events, oldest first.
    pub(crate) items: Vec<EventDoc>,
    /// Give it as `since` to go on; null at the end.
    pub(crate) next: Option<String>,
    /// Events below this number were asked for and are not kept any more; null where none is missing.
    pub(crate) missed_before: Option<u64>,
}

/// Events: a page of them, or with `follow=true` a stream of server-sent events, `id` being the number.
/// Beside events the stream has `lagged` (the listener was slow; it is brought up to date from the store, live
/// progress between is gone) and `missed` (events asked for are not kept any more). `Last-Event-ID` works as `since`.
#[utoipa::path(get, path = "/v1/events", params(Wanted), responses((status = 200, body = EventPage), (status = 500, body = ErrorDoc)))]
pub(super) async fn events(
    State(admin): Api,
    headers: HeaderMap,
    Args(wanted): Args<Wanted>,
) -> Result<Response, ApiError> {
    if !wanted.follow {
        let log = admin
            .store
            .events(wanted.since, wanted.limit.unwrap_or(100))
            .await?;
        let next = log
            .events
            .last()
            .filter(|_| log.more)
            .map(|event| event.seq.to_string());
        return Ok(Json(EventPage {
            items: log.events,
            next,
            missed_before: log.missed_before,
        })
        .into_response());
    }
    let resumed = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let since = wanted.since.or(resumed);
    // Before the database is read: what is stored from here on arrives one way or the other.
    let live = admin.store.subscribe_events();
    let last = since.unwrap_or_else(|| admin.store.last_seq());
    let (send, receive) = mpsc::channel(QUEUE);
    let listener = Listener {
        store: admin.store,
        device: wanted.device,
        update: wanted.update,
        last,
        send,
    };
    tokio::spawn(async move {
        // Ends when the listener goes.
        let _ = listener.run(live).await;
    });
    Ok(Sse::new(ReceiverStream::new(receive))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

struct Listener {
    store: Store,
    device: Option<String>,
    update: Option<String>,
    /// The number of the last stored event that was sent, or left out.
    last: u64,
    send: mpsc::Sender<Result<Event, Infallible>>,
}

/// The listener has gone, or the store has.
struct Gone;

impl From<StoreError> for Gone {
    fn from(_: StoreError) -> Self {
        Self
    }
}

impl Listener {
    async fn run(mut self, mut live: broadcast::Receiver<Arc<EventDoc>>) -> Result<(), Gone> {
        self.catch_up().await?;
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                () = self.send.closed() => return Ok(()),
            };
            match event {
                Ok(event) if event.kind == "update.progress" => self.offer(&event).await?,
                // A gap: the database has it.
                Ok(event) if event.seq > self.last + 1 => self.catch_up().await?,
                Ok(event) if event.seq > self.last => {
                    self.last = event.seq;
                    self.offer(&event).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    self.put(Event::default().event("lagged").data(count.to_string()))
                        .await?;
                    self.catch_up().await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Gone> {
        loop {
            let log = self.store.events(Some(self.last), PAGE).await?;
            if let Some(oldest) = log.missed_before {
                self.put(Event::default().event("missed").data(oldest.to_string()))
                    .await?;
            }
            for event in &log.events {
                self.last = event.seq;
                self.offer(event).await?;
            }
            if !log.more {
                return Ok(());
            }
        }
    }

    /// Sends an event that is wanted.
    async fn offer(&self, event: &EventDoc) -> Result<(), Gone> {
        let wanted = |want: &Option<String>, have: &Option<String>| want.is_none() || want == have;
        if !wanted(&self.device, &event.device) || !wanted(&self.update, &event.update) {
            return Ok(());
        }
        let data = serde_json::to_string(event).map_err(|_| Gone)?;
        self.put(
            Event::default()
                .id(event.seq.to_string())
                .event(&event.kind)
                .data(data),
        )
        .await
    }

    async fn put(&self, event: Event) -> Result<(), Gone> {
        self.send.send(Ok(event)).await.map_err(|_| Gone)
    }
}
