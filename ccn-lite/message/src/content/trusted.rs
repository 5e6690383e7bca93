//! Confidential computing as stated in instances.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::ItemHash;
use crate::fields::{
    FieldError, Object, Parsed, integer, integer_within, item_hash, list, named, short_text,
    strict_integer, text,
};

/// SEV policy `no debugging`.
const DEFAULT_POLICY: i128 = 1;

/// Bit of a SEV-SNP guest policy that is always one.
const SNP_RESERVED_BIT: i128 = 1 << 17;

pub(super) const MAX_MEASUREMENTS: usize = 16;

/// SEV-SNP guest policy when none is stated: SMT allowed.
pub(super) const DEFAULT_SNP_POLICY: i128 = 0x30000;

/// Whether `policy` can be a SEV-SNP guest policy.
pub(super) fn check_snp_policy(policy: i128) -> Result<(), String> {
    if !(0..1 << 64).contains(&policy) || policy & SNP_RESERVED_BIT == 0 {
        return Err("SEV-SNP guest policy must be 64 bits with the reserved bit 17 set".to_owned());
    }
    Ok(())
}

named_values! {
    /// Kind of confidential machine.
    TrustedExecutionMode { Sev = "sev", SevSnp = "sev_snp", Tdx = "tdx" }
}

/// Confidential computing of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustedExecution {
    /// Firmware, in the SEV flow.
    pub firmware: Option<ItemHash>,
    /// Launch policy of the platform.
    pub policy: i128,
    /// Kind; SEV when absent.
    pub mode: Option<TrustedExecutionMode>,
    /// Measured runtime bundle.
    pub runtime: Option<ItemHash>,
    /// Expected launch measurements.
    pub measurements: Option<Vec<LaunchMeasurement>>,
    /// Port of the attestation service in the guest.
    pub attestation_port: Option<u16>,
    /// GPUs in confidential mode.
    pub gpu: Option<ConfidentialGpu>,
}

/// Expected measurement registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaunchMeasurement {
    /// `sev_snp` or `tdx`.
    pub platform: TrustedExecutionMode,
    /// Register name to 96 hex digits.
    pub registers: BTreeMap<String, String>,
    /// CPU model the registers were computed for.
    pub vcpu_type: Option<String>,
}

/// GPUs attached in confidential mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfidentialGpu {
    /// Always `nvidia`.
    pub vendor: String,
    /// `hopper` or `blackwell`.
    pub arch: String,
    /// Number of cards.
    pub count: u64,
    /// Kinds of card, as PCI vendor and device.
    pub models: Option<Vec<String>>,
    /// Always `cc`.
    pub mode: String,
}

