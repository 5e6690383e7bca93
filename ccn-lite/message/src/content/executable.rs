//! What programs and instances have in common.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Base;
use super::environment::{HostRequirements, MachineResources};
use super::volume::MachineVolume;
use crate::Chain;
use crate::fields::{
    FieldError, Object, Parsed, boolean, check_chars, list, named, object, short_text, tags, text,
};

const MAX_METADATA_ENTRIES: usize = 256;
const MAX_METADATA_KEY_CHARS: usize = 64;
const MAX_METADATA_VALUE_CHARS: usize = 512;
const MAX_AUTHORIZED_KEYS: usize = 256;
const MAX_AUTHORIZED_KEY_CHARS: usize = 8192;
const MAX_VARIABLES: usize = 256;
const MAX_VARIABLE_KEY_CHARS: usize = 128;
const MAX_VARIABLE_VALUE_CHARS: usize = 4096;
const MAX_VOLUMES: usize = 256;
const MAX_REPLACES_CHARS: usize = 128;

/// Fields of [`Executable`] on the wire, beside those of every content.
pub(crate) const EXECUTABLE: &[&str] = &[
    "allow_amend",
    "metadata",
    "authorized_keys",
    "variables",
    "environment",
    "resources",
    "payment",
    "requirements",
    "volumes",
    "replaces",
];

named_values! {
    /// How something is paid.
    PaymentType { Hold = "hold", Superfluid = "superfluid", Credit = "credit" }
}

/// The payment stated in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// Chain of the tokens.
    pub chain: Option<Chain>,
    /// Receiver of a stream.
    pub receiver: Option<String>,
    /// How.
    #[serde(rename = "type")]
    pub payment_type: PaymentType,
}

impl Payment {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        Ok(Self {
            chain: fields.optional("chain", named)?,
            receiver: fields.optional("receiver", text)?,
            payment_type: fields.required("type", named)?,
        })
    }
}

/// Fields programs and instances share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Executable {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// Whether a later message may replace this one.
    pub allow_amend: bool,
    /// Scalars, and a list of texts under `tags`.
    pub metadata: Option<Map<String, Value>>,
    /// SSH public keys.
    pub authorized_keys: Option<Vec<String>>,
    /// Environment variables.
    pub variables: Option<BTreeMap<String, String>>,
    /// What the machine gets.
    pub resources: MachineResources,
    /// How it is paid; held tokens when absent.
    pub payment: Option<Payment>,
    /// Where it may run.
    pub requirements: Option<HostRequirements>,
    /// Additional volumes.
    pub volumes: Vec<MachineVolume>,
    /// The message this one replaces.
    pub replaces: Option<String>,
}

impl Executable {
    pub(crate) fn parse(fields: &Object<'_>) -> Parsed<Self> {
        Ok(Self {
            base: Base::parse(fields)?,
            allow_amend: fields.required("allow_amend", boolean)?,
            metadata: fields.optional("metadata", metadata)?,
            authorized_keys: fields.optional("authorized_keys", authorized_keys)?,
            variables: fields.optional("variables", variables)?,
            resources: fields.required("resources", MachineResources::parse)?,
            payment: fields.optional("payment", Payment::parse)?,
            requirements: fields.optional("requirements", HostRequirements::parse)?,
            volumes: fields.or(
                "volumes",
                Vec::new(),
                list(MAX_VOLUMES, MachineVolume::parse),
            )?,
            replaces: fields.optional("replaces", short_text(MAX_REPLACES_CHARS))?,
        })
    }

    /// How it is paid; held tokens unless stated otherwise.
    pub fn payment_type(&self) -> PaymentType {
        self.payment
            .as_ref()
            .map_or(PaymentType::Hold, |payment| payment.payment_type)
    }

    /// The node the message demands, if any.
    pub fn pinned_node(&self) -> Option<&crate::ItemHash> {
        self.requirements
            .as_ref()?
            .node
            .as_ref()?
            .node_hash
            .as_ref()
    }
}

pub(super) fn authorized_keys(value: &Value) -> Parsed<Vec<String>> {
    list(MAX_AUTHORIZED_KEYS, short_text(MAX_AUTHORIZED_KEY_CHARS))(value)
}

pub(super) fn metadata(value: &Value) -> Parsed<Map<String, Value>> {
    let entries = object(value)?;
    check_entries(entries.len(), MAX_METADATA_ENTRIES)?;
    for (key, value) in &entries {
        let checked = check_chars(key, MAX_METADATA_KEY_CHARS).and_then(|()| match value {
            _ if key == "tags" => tags(value).map(drop),
            Value::String(text) => check_chars(text, MAX_METADATA_VALUE_CHARS),
            Value::Array(_) | Value::Object(_) => Err(FieldError::new("Input should be a scalar")),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        });
        checked.map_err(|error| error.under(key))?;
    }
    Ok(entries)
}

pub(super) fn variables(value: &Value) -> Parsed<BTreeMap<String, String>> {
    let entries = Object::new(value)?.0;
    check_entries(entries.len(), MAX_VARIABLES)?;
    entries
        .iter()
        .map(|(key, value)| {
            check_chars(key, MAX_VARIABLE_KEY_CHARS)
                .and_then(|()| short_text(MAX_VARIABLE_VALUE_CHARS)(value))
                .map(|value| (key.clone(), value))
                .map_err(|error| error.under(key))
        })
        .collect()
}

fn check_entries(entries: usize, max: usize) -> Parsed<()> {
    if entries > max {
        return Err(FieldError::new(format!(
            "Object should have at most {max} entries, not {entries}"
        )));
    }
    Ok(())
}
