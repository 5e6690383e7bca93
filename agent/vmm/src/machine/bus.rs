//! What vCPU threads reach without leaving their thread: device registers and I/O ports.
//!
//! Changes of a virtio device's life (activation, reset) are handed to the event loop and waited for, so that a
//! driver's next instruction finds them done. The event loop takes none of the transports' locks.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crn_protocol::control::ExitReason;
use vm_superio::SerialState;
use vmm_sys_util::eventfd::EventFd;

use super::events::Events;
use crate::devices::console::serial::{Com1, type_into};
use crate::devices::power;
use crate::pci::PciBus;
use crate::plan::layout::{EVENTS_PORT, SERIAL_PORT, VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};
use crate::virtio::Change;
use crate::virtio::mmio::MmioTransport;

/// What vCPU threads tell the event loop.
#[derive(Debug)]
pub enum FromVcpu {
    /// A virtio device's life changes; answer on `done` when it has.
    Device {
        /// The device.
        index: u8,
        /// What happens to it.
        change: Change,
        /// The vCPU waits here.
        done: SyncSender<()>,
    },
    /// The guest has let a device go; nothing of it is on the bus any more.
    Ejected {
        /// The device.
        index: u8,
    },
    /// The machine is at its end.
    Stopped {
        /// Why.
        reason: ExitReason,
        /// More about it.
        detail: String,
    },
}

/// The way from vCPU threads to the event loop.
#[derive(Debug, Clone)]
pub struct ToLoop {
    sender: SyncSender<FromVcpu>,
    kick: Arc<EventFd>,
}

impl ToLoop {
    /// A channel's sending side and the counter the loop watches.
    #[must_use]
    pub const fn new(sender: SyncSender<FromVcpu>, kick: Arc<EventFd>) -> Self {
        Self { sender, kick }
    }

    /// Sends; a loop that is gone has stopped the machine anyway.
    pub fn send(&self, message: FromVcpu) {
        if self.sender.send(message).is_ok() {
            // The counter can only refuse when it is full, and then the loop is awake anyway.
            let _ = self.kick.write(1);
        }
    }
}

/// Where virtio devices are.
#[derive(Debug)]
pub enum Transports {
    /// At their planned places, by index.
    Mmio(Vec<Mutex<MmioTransport>>),
    /// On the PCI bus: the device with number n has index n - 1.
    Pci(Arc<PciBus>),
}

/// The machine's registers.
pub struct Bus {
    transports: Transports,
    com1: Mutex<Com1>,
    events: Arc<Events>,
    to_loop: ToLoop,
}

impl Transports {
    /// A device's page of registers; `None` on PCI and where there is none.
    pub fn mmio(&self, index: usize) -> Option<MutexGuard<'_, MmioTransport>> {
        match self {
            Self::Mmio(devices) => devices.get(index).map(lock),
            Self::Pci(_) => None,
        }
    }
}

impl Bus {
    /// A bus with virtio devices, COM1 and the register of events.
    #[must_use]
    pub const fn new(
        transports: Transports,
        com1: Com1,
        events: Arc<Events>,
        to_loop: ToLoop,
    ) -> Self {
        Self {
            transports,
            com1: Mutex::new(com1),
            events,
            to_loop,
        }
    }

    /// Where virtio devices are.
    #[must_use]
    pub const fn transports(&self) -> &Transports {
        &self.transports
    }

    /// The serial port's registers and what waits in it.
    #[must_use]
    pub fn serial_state(&self) -> SerialState {
        let com1 = self.com1.lock().unwrap_or_else(PoisonError::into_inner);
        com1.state()
    }

    /// The event loop's channel.
    #[must_use]
    pub const fn to_loop(&self) -> &ToLoop {
        &self.to_loop
    }

    /// Has the event loop do its part of a change. The caller holds the device's lock meanwhile: another vCPU must
    /// not see a device half changed.
    fn tell(&self, index: u8, change: Change) {
        let (done, wait) = sync_channel(1);
        self.to_loop.send(FromVcpu::Device {
            index,
            change,
            done,
        });
        // An error means that the loop is gone, and the machine with it.
        let _ = wait.recv();
    }

    fn tell_numbered(&self, number: u8, change: Change) {
        self.tell(number.saturating_sub(1), change);
    }