impl TrustedExecution {
    /// Whether the machine boots measured, with registers stated in the message.
    pub fn is_measured(&self) -> bool {
        matches!(
            self.mode,
            Some(TrustedExecutionMode::SevSnp | TrustedExecutionMode::Tdx)
        )
    }

    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&[
            "firmware",
            "policy",
            "mode",
            "runtime",
            "measurements",
            "attestation_port",
            "gpu",
        ]])?;
        let this = Self {
            firmware: fields.optional("firmware", item_hash)?,
            policy: fields.or("policy", DEFAULT_POLICY, integer)?,
            mode: fields.optional("mode", named)?,
            runtime: fields.optional("runtime", item_hash)?,
            measurements: fields.optional(
                "measurements",
                list(MAX_MEASUREMENTS, LaunchMeasurement::parse),
            )?,
            attestation_port: fields
                .optional("attestation_port", integer_within(1, 65535, integer))?
                .map(|port| port as u16),
            gpu: fields.optional("gpu", ConfidentialGpu::parse)?,
        };
        this.check().map_err(FieldError::new)?;
        Ok(this)
    }

    fn check(&self) -> Result<(), String> {
        let Some(mode) = self.mode.filter(|_| self.is_measured()) else {
            let stray = [
                ("runtime", self.runtime.is_some()),
                ("measurements", self.measurements.is_some()),
                ("attestation_port", self.attestation_port.is_some()),
                ("gpu", self.gpu.is_some()),
            ];
            return match stray.into_iter().find(|(_, present)| *present) {
                Some((name, _)) => Err(format!(
                    "{name} is only valid in the measured TEE modes (sev_snp, tdx)"
                )),
                None => Ok(()),
            };
        };
        let measurements = self.measurements.as_deref().unwrap_or_default();
        if self.firmware.is_some() {
            return Err(format!(
                "firmware belongs to the SEV flow and must not be set in {mode} mode"
            ));
        }
        if self.runtime.is_none() {
            return Err(format!("{mode} mode requires runtime"));
        }
        if measurements.is_empty() {
            return Err(format!("{mode} mode requires measurements"));
        }
        if measurements
            .iter()
            .any(|measurement| measurement.platform != mode)
        {
            return Err(format!(
                "a measurement declares a platform other than {mode}"
            ));
        }
        if self.gpu.is_some() && mode != TrustedExecutionMode::SevSnp {
            return Err("gpu is only supported in sev_snp mode".to_owned());
        }
        if mode == TrustedExecutionMode::SevSnp {
            check_snp_policy(self.policy)?;
        } else if self.policy != DEFAULT_POLICY {
            return Err("tdx mode has no host-chosen launch policy".to_owned());
        } else if measurements.len() != 1 {
            return Err("tdx mode declares exactly one measurement".to_owned());
        }
        Ok(())
    }
}

impl LaunchMeasurement {
    pub(super) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["platform", "registers", "vcpu_type"]])?;
        let platform = fields.required("platform", named)?;
        let names: &[&str] = match platform {
            TrustedExecutionMode::SevSnp => &["launch"],
            TrustedExecutionMode::Tdx => &["mrtd", "rtmr1", "rtmr2", "mrconfigid"],
            TrustedExecutionMode::Sev => {
                return Err(FieldError::at(
                    "platform",
                    "Input should be 'sev_snp' or 'tdx'",
                ));
            }
        };
        let registers = fields.required("registers", |value| {
            let registers = Object::new(value)?;
            registers.only(&[names])?;
            names
                .iter()
                .map(|name| Ok(((*name).to_owned(), registers.required(name, register)?)))
                .collect()
        })?;
        Ok(Self {
            platform,
            registers,
            vcpu_type: fields.optional("vcpu_type", short_text(64))?,
        })
    }
}

fn register(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    if text.len() == 96 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(text)
    } else {
        Err(FieldError::new("Input should be 96 lowercase hex digits"))
    }
}

impl ConfidentialGpu {
    pub(super) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[&["vendor", "arch", "count", "models", "mode"]])?;
        let models = fields.optional("models", |value| {
            let models = list(16, device_id)(value)?;
            let mut seen = models.clone();
            seen.sort_unstable();
            seen.dedup();
            if models.is_empty() || seen.len() != models.len() {
                return Err(FieldError::new("models must name each device once"));
            }
            Ok(models)
        })?;
        Ok(Self {
            vendor: fields.required("vendor", one_of(&["nvidia"]))?,
            arch: fields.required("arch", one_of(&["hopper", "blackwell"]))?,
            count: fields.required("count", integer_within(1, 8, strict_integer))?,
            models,
            mode: fields.required("mode", one_of(&["cc"]))?,
        })
    }
}

fn one_of(words: &'static [&'static str]) -> impl Fn(&Value) -> Parsed<String> {
    move |value| match value.as_str() {
        Some(word) if words.contains(&word) => Ok(word.to_owned()),
        _ => Err(FieldError::new(format!(
            "Input should be one of {}",
            words.join(", ")
        ))),
    }
}

fn device_id(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    let is_hex4 = |part: &str| {
        part.len() == 4 && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    match text.split_once(':') {
        Some((vendor, device)) if is_hex4(vendor) && is_hex4(device) => Ok(text),
        _ => Err(FieldError::new(
            "Input should be a lowercase PCI vendor:device id",
        )),
    }
}
