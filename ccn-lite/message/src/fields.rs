//! Reading typed fields out of JSON with the coercions the network's reference schema applies, and errors that carry
//! the path of the field.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::ItemHash;

/// A field that does not follow its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {msg}", loc.join("."))]
pub struct FieldError {
    /// Names and indices from the outermost object to the field.
    pub loc: Vec<String>,
    /// What is wrong.
    pub msg: String,
}

pub(crate) type Parsed<T> = Result<T, FieldError>;

impl FieldError {
    pub(crate) fn new(msg: impl Into<String>) -> Self {
        Self {
            loc: Vec::new(),
            msg: msg.into(),
        }
    }

    pub(crate) fn at(field: &str, msg: impl Into<String>) -> Self {
        Self {
            loc: vec![field.to_owned()],
            msg: msg.into(),
        }
    }

    /// The same error seen from the object that holds `field`.
    pub(crate) fn under(mut self, field: &str) -> Self {
        self.loc.insert(0, field.to_owned());
        self
    }
}

/// A JSON object being read.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Object<'a> {
    pub(crate) fn new(value: &'a Value) -> Parsed<Self> {
        value
            .as_object()
            .map(Self)
            .ok_or_else(|| FieldError::new("Input should be an object"))
    }

    pub(crate) fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'a Value) -> Parsed<T>,
    ) -> Parsed<T> {
        match self.0.get(key) {
            Some(value) => read(value).map_err(|error| error.under(key)),
            None => Err(FieldError::at(key, "Field required")),
        }
    }

    /// Absent or null is none.
    pub(crate) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'a Value) -> Parsed<T>,
    ) -> Parsed<Option<T>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).map_err(|error| error.under(key)),
        }
    }

    /// Absent is the default; null is read like any value.
    pub(crate) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&'a Value) -> Parsed<T>,
    ) -> Parsed<T> {
        match self.0.get(key) {
            None => Ok(default),
            Some(value) => read(value).map_err(|error| error.under(key)),
        }
    }

    /// Refuses fields outside `known`.
    pub(crate) fn only(&self, known: &[&[&str]]) -> Parsed<()> {
        match self
            .0
            .keys()
            .find(|key| !known.iter().any(|names| names.contains(&key.as_str())))
        {
            Some(key) => Err(FieldError::at(key, "Extra inputs are not permitted")),
            None => Ok(()),
        }
    }
}

pub(crate) fn text(value: &Value) -> Parsed<String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| FieldError::new("Input should be a valid string"))
}

/// Text of at most `max` characters.
pub(crate) fn short_text(max: usize) -> impl Fn(&Value) -> Parsed<String> {
    move |value| {
        let text = text(value)?;
        check_chars(&text, max)?;
        Ok(text)
    }
}

pub(crate) fn check_chars(text: &str, max: usize) -> Parsed<()> {
    // A character is at most four bytes, so most texts are settled without counting.
    if text.len() > max && text.chars().count() > max {
        return Err(FieldError::new(format!(
            "String should have at most {max} characters"
        )));
    }
    Ok(())
}

pub(crate) fn item_hash(value: &Value) -> Parsed<ItemHash> {
    named(value)
}

/// Text that names a value of `T`.
pub(crate) fn named<T>(value: &Value) -> Parsed<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = value
        .as_str()
        .ok_or_else(|| FieldError::new("Input should be a valid string"))?;
    text.parse()
        .map_err(|error: T::Err| FieldError::new(error.to_string()))
}

/// A boolean, or the numbers and words that stand for one.
pub(crate) fn boolean(value: &Value) -> Parsed<bool> {
    let word = match value {
        Value::Bool(value) => return Ok(*value),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => return Ok(false),
            Some(1.0) => return Ok(true),
            _ => "",
        },
        Value::String(word) => word.as_str(),
        _ => "",
    };
    match word.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(FieldError::new("Input should be a valid boolean")),
    }
}

