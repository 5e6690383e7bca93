//! FORGET: a demand to forget messages.

use serde::Serialize;
use serde_json::Value;

use super::{BASE, Base};
use crate::ItemHash;
use crate::fields::{Object, Parsed, item_hash, list, short_text};

const MAX_TARGETS: usize = 1000;
const MAX_REASON_CHARS: usize = 1000;

/// Content of a FORGET.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ForgetContent {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// Messages to forget.
    pub hashes: Vec<ItemHash>,
    /// Aggregates to forget. The schema demands item hashes although aggregates have keys.
    pub aggregates: Vec<ItemHash>,
    /// Why.
    pub reason: Option<String>,
}

impl ForgetContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[BASE, &["hashes", "aggregates", "reason"]])?;
        Ok(Self {
            base: Base::parse(&fields)?,
            hashes: fields.required("hashes", list(MAX_TARGETS, item_hash))?,
            aggregates: fields.or("aggregates", Vec::new(), list(MAX_TARGETS, item_hash))?,
            reason: fields.optional("reason", short_text(MAX_REASON_CHARS))?,
        })
    }
}
