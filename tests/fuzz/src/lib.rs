//! A driver that does what it is told by random bytes, for the targets that are devices.
//!
//! Queues and data lie in one MiB of guest memory: descriptor table, available and used ring of queue n at
//! n × 0x3000, data from 0x8_0000 on. What a script does not say is zero.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use crn_protocol::devices::{Limits, NewLimits, Rate};
use crn_vmm::devices::rng::Rng;
use crn_vmm::devices::{Context, Device, GuestConnects};
use crn_vmm::memory::Ram;
use crn_vmm::pci::msix::Message;
use crn_vmm::pci::{Vectors, Wiring};
use crn_vmm::poller::{Poller, Readiness};
use crn_vmm::virtio::{Change, DeviceFault, Interrupt, LiveQueue, Negotiator, Offer, Queues};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY: usize = 1 << 20;
const STRIDE: u64 = 0x3000;
const DATA: u64 = 0x8_0000;
const QUEUE_SIZE: u16 = 16;
/// What one input may do, so that none takes long.
const MAX_STEPS: usize = 64;

/// Where a descriptor points.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Address {
    /// Into the data.
    Data(u16),
    /// Into the queues.
    Queues(u16),
    /// Anywhere.
    Wild(u64),
}

impl Address {
    fn value(self) -> u64 {
        match self {
            Self::Data(at) => DATA + u64::from(at),
            Self::Queues(at) => u64::from(at),
            Self::Wild(at) => at,
        }
    }
}

/// How long a buffer is.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Length {
    /// As honest ones are.
    Short(u8),
    /// As large ones are.
    Long(u16),
    /// Anything.
    Wild(u32),
}

/// A descriptor.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Descriptor {
    address: Address,
    length: Length,
    /// VIRTQ_DESC_F_NEXT, _WRITE and _INDIRECT are the low bits.
    flags: u8,
    next: u8,
}

impl Descriptor {
    fn bytes(self) -> [u8; 16] {
        let length = match self.length {
            Length::Short(length) => u32::from(length),
            Length::Long(length) => u32::from(length),
            Length::Wild(length) => length,
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.value().to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&u16::from(self.flags & 7).to_le_bytes());
        bytes[14..].copy_from_slice(&u16::from(self.next % 20).to_le_bytes());
        bytes
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Arbitrary)]
pub enum Step {
    /// A chain is made available and the doorbell rings.
    Offer { queue: u8, head: u8 },
    /// The doorbell rings.
    Ring { queue: u8 },
    /// The driver writes into its data.
    Write { at: u16, bytes: [u8; 16] },
    /// The driver writes into its queues.
    Scribble { at: u16, value: u16 },
    /// A descriptor of the device's own becomes ready.
    Ready { id: u8, flags: u8 },
    /// Time passes.
    Wait { ms: u16 },
    /// The device is limited.
    Limit { rate: u16 },
    /// The device is asked what it has done.
    Count,
    /// The driver goes and another one comes.
    Reset { features: u64 },
}

/// Everything that happens.
#[derive(Debug, Clone, Arbitrary)]
pub struct Script {
    features: u64,
    descriptors: Vec<Descriptor>,
    data: Vec<u8>,
    steps: Vec<Step>,
}

/// What a device is plugged into.
pub struct Rig {
    ram: Ram,
    poller: Poller,
    interrupt: Interrupt,
    doorbell: Arc<EventFd>,
    guest_connects: GuestConnects,
    now: Instant,
}

impl Default for Rig {
    fn default() -> Self {
        Self {
            ram: Ram::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("a MiB of memory"),
            poller: Poller::new().expect("a poller"),
            interrupt: Interrupt::new().expect("an interrupt"),
            doorbell: Arc::new(EventFd::new(EFD_NONBLOCK).expect("a doorbell")),
            guest_connects: GuestConnects::default(),
            now: Instant::now(),
        }
    }
}

