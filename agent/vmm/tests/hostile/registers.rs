//! Register accesses of every width and alignment, and MSI-X, windows and configuration registers out of all order.

use crate::driver::{Bus, DATA, Driver, Register, WRITE};

const WIDTHS: [u8; 4] = [1, 2, 4, 8];
/// What registers are written with.
const VALUES: [u64; 3] = [0, u64::MAX, 0x8000_0001_8000_0001];

/// Reads and writes all over a range, at all alignments within each word.
fn sweep(driver: &mut Driver<'_>, name: &str, from: u64, words: impl Iterator<Item = u64>) {
    for word in words {
        for width in WIDTHS {
            let name = format!("{name} {word:#05x}, {width} bytes wide");
            driver.case(&name, |driver| {
                driver.start();
                for at in (0..4).map(|byte| from + word + byte) {
                    driver.script.load(width, at);
                    for value in VALUES {
                        driver.script.store(width, at, value);
                    }
                }
            });
        }
    }
}

/// The whole page of a virtio-mmio device, its unused words too.
pub fn mmio(driver: &mut Driver<'_>) {
    let Bus::Mmio(base) = driver.bus else {
        unreachable!("called for virtio-mmio")
    };
    sweep(driver, "register", base, (0..0x110).step_by(4));
    sweep(driver, "register", base, [0x7fc, 0xff8].into_iter());
    driver.case("accesses across the end of the page", |driver| {
        driver.start();
        for width in [2, 4, 8] {
            for back in 1..u64::from(width) {
                driver.script.load(width, base + 0x1000 - back);
                driver.script.store(width, base + 0x1000 - back, u64::MAX);
            }
        }
    });
    driver.case("registers where no device is", |driver| {
        driver.start();
        for address in [
            0xcfff_fff8,
            0xd001_2000,
            0xd7ff_fffc,
            0xdfff_f000,
            0xfebf_fff8,
            0xffff_fff8,
        ] {
            for width in WIDTHS {
                driver.script.load(width, address);
                driver.script.store(width, address, u64::MAX);
            }
        }
    });
    driver.case("interrupts acknowledged that never were", |driver| {
        driver.start();
        for value in [1, 2, 3, 0xffff_ffff] {
            driver.script.store(4, base + 0x64, value);
        }
        driver.send(&[(DATA, 16, WRITE, 0)]);
        driver.script.store(4, base + 0x64, 0xffff_fffc);
    });
}

/// Structures of a virtio function's window.
const COMMON: u64 = 0;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;

pub fn pci(driver: &mut Driver<'_>) {
    let Bus::Pci { window, config } = driver.bus else {
        unreachable!("called for virtio-pci")
    };
    sweep(driver, "common", window + COMMON, (0..0x40).step_by(4));
    sweep(driver, "ISR", window + 0x1000, [0, 4, 0xff8].into_iter());
    sweep(
        driver,
        "device",
        window + DEVICE,
        [0, 4, 0x40, 0xff8].into_iter(),
    );
    sweep(
        driver,
        "notify",
        window + NOTIFY,
        [0, 4, 8, 0x1f8, 0xff8].into_iter(),
    );
    sweep(
        driver,
        "MSI-X table",
        window + TABLE,
        [0, 4, 8, 12, 16, 0x1c, 0x20, 0x7e0, 0xff8].into_iter(),
    );
    sweep(
        driver,
        "MSI-X pending",
        window + PENDING,
        [0, 4, 8, 0xff8].into_iter(),
    );
    sweep(
        driver,
        "behind all structures",
        window + 0x6000,
        [0, 0x1ff8].into_iter(),
    );
    sweep(driver, "configuration", config, (0..0x100).step_by(4));
    sweep(
        driver,
        "extended configuration",
        config,
        [0x100, 0xff8].into_iter(),
    );
    windows(driver, window, config);
    msix(driver, window, config);
    ports(driver);
}

