//! Requests that only one kind of device knows, out of all bounds.

use crate::driver::{DATA, Driver, HEADER, Kind, NEXT, Packet, Register, STATUS, WRITE};
use crate::driver::{DRIVER_OK, SIZE};

pub fn attack(driver: &mut Driver<'_>) {
    match driver.kind {
        Kind::Disk | Kind::ReadOnlyDisk => disk(driver),
        Kind::Net => net(driver),
        Kind::Vsock => vsock(driver),
        Kind::Rng => rng(driver),
        Kind::Balloon => balloon(driver),
        Kind::Console => console(driver),
        Kind::Pmem => pmem(driver),
    }
}

/// The disks' last sector but one: what is written there harms nobody.
const SECTOR: u64 = 126;

fn disk(driver: &mut Driver<'_>) {
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
                driver.script.store(
                    8,
                    DATA + 8,
                    u64::from(count) | u64::from(flags) << 32,
                );
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

fn vsock(driver: &mut Driver<'_>) {
    let good = Packet::of(1);
    let packets = [
        (
            "an operation of 0",
            Packet {
                operation: 0,
                ..good
            },
        ),
        (
            "an operation there is not",
            Packet {
                operation: 8,
                ..good
            },
        ),
        (
            "the last operation of all",
            Packet {
                operation: 0xffff,
                ..good
            },
        ),
        ("a datagram", Packet { kind: 3, ..good }),
        (
            "seqpacket, which is not offered",
            Packet { kind: 2, ..good },
        ),
        (
            "a sender that is somebody else",
            Packet {
                source_cid: 4,
                ..good
            },
        ),
        (
            "a sender that is the host",
            Packet {
                source_cid: 2,
                ..good
            },
        ),
        (
            "a sender of 64 bits",
            Packet {
                source_cid: u64::MAX,
                ..good
            },
        ),
        (
            "a receiver that is another guest",
            Packet {
                destination_cid: 4,
                ..good
            },
        ),
        (
            "a receiver that is itself",
            Packet {
                destination_cid: 3,
                ..good
            },
        ),
        (
            "a receiver that is the hypervisor",
            Packet {
                destination_cid: 0,
                ..good
            },
        ),
        (
            "a receiver of 64 bits",
            Packet {
                destination_cid: 1 << 32 | 2,
                ..good
            },
        ),
        (
            "a request with data",
            Packet {
                length: 100,
                ..good
            },
        ),
        (
            "a request with 4 GiB of data",
            Packet {
                length: u32::MAX,
                ..good
            },
        ),
        ("a request without room", Packet { buffer: 0, ..good }),
        (
            "a request with all room",
            Packet {
                buffer: u32::MAX,
                ..good
            },
        ),
        (
            "a request that has taken what was never sent",
            Packet {
                forwarded: 0x8000_0000,
                ..good
            },
        ),
        (
            "a request from the last port to the last",
            Packet {
                source_port: u32::MAX,
                destination_port: u32::MAX,
                ..good
            },
        ),
        (
            "a response nobody asked for",
            Packet {
                operation: 2,
                ..good
            },
        ),
        (
            "a reset of nothing",
            Packet {
                operation: 3,
                ..good
            },
        ),
        (
            "a shutdown of nothing",
            Packet {
                operation: 4,
                flags: u32::MAX,
                ..good
            },
        ),
        (
            "data for nobody",
            Packet {
                operation: 5,
                length: 44,
                ..good
            },
        ),
        (
            "a credit request of nobody",
            Packet {
                operation: 7,
                ..good
            },
        ),
    ];
    for (name, packet) in packets {
        driver.case(name, |driver| {
            driver.start();
            driver.packet(&packet);
        });
    }
    for (name, length) in [
        ("an empty packet", 0),
        ("a packet of 43 bytes", 43),
        ("half a header", 22),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.write_packet(&good);
            driver.send(&[(HEADER, length, 0, 0)]);
        });
    }
    // With a connection that the controller holds at its other end.
    let connected = |driver: &mut Driver<'_>, port: u32, then: &[Packet]| {
        driver.start();
        for buffer in 0..4 {
            driver.describe(
                0,
                buffer,
                (DATA + 0x400 * u64::from(buffer), 0x400, WRITE, 0),
            );
            driver.offer(0, buffer);
        }
        driver.notify(0);
        driver.packet(&Packet {
            source_port: port,
            ..good
        });
        driver.script.settle(Driver::used(0) + 2);
        for packet in then {
            driver.packet(&Packet {
                source_port: port,
                ..*packet
            });
        }
    };
    let update = Packet::of(6);
    let data = Packet::of(5);
    let wild: [(&str, &[Packet]); 14] = [
        (
            "room that shrinks to nothing",
            &[Packet {
                buffer: 0,
                ..update
            }],
        ),
        (
            "room of all there is",
            &[Packet {
                buffer: u32::MAX,
                ..update
            }],
        ),
        (
            "more taken than was sent",
            &[Packet {
                forwarded: 1,
                ..update
            }],
        ),
        (
            "half of all numbers taken",
            &[Packet {
                forwarded: 0x8000_0000,
                ..update
            }],
        ),
        (
            "all taken but one",
            &[Packet {
                forwarded: u32::MAX,
                ..update
            }],
        ),
        (
            "counters that go back and forth",
            &[
                Packet {
                    forwarded: u32::MAX,
                    buffer: 0,
                    ..update
                },
                Packet {
                    forwarded: 0,
                    buffer: u32::MAX,
                    ..update
                },
                Packet {
                    forwarded: 0x7fff_ffff,
                    buffer: 1,
                    ..update
                },
            ],
        ),
        (
            "data that are not there",
            &[Packet {
                length: 4096,
                ..data
            }],
        ),
        (
            "4 GiB of data that are not there",
            &[Packet {
                length: u32::MAX,
                ..data
            }],
        ),
        ("data of no bytes", &[data]),
        (
            "data after a full shutdown",
            &[
                Packet {
                    operation: 4,
                    flags: 3,
                    ..good
                },
                data,
            ],
        ),
        (
            "shutdowns of all kinds",
            &[
                Packet {
                    operation: 4,
                    flags: 0,
                    ..good
                },
                Packet {
                    operation: 4,
                    flags: u32::MAX,
                    ..good
                },
                Packet {
                    operation: 4,
                    flags: 1,
                    ..good
                },
            ],
        ),
        ("the same request again", &[good, good]),
        (
            "a response to its own request",
            &[Packet {
                operation: 2,
                ..good
            }],
        ),
        (
            "a hundred credit requests",
            &[Packet {
                operation: 7,
                ..good
            }; 12],
        ),
    ];
    for ((name, then), port) in wild.into_iter().zip(2000..) {
        driver.case(&format!("connected: {name}"), |driver| {
            connected(driver, port, then)
        });
    }
    driver.case("more data than there is room for", |driver| {
        connected(driver, 3000, &[]);
        driver.write_packet(&Packet {
            source_port: 3000,
            length: 0x1_0000,
            ..data
        });
        for head in 0..SIZE {
            driver.describe(1, 0, (HEADER, 44, NEXT, 1));
            driver.describe(1, 1, (0x100_0000, 0x1_0000, 0, 0));
            driver.offer(1, 0);
            driver.notify(1);
            driver
                .script
                .settle(Driver::used(1) + 4 + 8 * u64::from(head));
        }
    });
    driver.case("two hundred requests and no place for answers", |driver| {
        driver.start();
        for port in 0..200 {
            driver.write_packet(&Packet {
                source_port: 5000 + port,
                ..good
            });
            driver.describe(1, 0, (HEADER, 44, 0, 0));
            driver.offer(1, 0);
            driver.notify(1);
        }
    });
    driver.case(
        "six hundred resets asked for and no place for them",
        |driver| {
            driver.start();
            driver.write_packet(&update);
            driver.describe(1, 0, (HEADER, 44, 0, 0));
            for _ in 0..600 {
                driver.offer(1, 0);
                driver.notify(1);
            }
        },
    );
    for (name, descriptor) in [
        ("a receive buffer of no bytes", (DATA, 0, WRITE, 0)),
        ("a receive buffer of 43 bytes", (DATA, 43, WRITE, 0)),
        ("a receive buffer that is readable", (DATA, 4096, 0, 0)),
        ("a receive buffer beyond memory", (1 << 40, 4096, WRITE, 0)),
    ] {
        driver.case(name, |driver| {
            driver.start();
            driver.describe(0, 0, descriptor);
            driver.offer(0, 0);
            driver.notify(0);
            driver.packet(&update);
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
