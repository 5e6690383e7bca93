//! What the node says about itself: the OpenAPI document, metrics, versions, and that everyone may ask.

use http::Method;
use serde_json::{Value, json};

use super::support::Node;

/// Whether `value` has the shape `schema` asks for, as far as the document's schemas go.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let named = document
            .pointer(pointer)
            .ok_or(format!("{reference} is not there"))?;
        return fits(document, named, value);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return Err(format!("{value} is not {kinds:?}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        words
            .contains(value)
            .then_some(())
            .ok_or(format!("{value} is none of {words:?}"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{name} is missing in {value}"));
        }
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            fits(document, member, value).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_documented_route_is_served_in_the_shape_it_has_in_the_document() {
    let key = aleph_message::Keypair::generate();
    let node = Node::start().await;
    let (store, file) = node.store(&key, b"bytes", json!({})).await;
    let post = node
        .accept(&super::support::post(&key, "t", json!({"tags": ["x"]})))
        .await;
    let rules = json!({"authorizations": [{"address": key.address()}]});
    node.accept(&super::support::aggregate(&key, "security", rules))
        .await;
    let (code, document) = node.get("/api/docs/openapi.json").await;
    assert_eq!((code, &document["openapi"]), (200, &json!("3.1.0")));
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(operation) = operations.get("get") else {
            continue;
        };
        let hash = if path.contains("/storage/by-") {
            &store
        } else if path.contains("/storage/") {
            &file
        } else if path.contains("/price/") {
            &store
        } else {
            &post
        };
        let concrete = path
            .replace("{hash}", hash)
            .replace("{address}/{ref}", &format!("{}/{store}", key.address()))
            .replace("{ref}", &store)
            .replace("{address}", &key.address())
            .replace("{page}", "1")
            .replace("{node}", &post);
        let answer = node.ask(Method::GET, &concrete, &[]).await;
        if path.starts_with("/api/ws0/") {
            assert!(answer.status.is_client_error(), "{path} without an upgrade");
            continue;
        }
        let may_be_empty = path.contains("credit_history") || path.contains("{node}");
        if may_be_empty && answer.status == 404 {
            continue;
        }
        assert_eq!(answer.status, 200, "{concrete}: {:?}", answer.body);
        seen += 1;
        let content = &operation["responses"]["200"]["content"];
        let media_type = answer.headers["content-type"].to_str().unwrap();
        let media_type = media_type.split(';').next().unwrap();
        assert!(
            content.get(media_type).is_some(),
            "{path} answers {media_type}"
        );
        if media_type == "application/json" {
            let value = serde_json::from_slice(&answer.body).unwrap();
            fits(&document, &content[media_type]["schema"], &value)
                .unwrap_or_else(|error| panic!("{concrete}: {error}"));
        }
        let head = node.ask(Method::HEAD, &concrete, &[]).await;
        assert_eq!(
            (head.status.as_u16(), head.body.len()),
            (200, 0),
            "HEAD {concrete}"
        );
    }
    assert!(seen > 30, "{seen}");
    let page = node.ask(Method::GET, "/api/docs", &[]).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("<code>GET /api/v0/messages.json</code>"));
}

#[tokio::test]
async fn no_value_of_a_documented_parameter_breaks_the_node() {
    let node = Node::start().await;
    let (_, document) = node.get("/api/docs/openapi.json").await;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let concrete = path
            .replace("{hash}", &"a".repeat(64))
            .replace("{address}", "0xabc")
            .replace("{ref}", "name")
            .replace("{page}", "1");
        for parameter in operations["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if parameter["in"] != "query" {
                continue;
            }
            let name = parameter["name"].as_str().unwrap();
            for value in [
                "",
                "0",
                "1",
                "-1",
                "18446744073709551616",
                "1e400",
                "x",
                ",",
                "%00",
                "%F0%9F%A6%80",
                "%ff",
                "[]",
            ] {
                let (code, body) = node.get(&format!("{concrete}?{name}={value}")).await;
                assert!(code < 500, "{concrete}?{name}={value}: {code} {body}");
            }
        }
    }
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_know() {
    let node = Node::start().await;
    let key = aleph_message::Keypair::generate();
    node.accept(&super::support::post(&key, "t", json!(1)))
        .await;
    let (_, metrics) = node.get("/metrics.json").await;
    for (name, value) in [
        ("pyaleph_status_peers_total", 0),
        ("pyaleph_status_sync_messages_total", 1),
        ("pyaleph_status_sync_permanent_files_total", 0),
        ("pyaleph_status_sync_pending_messages_total", 0),
        ("pyaleph_status_sync_pending_txs_total", 0),
        ("pyaleph_status_chain_eth_last_committed_height", 0),
        ("pyaleph_status_chain_eth_height_reference_total", 0),
        ("pyaleph_status_chain_eth_height_remaining_total", 0),
        ("pyaleph_status_sync_messages_reference_total", 1),
        ("pyaleph_status_sync_messages_remaining_total", 0),
        ("pyaleph_processing_pending_messages_tasks_total", 0),
        ("pyaleph_ws_messages_connections_active", 0),
        ("pyaleph_ws_messages_connections_max", 4096),
        ("pyaleph_ws_status_connections_active", 0),
        ("pyaleph_ws_status_connections_max", 4096),
        ("pyaleph_ws_messages_broadcast_total", 0),
        ("pyaleph_ws_messages_connections_rejected_total", 0),
        ("pyaleph_ws_status_connections_rejected_total", 0),
        ("pyaleph_ws_broadcaster_consumer_restarts_total", 0),
        ("pyaleph_store_fetch_ipfs_total", 0),
        ("pyaleph_store_fetch_ipfs_failed_total", 0),
        ("pyaleph_store_fetch_ipfs_duration_ms_sum", 0),
        ("pyaleph_store_fetch_storage_total", 0),
        ("pyaleph_store_fetch_storage_failed_total", 0),
        ("pyaleph_store_fetch_storage_duration_ms_sum", 0),
    ] {
        assert_eq!(metrics[name], value, "{name}");
    }
    let version = metrics["pyaleph_build_info"]["version"].as_str().unwrap();
    assert_eq!(node.get("/version").await.1, json!({"version": version}));
    assert_eq!(
        node.get("/api/v0/version").await.1,
        json!({"version": version})
    );
    let (_, text) = node.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(text.contains(&format!("version=\"{version}\"}} 1\n")));
    assert!(text.contains("\npyaleph_status_sync_messages_total 1\n"));
    assert_eq!(
        node.get("/api/v0/info/public.json").await.1["node_multi_addresses"],
        json!([])
    );
}

