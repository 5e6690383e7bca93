//! Where a workload asks to run: `requirements.cpu` and `requirements.node` of its message, held against what this node is.

use aleph_message::{Architecture, Executable};
use regex::RegexBuilder;

use super::{Unsupported, unsupported};
use crate::config::Config;
use crate::metrics::Processor;

/// What a pattern may take when it is made ready, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// What a message asks of the node it runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The node's hash in the corechannel registry.
    pub node_hash: Option<String>,
    /// The node's owner.
    pub owner: Option<String>,
    /// A pattern that the node's URL has somewhere in it.
    pub address_regex: Option<String>,
    /// The terms and conditions that the user has accepted, a STORE message.
    pub terms: Option<String>,
    /// The processor's maker, as CPUID has it.
    pub vendor: Option<String>,
    /// What the processor must be able to do, as Linux names it.
    pub features: Vec<String>,
}

/// What this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its hash in the corechannel registry, when its operator has told it.
    pub hash: Option<String>,
    /// Its owner, when its operator has told it.
    pub owner: Option<String>,
    /// The ways in which its URL may be written.
    pub urls: Vec<String>,
    /// Its terms and conditions.
    pub terms: Option<String>,
    /// The processor's maker.
    pub vendor: String,
    /// What guests' processors can do.
    pub features: Vec<String>,
}

/// Why a workload cannot run on this node, of all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// It is for a certain node, and this one does not know whether it is that.
    #[error(
        "requirements.node.node_hash: this node does not know its own hash, its operator has not set node.hash"
    )]
    Nameless,
    /// It is for another node.
    #[error("requirements.node.node_hash: it is for the node {0}")]
    Pinned(String),
    /// Something else is not as it asks.
    #[error("requirements.{0}")]
    Other(String),
}

impl Facts {
    /// What the operator says of the node, and what its processor is.
    #[must_use]
    pub fn new(config: &Config, processor: Processor) -> Self {
        let (domain, port) = (&config.domain, config.listen.port());
        Self {
            hash: config.node.hash.clone(),
            owner: config.node.owner.clone(),
            urls: vec![
                format!("https://{domain}"),
                format!("https://{domain}/"),
                format!("http://{domain}:{port}"),
                format!("http://{domain}:{port}/"),
            ],
            terms: config.node.terms_and_conditions.clone(),
            vendor: processor.vendor,
            features: processor.features,
        }
    }
}

impl Requirements {
    /// What a message asks; see [`Requirements::unmet`].
    ///
    /// # Errors
    /// [`Unsupported`], for what no node of this kind can be.
    pub(super) fn read(executable: &Executable) -> Result<Self, Unsupported> {
        let Some(asked) = &executable.requirements else {
            return Ok(Self::default());
        };
        if asked.gpu.as_ref().is_some_and(|gpu| !gpu.is_empty()) {
            return unsupported("requirements.gpu: this node has no GPU to give");
        }
        let mut requirements = Self::default();
        if let Some(cpu) = &asked.cpu {
            if cpu.architecture == Some(Architecture::Arm64) {
                return unsupported("requirements.cpu.architecture: this node is x86_64");
            }
            requirements.vendor.clone_from(&cpu.vendor);
            requirements.features = cpu.features.clone().unwrap_or_default();
        }
        if let Some(node) = &asked.node {
            requirements.node_hash = node.node_hash.as_ref().map(ToString::to_string);
            requirements.owner.clone_from(&node.owner);
            requirements.address_regex.clone_from(&node.address_regex);
            requirements.terms = node.terms_and_conditions.as_ref().map(ToString::to_string);
        }
        Ok(requirements)
    }

