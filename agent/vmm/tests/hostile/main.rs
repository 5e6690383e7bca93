//! Guests that break every rule, in the sandbox and under the host's own KVM.
//!
//! A guest of a few hundred bytes ([`guest`]) carries out the steps that a malicious driver ([`driver`]) has written: an
//! attack on a device, then a proper request to it, which has to be answered as if nothing had been. Each case is one of
//! those pairs and has a name; all cases of a bus run in one machine, so that what an attack leaves behind meets the next.
//! What ends a machine has a machine of its own and must be named by it ([`ends`]). Without /dev/kvm, or without root,
//! nothing is tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod chains;
mod devices;
mod driver;
mod ends;
mod guest;
mod life;
mod machine;
mod registers;
#[path = "../support/mod.rs"]
mod support;

use crn_protocol::control::{ExitReason, Transport};

use self::driver::{Bus, Driver, Kind, witnesses};
use self::guest::Script;
use self::machine::{Ended, Machine};

/// MiB: a GiB more than fits below the gap, so that there are two regions.
const MEMORY_MIB: u32 = 4096;
/// Where the first ends and the second does.
const LOW_END: u64 = 0xc000_0000;
const HIGH_END: u64 = 0x1_4000_0000;
/// What the monitor may have in memory, guest's pages among it: those the cases touch, in huge pages.
const MOST_RESIDENT_KIB: u64 = 512 << 10;
/// Descriptors it may have open: queues' and those of the connections that are made here.
const MOST_DESCRIPTORS: usize = 700;

/// Bytes of its log: a few lines for each device.
const MOST_LOGGED: usize = 64 << 10;

/// In the monitor's order.
const KINDS: [Kind; 8] = [
    Kind::Disk,
    Kind::ReadOnlyDisk,
    Kind::Net,
    Kind::Vsock,
    Kind::Rng,
    Kind::Balloon,
    Kind::Console,
    Kind::Pmem,
];

/// Where a device is (`plan::layout`).
fn bus(transport: Transport, index: u64) -> Bus {
    match transport {
        Transport::Mmio => Bus::Mmio(0xd000_0000 + 0x1000 * index),
        Transport::Pci => Bus::Pci {
            window: 0xd800_0000 + 0x8000 * (index + 1),
            config: 0xe000_0000 + 0x8000 * (index + 1),
        },
    }
}

fn script(transport: Transport) -> Script {
    let mut script = Script::default();
    witnesses(&mut script);
    for (kind, index) in KINDS.into_iter().zip(0..) {
        let mut driver = Driver::new(&mut script, bus(transport, index), kind);
        // The queues' code is the same on both buses.
        if transport == Transport::Mmio || matches!(kind, Kind::Disk | Kind::Vsock | Kind::Rng) {
            chains::attack(&mut driver);
            life::places(&mut driver);
        }
        life::states(&mut driver);
        devices::attack(&mut driver);
        if kind == Kind::Rng {
            match transport {
                Transport::Mmio => registers::mmio(&mut driver),
                Transport::Pci => registers::pci(&mut driver),
            }
        }
    }
    script
}

/// Runs all cases of a bus; each must end with its proper request answered.
fn survive(transport: Transport) {
    let script = script(transport);
    let Some(machine) = Machine::launch(transport, &KINDS, &script.bytes()) else {
        return;
    };
    let ended = machine.run_to_its_end();
    let verdicts = verdicts(&ended.console);
    let mut failed = Vec::new();
    for (name, number) in script.names.iter().zip(0u64..) {
        let line = match verdicts.iter().find(|verdict| verdict.case == number) {
            None => "no verdict".to_owned(),
            Some(verdict) if verdict.failed_step > 0 => {
                format!("step {} failed", verdict.failed_step)
            }
            Some(verdict) if verdict.status == 0xff => {
                "the device does not answer until it is put back".to_owned()
            }
            Some(verdict) if verdict.status & 0x40 != 0 => {
                "the device stopped until reset".to_owned()
            }
            Some(_) => "the device went on".to_owned(),
        };
        let kept = verdicts
            .iter()
            .any(|verdict| verdict.case == number && verdict.failed_step == 0);
        println!(
            "{}\t{name}\t{line}",
            if kept { "kept serving" } else { "LOST" }
        );
        if !kept {
            failed.push(name);
        }
    }
    println!(
        "{} cases on {transport:?}, at most {} KiB resident and {} descriptors",
        script.names.len(),
        ended.most_resident_kib,
        ended.most_descriptors
    );
    assert!(
        failed.is_empty(),
        "{} cases failed, the first of them {:?}; the machine ended with {:?} {}",
        failed.len(),
        failed[0],
        ended.reason,
        ended.detail
    );
    assert_eq!(ended.reason, ExitReason::PowerOff, "{}", ended.detail);
    assert_bounded(&ended);
    assert!(script.names.len() >= 300);
}

fn assert_bounded(ended: &Ended) {
    assert!(ended.most_resident_kib > 0 && ended.most_resident_kib < MOST_RESIDENT_KIB);
    assert!(ended.most_descriptors < MOST_DESCRIPTORS);
    assert!(ended.log_bytes < MOST_LOGGED);
}

struct CaseVerdict {
    case: u64,
    failed_step: u64,
    status: u64,
}

/// Those in what the guest printed: consoles of the attacks print there too.
fn verdicts(console: &[u8]) -> Vec<CaseVerdict> {
    let hexadecimal = |bytes: &[u8]| u64::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
    console
        .windows(15)
        .filter(|line| line[0] == b'<' && line[14] == b'>')
        .filter_map(|line| {
            let failed_step = hexadecimal(&line[6..12])?;
            Some(CaseVerdict {
                case: hexadecimal(&line[1..5])?,
                failed_step: match line[5] {
                    b'K' => 0,
                    b'F' => failed_step,
                    _ => return None,
                },
                status: hexadecimal(&line[12..14])?,
            })
        })
        .collect()
}

#[test]
fn a_malicious_driver_on_mmio_harms_nobody_but_itself() {
    survive(Transport::Mmio);
}

#[test]
fn a_malicious_driver_on_pci_harms_nobody_but_itself() {
    survive(Transport::Pci);
}

#[test]
fn an_answer_that_does_not_come_is_noticed() {
    let mut script = Script::default();
    witnesses(&mut script);
    let mut driver = Driver::new(&mut script, bus(Transport::Mmio, 0), Kind::Rng);
    driver.case("an answer that is another", |driver| driver.must_stop());
    driver.case("nothing", |_| {});
    let Some(machine) = Machine::launch(Transport::Mmio, &[Kind::Rng], &script.bytes()) else {
        return;
    };
    let failed: Vec<_> = verdicts(&machine.run_to_its_end().console)
        .iter()
        .map(|verdict| verdict.failed_step > 0)
        .collect();
    assert_eq!(failed, [true, false]);
}

#[test]
fn what_ends_a_machine_is_named() {
    for end in ends::all() {
        let Some(machine) = Machine::launch(end.transport, &[Kind::Rng], &end.script.bytes())
        else {
            return;
        };
        let ended = machine.run_to_its_end();
        println!("{:?} {:?}\t{}", ended.reason, ended.detail, end.name);
        assert_eq!(ended.reason, end.reason, "{}: {}", end.name, ended.detail);
        assert!(
            ended.detail.contains(end.detail),
            "{}: {}",
            end.name,
            ended.detail
        );
        assert_bounded(&ended);
    }
}
