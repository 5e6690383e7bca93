//! Power cuts: what ran runs again, and what was written is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use crn_tests::testbed::probe::Host;
use crn_tests::testbed::steps::INSTANCE_DEADLINE;

use crate::World;

/// The latest instant of a cut after what it is to interrupt has begun: within an instance's start.
const LATEST: u128 = 40_000;

/// `POWER_CUTS` of them, 1 by default. The first finds the instance starting; before the others it is told to reboot or
/// to stop and start, or a program leaves, and the power goes somewhere in between.
pub fn power_cuts(world: &mut World) -> Result<()> {
    let cuts: u32 = match std::env::var("POWER_CUTS") {
        Ok(number) => number.parse().context("POWER_CUTS")?,
        Err(_) => 1,
    };
    let program = world.program.clone();
    for cut in 0..cuts {
        let marked = cut > 0;
        if marked {
            let mark = format!("echo {cut} > /root/mark && sync");
            world.network.ssh.run(world.ssh_port, &mark)?;
            match cut % 3 {
                0 => {
                    let _ = world.network.call_program(&program, "/exit");
                }
                1 => tell(world, "reboot")?,
                _ => {
                    tell(world, "stop")?;
                    tell(world, "start")?;
                }
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let delay = Duration::from_millis(u64::try_from(now.as_nanos() / 1000 % LATEST)?);
        print!("[cut after {:.1} s] ", delay.as_secs_f64());
        std::thread::sleep(delay);
        world.appliance.power_cycle(true)?;
        everything_is_back(world, marked.then_some(cut))?;
    }
    Ok(())
}

fn tell(world: &World, operation: &str) -> Result<()> {
    let arguments = [
        "instance",
        operation,
        &world.instance,
        "--domain",
        &world.crn(),
    ];
    world.network.client.run(&arguments)?;
    Ok(())
}

fn everything_is_back(world: &World, mark: Option<u32>) -> Result<()> {
    let port = world.network.ssh_port(&world.instance)?;
    ensure!(
        port == world.ssh_port,
        "the instance's port moved from {} to {port}",
        world.ssh_port
    );
    world.network.call_program(&world.program, "/")?;
    let (file, expected) = match mark {
        Some(cut) => ("/root/mark", cut.to_string()),
        None => ("/root/kept", "kept".to_owned()),
    };
    let found = world
        .network
        .ssh
        .wait(port, &format!("cat {file}"), INSTANCE_DEADLINE)?;
    ensure!(
        found.trim() == expected,
        "{file} holds {found:?}, not {expected:?}"
    );
    let host = Host::look(world.network.ports.probe)?;
    ensure!(
        host.taps.len() == 2 && host.monitors == 2 && host.neighbours.len() == 2,
        "not two machines: {host:#?}"
    );
    Ok(())
}
