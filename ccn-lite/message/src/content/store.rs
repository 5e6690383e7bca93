//! STORE: a file kept by the network.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Base;
use super::executable::{Payment, PaymentType};
use crate::fields::{FieldError, Object, Parsed, integer, item_hash, named, object, tags, text};
use crate::{ItemHash, ItemType};

/// Content of a STORE. Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreContent {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// The engine that keeps the file.
    pub item_type: ItemType,
    /// Hash of the file.
    pub item_hash: ItemHash,
    /// Size claimed by the sender, bytes. Never used for charging.
    pub size: Option<i64>,
    /// Media type claimed by the sender.
    pub content_type: Option<String>,
    /// The STORE this one updates, or a name of the sender's.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Free-form description.
    pub metadata: Option<Map<String, Value>>,
    /// How the file is paid; held tokens when absent.
    pub payment: Option<Payment>,
}

impl StoreContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        let payment = fields.optional("payment", |value| {
            let payment = Payment::parse(value)?;
            if payment.payment_type == PaymentType::Superfluid {
                return Err(FieldError::new(
                    "Only 'hold' and 'credit' payment types are supported for store messages",
                ));
            }
            Ok(payment)
        })?;
        let size = fields.optional("size", |value| {
            i64::try_from(integer(value)?)
                .map_err(|_| FieldError::new("Input should be a valid integer"))
        })?;
        Ok(Self {
            base: Base::parse(&fields)?,
            item_type: fields.required("item_type", named)?,
            item_hash: fields.required("item_hash", item_hash)?,
            size,
            content_type: fields.optional("content_type", text)?,
            reference: fields.optional("ref", text)?,
            tags: fields.optional("tags", tags)?,
            metadata: fields.optional("metadata", object)?,
            payment,
        })
    }
}
