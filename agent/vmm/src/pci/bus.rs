//! Bus 0: from addresses and ports to functions.
//!
//! Configuration registers are reached in memory (ECAM; PCI Firmware 3.2, section 4.1) and, one at a time, through the
//! ports 0xcf8 and 0xcfc (PCI Local Bus 3.0, section 3.2.2.3.2). A function's lock is held until the event loop has
//! done its part of a change; the event loop itself takes the lock of an empty slot,
//! and never waits for another's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::hotplug::{Hotplug, numbers};
use super::{ConfigRegisters, DEVICES, Identity};
use crate::plan::layout::{
    HOTPLUG_EJECT_PORT, PCI_CONFIG_ADDRESS_PORT, PCI_CONFIG_DATA_PORT, PCI_ECAM, PCI_ECAM_SIZE,
};
use crate::virtio::Change;
use crate::virtio::pci::{Effect, VirtioFunction, WINDOW_SIZE};

/// A host bridge without a driver of its own: the generic one of Red Hat's numbers.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: [0x06, 0x00, 0x00],
    subsystem: (0x1af4, 0x1100),
};
/// The address port's enable bit.
const CONFIG_ENABLE: u32 = 1 << 31;
/// A window's place while it answers nowhere: not in the range of any window.
const NOWHERE: u64 = 0;

#[derive(Debug)]
struct Slot {
    /// Where the function's window answers, known without the function's lock.
    window: AtomicU64,
    function: Mutex<Option<VirtioFunction>>,
}

impl Slot {
    fn function(&self) -> MutexGuard<'_, Option<VirtioFunction>> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what an access changed.
    fn settle(&self, number: u8, function: &VirtioFunction, effect: Effect, tell: Tell<'_>) {
        if effect.moved {
            let window = function.window().unwrap_or(NOWHERE);
            self.window.store(window, Ordering::Release);
        }
        if let Some(change) = effect.change {
            tell(number, change);
        }
    }
}

/// Who is told that the device behind a device number changes; returns when it has.
pub type Tell<'a> = &'a dyn Fn(u8, Change);

/// See the module.
#[derive(Debug)]
pub struct PciBus {
    host_bridge: ConfigRegisters,
    slots: Box<[Slot]>,
    config_address: AtomicU32,
    hotplug: Hotplug,
}

impl Default for PciBus {
    fn default() -> Self {
        Self {
            host_bridge: ConfigRegisters::new(HOST_BRIDGE),
            slots: (0..DEVICES)
                .map(|_| Slot {
                    window: AtomicU64::new(NOWHERE),
                    function: Mutex::new(None),
                })
                .collect(),
            config_address: AtomicU32::new(0),
            hotplug: Hotplug::default(),
        }
    }
}

impl PciBus {
    /// Puts a function into an empty slot that is not the host bridge's.
    pub fn insert(&self, number: u8, function: VirtioFunction) {
        debug_assert!(number != 0);
        if let Some(slot) = self.slots.get(usize::from(number)) {
            *slot.function() = Some(function);
        }
    }

    /// Looks at the function with this number, if there is one.
    pub fn with<T>(&self, number: u8, look: impl FnOnce(&mut VirtioFunction) -> T) -> Option<T> {
        let slot = self.slots.get(usize::from(number))?;
        let mut function = slot.function();
        let function = function.as_mut()?;
        let result = look(function);
        let window = function.window().unwrap_or(NOWHERE);
        slot.window.store(window, Ordering::Release);
        Some(result)
    }

    /// The address port.
    #[must_use]
    pub fn config_address(&self) -> u32 {
        self.config_address.load(Ordering::Acquire)
    }

    /// Sets it, as the guest does.
    pub fn set_config_address(&self, value: u32) {
        self.config_address
            .store(value & (CONFIG_ENABLE | 0x00ff_fffc), Ordering::Release);
    }

    /// Which slots have changed.
    #[must_use]
    pub const fn hotplug(&self) -> &Hotplug {
        &self.hotplug
    }

    /// Takes a function away; its lines and doorbells go with it. True if there was one.
    fn eject(&self, number: u8) -> bool {
        let slot = self.slots.get(usize::from(number));
        slot.is_some_and(|slot| {
            let mut function = slot.function();
            slot.window.store(NOWHERE, Ordering::Release);
            function.take().is_some()
        })
    }

