//! From reset to a live device, and back: the one state machine behind every virtio bus.
//!
//! The states own what may be changed in them. Queue drafts exist only between FEATURES_OK and DRIVER_OK; activation
//! moves them into live queues, after which no register reaches them.

mod saved;

use std::mem;
use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

pub use saved::{Live, Saved, SavedQueue, Stage};

use super::interrupt::NO_VECTOR;
use super::{ConfigSpace, Interrupt, LiveQueue, Queues};
use crate::memory::Ram;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

/// What a device offers, the same for its whole life.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Device type (virtio 1.3, section 5).
    pub device_id: u32,
    /// Feature bits, VERSION_1 among them.
    pub features: u64,
    /// Largest size of each queue, powers of two.
    pub queue_sizes: Vec<u16>,
    /// The device-specific configuration.
    pub config: ConfigSpace,
}

/// A queue the driver is still describing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct QueueDraft {
    size: u32,
    descriptors: u64,
    driver: u64,
    device: u64,
    ready: bool,
}

#[derive(Debug)]
enum State {
    Reset,
    Acknowledged,
    Driver {
        features: u64,
    },
    FeaturesOk {
        features: u64,
        drafts: Vec<QueueDraft>,
    },
    /// The drafts are only read any more.
    Live {
        features: u64,
        drafts: Vec<QueueDraft>,
    },
    /// The driver or the negotiation gave up; only a reset leads out.
    Failed,
}

/// What a register write means for the device behind it.
#[derive(Debug)]
pub enum Change {
    /// The driver is ready.
    Activate {
        /// The agreed feature bits.
        features: u64,
        /// The queues.
        queues: Queues,
    },
    /// The driver wants the device as it was at first; its queues are gone.
    Reset,
}

/// A register every virtio bus has, under whatever address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// Read: device type.
    DeviceId,
    /// Read: how many queues.
    QueueCount,
    /// Read: 32 feature bits, chosen by `DeviceFeaturesSelect`.
    DeviceFeatures,
    /// Read, write.
    DeviceFeaturesSelect,
    /// Read, write: 32 feature bits, chosen by `DriverFeaturesSelect`.
    DriverFeatures,
    /// Read, write.
    DriverFeaturesSelect,
    /// Read, write: which queue the queue registers mean.
    QueueSelect,
    /// Read.
    QueueSizeMax,
    /// Read, write.
    QueueSize,
    /// Read, write.
    QueueReady,
    /// Read, write: descriptor table, low half.
    QueueDescriptorsLow,
    /// Read, write: high half.
    QueueDescriptorsHigh,
    /// Read, write: available ring, low half.
    QueueDriverLow,
    /// Read, write: high half.
    QueueDriverHigh,
    /// Read, write: used ring, low half.
    QueueDeviceLow,
    /// Read, write: high half.
    QueueDeviceHigh,
    /// Read, write: the message that tells of a queue's used buffers.
    QueueVector,
    /// Read, write: the message that tells of configuration changes.
    ConfigVector,
    /// Read.
    InterruptStatus,
    /// Write.
    InterruptAcknowledge,
    /// Read, write.
    Status,
    /// Read.
    ConfigGeneration,
}

/// One device's negotiation.
#[derive(Debug)]
pub struct Negotiator {
    offer: Offer,
    state: State,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    interrupt: Interrupt,
    doorbells: Vec<Arc<EventFd>>,
    ram: Arc<Ram>,
}

impl Negotiator {
    /// A device after power-on. `doorbells` has one for each queue of the offer.
    #[must_use]
    pub fn new(
        offer: Offer,
        interrupt: Interrupt,
        doorbells: Vec<Arc<EventFd>>,
        ram: Arc<Ram>,
    ) -> Self {
        Self {
            offer,
            state: State::Reset,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            interrupt,
            doorbells,
            ram,
        }
    }

    /// The device-specific configuration.
    #[must_use]
    pub const fn config(&self) -> &ConfigSpace {
        &self.offer.config
    }

