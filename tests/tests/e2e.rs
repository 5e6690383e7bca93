//! The product as its users meet it: the released image boots, the published Python client deploys a program and an
//! instance on it, both are used, broken and taken away again, and the host is as it was before.
//!
//! The checks build on one another, so they run in the order in which they stand here, on one appliance; the first
//! failure ends the run and shows the console.

use std::net::Ipv6Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aleph_message::{Keypair, allocation};
use anyhow::{Context, Result, bail, ensure};
use crn_tests::testbed::appliance::Appliance;
use crn_tests::testbed::client::Client;
use crn_tests::testbed::http::{self, get, get_json};
use crn_tests::testbed::outside::{GREETING, Outside};
use crn_tests::testbed::probe::Host;
use crn_tests::testbed::products::root;
use crn_tests::testbed::settings::{Accounts, NODE_HASH, Ports};
use crn_tests::testbed::steps::{INSTANCE_DEADLINE, Network, PROGRAM_DEADLINE};
use serde_json::{Value, json};

/// What the checks hand on to one another.
struct World {
    network: Network,
    outside: Outside,
    before: Host,
    runtime: String,
    image: String,
    program: String,
    instance: String,
    ssh_port: u16,
}

type Check = fn(&mut World) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("the_operator_publishes_a_runtime_and_an_image", publish),
    ("the_registry_lists_the_node_with_its_resources", registry),
    (
        "an_allocation_that_is_not_the_schedulers_starts_nothing",
        bad_allocations,
    ),
    (
        "a_message_with_a_wrong_signature_is_rejected_with_its_code",
        wrong_signature,
    ),
    ("an_account_without_funds_is_refused", unaffordable),
    (
        "an_instance_is_created_with_the_published_client",
        create_instance,
    ),
    (
        "a_program_is_uploaded_with_the_published_client",
        upload_program,
    ),
    ("the_program_answers_from_its_own_machine", program_answers),
    ("a_request_reaches_the_program_whole", request_is_whole),
    ("an_answer_is_streamed_as_it_is_made", answer_streams),
    ("a_programs_own_404_is_left_alone", own_404),
    ("the_program_is_reached_by_host_name", host_name),
    ("the_program_reaches_the_internet", program_internet),
    ("a_slow_program_is_a_504", slow_program),
    (
        "a_program_that_exits_is_a_502_and_starts_again",
        program_exits,
    ),
    (
        "a_program_that_cannot_start_is_a_503_with_a_reason",
        broken_program,
    ),
    ("the_instance_lets_its_owner_in", instance_ssh),
    (
        "the_instance_has_the_address_everyone_computes",
        instance_ipv6,
    ),
    (
        "the_instance_reaches_the_internet_over_ipv4_and_ipv6",
        instance_internet,
    ),
    ("the_client_lists_the_instance", client_lists),
    ("the_owner_reads_the_instances_logs", instance_logs),
    ("a_stranger_may_not_stop_the_instance", stranger),
    ("the_owner_reboots_the_instance", reboot_instance),
    ("the_owner_stops_and_starts_the_instance", stop_instance),
    ("a_forgotten_program_disappears", forget_program),
    ("a_deleted_instance_disappears", delete_instance),
    ("the_host_is_as_it_was_before", nothing_is_left),
];

