//! A function's configuration registers (PCI Local Bus 3.0, chapter 6): 256 bytes and, for each bit, whether the
//! guest may change it.
//!
//! Base address registers need no more than that: the bits below their size cannot be written, so what a guest reads
//! back after writing ones is the size, and what it reads back after moving the window is where the window is.

/// Bytes of a conventional function's configuration space; above it, ECAM reads zeros.
pub const CONFIG_SIZE: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BASE_ADDRESS_0: usize = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
/// Where the first capability goes: behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Bits of the command register (section 6.2.2).
const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_BUS_MASTER: u8 = 1 << 2;
/// In the command register's second byte.
const COMMAND_INTERRUPT_DISABLE: u8 = 1 << 2;
/// Status register: there are capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// A memory window, anywhere in 64 bits, not prefetchable (section 6.2.5.1).
const MEMORY_64: u8 = 0b100;

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Who made it.
    pub vendor: u16,
    /// What it is, in its maker's numbering.
    pub device: u16,
    /// Its version.
    pub revision: u8,
    /// Base class, subclass, programming interface (PCI Code and ID Assignment).
    pub class: [u8; 3],
    /// Who put it on a board, and as what.
    pub subsystem: (u16, u16),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRegisters {
    bytes: [u8; CONFIG_SIZE],
    writable: [u8; CONFIG_SIZE],
    /// The pointer that the next capability is to be entered in, and where it goes.
    link: usize,
    free: usize,
}

