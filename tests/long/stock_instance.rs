//! A distribution's own image as a tenant keeps it: it starts its own kernel, comes back from `reboot`, and a kernel
//! installed with apt is the one that runs from then on. An emulated processor needs half an hour for this, so it belongs
//! to `make soak`.

use std::time::Instant;

use crn_tests::testbed::appliance::Appliance;
use crn_tests::testbed::products::{product, root};
use crn_tests::testbed::settings::{Accounts, Ports};
use crn_tests::testbed::steps::{INSTANCE_DEADLINE, Network};

const RELEASE: &str = "uname -r";
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn a_stock_image_runs_its_own_kernel_reboots_and_takes_a_newer_one_from_apt() {
    let directory = root().join("target/stock-instance");
    let _ = std::fs::remove_dir_all(&directory);
    let accounts = Accounts::generate();
    let ports = Ports::private();
    let appliance = Appliance::boot(&directory, ports, &accounts, false).unwrap();
    if let Err(error) = keep_it_for_years(&Network::new(&directory, ports, &accounts).unwrap()) {
        panic!(
            "{error:?}\nthe appliance's console, last lines:\n{}",
            appliance.console_tail(120)
        );
    }
}

fn keep_it_for_years(network: &Network) -> anyhow::Result<()> {
    let stock = product("stock")?;
    let update = stock.join("kernel-update.deb");
    let newer = package_release(&update)?;

    let image = network.publish(&stock.join("grub-bios.qcow2"))?;
    let instance = network.create_instance(&image)?;
    let port = network.ssh_port(&instance)?;
    let ssh = &network.ssh;
    let first = ssh.wait(port, RELEASE, INSTANCE_DEADLINE)?;
    anyhow::ensure!(
        first.contains("-cloud-amd64") && first.trim() != newer,
        "the kernel is {first}, not the image's own"
    );
    let arguments = ssh.run(port, "cat /proc/cmdline")?;
    anyhow::ensure!(
        arguments.contains("BOOT_IMAGE=") || arguments.contains("root=UUID="),
        "not what the image's boot loader says: {arguments}"
    );

    let reboot = |what: &str| -> anyhow::Result<String> {
        let before = ssh.run(port, BOOT_ID)?;
        // The connection ends in the middle of the answer.
        let _ = ssh.run(port, "systemctl reboot");
        let started = Instant::now();
        while ssh.wait(port, BOOT_ID, INSTANCE_DEADLINE)? == before {
            anyhow::ensure!(
                started.elapsed() < INSTANCE_DEADLINE,
                "{what}: the instance did not reboot"
            );
        }
        ssh.run(port, RELEASE)
    };
    let again = reboot("reboot")?;
    anyhow::ensure!(again == first, "{first} has become {again} by a reboot");

    ssh.copy(port, &update, "/root/kernel-update.deb")?;
    ssh.run(
        port,
        "DEBIAN_FRONTEND=noninteractive apt-get install -qy /root/kernel-update.deb",
    )?;
    let updated = reboot("the new kernel")?;
    anyhow::ensure!(
        updated.trim() == newer,
        "after the update {updated} runs and not {newer}"
    );
    Ok(())
}

/// The kernel release that a package of Debian's brings, from its name.
fn package_release(package: &std::path::Path) -> anyhow::Result<String> {
    let output = std::process::Command::new("dpkg-deb")
        .args(["--field"])
        .arg(package)
        .arg("Package")
        .output()?;
    let name = String::from_utf8(output.stdout)?;
    name.trim()
        .strip_prefix("linux-image-")
        .map(str::to_owned)
        .ok_or_else(|| anyhow::anyhow!("{} is {name:?}", package.display()))
}