/// `true` or `false` only.
pub(crate) fn strict_boolean(value: &Value) -> Parsed<bool> {
    value
        .as_bool()
        .ok_or_else(|| FieldError::new("Input should be a valid boolean"))
}

/// A number, or text that reads as one.
pub(crate) fn float(value: &Value) -> Parsed<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::String(text) => plain_number(text).and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| FieldError::new("Input should be a valid number"))
}

/// A finite number within the bounds, both included.
pub(crate) fn float_within(min: f64, max: f64) -> impl Fn(&Value) -> Parsed<f64> {
    move |value| {
        let number = float(value)?;
        if number >= min && number <= max {
            Ok(number)
        } else {
            Err(FieldError::new(format!(
                "Input should be between {min} and {max}"
            )))
        }
    }
}

/// A whole number, a float without fraction, a boolean, or text that reads as a whole number.
pub(crate) fn integer(value: &Value) -> Parsed<i128> {
    let number = match value {
        Value::Bool(value) => Some(i128::from(*value)),
        Value::Number(_) => whole(value).or_else(|| {
            value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && number.abs() < 9.2e18)
                .map(|number| number as i128)
        }),
        Value::String(text) => plain_number(text).and_then(|text| {
            let digits = match text.split_once('.') {
                Some((digits, zeros)) if zeros.bytes().all(|c| c == b'0') => digits.to_owned(),
                Some(_) => return None,
                None => text,
            };
            digits.parse().ok()
        }),
        _ => None,
    };
    // What no JSON number of ours can hold could not be written out again.
    number
        .filter(|number| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number))
        .ok_or_else(|| FieldError::new("Input should be a valid integer"))
}

/// A JSON whole number only.
pub(crate) fn strict_integer(value: &Value) -> Parsed<i128> {
    whole(value).ok_or_else(|| FieldError::new("Input should be a valid integer"))
}

fn whole(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}

/// A whole number within the bounds, both included, read with `read`.
pub(crate) fn integer_within(
    min: u64,
    max: u64,
    read: impl Fn(&Value) -> Parsed<i128>,
) -> impl Fn(&Value) -> Parsed<u64> {
    move |value| {
        let number = read(value)?;
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(FieldError::new(format!(
                "Input should be between {min} and {max}"
            ))),
        }
    }
}

/// Numeric text without surrounding blanks and digit separators.
fn plain_number(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > 64 || text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.is_ascii().then(|| text.replace('_', ""))
}

/// A list of at most `max` items.
pub(crate) fn list<T>(
    max: usize,
    read: impl Fn(&Value) -> Parsed<T>,
) -> impl Fn(&Value) -> Parsed<Vec<T>> {
    move |value| {
        let items = value
            .as_array()
            .ok_or_else(|| FieldError::new("Input should be a valid list"))?;
        if items.len() > max {
            return Err(FieldError::new(format!(
                "List should have at most {max} items, not {}",
                items.len()
            )));
        }
        items
            .iter()
            .enumerate()
            .map(|(index, item)| read(item).map_err(|error| error.under(&index.to_string())))
            .collect()
    }
}

/// An object of any fields.
pub(crate) fn object(value: &Value) -> Parsed<Map<String, Value>> {
    value
        .as_object()
        .cloned()
        .ok_or_else(|| FieldError::new("Input should be an object"))
}

/// At most sixteen tags of one to 256 characters.
pub(crate) fn tags(value: &Value) -> Parsed<Vec<String>> {
    list(16, |tag| {
        let tag = short_text(256)(tag)?;
        if tag.is_empty() {
            Err(FieldError::new("String should have at least 1 character"))
        } else {
            Ok(tag)
        }
    })(value)
}

/// The `tags` inside free-form content, checked when present.
pub(crate) fn nested_tags(value: &Value) -> Parsed<()> {
    match value.get("tags") {
        None | Some(Value::Null) => Ok(()),
        Some(value) => tags(value).map(drop).map_err(|error| error.under("tags")),
    }
}
