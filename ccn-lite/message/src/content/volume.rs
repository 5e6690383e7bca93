//! Volumes of virtual machines.

use serde::Serialize;
use serde_json::Value;

use crate::ItemHash;
use crate::fields::{
    FieldError, Object, Parsed, boolean, integer_within, item_hash, named, short_text,
    strict_integer,
};

/// Largest ephemeral volume, MiB.
const MAX_EPHEMERAL_MIB: u64 = 1000;

/// Largest persistent volume, MiB: 2048 GB rounded up.
pub(crate) const MAX_PERSISTENT_MIB: u64 = 1_953_125;

const MAX_LABEL_CHARS: usize = 256;

named_values! {
    /// Where a persistent volume is kept.
    VolumePersistence { Host = "host", Store = "store" }
}

/// The file a persistent volume starts as a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParentVolume {
    /// The STORE message.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// Whether the newest update of that STORE is meant.
    pub use_latest: bool,
}

impl ParentVolume {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        Ok(Self {
            reference: fields.required("ref", item_hash)?,
            use_latest: fields.or("use_latest", true, boolean)?,
        })
    }
}

/// One additional volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineVolume {
    /// Free text.
    pub comment: Option<String>,
    /// Where the guest mounts it.
    pub mount: Option<String>,
    /// What it holds.
    #[serde(flatten)]
    pub source: VolumeSource,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum VolumeSource {
    /// A file, read only.
    Immutable {
        /// The STORE message.
        #[serde(rename = "ref")]
        reference: ItemHash,
        /// Whether the newest update of that STORE is meant.
        use_latest: bool,
    },
    /// Empty space that vanishes with the run.
    Ephemeral {
        /// Always true.
        ephemeral: bool,
        /// Size, MiB.
        size_mib: u64,
    },
    /// Space that stays.
    Persistent {
        /// What it starts as; empty when absent.
        parent: Option<ParentVolume>,
        /// Where it is kept.
        persistence: Option<VolumePersistence>,
        /// A name unique within the message.
        name: Option<String>,
        /// Size, MiB.
        size_mib: u64,
    },
}

pub(crate) fn persistent_size(value: &Value) -> Parsed<u64> {
    integer_within(1, MAX_PERSISTENT_MIB, strict_integer)(value)
}

impl MachineVolume {
    /// The kinds carry no tag: the first that fits the fields is meant.
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        let label = short_text(MAX_LABEL_CHARS);
        let source = if fields.0.contains_key("ref") {
            Self::immutable(&fields)?
        } else {
            match Self::ephemeral(&fields) {
                Ok(source) => source,
                // The error of the likelier kind is the helpful one.
                Err(error) if fields.0.contains_key("ephemeral") => return Err(error),
                Err(_) => Self::persistent(&fields)?,
            }
        };
        Ok(Self {
            comment: fields.optional("comment", &label)?,
            mount: fields.optional("mount", &label)?,
            source,
        })
    }

    fn immutable(fields: &Object<'_>) -> Parsed<VolumeSource> {
        fields.only(&[LABELS, &["ref", "use_latest"]])?;
        Ok(VolumeSource::Immutable {
            reference: fields.required("ref", item_hash)?,
            use_latest: fields.or("use_latest", true, boolean)?,
        })
    }

    fn ephemeral(fields: &Object<'_>) -> Parsed<VolumeSource> {
        fields.only(&[LABELS, &["ephemeral", "size_mib"]])?;
        // The reference schema compares with `== True`, which numbers equal to one are.
        let is_true = |value: &Value| *value == Value::Bool(true) || value.as_f64() == Some(1.0);
        fields.or("ephemeral", (), |value| {
            if is_true(value) {
                Ok(())
            } else {
                Err(FieldError::new("Input should be true"))
            }
        })?;
        let size_mib = fields.required(
            "size_mib",
            integer_within(1, MAX_EPHEMERAL_MIB, strict_integer),
        )?;
        Ok(VolumeSource::Ephemeral {
            ephemeral: true,
            size_mib,
        })
    }

    fn persistent(fields: &Object<'_>) -> Parsed<VolumeSource> {
        fields.only(&[LABELS, &["parent", "persistence", "name", "size_mib"]])?;
        Ok(VolumeSource::Persistent {
            parent: fields.optional("parent", ParentVolume::parse)?,
            persistence: fields.optional("persistence", named)?,
            name: fields.optional("name", short_text(MAX_LABEL_CHARS))?,
            size_mib: fields.required("size_mib", persistent_size)?,
        })
    }
}

const LABELS: &[&str] = &["comment", "mount"];
