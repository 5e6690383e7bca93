//! Agreement with the network's clients and nodes about signatures; `tests/vectors/signatures/generate.py` writes what is
//! compared here.
#![allow(
    clippy::unwrap_used,
    reason = "what tests call fails the test like the tests themselves"
)]

mod chance;
mod malformed;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aleph_message::{Chain, Envelope, ErrorCode, Scheme, SignatureError};
use serde_json::Value;

struct Vector {
    message: Value,
    envelope: Envelope,
    accepted: Vec<Value>,
    refused: Vec<Value>,
}

fn vectors() -> &'static [Vector] {
    static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
        let text = include_str!("../vectors/signatures/signatures.json");
        let vectors: Vec<Value> = serde_json::from_str(text).unwrap();
        let read = |vector: &Value| Vector {
            message: vector["message"].clone(),
            envelope: Envelope::parse(&vector["message"]).unwrap(),
            accepted: vector["accepted"].as_array().unwrap().clone(),
            refused: vector["refused"].as_array().unwrap().clone(),
        };
        vectors.iter().map(read).collect()
    });
    &VECTORS
}

fn changed(message: &Value, change: &Value) -> Envelope {
    let mut message = message.clone();
    for (field, value) in change.as_object().unwrap() {
        message[field] = value.clone();
    }
    Envelope::parse(&message).unwrap()
}

/// The first message of each chain.
fn samples() -> impl Iterator<Item = &'static Vector> {
    Chain::ALL
        .iter()
        .filter_map(|chain| vectors().iter().find(|one| one.envelope.chain == *chain))
}

fn sample(chain: Chain) -> Envelope {
    samples()
        .find(|vector| vector.envelope.chain == chain)
        .unwrap()
        .envelope
        .clone()
}

#[test]
fn what_the_clients_sign_is_accepted() {
    for vector in vectors() {
        assert_eq!(
            vector.envelope.check_signature(),
            Ok(()),
            "{}",
            vector.message
        );
        for change in &vector.accepted {
            let envelope = changed(&vector.message, change);
            assert_eq!(
                envelope.check_signature(),
                Ok(()),
                "{} {change}",
                vector.message
            );
        }
    }
}

#[test]
fn every_change_that_nodes_refuse_is_refused_with_the_field() {
    for vector in vectors() {
        for change in &vector.refused {
            let envelope = changed(&vector.message, change);
            let error = envelope
                .check_signature()
                .expect_err(&format!("{} {change}", vector.message))
                .to_string();
            assert!(
                error.starts_with("sender: ") || error.starts_with("signature"),
                "{error}"
            );
            let rejection = envelope.verify_signature().unwrap_err();
            assert_eq!(rejection.code, ErrorCode::InvalidSignature);
            assert_eq!(rejection.reason(), error);
        }
    }
}

#[test]
fn every_chain_with_signatures_has_messages_here_and_the_others_are_unknown() {
    let here: BTreeSet<Chain> = vectors().iter().map(|one| one.envelope.chain).collect();
    for chain in Chain::ALL {
        assert_eq!(
            here.contains(chain),
            chain.scheme() != Scheme::Unsupported,
            "{chain}"
        );
        let mut envelope = sample(Chain::Eth);
        envelope.chain = *chain;
        if chain.scheme() == Scheme::Unsupported {
            assert_eq!(
                envelope.check_signature(),
                Err(SignatureError::UnknownChain)
            );
            let rejection = envelope.verify_signature().unwrap_err();
            assert_eq!(rejection.code, ErrorCode::InvalidFormat);
            assert_eq!(rejection.reason(), "Unknown chain for validation");
        } else if *chain != Chain::Eth {
            assert!(envelope.check_signature().is_err(), "{chain}");
        }
        for missing in [None, Some(String::new())] {
            envelope.signature = missing;
            assert_eq!(envelope.check_signature(), Err(SignatureError::Missing));
        }
    }
}

#[test]
fn a_signature_that_carries_another_key_names_the_address_of_that_key() {
    for chain in [
        Chain::Sol,
        Chain::Eclipse,
        Chain::Tezos,
        Chain::Csdk,
        Chain::Nuls,
    ] {
        let mut envelope = sample(chain);
        let of_chain = |one: &&Vector| one.envelope.chain == chain;
        let other = vectors().iter().rfind(of_chain).unwrap();
        assert_ne!(other.envelope.sender, envelope.sender);
        envelope.signature = other.envelope.signature.clone();
        let signer = other.envelope.sender.clone();
        assert_eq!(
            envelope.check_signature(),
            Err(SignatureError::OtherSigner { signer })
        );
    }
}
