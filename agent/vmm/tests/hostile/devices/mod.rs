//! Requests that only one kind of device knows, out of all bounds.

mod disk;
mod vsock;

use crate::driver::{DATA, DRIVER_OK, Driver, HEADER, Kind, NEXT, Register, SIZE, STATUS, WRITE};

pub fn attack(driver: &mut Driver<'_>) {
    match driver.kind {
        Kind::Disk | Kind::ReadOnlyDisk => disk::attack(driver),
        Kind::Net => net(driver),
        Kind::Vsock => vsock::attack(driver),
        Kind::Rng => rng(driver),
        Kind::Balloon => balloon(driver),
        Kind::Console => console(driver),
        Kind::Pmem => pmem(driver),
    }
}

fn net(driver: &mut Driver<'_>) {
    for (name, length) in [
        ("no header", 1),
        ("half a header", 6),
        ("a header and no packet", 12),
        ("a packet of one byte", 13),
        ("a packet of 64 KiB", 0x1_0000),
        ("a packet of 16 MiB", 0x100_0000),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.send(&[(HEADER, length, 0, 0)]);
        });
    }
    for (name, header) in [
        ("a header of all ones", u64::MAX),
        ("a checksum behind the packet", 1 | 0xffff << 48),
        ("segments of no bytes", 0x0100),
        ("segments of a kind there is not", 0x7f00 | 0x40 << 32),
        (
            "a header longer than the packet",
            0x0100 | 0xffff << 16 | 1 << 32,
        ),
    ] {
        for features in [0, 0x1_0801] {
            driver.case(&format!("{name}, features {features:#x}"), |driver| {
                driver.start_with(features);
                driver.script.store(8, HEADER, header);
                driver.script.store(4, HEADER + 8, 0xffff_ffff);
                driver.send(&[(HEADER, 72, 0, 0)]);
            });
        }
    }
    for class in [0u64, 1, 4, 5, 0xff] {
        driver.case(&format!("control class {class}"), |driver| {
            driver.start_with(1 << 17);
            driver
                .script
                .store(8, HEADER, class | 0xff << 8 | 0xffff << 16);
            driver.describe(2, 0, (HEADER, 2, NEXT, 1));
            driver.describe(2, 1, (HEADER + 2, 6, NEXT, 2));
            driver.describe(2, 2, (STATUS, 1, WRITE, 0));
            driver.offer(2, 0);
            driver.notify(2);
            driver.describe(2, 0, (HEADER, 0, 0, 0));
            driver.offer(2, 0);
            driver.notify(2);
        });
    }
    for (name, descriptor) in [
        ("a receive buffer of no bytes", (DATA, 0, WRITE, 0)),
        (
            "a receive buffer too small for a header",
            (DATA, 4, WRITE, 0),
        ),
        ("a receive buffer that is readable", (DATA, 2048, 0, 0)),
        ("a receive buffer beyond memory", (1 << 40, 2048, WRITE, 0)),
        (
            "a receive buffer that follows itself",
            (DATA, 2048, NEXT | WRITE, 0),
        ),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.describe(0, 0, descriptor);
            driver.offer(0, 0);
            driver.notify(0);
        });
    }
}

fn rng(driver: &mut Driver<'_>) {
    for (name, length) in [
        ("64 KiB", 0x1_0000),
        ("64 KiB and a byte", 0x1_0001),
        ("16 MiB", 0x100_0000),
    ] {
        driver.case(&format!("{name} of entropy"), |driver| {
            driver.start();
            // Into memory nobody uses.
            driver.send(&[(0x200_0000, length, WRITE, 0)]);
        });
    }
    driver.case("entropy for every entry of the queue", |driver| {
        driver.start();
        for head in 0..SIZE {
            driver.describe(0, head, (0x200_0000, 0x1_0000, WRITE, 0));
            driver.offer(0, head);
        }
        driver.ring();
    });
}