    /// The first of them that this node does not meet.
    ///
    /// # Errors
    /// [`Elsewhere`], naming the field.
    pub fn unmet(&self, node: &Facts) -> Result<(), Elsewhere> {
        let other = |text: String| Err(Elsewhere::Other(text));
        match (&self.node_hash, &node.hash) {
            (Some(_), None) => return Err(Elsewhere::Nameless),
            (Some(wanted), Some(own)) if wanted != own => {
                return Err(Elsewhere::Pinned(wanted.clone()));
            }
            _ => {}
        }
        if let Some(owner) = &self.owner
            && !node
                .owner
                .as_ref()
                .is_some_and(|own| own.eq_ignore_ascii_case(owner))
        {
            return other(format!("node.owner: this node is not {owner}'s"));
        }
        if let Some(pattern) = &self.address_regex {
            match RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build() {
                Err(error) => {
                    let why = error.to_string().replace('\n', " ");
                    return other(format!("node.address_regex: {pattern:?} is refused: {why}"));
                }
                Ok(regex) if !node.urls.iter().any(|url| regex.is_match(url)) => {
                    return other(format!(
                        "node.address_regex: {pattern:?} does not match this node's address"
                    ));
                }
                Ok(_) => {}
            }
        }
        if let Some(terms) = &self.terms
            && node.terms.as_ref() != Some(terms)
        {
            return other(format!(
                "node.terms_and_conditions: this node's are not those that were accepted, {terms}"
            ));
        }
        if let Some(vendor) = &self.vendor
            && !vendor.eq_ignore_ascii_case(&node.vendor)
        {
            return other(format!(
                "cpu.vendor: this node's processor is {}'s, not {vendor}'s",
                node.vendor
            ));
        }
        match self
            .features
            .iter()
            .find(|one| !node.features.contains(one))
        {
            Some(lacking) => other(format!(
                "cpu.features: a guest's processor here has no {lacking}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> Facts {
        Facts {
            hash: Some("a".repeat(64)),
            owner: Some("0xAb".to_owned()),
            urls: vec!["https://crn.example.org".to_owned()],
            terms: Some("b".repeat(64)),
            vendor: "AuthenticAMD".to_owned(),
            features: vec!["avx2".to_owned(), "aes".to_owned()],
        }
    }

    /// R18: requirements of the node were not looked at.
    #[test]
    fn each_requirement_is_met_or_refused_by_its_name() {
        type Change = fn(&mut Requirements, &str);
        let cases: [(&str, &str, &str, Change); 6] = [
            (
                "node.node_hash",
                &"a".repeat(64),
                &"c".repeat(64),
                |r, v| r.node_hash = Some(v.into()),
            ),
            ("node.owner", "0xaB", "0xcd", |r, v| {
                r.owner = Some(v.into())
            }),
            (
                "node.address_regex",
                r"^https://.*\.example\.org$",
                "example.net",
                |r, v| r.address_regex = Some(v.into()),
            ),
            (
                "node.terms_and_conditions",
                &"b".repeat(64),
                &"c".repeat(64),
                |r, v| r.terms = Some(v.into()),
            ),
            ("cpu.vendor", "authenticamd", "GenuineIntel", |r, v| {
                r.vendor = Some(v.into())
            }),
            ("cpu.features", "aes", "sev_snp", |r, v| {
                r.features = vec!["avx2".into(), v.into()]
            }),
        ];
        for (field, right, wrong, change) in cases {
            let mut requirements = Requirements::default();
            change(&mut requirements, right);
            assert_eq!(requirements.unmet(&facts()), Ok(()), "{field}");
            change(&mut requirements, wrong);
            let said = requirements.unmet(&facts()).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("requirements.{field}: ")),
                "{said}"
            );
            // A node that has been told nothing is nobody's.
            change(&mut requirements, right);
            assert!(requirements.unmet(&Facts::default()).is_err(), "{field}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_too_much_is_refused_by_name() {
        let requirements = Requirements {
            address_regex: Some(r"(\pL{1000}){1000}".to_owned()),
            ..Requirements::default()
        };
        let said = requirements.unmet(&facts()).unwrap_err().to_string();
        assert!(
            said.starts_with("requirements.node.address_regex: "),
            "{said}"
        );
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_pattern_there_is_an_answer(pattern in ".{0,256}") {
            let requirements = Requirements { address_regex: Some(pattern), ..Requirements::default() };
            let _ = requirements.unmet(&facts());
        }
    }
}