#[tokio::test]
async fn any_origin_may_ask() {
    let node = Node::start().await;
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "content-type,x-signedpubkey",
        ),
    ];
    let answer = node
        .ask(Method::OPTIONS, "/api/v0/messages", &headers)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    assert_eq!(
        answer.headers["access-control-allow-headers"],
        "content-type,x-signedpubkey"
    );
    let answer = node
        .ask(Method::GET, "/api/v0/messages/nothing", &headers[..1])
        .await;
    assert_eq!(
        (
            answer.status.as_u16(),
            &answer.headers["access-control-allow-origin"]
        ),
        (400, &"*".parse().unwrap())
    );
}

#[tokio::test]
async fn programs_that_start_on_messages_are_listed_with_what_they_want() {
    let credits = |address: &str| {
        format!("[[genesis.balances]]\naddress = \"{address}\"\namount = \"100000\"")
    };
    let key = aleph_message::Keypair::generate();
    let node = Node::start_with(&credits(&key.address())).await;
    let (code, _) = node.store(&key, b"code", json!({})).await;
    let program = |on: Value| {
        super::support::signed(
            &key,
            aleph_message::MessageType::Program,
            json!({"type": "vm-function", "allow_amend": true, "resources": {}, "environment": {}, "payment": null,
                "code": {"encoding": "plain", "entrypoint": "main", "ref": code},
                "runtime": {"ref": code, "comment": ""}, "on": on}),
        )
    };
    node.accept(&program(json!({"http": true}))).await;
    let hash = node
        .accept(&program(
            json!({"http": false, "message": [{"channel": "C"}]}),
        ))
        .await;
    let (_, list) = node.get("/api/v0/programs/on/message").await;
    assert_eq!(
        list,
        json!([{"item_hash": hash, "content": {"on": {"message": [{"channel": "C"}]}}}])
    );
}
