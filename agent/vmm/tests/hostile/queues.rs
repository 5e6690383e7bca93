//! Attacks on queues, which every device has: their descriptors, their rings, their life.

use crate::driver::{
    ACKNOWLEDGED, Bus, DATA, DRIVER, DRIVER_OK, Descriptor, Driver, FEATURES_OK, HEADER, INDIRECT,
    NEXT, Register, SIZE, STATUS, WRITE,
};
use crate::{HIGH_END, LOW_END};

/// Everything against one device.
pub fn attack(driver: &mut Driver<'_>) {
    chains(driver);
    indirect(driver);
    available(driver);
    places(driver);
    life(driver);
}

/// Chains whose descriptors lie.
fn chains(driver: &mut Driver<'_>) {
    let chains: &[(&str, &[Descriptor])] = &[
        ("a descriptor that follows itself", &[(HEADER, 16, NEXT, 0)]),
        (
            "two descriptors that follow each other",
            &[(HEADER, 16, NEXT, 1), (DATA, 16, NEXT | WRITE, 0)],
        ),
        (
            "a loop behind a good start",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (STATUS, 1, NEXT | WRITE, 1),
            ],
        ),
        ("a writable loop", &[(DATA, 512, NEXT | WRITE, 0)]),
        ("a next just behind the table", &[(HEADER, 16, NEXT, SIZE)]),
        ("a next far behind the table", &[(HEADER, 16, NEXT, 0xffff)]),
        ("a buffer of no bytes", &[(HEADER, 0, 0, 0)]),
        ("a writable buffer of no bytes", &[(DATA, 0, WRITE, 0)]),
        ("a buffer of no bytes nowhere", &[(u64::MAX, 0, 0, 0)]),
        (
            "a chain of nothing but empty buffers",
            &[
                (HEADER, 0, NEXT, 1),
                (DATA, 0, NEXT | WRITE, 2),
                (STATUS, 0, WRITE, 0),
            ],
        ),
        ("a readable buffer of 4 GiB", &[(HEADER, u32::MAX, 0, 0)]),
        ("a writable buffer of 4 GiB", &[(DATA, u32::MAX, WRITE, 0)]),
        (
            "three buffers of 4 GiB",
            &[
                (0, u32::MAX, NEXT, 1),
                (0, u32::MAX, NEXT, 2),
                (0, u32::MAX, 0, 0),
            ],
        ),
        ("a readable buffer that wraps", &[(u64::MAX - 15, 32, 0, 0)]),
        (
            "a writable buffer that wraps",
            &[(u64::MAX - 15, 32, WRITE, 0)],
        ),
        (
            "a buffer at the last byte there is",
            &[(u64::MAX, 1, WRITE, 0)],
        ),
        (
            "a buffer whose end wraps to 0",
            &[(u64::MAX - 15, 16, WRITE, 0)],
        ),
        ("a readable buffer beyond memory", &[(1 << 40, 512, 0, 0)]),
        (
            "a writable buffer beyond memory",
            &[(1 << 40, 512, WRITE, 0)],
        ),
        (
            "a buffer with bit 63 set",
            &[(1 << 63 | DATA, 512, WRITE, 0)],
        ),
        ("a buffer over registers", &[(0xd000_0000, 512, WRITE, 0)]),
        ("a buffer over PCI windows", &[(0xd800_0000, 512, WRITE, 0)]),
        (
            "a buffer over PCI configuration",
            &[(0xe000_0000, 512, WRITE, 0)],
        ),
        ("a buffer over the IOAPIC", &[(0xfec0_0000, 16, WRITE, 0)]),
        (
            "a buffer over the local APIC",
            &[(0xfee0_0000, 512, WRITE, 0)],
        ),
        (
            "a buffer over KVM's own pages",
            &[(0xfffb_c000, 512, WRITE, 0)],
        ),
        (
            "a readable buffer across the end of low memory",
            &[(LOW_END - 256, 512, 0, 0)],
        ),
        (
            "a writable buffer across the end of low memory",
            &[(LOW_END - 256, 512, WRITE, 0)],
        ),
        (
            "a buffer from one region into the next",
            &[(LOW_END - 256, 0x4000_0200, WRITE, 0)],
        ),
        (
            "a buffer just behind low memory",
            &[(LOW_END, 16, WRITE, 0)],
        ),
        (
            "a writable buffer across the end of all memory",
            &[(HIGH_END - 256, 512, WRITE, 0)],
        ),
        (
            "a buffer just behind all memory",
            &[(HIGH_END, 1, WRITE, 0)],
        ),
        (
            "a good start and a bad end",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (1 << 40, 1, WRITE, 0),
            ],
        ),
        (
            "a good start and a bad middle",
            &[
                (HEADER, 16, NEXT, 1),
                (1 << 40, 512, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ],
        ),
        (
            "a bad start and a good end",
            &[
                (1 << 40, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ],
        ),
        (
            "a writable buffer before a readable one",
            &[(DATA, 512, NEXT | WRITE, 1), (HEADER, 16, 0, 0)],
        ),
        (
            "readable and writable by turns",
            &[
                (HEADER, 8, NEXT, 1),
                (DATA, 8, NEXT | WRITE, 2),
                (HEADER, 8, NEXT, 3),
                (STATUS, 1, WRITE, 0),
            ],
        ),
        (
            "only readable buffers",
            &[(HEADER, 16, NEXT, 1), (DATA, 512, 0, 0)],
        ),
        (
            "only writable buffers",
            &[(DATA, 16, NEXT | WRITE, 1), (DATA, 512, WRITE, 0)],
        ),
        ("one readable byte", &[(HEADER, 1, 0, 0)]),
        ("one writable byte", &[(DATA, 1, WRITE, 0)]),
        ("flags nobody has defined", &[(HEADER, 16, 0xfff8, 0)]),
        ("all flags", &[(HEADER, 16, 0xffff, 0)]),
        (
            "the same buffer twice",
            &[(DATA, 512, NEXT | WRITE, 1), (DATA, 512, WRITE, 0)],
        ),
        (
            "a readable and a writable buffer at one place",
            &[(DATA, 512, NEXT, 1), (DATA, 512, WRITE, 0)],
        ),
        (
            "buffers that overlap by halves",
            &[(DATA, 512, NEXT | WRITE, 1), (DATA + 256, 512, WRITE, 0)],
        ),
    ];
    for (name, chain) in chains {
        driver.case(name, |driver| {
            driver.start();
            driver.send(chain);
        });
    }
    let queue = driver.main();
    for (name, at) in [
        ("its own descriptor table", Driver::table(queue)),
        ("its own available ring", Driver::available(queue)),
        ("its own used ring", Driver::used(queue)),
    ] {
        driver.case(&format!("a writable buffer over {name}"), |driver| {
            driver.start();
            driver.send(&[(at, 256, WRITE, 0)]);
        });
        driver.case(&format!("a readable buffer over {name}"), |driver| {
            driver.start();
            driver.send(&[(at, 256, 0, 0)]);
        });
    }
    driver.case("a chain as long as the table", |driver| {
        driver.start();
        for index in 0..SIZE {
            let flags = if index + 1 < SIZE { NEXT } else { 0 };
            driver.describe(queue, index, (HEADER, 1, flags, index + 1));
        }
        driver.offer(queue, 0);
        driver.ring();
    });
    driver.case("a loop as long as the table", |driver| {
        driver.start();
        for index in 0..SIZE {
            driver.describe(queue, index, (DATA, 512, NEXT | WRITE, (index + 1) % SIZE));
        }
        driver.offer(queue, 0);
        driver.ring();
    });
    driver.case("chains that share their tails", |driver| {
        driver.start();
        driver.describe(queue, 0, (HEADER, 16, NEXT, 2));
        driver.describe(queue, 1, (HEADER, 16, NEXT, 2));
        driver.describe(queue, 2, (DATA, 512, NEXT | WRITE, 3));
        driver.describe(queue, 3, (STATUS, 1, WRITE, 0));
        for head in [0, 1, 2, 3] {
            driver.offer(queue, head);
        }
        driver.ring();
    });
}

