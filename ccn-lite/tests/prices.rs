//! What things cost on a running node: told before and after, following the price list.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test like the tests themselves"
)]

mod support;

use aleph_message::{Envelope, Keypair, MessageType};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::money::{credits, grant, grants, network};
use support::{Ccn, now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_are_told_before_and_after_and_follow_the_price_list() {
    let (authority, config) = network("");
    let ccn = Ccn::start(&config).await;
    let alice = Keypair::generate();
    let a = alice.address();
    let time = now() - 100.0;
    let granted = grants(json!([grant(&a, 100_000_000)]));
    ccn.take(&credits(
        &authority,
        "aleph_credit_distribution",
        time,
        granted,
    ))
    .await;
    let image = ccn.store(&alice, &[7; 1 << 20], "credit", time).await;
    let instance = json!({"allow_amend": false, "environment": {"hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 2048}, "payment": {"type": "credit"},
        "rootfs": {"parent": {"ref": image}, "persistence": "host", "size_mib": 20480}});

    // By content, by message, and unfinished: the same price.
    let (status, estimated) = ccn
        .post_json("/api/v0/price/estimate/instance", &{
            let mut content = instance.clone();
            content["address"] = json!(a);
            content
        })
        .await;
    assert_eq!(
        (status, &estimated["cost"]),
        (200, &json!("3.958333333333333333")),
        "{estimated}"
    );
    assert_eq!(estimated["detail"][1]["size_mib"], 20480.0);
    let message =
        Envelope::sign(&alice, MessageType::Instance, None, time + 1.0, instance).unwrap();
    let (_, by_message) = ccn
        .post_json("/api/v0/price/estimate", &json!({"message": message}))
        .await;
    assert_eq!(by_message, estimated);
    let hash = ccn.take(&message).await;
    let priced = ccn.ok(&format!("/api/v0/price/{hash}")).await;
    assert_eq!(
        (
            &priced["cost"],
            &priced["required_tokens"],
            &priced["charged_address"]
        ),
        (
            &json!("3.958333333333333333"),
            &json!(3.958_333_333_333_333_5),
            &json!(a)
        )
    );
    let unknown = json!({"message": {"type": "STORE", "sender": a, "content": {"address": a, "time": time,
        "item_type": "storage", "item_hash": "c".repeat(64), "payment": {"type": "hold"}, "estimated_size_mib": 3}}});
    let (_, store) = ccn.post_json("/api/v0/price/estimate", &unknown).await;
    assert_eq!(store["cost"], "0.999999999000000000");

    // All of an account, summed up, listed and taken apart.
    let costs = ccn
        .ok(&format!(
            "/api/v0/costs?address={a}&include_details=2&include_size=true"
        ))
        .await;
    assert_eq!(costs["summary"]["resource_count"], 2);
    assert_eq!(
        costs["summary"]["total_cost_credit"],
        "3.959581075627126812"
    );
    assert_eq!(costs["pagination_item"], "resources");
    let of_instance = costs["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["item_hash"] == *hash)
        .unwrap();
    assert_eq!(of_instance["detail"].as_array().unwrap().len(), 3);
    assert_eq!(ccn.get("/api/v0/costs?include_details=2").await.0, 422);
    assert_eq!(ccn.get("/api/v0/costs?pagination=5").await.0, 422);

    // A new price list is for what comes after it.
    let mut list = ccn
        .ok(&format!(
            "/api/v0/aggregates/{}.json?keys=pricing",
            authority.address()
        ))
        .await["data"]["pricing"]
        .take();
    list["instance"]["price"]["compute_unit"]["credit"] = json!("36000");
    let aggregate = json!({"key": "pricing", "content": list});
    ccn.take(
        &Envelope::sign(
            &authority,
            MessageType::Aggregate,
            None,
            time + 50.0,
            aggregate,
        )
        .unwrap(),
    )
    .await;
    let (_, estimated) = ccn
        .post_json("/api/v0/price/estimate", &json!({"message": message}))
        .await;
    assert_eq!(estimated["cost"], "10.000000000000000000");
    assert_eq!(
        ccn.ok(&format!("/api/v0/price/{hash}")).await["cost"],
        "3.958333333333333333"
    );

    // Recalculating is for those on the machine, and uses the prices of the message's time.
    let path = format!("/api/v0/price/{hash}/recalculate");
    assert_eq!(ccn.post_json(&path, &json!({})).await.0, 401);
    let socket = ccn.state().join("admin.sock");
    let answer = local_post(&socket, &path).await;
    assert_eq!(answer["recalculated_count"], 1);
    assert_eq!(
        ccn.ok(&format!("/api/v0/price/{hash}")).await["cost"],
        "3.958333333333333333"
    );
    let answer = local_post(&socket, "/api/v0/price/recalculate").await;
    assert_eq!(
        (&answer["recalculated_count"], &answer["total_messages"]),
        (&json!(2), &json!(2))
    );

    // GPUs have the price of their model.
    let settings = json!({"key": "settings", "content": {"compatible_gpus": [{"device_id": "10de:2684", "model": "RTX 4090"}]}});
    ccn.take(
        &Envelope::sign(
            &authority,
            MessageType::Aggregate,
            None,
            time + 51.0,
            settings,
        )
        .unwrap(),
    )
    .await;
    let with_gpu = |device: &str| {
        json!({"address": a, "environment": {"hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 2048}, "payment": {"type": "credit"},
        "requirements": {"gpu": [{"vendor": "N", "device_name": "d", "device_class": "0300", "device_id": device}]},
        "rootfs": {"parent": {"ref": image}, "persistence": "host", "size_mib": 20480}})
    };
    let (status, gpu) = ccn
        .post_json("/api/v0/price/estimate/instance", &with_gpu("10de:2684"))
        .await;
    assert_eq!(
        (status, &gpu["detail"][0]["name"]),
        (200, &json!("instance_gpu_standard")),
        "{gpu}"
    );
    let (status, gpu) = ccn
        .post_json("/api/v0/price/estimate/instance", &with_gpu("10de:0000"))
        .await;
    assert_eq!(status, 422);
    assert!(gpu.to_string().contains("10de:0000"), "{gpu}");
}

async fn local_post(socket: &std::path::Path, path: &str) -> Value {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("host", "localhost")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}
