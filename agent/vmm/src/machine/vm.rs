//! The virtual machine as KVM sees it: memory slots, interrupt routing, doorbells.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::{
    KVM_API_VERSION, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_MEM_READONLY, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::error::kvm;
use crate::memory::Ram;
use crate::memory::image::Image;
use crate::plan::VirtioSlot;
use crate::plan::layout::{IOAPIC_PINS, KVM_IDENTITY_MAP, KVM_TSS, Range};
use crate::{Error, Result};

/// What the machine is built on, and how an error names it.
const CAPABILITIES: [(Cap, &str); 6] = [
    (
        Cap::Irqchip,
        "an in-kernel interrupt controller (KVM_CAP_IRQCHIP)",
    ),
    (Cap::UserMemory, "user memory slots (KVM_CAP_USER_MEMORY)"),
    (
        Cap::Irqfd,
        "interrupts by event descriptors (KVM_CAP_IRQFD)",
    ),
    (
        Cap::Ioeventfd,
        "doorbells by event descriptors (KVM_CAP_IOEVENTFD)",
    ),
    (Cap::ExtCpuid, "CPUID control (KVM_CAP_EXT_CPUID)"),
    (
        Cap::SetTssAddr,
        "a movable task segment (KVM_CAP_SET_TSS_ADDR)",
    ),
];

/// Takes `/dev/kvm` over and checks that it can do what is needed.
///
/// # Errors
/// [`Error::NotKvm`], [`Error::Capability`].
pub fn open(kvm: OwnedFd) -> Result<Kvm> {
    // SAFETY: the descriptor is open and given up by its owner.
    let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
    let answer = kvm.get_api_version();
    if answer != KVM_API_VERSION.cast_signed() {
        return Err(Error::NotKvm {
            expected: KVM_API_VERSION,
            answer,
        });
    }
    for (capability, name) in CAPABILITIES {
        if !kvm.check_extension(capability) {
            return Err(Error::Capability(name));
        }
    }
    Ok(kvm)
}

/// Creates the machine with its memory and interrupt controllers.
///
/// # Errors
/// [`Error::Kvm`].
pub fn create(host: &Kvm, ram: &Ram) -> Result<VmFd> {
    let vm = host.create_vm().map_err(kvm("create a virtual machine"))?;
    for (slot, region) in ram.iter().enumerate() {
        let region = memory_region(slot as u32, region);
        // SAFETY: the range is a live mapping of exactly this size; `Machine` keeps `Ram` until the VM and its vCPUs
        // are gone, and nothing in the process holds references into it (only volatile accesses).
        unsafe { vm.set_user_memory_region(region) }.map_err(kvm("map guest memory"))?;
    }
    vm.set_identity_map_address(KVM_IDENTITY_MAP)
        .map_err(kvm("place its identity map"))?;
    vm.set_tss_address(KVM_TSS as usize)
        .map_err(kvm("place its task segment"))?;
    vm.create_irq_chip()
        .map_err(kvm("create interrupt controllers"))?;
    vm.set_gsi_routing(&routing()?)
        .map_err(kvm("route interrupts"))?;
    Ok(vm)
}

/// Shows the guest an image, which it cannot write.
///
/// # Errors
/// [`Error::Capability`], [`Error::Kvm`].
pub fn map_image(host: &Kvm, vm: &VmFd, slot: usize, image: &Image, place: Range) -> Result<()> {
    if !host.check_extension(Cap::ReadonlyMem) {
        return Err(Error::Capability("read-only memory (KVM_CAP_READONLY_MEM)"));
    }
    let region = kvm_userspace_memory_region {
        slot: slot as u32,
        flags: KVM_MEM_READONLY,
        guest_phys_addr: place.start,
        memory_size: image.length(),
        userspace_addr: image.address(),
    };
    // SAFETY: the range is a live mapping of exactly this size; `Machine` keeps the image until the VM and its vCPUs
    // are gone, and nothing in the process reads through it.
    unsafe { vm.set_user_memory_region(region) }.map_err(kvm("map an image"))
}

fn memory_region(slot: u32, region: &GuestRegionMmap) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: region.get_mmap().as_ptr() as u64,
    }
}

/// Every interrupt line to the IOAPIC's pin of the same number, none to the legacy PIC.
#[must_use]
pub fn ioapic_routes() -> Vec<kvm_irq_routing_entry> {
    (0..IOAPIC_PINS)
        .map(|gsi| {
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip = kvm_irq_routing_irqchip {
                irqchip: KVM_IRQCHIP_IOAPIC,
                pin: gsi,
            };
            entry
        })
        .collect()
}

fn routing() -> Result<KvmIrqRouting> {
    KvmIrqRouting::from_entries(&ioapic_routes())
        .map_err(|_| Error::Kvm("route interrupts", std::io::ErrorKind::InvalidInput.into()))
}

/// Lets an event descriptor raise an interrupt.
///
/// # Errors
/// [`Error::Kvm`].
pub fn connect_interrupt(vm: &VmFd, line: &EventFd, gsi: u32) -> Result<()> {
    vm.register_irqfd(line, gsi)
        .map_err(kvm("connect an interrupt"))
}

/// Lets the driver's write of a queue's index to the notify register count up its doorbell.
///
/// # Errors
/// [`Error::Kvm`].
pub fn connect_doorbell(vm: &VmFd, doorbell: &EventFd, slot: VirtioSlot, queue: u32) -> Result<()> {
    let address = IoEventAddress::Mmio(slot.address + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
    vm.register_ioevent(doorbell, &address, queue)
        .map_err(kvm("connect a doorbell"))
}
