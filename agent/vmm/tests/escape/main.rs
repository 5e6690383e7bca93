//! A program that wants out, in exactly the sandbox of `crn-vmm`: it tries everything, all of it must fail, and what was
//! tried is printed with the wall that stood there.
//!
//! This program starts itself again as the first process of a PID namespace. There it enters the jail, and either tries
//! what must fail without system call filters too ([`walls`]), or forks for each system call a process that puts the
//! filters of one kind of thread on top and makes that call ([`calls`]). Without root nothing is tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod calls;
mod rights;
mod walls;

use std::process::{Command, ExitCode, Stdio};

use crn_protocol::start::first_of_a_namespace;
use crn_vmm::sandbox::{self, Identity};

/// Tells the program started again what to do.
const INSIDE: &str = "CRN_TEST_INSIDE";
/// Nobody else's.
const IDENTITY: Identity = Identity {
    uid: 1_999_999_999,
    gid: 1_999_999_998,
};

/// One attempt.
struct Attempt {
    what: String,
    /// How it ended, in words.
    ending: String,
    failed: bool,
}

impl Attempt {
    fn print(&self) {
        let sign = if self.failed { "refused" } else { "DONE" };
        println!("{sign}\t{}\t{}", self.what, self.ending);
    }
}

fn main() -> ExitCode {
    if let Ok(part) = std::env::var(INSIDE) {
        return inside(&part);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("nothing is tested: only root can build the sandbox");
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    let host = walls::Host::new();
    for part in ["walls", "calls"] {
        println!("\n{part}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(INSIDE, part)
            .env(walls::HOST, host.describe())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = first_of_a_namespace(|| command.output()).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        print!("{said}");
        passed += said
            .lines()
            .filter(|line| line.starts_with("refused\t"))
            .count();
        failed += said
            .lines()
            .filter(|line| !line.starts_with("refused\t"))
            .count();
        if !output.status.success() {
            println!("{part} ended with {}", output.status);
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

fn inside(part: &str) -> ExitCode {
    let host = std::env::var(walls::HOST).unwrap();
    sandbox::enter_jail(IDENTITY).unwrap();
    let attempts = match part {
        "walls" => walls::attempts(&host),
        _ => calls::attempts(),
    };
    for attempt in attempts {
        attempt.print();
    }
    ExitCode::SUCCESS
}
