//! V-PROGRAM: a confidential machine whose whole software is measured.
//!
//! Scalars are read without coercion, unlike in older types: the reference schema is strict here.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::environment::{HostRequirements, MachineResources};
use super::executable::{EXECUTABLE, Payment, PaymentType, authorized_keys, metadata, variables};
use super::trusted::{
    ConfidentialGpu, DEFAULT_SNP_POLICY, LaunchMeasurement, MAX_MEASUREMENTS, TrustedExecutionMode,
    check_snp_policy,
};
use super::{BASE, Base, MAX_TIME};
use crate::ItemHash;
use crate::fields::{
    FieldError, Object, Parsed, float_within, item_hash, list, named, short_text, strict_boolean,
    strict_integer, text,
};

const MAX_COMMENT_CHARS: usize = 1024;
/// Each root hash takes some of the measured kernel command line.
const MAX_VERIFIED_VOLUMES: usize = 8;

/// Content of a V-PROGRAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifiableProgramContent {
    /// Address and time.
    #[serde(flatten)]
    pub base: Base,
    /// Always false.
    pub allow_amend: bool,
    /// Scalars, and a list of texts under `tags`.
    pub metadata: Option<Map<String, Value>>,
    /// Absent or empty.
    pub authorized_keys: Option<Vec<String>>,
    /// Absent or empty.
    pub variables: Option<BTreeMap<String, String>>,
    /// Environment.
    pub environment: VerifiableProgramEnvironment,
    /// What the machine gets.
    pub resources: MachineResources,
    /// Always by credits.
    pub payment: Payment,
    /// Where it may run.
    pub requirements: Option<HostRequirements>,
    /// Verified volumes, in the order of their measured root hashes.
    pub volumes: Vec<VerifiedVolume>,
    /// Always absent.
    pub replaces: Option<String>,
    /// The measured platform.
    pub runtime: VerifiableProgramRuntime,
    /// The user's code.
    pub workload: VerifiedWorkload,
    /// How it is launched and what it must measure.
    pub verification: TeeVerification,
    /// GPUs in confidential mode.
    pub gpu: Option<ConfidentialGpu>,
}

/// Environment of a V-PROGRAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiableProgramEnvironment {
    /// Whether the guest reaches the internet.
    pub internet: bool,
}

/// The measured platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiableProgramRuntime {
    /// The STORE message of the runtime's manifest.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// Free text.
    pub comment: String,
}

/// A read-only disk bound to its dm-verity root hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedWorkload {
    /// The STORE message of the data.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// The STORE message of the hash tree.
    pub hash_tree: ItemHash,
    /// 64 lowercase hex digits.
    pub roothash: String,
}

/// One more such disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedVolume {
    /// What it is.
    #[serde(flatten)]
    pub disk: VerifiedWorkload,
    /// Free text.
    pub comment: String,
}

/// How a V-PROGRAM is launched and what it must measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TeeVerification {
    /// `sev_snp` or `tdx`.
    pub backend: TrustedExecutionMode,
    /// Guest policy of SEV-SNP; absent for TDX.
    pub policy: Option<i128>,
    /// Expected launch measurements.
    pub measurements: Vec<LaunchMeasurement>,
}

