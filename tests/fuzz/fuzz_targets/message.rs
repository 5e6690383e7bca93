//! Messages of any content: as they come, and as what somebody has signed.

#![no_main]

use std::sync::LazyLock;

use aleph_message::{Content, Envelope, Keypair, MessageType};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static WALLET: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::from_hex(&"07".repeat(32)).expect("a key"));

const KINDS: [MessageType; 6] = [
    MessageType::Program,
    MessageType::Instance,
    MessageType::Store,
    MessageType::Aggregate,
    MessageType::Post,
    MessageType::Forget,
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    if let Ok((envelope, content)) = Envelope::parse_with_content(&value) {
        // Whether it is genuine, and its content one, are its own affair.
        let _ = (envelope.verify_hash(), envelope.verify_signature());
        assert_eq!(
            envelope.inline_content().is_ok_and(|own| own.is_some()),
            content.is_some()
        );
    }
    let _ = Envelope::parse_remains(&value);
    for kind in KINDS {
        let Ok(content) = Content::parse(kind, value.clone()) else {
            continue;
        };
        assert_eq!(content.message_type(), kind);
        let signed = Envelope::sign(&WALLET, kind, None, content.time(), value.clone());
        if let Ok(signed) = signed {
            let sent = json!(signed);
            if let Ok(received) = Envelope::parse(&sent) {
                assert!(received.verify_hash().is_ok() && received.verify_signature().is_ok());
            }
        }
    }
});
