//! KVM's part of PCI functions: which message an interrupt is, and which addresses ring which doorbell.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::vm;
use crate::pci::{Message, Wiring};

/// The machine's interrupt routes, which KVM only takes all at once.
pub struct KvmWiring {
    vm: Arc<VmFd>,
    messages: Mutex<BTreeMap<u32, Message>>,
}

impl KvmWiring {
    /// No messages yet.
    #[must_use]
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            messages: Mutex::default(),
        }
    }

    fn apply(&self, messages: &BTreeMap<u32, Message>) -> io::Result<()> {
        let mut entries = vm::ioapic_routes();
        entries.extend(messages.iter().map(|(gsi, message)| kvm_irq_routing_entry {
            gsi: *gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                msi: kvm_irq_routing_msi {
                    address_lo: message.address as u32,
                    address_hi: (message.address >> 32) as u32,
                    data: message.data,
                    ..Default::default()
                },
            },
            ..Default::default()
        }));
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.vm.set_gsi_routing(&routing).map_err(os)
    }
}

fn os(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl Wiring for KvmWiring {
    fn route(&self, gsi: u32, message: Message) -> io::Result<()> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let before = messages.insert(gsi, message);
        let result = self.apply(&messages);
        if result.is_err() {
            match before {
                Some(before) => messages.insert(gsi, before),
                None => messages.remove(&gsi),
            };
        }
        result
    }

    fn connect_line(&self, line: &EventFd, gsi: u32) -> io::Result<()> {
        self.vm.register_irqfd(line, gsi).map_err(os)
    }

    fn disconnect_line(&self, line: &EventFd, gsi: u32) {
        // Only fails for a line that is not connected.
        let _ = self.vm.unregister_irqfd(line, gsi);
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        // The route leads nowhere now; KVM forgets it with the next change.
        messages.remove(&gsi);
    }

    fn connect_doorbell(&self, doorbell: &EventFd, address: u64) -> io::Result<()> {
        self.vm
            .register_ioevent(doorbell, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(os)
    }

    fn disconnect_doorbell(&self, doorbell: &EventFd, address: u64) {
        // Only fails for a doorbell that is not connected.
        let _ = self
            .vm
            .unregister_ioevent(doorbell, &IoEventAddress::Mmio(address), NoDatamatch);
    }
}

impl fmt::Debug for KvmWiring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KvmWiring")
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}
