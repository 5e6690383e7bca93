//! What strangers say they have signed: an owner's two headers, the first frame of a WebSocket, a scheduler's header. A line
//! each: what a wallet signs, what its key signs, what a scheduler signs, and two headers as they are.

#![no_main]

use std::sync::LazyLock;

use aleph_message::operator::{Call, authenticate, authenticate_frame};
use aleph_message::{Keypair, allocation};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use time::OffsetDateTime;

const PATH: &str = "/control/machine/abc/stop";

static WALLET: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::from_hex(&"07".repeat(32)).expect("a key"));

/// As clients pack it.
fn signed(payload: &[u8]) -> Value {
    let signature = WALLET.sign_eip191(payload).expect("a signature");
    json!({"payload": hex::encode(payload), "signature": signature})
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .chain(std::iter::repeat(&[][..]));
    let mut line = || lines.next().unwrap_or_default();
    let (delegation, operation, request) = (line(), line(), line());
    let (pubkey, header) = (
        String::from_utf8_lossy(line()),
        String::from_utf8_lossy(line()),
    );
    let call = Call {
        method: "POST",
        path: PATH,
        domain: "127.0.0.1",
        now: OffsetDateTime::from_unix_timestamp(1_767_268_800).expect("a time"),
    };
    let (wallets, keys) = (signed(delegation), signed(operation));
    let frame = json!({"auth": {"X-SignedPubKey": wallets, "X-SignedOperation": keys}});
    let answers = [
        authenticate(Some(&wallets.to_string()), Some(&keys.to_string()), &call),
        authenticate_frame(&frame, &call),
        authenticate(Some(&pubkey), Some(&header), &call),
    ];
    for refused in answers
        .into_iter()
        .map(|answer| answer.expect_err("nobody has the key"))
    {
        assert!(matches!(refused.status, 400 | 401) && !refused.reason.is_empty());
    }

    let signature = WALLET.sign_eip191(request).expect("a signature");
    let packed = format!(
        "Aleph-EIP191-V1 sig={signature},payload={}",
        hex::encode(request)
    );
    for header in [packed.as_str(), &pubkey] {
        if let Ok(signer) = allocation::verify(header, "POST", PATH, delegation, 1_767_268_800) {
            assert!(signer.signer.eq_ignore_ascii_case(&WALLET.address()));
        }
    }
});
