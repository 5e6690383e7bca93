//! A driver that knows the devices well: it sets them up, asks each for something proper, and leaves the rest to the
//! attacks.

use crate::guest::Script;

/// Rings of queue n at n × STRIDE: descriptor table, available and used ring, a page each.
const RINGS: u64 = 0x40_0000;
const STRIDE: u64 = 0x4000;
/// Requests' headers, their data, their status.
pub const HEADER: u64 = 0x60_0000;
pub const DATA: u64 = 0x60_1000;
pub const STATUS: u64 = 0x60_3000;
/// A page to give away.
const SPARE: u64 = 0x68_0000;
/// Words around all of that, which nobody is asked to write.
const WITNESSES: [u64; 4] = [0x3f_fff8, 0x5f_fff8, 0x67_fff8, 0x70_0000];
const WITNESS: u64 = 0x7769_746e_6573_7321;
/// Entries of every queue here.
pub const SIZE: u16 = 16;
/// What the disks' first sector begins with.
pub const MAGIC: u64 = 0x6b73_6964_2d6e_7263;

/// Descriptor flags.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
/// Device status.
pub const ACKNOWLEDGED: u64 = 1;
pub const DRIVER: u64 = 3;
pub const FEATURES_OK: u64 = 0xb;
pub const DRIVER_OK: u64 = 0xf;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Disk,
    ReadOnlyDisk,
    Net,
    Vsock,
    Rng,
    Balloon,
    Console,
    Pmem,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::ReadOnlyDisk => "read-only disk",
            Self::Net => "net",
            Self::Vsock => "vsock",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Console => "console",
            Self::Pmem => "pmem",
        }
    }

    /// Queues a driver without features sets up.
    pub const fn queues(self) -> u16 {
        match self {
            Self::Net | Self::Vsock => 3,
            Self::Balloon | Self::Console => 2,
            _ => 1,
        }
    }

    /// The queue that takes requests.
    pub const fn main(self) -> u16 {
        match self {
            Self::Net | Self::Vsock | Self::Console => 1,
            _ => 0,
        }
    }
}

/// A register both buses have.
#[derive(Debug, Clone, Copy)]
pub enum Register {
    DriverFeaturesSelect,
    DriverFeatures,
    QueueSelect,
    QueueSize,
    QueueReady,
    Descriptors,
    Available,
    Used,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The device's page.
    Mmio(u64),
    /// The device's window, and its configuration registers in memory.
    Pci { window: u64, config: u64 },
}

impl Bus {
    /// Where a register is, and how wide.
    pub const fn place(self, register: Register) -> (u64, u8) {
        use Register as R;
        match self {
            Self::Mmio(base) => {
                let offset = match register {
                    R::DriverFeatures => 0x20,
                    R::DriverFeaturesSelect => 0x24,
                    R::QueueSelect => 0x30,
                    R::QueueSize => 0x38,
                    R::QueueReady => 0x44,
                    R::Status => 0x70,
                    R::Descriptors => 0x80,
                    R::Available => 0x90,
                    R::Used => 0xa0,
                };
                (base + offset, 4)
            }
            Self::Pci { window, .. } => {
                let (offset, width) = match register {
                    R::DriverFeaturesSelect => (0x08, 4),
                    R::DriverFeatures => (0x0c, 4),
                    R::Status => (0x14, 1),
                    R::QueueSelect => (0x16, 2),
                    R::QueueSize => (0x18, 2),
                    R::QueueReady => (0x1c, 2),
                    R::Descriptors => (0x20, 4),
                    R::Available => (0x28, 4),
                    R::Used => (0x30, 4),
                };
                (window + offset, width)
            }
        }
    }

    const fn doorbell(self, queue: u16) -> (u64, u8, u64) {
        match self {
            Self::Mmio(base) => (base + 0x50, 4, queue as u64),
            Self::Pci { window, .. } => (window + 0x3000 + 4 * queue as u64, 2, queue as u64),
        }
    }

    /// The device's own configuration.
    pub const fn configuration(self) -> u64 {
        match self {
            Self::Mmio(base) => base + 0x100,
            Self::Pci { window, .. } => window + 0x2000,
        }
    }
}

/// One descriptor: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// The driver of one device, writing its steps.
pub struct Driver<'s> {
    pub script: &'s mut Script,
    pub bus: Bus,
    pub kind: Kind,
    available: [u16; 4],
}

impl<'s> Driver<'s> {
    pub fn new(script: &'s mut Script, bus: Bus, kind: Kind) -> Self {
        Self {
            script,
            bus,
            kind,
            available: [0; 4],
        }
    }

    pub fn set(&mut self, register: Register, value: u64) {
        let (address, width) = self.bus.place(register);
        self.script.store(width, address, value);
    }