fn balloon(driver: &mut Driver<'_>) {
    for (name, page) in [
        ("the last page number of all", 0xffff_ffff),
        ("a page of the gap", 0xd_0000),
        ("the local APIC's page", 0xf_ee00),
        ("the page behind low memory", crate::LOW_END >> 12),
        ("the page behind all memory", crate::HIGH_END >> 12),
        ("a page far beyond memory", 0x4000_0000),
    ] {
        for (what, queue) in [("inflating", 0), ("deflating", 1)] {
            driver.case(&format!("{what}: {name}"), |driver| {
                driver.start();
                driver.script.store(4, HEADER, page);
                driver.describe(queue, 0, (HEADER, 4, 0, 0));
                driver.offer(queue, 0);
                driver.notify(queue);
            });
        }
    }
    for (name, length) in [
        ("no page number", 0),
        ("three bytes of a page number", 3),
        ("five bytes", 5),
        ("more page numbers than anybody has", 0x10_0000),
    ] {
        driver.case(name, |driver| {
            driver.start();
            // Zeros: the first page, over and over.
            driver.send(&[(0x300_0000, length, 0, 0)]);
        });
    }
    driver.case("the pages of its own queue", |driver| {
        driver.start();
        driver.script.store(
            8,
            HEADER,
            Driver::table(0) >> 12 | (Driver::available(0) >> 12) << 32,
        );
        driver.script.store(4, HEADER + 8, Driver::used(0) >> 12);
        driver.send(&[(HEADER, 12, 0, 0)]);
    });
    driver.case("deflating what was never inflated", |driver| {
        driver.start();
        for _ in 0..10 {
            driver.script.store(4, HEADER, 0x7000);
            driver.describe(1, 0, (HEADER, 4, 0, 0));
            driver.offer(1, 0);
            driver.notify(1);
        }
    });
    driver.case("a count of pages that is more than there are", |driver| {
        driver.start();
        let actual = driver.bus.configuration() + 4;
        for count in [0xffff_ffff, 0x8000_0000, 1, 0] {
            driver.script.store(4, actual, count);
        }
    });
    for (name, features) in [
        ("statistics", 1 << 1),
        ("reporting", 1 << 5),
        ("statistics and reporting", 1 << 1 | 1 << 5),
    ] {
        for (what, descriptor) in [
            ("of no bytes", (DATA, 0, 0, 0)),
            ("of half an entry", (DATA, 5, 0, 0)),
            ("of 1 MiB", (0x300_0000, 0x10_0000, 0, 0)),
            ("beyond memory", (1 << 40, 4096, WRITE, 0)),
            (
                "across the end of memory",
                (crate::LOW_END - 2048, 4096, WRITE, 0),
            ),
            (
                "that is writable and unaligned",
                (0x300_0001, 4097, WRITE, 0),
            ),
            (
                "that follow themselves",
                (0x300_0000, 4096, NEXT | WRITE, 0),
            ),
        ] {
            driver.case(&format!("{name} {what}"), |driver| {
                driver.negotiate(features);
                for queue in 0..4u16 {
                    // The later two have a place too.
                    driver.script.fill(Driver::available(queue), 0, 8);
                    driver.script.fill(Driver::used(queue), 0, 24);
                    let (table, available) = (Driver::table(queue), Driver::available(queue));
                    driver.place(queue, SIZE.into(), table, available, Driver::used(queue));
                }
                driver.set(Register::Status, DRIVER_OK);
                for queue in 2..4u16 {
                    driver.describe(queue, 0, descriptor);
                    driver.offer(queue, 0);
                    driver.offer(queue, 0);
                    driver.notify(queue);
                }
            });
        }
    }
}

fn console(driver: &mut Driver<'_>) {
    for (name, queue, descriptor) in [
        ("input into no bytes", 0, (DATA, 0, WRITE, 0)),
        ("input into a readable buffer", 0, (DATA, 16, 0, 0)),
        ("input beyond memory", 0, (1 << 40, 16, WRITE, 0)),
        ("output of 1 MiB", 1, (0x300_0000, 0x10_0000, 0, 0)),
        ("output into a writable buffer", 1, (DATA, 16, WRITE, 0)),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.describe(queue, 0, descriptor);
            driver.offer(queue, 0);
            driver.notify(queue);
            driver.script.settle(Driver::used(queue) + 2);
        });
    }
    driver.case("serial port registers of every width", |driver| {
        driver.start();
        // Not the transmitter, which would print, nor the loopback, which would swallow.
        for port in [0x3f9u16, 0x3fa, 0x3fb, 0x3fd, 0x3fe, 0x3ff] {
            for width in [1, 2, 4] {
                driver.script.input(width, port);
            }
            driver.script.output(1, port, 0);
        }
        driver.script.check_input(1, 0x3fd, 0x20, 0x20);
    });
}

fn pmem(driver: &mut Driver<'_>) {
    for (name, kind, answer) in [
        ("an unknown request", 1, 4),
        ("a request of all ones", 0xffff_ffff, 4),
        ("an answer of no bytes", 0, 0),
        ("an answer of three bytes", 0, 3),
        ("an answer of 1 MiB", 0, 0x10_0000),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.script.store(4, HEADER, kind);
            driver.send(&[(HEADER, 4, NEXT, 1), (0x300_0000, answer, WRITE, 0)]);
        });
    }
}
