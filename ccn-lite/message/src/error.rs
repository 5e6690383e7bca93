//! Why a message is refused, in the network's own numbering.

use serde_json::{Value, json};

use crate::FieldError;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)+) => {
        /// Rejection codes shared by every node of the network.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum ErrorCode { $($(#[$doc])* $variant = $code),+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code with this number.
            pub const fn from_i32(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The name in capitals, e.g. `INVALID_FORMAT`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

error_codes! {
    /// Unexpected failure inside the node; worth retrying.
    InternalError = -1, "INTERNAL_ERROR";
    /// Envelope or content does not follow its schema.
    InvalidFormat = 0, "INVALID_FORMAT";
    /// Missing or wrong signature.
    InvalidSignature = 1, "INVALID_SIGNATURE";
    /// The sender may not act for the content's address.
    PermissionDenied = 2, "PERMISSION_DENIED";
    /// The content of a non-inline message was not found.
    ContentUnavailable = 3, "CONTENT_UNAVAILABLE";
    /// The file of a STORE was not found.
    FileUnavailable = 4, "FILE_UNAVAILABLE";
    /// Not enough tokens held.
    BalanceInsufficient = 5, "BALANCE_INSUFFICIENT";
    /// Not enough credits.
    CreditInsufficient = 6, "CREDIT_INSUFFICIENT";
    /// An amend without `ref`.
    PostAmendNoTarget = 100, "POST_AMEND_NO_TARGET";
    /// The post to amend is unknown.
    PostAmendTargetNotFound = 101, "POST_AMEND_TARGET_NOT_FOUND";
    /// An amend cannot be amended.
    PostAmendAmend = 102, "POST_AMEND_AMEND";
    /// `ref` of a STORE names no file.
    StoreRefNotFound = 200, "STORE_REF_NOT_FOUND";
    /// `ref` of a STORE names a STORE that has a `ref`.
    StoreUpdateUpdate = 201, "STORE_UPDATE_UPDATE";
    /// The payment method is no longer accepted.
    InvalidPaymentMethod = 202, "INVALID_PAYMENT_METHOD";
    /// `replaces` names no program.
    VmRefNotFound = 300, "VM_REF_NOT_FOUND";
    /// A volume, code, runtime or root file system is unknown.
    VmVolumeNotFound = 301, "VM_VOLUME_NOT_FOUND";
    /// The replaced program forbids amends.
    VmAmendNotAllowed = 302, "VM_AMEND_NOT_ALLOWED";
    /// The replaced program is itself a replacement.
    VmUpdateUpdate = 303, "VM_UPDATE_UPDATE";
    /// A volume is smaller than its parent.
    VmVolumeTooSmall = 304, "VM_VOLUME_TOO_SMALL";
    /// A FORGET names nothing.
    ForgetNoTarget = 500, "FORGET_NO_TARGET";
    /// A FORGET names an unknown message.
    ForgetTargetNotFound = 501, "FORGET_TARGET_NOT_FOUND";
    /// A FORGET cannot be forgotten.
    ForgetForget = 502, "FORGET_FORGET";
    /// The target is used by a virtual machine.
    ForgetNotAllowed = 503, "FORGET_NOT_ALLOWED";
    /// The message was forgotten before.
    ForgottenDuplicate = 504, "FORGOTTEN_DUPLICATE";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn as_i32(self) -> i32 {
        self as i32
    }

    /// Whether the cause may go away by itself, so that the message is tried again.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::InternalError
                | Self::ContentUnavailable
                | Self::FileUnavailable
                | Self::PostAmendTargetNotFound
                | Self::StoreRefNotFound
                | Self::VmRefNotFound
                | Self::VmVolumeNotFound
                | Self::ForgetTargetNotFound
        )
    }
}

/// The refusal of a message: the code and the JSON details that are stored and served with it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {}", code.name(), self.reason())]
pub struct Rejection {
    /// The code.
    pub code: ErrorCode,
    /// `{"errors": [...]}` or null.
    pub details: Value,
}

impl Rejection {
    /// A refusal with one line of explanation.
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            details: json!({ "errors": [reason.into()] }),
        }
    }

    /// A refusal with prepared details.
    pub fn with_details(code: ErrorCode, details: Value) -> Self {
        Self { code, details }
    }

    /// `INVALID_FORMAT` with one line of explanation.
    pub fn invalid_format(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidFormat, reason)
    }

    /// `INVALID_SIGNATURE` with one line of explanation.
    pub fn invalid_signature(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidSignature, reason)
    }

    /// The explanation as one line of text.
    pub fn reason(&self) -> String {
        let Some(errors) = self.details.get("errors").and_then(Value::as_array) else {
            return "no details".to_owned();
        };
        let lines: Vec<String> = errors
            .iter()
            .map(|error| match error {
                Value::String(line) => line.clone(),
                Value::Object(fields) if fields.contains_key("msg") => {
                    let loc: Vec<String> = fields
                        .get("loc")
                        .and_then(Value::as_array)
                        .map(|loc| {
                            loc.iter()
                                .map(|part| part.as_str().unwrap_or_default().to_owned())
                                .collect()
                        })
                        .unwrap_or_default();
                    format!(
                        "{}: {}",
                        loc.join("."),
                        fields["msg"].as_str().unwrap_or_default()
                    )
                }
                other => other.to_string(),
            })
            .collect();
        lines.join("; ")
    }
}

impl From<FieldError> for Rejection {
    fn from(error: FieldError) -> Self {
        Self {
            code: ErrorCode::InvalidFormat,
            details: json!({ "errors": [{ "loc": error.loc, "msg": error.msg }] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_i32(code.as_i32()), Some(*code));
        }
        assert_eq!(ErrorCode::from_i32(400), None);
    }
}
