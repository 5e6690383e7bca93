//! Signatures that are the text of a JSON object.

use serde_json::Value;

use super::{Flaw, SignatureError};

/// The object in the text of a signature.
pub(super) fn object(signature: &str) -> Result<Value, SignatureError> {
    serde_json::from_str(signature)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| SignatureError::malformed("signature", Flaw::NotAnObject))
}

/// The text at `pointer` (RFC 6901); `field` is the same path as errors spell it.
pub(super) fn text<'a>(
    object: &'a Value,
    pointer: &str,
    field: &'static str,
) -> Result<&'a str, SignatureError> {
    optional_text(object, pointer, field)?
        .ok_or_else(|| SignatureError::malformed(field, Flaw::NotText))
}

/// The same of a member that may be absent.
pub(super) fn optional_text<'a>(
    object: &'a Value,
    pointer: &str,
    field: &'static str,
) -> Result<Option<&'a str>, SignatureError> {
    match object.pointer(pointer) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(SignatureError::malformed(field, Flaw::NotText)),
    }
}