/// Tables of descriptors, taken and not.
fn indirect(driver: &mut Driver<'_>) {
    const F_INDIRECT: u64 = 1 << 28;
    let queue = driver.main();
    let tables: &[(&str, Descriptor, &[Descriptor])] = &[
        (
            "a good table",
            (DATA, 16, INDIRECT, 0),
            &[(HEADER, 16, 0, 0)],
        ),
        ("an empty table", (DATA, 0, INDIRECT, 0), &[]),
        (
            "half a descriptor",
            (DATA, 8, INDIRECT, 0),
            &[(HEADER, 16, 0, 0)],
        ),
        (
            "one and a half descriptors",
            (DATA, 24, INDIRECT, 0),
            &[(HEADER, 16, NEXT, 1), (DATA, 16, 0, 0)],
        ),
        (
            "a table of 4 GiB",
            (DATA, 0xffff_fff0, INDIRECT, 0),
            &[(HEADER, 16, NEXT, 1), (HEADER, 16, NEXT, 0)],
        ),
        ("a table beyond memory", (1 << 40, 16, INDIRECT, 0), &[]),
        (
            "a table across the end of memory",
            (LOW_END - 16, 64, INDIRECT, 0),
            &[],
        ),
        ("a table that wraps", (u64::MAX - 15, 32, INDIRECT, 0), &[]),
        (
            "a table over registers",
            (0xd000_0000, 64, INDIRECT, 0),
            &[],
        ),
        (
            "a writable table",
            (DATA, 16, INDIRECT | WRITE, 0),
            &[(HEADER, 16, 0, 0)],
        ),
        (
            "a table with a successor",
            (DATA, 16, INDIRECT | NEXT, 1),
            &[(HEADER, 16, 0, 0)],
        ),
        (
            "a table in a table",
            (DATA, 16, INDIRECT, 0),
            &[(DATA, 16, INDIRECT, 0)],
        ),
        (
            "a table in itself",
            (Driver::table(queue), 16, INDIRECT, 0),
            &[],
        ),
        (
            "a loop in a table",
            (DATA, 32, INDIRECT, 0),
            &[(HEADER, 16, NEXT, 1), (HEADER, 16, NEXT, 0)],
        ),
        (
            "a next behind the table",
            (DATA, 16, INDIRECT, 0),
            &[(HEADER, 16, NEXT, 1)],
        ),
    ];
    for (taken, features) in [("taken", F_INDIRECT), ("not taken", 0)] {
        for (name, descriptor, table) in tables {
            driver.case(&format!("indirect {taken}: {name}"), |driver| {
                driver.start_with(features);
                for (entry, at) in table.iter().zip((DATA..).step_by(16)) {
                    driver.describe_at(at, *entry);
                }
                driver.send(&[*descriptor]);
            });
        }
    }
}

