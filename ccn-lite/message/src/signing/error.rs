//! Why a signature is not accepted, and at which field.

use crate::{ErrorCode, Rejection};

/// A message whose signature does not prove its sender. `field` is the path of the envelope's field: `sender`,
/// `signature`, or a member of a signature that is JSON, like `signature.publicKey`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No message of this chain can be checked, whatever its signature.
    #[error("Unknown chain for validation")]
    UnknownChain,
    /// The signature is absent, null or empty.
    #[error("Missing signature")]
    Missing,
    /// A field is not in the form of the chain.
    #[error("{field}: {flaw}")]
    Malformed {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The key in the signature, or the one recovered from it, is another address's.
    #[error("sender: the signing key is of {signer}")]
    OtherSigner {
        /// The address of the key, spelled as its chain does.
        signer: String,
    },
    /// The sender's key did not sign this message.
    #[error("{field}: not a signature of the sender over this message")]
    Forged {
        /// Which field.
        field: &'static str,
    },
}

/// What is wrong with the form of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Longer than any signature is.
    #[error("longer than {max} bytes")]
    TooLong {
        /// Bytes of text allowed.
        max: usize,
    },
    /// Not the text of a JSON object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member that is absent or not text.
    #[error("missing, or not text")]
    NotText,
    /// Not in this encoding.
    #[error("not {0}")]
    Encoding(&'static str),
    /// Another number of bytes, once decoded.
    #[error("not {expected} bytes")]
    Length {
        /// Bytes needed.
        expected: usize,
    },
    /// The checksum inside of the field does not fit the rest of it.
    #[error("wrong checksum")]
    Checksum,
    /// A kind, version or network that is not known here.
    #[error("not {expected}")]
    Unsupported {
        /// What is known.
        expected: &'static str,
    },
    /// No number that tells apart the keys a signature may be from.
    #[error("unknown recovery byte {0}")]
    RecoveryByte(u8),
    /// Bytes that are no key or no signature on this curve.
    #[error("not valid on {0}")]
    Curve(&'static str),
}

impl SignatureError {
    pub(super) fn malformed(field: &'static str, flaw: Flaw) -> Self {
        Self::Malformed { field, flaw }
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Self {
        let code = match error {
            SignatureError::UnknownChain => ErrorCode::InvalidFormat,
            _ => ErrorCode::InvalidSignature,
        };
        Self::new(code, error.to_string())
    }
}