    /// Both halves of an address register.
    pub fn set_address(&mut self, register: Register, value: u64) {
        let (address, width) = self.bus.place(register);
        self.script.store(width, address, value & 0xffff_ffff);
        self.script.store(width, address + 4, value >> 32);
    }

    pub fn notify(&mut self, queue: u16) {
        let (address, width, value) = self.bus.doorbell(queue);
        self.script.store(width, address, value);
    }

    pub const fn table(queue: u16) -> u64 {
        RINGS + queue as u64 * STRIDE
    }

    pub const fn available(queue: u16) -> u64 {
        Self::table(queue) + 0x1000
    }

    pub const fn used(queue: u16) -> u64 {
        Self::table(queue) + 0x2000
    }

    pub fn main(&self) -> u16 {
        self.kind.main()
    }

    /// From reset to FEATURES_OK, with these features of the low half.
    pub fn negotiate(&mut self, low: u64) {
        self.available = [0; 4];
        if let Bus::Pci { window, config } = self.bus {
            // The window back to its place; memory and bus mastering.
            self.script.store(4, config + 0x10, window);
            self.script.store(4, config + 0x14, window >> 32);
            self.script.store(2, config + 4, 6);
        }
        for status in [0, ACKNOWLEDGED, DRIVER] {
            self.set(Register::Status, status);
        }
        for (half, bits) in [(1, 1), (0, low)] {
            self.set(Register::DriverFeaturesSelect, half);
            self.set(Register::DriverFeatures, bits);
        }
        self.set(Register::Status, FEATURES_OK);
        for queue in 0..self.kind.queues() {
            self.script.fill(Self::table(queue), 0, 32);
            self.script.fill(Self::available(queue), 0, 8);
            self.script.fill(Self::used(queue), 0, 24);
        }
        self.script.fill(HEADER, 0, 16);
        self.script.fill(DATA, 0, 64);
        self.script.fill(STATUS, 0, 2);
    }

    /// A queue's place.
    pub fn place(&mut self, queue: u16, size: u64, table: u64, available: u64, used: u64) {
        self.set(Register::QueueSelect, queue.into());
        self.set(Register::QueueSize, size);
        self.set_address(Register::Descriptors, table);
        self.set_address(Register::Available, available);
        self.set_address(Register::Used, used);
        self.set(Register::QueueReady, 1);
    }

    pub fn place_all(&mut self) {
        for queue in 0..self.kind.queues() {
            let (table, available) = (Self::table(queue), Self::available(queue));
            self.place(queue, SIZE.into(), table, available, Self::used(queue));
        }
    }

    pub fn start(&mut self) {
        self.start_with(0);
    }

    pub fn start_with(&mut self, low: u64) {
        self.negotiate(low);
        self.place_all();
        self.set(Register::Status, DRIVER_OK);
    }

    pub fn describe(&mut self, queue: u16, index: u16, descriptor: Descriptor) {
        self.describe_at(Self::table(queue) + 16 * u64::from(index), descriptor);
    }

    pub fn describe_at(&mut self, at: u64, (address, length, flags, next): Descriptor) {
        self.script.store(8, at, address);
        let rest = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.script.store(8, at + 8, rest);
    }

    /// Makes a chain available without ringing.
    pub fn offer(&mut self, queue: u16, head: u16) {
        let count = &mut self.available[usize::from(queue)];
        let slot = Self::available(queue) + 4 + 2 * u64::from(*count % SIZE);
        *count = count.wrapping_add(1);
        let count = *count;
        self.script.store(2, slot, head.into());
        self.set_available(queue, count);
    }

    pub fn set_available(&mut self, queue: u16, count: u16) {
        self.script
            .store(2, Self::available(queue) + 2, count.into());
    }

    /// Offers descriptors as one chain from 0, rings, and waits a moment.
    pub fn send(&mut self, descriptors: &[Descriptor]) {
        let queue = self.main();
        for (descriptor, index) in descriptors.iter().zip(0..) {
            self.describe(queue, index, *descriptor);
        }
        self.offer(queue, 0);
        self.ring();
    }

    /// Rings the main queue and waits a moment.
    pub fn ring(&mut self) {
        let queue = self.main();
        self.notify(queue);
        self.script.settle(Self::used(queue) + 2);
    }

    /// The device says that it needs a reset.
    pub fn must_stop(&mut self) {
        let (address, width) = self.bus.place(Register::Status);
        self.script.await_bits(width, address, 0x40, 0x40);
    }

    /// It does not.
    pub fn must_go_on(&mut self) {
        let (address, width) = self.bus.place(Register::Status);
        self.script.check(width, address, 0x40, 0);
    }

