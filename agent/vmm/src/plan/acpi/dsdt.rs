//! The devices that nothing but this table tells of, in AML.

use acpi_tables::aml::{
    And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO,
    If, Interrupt, Local, Memory32Fixed, Method, MethodCall, Name, Notify, OpRegion, OpRegionSpace,
    Package, Path, ResourceTemplate, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{Cause, OEM_ID, OEM_REVISION, OEM_TABLE_ID, S5_SLEEP_TYPE, pci};
use crate::plan::layout::{
    EVENTS_GSI, EVENTS_PORT, SERIAL_GSI, SERIAL_PORT, VIRTIO_MMIO_SIZE, VMGENID,
};
use crate::plan::{Places, VirtioSlot};

/// An interrupt as all devices here have it: edge-triggered, active high, not shared.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// AML that is there already.
pub struct Body(pub Vec<u8>);

impl Aml for Body {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The table.
pub fn dsdt(places: &Places) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = Body(Vec::new());
    match places {
        Places::Mmio(slots) => {
            for (index, slot) in slots.iter().enumerate() {
                virtio_device(index, *slot, &mut body.0);
            }
        }
        Places::Pci => pci::host_bridge(&mut body.0),
    }
    serial_port(&mut body.0);
    power_button(&mut body.0);
    generation_identifier(&mut body.0);
    event_device(matches!(places, Places::Pci), &mut body.0);
    let mut aml = Vec::new();
    Scope::new(Path::new("_SB_"), vec![&body]).to_aml_bytes(&mut aml);
    Name::new(Path::new("_S5_"), &Package::new(vec![&S5_SLEEP_TYPE])).to_aml_bytes(&mut aml);
    dsdt.append_slice(&aml);
    dsdt
}

fn virtio_device(index: usize, slot: VirtioSlot, aml: &mut Vec<u8>) {
    let memory = Memory32Fixed::new(true, slot.address as u32, VIRTIO_MMIO_SIZE as u32);
    Device::new(
        format!("V{index:03}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &(index as u32)),
            &Name::new("_CCA".into(), &acpi_tables::aml::ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&memory, &interrupt(slot.gsi)]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

fn serial_port(aml: &mut Vec<u8>) {
    let ports = IO::new(SERIAL_PORT, SERIAL_PORT, 0, 8);
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&ports, &interrupt(SERIAL_GSI)]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

fn power_button(aml: &mut Vec<u8>) {
    Device::new(
        "PWRB".into(),
        vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C"))],
    )
    .to_aml_bytes(aml);
}

/// Sixteen bytes that differ in every copy of a machine (Microsoft, "Virtual Machine Generation ID", 2012); Linux's
/// drivers/virt/vmgenid.c reads their place from `ADDR` and mixes them into its random numbers when it is notified.
fn generation_identifier(aml: &mut Vec<u8>) {
    let (low, high) = (VMGENID as u32, (VMGENID >> 32) as u32);
    Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"VMGENCTR"),
            &Name::new("_CID".into(), &"VM_Gen_Counter"),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(aml);
}

/// If this cause is among those read, `step`.
fn when(cause: Cause, step: &dyn Aml) -> Body {
    let mut body = Body(Vec::new());
    If::new(&And::new(&ZERO, &Local(0), &(cause as u8)), vec![step]).to_aml_bytes(&mut body.0);
    body
}

/// The generic event device (ACPI 6.5, section 5.6.9): one interrupt, whose method reads the register of causes and
/// tells each its device.
fn event_device(pci: bool, aml: &mut Vec<u8>) {
    OpRegion::new("EVRG".into(), OpRegionSpace::SystemIO, &EVENTS_PORT, &1u8).to_aml_bytes(aml);
    Field::new(
        "EVRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVNT", 8)],
    )
    .to_aml_bytes(aml);

    let event = Path::new("EVNT");
    let read = Store::new(&Local(0), &event);
    let (button, generation) = (Path::new("PWRB"), Path::new("VGEN"));
    let pressed = when(Cause::PowerButton, &Notify::new(&button, &0x80u8));
    let changed = when(Cause::Generation, &Notify::new(&generation, &0x80u8));
    let scan = MethodCall::new("\\_SB_.PCI0.PCNT".into(), vec![]);
    let devices = when(Cause::Devices, &scan);
    let mut steps: Vec<&dyn Aml> = vec![&read, &pressed, &changed];
    if pci {
        steps.push(&devices);
    }
    Device::new(
        "GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&interrupt(EVENTS_GSI)]),
            ),
            &Method::new("_EVT".into(), 1, true, steps),
        ],
    )
    .to_aml_bytes(aml);
}
