//! Attacks on queues, which every device has: what their descriptors and their available ring say.

use crate::HIGH_END;
use crate::LOW_END;
use crate::driver::{DATA, Descriptor, Driver, HEADER, INDIRECT, NEXT, SIZE, STATUS, WRITE};

/// Everything against the queues of one device.
pub fn attack(driver: &mut Driver<'_>) {
    chains(driver);
    indirect(driver);
    available(driver);
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
            driver.must_go_on();
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
                driver.must_go_on();
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
            if head >= SIZE {
                driver.must_stop();
            }
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
            if count > SIZE {
                driver.must_stop();
            }
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
            // A device that looks between the two stores finds any address with any length, and may write to the last byte,
            // as disks do. None of these ends in the script.
            let length = (u32::from(turn) + 2) << 24 | 16;
            driver.describe(queue, 0, (address, length, WRITE, 0));
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
