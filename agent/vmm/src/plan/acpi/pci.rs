//! The PCI host bridge in AML: what it forwards, where its configuration registers are, and how devices come and go
//! (ACPI 6.5, section 6.3; PCI Firmware 3.2, section 4.1).

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Local, Method, Name, Notify, ONE, OpRegion,
    OpRegionSpace, Path, ResourceTemplate, Store, ZERO,
};

use super::dsdt::Body;
use crate::pci::DEVICES;
use crate::plan::layout::{
    HOTPLUG_ADDED_PORT, PCI_CONFIG_ADDRESS_PORT, PCI_ECAM, PCI_WINDOW_END, PCI_WINDOW_START,
};

/// Notifications of a device (ACPI 6.5, table 5.147).
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;

/// `\_SB.PCI0`, with a slot for each device number but the bridge's own.
pub fn host_bridge(aml: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0u16, 0);
    let ports = IO::new(PCI_CONFIG_ADDRESS_PORT, PCI_CONFIG_ADDRESS_PORT, 1, 8);
    let windows = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        PCI_WINDOW_START as u32,
        (PCI_WINDOW_END - 1) as u32,
        None,
    );
    let mut slots = Body(Vec::new());
    for number in 1..DEVICES as u32 {
        slot(number, &mut slots.0);
    }
    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_CBA".into(), &PCI_ECAM),
            &Name::new("_CCA".into(), &ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&buses, &ports, &windows]),
            ),
            // The three registers of `pci::hotplug`.
            &OpRegion::new(
                "HPRG".into(),
                OpRegionSpace::SystemIO,
                &HOTPLUG_ADDED_PORT,
                &12u8,
            ),
            &Field::new(
                "HPRG".into(),
                FieldAccessType::DWord,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![
                    FieldEntry::Named(*b"HPAD", 32),
                    FieldEntry::Named(*b"HPRM", 32),
                    FieldEntry::Named(*b"HPEJ", 32),
                ],
            ),
            &slots,
            &changes(),
        ],
    )
    .to_aml_bytes(aml);
}

fn slot_name(number: u32) -> Path {
    Path::new(&format!("S{number:02}_"))
}

fn slot(number: u32, aml: &mut Vec<u8>) {
    Device::new(
        slot_name(number),
        vec![
            &Name::new("_ADR".into(), &(number << 16)),
            &Name::new("_SUN".into(), &number),
            &Method::new(
                "_EJ0".into(),
                1,
                true,
                vec![&Store::new(&Path::new("HPEJ"), &(1u32 << number))],
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// `PCNT`: tells the guest's bus driver of each slot that has changed.
fn changes() -> Body {
    let mut steps = Body(Vec::new());
    for (local, register, notification) in [
        (Local(0), "HPAD", DEVICE_CHECK),
        (Local(1), "HPRM", EJECT_REQUEST),
    ] {
        Store::new(&local, &Path::new(register)).to_aml_bytes(&mut steps.0);
        for number in 1..DEVICES as u32 {
            If::new(
                &And::new(&ZERO, &local, &(1u32 << number)),
                vec![&Notify::new(&slot_name(number), &notification)],
            )
            .to_aml_bytes(&mut steps.0);
        }
    }
    let mut method = Body(Vec::new());
    Method::new("PCNT".into(), 0, true, vec![&steps]).to_aml_bytes(&mut method.0);
    method
}