impl VerifiableProgramContent {
    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[
            BASE,
            EXECUTABLE,
            &["runtime", "workload", "verification", "gpu"],
        ])?;
        let this = Self {
            base: Base {
                address: fields.required("address", text)?,
                time: fields.required("time", |value| match value {
                    Value::Number(_) => float_within(0.0, MAX_TIME)(value),
                    _ => Err(FieldError::new("Input should be a valid number")),
                })?,
            },
            allow_amend: fields.required("allow_amend", strict_boolean)?,
            metadata: fields.optional("metadata", metadata)?,
            authorized_keys: fields.optional("authorized_keys", authorized_keys)?,
            variables: fields.optional("variables", variables)?,
            environment: fields.required("environment", |value| {
                let fields = Object::new(value)?;
                fields.only(&[&["internet"]])?;
                Ok(VerifiableProgramEnvironment {
                    internet: fields.or("internet", false, strict_boolean)?,
                })
            })?,
            resources: fields.required("resources", |value| {
                MachineResources::parse_with(value, strict_integer)
            })?,
            payment: fields.required("payment", Payment::parse)?,
            requirements: fields.optional("requirements", HostRequirements::parse)?,
            volumes: fields.or(
                "volumes",
                Vec::new(),
                list(MAX_VERIFIED_VOLUMES, VerifiedVolume::parse),
            )?,
            replaces: fields.optional("replaces", text)?,
            runtime: fields.required("runtime", |value| {
                let fields = Object::new(value)?;
                fields.only(&[&["ref", "comment"]])?;
                Ok(VerifiableProgramRuntime {
                    reference: fields.required("ref", item_hash)?,
                    comment: fields.or("comment", String::new(), short_text(MAX_COMMENT_CHARS))?,
                })
            })?,
            workload: fields.required("workload", |value| {
                let fields = Object::new(value)?;
                fields.only(&[VERIFIED])?;
                VerifiedWorkload::parse(&fields)
            })?,
            verification: fields.required("verification", TeeVerification::parse)?,
            gpu: fields.optional("gpu", ConfidentialGpu::parse)?,
        };
        this.check().map_err(FieldError::new)?;
        Ok(this)
    }

    /// Rules across fields.
    fn check(&self) -> Result<(), &'static str> {
        let passes_gpus_through = self
            .requirements
            .as_ref()
            .and_then(|requirements| requirements.gpu.as_ref())
            .is_some_and(|gpus| !gpus.is_empty());
        let rules = [
            (
                self.payment.payment_type == PaymentType::Credit,
                "V-Programs are credit-only",
            ),
            (
                !self.allow_amend && self.replaces.is_none(),
                "V-Programs are immutable: publish a new message instead",
            ),
            (
                self.variables.as_ref().is_none_or(BTreeMap::is_empty),
                "variables are not supported for V-Programs: they would not be measured",
            ),
            (
                self.authorized_keys.as_ref().is_none_or(Vec::is_empty),
                "authorized_keys are not supported for V-Programs",
            ),
            (
                !passes_gpus_through,
                "requirements.gpu is not supported for V-Programs: declare the cards in gpu",
            ),
            (
                self.gpu.is_none() || self.verification.backend == TrustedExecutionMode::SevSnp,
                "gpu is only supported with the sev_snp backend",
            ),
        ];
        match rules.into_iter().find(|(kept, _)| !kept) {
            Some((_, reason)) => Err(reason),
            None => Ok(()),
        }
    }
}

const VERIFIED: &[&str] = &["ref", "hash_tree", "roothash"];

impl VerifiedWorkload {
    fn parse(fields: &Object<'_>) -> Parsed<Self> {
        Ok(Self {
            reference: fields.required("ref", item_hash)?,
            hash_tree: fields.required("hash_tree", item_hash)?,
            roothash: fields.required("roothash", |value| {
                let text = text(value)?;
                let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
                if text.len() == 64 && text.bytes().all(is_hex) {
                    Ok(text)
                } else {
                    Err(FieldError::new("Input should be 64 lowercase hex digits"))
                }
            })?,
        })
    }
}

impl VerifiedVolume {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[VERIFIED, &["comment"]])?;
        Ok(Self {
            disk: VerifiedWorkload::parse(&fields)?,
            comment: fields.or("comment", String::new(), short_text(MAX_COMMENT_CHARS))?,
        })
    }
}

impl TeeVerification {
    fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["backend", "policy", "measurements"]])?;
        let backend = fields.required("backend", |value| match named(value) {
            Ok(TrustedExecutionMode::Sev) | Err(_) => {
                Err(FieldError::new("Input should be 'sev_snp' or 'tdx'"))
            }
            known => known,
        })?;
        let policy = match fields.0.get("policy") {
            None if backend == TrustedExecutionMode::SevSnp => Some(DEFAULT_SNP_POLICY),
            _ => fields.optional("policy", strict_integer)?,
        };
        let this = Self {
            backend,
            policy,
            measurements: fields.required(
                "measurements",
                list(MAX_MEASUREMENTS, LaunchMeasurement::parse),
            )?,
        };
        this.check().map_err(FieldError::new)?;
        Ok(this)
    }

    fn check(&self) -> Result<(), String> {
        match (self.backend, self.policy) {
            (TrustedExecutionMode::Tdx, Some(_)) => {
                return Err("the tdx backend has no host-chosen launch policy".to_owned());
            }
            (TrustedExecutionMode::Tdx, None) => {}
            (_, None) => return Err("the sev_snp backend requires policy".to_owned()),
            (_, Some(policy)) => check_snp_policy(policy)?,
        }
        if self.measurements.is_empty() {
            return Err("measurements must name at least one launch".to_owned());
        }
        if self
            .measurements
            .iter()
            .any(|measurement| measurement.platform != self.backend)
        {
            return Err(format!(
                "a measurement declares a platform other than {}",
                self.backend
            ));
        }
        if self.backend == TrustedExecutionMode::Tdx && self.measurements.len() != 1 {
            return Err("the tdx backend declares exactly one measurement".to_owned());
        }
        Ok(())
    }
}