fn main() -> ExitCode {
    // `cargo test -- --list` and filters are the only things a test runner asks of a custom harness.
    if std::env::args().any(|a| a == "--list") {
        for (name, _) in CHECKS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(passed) => {
            println!(
                "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
            );
            ExitCode::SUCCESS
        }
        Err((passed, error)) => {
            println!("\n{error:?}");
            let left = CHECKS.len() - passed - 1;
            println!(
                "\ntest result: FAILED. {passed} passed; 1 failed; {left} ignored; 0 measured; 0 filtered out"
            );
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, (usize, anyhow::Error)> {
    let directory = root().join("target/e2e");
    let _ = std::fs::remove_dir_all(&directory);
    let ports = Ports::private();
    let accounts = Accounts::generate();
    println!("\nbooting the appliance");
    let appliance = Appliance::boot(&directory, ports, &accounts, true).map_err(|e| (0, e))?;
    println!("ready after {:.0} s", appliance.boot_time.as_secs_f64());
    let mut world = World::new(&directory, ports, &accounts).map_err(|e| (0, e))?;
    for (passed, (name, check)) in CHECKS.iter().enumerate() {
        print!("test {name} ... ");
        let _ = std::io::Write::flush(&mut std::io::stdout());
        let started = Instant::now();
        match check(&mut world) {
            Ok(()) => println!("ok ({:.1} s)", started.elapsed().as_secs_f64()),
            Err(error) => {
                println!("FAILED");
                println!(
                    "the appliance's console, last lines:\n{}\n",
                    appliance.console_tail(120)
                );
                return Err((passed, error.context(*name)));
            }
        }
    }
    Ok(CHECKS.len())
}

impl World {
    fn new(directory: &Path, ports: Ports, accounts: &Accounts) -> Result<Self> {
        Ok(Self {
            network: Network::new(directory, ports, accounts)?,
            outside: Outside::start()?,
            before: Host::look(ports.probe)?,
            runtime: String::new(),
            image: String::new(),
            program: String::new(),
            instance: String::new(),
            ssh_port: 0,
        })
    }

    fn ccn(&self) -> String {
        self.network.ports.ccn_url()
    }

    fn crn(&self) -> String {
        self.network.ports.crn_url()
    }
}

fn publish(world: &mut World) -> Result<()> {
    world.runtime = world.network.publish_runtime()?;
    world.image = world.network.publish_debian()?;
    for store in [&world.runtime, &world.image] {
        let message = get_json(&format!("{}/api/v0/messages/{store}", world.ccn()))?;
        ensure!(message["status"] == "processed", "{message}");
    }
    Ok(())
}

fn registry(world: &mut World) -> Result<()> {
    let started = Instant::now();
    loop {
        let list = get_json(&format!("{}/crns.json?filter_inactive=false", world.ccn()))?;
        let row = &list["crns"][0];
        if row["hash"] == NODE_HASH && row["system_usage"]["cpu"]["count"].is_u64() {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(120), "{list}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn bad_allocations(world: &mut World) -> Result<()> {
    let stranger = Keypair::generate();
    let body = br#"{"persistent_vms":[],"instances":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}"#;
    let path = "/control/allocations";
    let now = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .context("the clock")?
            .as_secs(),
    )?;
    let push = |header: Option<String>| {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|h| ("authorization", h.as_str()))
            .chain([("content-type", "application/json")])
            .collect();
        http::request(
            "POST",
            &format!("{}{path}", world.crn()),
            &headers,
            body,
            Duration::from_secs(60),
        )
    };
    let foreign = allocation::authorization(&stranger, "POST", path, body, now)?;
    let stale = allocation::authorization(&stranger, "POST", path, body, now - 3600)?;
    for header in [
        None,
        Some(foreign),
        Some(stale),
        Some("Aleph-EIP191-V1 sig=00,payload=00".to_owned()),
    ] {
        let answer = push(header.clone())?;
        ensure!(
            answer.status == 401,
            "{header:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let list = get_json(&format!("{}/v2/about/executions/list", world.crn()))?;
    ensure!(
        list.as_object().is_some_and(serde_json::Map::is_empty),
        "{list}"
    );
    Ok(())
}

fn wrong_signature(world: &mut World) -> Result<()> {
    let content =
        json!({"address": "0x0000000000000000000000000000000000000001", "time": 1_700_000_000.0,
        "type": "test", "content": {"n": 1}})
        .to_string();
    let hash = sha256_hex(content.as_bytes());
    let message = json!({"sync": true, "message": {"chain": "ETH", "sender": "0x0000000000000000000000000000000000000001",
        "type": "POST", "channel": "TEST", "time": 1_700_000_000.0, "item_type": "inline", "item_hash": hash,
        "item_content": content, "signature": format!("0x{}1b", "11".repeat(64))}});
    let answer = http::request(
        "POST",
        &format!("{}/api/v0/messages", world.ccn()),
        &[("content-type", "application/json")],
        message.to_string().as_bytes(),
        Duration::from_secs(60),
    )?;
    ensure!(answer.status == 422, "{} {}", answer.status, answer.text());
    let stored = get_json(&format!("{}/api/v0/messages/{hash}", world.ccn()))?;
    ensure!(
        stored["status"] == "rejected" && stored["error_code"] == 1,
        "{stored}"
    );
    Ok(())
}

fn unaffordable(world: &mut World) -> Result<()> {
    let poor = Keypair::generate();
    let home = root().join("target/e2e/poor");
    let client = Client::new(
        &home,
        world.network.ports,
        format!("0x{}", poor.to_secret_hex()),
    )?;
    let key = world.network.ssh.public_key();
    let output = client.output(&[
        "instance",
        "create",
        "--payment-type",
        "credit",
        "--payment-chain",
        "ETH",
        "--name",
        "poor",
        "--rootfs",
        &world.image,
        "--compute-units",
        "1",
        "--rootfs-size",
        "20480",
        "--skip-volume",
        "--ssh-pubkey-file",
        key.to_str().context("a path")?,
        "--crn-hash",
        NODE_HASH,
        "--crn-auto-tac",
    ])?;
    ensure!(
        !output.status.success(),
        "an account without credits got an instance"
    );
    let list = get_json(&format!(
        "{}/api/v0/messages.json?addresses={}",
        world.ccn(),
        poor.address()
    ))?;
    ensure!(
        list["messages"].as_array().is_some_and(Vec::is_empty),
        "{list}"
    );
    Ok(())
}

fn create_instance(world: &mut World) -> Result<()> {
    world.instance = world.network.create_instance(&world.image)?;
    Ok(())
}

fn upload_program(world: &mut World) -> Result<()> {
    world.program = world.network.upload_program(&world.runtime)?;
    Ok(())
}

fn program_answers(world: &mut World) -> Result<()> {
    let answer = world.network.call_program(&world.program, "/")?;
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    ensure!(text("hostname") == host_label(&world.program)?, "{answer}");
    ensure!(text("kernel").starts_with("6.12"), "{answer}");
    ensure!(text("ipv4").starts_with("172."), "{answer}");
    ensure!(
        text("ipv6") == static_ipv6(1, &world.program)?.to_string(),
        "{answer}"
    );
    ensure!(
        answer["variables"]["DEMO_NAME"] == "first-light",
        "{answer}"
    );
    Ok(())
}

fn request_is_whole(world: &mut World) -> Result<()> {
    let body = vec![b'x'; 3 << 20];
    let url = world
        .network
        .program_url(&world.program, "/echo?a=1&b=%20two");
    let answer = http::request(
        "PUT",
        &url,
        &[("x-mine", "kept"), ("content-type", "text/x-demo")],
        &body,
        PROGRAM_DEADLINE,
    )?;
    let seen = answer.json()?;
    ensure!(answer.status == 201, "{} {seen}", answer.status);
    ensure!(
        seen["method"] == "PUT" && seen["query"] == "a=1&b=%20two" && seen["length"] == body.len(),
        "{seen}"
    );
    ensure!(
        seen["headers"]["x-mine"] == "kept" && seen["headers"]["content-type"] == "text/x-demo",
        "{seen}"
    );
    ensure!(answer.header("x-demo") == ["kept"], "{:?}", answer.headers);
    ensure!(
        answer.header("set-cookie") == ["a=1", "b=2"],
        "{:?}",
        answer.headers
    );
    ensure!(
        answer.header("aleph-program-itemhash") == [world.program.as_str()],
        "{:?}",
        answer.headers
    );
    Ok(())
}

fn answer_streams(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/stream"))?;
    ensure!(
        answer.text() == "part 0\npart 1\npart 2\npart 3\npart 4\n",
        "{}",
        answer.text()
    );
    Ok(())
}

fn own_404(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/missing"))?;
    ensure!(
        answer.status == 404 && answer.text() == "<p>not here</p>",
        "{} {}",
        answer.status,
        answer.text()
    );
    ensure!(
        answer.header("content-type") == ["text/html"],
        "{:?}",
        answer.headers
    );
    Ok(())
}

fn host_name(world: &mut World) -> Result<()> {
    let host = format!("{}.example.org", host_label(&world.program)?);
    let answer = http::request(
        "GET",
        &format!("{}/", world.crn()),
        &[("host", &host)],
        &[],
        PROGRAM_DEADLINE,
    )?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(
        answer.json()?["hostname"] == host_label(&world.program)?,
        "{}",
        answer.text()
    );
    Ok(())
}

fn program_internet(world: &mut World) -> Result<()> {
    let url = world.network.program_url(
        &world.program,
        &format!("/fetch?{}", world.outside.url_v4()),
    );
    let answer = get(&url)?;
    ensure!(
        answer.status == 200 && answer.json()?["text"] == GREETING,
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn slow_program(world: &mut World) -> Result<()> {
    let url = world.network.program_url(&world.program, "/slow?600");
    let answer = http::request("GET", &url, &[], &[], Duration::from_secs(300))?;
    ensure!(
        answer.status == 504 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn program_exits(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/exit"))?;
    ensure!(
        answer.status == 502 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    world.network.call_program(&world.program, "/")?;
    let logs =
        world
            .network
            .client
            .run(&["program", "logs", &world.program, "--domain", &world.crn()])?;
    ensure!(logs.contains("leaving on request"), "{logs}");
    Ok(())
}

fn broken_program(world: &mut World) -> Result<()> {
    let code = root().join("target/e2e/broken");
    std::fs::create_dir_all(&code)?;
    std::fs::write(code.join("main.py"), "import no_such_module_here\n")?;
    world.network.client.run(&[
        "program",
        "upload",
        code.to_str().context("a path")?,
        "main:app",
        "--name",
        "broken",
        "--runtime",
        &world.runtime,
        "--compute-units",
        "1",
        "--memory",
        "512",
        "--skip-volume",
        "--skip-env-var",
        "--payment-chain",
        "ETH",
    ])?;
    let broken = world.network.newest("PROGRAM")?;
    ensure!(broken != world.program, "the client made no new program");
    let answer = http::request(
        "GET",
        &world.network.program_url(&broken, "/"),
        &[],
        &[],
        Duration::from_secs(240),
    )?;
    ensure!(
        answer.status == 503 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    let logs = world
        .network
        .client
        .run(&["program", "logs", &broken, "--domain", &world.crn()])?;
    ensure!(logs.contains("no_such_module_here"), "{logs}");
    forget(world, &broken)
}

fn instance_ssh(world: &mut World) -> Result<()> {
    world.ssh_port = world.network.ssh_port(&world.instance)?;
    let system = world.network.ssh.wait(
        world.ssh_port,
        "uname -a; hostname; id -u",
        INSTANCE_DEADLINE,
    )?;
    ensure!(
        system.contains("Linux") && system.contains(&host_label(&world.instance)?),
        "{system}"
    );
    let size = world
        .network
        .ssh
        .run(world.ssh_port, "df --output=size -B1M / | tail -n1")?;
    let size: u64 = size.trim().parse().context("the root file system's size")?;
    ensure!(
        size > 18_000,
        "the root file system has not grown to the disk: {size} MiB"
    );
    Ok(())
}

fn instance_ipv6(world: &mut World) -> Result<()> {
    let expected = static_ipv6(3, &world.instance)?.to_string();
    let addresses = world.network.ssh.run(
        world.ssh_port,
        "ip -6 addr show scope global; ip -6 addr show scope site",
    )?;
    ensure!(
        addresses.contains(&expected),
        "{expected} is not among\n{addresses}"
    );
    let view = world.network.execution(&world.instance)?;
    ensure!(view["networking"]["ipv6_ip"] == expected, "{view}");
    Ok(())
}

fn instance_internet(world: &mut World) -> Result<()> {
    for url in [world.outside.url_v4(), world.outside.url_v6()] {
        let text = world.network.ssh.run(
            world.ssh_port,
            &format!("curl -sS --max-time 30 -g '{url}'"),
        )?;
        ensure!(text == GREETING, "{url}: {text}");
    }
    Ok(())
}

fn client_lists(world: &mut World) -> Result<()> {
    let list = world.network.client.run(&["instance", "list", "--json"])?;
    ensure!(list.contains(&world.instance), "{list}");
    Ok(())
}

fn instance_logs(world: &mut World) -> Result<()> {
    world.network.client.follow(
        120,
        &[
            "instance",
            "logs",
            &world.instance,
            "--domain",
            &world.crn(),
        ],
        "systemd",
    )?;
    Ok(())
}

fn stranger(world: &mut World) -> Result<()> {
    let other = Keypair::generate();
    let client = Client::new(
        &root().join("target/e2e/other"),
        world.network.ports,
        format!("0x{}", other.to_secret_hex()),
    )?;
    let _ = client.output(&[
        "instance",
        "stop",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    ensure!(
        world.network.execution(&world.instance)?["running"] == true,
        "a stranger stopped the instance"
    );
    Ok(())
}

fn reboot_instance(world: &mut World) -> Result<()> {
    const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
    let before = world.network.ssh.run(world.ssh_port, BOOT_ID)?;
    world
        .network
        .ssh
        .run(world.ssh_port, "echo kept > /root/kept && sync")?;
    world.network.client.run(&[
        "instance",
        "reboot",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    let started = Instant::now();
    loop {
        let after = world
            .network
            .ssh
            .wait(world.ssh_port, BOOT_ID, INSTANCE_DEADLINE)?;
        if after != before {
            break;
        }
        ensure!(
            started.elapsed() < INSTANCE_DEADLINE,
            "the instance did not reboot"
        );
        std::thread::sleep(Duration::from_secs(2));
    }
    ensure!(
        world
            .network
            .ssh
            .run(world.ssh_port, "cat /root/kept")?
            .trim()
            == "kept",
        "the disk was not kept"
    );
    Ok(())
}

fn stop_instance(world: &mut World) -> Result<()> {
    world.network.client.run(&[
        "instance",
        "stop",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    world
        .network
        .wait_execution(&world.instance, "stopped", Duration::from_secs(180), |v| {
            v["running"] == false
        })?;
    ensure!(
        Host::look(world.network.ports.probe)?.monitors.len() <= 1,
        "the instance's monitor still runs"
    );
    world.network.client.run(&[
        "instance",
        "start",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    // That it runs means that its own init has taken over; that the disk is kept, the reboot has shown.
    let port = world.network.ssh_port(&world.instance)?;
    ensure!(
        port == world.ssh_port,
        "the instance's port moved from {} to {port}",
        world.ssh_port
    );
    Ok(())
}

fn forget_program(world: &mut World) -> Result<()> {
    let program = world.program.clone();
    forget(world, &program)?;
    let answer = get(&world.network.program_url(&program, "/"))?;
    ensure!(
        matches!(answer.status, 404 | 410),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn delete_instance(world: &mut World) -> Result<()> {
    world.network.client.run(&[
        "instance",
        "delete",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    gone(world, &world.instance)
}

fn nothing_is_left(world: &mut World) -> Result<()> {
    let started = Instant::now();
    loop {
        let after = Host::look(world.network.ports.probe)?;
        if after == world.before {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(90) {
            bail!("before: {:#?}\nafter: {after:#?}", world.before);
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

fn forget(world: &World, vm: &str) -> Result<()> {
    world.network.client.run(&["message", "forget", vm])?;
    gone(world, vm)
}

fn gone(world: &World, vm: &str) -> Result<()> {
    world
        .network
        .wait_execution(vm, "gone", Duration::from_secs(120), Value::is_null)?;
    let stored = get_json(&format!("{}/api/v0/messages/{vm}", world.ccn()))?;
    ensure!(stored["status"] == "forgotten", "{stored}");
    Ok(())
}

fn host_label(hash: &str) -> Result<String> {
    Ok(data_encoding::BASE32_NOPAD
        .encode(&hex::decode(hash)?)
        .to_lowercase())
}

/// The address that schedulers and scorers compute for a VM: prefix, type digit, 44 bits of the hash, and the guest
/// is the second address of that /124. Written here a second time, on purpose.
fn static_ipv6(kind: u16, hash: &str) -> Result<Ipv6Addr> {
    let group = |range: std::ops::Range<usize>| {
        u16::from_str_radix(&hash[range], 16).context("an item hash")
    };
    let last = u16::from_str_radix(&format!("{}0", &hash[8..11]), 16)?;
    Ok(Ipv6Addr::new(
        0xfec0,
        0,
        0,
        0,
        kind,
        group(0..4)?,
        group(4..8)?,
        last + 1,
    ))
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