    /// What the device offers.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The device's way to its driver.
    #[must_use]
    pub const fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// What the driver reads; write-only registers are zero.
    #[must_use]
    pub fn read(&self, register: Register) -> u32 {
        match register {
            Register::DeviceId => self.offer.device_id,
            Register::QueueCount => self.offer.queue_sizes.len() as u32,
            Register::DeviceFeatures => half(self.offer.features, self.device_features_select),
            Register::DeviceFeaturesSelect => self.device_features_select,
            Register::DriverFeatures => half(self.features(), self.driver_features_select),
            Register::DriverFeaturesSelect => self.driver_features_select,
            Register::QueueSelect => self.queue_select,
            Register::QueueSizeMax => self
                .offer
                .queue_sizes
                .get(self.queue_select as usize)
                .map_or(0, |size| u32::from(*size)),
            Register::QueueSize => match self.draft() {
                Some(draft) => draft.size,
                None => self.read(Register::QueueSizeMax),
            },
            Register::QueueVector => self.selected_queue().map_or(u32::from(NO_VECTOR), |queue| {
                u32::from(self.interrupt.queue_vector(queue))
            }),
            Register::ConfigVector => u32::from(self.interrupt.config_vector()),
            Register::InterruptStatus => self.interrupt.status(),
            Register::InterruptAcknowledge => 0,
            Register::Status => self.status(),
            Register::ConfigGeneration => self.offer.config.generation(),
            register => self.draft().map_or(0, |draft| read_draft(draft, register)),
        }
    }

    /// The features the driver has chosen so far. Once agreed they are the device's.
    const fn features(&self) -> u64 {
        match self.state {
            State::Driver { features } | State::FeaturesOk { features, .. } => features,
            _ => 0,
        }
    }

    fn draft(&self) -> Option<&QueueDraft> {
        match &self.state {
            State::FeaturesOk { drafts, .. } | State::Live { drafts, .. } => {
                drafts.get(self.queue_select as usize)
            }
            _ => None,
        }
    }

    fn selected_queue(&self) -> Option<u16> {
        u16::try_from(self.queue_select).ok()
    }

    fn status(&self) -> u32 {
        let status = match self.state {
            State::Reset => 0,
            State::Acknowledged => ACKNOWLEDGE,
            State::Driver { .. } => DRIVER,
            State::FeaturesOk { .. } => FEATURES_OK,
            State::Live { .. } => DRIVER_OK,
            State::Failed => DRIVER | VIRTIO_CONFIG_S_FAILED,
        };
        if self.interrupt.is_reset_needed() {
            status | VIRTIO_CONFIG_S_NEEDS_RESET
        } else {
            status
        }
    }

    /// What the driver writes; read-only registers and writes that mean nothing in this state are ignored.
    #[must_use = "the device has to be told"]
    pub fn write(&mut self, register: Register, value: u32) -> Option<Change> {
        match register {
            Register::DeviceFeaturesSelect => self.device_features_select = value,
            Register::DriverFeaturesSelect => self.driver_features_select = value,
            Register::QueueSelect => self.queue_select = value,
            Register::InterruptAcknowledge => self.interrupt.acknowledge(value),
            Register::ConfigVector => self.interrupt.set_config_vector(value as u16),
            Register::QueueVector => {
                if let Some(queue) = self.selected_queue() {
                    self.interrupt.set_queue_vector(queue, value as u16);
                }
            }
            Register::Status => return self.write_status(value),
            Register::DriverFeatures => {
                if let State::Driver { features } = &mut self.state {
                    match self.driver_features_select {
                        0 => *features = (*features & !0xffff_ffff) | u64::from(value),
                        1 => *features = (*features & 0xffff_ffff) | u64::from(value) << 32,
                        _ => {}
                    }
                }
            }
            _ => self.write_draft(register, value),
        }
        None
    }

    fn write_draft(&mut self, register: Register, value: u32) {
        let State::FeaturesOk { drafts, .. } = &mut self.state else {
            return;
        };
        let Some(draft) = drafts.get_mut(self.queue_select as usize) else {
            return;
        };
        if register == Register::QueueReady {
            draft.ready = value == 1;
        }
        if draft.ready {
            return;
        }
        match register {
            Register::QueueSize => draft.size = value,
            Register::QueueDescriptorsLow => set_low(&mut draft.descriptors, value),
            Register::QueueDescriptorsHigh => set_high(&mut draft.descriptors, value),
            Register::QueueDriverLow => set_low(&mut draft.driver, value),
            Register::QueueDriverHigh => set_high(&mut draft.driver, value),
            Register::QueueDeviceLow => set_low(&mut draft.device, value),
            Register::QueueDeviceHigh => set_high(&mut draft.device, value),
            _ => {}
        }
    }

