//! What a guest can do that is its machine's end, and by which name.

use crn_protocol::control::{ExitReason, Transport};

use crate::driver::{Driver, Kind};
use crate::guest::Script;
use crate::{LOW_END, bus};

pub struct End {
    pub name: String,
    pub transport: Transport,
    pub script: Script,
    pub reason: ExitReason,
    /// A part of the sentence that tells it.
    pub detail: &'static str,
}

pub fn all() -> Vec<End> {
    let mut ends = Vec::new();
    for transport in [Transport::Mmio, Transport::Pci] {
        let mut end = |name: &str, reason, detail, write: &dyn Fn(&mut Driver<'_>)| {
            let mut script = Script::default();
            write(&mut Driver::new(&mut script, bus(transport, 0), Kind::Rng));
            ends.push(End {
                name: format!("{transport:?}: {name}"),
                transport,
                script,
                reason,
                detail,
            });
        };
        end("power off", ExitReason::PowerOff, "", &|_| {});
        end(
            "power off with requests under way",
            ExitReason::PowerOff,
            "",
            &|driver| {
                driver.start();
                for head in 0..8 {
                    driver.describe(0, head, (0x200_0000, 0x1_0000, 2, 0));
                    driver.offer(0, head);
                }
                driver.notify(0);
            },
        );
        end("reset", ExitReason::Reset, "", &|driver| {
            driver.script.output(1, 0x602, 0x52)
        });
        end(
            "a fault without a handler",
            ExitReason::Reset,
            "triple fault",
            &|driver| {
                // Outside what the boot's page tables map.
                driver.script.load(8, 1 << 40);
            },
        );
        end(
            "a jump into nowhere",
            ExitReason::Reset,
            "triple fault",
            &|driver| {
                driver.script.jump(1 << 45);
            },
        );
        end(
            "a jump into registers",
            ExitReason::Failed,
            "KVM",
            &|driver| {
                driver.script.jump(0xd000_0000);
            },
        );
        end(
            "a jump behind low memory",
            ExitReason::Failed,
            "KVM",
            &|driver| {
                driver.script.jump(LOW_END);
            },
        );
    }
    ends
}