impl Rig {
    /// Guest memory.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// What a device may use while it is called.
    pub fn context(&mut self) -> Context<'_> {
        Context {
            ram: &self.ram,
            poller: &self.poller,
            interrupt: &self.interrupt,
            index: 0,
            guest_connects: &mut self.guest_connects,
        }
    }

    /// The queue of this index, as the driver has set it up.
    #[must_use]
    pub fn queue(&self, index: u8, event_idx: bool) -> LiveQueue {
        let base = u64::from(index) * STRIDE;
        let mut queue = Queue::new(QUEUE_SIZE).expect("a size that is a power of two");
        queue
            .try_set_desc_table_address(GuestAddress(base))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(base + 0x1000)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(base + 0x2000)))
            .expect("aligned addresses");
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        LiveQueue::new(queue, self.interrupt.clone(), Arc::clone(&self.doorbell))
    }

    /// Writes the script's memory: the same descriptors for every queue.
    pub fn prepare(&self, script: &Script, queues: u8) {
        let data = &script.data[..script.data.len().min(0x1_0000)];
        self.ram
            .write_slice(data, GuestAddress(DATA))
            .expect("within memory");
        for queue in 0..queues {
            for (at, descriptor) in (0..u64::from(QUEUE_SIZE)).zip(&script.descriptors) {
                let address = GuestAddress(u64::from(queue) * STRIDE + at * 16);
                self.ram
                    .write_slice(&descriptor.bytes(), address)
                    .expect("within memory");
            }
        }
    }

    /// Makes a chain available in a queue.
    pub fn offer(&self, queue: u8, head: u8) {
        let ring = u64::from(queue) * STRIDE + 0x1000;
        let index: u16 = self.ram.read_obj(GuestAddress(ring + 2)).unwrap_or(0);
        let slot = ring + 4 + u64::from(index % QUEUE_SIZE) * 2;
        let head = u16::from(head % 20);
        self.ram
            .write_obj(head, GuestAddress(slot))
            .and_then(|()| {
                self.ram
                    .write_obj(index.wrapping_add(1), GuestAddress(ring + 2))
            })
            .expect("within memory");
    }

    /// The driver writes into memory of its own.
    pub fn write(&self, step: &Step) {
        let written = match step {
            Step::Write { at, bytes } => self
                .ram
                .write_slice(bytes, GuestAddress(DATA + u64::from(*at))),
            Step::Scribble { at, value } => {
                self.ram.write_obj(*value, GuestAddress(u64::from(*at)))
            }
            _ => Ok(()),
        };
        written.expect("within memory");
    }
}

/// Plays a script with a device that has so many queues and offers these features.
pub fn play(device: &mut dyn Device, rig: &mut Rig, script: &Script, queues: u8, offered: u64) {
    const EVENT_IDX: u64 = 1 << 29;
    rig.prepare(script, queues);
    device
        .start(&mut rig.context())
        .expect("a device that starts");
    let mut faulted = activate(device, rig, queues, script.features & offered).is_err();
    for step in script.steps.iter().take(MAX_STEPS) {
        rig.write(step);
        let result = match step {
            // As the event loop does: a device that has broken down is left alone until it is reset.
            Step::Reset { features } => {
                device.reset();
                faulted = false;
                activate(device, rig, queues, features & offered & !EVENT_IDX)
            }
            _ if faulted => Ok(()),
            Step::Offer { queue, head } => {
                let queue = queue % queues;
                rig.offer(queue, *head);
                device.queue_ready(queue.into(), &mut rig.context())
            }
            Step::Ring { queue } => {
                device.queue_ready(usize::from(queue % queues), &mut rig.context())
            }
            Step::Ready { id, flags } => {
                let ready = Readiness {
                    readable: flags & 1 != 0,
                    writable: flags & 2 != 0,
                    hang_up: flags & 4 != 0,
                };
                device.io_ready((*id).into(), ready, &mut rig.context())
            }
            Step::Wait { ms } => {
                rig.now += Duration::from_millis((*ms).into());
                match device.deadline() {
                    Some(deadline) if deadline <= rig.now => {
                        let now = rig.now;
                        device.deadline_passed(now, &mut rig.context())
                    }
                    _ => Ok(()),
                }
            }
            Step::Limit { rate } => {
                let rate = Rate {
                    per_second: u64::from(*rate) + 1,
                    burst: u64::from(*rate) + 1,
                };
                let limits = Limits {
                    bytes: Some(rate),
                    operations: Some(rate),
                };
                let limits = NewLimits::Transfer(limits);
                device.set_limits(&limits, &mut rig.context()).map(|_| ())
            }
            Step::Count => {
                let refreshed = device.refresh(&mut rig.context());
                let _ = device.counters();
                refreshed
            }
            Step::Write { .. } | Step::Scribble { .. } => Ok(()),
        };
        if result.is_err() {
            faulted = true;
            device.reset();
        }
        while rig.guest_connects.pop().is_some() {}
    }
    let _ = device.flush();
}

