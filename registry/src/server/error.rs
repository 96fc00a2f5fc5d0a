//! Errors and JSON at the HTTP edge, for every group of routes.

use aotfarm_protocol::{ApiError, ErrorCode};
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A handler's error: anything that becomes an [`ApiError`], answered as its JSON with the status of its code.
#[derive(Debug)]
pub struct Failure {
    /// What is told to the client.
    pub error: ApiError,
    /// The status, if it is not that of the code.
    pub status: Option<StatusCode>,
}

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), status: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status.unwrap_or_else(|| status_of(self.error.code));
        if status.is_server_error() {
            tracing::error!(error.code = ?self.error.code, error.message = self.error.message, "request failed");
        }
        (status, axum::Json(self.error)).into_response()
    }
}

/// The HTTP status that goes with a code.
pub const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::LeaseLost => StatusCode::GONE,
        ErrorCode::NoCapableWorker | ErrorCode::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Storage => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Damaged | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// JSON in and out, whose rejections are [`ApiError`]s like all other errors.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(rejected(&rejection)),
        }
    }
}

fn rejected(rejection: &JsonRejection) -> Failure {
    Failure { error: ApiError::new(ErrorCode::BadRequest, rejection.body_text()), status: Some(rejection.status()) }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// What is answered where there is no route.
pub async fn no_route(uri: axum::http::Uri) -> Failure {
    ApiError::new(ErrorCode::NotFound, format!("there is no `{}` in this API", uri.path())).into()
}
