//! Runs commands in a machine with a real `/dev/kvm`, and is also that machine's `/init`.
//!
//! ```text
//! crn-nested --program target/debug/crn-vmm:/bin/crn-vmm --file vmlinux:/vmlinux -- /bin/crn-vmm run --kernel /vmlinux
//! ```

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use crn_tests::nested::{self, Clock, Command, Ending, Nested};

/// Runs a command in a machine with a real /dev/kvm.
#[derive(Parser)]
struct Arguments {
    /// Put a file of the host into the machine; may be repeated.
    #[arg(long, value_name = "HOST:GUEST", value_parser = pair)]
    file: Vec<(PathBuf, String)>,
    /// The same for an executable, with the shared libraries it needs.
    #[arg(long, value_name = "HOST:GUEST", value_parser = pair)]
    program: Vec<(PathBuf, String)>,
    /// Give the machine a copy of a raw image as /dev/vda, /dev/vdb, …; may be repeated.
    #[arg(long, value_name = "IMAGE")]
    disk: Vec<PathBuf>,
    /// Load a kernel module besides KVM's.
    #[arg(long)]
    module: Vec<String>,
    /// Set an environment variable of the command.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// CPUs of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// MiB of the machine.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Let the machine's clock count instructions (one CPU).
    #[arg(long)]
    icount: bool,
    /// Print the machine's console at the end.
    #[arg(long)]
    console: bool,
    /// Run the command so many times in the one machine.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// The command; several are separated by `+++`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn pair(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once(':') {
        Some((host, guest)) if guest.starts_with('/') => Ok((host.into(), guest.into())),
        _ => Err("expected HOST:GUEST, the latter absolute".into()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if nested::is_init() {
        nested::run_as_init();
    }
    let arguments = Arguments::parse();
    let timeout = Duration::from_secs(arguments.timeout);
    let mut nested = Nested::new()
        .init(std::env::current_exe()?)
        .cpus(arguments.cpus)
        .memory_mib(arguments.memory)
        .timeout(timeout)
        .clock(if arguments.icount {
            Clock::Instructions
        } else {
            Clock::Wall
        })
        .live(true);
    for (host, guest) in arguments.file {
        nested = nested.file(host, guest);
    }
    for (host, guest) in arguments.program {
        nested = nested.program(host, guest);
    }
    for image in arguments.disk {
        nested = nested.disk(image);
    }
    for module in arguments.module {
        nested = nested.module(module);
    }
    let commands: Vec<Command> = arguments
        .command
        .split(|word| word == "+++")
        .map(|argv| {
            let mut command = Command::new(argv.iter().cloned()).timeout(timeout);
            for variable in &arguments.env {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                command = command.env(name, value);
            }
            command
        })
        .collect();
    let repeated = std::iter::repeat_n(commands, arguments.repeat).flatten();

    let output = nested.run(repeated)?;
    if arguments.console {
        eprintln!("--- console\n{}---", output.console);
    }
    let mut code = 0;
    for (index, command) in output.commands.iter().enumerate() {
        eprintln!("crn-nested: command {index}: {:?}", command.ending);
        match command.ending {
            Ending::Exited(0) => {}
            Ending::Exited(other) => code = u8::try_from(other).unwrap_or(1),
            _ => code = 1,
        }
    }
    eprintln!("crn-nested: {:.1} s", output.elapsed.as_secs_f64());
    Ok(ExitCode::from(code))
}
