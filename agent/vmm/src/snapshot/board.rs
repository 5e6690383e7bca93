//! What a machine has one of: interrupt controllers, clock, serial port, the registers of the PCI bus.

use std::io;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use vm_superio::SerialState;

use super::SnapshotError;
use super::fields::{Reader, Writer};
use super::format::Kind;
use crate::Result;
use crate::error::kvm;

const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];
/// Typed bytes that the serial port holds; it looks at their number itself.
const MAX_TYPED: usize = 1024;
/// Two clocks are the same if they differ by less than this: what NTP corrects, 250 ppm.
const SAME_CLOCK: u64 = 4000;

/// The PCI bus's own registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciRegisters {
    /// The address port.
    pub address: u32,
    /// Devices that have come and that are asked to leave, not told yet.
    pub hotplug: [u32; 2],
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    chips: [kvm_irqchip; 3],
    /// kvm-clock, nanoseconds.
    clock: u64,
    /// The time stamp counter's frequency; 0 if KVM does not tell.
    pub tsc_khz: u32,
    /// COM1.
    pub serial: SerialState,
    /// The register behind the generic event device.
    pub causes: u8,
    /// On a machine with PCI.
    pub pci: Option<PciRegisters>,
}

impl Board {
    /// Of a machine whose vCPUs are outside the guest.
    ///
    /// # Errors
    /// [`crate::Error::Kvm`].
    pub fn save(
        vm: &VmFd,
        tsc_khz: u32,
        serial: SerialState,
        causes: u8,
        pci: Option<PciRegisters>,
    ) -> Result<Self> {
        let mut chips = CHIPS.map(|chip_id| kvm_irqchip {
            chip_id,
            ..Default::default()
        });
        for chip in &mut chips {
            vm.get_irqchip(chip)
                .map_err(kvm("tell an interrupt controller"))?;
        }
        let clock = vm.get_clock().map_err(kvm("tell its clock"))?;
        Ok(Self {
            chips,
            clock: clock.clock,
            tsc_khz,
            serial,
            causes,
            pci,
        })
    }

    /// The interrupt controllers, into a new machine.
    ///
    /// # Errors
    /// [`crate::Error::Kvm`].
    pub fn restore_chips(&self, vm: &VmFd) -> Result<()> {
        for chip in &self.chips {
            vm.set_irqchip(chip)
                .map_err(kvm("take an interrupt controller"))?;
        }
        Ok(())
    }

    /// The clock, last of all: the guest's time goes on where it stood still. That it is later outside is for the
    /// guest's init to hear.
    ///
    /// # Errors
    /// [`crate::Error::Kvm`].
    pub fn restore_clock(&self, vm: &VmFd) -> Result<()> {
        let clock = kvm_clock_data {
            clock: self.clock,
            ..Default::default()
        };
        vm.set_clock(&clock).map_err(kvm("take its clock"))
    }

    /// Whether time passes here as it did there.
    ///
    /// # Errors
    /// [`SnapshotError::Other`].
    pub fn check(&self, tsc_khz: u32) -> Result<(), SnapshotError> {
        let difference = u64::from(self.tsc_khz.abs_diff(tsc_khz));
        if difference * SAME_CLOCK <= u64::from(self.tsc_khz) {
            return Ok(());
        }
        Err(SnapshotError::Other {
            what: "time stamp counter",
            made: format!("{} kHz", self.tsc_khz),
            here: format!("{tsc_khz} kHz"),
        })
    }

    /// As a section.
    pub fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for chip in &self.chips {
            writer.plain(chip);
        }
        let serial = &self.serial;
        writer
            .plain(&self.clock)
            .plain(&self.tsc_khz)
            .plain(&[
                serial.baud_divisor_low,
                serial.baud_divisor_high,
                serial.interrupt_enable,
                serial.interrupt_identification,
                serial.line_control,
                serial.line_status,
                serial.modem_control,
                serial.modem_status,
                serial.scratch,
            ])
            .list(&serial.in_buffer)
            .plain(&self.causes)
            .flag(self.pci.is_some());
        if let Some(pci) = &self.pci {
            writer.plain(&pci.address).plain(&pci.hotplug);
        }
        writer.finish()
    }

    /// From a section.
    ///
    /// # Errors
    /// [`SnapshotError::Field`].
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(Kind::Board, bytes);
        let mut chips = [kvm_irqchip::default(); 3];
        for (chip, id) in chips.iter_mut().zip(CHIPS) {
            *chip = reader.plain("an interrupt controller")?;
            if chip.chip_id != id {
                return Err(reader.refuse("an interrupt controller's number"));
            }
        }
        let clock = reader.plain("its clock")?;
        let tsc_khz = reader.plain("its time stamp counter")?;
        let [
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = reader.plain("its serial port")?;
        let serial = SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: reader.list("what has been typed", MAX_TYPED)?,
        };
        let causes = reader.plain("its events")?;
        let pci = match reader.flag("whether it has PCI")? {
            false => None,
            true => Some(PciRegisters {
                address: reader.plain("its PCI address port")?,
                hotplug: reader.plain("its PCI slots")?,
            }),
        };
        reader.end()?;
        Ok(Self {
            chips,
            clock,
            tsc_khz,
            serial,
            causes,
            pci,
        })
    }
}

/// The serial port's refusal as an I/O error.
pub fn serial_refused(error: &vm_superio::serial::Error<io::Error>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"))
}
