//! Errors as HTTP answers.

use aleph_message::Rejection;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::files::UploadError;
use crate::files::archive::ArchiveError;
use crate::files::car::CarError;
use crate::limits::Limited;
use crate::pipeline::SubmitError;
use crate::store::StoreError;

/// A refused or failed request: status and plain text, or the network's code and details as JSON.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {text}")]
pub struct ApiError {
    status: StatusCode,
    text: String,
    body: Option<Value>,
}

impl ApiError {
    /// An answer with a status of choice.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            body: None,
        }
    }

    /// 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 422.
    pub fn unprocessable(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, text)
    }

    /// 507: what was sent is not kept, what is here can be read.
    fn full() -> Self {
        tracing::error!("the disk is full");
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "The node's disk is full, nothing new is taken",
        )
    }

    /// 500; the cause goes to the log, not to the client.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(error = chain, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        let status = match limited {
            Limited::Messages { .. } | Limited::Bytes { .. } => StatusCode::TOO_MANY_REQUESTS,
            Limited::Disk { .. } => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, limited.to_string())
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            text: rejection.to_string(),
            body: Some(json!({
                "error_code": rejection.code.as_i32(),
                "error": rejection.code.name(),
                "details": rejection.details,
            })),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(rejection) => rejection.into(),
            SubmitError::Limited(limited) => limited.into(),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<ArchiveError> for ApiError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Io(error) | ArchiveError::Car(CarError::Io(error)) => error.into(),
            ArchiveError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            error => Self::unprocessable(error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let is_full = match &error {
            StoreError::DiskFull => true,
            StoreError::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        };
        if is_full {
            Self::full()
        } else {
            Self::internal(&error)
        }
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::full(),
            _ => Self::internal(&error),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            UploadError::Io(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self.body {
            Some(body) => (self.status, Json(body)).into_response(),
            None => (self.status, self.text).into_response(),
        }
    }
}