    /// The bus takes the device's way to memory away: a live one stops, for good until the driver resets it.
    #[must_use = "the device has to be told"]
    pub fn revoke(&mut self) -> Option<Change> {
        let live = matches!(self.state, State::Live { .. });
        if live {
            self.state = State::Failed;
        }
        live.then_some(Change::Reset)
    }

    fn write_status(&mut self, status: u32) -> Option<Change> {
        if status == 0 {
            let live = matches!(self.state, State::Live { .. });
            self.state = State::Reset;
            self.device_features_select = 0;
            self.driver_features_select = 0;
            self.queue_select = 0;
            if !live {
                self.interrupt.reset();
            }
            return live.then_some(Change::Reset);
        }
        // The driver may or may not repeat NEEDS_RESET when it adds a bit.
        let status = status & !VIRTIO_CONFIG_S_NEEDS_RESET;
        if status == self.status() & !VIRTIO_CONFIG_S_NEEDS_RESET {
            return None;
        }
        let mut change = None;
        self.state = match (mem::replace(&mut self.state, State::Failed), status) {
            (State::Reset, ACKNOWLEDGE) => State::Acknowledged,
            (State::Reset | State::Acknowledged, DRIVER) => State::Driver { features: 0 },
            (State::Driver { features }, FEATURES_OK) => {
                if features & !self.offer.features == 0 && features & 1 << VIRTIO_F_VERSION_1 != 0 {
                    let drafts = self
                        .offer
                        .queue_sizes
                        .iter()
                        .map(|size| QueueDraft {
                            size: u32::from(*size),
                            ..QueueDraft::default()
                        })
                        .collect();
                    State::FeaturesOk { features, drafts }
                } else {
                    // FEATURES_OK stays unset: the driver sees that its choice was refused.
                    State::Driver { features }
                }
            }
            (State::FeaturesOk { features, drafts }, DRIVER_OK) => {
                match self.activate(features, &drafts) {
                    Some(queues) => {
                        change = Some(Change::Activate { features, queues });
                        State::Live { features, drafts }
                    }
                    None => State::Failed,
                }
            }
            // The device behind it goes on until the reset that must follow.
            (live @ State::Live { .. }, _) => live,
            _ => State::Failed,
        };
        change
    }

    /// Turns drafts into live queues; `None` if one that is ready does not lie in guest memory. Those the driver has
    /// no use for stay out (virtio 1.3, section 4.2.3.2: only queues in use are made ready).
    fn activate(&self, features: u64, drafts: &[QueueDraft]) -> Option<Queues> {
        drafts
            .iter()
            .zip(&self.offer.queue_sizes)
            .zip(&self.doorbells)
            .zip(0u16..)
            .map(|(((draft, size_max), doorbell), index)| {
                if !draft.ready {
                    return Some(None);
                }
                let mut queue = Queue::new(*size_max).ok()?;
                queue.try_set_size(u16::try_from(draft.size).ok()?).ok()?;
                queue
                    .try_set_desc_table_address(GuestAddress(draft.descriptors))
                    .ok()?;
                queue
                    .try_set_avail_ring_address(GuestAddress(draft.driver))
                    .ok()?;
                queue
                    .try_set_used_ring_address(GuestAddress(draft.device))
                    .ok()?;
                queue.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
                queue.set_ready(true);
                queue.is_valid(&*self.ram).then(|| {
                    let doorbell = Arc::clone(doorbell);
                    let interrupt = self.interrupt.of_queue(index);
                    Some(LiveQueue::new(queue, interrupt, doorbell))
                })
            })
            .collect::<Option<Vec<_>>>()
            .map(Queues::new)
    }
}

const fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn read_draft(draft: &QueueDraft, register: Register) -> u32 {
    match register {
        Register::QueueReady => u32::from(draft.ready),
        Register::QueueDescriptorsLow => draft.descriptors as u32,
        Register::QueueDescriptorsHigh => (draft.descriptors >> 32) as u32,
        Register::QueueDriverLow => draft.driver as u32,
        Register::QueueDriverHigh => (draft.driver >> 32) as u32,
        Register::QueueDeviceLow => draft.device as u32,
        Register::QueueDeviceHigh => (draft.device >> 32) as u32,
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !0xffff_ffff | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
mod tests;
