//! Answers as spec crn-api has them, field by field, and what is said of what is not here.

use aleph_message::{ItemHash, Keypair, MessageType};
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixtures::{instance, instance_content, program_content};
use crate::support::{Node, squashfs};

/// Whether `answer` has every field of `expected`, of its type; a null stands for anything, an empty object for one that
/// may hold anything.
fn has_shape(at: &str, answer: &Value, expected: &Value) {
    match (answer, expected) {
        (_, Value::Null) => {}
        (Value::Object(answer), Value::Object(expected)) => {
            for (name, expected) in expected {
                let at = format!("{at}.{name}");
                let found = answer.get(name).unwrap_or_else(|| panic!("no {at}"));
                has_shape(&at, found, expected);
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(answer),
            std::mem::discriminant(expected),
            "{at}: {answer}"
        ),
    }
}

/// §1.6, §1.7, §8: schedulers, scoring, consoles and command lines read these and give up on a missing field.
#[tokio::test]
async fn what_the_node_says_of_itself_has_every_field_that_clients_read() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let hash = instance(&node, &owner);
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let networking = json!({"IPV6_ADDRESS_POOL": "", "IPV6_ALLOCATION_POLICY": "", "IPV6_SUBNET_PREFIX": 0,
        "IPV6_FORWARDING_ENABLED": true, "USE_NDP_PROXY": true});
    let config = json!({
        "DOMAIN_NAME": "", "node_hash": "", "version": "",
        "references": {"API_SERVER": "", "CHECK_FASTAPI_VM_ID": null, "CONNECTOR_URL": null},
        "security": {"USE_JAILER": true, "PRINT_SYSTEM_LOGS": true, "WATCH_FOR_UPDATES": true,
            "ALLOW_VM_NETWORKING": true, "USE_DEVELOPER_SSH_KEYS": true},
        "networking": networking,
        "debug": {"SENTRY_DSN_CONFIGURED": true, "DEBUG_ASYNCIO": true, "EXECUTION_LOG_ENABLED": true},
        "payment": {"PAYMENT_RECEIVER_ADDRESS": null, "AVAILABLE_PAYMENTS": {}, "PAYMENT_MONITOR_INTERVAL": 0.0},
        "computing": {"ENABLE_QEMU_SUPPORT": true, "INSTANCE_DEFAULT_HYPERVISOR": "",
            "ENABLE_CONFIDENTIAL_COMPUTING": true, "ENABLE_GPU_SUPPORT": true},
    });
    let usage = json!({
        "cpu": {"count": 0, "load_average": {"load1": 0.0, "load5": 0.0, "load15": 0.0},
            "core_frequencies": {"min": 0.0, "max": 0.0}},
        "mem": {"total_kB": 0, "available_kB": 0}, "disk": {"total_kB": 0, "available_kB": 0},
        "period": {"start_timestamp": "", "duration_seconds": 0.0},
        "properties": {"cpu": {"architecture": "", "vendor": "", "features": []}},
        "gpu": {"devices": [], "available_devices": []}, "active": true,
    });
    let capability = json!({
        "cpu": {"architecture": "", "vendor": "", "features": [], "model": "", "frequency": 0, "count": 0},
        "memory": {"size": 0, "units": "", "type": null, "clock": null, "clock_units": null},
    });
    let v1 = json!({"networking": {"ipv4": "", "ipv6": ""}, "vm_type": "", "awaiting_confidential_init": true});
    let v2 = json!({
        "networking": {"ipv4_network": "", "host_ipv4": "", "ipv6_network": "", "ipv6_ip": "", "ipv4_ip": "",
            "mapped_ports": {"22": {"host": 0, "tcp": true, "udp": true}}},
        "status": {"defined_at": "", "preparing_at": "", "prepared_at": "", "starting_at": "", "started_at": "",
            "stopping_at": null, "stopped_at": null},
        "running": true, "awaiting_confidential_init": true, "vm_type": "",
    });
    let record = json!({
        "uuid": "", "vm_hash": "", "vm_id": 0, "time_defined": "", "time_prepared": "", "time_started": "",
        "time_stopping": null, "cpu_time_user": 0.0, "cpu_time_system": null, "io_read_count": null,
        "io_write_count": null, "io_read_bytes": 0, "io_write_bytes": 0, "vcpus": 0, "memory": 0, "network_tap": "",
        "message": "", "original_message": "", "persistent": true, "gpus": "", "mapped_ports": {},
    });
    for (path, pointer, expected) in [
        ("/status/config", String::new(), config),
        ("/about/usage/system", String::new(), usage),
        ("/about/capability", String::new(), capability),
        ("/about/executions/list", format!("/{hash}"), v1),
        ("/v2/about/executions/list", format!("/{hash}"), v2),
        ("/about/executions/records", "/0".to_owned(), record),
    ] {
        let (status, answer) = node.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        has_shape(path, answer.pointer(&pointer).unwrap(), &expected);
    }
    let (status, index) = {
        let response = node
            .send(Request::head("/").body(Body::empty()).unwrap())
            .await;
        (response.status(), response.headers()["server"].clone())
    };
    assert_eq!(
        (status, index.as_bytes()),
        (StatusCode::OK, &b"aleph-vm/1.14.0"[..])
    );
}

