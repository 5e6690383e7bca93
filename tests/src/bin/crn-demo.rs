//! `make run`: boots the appliance, deploys a program and an instance with the published client, shows both, and
//! leaves the appliance running (or, with `--once`, switches it off).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use crn_tests::testbed::appliance::Appliance;
use crn_tests::testbed::products::root;
use crn_tests::testbed::settings::{Accounts, Ports};
use crn_tests::testbed::steps::{INSTANCE_DEADLINE, Network};

/// Boot the appliance and deploy on it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Switch the appliance off after the demo.
    #[arg(long)]
    once: bool,
}

/// Prints what was done and how long it took.
struct Phases(Vec<(String, Duration)>);

impl Phases {
    fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("--> {name}");
        let started = Instant::now();
        let result = step()?;
        self.0.push((name.to_owned(), started.elapsed()));
        Ok(result)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let directory: PathBuf = root().join("target/run");
    let _ = std::fs::remove_dir_all(&directory);
    let ports = Ports::DEFAULT;
    let accounts = Accounts::generate();
    let mut phases = Phases(Vec::new());

    let mut appliance = phases.run("appliance: power-on to ready", || {
        Appliance::boot(&directory, ports, &accounts, false)
    })?;
    let shown = demonstrate(&directory, ports, &accounts, &mut phases);
    let network = match shown {
        Ok(network) => network,
        Err(error) => {
            eprintln!(
                "the appliance's console, last lines:\n{}",
                appliance.console_tail(80)
            );
            return Err(error);
        }
    };
    println!("\nphases");
    for (name, time) in &phases.0 {
        println!("  {name:<48} {:>8.1} s", time.as_secs_f64());
    }
    if arguments.once {
        return Ok(());
    }
    println!(
        "\nThe appliance is running.\n  core channel node  {}\n  compute node       {}\n  console log        {}\n\
         Stop it with Ctrl-C.",
        network.ports.ccn_url(),
        network.ports.crn_url(),
        appliance.console().display(),
    );
    appliance.wait()
}

fn demonstrate(
    directory: &std::path::Path,
    ports: Ports,
    accounts: &Accounts,
    phases: &mut Phases,
) -> Result<Network> {
    let network = phases.run("user: the Python client", || {
        Network::new(directory, ports, accounts)
    })?;
    let runtime = phases.run("operator: publish the Python runtime", || {
        network.publish_runtime()
    })?;
    let image = phases.run("operator: publish the Debian image", || {
        network.publish_debian()
    })?;
    let instance = phases.run("user: aleph instance create", || {
        network.create_instance(&image)
    })?;
    let program = phases.run("user: aleph program upload", || {
        network.upload_program(&runtime)
    })?;
    let answer = phases.run("program: first answer", || {
        network.call_program(&program, "/")
    })?;
    let again = phases.run("program: second answer", || {
        network.call_program(&program, "/")
    })?;
    anyhow::ensure!(
        again["hostname"] == answer["hostname"],
        "two answers from two machines"
    );
    let port = phases.run("instance: started", || network.ssh_port(&instance))?;
    let system = phases.run("instance: ssh lets its owner in", || {
        network.ssh.wait(port, "uname -a", INSTANCE_DEADLINE)
    })?;
    let addresses = phases.run("instance: ip addr", || network.ssh.run(port, "ip addr"))?;

    println!("\nGET {}\n{answer:#}", network.program_url(&program, "/"));
    println!("\n{} uname -a\n{system}", network.ssh.command_line(port));
    println!("{} ip addr\n{addresses}", network.ssh.command_line(port));
    Ok(network)
}