    /// Takes a function away that the guest has not let go; whether there was one. `None` while a vCPU is at it, which
    /// may be waiting for the event loop.
    pub fn withdraw(&self, number: u8) -> Option<bool> {
        let Some(slot) = self.slots.get(usize::from(number)) else {
            return Some(false);
        };
        let mut function = match slot.function.try_lock() {
            Ok(function) => function,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        slot.window.store(NOWHERE, Ordering::Release);
        let present = function.take().is_some();
        if present {
            self.hotplug.withdraw(number);
        }
        Some(present)
    }

    /// The slot whose window an address is in, and where in it.
    fn window(&self, address: u64) -> Option<(u8, &Slot, u64)> {
        self.slots.iter().zip(0u8..).find_map(|(slot, number)| {
            let start = slot.window.load(Ordering::Acquire);
            let offset = address.checked_sub(start)?;
            (start != NOWHERE && offset < WINDOW_SIZE).then_some((number, slot, offset))
        })
    }

    /// A read in memory. False where nothing answers.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) -> bool {
        if let Some((number, offset)) = ecam(address) {
            self.config_read(number, offset, data);
            return true;
        }
        self.window(address).is_some_and(|(_, slot, offset)| {
            let mut function = slot.function();
            if let Some(function) = function.as_mut() {
                function.window_read(offset, data);
            }
            function.is_some()
        })
    }

    /// A write in memory; lost where nothing answers.
    pub fn memory_write(&self, address: u64, data: &[u8], tell: Tell<'_>) {
        if let Some((number, offset)) = ecam(address) {
            self.config_write(number, offset, data, tell);
        } else if let Some((number, slot, offset)) = self.window(address)
            && let Some(function) = slot.function().as_mut()
        {
            let effect = Effect {
                change: function.window_write(offset, data),
                moved: false,
            };
            slot.settle(number, function, effect, tell);
        }
    }

    fn config_read(&self, number: u8, offset: u16, data: &mut [u8]) {
        if number == 0 {
            self.host_bridge.read(offset, data);
            return;
        }
        let slot = self.slots.get(usize::from(number));
        match slot.and_then(|slot| {
            let mut function = slot.function();
            function
                .as_mut()
                .map(|function| function.config_read(offset, data))
        }) {
            Some(()) => {}
            // Vendor 0xffff: nothing there.
            None => data.fill(0xff),
        }
    }

    fn config_write(&self, number: u8, offset: u16, data: &[u8], tell: Tell<'_>) {
        if let Some(slot) = self.slots.get(usize::from(number))
            && let Some(function) = slot.function().as_mut()
        {
            let effect = function.config_write(offset, data);
            slot.settle(number, function, effect, tell);
        }
    }

    /// The registers that the data port at `port` stands for now.
    fn addressed(&self, port: u16, width: usize) -> Option<(u8, u16)> {
        let within = port.checked_sub(PCI_CONFIG_DATA_PORT)?;
        if usize::from(within) + width > 4 {
            return None;
        }
        let address = self.config_address.load(Ordering::Acquire);
        // Enable, seven reserved bits, bus, device, function, register, two zeros.
        let (bus, devfn) = (address >> 16 & 0xff, address >> 8 & 0xff);
        let present = address & CONFIG_ENABLE != 0 && bus == 0 && devfn & 7 == 0;
        present.then_some(((devfn >> 3) as u8, (address & 0xfc) as u16 + within))
    }

    /// `in`. False for ports that are not this bus's.
    pub fn port_read(&self, port: u16, data: &mut [u8]) -> bool {
        if let Some(value) = match port {
            PCI_CONFIG_ADDRESS_PORT => Some(self.config_address.load(Ordering::Acquire)),
            port => self.hotplug.read(port),
        } {
            for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
                *byte = value;
            }
            return true;
        }
        match self.addressed(port, data.len()) {
            Some((number, offset)) => self.config_read(number, offset, data),
            None => return false,
        }
        true
    }

    /// `out`. The devices that the guest has let go are named to `gone`.
    pub fn port_write(&self, port: u16, data: &[u8], tell: Tell<'_>, gone: impl Fn(u8)) {
        let word = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        match (port, word) {
            (PCI_CONFIG_ADDRESS_PORT, Ok(value)) => {
                self.set_config_address(value);
            }
            (HOTPLUG_EJECT_PORT, Ok(bits)) => {
                for number in numbers(bits).filter(|number| self.eject(*number)) {
                    gone(number);
                }
            }
            _ => {
                if let Some((number, offset)) = self.addressed(port, data.len()) {
                    self.config_write(number, offset, data, tell);
                }
            }
        }
    }
}

/// The device number and register that an address in ECAM stands for: 4 KiB for each function, eight functions for
/// each device. Other functions than the first are never there.
fn ecam(address: u64) -> Option<(u8, u16)> {
    let offset = address.checked_sub(PCI_ECAM)?;
    if offset >= PCI_ECAM_SIZE {
        return None;
    }
    let (devfn, register) = (offset >> 12, offset & 0xfff);
    let number = if devfn & 7 == 0 { devfn >> 3 } else { u64::MAX };
    // Device numbers that do not exist are above all slots.
    Some((u8::try_from(number).unwrap_or(u8::MAX), register as u16))
}

#[cfg(test)]
mod tests;
