//! /v1/devices/{id}/logs: the end of a board's own log, asked for through its open session.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dialhome_proto::device::TASK_LOG;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, Args, ErrorDoc, Name};
use super::{Admin, Api};
use crate::session::{Inquiry, NotAsked};

/// Lines of a request that names no number.
const LINES: u16 = 50;
/// Most lines of a request.
const LINES_MAX: u16 = 1000;

/// The end of a board's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsDoc {
    /// The device.
    pub device: String,
    /// When it was asked.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The newest lines, oldest first: of the agent, and of the commands that it ran. 6,144 bytes at most.
    pub lines: Vec<String>,
    /// Every part came; otherwise a line names each part that did not.
    pub whole: bool,
    /// Why the session ended before the last part came; null where it did not.
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HowMany {
    /// Newest lines to show, 1 to 1000 (50 where it is not given); fewer where they are more than 6,144 bytes.
    lines: Option<u16>,
}

impl Admin {
    /// Begins to ask a board, or says in words why that cannot be.
    pub(super) async fn ask(
        &self,
        id: &str,
        what: &str,
        begin: impl FnOnce() -> Result<Inquiry, NotAsked>,
    ) -> Result<Inquiry, ApiError> {
        let doc = self.store.device_doc(id).await?;
        begin().map_err(|fault| match fault {
            NotAsked::Asked => ApiError::new(
                StatusCode::CONFLICT,
                "asked_already",
                format!("a {what} of device {id} is under way"),
            )
            .hint("Repeat the command when it has ended: it takes a minute at most."),
            NotAsked::NotOnline => {
                let presence = self.live.presence(id);
                let state = match presence.back_in {
                    Some(back_in) => {
                        format!("device {id} is asleep, and back in about {} s", back_in.as_secs())
                    }
                    None => format!("device {id} is offline"),
                };
                let known = match (doc.last_disconnect, doc.last_contact) {
                    (Some(last), _) => {
                        format!("its last session ended at {} ({})", last.at, last.reason)
                    }
                    (None, Some(contact)) => format!("its last contact was at {contact}"),
                    (None, None) => "it has never dialed home".to_owned(),
                };
                ApiError::new(
                    StatusCode::CONFLICT,
                    "not_online",
                    format!("{state}: {known}"),
                )
                .hint("Only the board can open a connection: repeat the command when it has dialed home.")
            }
        })
    }
}

/// Asks the board for the end of its log. It takes 30 s at most; nothing of it is stored.
#[utoipa::path(post, path = "/v1/devices/{id}/logs", params(HowMany),
    responses((status = 200, body = LogsDoc), (status = 400, body = ErrorDoc), (status = 404, body = ErrorDoc),
        (status = 409, body = ErrorDoc), (status = 504, body = ErrorDoc)))]
pub(super) async fn logs(
    State(admin): Api,
    Name(id): Name,
    Args(how): Args<HowMany>,
) -> Result<Json<LogsDoc>, ApiError> {
    let lines = how.lines.unwrap_or(LINES);
    if !(1..=LINES_MAX).contains(&lines) {
        return Err(ApiError::bad(
            "bad_lines",
            format!("1 to {LINES_MAX} lines can be asked for"),
        ));
    }
    let inquiry = admin
        .ask(&id, "request for the log", || admin.live.read_log(&id))
        .await?;
    let state = admin.store.device_state(&id).await?.unwrap_or_default();
    let tasks = state.hello.map_or(0, |hello| hello.tasks);
    if tasks & TASK_LOG == 0 {
        return Err(not_allowed(&id));
    }
    let at = crate::store::now();
    let logged = inquiry.read_log(lines).await;
    if logged.unsupported {
        return Err(not_allowed(&id));
    }
    if logged.text.is_empty() && !logged.whole {
        let why = match logged.ended {
            Some(reason) => format!("its session ended ({reason})"),
            None => "nothing came in time".to_owned(),
        };
        return Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no_answer",
            format!("device {id} did not answer: {why}"),
        )
        .hint(format!(
            "`dialhome device check {id}` says how the way to it is."
        )));
    }
    Ok(Json(LogsDoc {
        at,
        lines: logged.text.lines().map(str::to_owned).collect(),
        whole: logged.whole,
        ended: logged.ended,
        device: id,
    }))
}

fn not_allowed(id: &str) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "log_not_allowed",
        format!("device {id} does not give its log away: its client keeps none, or its configuration does not allow it"),
    )
    .hint("The Linux agent allows it unless its configuration says `agent.remote_log = false`.")
}