impl ConfigRegisters {
    /// The registers of a function that is off the bus: nothing decoded, no windows, no capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut registers = Self {
            bytes: [0; CONFIG_SIZE],
            writable: [0; CONFIG_SIZE],
            link: CAPABILITIES_POINTER,
            free: FIRST_CAPABILITY,
        };
        let [class, subclass, interface] = identity.class;
        registers.place(0x00, &identity.vendor.to_le_bytes());
        registers.place(0x02, &identity.device.to_le_bytes());
        registers.place(0x08, &[identity.revision, interface, subclass, class]);
        registers.place(0x2c, &identity.subsystem.0.to_le_bytes());
        registers.place(0x2e, &identity.subsystem.1.to_le_bytes());
        // The interrupt line: firmware's note to the operating system, of no meaning here. There is no interrupt pin.
        registers.writable[0x3c] = 0xff;
        registers
    }

    fn place(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Gives the function a window of 64-bit memory as base addresses 0 and 1. `size` is a power of two of 16 or
    /// more, `base` a multiple of it.
    #[must_use]
    pub fn with_window(mut self, base: u64, size: u64) -> Self {
        debug_assert!(size.is_power_of_two() && size >= 16 && base.is_multiple_of(size));
        self.place(BASE_ADDRESS_0, &base.to_le_bytes());
        self.bytes[BASE_ADDRESS_0] |= MEMORY_64;
        self.writable[BASE_ADDRESS_0..BASE_ADDRESS_0 + 8]
            .copy_from_slice(&(!(size - 1)).to_le_bytes());
        self.writable[COMMAND] |= COMMAND_MEMORY | COMMAND_BUS_MASTER;
        self.writable[COMMAND + 1] |= COMMAND_INTERRUPT_DISABLE;
        self
    }

    /// Adds a capability: `body` is what follows the identifier and the link, `writable` which of its bits the guest
    /// may change. Returns where it is. (All capabilities are built in; they fit.)
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.free;
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.bytes[self.link] = at as u8;
        self.bytes[at] = id;
        self.place(at + 2, body);
        self.writable[at + 2..at + 2 + writable.len()].copy_from_slice(writable);
        self.link = at + 1;
        // Capabilities begin at multiples of four (section 6.7).
        self.free = (at + 2 + body.len()).next_multiple_of(4);
        at as u16
    }

    /// A read of any width anywhere; zeros behind the registers.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(usize::from(offset)..) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// A write of any width anywhere, as far as bits can be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (value, at) in data.iter().zip(usize::from(offset)..) {
            if let (Some(byte), Some(writable)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !writable | value & writable;
            }
        }
    }

    /// The registers' bytes of one capability, from its identifier on.
    #[must_use]
    pub fn bytes(&self, at: u16, length: usize) -> &[u8] {
        let start = usize::from(at).min(CONFIG_SIZE);
        &self.bytes[start..(start + length).min(CONFIG_SIZE)]
    }

    /// Where the window is, while the function answers to memory addresses.
    #[must_use]
    pub fn window(&self) -> Option<u64> {
        let mut base = [0; 8];
        base.copy_from_slice(&self.bytes[BASE_ADDRESS_0..BASE_ADDRESS_0 + 8]);
        (self.bytes[COMMAND] & COMMAND_MEMORY != 0).then(|| u64::from_le_bytes(base) & !0xf)
    }

    /// Whether the function may reach memory and send messages.
    #[must_use]
    pub const fn is_bus_master(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_BUS_MASTER != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: [1, 2, 3],
        subsystem: (0x1af4, 0x1100),
    };

    fn registers() -> ConfigRegisters {
        ConfigRegisters::new(IDENTITY).with_window(0xd800_0000, 0x8000)
    }

    fn read32(registers: &ConfigRegisters, offset: u16) -> u32 {
        let mut data = [0; 4];
        registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_guest_recognises_the_function() {
        let registers = registers();
        assert_eq!(read32(&registers, 0), 0x1042_1af4);
        assert_eq!(read32(&registers, 8), 0x0102_0301);
        assert_eq!(read32(&registers, 0x2c), 0x1100_1af4);
        assert_eq!(read32(&registers, 0x3c), 0, "no interrupt pin");
    }

    #[test]
    fn writing_ones_to_a_base_address_tells_its_size_and_writing_an_address_moves_it() {
        let mut registers = registers();
        assert_eq!(registers.window(), None, "not decoded yet");
        registers.write(COMMAND as u16, &[COMMAND_MEMORY]);
        assert_eq!(registers.window(), Some(0xd800_0000));
        registers.write(0x10, &[0xff; 8]);
        assert_eq!(read32(&registers, 0x10), 0xffff_8004);
        assert_eq!(read32(&registers, 0x14), 0xffff_ffff);
        registers.write(0x10, &0xd900_1234u32.to_le_bytes());
        registers.write(0x14, &1u32.to_le_bytes());
        assert_eq!(registers.window(), Some(0x1_d900_0000));
        registers.write(COMMAND as u16, &[0]);
        assert_eq!(registers.window(), None);
    }

    #[test]
    fn capabilities_are_a_list_of_aligned_entries() {
        let mut registers = registers();
        let first = registers.add_capability(0x11, &[1, 2, 3], &[0, 0xc0]);
        let second = registers.add_capability(0x09, &[9], &[]);
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(registers.bytes(0x34, 1), [0x40]);
        assert_eq!(registers.bytes(first, 5), [0x11, 0x48, 1, 2, 3]);
        assert_eq!(registers.bytes(second, 3), [0x09, 0, 9]);
        registers.write(first, &[0xff; 5]);
        assert_eq!(registers.bytes(first, 5), [0x11, 0x48, 1, 0xc2, 3]);
    }

    proptest! {
        #[test]
        fn no_access_of_any_width_reaches_what_is_read_only(
            accesses in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..=8)), 0..50)
        ) {
            let fresh = registers();
            let mut registers = registers();
            for (offset, mut data) in accesses {
                registers.write(offset % 0x1010, &data);
                registers.read(offset, &mut data);
            }
            for at in 0..CONFIG_SIZE {
                let fixed = !fresh.writable[at];
                prop_assert_eq!(registers.bytes[at] & fixed, fresh.bytes[at] & fixed);
            }
            prop_assert!(registers.window().is_none_or(|base| base.is_multiple_of(0x8000)));
        }
    }
}
