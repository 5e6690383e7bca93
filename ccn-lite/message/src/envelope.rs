//! The envelope: who says what, where the content is, and the signature over both.

use serde::Serialize;
use serde_json::Value;
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::content::MAX_TIME;
use crate::fields::{FieldError, Object, Parsed, float_within, item_hash, named, text};
use crate::signing::{Claim, Keypair, SignatureError};
use crate::{Chain, Content, ErrorCode, ItemHash, ItemType, MessageType, Rejection};

/// Longest inline content, in characters.
pub const MAX_INLINE_CHARS: usize = 200_000;

/// Longest channel that clients write, in characters.
pub const MAX_CHANNEL_CHARS: usize = 128;

/// A message without its parsed content. A value of this type has the right shape, and an inline content that hashes
/// to its `item_hash`; its signature has not been checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope {
    /// Address of the signer, on `chain`, in the case it was signed in.
    pub sender: String,
    /// Chain of the signer.
    pub chain: Chain,
    /// What the message does.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// Signature in the form of the chain; absent only on messages that need none.
    pub signature: Option<String>,
    /// Where the content is.
    pub item_type: ItemType,
    /// The content's exact text, for inline messages.
    pub item_content: Option<String>,
    /// Hash of the content's text.
    pub item_hash: ItemHash,
    /// Time of publication claimed by the sender, Unix seconds. Not signed, except by wallets of Tezos that wrap text.
    pub time: f64,
    /// Application name chosen by the sender. Not signed.
    pub channel: Option<String>,
}