fn activate(
    device: &mut dyn Device,
    rig: &mut Rig,
    queues: u8,
    features: u64,
) -> Result<(), DeviceFault> {
    let live = (0..queues).map(|index| rig.queue(index, features & 1 << 29 != 0));
    let live: Queues = live.collect::<Vec<_>>().into();
    let result = device.activate(features, live, &mut rig.context());
    if result.is_err() {
        device.reset();
    }
    result
}

impl Script {
    /// What happens, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }
}

/// An entropy source behind registers.
pub struct Behind {
    device: Rng,
    offer: Offer,
    interrupt: Interrupt,
    doorbells: Vec<Arc<EventFd>>,
}

impl Behind {
    /// Its driver is told by messages if there are vectors.
    #[must_use]
    pub fn new(rig: &Rig, vectors: Option<&Arc<Vectors>>) -> Self {
        let (device, offer) = Rng::new(&Limits::default());
        Self {
            device,
            offer,
            interrupt: vectors.map_or_else(
                || rig.interrupt.clone(),
                |vectors| Interrupt::messages(Arc::clone(vectors), 1),
            ),
            doorbells: vec![Arc::clone(&rig.doorbell)],
        }
    }

    /// What its registers are decoded into.
    #[must_use]
    pub fn negotiator(&self, rig: &Rig) -> Negotiator {
        Negotiator::new(
            self.offer.clone(),
            self.interrupt.clone(),
            self.doorbells.clone(),
            Arc::new(rig.ram.clone()),
        )
    }

    /// One for each queue.
    #[must_use]
    pub fn doorbells(&self) -> Vec<Arc<EventFd>> {
        self.doorbells.clone()
    }

    /// Does what the registers say.
    pub fn change(&mut self, change: Change, rig: &mut Rig) {
        match change {
            Change::Activate { features, queues } => {
                let result = self.device.activate(features, queues, &mut rig.context());
                let rung = self.device.queue_ready(0, &mut rig.context());
                if result.and(rung).is_err() {
                    self.device.reset();
                    self.interrupt.needs_reset();
                }
            }
            Change::Reset => {
                self.device.reset();
                self.interrupt.reset();
            }
        }
    }
}

/// Interrupts and doorbells that lead nowhere.
#[derive(Debug)]
pub struct Nowhere;

impl Wiring for Nowhere {
    fn route(&self, _gsi: u32, _message: Message) -> io::Result<()> {
        Ok(())
    }

    fn connect_line(&self, _line: &EventFd, _gsi: u32) -> io::Result<()> {
        Ok(())
    }

    fn disconnect_line(&self, _line: &EventFd, _gsi: u32) {}

    fn connect_doorbell(&self, _doorbell: &EventFd, _address: u64) -> io::Result<()> {
        Ok(())
    }

    fn disconnect_doorbell(&self, _doorbell: &EventFd, _address: u64) {}
}