    /// A read outside RAM: all ones where nothing is.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) {
        let answered = match &self.transports {
            Transports::Mmio(devices) => match mmio_device(devices, address) {
                Some((_, transport, offset)) => {
                    lock(transport).read(offset, data);
                    true
                }
                None => false,
            },
            Transports::Pci(bus) => bus.memory_read(address, data),
        };
        if !answered {
            data.fill(0xff);
        }
    }

    /// A write outside RAM: lost where nothing is.
    pub fn memory_write(&self, address: u64, data: &[u8]) {
        match &self.transports {
            Transports::Mmio(devices) => {
                if let Some((index, transport, offset)) = mmio_device(devices, address) {
                    let mut transport = lock(transport);
                    if let Some(change) = transport.write(offset, data) {
                        self.tell(index, change);
                    }
                }
            }
            Transports::Pci(bus) => {
                bus.memory_write(address, data, &|number, change| {
                    self.tell_numbered(number, change);
                });
            }
        }
    }

    /// `in`, or a string of them at the same port.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = serial_offset(port) {
            let mut com1 = self.com1.lock().unwrap_or_else(PoisonError::into_inner);
            for byte in data {
                *byte = com1.read(offset);
            }
        } else if let (Some(value), Some(byte)) = (self.register_read(port), data.first_mut()) {
            *byte = value;
        } else if let Transports::Pci(bus) = &self.transports {
            bus.port_read(port, data);
        }
    }

    fn register_read(&self, port: u16) -> Option<u8> {
        match port {
            EVENTS_PORT => Some(self.events.take()),
            port => power::port_read(port),
        }
    }

    /// Types into the serial port as much as it has room for; how many bytes that was. Its lock is held for moments
    /// only and never while a vCPU waits for the event loop, which calls this.
    pub fn type_into_serial(&self, bytes: &[u8]) -> usize {
        let mut com1 = self.com1.lock().unwrap_or_else(PoisonError::into_inner);
        type_into(&mut com1, bytes)
    }

    /// `out`, or a string of them at the same port; may be the machine's end.
    #[must_use]
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason> {
        if let Some(offset) = serial_offset(port) {
            let mut com1 = self.com1.lock().unwrap_or_else(PoisonError::into_inner);
            for byte in data {
                // An output that fails is the event loop's to notice; the guest cannot do anything about it.
                let _ = com1.write(offset, *byte);
            }
            return None;
        }
        if let Transports::Pci(bus) = &self.transports {
            let tell = |number, change| self.tell_numbered(number, change);
            bus.port_write(port, data, &tell, |number| {
                let index = number.saturating_sub(1);
                self.to_loop.send(FromVcpu::Ejected { index });
            });
        }
        data.iter().find_map(|byte| power::port_write(port, *byte))
    }
}

fn lock(transport: &Mutex<MmioTransport>) -> MutexGuard<'_, MmioTransport> {
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mmio_device(
    devices: &[Mutex<MmioTransport>],
    address: u64,
) -> Option<(u8, &Mutex<MmioTransport>, u64)> {
    let from_base = address.checked_sub(VIRTIO_MMIO_BASE)?;
    let index = from_base / VIRTIO_MMIO_SIZE;
    let transport = devices.get(usize::try_from(index).ok()?)?;
    Some((
        u8::try_from(index).ok()?,
        transport,
        from_base % VIRTIO_MMIO_SIZE,
    ))
}

fn serial_offset(port: u16) -> Option<u8> {
    let offset = port.checked_sub(SERIAL_PORT)?;
    (offset < 8).then_some(offset as u8)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::devices::console::{Console, serial::com1};

    fn bus(transports: Transports) -> (Bus, Console, Receiver<FromVcpu>) {
        let (sender, receiver) = sync_channel(4);
        let file = tempfile::tempfile().unwrap();
        let (input, console) = Console::new(file.into(), 0).unwrap();
        let com1 = com1(EventFd::new(EFD_NONBLOCK).unwrap(), input);
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        (
            Bus::new(
                transports,
                com1,
                Arc::new(Events::new().unwrap()),
                ToLoop::new(sender, kick),
            ),
            console,
            receiver,
        )
    }

    #[test]
    fn where_nothing_is_reads_are_ones_and_writes_are_lost() {
        let (bus, _console, _receiver) = bus(Transports::Mmio(Vec::new()));
        let mut data = [0; 8];
        for address in [0xc000_0000, VIRTIO_MMIO_BASE, u64::MAX] {
            bus.memory_read(address, &mut data);
            assert_eq!(data, [0xff; 8]);
            bus.memory_write(address, &data);
        }
        bus.port_read(0x70, &mut data);
        assert_eq!(data, [0xff; 8]);
        assert!(bus.port_write(0xcf8, &[0; 4]).is_none());
    }

    #[test]
    fn the_serial_port_answers_at_its_ports_only() {
        let (bus, _console, _receiver) = bus(Transports::Mmio(Vec::new()));
        let mut status = [0];
        bus.port_read(0x3fd, &mut status);
        assert_eq!(status, [0x60], "transmitter empty");
        bus.port_read(0x400, &mut status);
        assert_eq!(status, [0xff]);
    }

    #[test]
    fn the_sleep_register_ends_the_machine() {
        let (bus, _console, _receiver) = bus(Transports::Mmio(Vec::new()));
        assert_eq!(bus.port_write(0x600, &[0x34]), Some(ExitReason::PowerOff));
        assert_eq!(
            bus.port_write(0x600, &[0, 0x34]),
            Some(ExitReason::PowerOff)
        );
    }
}
