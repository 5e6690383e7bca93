//! The virtio-mmio register page (virtio 1.3, section 4.2), version 2: decodes offsets and widths, nothing more.

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL,
    VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH,
    VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW,
    VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};

use super::negotiate::Register;
use super::{Change, Negotiator};

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// "CRNV".
const VENDOR: u32 = 0x564e_5243;

/// A device's register page.
#[derive(Debug)]
pub struct MmioTransport {
    negotiator: Negotiator,
}

impl MmioTransport {
    /// The page in front of a device's negotiation.
    #[must_use]
    pub const fn new(negotiator: Negotiator) -> Self {
        Self { negotiator }
    }

    /// The device's negotiation, to save it.
    #[must_use]
    pub const fn negotiator(&self) -> &Negotiator {
        &self.negotiator
    }

    /// The same, to take one up.
    pub const fn negotiator_mut(&mut self) -> &mut Negotiator {
        &mut self.negotiator
    }

    /// A guest's read; what is not a register of this width is zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= u64::from(VIRTIO_MMIO_CONFIG) {
            let start = (offset - u64::from(VIRTIO_MMIO_CONFIG)) as usize;
            self.negotiator.config().read(start, data);
            return;
        }
        let Ok(data) = <&mut [u8; 4]>::try_from(data) else {
            return;
        };
        let value = match offset as u32 {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            // No shared memory regions: length and base are all ones.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            offset => decode(offset).map_or(0, |register| self.negotiator.read(register)),
        };
        *data = value.to_le_bytes();
    }

    /// A guest's write; what is not a register of this width is ignored. The queue notify register never comes here:
    /// it is an ioeventfd.
    #[must_use = "the device has to be told"]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<Change> {
        if let Some(start) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            self.negotiator.config().write(start as usize, data);
            return None;
        }
        let value = u32::from_le_bytes(data.try_into().ok()?);
        let register = decode(u32::try_from(offset).ok()?)?;
        self.negotiator.write(register, value)
    }
}

