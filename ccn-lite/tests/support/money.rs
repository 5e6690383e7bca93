//! Messages of an authority over balances and credits.

use aleph_message::{Envelope, Keypair};
use serde_json::{Value, json};

use super::post;

/// The authority over balances and credits of these networks, and their configuration.
pub fn network(more: &str) -> (Keypair, String) {
    let authority = Keypair::generate();
    let address = authority.address();
    let config = format!(
        "[scheduler]\nenabled = false\n[channels]\ncredits = [\"LAB_CREDIT\"]\n\
         [authorities]\npricing = {address:?}\nbalances = [{address:?}]\ncredits = [{address:?}]\n\
         [cutoffs]\ncredit_precision = 1000\nhold_and_stream = 4102444800\ncredit_only = 4102444800\n{more}"
    );
    (authority, config)
}

pub fn credits(key: &Keypair, kind: &str, time: f64, content: Value) -> Envelope {
    post(key, kind, Some("LAB_CREDIT"), time, content)
}

pub fn grants(entries: Value) -> Value {
    json!({"distribution": {"token": "ALEPH", "chain": "ETH", "credits": entries}})
}

pub fn grant(address: &str, amount: i64) -> Value {
    json!({"address": address, "amount": amount, "price": "0.5", "tx_hash": "0xT", "provider": "WALLET",
        "payment_method": "token_payment"})
}

pub fn balances(key: &Keypair, time: f64, height: i64, balances: Value) -> Envelope {
    let content = json!({"chain": "ETH", "main_height": height, "balances": balances});
    post(key, "balances-update", None, time, content)
}
