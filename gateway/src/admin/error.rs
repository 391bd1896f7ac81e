//! Errors of the API: one shape, `{"error":{"code","message","hint"}}`, and input that is refused in that shape.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::StoreError;

/// What every failed request is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDoc {
    /// The error.
    pub error: ErrorBody,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Its name for scripts, in `snake_case`.
    pub code: String,
    /// One sentence that says what was wrong.
    pub message: String,
    /// One sentence that says what to do.
    pub hint: Option<String>,
}

/// A request's failure.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody {
                code: code.into(),
                message: message.into(),
                hint: None,
            },
        }
    }

    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
            StoreError::Conflict { .. } | StoreError::Fenced { .. } | StoreError::Ended { .. } => {
                StatusCode::CONFLICT
            }
            StoreError::Invalid { .. } | StoreError::NewerVersion { .. } => StatusCode::BAD_REQUEST,
            StoreError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Locked { .. } | StoreError::InUse { .. } | StoreError::Stopped => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            StoreError::Corrupt { .. }
            | StoreError::WrongSecret { .. }
            | StoreError::Io { .. }
            | StoreError::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = error.hint();
        let failed = Self::new(status, error.code(), error.to_string());
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorDoc { error: self.body })).into_response()
    }
}

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let input: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        input
            .map(|Json(body)| Self(body))
            .map_err(|refused| ApiError::new(refused.status(), "bad_request", refused.body_text()))
    }
}

/// The query's parameters.
pub(crate) struct Args<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Args<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let input: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        input
            .map(|Query(args)| Self(args))
            .map_err(|refused| ApiError::new(refused.status(), "bad_request", refused.body_text()))
    }
}

/// The name in the path.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let input: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        input
            .map(|Path(name)| Self(name))
            .map_err(|refused| ApiError::new(refused.status(), "bad_request", refused.body_text()))
    }
}
