//! AGGREGATE: a change to one key of an address's key-value map.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{BASE, Base};
use crate::fields::{FieldError, Object, Parsed, nested_tags, object, text};

/// Content of an AGGREGATE.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AggregateContent {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// The key; when written as `{"name": …}`, the name.
    pub key: String,
    /// Fields that are set in the key's value.
    pub content: Map<String, Value>,
}

impl AggregateContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[BASE, &["key", "content"]])?;
        let key = fields.required("key", |value| match value {
            Value::String(key) => Ok(key.clone()),
            Value::Object(map) => {
                let name = Object(map);
                name.only(&[&["name"]])?;
                name.required("name", text)
            }
            _ => Err(FieldError::new(
                "Input should be a string or an object with a name",
            )),
        })?;
        let content = fields.required("content", |value| {
            let content = object(value)?;
            nested_tags(value)?;
            Ok(content)
        })?;
        Ok(Self {
            base: Base::parse(&fields)?,
            key,
            content,
        })
    }
}
