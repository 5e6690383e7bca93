//! Accounts on a running node: balances and credits by messages, and what happens to those who can no
//! longer pay.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use aleph_message::{Envelope, Keypair, MessageType};
use serde_json::{Value, json};
use support::money::{balances, credits, grant, grants, network};
use support::{Ccn, now, post};

async fn credit_balance(ccn: &Ccn, address: &str) -> i64 {
    let body = ccn
        .ok(&format!("/api/v0/addresses/{address}/balance"))
        .await;
    body["credit_balance"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_are_granted_spent_and_handed_on_and_the_history_tells() {
    let (authority, config) = network("");
    let ccn = Ccn::start(&config).await;
    let (alice, bob) = (Keypair::generate(), Keypair::generate());
    let (a, b) = (alice.address(), bob.address());
    let start = now() - 1000.0;
    let soon = ((start + 5000.0) * 1000.0) as i64;

    // Two lots for Alice, the first of which ends in an hour or so.
    let mut expiring = grant(&a, 100);
    expiring["expiration"] = json!(soon);
    let granted = grants(json!([expiring, grant(&a, 1000), grant(&b, 5)]));
    ccn.take(&credits(
        &authority,
        "aleph_credit_distribution",
        start,
        granted,
    ))
    .await;
    assert_eq!(credit_balance(&ccn, &a).await, 1100);

    // An expense takes from the oldest lot first; what was booked is told by message and by resource.
    let resource = "e".repeat(64);
    let expense = json!({"expense": {"credits": [
        {"address": a, "amount": 30, "execution_id": resource, "node_id": "n", "ref": "r", "count": 2, "size": 1.5}]}});
    ccn.take(&credits(
        &authority,
        "aleph_credit_expense",
        start + 1.0,
        expense,
    ))
    .await;
    let body = ccn
        .ok(&format!(
            "/api/v0/addresses/{a}/balance?include_credit_details=true"
        ))
        .await;
    let lots: Vec<i64> = body["credit_balance_details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lot| lot["amount"].as_i64().unwrap())
        .collect();
    assert_eq!(
        (lots, &body["credit_balance"]),
        (vec![70, 1000], &json!(1070))
    );

    // A transfer of more than the first lot: each part keeps the earlier expiry.
    let later = soon + 1_000_000;
    let transfer =
        json!({"transfer": {"credits": [{"address": b, "amount": 100, "expiration": later}]}});
    ccn.take(&credits(
        &alice,
        "aleph_credit_transfer",
        start + 2.0,
        transfer,
    ))
    .await;
    assert_eq!(
        (
            credit_balance(&ccn, &a).await,
            credit_balance(&ccn, &b).await
        ),
        (970, 105)
    );
    let body = ccn
        .ok(&format!(
            "/api/v0/addresses/{b}/balance?include_credit_details=true"
        ))
        .await;
    let lots = body["credit_balance_details"].as_array().unwrap();
    assert_eq!(lots.len(), 3);
    assert_eq!(
        lots.iter()
            .filter(|lot| lot["expiration_date"].is_null())
            .count(),
        1
    );
    assert_ne!(lots[1]["expiration_date"], lots[2]["expiration_date"]);

    let history = ccn
        .ok(&format!(
            "/api/v0/addresses/{a}/credit_history?sort_order=1"
        ))
        .await;
    let entries = history["credit_history"].as_array().unwrap();
    let amounts: Vec<i64> = entries
        .iter()
        .map(|e| e["amount"].as_i64().unwrap())
        .collect();
    assert_eq!(amounts, [100, 1000, -30, -100]);
    assert_eq!(entries[0]["price"], "0.5");
    assert_eq!(
        (&entries[0]["token"], &entries[0]["provider"]),
        (&json!("ALEPH"), &json!("WALLET"))
    );
    assert_eq!(
        (
            &entries[2]["tx_hash"],
            &entries[2]["origin"],
            &entries[2]["origin_ref"],
            &entries[2]["provider"]
        ),
        (&json!("n"), &json!(resource), &json!("r"), &json!("ALEPH"))
    );
    assert_eq!(
        (
            &entries[2]["expense_count"],
            &entries[2]["expense_size_mib"]
        ),
        (&json!(2), &json!(1.5))
    );
    assert_eq!(
        (&entries[3]["payment_method"], &entries[3]["origin"]),
        (&json!("credit_transfer"), &json!(b))
    );

    let outgoing = ccn
        .ok(&format!(
            "/api/v0/addresses/{a}/credit_history/summary?direction=outgoing"
        ))
        .await;
    assert_eq!(
        (&outgoing["entry_count"], &outgoing["total_outgoing"]),
        (&json!(2), &json!(130))
    );
    let all = ccn
        .ok(&format!("/api/v0/addresses/{a}/credit_history/summary"))
        .await;
    assert_eq!(
        (&all["total_amount"], &all["total_incoming"]),
        (&json!(970), &json!(1100))
    );
    let of_resource = ccn
        .ok(&format!(
            "/api/v0/addresses/{a}/credit_history?resource={resource}"
        ))
        .await;
    assert_eq!(of_resource["pagination_total"], 1);
    assert_eq!(ccn.get("/api/v0/addresses/0x0/credit_history").await.0, 404);

    // The same through a cursor, one entry a page.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ccn
            .ok(&format!(
                "/api/v0/addresses/{a}/credit_history?sort_order=1&pagination=1&cursor={cursor}"
            ))
            .await;
        seen.extend(
            page["credit_history"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["amount"].as_i64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, amounts);
    let everybody = ccn.ok("/api/v0/credit_balances?min_balance=100").await;
    assert_eq!(everybody["pagination_total"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_come_from_the_authority_in_its_channel_and_never_from_nothing() {
    let (authority, config) = network("");
    let ccn = Ccn::start(&config).await;
    let (alice, bob) = (Keypair::generate(), Keypair::generate());
    let (a, b) = (alice.address(), bob.address());
    let time = now() - 100.0;

    // Elsewhere, or from anybody else, it is a post like any other.
    let granted = grants(json!([grant(&a, 100)]));
    let kind = "aleph_credit_distribution";
    ccn.take(&post(&authority, kind, None, time - 2.0, granted.clone()))
        .await;
    ccn.take(&credits(&alice, kind, time - 1.0, granted.clone()))
        .await;
    assert_eq!(credit_balance(&ccn, &a).await, 0);
    ccn.take(&credits(&authority, kind, time, granted)).await;
    assert_eq!(credit_balance(&ccn, &a).await, 100);

    let transfer = |entries: Value| json!({"transfer": {"credits": entries}});
    let refused = [
        (
            transfer(json!([{"address": b, "amount": 101}])),
            "Insufficient credit balance",
        ),
        (transfer(json!([{"address": a, "amount": 1}])), "oneself"),
        (
            transfer(
                json!([{"address": b, "amount": 1}, {"address": b.to_lowercase(), "amount": 1}]),
            ),
            "once",
        ),
        (
            transfer(json!([{"address": b, "amount": 1.0}])),
            "transfer.credits[0].amount",
        ),
        (
            transfer(json!([{"address": b, "amount": 0}])),
            "transfer.credits[0].amount",
        ),
        (transfer(json!([])), "transfer.credits"),
        (json!({"transfer": 1}), "transfer.credits"),
    ];
    for (number, (content, reason)) in refused.into_iter().enumerate() {
        let message = credits(
            &alice,
            "aleph_credit_transfer",
            time + number as f64,
            content,
        );
        let (status, body) = ccn.publish(&message).await;
        assert_eq!((status, &body["error_code"]), (422, &json!(0)), "{body}");
        assert!(body["details"].to_string().contains(reason), "{body}");
    }
    assert_eq!(
        (
            credit_balance(&ccn, &a).await,
            credit_balance(&ccn, &b).await
        ),
        (100, 0)
    );

    // The authority hands on what did not exist.
    let minted = transfer(json!([{"address": b, "amount": 7}]));
    ccn.take(&credits(&authority, "aleph_credit_transfer", time, minted))
        .await;
    assert_eq!(credit_balance(&ccn, &b).await, 7);

    // An expense beyond everything leaves nothing, and the history has all of it.
    let expense = json!({"expense": {"credits": [{"address": b, "amount": 50}]}});
    ccn.take(&credits(
        &authority,
        "aleph_credit_expense",
        time + 1.0,
        expense,
    ))
    .await;
    assert_eq!(credit_balance(&ccn, &b).await, 0);
    let summary = ccn
        .ok(&format!("/api/v0/addresses/{b}/credit_history/summary"))
        .await;
    assert_eq!(summary["total_amount"], -43);

    // Before the change of precision a credit was worth more.
    let old = grants(json!([grant(&b, 3)]));
    ccn.take(&credits(
        &authority,
        "aleph_credit_distribution",
        999.0,
        old,
    ))
    .await;
    assert_eq!(credit_balance(&ccn, &b).await, 30_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balances_follow_the_highest_block_and_leave_out_applications() {
    let (authority, config) = network("");
    let ccn = Ccn::start(&config).await;
    let alice = Keypair::generate().address();
    let time = now() - 100.0;
    let held = async |ccn: &Ccn| {
        ccn.ok(&format!("/api/v0/addresses/{alice}/balance")).await["balance"].clone()
    };

    ccn.take(&balances(
        &authority,
        time,
        10,
        json!({&alice: 12.5, "0xB": 0.0000001}),
    ))
    .await;
    assert_eq!(held(&ccn).await, 12.5);
    ccn.take(&balances(&authority, time + 1.0, 10, json!({&alice: 1})))
        .await;
    assert_eq!(held(&ccn).await, 12.5);
    ccn.take(&balances(&authority, time + 2.0, 11, json!({"0xB": 3})))
        .await;
    assert_eq!(held(&ccn).await, 12.5);
    let elsewhere = json!({"chain": "BASE", "main_height": 1, "balances": {&alice: 0.5}});
    ccn.take(&post(
        &authority,
        "balances-update",
        None,
        time + 3.0,
        elsewhere,
    ))
    .await;
    let locked =
        json!({"chain": "ETH", "main_height": 20, "dapp": "SABLIER", "balances": {&alice: 100}});
    ccn.take(&post(
        &authority,
        "balances-update",
        None,
        time + 4.0,
        locked,
    ))
    .await;
    assert_eq!(held(&ccn).await, 13.0);
    let stranger = Keypair::generate();
    ccn.take(&balances(&stranger, time, 99, json!({&alice: 1_000_000})))
        .await;
    assert_eq!(held(&ccn).await, 13.0);

    let one = ccn
        .ok(&format!("/api/v0/addresses/{alice}/balance?chain=BASE"))
        .await;
    assert_eq!(
        (&one["balance"], &one["details"]),
        (&json!(0.5), &json!({"BASE": 0.5}))
    );
    let listed = ccn.ok("/api/v0/balances?chains=ETH&min_balance=1").await;
    assert_eq!(listed["pagination_total"], 2);
    let mut pages = 0;
    let mut cursor = String::new();
    loop {
        let page = ccn
            .ok(&format!("/api/v0/balances?pagination=1&cursor={cursor}"))
            .await;
        pages += page["balances"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, 3);

    let nonsense = [
        json!({"chain": "MOON", "main_height": 1, "balances": {}}),
        json!({"chain": "ETH", "balances": {}}),
        json!({"chain": "ETH", "main_height": 1, "balances": {"0xA": "many"}}),
    ];
    for content in nonsense {
        let (status, body) = ccn
            .publish(&post(&authority, "balances-update", None, time, content))
            .await;
        assert_eq!((status, &body["error_code"]), (422, &json!(0)), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_no_longer_be_paid_goes_and_comes_back_with_the_money() {
    let (authority, config) = network("[limits]\nmax_unauthenticated_file_bytes = 1000\n");
    let ccn = Ccn::start(&config).await;
    let alice = Keypair::generate();
    let a = alice.address();
    let time = now() - 100.0;
    ccn.take(&balances(&authority, time, 1, json!({&a: 1})))
        .await;
    // A third of a token each, and one that is free for its size.
    let first = ccn.store(&alice, &[1; 1 << 20], "hold", time).await;
    let second = ccn.store(&alice, &[2; 1 << 20], "hold", time + 1.0).await;
    let small = ccn.store(&alice, &[3; 999], "hold", time + 2.0).await;
    let body = ccn.ok(&format!("/api/v0/addresses/{a}/balance")).await;
    assert!(
        (body["locked_amount"].as_f64().unwrap() - 0.667).abs() < 0.001,
        "{body}"
    );

    ccn.take(&balances(&authority, time + 3.0, 2, json!({&a: 0.5})))
        .await;
    assert_eq!(ccn.status(&first).await, "processed");
    assert_eq!(ccn.status(&second).await, "removing");
    assert_eq!(ccn.status(&small).await, "processed");
    let body = ccn.ok(&format!("/api/v0/messages/{second}")).await;
    assert_eq!(body["reason"], "balance_insufficient");

    ccn.take(&balances(&authority, time + 4.0, 3, json!({&a: 1})))
        .await;
    assert_eq!(ccn.status(&second).await, "processed");

    // A FORGET frees means as well.
    ccn.take(&balances(&authority, time + 5.0, 4, json!({&a: 0.5})))
        .await;
    assert_eq!(ccn.status(&second).await, "removing");
    let forget = json!({"hashes": [first]});
    ccn.take(&Envelope::sign(&alice, MessageType::Forget, None, time + 6.0, forget).unwrap())
        .await;
    assert_eq!(ccn.status(&second).await, "processed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_end_take_what_they_paid_for_with_them_and_in_the_end_only_a_skeleton_is_left()
{
    let (authority, config) = network("");
    let mut ccn = Ccn::start(&config).await;
    let alice = Keypair::generate();
    let a = alice.address();
    let time = now();
    let mut expiring = grant(&a, 1000);
    expiring["expiration"] = json!(((now() + 2.0) * 1000.0) as i64);
    let granted = grants(json!([expiring]));
    ccn.take(&credits(
        &authority,
        "aleph_credit_distribution",
        time - 1.0,
        granted,
    ))
    .await;
    let file = ccn.store(&alice, b"short-lived", "credit", time).await;
    assert_eq!(ccn.status(&file).await, "processed");
    ccn.until_status(&file, "removing").await;
    let body = ccn.ok(&format!("/api/v0/messages/{file}")).await;
    assert_eq!(body["reason"], "credit_insufficient");
    let again = json!({"sync": true, "message": body["message"]});
    let (code, answer) = ccn.post_json("/api/v0/messages", &again).await;
    assert_eq!((code, &answer["message_status"]), (200, &json!("removing")));

    // A day and an hour later, made to have passed.
    let database = ccn.state().join("ccn-lite.sqlite");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute("UPDATE removing SET delete_by = 1", [])
        .unwrap();
    ccn.restart().await;
    ccn.until_status(&file, "removed").await;
    let (code, answer) = ccn.post_json("/api/v0/messages", &again).await;
    assert_eq!((code, &answer["message_status"]), (410, &json!("removed")));
    let body = ccn.ok(&format!("/api/v0/messages/{file}")).await;
    assert_eq!(
        (&body["reason"], &body["size"]),
        (&json!("credit_insufficient"), &json!(11))
    );
    assert!(body["message"].get("content").is_none(), "{body}");
    let listed = ccn.ok("/api/v0/messages.json?msgStatuses=removed").await;
    assert_eq!(listed["messages"][0]["item_hash"], file.as_str());
    assert_eq!(
        ccn.get(&format!("/api/v0/addresses/{a}/files")).await.0,
        404
    );
    // The price of a file is still known.
    let price = ccn.ok(&format!("/api/v0/price/{file}")).await;
    assert_eq!(
        (&price["payment_type"], &price["cost"]),
        (&json!("credit"), &json!("0.001247742293793479"))
    );
    let (sound, report) =
        support::program(&["verify".as_ref(), "--config".as_ref(), &ccn.config()]);
    assert!(sound, "{report}");
}
