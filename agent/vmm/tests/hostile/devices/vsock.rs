//! Packets and credit of vsock.

use crate::driver::{DATA, Driver, HEADER, NEXT, Packet, SIZE, WRITE};

pub fn attack(driver: &mut Driver<'_>) {
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