impl Envelope {
    /// Reads an envelope; fields that are not part of it are ignored.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn parse(value: &Value) -> Result<Self, Rejection> {
        let envelope = Self::read(value)?;
        envelope.verify_hash()?;
        Ok(envelope)
    }

    /// Reads an envelope and, when it is inline, its content.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn parse_with_content(value: &Value) -> Result<(Self, Option<Content>), Rejection> {
        let envelope = Self::parse(value)?;
        let content = envelope.inline_content()?;
        Ok((envelope, content))
    }

    /// Reads what nodes keep of a forgotten message: an envelope without content, wherever that was.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn parse_remains(value: &Value) -> Result<Self, Rejection> {
        let fields = Object::new(value)?;
        let envelope = Self::read_sealed(&fields, None)?;
        let expected = match envelope.item_type {
            ItemType::Inline => ItemType::Storage,
            elsewhere => elsewhere,
        };
        if expected != envelope.item_hash.item_type() {
            let (hash, kind) = (&envelope.item_hash, envelope.item_type);
            let reason = format!("'{hash}' is not a hash of type {kind}");
            return Err(FieldError::at("item_hash", reason).into());
        }
        Ok(envelope)
    }

    fn read(value: &Value) -> Result<Self, Rejection> {
        let fields = Object::new(value)?;
        let item_content = fields.optional("item_content", text)?;
        let envelope = Self::read_sealed(&fields, item_content)?;
        match (envelope.item_type, &envelope.item_content) {
            (ItemType::Inline, None) => {
                return Err(FieldError::at(
                    "item_content",
                    "No item content for an inline message",
                )
                .into());
            }
            (ItemType::Inline, Some(content)) => {
                if content.len() > MAX_INLINE_CHARS && content.chars().count() > MAX_INLINE_CHARS {
                    return Err(FieldError::at("item_content", "Message too long").into());
                }
            }
            (item_type, Some(_)) => {
                let reason = format!("{item_type} messages cannot define item_content");
                return Err(FieldError::at("item_content", reason).into());
            }
            (item_type, None) => {
                if item_type != envelope.item_hash.item_type() {
                    let reason =
                        format!("'{}' is not a hash of type {item_type}", envelope.item_hash);
                    return Err(FieldError::at("item_hash", reason).into());
                }
            }
        }
        Ok(envelope)
    }

    /// The envelope around a content that was looked at before.
    fn read_sealed(fields: &Object<'_>, item_content: Option<String>) -> Result<Self, Rejection> {
        let message_type = fields.required("type", |value| {
            named(value).map_err(|_: FieldError| FieldError::new("Invalid message_type"))
        })?;
        let chain = fields.required("chain", named)?;
        let sender = fields.required("sender", text)?;
        if sender.is_empty() || sender.len() > 256 || sender.contains('\n') {
            return Err(FieldError::at("sender", "Input should be an address").into());
        }
        let item_hash = fields.required("item_hash", item_hash)?;
        let default_type = if item_content.is_some() {
            ItemType::Inline
        } else {
            item_hash.item_type()
        };
        let item_type = fields.optional("item_type", named)?.unwrap_or(default_type);
        Ok(Self {
            sender,
            chain,
            message_type,
            signature: fields.optional("signature", text)?,
            item_type,
            item_content,
            item_hash,
            time: fields.required("time", timestamp)?,
            channel: fields.optional("channel", text)?,
        })
    }

    /// Checks that the inline content hashes to `item_hash`; a content stored elsewhere is checked where it is read.
    ///
    /// # Errors
    /// `INVALID_FORMAT`.
    pub fn verify_hash(&self) -> Result<(), Rejection> {
        let Some(content) = &self.item_content else {
            return Ok(());
        };
        let computed = ItemHash::of(content.as_bytes());
        if computed != self.item_hash {
            let reason =
                format!("'item_hash' does not match 'sha256(item_content)', expecting {computed}");
            return Err(FieldError::at("item_hash", reason).into());
        }
        Ok(())
    }

    /// The text that is signed: chain, sender, type and hash, each on its line.
    pub fn signing_buffer(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}",
            self.chain, self.sender, self.message_type, self.item_hash
        )
    }

    /// Checks that the sender signed this message.
    ///
    /// # Errors
    /// When the chain has no verifier, or the signature does not prove the sender.
    pub fn check_signature(&self) -> Result<(), SignatureError> {
        let claim = Claim {
            chain: self.chain,
            sender: &self.sender,
            buffer: &self.signing_buffer(),
            time: self.time,
            signature: self.signature.as_deref().unwrap_or_default(),
        };
        claim.verify()
    }

    /// The same in the network's numbering.
    ///
    /// # Errors
    /// `INVALID_SIGNATURE`, or `INVALID_FORMAT` for a chain without verifier.
    pub fn verify_signature(&self) -> Result<(), Rejection> {
        self.check_signature().map_err(Rejection::from)
    }

    /// The content of an inline message; none when the content is a file.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn inline_content(&self) -> Result<Option<Content>, Rejection> {
        match &self.item_content {
            Some(raw) => self.parse_content(raw).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the text of this message's content, wherever it came from. In a content that is a file, a missing
    /// `address` is the sender's and a missing `time` the message's.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn parse_content(&self, raw: &str) -> Result<Content, Rejection> {
        if raw.contains("\\u0000") {
            return Err(Rejection::invalid_format(
                "Unsupported character in message: \\u0000",
            ));
        }
        let mut value: Value = serde_json::from_str(raw).map_err(|error| {
            Rejection::invalid_format(format!("Message content is not valid JSON: {error}"))
        })?;
        if self.item_type != ItemType::Inline
            && let Value::Object(fields) = &mut value
        {
            if fields.get("address").is_none_or(Value::is_null) {
                fields.insert("address".to_owned(), self.sender.clone().into());
            }
            if fields.get("time").is_none_or(Value::is_null) {
                fields.insert("time".to_owned(), self.time.into());
            }
        }
        Content::parse(self.message_type, value)
    }

    /// Builds and signs an inline message on the chain `ETH`. `content` is serialised as given; its `address` and
    /// `time` are filled in from the key and `time` when missing.
    ///
    /// # Errors
    /// When `content` is not an object, or the result is not a valid message.
    pub fn sign(
        key: &Keypair,
        message_type: MessageType,
        channel: Option<&str>,
        time: f64,
        mut content: Value,
    ) -> Result<Self, Rejection> {
        let sender = key.address();
        let fields = content
            .as_object_mut()
            .ok_or_else(|| Rejection::invalid_format("Message content is not an object"))?;
        fields
            .entry("address")
            .or_insert_with(|| sender.clone().into());
        fields.entry("time").or_insert_with(|| time.into());
        let item_content = content.to_string();
        let mut envelope = Self {
            sender,
            chain: Chain::Eth,
            message_type,
            signature: None,
            item_type: ItemType::Inline,
            item_hash: ItemHash::of(item_content.as_bytes()),
            item_content: Some(item_content),
            time,
            channel: channel.map(str::to_owned),
        };
        envelope.inline_content()?;
        let signature = key
            .sign_eip191(envelope.signing_buffer().as_bytes())
            .map_err(|error| Rejection::new(ErrorCode::InternalError, error.to_string()))?;
        envelope.signature = Some(signature);
        Ok(envelope)
    }
}

/// Unix seconds, or a date and time in ISO 8601 (UTC when it names no offset).
fn timestamp(value: &Value) -> Parsed<f64> {
    let within = float_within(0.0, MAX_TIME);
    let Value::String(text) = value else {
        return within(value);
    };
    if let Ok(seconds) = within(value) {
        return Ok(seconds);
    }
    let text = text.trim().replacen(' ', "T", 1);
    let moment = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&text, &Iso8601::DEFAULT))
        .or_else(|_| {
            PrimitiveDateTime::parse(&text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc)
        })
        .map_err(|_| FieldError::new("Input should be a timestamp or an ISO 8601 date and time"))?;
    let seconds = moment.unix_timestamp_nanos() as f64 / 1e9;
    within(&seconds.into())
}