fn decode(offset: u32) -> Option<Register> {
    Some(match offset {
        VIRTIO_MMIO_DEVICE_ID => Register::DeviceId,
        VIRTIO_MMIO_DEVICE_FEATURES => Register::DeviceFeatures,
        VIRTIO_MMIO_DEVICE_FEATURES_SEL => Register::DeviceFeaturesSelect,
        VIRTIO_MMIO_DRIVER_FEATURES => Register::DriverFeatures,
        VIRTIO_MMIO_DRIVER_FEATURES_SEL => Register::DriverFeaturesSelect,
        VIRTIO_MMIO_QUEUE_SEL => Register::QueueSelect,
        VIRTIO_MMIO_QUEUE_NUM_MAX => Register::QueueSizeMax,
        VIRTIO_MMIO_QUEUE_NUM => Register::QueueSize,
        VIRTIO_MMIO_QUEUE_READY => Register::QueueReady,
        VIRTIO_MMIO_QUEUE_DESC_LOW => Register::QueueDescriptorsLow,
        VIRTIO_MMIO_QUEUE_DESC_HIGH => Register::QueueDescriptorsHigh,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW => Register::QueueDriverLow,
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH => Register::QueueDriverHigh,
        VIRTIO_MMIO_QUEUE_USED_LOW => Register::QueueDeviceLow,
        VIRTIO_MMIO_QUEUE_USED_HIGH => Register::QueueDeviceHigh,
        VIRTIO_MMIO_INTERRUPT_STATUS => Register::InterruptStatus,
        VIRTIO_MMIO_INTERRUPT_ACK => Register::InterruptAcknowledge,
        VIRTIO_MMIO_STATUS => Register::Status,
        VIRTIO_MMIO_CONFIG_GENERATION => Register::ConfigGeneration,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use vm_memory::GuestAddress;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::memory::Ram;
    use crate::virtio::{Interrupt, Offer};

    fn transport() -> MmioTransport {
        let ram = Arc::new(Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap());
        let offer = Offer {
            device_id: 4,
            features: 1 << 32 | 1 << 29,
            queue_sizes: vec![256],
            config: vec![1, 2, 3, 4, 5].into(),
        };
        let doorbells = vec![Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())];
        MmioTransport::new(Negotiator::new(
            offer,
            Interrupt::new().unwrap(),
            doorbells,
            ram,
        ))
    }

    fn read(transport: &MmioTransport, offset: u32) -> u32 {
        let mut data = [0xff; 4];
        transport.read(u64::from(offset), &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_driver_recognises_the_device() {
        let transport = transport();
        assert_eq!(read(&transport, 0), MAGIC);
        assert_eq!(read(&transport, 4), 2);
        assert_eq!(read(&transport, 8), 4);
        assert_eq!(read(&transport, VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    }

    #[test]
    fn the_configuration_reads_in_any_width_and_as_zeros_past_its_end() {
        let transport = transport();
        let mut data = [0xff; 8];
        transport.read(0x102, &mut data);
        assert_eq!(data, [3, 4, 5, 0, 0, 0, 0, 0]);
        let mut byte = [0xff];
        transport.read(0xfff, &mut byte);
        assert_eq!(byte, [0]);
    }

    #[derive(Debug, Clone)]
    enum Access {
        Read(u64, usize),
        Write(u64, Vec<u8>),
        Step(u32, u32),
    }

    fn access() -> impl Strategy<Value = Access> {
        let offset = prop_oneof![0u64..0x1000, (0u64..0x40).prop_map(|n| n * 4)];
        let interesting = prop_oneof![
            any::<u32>(),
            Just(0),
            Just(1),
            Just(3),
            Just(11),
            Just(15),
            Just(0x80),
            (0u32..0x10_0000).prop_map(|n| n & !0xfff),
            (0u32..10).prop_map(|n| 1 << n),
        ];
        let registers = prop::sample::select(vec![
            VIRTIO_MMIO_STATUS,
            VIRTIO_MMIO_STATUS,
            VIRTIO_MMIO_STATUS,
            VIRTIO_MMIO_DRIVER_FEATURES,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL,
            VIRTIO_MMIO_QUEUE_SEL,
            VIRTIO_MMIO_QUEUE_NUM,
            VIRTIO_MMIO_QUEUE_READY,
            VIRTIO_MMIO_QUEUE_DESC_LOW,
            VIRTIO_MMIO_QUEUE_DESC_HIGH,
            VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            VIRTIO_MMIO_QUEUE_USED_LOW,
            VIRTIO_MMIO_INTERRUPT_ACK,
        ]);
        prop_oneof![
            (offset.clone(), 0usize..=8).prop_map(|(offset, width)| Access::Read(offset, width)),
            (offset, prop::collection::vec(any::<u8>(), 0..=8))
                .prop_map(|(offset, data)| Access::Write(offset, data)),
            (registers, interesting).prop_map(|(register, value)| Access::Step(register, value)),
        ]
    }

    proptest! {
        /// Whatever the guest writes, in whatever width, a device is activated at most once between resets and only
        /// with queues that lie in guest memory.
        #[test]
        fn random_register_accesses_keep_the_states_in_order(accesses in prop::collection::vec(access(), 0..200)) {
            let mut transport = transport();
            let mut live = false;
            for access in accesses {
                let change = match access {
                    Access::Read(offset, width) => {
                        let mut data = [0; 8];
                        transport.read(offset, &mut data[..width]);
                        None
                    }
                    Access::Write(offset, data) => transport.write(offset, &data),
                    Access::Step(register, value) => transport.write(u64::from(register), &value.to_le_bytes()),
                };
                match change {
                    Some(Change::Activate { queues, .. }) => {
                        prop_assert!(!live);
                        prop_assert!(queues.count() <= 1);
                        live = true;
                    }
                    Some(Change::Reset) => {
                        prop_assert!(live);
                        live = false;
                    }
                    None => {}
                }
                prop_assert_eq!(read(&transport, VIRTIO_MMIO_STATUS) == 15, live);
            }
        }
    }
}