/// Lies of the available ring.
fn available(driver: &mut Driver<'_>) {
    let queue = driver.main();
    let good = (HEADER, 16, 0, 0);
    for (name, head) in [
        ("a head just behind the table", SIZE),
        ("a head far behind the table", 0xffff),
        ("a head of a chain never described", SIZE - 1),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.describe(queue, 0, good);
            driver.offer(queue, head);
            driver.ring();
        });
    }
    for (name, count) in [
        ("more chains than the queue has", SIZE + 1),
        ("half of all counts at once", 0x8000),
        ("one chain less than none", 0xffff),
        ("as many chains as the queue has, all the same", SIZE),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.describe(queue, 0, good);
            driver.set_available(queue, count);
            driver.ring();
        });
    }
    driver.case("a count that goes back", |driver| {
        driver.start();
        driver.describe(queue, 0, good);
        driver.set_available(queue, 3);
        driver.ring();
        driver.set_available(queue, 1);
        driver.ring();
    });
    for (name, chain) in [
        ("the same head twice", &[(HEADER, 16, 0, 0)][..]),
        (
            "the same request twice",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ],
        ),
    ] {
        driver.case(name, |driver| {
            driver.start();
            for (descriptor, index) in chain.iter().zip(0..) {
                driver.describe(queue, index, *descriptor);
            }
            driver.offer(queue, 0);
            driver.offer(queue, 0);
            driver.ring();
        });
    }
    driver.case("a count that runs on while the device works", |driver| {
        driver.start();
        driver.describe(queue, 0, (DATA, 16, WRITE, 0));
        for count in 1..200 {
            driver.set_available(queue, count);
            driver.notify(queue);
        }
    });
    driver.case("descriptors that change while the device works", |driver| {
        driver.start();
        for turn in 0..60u16 {
            let address = if turn % 2 == 0 { DATA } else { u64::MAX };
            driver.describe(queue, 0, (address, u32::from(turn) << 24 | 16, WRITE, 0));
            driver.offer(queue, 0);
            driver.notify(queue);
        }
    });
    driver.case("no interrupts wanted and the flags all set", |driver| {
        driver.start();
        driver.script.store(2, Driver::available(queue), 0xffff);
        driver.send(&[good]);
    });
}

/// Queues where none can be.
fn places(driver: &mut Driver<'_>) {
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
        ("at the end of all addresses", u64::MAX & !0xf),
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
    });
}

/// States out of order.
fn life(driver: &mut Driver<'_>) {
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
