//! Machines of every shape on paper: their ACPI tables are whole, in their place, and add up.

#![no_main]

use crn_protocol::control::Transport;
use crn_vmm::plan::Plan;
use crn_vmm::plan::layout::{ACPI_TABLES, ACPI_TABLES_SIZE, MAX_MMIO_DEVICES, MAX_PCI_DEVICES};
use libfuzzer_sys::fuzz_target;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The table at a guest address, which ends within all tables and whose bytes add up to nothing.
fn table(image: &[u8], address: u64) -> &[u8] {
    let table = &image[(address - ACPI_TABLES) as usize..];
    let length = u32::from_le_bytes(table[4..8].try_into().expect("four bytes")) as usize;
    let table = &table[..length];
    assert_eq!(
        table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    table
}

fuzz_target!(|shape: (u8, u32, bool, u8)| {
    let (vcpus, memory_mib, pci, devices) = shape;
    let (transport, most) = match pci {
        true => (Transport::Pci, MAX_PCI_DEVICES),
        false => (Transport::Mmio, MAX_MMIO_DEVICES),
    };
    let plan = Plan::new(
        vcpus % 64 + 1,
        32 + memory_mib % (524_288 - 31),
        transport,
        devices % (most as u8 + 1),
    );
    assert!(plan.acpi.len() as u64 <= ACPI_TABLES_SIZE);
    let xsdt = table(&plan.acpi, word(&plan.acpi, 24));
    for entry in (36..xsdt.len()).step_by(8) {
        table(&plan.acpi, word(xsdt, entry));
    }
    let ranges: Vec<_> = plan.memory_map().map(|(range, _)| range).collect();
    assert!(ranges.windows(2).all(|pair| pair[0].end() <= pair[1].start));
});