    /// A request as it should be, from reset to its answer.
    pub fn ask_properly(&mut self) {
        self.start();
        let (address, width) = self.bus.place(Register::Status);
        // DRIVER_OK, and neither FAILED nor NEEDS_RESET.
        self.script.check(width, address, 0xcf, DRIVER_OK);
        match self.kind {
            Kind::Disk | Kind::ReadOnlyDisk => {
                self.script.store(8, DATA, 0);
                self.script.store(1, STATUS, 0xff);
                self.send(&[
                    (HEADER, 16, NEXT, 1),
                    (DATA, 512, NEXT | WRITE, 2),
                    (STATUS, 1, WRITE, 0),
                ]);
                self.answered(1);
                self.script.check(1, STATUS, 0xff, 0);
                self.script.check(8, DATA, u64::MAX, MAGIC);
            }
            Kind::Net => {
                self.send(&[(HEADER, 72, 0, 0)]);
                self.answered(1);
            }
            Kind::Vsock => {
                // A packet of a connection that does not exist is answered with a reset.
                self.describe(0, 0, (DATA, 4096, WRITE, 0));
                self.offer(0, 0);
                self.notify(0);
                self.packet(&Packet::of(6));
                self.answered(1);
                self.script.wait(Self::used(0) + 2, 1);
                self.script.check(2, DATA + 30, 0xffff, 3);
            }
            Kind::Rng => {
                self.send(&[(DATA, 16, WRITE, 0)]);
                self.answered(1);
                self.script.check(4, Self::used(0) + 8, 0xffff_ffff, 16);
            }
            Kind::Balloon => {
                self.script.store(8, SPARE, WITNESS);
                self.script.store(4, HEADER, SPARE >> 12);
                self.send(&[(HEADER, 4, 0, 0)]);
                self.answered(1);
                self.script.check(8, SPARE, u64::MAX, 0);
            }
            Kind::Console => {
                self.script.store(1, DATA, u64::from(b'.'));
                self.send(&[(DATA, 1, 0, 0)]);
                self.answered(1);
            }
            Kind::Pmem => {
                self.script.store(4, STATUS, 0xffff_ffff);
                self.send(&[(HEADER, 4, NEXT, 1), (STATUS, 4, WRITE, 0)]);
                self.answered(1);
                self.script.check(4, STATUS, 0xffff_ffff, 0);
            }
        }
    }

    fn answered(&mut self, count: u16) {
        let used = Self::used(self.main()) + 2;
        self.script.wait(used, count);
    }

    /// Sends a vsock packet without data behind it.
    pub fn packet(&mut self, packet: &Packet) {
        self.write_packet(packet);
        self.send(&[(HEADER, 44, 0, 0)]);
    }

    pub fn write_packet(&mut self, packet: &Packet) {
        let words = [
            packet.source_cid,
            packet.destination_cid,
            u64::from(packet.source_port) | u64::from(packet.destination_port) << 32,
            u64::from(packet.length)
                | u64::from(packet.kind) << 32
                | u64::from(packet.operation) << 48,
            u64::from(packet.flags) | u64::from(packet.buffer) << 32,
        ];
        for (word, at) in words.into_iter().zip((HEADER..).step_by(8)) {
            self.script.store(8, at, word);
        }
        self.script.store(4, HEADER + 40, packet.forwarded.into());
    }

    /// One case: an attack, what became of the device, a proper request, the witnesses, the verdict.
    pub fn case(&mut self, name: &str, attack: impl FnOnce(&mut Self)) {
        self.script.case(format!("{}: {name}", self.kind.name()));
        attack(self);
        let (address, width) = self.bus.place(Register::Status);
        self.script.note(width, address);
        self.ask_properly();
        for witness in WITNESSES {
            self.script.check(8, witness, u64::MAX, WITNESS);
        }
        self.script.verdict();
    }
}

/// Puts the witnesses where they are looked for.
pub fn witnesses(script: &mut Script) {
    for witness in WITNESSES {
        script.store(8, witness, WITNESS);
    }
}

/// A vsock packet's header (virtio 1.3, section 5.10.6).
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    pub length: u32,
    pub kind: u16,
    pub operation: u16,
    pub flags: u32,
    pub buffer: u32,
    pub forwarded: u32,
}

impl Packet {
    /// As it should be, of this operation.
    pub const fn of(operation: u16) -> Self {
        Self {
            source_cid: 3,
            destination_cid: 2,
            source_port: 1000,
            destination_port: 1024,
            length: 0,
            kind: 1,
            operation,
            flags: 0,
            buffer: 0x1_0000,
            forwarded: 0,
        }
    }
}
