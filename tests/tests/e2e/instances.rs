//! An instance's life: created, entered, rebooted, stopped, started, deleted.

use std::time::{Duration, Instant};

use aleph_message::Keypair;
use anyhow::{Context, Result, ensure};
use crn_tests::testbed::client::Client;
use crn_tests::testbed::outside::GREETING;
use crn_tests::testbed::probe::Host;
use crn_tests::testbed::products::root;
use crn_tests::testbed::steps::INSTANCE_DEADLINE;

use crate::{World, gone, host_label, static_ipv6};

pub fn create_instance(world: &mut World) -> Result<()> {
    world.instance = world.network.create_instance(&world.image)?;
    Ok(())
}

pub fn instance_ssh(world: &mut World) -> Result<()> {
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

pub fn instance_ipv6(world: &mut World) -> Result<()> {
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

pub fn instance_internet(world: &mut World) -> Result<()> {
    for url in [world.outside.url_v4(), world.outside.url_v6()] {
        let text = world.network.ssh.run(
            world.ssh_port,
            &format!("curl -sS --max-time 30 -g '{url}'"),
        )?;
        ensure!(text == GREETING, "{url}: {text}");
    }
    Ok(())
}

pub fn client_lists(world: &mut World) -> Result<()> {
    let list = world.network.client.run(&["instance", "list", "--json"])?;
    ensure!(list.contains(&world.instance), "{list}");
    Ok(())
}

pub fn instance_logs(world: &mut World) -> Result<()> {
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

pub fn stranger(world: &mut World) -> Result<()> {
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

pub fn reboot_instance(world: &mut World) -> Result<()> {
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

pub fn stop_instance(world: &mut World) -> Result<()> {
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
        Host::look(world.network.ports.probe)?.monitors <= 1,
        "the instance's monitor still runs"
    );
    // What comes next finds it starting.
    world.network.client.run(&[
        "instance",
        "start",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    Ok(())
}

pub fn delete_instance(world: &mut World) -> Result<()> {
    world.network.client.run(&[
        "instance",
        "delete",
        &world.instance,
        "--domain",
        &world.crn(),
    ])?;
    gone(world, &world.instance)
}
