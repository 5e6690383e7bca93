//! Errors as HTTP answers.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::files::UploadError;
use crate::limits::Limited;
use crate::store::StoreError;

/// A refused or failed request: status and plain text.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {text}")]
pub struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    /// An answer with a status of choice.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
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

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
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
        (self.status, self.text).into_response()
    }
}
