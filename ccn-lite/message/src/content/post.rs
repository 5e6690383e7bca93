//! POST: free-form data, or the amendment of an earlier post.

use serde::Serialize;
use serde_json::Value;

use super::{BASE, Base};
use crate::envelope::MAX_CHANNEL_CHARS;
use crate::fields::{
    FieldError, Object, Parsed, float, item_hash, named, nested_tags, short_text, text,
};
use crate::{Chain, ItemHash, ItemType};

/// Content of a POST.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PostContent {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// The data; any JSON.
    pub content: Value,
    /// The message this one refers to; the amended post when `type` is `amend`.
    #[serde(rename = "ref")]
    pub reference: Option<PostRef>,
    /// The sender's type of content.
    #[serde(rename = "type")]
    pub post_type: String,
}

/// A reference from a post.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PostRef {
    /// Text, usually an item hash.
    Text(String),
    /// A whole message.
    Message(Box<ChainRef>),
}

/// A message given as a reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChainRef {
    /// Chain of the signer.
    pub chain: Chain,
    /// Channel.
    pub channel: Option<String>,
    /// Inline content.
    pub item_content: String,
    /// Its hash.
    pub item_hash: ItemHash,
    /// Where the content is.
    pub item_type: ItemType,
    /// Address of the signer.
    pub sender: String,
    /// Signature.
    pub signature: String,
    /// Unix seconds.
    pub time: f64,
    /// Always `POST`.
    #[serde(rename = "type")]
    pub message_type: &'static str,
}

impl PostContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[BASE, &["content", "ref", "type"]])?;
        let content = fields.or("content", Value::Null, |value| {
            nested_tags(value)?;
            Ok(value.clone())
        })?;
        let reference = fields.optional("ref", PostRef::parse)?;
        let post_type = fields.required("type", text)?;
        if post_type == "amend" && reference.as_ref().is_none_or(PostRef::is_empty) {
            return Err(FieldError::at(
                "type",
                "A 'ref' is required for POST type 'amend'",
            ));
        }
        Ok(Self {
            base: Base::parse(&fields)?,
            content,
            reference,
            post_type,
        })
    }

    /// The text of the reference: the text itself, or the hash of the message given.
    pub fn ref_text(&self) -> Option<&str> {
        match self.reference.as_ref()? {
            PostRef::Text(text) => Some(text),
            PostRef::Message(message) => Some(message.item_hash.as_str()),
        }
    }
}

impl PostRef {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    fn parse(value: &Value) -> Parsed<Self> {
        if let Value::String(text) = value {
            return Ok(Self::Text(text.clone()));
        }
        let fields = Object::new(value)?;
        fields.or("type", (), |value| match value.as_str() {
            Some("POST") => Ok(()),
            _ => Err(FieldError::new("Input should be 'POST'")),
        })?;
        Ok(Self::Message(Box::new(ChainRef {
            chain: fields.required("chain", named)?,
            channel: fields.optional("channel", short_text(MAX_CHANNEL_CHARS))?,
            item_content: fields.required("item_content", text)?,
            item_hash: fields.required("item_hash", item_hash)?,
            item_type: fields.required("item_type", named)?,
            sender: fields.required("sender", text)?,
            signature: fields.required("signature", text)?,
            time: fields.required("time", float)?,
            message_type: "POST",
        })))
    }
}
