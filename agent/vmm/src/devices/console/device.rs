//! virtio-console (virtio 1.3, section 5.3) with its one port: hvc0.

use std::io::{self, Write};

use crn_protocol::devices::{ConsoleCounters, DeviceCounters};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::{ConsoleEnd, Port};
use crate::devices::{COMMON_FEATURES, Context, Device, progress_of};
use crate::fd::of_event;
use crate::memory::Ram;
use crate::poller::Readiness;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues};

const RX: usize = 0;
const TX: usize = 1;
/// Bytes of one chain that are printed; what is beyond is lost. Linux sends a page at most. A part of the ring: one chain
/// does not push out what was printed just before it.
const MAX_OUTPUT: usize = super::ring::CAPACITY / 4;

#[derive(Debug)]
struct Live {
    rx: LiveQueue,
    tx: LiveQueue,
}

/// The device.
#[derive(Debug)]
pub struct VirtioConsole {
    end: ConsoleEnd,
    live: Option<Live>,
    counters: ConsoleCounters,
}

impl VirtioConsole {
    /// A second console beside the one `end` belongs to; also returns what it offers.
    #[must_use]
    pub fn new(end: &ConsoleEnd) -> (Self, Offer) {
        let offer = Offer {
            device_id: VIRTIO_ID_CONSOLE,
            features: COMMON_FEATURES,
            queue_sizes: vec![64, 64],
            // struct virtio_console_config: no size, no ports, no emergency write.
            config: vec![0; 12].into(),
        };
        let console = Self {
            end: end.of_port(Port::Virtio),
            live: None,
            counters: ConsoleCounters::default(),
        };
        (console, offer)
    }

    fn print(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let (end, counters) = (&mut self.end, &mut self.counters);
        live.tx.drain(ram, |chain| {
            if let Ok(mut buffers) = Buffers::of(chain, ram) {
                let mut bytes = vec![0; buffers.readable.len().min(MAX_OUTPUT)];
                let count = buffers.readable.read(&mut bytes);
                counters.output_bytes += count as u64;
                if count > 0 {
                    end.write_all(&bytes[..count])?;
                }
            }
            Ok(0)
        })
    }

    /// Gives the guest what has been typed, as far as it has buffers: it rings when it adds some.
    fn type_in(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let (end, counters) = (&self.end, &mut self.counters);
        while let Some(chain) = live.rx.pop(ram)? {
            let head = chain.head_index();
            let mut space = Buffers::of(chain, ram).unwrap_or_default().writable;
            if space.is_empty() {
                live.rx.push_used(ram, head, 0)?;
                continue;
            }
            let count = end.read(|typed| space.write(typed));
            if count == 0 {
                live.rx.rewind(1);
                break;
            }
            counters.input_bytes += count as u64;
            live.rx.push_used(ram, head, count as u32)?;
        }
        live.rx.signal(ram)
    }
}

impl Device for VirtioConsole {
    fn start(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        context
            .poller
            .add_readable(of_event(self.end.virtio_input()), context.token(0))
    }

    fn activate(
        &mut self,
        _features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.live = Some(Live {
            rx: queues.require(RX)?,
            tx: queues.require(TX)?,
        });
        self.print(context.ram)?;
        self.type_in(context.ram)
    }

    fn reset(&mut self) {
        self.live = None;
    }

    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        match queue {
            RX => self.type_in(context.ram),
            TX => self.print(context.ram),
            _ => Ok(()),
        }
    }

    fn io_ready(
        &mut self,
        _id: u32,
        _ready: Readiness,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        let _ = self.end.virtio_input().read();
        self.type_in(context.ram)
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        let live = self.live.as_ref();
        progress_of([
            (RX, live.map(|live| &live.rx)),
            (TX, live.map(|live| &live.tx)),
        ])
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Console(self.counters)
    }
}