/// §1.1, §1.2, §1.9: what is not here is not here in the words that clients look for.
#[tokio::test]
async fn what_is_not_here_is_said_in_the_words_of_the_interface() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let unknown = ItemHash::of(b"unknown");
    let error = |text: &str| json!({ "error": text }).to_string();
    for (method, path, expected) in [
        ("GET", "", format!("No virtual machine with ref {unknown}")),
        ("GET", "/logs", "No execution found for this VM".to_owned()),
        (
            "POST",
            "/stop",
            format!("No virtual machine with ref {unknown}"),
        ),
        (
            "POST",
            "/expire",
            format!("No virtual machine with ref {unknown}"),
        ),
    ] {
        let path = format!("/control/machine/{unknown}{path}");
        let answer = node.call(&owner, method, &path).await;
        assert_eq!(answer, (StatusCode::NOT_FOUND, error(&expected)), "{path}");
    }
    let answer = node
        .call(&owner, "POST", "/control/machine/nothing/stop")
        .await;
    assert_eq!(
        answer,
        (StatusCode::BAD_REQUEST, error("Invalid ref: 'nothing'"))
    );
    let url = format!(
        "ws://{}/control/machine/{unknown}/stream_logs",
        node.address
    );
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else {
        panic!("{refused}");
    };
    let said: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(
        said["error"],
        format!("No execution found for VM {unknown}")
    );
    assert_eq!(
        node.post_json(&format!("/control/machine/{unknown}/update"), json!({}))
            .await,
        (StatusCode::NOT_FOUND, json!({"error": "404: VM not found"}))
    );

    let nothing = json!({"error": "404: Not Found"});
    let nobody = json!({"error": "404: Invalid message reference"});
    for (method, path, expected) in [
        ("GET", "/control/nothing", &nothing),
        ("GET", "/status/nothing", &nothing),
        ("POST", "/control/nothing", &nobody),
        ("DELETE", "/about/nothing", &nobody),
        ("POST", "/", &nobody),
        ("GET", "/v2/nothing", &nobody),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty());
        let response = node.send(request.unwrap()).await;
        let said: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            (response.status(), &said),
            (StatusCode::NOT_FOUND, expected),
            "{method} {path}"
        );
    }
    // Bytes that are no text are a header that is wrong, not one that is missing.
    let request = Request::post(format!("/control/machine/{unknown}/stop"))
        .header("X-SignedPubKey", &b"\xff\xfe"[..])
        .body(Body::empty());
    let response = node.send(request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        response.body(),
        error("Invalid X-SignedPubKey format").as_bytes()
    );

    for (reference, expected) in [
        ("?reference=1.14.0rc1", StatusCode::OK),
        ("?reference=v1.14", StatusCode::OK),
        ("?reference=1.14.0.post1", StatusCode::FORBIDDEN),
        ("?reference=newest", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
    ] {
        let path = format!("/status/check/version{reference}");
        assert_eq!(node.get(&path).await.0, expected, "{path}");
    }
}