fn windows(driver: &mut Driver<'_>, window: u64, config: u64) {
    for (name, base) in [
        ("into RAM", 0x60_0000u64),
        ("to 0", 0),
        ("over the MSI-X of another", window + 0x4000),
        ("onto another device's", 0xd800_8000),
        ("over the configuration", 0xe000_0000),
        ("over the IOAPIC", 0xfec0_0000),
        ("over the local APIC", 0xfee0_0000),
        ("beyond 4 GiB", 0x1_0000_0000),
        ("to the end of all addresses", u64::MAX),
        ("to its size", 0xffff_ffff),
        ("half out of the range", 0xe000_0000 - 0x4000),
    ] {
        for (when, command) in [("at rest", 0), ("in use", 6)] {
            driver.case(&format!("a window that goes {name} {when}"), |driver| {
                driver.start();
                driver.script.store(2, config + 4, command);
                driver.script.store(4, config + 0x10, base & 0xffff_ffff);
                driver.script.store(4, config + 0x14, base >> 32);
                for (width, offset) in [(4, COMMON), (2, NOTIFY), (4, TABLE)] {
                    driver.script.load(width, window + offset);
                    driver.script.store(width, window + offset, 0);
                }
                driver.script.load(4, config + 0x10);
                driver.script.store(4, config + 0x10, window);
                driver.script.store(4, config + 0x14, 0);
            });
        }
    }
    for (name, command) in [
        ("memory off", 4),
        ("bus mastering off", 2),
        ("all off", 0),
        ("all bits on", 0xffff),
    ] {
        driver.case(&format!("{name} while requests wait"), |driver| {
            driver.start();
            for head in 0..8 {
                driver.describe(0, head, (DATA, 64, WRITE, 0));
                driver.offer(0, head);
            }
            driver.notify(0);
            driver.script.store(2, config + 4, command);
            driver.notify(0);
        });
    }
    driver.case(
        "a window that is turned on and off a hundred times",
        |driver| {
            driver.start();
            for _ in 0..100 {
                driver.script.store(2, config + 4, 4);
                driver.script.store(2, config + 4, 6);
            }
        },
    );
    driver.case("other base addresses", |driver| {
        driver.start();
        for register in (0x18..0x28).step_by(4).chain([0x30]) {
            driver.script.store(4, config + register, 0xffff_ffff);
            driver.script.load(4, config + register);
        }
    });
    driver.case("capabilities that are written", |driver| {
        driver.start();
        for register in (0x40..0x100).step_by(4) {
            driver.script.store(4, config + register, 0xffff_ffff);
            driver.script.store(4, config + register, 0);
        }
    });
    through_registers(driver, config);
}

/// The capability through which the window is reached from configuration registers (virtio 1.3, section 4.1.4.9). It is
/// the last one; where exactly does not matter, all places are tried.
fn through_registers(driver: &mut Driver<'_>, config: u64) {
    for (name, bar, offset, length) in [
        ("another base address", 1, 0, 4),
        ("base address 255", 0xff, 0, 4),
        ("an offset behind the window", 0, 0x8000, 4),
        ("an offset of 4 GiB", 0, 0xffff_fffc, 4),
        ("an unaligned offset", 0, 1, 4),
        ("no length", 0, 0, 0),
        ("three bytes", 0, 0, 3),
        ("4 GiB", 0, 0, 0xffff_ffff),
        ("eight bytes", 0, 0, 8),
        ("the status register", 0, 0x14, 1),
        ("a doorbell", 0, 0x3000, 2),
        ("the MSI-X table", 0, 0x4000, 4),
    ] {
        driver.case(&format!("the window through registers: {name}"), |driver| {
            driver.start();
            for capability in (0x40..0xec).step_by(4) {
                driver.script.store(1, config + capability + 4, bar);
                driver.script.store(4, config + capability + 8, offset);
                driver.script.store(4, config + capability + 12, length);
                for width in [1, 2, 4] {
                    driver.script.load(width, config + capability + 16);
                    driver
                        .script
                        .store(width, config + capability + 16, u64::MAX);
                }
            }
        });
    }
}

