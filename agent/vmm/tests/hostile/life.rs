//! Attacks on what every device has before and beside its requests: where its queues are, and the states of its life.

use crate::driver::{
    ACKNOWLEDGED, Bus, DATA, DRIVER, DRIVER_OK, Driver, FEATURES_OK, HEADER, Register, SIZE, WRITE,
};
use crate::{HIGH_END, LOW_END};

/// Queues where none can be.
pub fn places(driver: &mut Driver<'_>) {
    let queue = driver.main();
    let (table, available, used) = (
        Driver::table(queue),
        Driver::available(queue),
        Driver::used(queue),
    );
    let size = u64::from(SIZE);
    let wild = [
        ("unaligned", 1),
        ("beyond memory", 1 << 40),
        ("over registers", 0xd000_0000),
        ("over the local APIC", 0xfee0_0000),
        ("at the end of low memory", LOW_END - 16),
        ("at the end of all memory", HIGH_END - 16),
        ("at the end of all addresses", !0xf),
        ("at 0", 0),
    ];
    for (where_, address) in wild {
        let at = |place: u64| if address == 1 { place + 1 } else { address };
        for (what, (table, available, used)) in [
            ("descriptor table", (at(table), available, used)),
            ("available ring", (table, at(available), used)),
            ("used ring", (table, available, at(used))),
        ] {
            if address == 0 && what == "used ring" {
                continue;
            }
            driver.case(&format!("a {what} {where_}"), |driver| {
                driver.negotiate(0);
                driver.place_all();
                driver.place(queue, size, table, available, used);
                driver.set(Register::Status, DRIVER_OK);
                driver.send(&[(HEADER, 16, 0, 0)]);
            });
        }
    }
    for (name, size) in [
        ("no entries", 0),
        ("one entry", 1),
        ("three entries", 3),
        ("more entries than offered", 0x400),
        ("32768 entries", 0x8000),
        ("65535 entries", 0xffff),
        ("65536 entries and more", 0x1_0010),
    ] {
        driver.case(&format!("a queue of {name}"), |driver| {
            driver.negotiate(0);
            driver.place_all();
            driver.place(queue, size, table, available, used);
            driver.set(Register::Status, DRIVER_OK);
            driver.send(&[(HEADER, 16, 0, 0)]);
        });
    }
    driver.case("all three parts at one place", |driver| {
        driver.negotiate(0);
        driver.place_all();
        driver.place(queue, size, table, table, table);
        driver.set(Register::Status, DRIVER_OK);
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    driver.case("all queues at one place", |driver| {
        driver.negotiate(0);
        for index in 0..driver.kind.queues() {
            driver.place(index, size, table, available, used);
        }
        driver.set(Register::Status, DRIVER_OK);
        driver.send(&[(HEADER, 16, 0, 0)]);
        for index in 0..driver.kind.queues() {
            driver.notify(index);
        }
    });
    for selected in [4, 64, 0xffff] {
        driver.case(&format!("queue {selected}, which there is not"), |driver| {
            driver.negotiate(0);
            driver.place(selected, size, table, available, used);
            driver.place_all();
            driver.set(Register::Status, DRIVER_OK);
            driver.set(Register::QueueSelect, selected.into());
            driver.set(Register::QueueReady, 1);
            driver.send(&[(HEADER, 16, 0, 0)]);
        });
    }
    driver.case("the main queue is missing", |driver| {
        driver.negotiate(0);
        for index in (0..driver.kind.queues()).filter(|index| *index != queue) {
            driver.place(index, size, table, available, used);
        }
        driver.set(Register::Status, DRIVER_OK);
        driver.ring();
        driver.must_stop();
    });
}

/// States out of order.
pub fn states(driver: &mut Driver<'_>) {
    let queue = driver.main();
    for (name, states) in [
        ("reset", &[0][..]),
        ("ACKNOWLEDGE", &[0, ACKNOWLEDGED]),
        ("DRIVER", &[0, ACKNOWLEDGED, DRIVER]),
    ] {
        driver.case(&format!("a notification in {name}"), |driver| {
            driver.start();
            for state in states {
                driver.set(Register::Status, *state);
            }
            driver.notify(queue);
        });
    }
    driver.case("a notification before the queues have a place", |driver| {
        driver.negotiate(0);
        driver.notify(queue);
    });
    driver.case("a notification before DRIVER_OK", |driver| {
        driver.negotiate(0);
        driver.place_all();
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    driver.case("notifications of queues there are not", |driver| {
        driver.start();
        let (address, width) = match driver.bus {
            Bus::Mmio(base) => (base + 0x50, 4),
            Bus::Pci { window, .. } => (window + 0x3000 + 4 * 100, 2),
        };
        for value in [4, 100, 0xffff, 0xffff_ffff] {
            driver.script.store(width, address, value);
        }
    });
    driver.case("a thousand notifications for nothing", |driver| {
        driver.start();
        for _ in 0..1000 {
            driver.notify(queue);
        }
    });
    for (name, states) in [
        (
            "DRIVER_OK without FEATURES_OK",
            &[0, ACKNOWLEDGED, DRIVER, 7][..],
        ),
        ("DRIVER_OK out of nowhere", &[0, DRIVER_OK]),
        ("FEATURES_OK out of nowhere", &[0, FEATURES_OK]),
        ("all status bits", &[0, 0xff]),
        ("FAILED", &[0x80]),
        ("FAILED and on", &[0x83, DRIVER_OK]),
        ("NEEDS_RESET by the driver", &[0x4f, 0x4b]),
        (
            "a status that goes back",
            &[FEATURES_OK, DRIVER, ACKNOWLEDGED],
        ),
        ("FEATURES_OK again while live", &[FEATURES_OK, DRIVER_OK]),
        ("DRIVER_OK again while live", &[DRIVER_OK, DRIVER_OK]),
        ("status bits nobody has defined", &[0x1f, 0x2f, 0x30]),
    ] {
        driver.case(name, |driver| {
            driver.start();
            for state in states {
                driver.set(Register::Status, *state);
            }
            driver.send(&[(HEADER, 16, 0, 0)]);
        });
    }
    driver.case("no VERSION_1", |driver| {
        for state in [0, ACKNOWLEDGED, DRIVER, FEATURES_OK, DRIVER_OK] {
            driver.set(Register::Status, state);
        }
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    driver.case("features that are not offered", |driver| {
        driver.negotiate(0xffff_ffff);
        driver.place_all();
        driver.set(Register::Status, DRIVER_OK);
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    driver.case("features of halves there are not", |driver| {
        driver.start();
        for half in [2, 3, 0x8000_0000, 0xffff_ffff] {
            driver.set(Register::DriverFeaturesSelect, half);
            driver.set(Register::DriverFeatures, 0xffff_ffff);
        }
    });
    driver.case("features that change while live", |driver| {
        driver.start();
        driver.set(Register::DriverFeaturesSelect, 0);
        driver.set(Register::DriverFeatures, 0xffff_ffff);
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    for size in [0, 1, 8, 256, 0x8000, 0xffff] {
        driver.case(
            &format!("a queue whose size becomes {size} while live"),
            |driver| {
                driver.start();
                driver.set(Register::QueueSelect, queue.into());
                driver.set(Register::QueueSize, size);
                for head in 0..SIZE {
                    driver.describe(queue, head, (DATA, 16, WRITE, 0));
                    driver.offer(queue, head);
                }
                driver.ring();
            },
        );
    }
    for (name, register) in [
        ("descriptor table", Register::Descriptors),
        ("available ring", Register::Available),
        ("used ring", Register::Used),
    ] {
        driver.case(&format!("a {name} that moves while live"), |driver| {
            driver.start();
            driver.set(Register::QueueSelect, queue.into());
            driver.set_address(register, 1 << 40);
            driver.send(&[(HEADER, 16, 0, 0)]);
        });
    }
    driver.case("a queue that is taken back while live", |driver| {
        driver.start();
        driver.set(Register::QueueSelect, queue.into());
        driver.set(Register::QueueReady, 0);
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
    driver.case("a reset in the middle of requests", |driver| {
        for _ in 0..10 {
            driver.start();
            for head in 0..SIZE {
                driver.describe(queue, head, (DATA, 64, WRITE, 0));
                driver.offer(queue, head);
            }
            driver.notify(queue);
            driver.set(Register::Status, 0);
        }
    });
    driver.case("a hundred resets", |driver| {
        driver.start();
        for _ in 0..100 {
            driver.set(Register::Status, 0);
        }
    });
    driver.case("writes to the device's configuration", |driver| {
        driver.start();
        for at in (0..64).step_by(4) {
            let address = driver.bus.configuration() + at;
            driver.script.store(4, address, 0xffff_ffff);
            driver.script.load(8, address);
        }
        driver.send(&[(HEADER, 16, 0, 0)]);
    });
}