/// §1.0: consoles in browsers call owners' routes from anywhere; the scheduler's and programs' are none of theirs.
#[tokio::test]
async fn browsers_may_call_the_owners_routes_and_no_schedulers() {
    let node = Node::start().await;
    let machine = format!("/control/machine/{}", ItemHash::of(b"x"));
    let preflight = async |path: &str| {
        let request = Request::options(path)
            .header("Origin", "https://console.example.org")
            .header("Access-Control-Request-Method", "POST")
            .header(
                "Access-Control-Request-Headers",
                "x-signedpubkey,x-signedoperation",
            );
        let response = node.send(request.body(Body::empty()).unwrap()).await;
        let allowed = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        (
            allowed("access-control-allow-origin"),
            allowed("access-control-allow-credentials"),
            allowed("access-control-allow-headers"),
        )
    };
    let mirrored = (
        Some("https://console.example.org".to_owned()),
        Some("true".to_owned()),
        Some("x-signedpubkey,x-signedoperation".to_owned()),
    );
    for path in [
        "/about/login",
        "/v2/about/executions/list",
        "/about/usage/system",
        "/status/check/fastapi",
        "/control/allocation/notify",
        &format!("{machine}/stop"),
        &format!("{machine}/logs"),
        &format!("{machine}/update"),
        &format!("{machine}/reinstall"),
    ] {
        assert_eq!(preflight(path).await, mirrored, "{path}");
    }
    for path in [
        "/control/allocations",
        "/control/network/recreate",
        "/metrics",
    ] {
        assert_eq!(preflight(path).await, (None, None, None), "{path}");
    }
}

/// R18: `environment.internet` of an instance, and what is left of fields that nobody looked at.
#[tokio::test]
async fn an_instance_that_asks_for_no_internet_is_secluded_until_a_version_of_it_does() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "hold");
    content["allow_amend"] = true.into();
    content["environment"]["internet"] = false.into();
    let hash = node
        .ccn
        .publish(&owner, MessageType::Instance, content.clone());
    node.push(&[&hash]).await;
    node.until_running(&hash).await;
    let secluded = |node: &Node| node.bench.networks.lock().unwrap()[0].secluded;
    assert!(secluded(&node));
    // Also to the next agent, which has it from its ledger.
    let node = node.restarted().await;
    node.until(&hash, "started", |_| node.bench.started() == 1)
        .await;
    node.until_running(&hash).await;
    assert!(secluded(&node));
    content["environment"]["internet"] = true.into();
    content["replaces"] = json!(hash);
    node.ccn.publish(&owner, MessageType::Instance, content);
    node.until(&hash, "another version", |_| node.bench.started() == 2)
        .await;
    node.until_running(&hash).await;
    assert!(!secluded(&node));
}

/// R18, §10 row "`persistence: store`, `export`": a clear error at admission, whichever way a message comes here.
#[tokio::test]
async fn what_this_node_does_not_do_is_refused_by_its_field_or_told_to_the_owner() {
    let node = Node::start().await;
    let owner = Keypair::generate();
    let (code, runtime) = (
        node.ccn.store(&owner, b"code"),
        node.ccn.store(&owner, &squashfs("runtime")),
    );
    let mut content = program_content(&code, &runtime);
    content["export"] = json!({"encoding": "zip", "mount": "/data"});
    let exports = node.ccn.publish(&owner, MessageType::Program, content);
    let (status, answer) = node.get(&format!("/vm/{exports}")).await;
    assert!(!status.is_success(), "{status}");
    assert!(
        answer["error"].as_str().unwrap().contains("export: "),
        "{answer}"
    );

    let image = node.ccn.store(&owner, b"a raw disk");
    let mut content = instance_content(&image, "credit");
    content["variables"] = json!({"NAME": "value"});
    let hash = node
        .ccn
        .publish(&owner, MessageType::Instance, content.clone());
    let notified = node
        .post_json("/control/allocation/notify", json!({ "instance": hash }))
        .await;
    let (status, answer) = notified;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer["error"].as_str().unwrap().contains("variables: "),
        "{answer}"
    );
    content["address"] = json!(owner.address());
    content["time"] = json!(1_750_000_000.0);
    let reserve = "/control/reserve_resources";
    let (status, answer) = node
        .call_with(&owner, "POST", reserve, content.to_string())
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("variables: "), "{answer}");
    assert_eq!(node.bench.started(), 0);

    let mut content = program_content(&code, &runtime);
    content["environment"]["aleph_api"] = true.into();
    let hash = node.ccn.publish(&owner, MessageType::Program, content);
    assert_eq!(node.get(&format!("/vm/{hash}")).await.0, StatusCode::OK);
    let (_, status) = node
        .call(&owner, "GET", &format!("/control/machine/{hash}"))
        .await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let unheeded = status["unheeded"][0].as_str().unwrap();
    assert!(unheeded.starts_with("environment.aleph_api: "), "{status}");
}
