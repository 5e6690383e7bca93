//! Requests of disks.

use crate::driver::{DATA, Driver, HEADER, NEXT, Register, SIZE, STATUS, WRITE};

/// The disks' last sector but one: what is written there harms nobody.
const SECTOR: u64 = 126;

pub fn attack(driver: &mut Driver<'_>) {
    let request = |driver: &mut Driver<'_>, kind: u32, sector: u64| {
        driver.script.store(8, HEADER, kind.into());
        driver.script.store(8, HEADER + 8, sector);
    };
    for (name, kind, sector, length) in [
        ("a read far behind the end", 0, 1 << 40, 512),
        ("a read across the end", 0, 127, 1024),
        ("a read at the last sector of all", 0, u64::MAX, 512),
        ("a read whose sector times 512 wraps to 0", 0, 1 << 55, 512),
        ("a read of no bytes", 0, 0, 0),
        ("a read of half a sector", 0, 0, 256),
        ("a read of 513 bytes", 0, 0, 513),
        ("a read of 2 GiB", 0, 0, 1 << 31),
        ("an unknown request", 0x99, 0, 512),
        ("a request of all ones", u32::MAX, u64::MAX, 512),
        ("SCSI", 2, 0, 512),
        ("a flush with data", 4, 0, 512),
        ("a flush of a sector", 4, 77, 512),
        ("its name into too little", 8, 0, 5),
        ("its name into too much", 8, 0, 4096),
        ("the lifetime, which is not offered", 10, 0, 512),
        ("a zone report, which is not offered", 16, 0, 512),
    ] {
        driver.case(name, |driver| {
            driver.start();
            request(driver, kind, sector);
            driver.send(&[
                (HEADER, 16, NEXT, 1),
                (DATA, length, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ]);
        });
    }
    for (name, kind, sector, length) in [
        ("a write across the end", 1, 127, 1024),
        ("a write far behind the end", 1, u64::MAX, 512),
        ("a write of no bytes", 1, SECTOR, 0),
        ("a write of half a sector", 1, SECTOR, 256),
        ("a write", 1, SECTOR, 512),
        ("a discard of half a range", 11, 0, 8),
        ("a discard of no range", 11, 0, 0),
        ("a discard of a thousand ranges", 11, 0, 16_000),
        ("zeros for half a range", 13, 0, 8),
        ("zeros for two ranges", 13, 0, 32),
        ("secure erase, which is not offered", 14, 0, 16),
    ] {
        driver.case(name, |driver| {
            driver.start();
            request(driver, kind, sector);
            driver.send(&[
                (HEADER, 16, NEXT, 1),
                (DATA, length, NEXT, 2),
                (STATUS, 1, WRITE, 0),
            ]);
        });
    }
    for (what, kind) in [("discard", 11), ("zeros", 13)] {
        for (name, sector, count, flags) in [
            ("behind the end", 128, 8, 0),
            ("across the end", 120, 16, 0),
            ("of everything and more", 0, u32::MAX, 0),
            ("of nothing", SECTOR, 0, 0),
            ("that wraps", u64::MAX - 3, 8, 0),
            ("with flags nobody has defined", SECTOR, 1, 0xffff_fffe_u32),
        ] {
            driver.case(&format!("{what} {name}"), |driver| {
                driver.start();
                request(driver, kind, 0);
                driver.script.store(8, DATA, sector);
                driver
                    .script
                    .store(8, DATA + 8, u64::from(count) | u64::from(flags) << 32);
                driver.send(&[
                    (HEADER, 16, NEXT, 1),
                    (DATA, 16, NEXT, 2),
                    (STATUS, 1, WRITE, 0),
                ]);
            });
        }
    }
    for (name, chain) in [
        (
            "a header of 15 bytes",
            &[
                (HEADER, 15, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ][..],
        ),
        (
            "a header in four pieces",
            &[
                (HEADER, 4, NEXT, 1),
                (HEADER + 4, 4, NEXT, 2),
                (HEADER + 8, 4, NEXT, 3),
                (HEADER + 12, 4, NEXT, 4),
                (DATA, 513, WRITE, 0),
            ],
        ),
        ("no status", &[(HEADER, 16, NEXT, 1), (DATA, 512, 0, 0)]),
        (
            "a status of no bytes",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (STATUS, 0, WRITE, 0),
            ],
        ),
        (
            "a status that is data",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (DATA, 1, WRITE, 0),
            ],
        ),
        (
            "a status that is the header",
            &[
                (HEADER, 16, NEXT, 1),
                (DATA, 512, NEXT | WRITE, 2),
                (HEADER, 1, WRITE, 0),
            ],
        ),
        (
            "data that are the header",
            &[
                (HEADER, 16, NEXT, 1),
                (HEADER, 512, NEXT | WRITE, 2),
                (STATUS, 1, WRITE, 0),
            ],
        ),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.send(chain);
        });
    }
    driver.case("sixteen requests and a reset", |driver| {
        driver.start();
        for head in 0..SIZE / 3 {
            driver.describe(0, 3 * head, (HEADER, 16, NEXT, 3 * head + 1));
            driver.describe(0, 3 * head + 1, (DATA, 512, NEXT | WRITE, 3 * head + 2));
            driver.describe(0, 3 * head + 2, (STATUS, 1, WRITE, 0));
            driver.offer(0, 3 * head);
        }
        driver.notify(0);
        driver.set(Register::Status, 0);
    });
}
