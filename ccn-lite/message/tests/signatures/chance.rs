//! What holds for any bytes: nothing panics, and a signature with one bit changed is none.

use aleph_message::{Chain, Envelope, ItemHash, ItemType, MessageType, Scheme};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::vectors;

/// Text of the bytes of a signature.
type Encode = Box<dyn Fn(&[u8]) -> String>;

/// The bytes of a signature that one flipped bit must spoil, and how a signature is written with others.
fn parts(envelope: &Envelope) -> (Vec<u8>, Encode) {
    let text = envelope.signature.clone().unwrap();
    let object: Value = serde_json::from_str(&text).unwrap_or_default();
    let member = |name: &'static str, encode: fn(&[u8]) -> String| {
        let object = object.clone();
        Box::new(move |bytes: &[u8]| {
            let mut object = object.clone();
            object[name] = encode(bytes).into();
            object.to_string()
        })
    };
    let from_base58 = |text: &Value| bs58::decode(text.as_str().unwrap()).into_vec().unwrap();
    match envelope.chain.scheme() {
        Scheme::Eip191 => {
            let mut bytes = hex::decode(text.trim_start_matches("0x")).unwrap();
            // Two values of v mean the same, and others stand for them with the number of a chain.
            let v = bytes.pop().unwrap();
            let encode = move |bytes: &[u8]| hex::encode([bytes, &[v]].concat());
            (bytes, Box::new(encode))
        }
        Scheme::Ed25519 => (
            from_base58(&object["signature"]),
            member("signature", base58),
        ),
        Scheme::Tezos => {
            let mut bytes = from_base58(&object["signature"]);
            bytes.truncate(bytes.len() - 4);
            let encode = |bytes: &[u8]| {
                let checksum = Sha256::digest(Sha256::digest(bytes));
                base58(&[bytes, &checksum[..4]].concat())
            };
            (bytes, member("signature", encode))
        }
        Scheme::Sr25519 => {
            let data = object["data"].as_str().unwrap();
            let bytes = hex::decode(data.trim_start_matches("0x")).unwrap();
            (bytes, member("data", |bytes| hex::encode(bytes)))
        }
        Scheme::Amino => {
            let bytes = STANDARD.decode(object["signature"].as_str().unwrap());
            let encode = |bytes: &[u8]| STANDARD.encode(bytes);
            (bytes.unwrap(), member("signature", encode))
        }
        Scheme::Avalanche => {
            let mut bytes = from_base58(&text.into());
            bytes.truncate(65);
            let encode = |bytes: &[u8]| base58(&[bytes, &Sha256::digest(bytes)[28..]].concat());
            (bytes, Box::new(encode))
        }
        Scheme::NulsStruct => (hex::decode(&text).unwrap(), Box::new(|b| hex::encode(b))),
        Scheme::NulsRecoverable => {
            let bytes = STANDARD.decode(&text).unwrap();
            (bytes, Box::new(|bytes| STANDARD.encode(bytes)))
        }
        Scheme::Unsupported => unreachable!("no message of the vectors is on such a chain"),
    }
}

fn base58(bytes: &[u8]) -> String {
    bs58::encode(bytes).into_string()
}

#[test]
fn the_bytes_of_signatures_are_found_and_put_back() {
    for vector in vectors() {
        let (bytes, encode) = parts(&vector.envelope);
        let mut envelope = vector.envelope.clone();
        envelope.signature = Some(encode(&bytes));
        assert_eq!(envelope.check_signature(), Ok(()));
    }
}

#[test]
fn what_is_left_of_a_forgotten_message_still_proves_its_sender() {
    for vector in vectors() {
        let mut value = serde_json::to_value(&vector.envelope).unwrap();
        value.as_object_mut().unwrap().remove("item_content");
        let remains = Envelope::parse_remains(&value).unwrap();
        assert_eq!(remains.check_signature(), Ok(()), "{}", remains.chain);
        value["item_hash"] = "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8".into();
        assert!(Envelope::parse_remains(&value).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_change_to_what_is_left_of_a_message_is_safe(
        vector in any::<prop::sample::Index>(), field in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just(Value::Null), any::<i64>().prop_map(Value::from), "\\PC{0,80}".prop_map(Value::from)
        ]
    ) {
        let envelope = &vector.get(vectors()).envelope;
        let mut remains = serde_json::to_value(envelope).unwrap();
        let fields: Vec<String> = remains.as_object().unwrap().keys().cloned().collect();
        remains[field.get(&fields)] = value;
        if let Ok(read) = Envelope::parse_remains(&remains) {
            prop_assert_eq!(read.item_content, None);
        }
    }

    #[test]
    fn a_flipped_bit_never_verifies(
        vector in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()
    ) {
        let mut envelope = vector.get(vectors()).envelope.clone();
        let (mut bytes, encode) = parts(&envelope);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        envelope.signature = Some(encode(&bytes));
        prop_assert!(envelope.check_signature().is_err(), "{} bit {bit}", envelope.chain);
    }

    #[test]
    fn a_flipped_bit_of_the_sender_never_verifies(
        vector in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0..7_u8
    ) {
        let mut envelope = vector.get(vectors()).envelope.clone();
        let mut sender = envelope.sender.clone().into_bytes();
        let byte = byte.index(sender.len());
        sender[byte] ^= 1 << bit;
        envelope.sender = String::from_utf8(sender).unwrap();
        prop_assert!(envelope.check_signature().is_err(), "{envelope:?}");
    }

    #[test]
    fn any_text_for_sender_and_signature_is_safe(
        chain in prop::sample::select(Chain::ALL), sender in "\\PC{0,256}", signature in "\\PC{0,300}", time in any::<f64>()
    ) {
        prop_assert!(envelope_of(chain, sender, signature, time).check_signature().is_err());
    }

    #[test]
    fn any_bytes_in_the_encodings_of_signatures_are_safe(
        chain in prop::sample::select(Chain::ALL), bytes in prop::collection::vec(any::<u8>(), 0..140),
        sender in any::<prop::sample::Index>()
    ) {
        let sender = sender.get(vectors()).envelope.sender.clone();
        for text in [hex::encode(&bytes), STANDARD.encode(&bytes), base58(&bytes)] {
            prop_assert!(envelope_of(chain, sender.clone(), text, 0.0).check_signature().is_err());
        }
    }

    #[test]
    fn any_member_of_a_signature_in_json_is_safe(
        vector in any::<prop::sample::Index>(), member in any::<prop::sample::Index>(),
        text in prop_oneof!["\\PC{0,120}", "[1-9A-HJ-NP-Za-km-z]{0,120}", "(0x)?[0-9a-f]{0,130}"], time in any::<f64>()
    ) {
        let mut envelope = vector.get(vectors()).envelope.clone();
        let signature = serde_json::from_str(envelope.signature.as_deref().unwrap());
        if let Ok(Value::Object(mut object)) = signature {
            let key = member.get(&object.keys().cloned().collect::<Vec<_>>()).clone();
            object.insert(key, text.into());
            envelope.signature = Some(Value::Object(object).to_string());
            envelope.time = time;
            let _ = envelope.check_signature();
        }
    }
}

fn envelope_of(chain: Chain, sender: String, signature: String, time: f64) -> Envelope {
    Envelope {
        sender,
        chain,
        message_type: MessageType::Post,
        signature: Some(signature),
        item_type: ItemType::Storage,
        item_content: None,
        item_hash: ItemHash::of(b""),
        time,
        channel: None,
    }
}