fn msix(driver: &mut Driver<'_>, window: u64, config: u64) {
    // The control register is in the upper half of the capability's first word; the first capability is MSI-X.
    let control = config + 0x42;
    let entry = |index: u64| window + TABLE + 16 * index;
    for (name, address, data) in [
        ("to no APIC", 0, 0),
        ("into RAM", 0x60_0000, 0x1234),
        ("to all addresses", u64::MAX, u64::from(u32::MAX)),
        ("to a CPU there is not", 0xfeef_f000, 0x31),
        ("of vector 0", 0xfee0_0000, 0),
        ("of vector 255", 0xfee0_0000, 0xff),
        ("of a reserved kind", 0xfee0_0000, 0x331),
        ("that is an SMI", 0xfee0_0000, 0x200),
        ("that is a level", 0xfee0_0000, 0xc031),
        ("to everybody", 0xfeef_f00c, 0x31),
        ("beyond 4 GiB", 0xfee0_0001_0000_0000, 0x31),
    ] {
        driver.case(&format!("a message {name}"), |driver| {
            driver.start();
            for index in 0..2 {
                driver.script.store(4, entry(index), address & 0xffff_ffff);
                driver.script.store(4, entry(index) + 4, address >> 32);
                driver.script.store(4, entry(index) + 8, data);
                driver.script.store(4, entry(index) + 12, 0);
            }
            driver.script.store(2, control, 0x8000);
            for vector in [0, 1] {
                driver.set(Register::QueueSelect, 0);
                driver.script.store(2, window + 0x1a, vector);
                driver.script.store(2, window + 0x10, vector);
                driver.send(&[(DATA, 16, WRITE, 0)]);
            }
            driver.script.store(2, control, 0);
        });
    }
    for vector in [2, 3, 125, 126, 0x7ff, 0x8000, 0xfffe, 0xffff] {
        driver.case(
            &format!("vector {vector:#x}, which there is not"),
            |driver| {
                driver.start();
                driver.script.store(2, control, 0x8000);
                driver.set(Register::QueueSelect, 0);
                driver.script.store(2, window + 0x1a, vector);
                driver.script.store(2, window + 0x10, vector);
                // It reads as none.
                driver.script.check(2, window + 0x1a, 0xffff, 0xffff);
                driver.send(&[(DATA, 16, WRITE, 0)]);
                driver.script.store(2, control, 0);
            },
        );
    }
    for (name, states) in [
        ("on with every entry masked", &[0x8000][..]),
        ("on with the function masked", &[0xc000]),
        (
            "on and off in turns",
            &[0x8000, 0, 0x8000, 0, 0xc000, 0x4000, 0x8000],
        ),
        ("all control bits", &[0xffff, 0x0000, 0xffff]),
    ] {
        driver.case(&format!("MSI-X {name}"), |driver| {
            driver.start();
            for state in states {
                driver.script.store(2, control, *state);
                driver.send(&[(DATA, 16, WRITE, 0)]);
            }
            driver.script.store(2, control, 0);
        });
    }
    driver.case(
        "an entry that changes while its interrupts come",
        |driver| {
            driver.start();
            driver.script.store(2, control, 0x8000);
            driver.script.store(2, window + 0x1a, 1);
            for turn in 0..40 {
                driver.script.store(4, entry(1), 0xfee0_0000 | turn << 12);
                driver.script.store(4, entry(1) + 8, 0x20 + turn);
                driver.script.store(4, entry(1) + 12, turn & 1);
                driver.send(&[(DATA, 16, WRITE, 0)]);
            }
            driver.script.store(2, control, 0);
        },
    );
    driver.case("pending bits that are written", |driver| {
        driver.start();
        driver.script.store(2, control, 0xc000);
        driver.send(&[(DATA, 16, WRITE, 0)]);
        for width in WIDTHS {
            driver.script.store(width, window + PENDING, u64::MAX);
        }
        driver.script.store(2, control, 0);
    });
}

/// Configuration through ports, of every width and alignment, and the ports beside them.
fn ports(driver: &mut Driver<'_>) {
    for width in [1, 2, 4] {
        driver.case(
            &format!("configuration through ports, {width} bytes wide"),
            |driver| {
                driver.start();
                for address in [
                    0,
                    0x8000_0000,
                    0x8000_f8fc,
                    0x80ff_ff00,
                    0x8100_0000,
                    0xffff_ffff,
                ] {
                    driver.script.output(4, 0xcf8, address);
                    for port in 0xcf8..0xd00 {
                        driver.script.input(width, port);
                    }
                    // Not the first functions' registers: they would be gone.
                    if address & 0xffff != 0 || address == 0 {
                        for port in 0xcfc..0xd00 {
                            driver.script.output(width, port, u32::MAX);
                        }
                    }
                }
            },
        );
    }
    driver.case("every port", |driver| {
        driver.start();
        for port in (0..0x700)
            .step_by(7)
            .chain([0xffff, 0xb2, 0x64, 0x92, 0x510])
        {
            driver.script.input(1, port);
            driver.script.input(4, port);
        }
    });
}
