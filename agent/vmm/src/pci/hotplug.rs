//! Which slots have changed, for the ACPI methods that tell the guest (`PCNT`, `_EJ0` in [`crate::plan::acpi`]).
//!
//! The interface is three 32-bit ports with one bit for each device number: reading the first two says, once, which
//! devices have come and which are asked to leave; writing the third lets devices go.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::plan::layout::{HOTPLUG_ADDED_PORT, HOTPLUG_EJECT_PORT, HOTPLUG_REMOVED_PORT};

/// See the module.
#[derive(Debug, Default)]
pub struct Hotplug {
    added: AtomicU32,
    removed: AtomicU32,
}

impl Hotplug {
    /// A device has come.
    pub fn announce(&self, number: u8) {
        self.added.fetch_or(1 << (number & 31), Ordering::AcqRel);
    }

    /// A device is asked to leave.
    pub fn request(&self, number: u8) {
        self.removed.fetch_or(1 << (number & 31), Ordering::AcqRel);
    }

    /// A device has gone without the guest: it need not let it go any more, and is told to look at its place.
    pub fn withdraw(&self, number: u8) {
        self.removed
            .fetch_and(!(1 << (number & 31)), Ordering::AcqRel);
        self.announce(number);
    }

    /// Devices that have come and that are asked to leave, not told yet.
    #[must_use]
    pub fn save(&self) -> [u32; 2] {
        [&self.added, &self.removed].map(|bits| bits.load(Ordering::Acquire))
    }

    /// Brings them back.
    pub fn restore(&self, [added, removed]: [u32; 2]) {
        self.added.store(added, Ordering::Release);
        self.removed.store(removed, Ordering::Release);
    }

    /// What a port reads as; `None` for ports that are not these.
    #[must_use]
    pub fn read(&self, port: u16) -> Option<u32> {
        match port {
            HOTPLUG_ADDED_PORT => Some(self.added.swap(0, Ordering::AcqRel)),
            HOTPLUG_REMOVED_PORT => Some(self.removed.swap(0, Ordering::AcqRel)),
            HOTPLUG_EJECT_PORT => Some(0),
            _ => None,
        }
    }
}

/// The device numbers in a value of these ports.
pub fn numbers(bits: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |number| bits & 1 << number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let hotplug = Hotplug::default();
        hotplug.announce(3);
        hotplug.announce(31);
        hotplug.request(4);
        let added = hotplug.read(HOTPLUG_ADDED_PORT).unwrap();
        assert_eq!(numbers(added).collect::<Vec<_>>(), [3, 31]);
        assert_eq!(hotplug.read(HOTPLUG_ADDED_PORT), Some(0));
        assert_eq!(hotplug.read(HOTPLUG_REMOVED_PORT), Some(1 << 4));
        assert_eq!(hotplug.read(0x64), None);
    }

    #[test]
    fn a_guest_that_is_too_late_is_told_to_look_and_not_to_let_go() {
        let hotplug = Hotplug::default();
        hotplug.request(4);
        hotplug.request(5);
        hotplug.withdraw(4);
        assert_eq!(hotplug.read(HOTPLUG_REMOVED_PORT), Some(1 << 5));
        assert_eq!(hotplug.read(HOTPLUG_ADDED_PORT), Some(1 << 4));
    }
}
