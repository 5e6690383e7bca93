//! virtio-balloon (virtio 1.3, section 5.5): memory the guest gives back, asked for or on its own account.
//!
//! Inflating takes named pages away from the guest, which leaves them alone until it deflates; free page reporting
//! tells of pages nobody uses at the moment. Either way the host's memory behind them is freed at once, and comes back
//! as zeros with the guest's next write. What a guest names is only ever whole pages of its own memory: the worst a
//! hostile one can do is to clear them.

mod statistics;

use std::time::{Duration, Instant};

use crn_protocol::devices::{BalloonCounters, DeviceCounters};
use vm_memory::GuestAddress;

use super::{COMMON_FEATURES, Context, Device, progress_of};
use crate::memory::Ram;
use crate::memory::reclaim::{PAGE, take_back};
use crate::virtio::{
    Buffers, Chain, ConfigSpace, DeviceFault, LiveQueue, Offer, Progress, Queues, Segments,
};

/// Device type (virtio 1.3, section 5).
const DEVICE_ID: u32 = 5;
/// Feature bits (section 5.5.3).
const F_STATS_VQ: u32 = 1;
const F_DEFLATE_ON_OOM: u32 = 2;
const F_PAGE_REPORTING: u32 = 5;
/// Offsets in struct virtio_balloon_config: what the host wants and what the guest has given, in pages.
const NUM_PAGES: usize = 0;
const ACTUAL: usize = 4;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const QUEUE_SIZE: u16 = 128;
/// Pages in a MiB.
const PAGES_PER_MIB: u32 = 256;
/// Page numbers of one request that are looked at; Linux sends 256.
const MAX_PAGES: usize = 4096;
/// Statistics younger than this are not asked for again.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Live {
    inflate: LiveQueue,
    deflate: LiveQueue,
    statistics: Option<LiveQueue>,
    reporting: Option<LiveQueue>,
    /// Where the last two are: a driver numbers the queues of the features it took without gaps.
    statistics_index: usize,
    reporting_index: usize,
    /// The chain the driver gets back when new statistics are wanted.
    held: Option<u16>,
    asked: Option<Instant>,
}

/// The device.
#[derive(Debug)]
pub struct Balloon {
    config: ConfigSpace,
    live: Option<Live>,
    /// The chain that the one held of which this is a copy, until it is activated.
    held_before: Option<u16>,
    counters: BalloonCounters,
}

impl Balloon {
    /// The device, with so many MiB asked for from the start, and what it offers.
    #[must_use]
    pub fn new(target_mib: u32) -> (Self, Offer) {
        let mut bytes = vec![0; 8];
        bytes[..4].copy_from_slice(&pages(target_mib).to_le_bytes());
        let config = ConfigSpace::new(bytes, std::iter::once(ACTUAL..ACTUAL + 4).collect());
        let features = [F_STATS_VQ, F_DEFLATE_ON_OOM, F_PAGE_REPORTING]
            .iter()
            .fold(COMMON_FEATURES, |features, bit| features | 1 << bit);
        let offer = Offer {
            device_id: DEVICE_ID,
            features,
            queue_sizes: vec![QUEUE_SIZE; 4],
            config: config.clone(),
        };
        let balloon = Self {
            config,
            live: None,
            held_before: None,
            counters: BalloonCounters::default(),
        };
        (balloon, offer)
    }

    fn inflate(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let (Some(live), counters) = (&mut self.live, &mut self.counters) else {
            return Ok(());
        };
        live.inflate.drain(ram, |chain| {
            if let Ok(mut buffers) = Buffers::of(chain, ram) {
                for (first, count) in runs(&mut buffers.readable) {
                    let start = GuestAddress(u64::from(first) * PAGE);
                    let length = count * PAGE;
                    counters.inflated_bytes += taken(ram, start, length, counters);
                }
            }
            Ok(0)
        })
    }

    fn deflate(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let (Some(live), counters) = (&mut self.live, &mut self.counters) else {
            return Ok(());
        };
        live.deflate.drain(ram, |chain| {
            // The guest may use its pages again without a word from the host: they come back when it touches them.
            if let Ok(buffers) = Buffers::of(chain, ram) {
                let count = (buffers.readable.len() / 4).min(MAX_PAGES);
                counters.deflated_bytes += count as u64 * PAGE;
            }
            Ok(0)
        })
    }

    fn report(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let (Some(live), counters) = (&mut self.live, &mut self.counters) else {
            return Ok(());
        };
        let Some(queue) = &mut live.reporting else {
            return Ok(());
        };
        queue.drain(ram, |chain| {
            for (start, length) in reported(chain) {
                counters.reported_bytes += taken(ram, start, length, counters);
            }
            Ok(0)
        })
    }

    /// Takes new statistics, and keeps the last chain until more are wanted.
    fn statistics(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let Some(queue) = &mut live.statistics else {
            return Ok(());
        };
        let mut extra = false;
        while let Some(chain) = queue.pop(ram)? {
            let head = chain.head_index();
            if let Ok(mut buffers) = Buffers::of(chain, ram) {
                let before = self.counters.guest.unwrap_or_default();
                self.counters.guest = Some(statistics::parse(&mut buffers.readable, before));
            }
            // There is one buffer by the book; a driver with more gets the older ones back.
            if let Some(older) = live.held.replace(head) {
                queue.push_used(ram, older, 0)?;
                extra = true;
            }
        }
        if extra {
            queue.signal(ram)?;
        }
        Ok(())
    }
}

const fn pages(mib: u32) -> u32 {
    mib.saturating_mul(PAGES_PER_MIB)
}

/// Takes a range back; how much of it, the rest noted.
fn taken(ram: &Ram, start: GuestAddress, length: u64, counters: &mut BalloonCounters) -> u64 {
    let bytes = take_back(ram, start, length).unwrap_or_else(|error| {
        tracing::debug!(%error, "the host does not take memory back");
        0
    });
    counters.refused += u64::from(bytes < length);
    bytes
}

/// The page numbers of a request as ascending runs: first page and how many.
fn runs(numbers: &mut Segments<'_>) -> Vec<(u32, u64)> {
    let mut bytes = vec![0; numbers.len().min(MAX_PAGES * 4)];
    let length = numbers.read(&mut bytes);
    let mut pages: Vec<u32> = bytes[..length]
        .chunks_exact(4)
        .map(|page| {
            page.iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        })
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let mut runs: Vec<(u32, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((first, count)) if u64::from(*first) + *count == u64::from(page) => *count += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs
}

/// The ranges a chain of free pages names (section 5.5.6.7): its buffers are the pages.
fn reported(chain: Chain<'_>) -> impl Iterator<Item = (GuestAddress, u64)> {
    chain
        .filter(|descriptor| descriptor.is_write_only())
        .map(|descriptor| (descriptor.addr(), u64::from(descriptor.len())))
}

impl Device for Balloon {
    fn activate(
        &mut self,
        features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        let agreed = |bit: u32| features & 1 << bit != 0;
        let statistics_index = DEFLATE + 1;
        let reporting_index = statistics_index + usize::from(agreed(F_STATS_VQ));
        let statistics = agreed(F_STATS_VQ)
            .then(|| queues.take(statistics_index))
            .flatten();
        let reporting = agreed(F_PAGE_REPORTING)
            .then(|| queues.take(reporting_index))
            .flatten();
        self.live = Some(Live {
            inflate: queues.require(INFLATE)?,
            deflate: queues.require(DEFLATE)?,
            statistics,
            reporting,
            statistics_index,
            reporting_index,
            held: self.held_before.take(),
            asked: None,
        });
        self.inflate(context.ram)?;
        self.deflate(context.ram)?;
        self.statistics(context.ram)?;
        self.report(context.ram)
    }

    fn reset(&mut self) {
        self.live = None;
        self.counters.guest = None;
        // Without a driver nothing is given back; the next one starts from nothing.
        let _ = self.config.update(ACTUAL, &[0; 4]);
    }

    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        match queue {
            INFLATE => self.inflate(context.ram),
            DEFLATE => self.deflate(context.ram),
            index if index == live.statistics_index && live.statistics.is_some() => {
                self.statistics(context.ram)
            }
            index if index == live.reporting_index => self.report(context.ram),
            _ => Ok(()),
        }
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        progress_of([
            (INFLATE, Some(&live.inflate)),
            (DEFLATE, Some(&live.deflate)),
            (live.statistics_index, live.statistics.as_ref()),
            (live.reporting_index, live.reporting.as_ref()),
        ])
    }

    /// The chain held, if one is.
    fn save(&self) -> Vec<u64> {
        let held = self.live.as_ref().and_then(|live| live.held);
        held.into_iter().map(u64::from).collect()
    }

    fn restore(&mut self, saved: &[u64]) {
        self.held_before = saved.first().and_then(|held| u16::try_from(*held).ok());
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Balloon(BalloonCounters {
            target_mib: self.config.le32(NUM_PAGES) / PAGES_PER_MIB,
            actual_mib: self.config.le32(ACTUAL) / PAGES_PER_MIB,
            ..self.counters
        })
    }

    fn refresh(&mut self, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        let now = Instant::now();
        if let Some(live) = &mut self.live
            && live.asked.is_none_or(|asked| asked + FRESH <= now)
            && let Some(queue) = &mut live.statistics
            && let Some(head) = live.held.take()
        {
            live.asked = Some(now);
            queue.push_used(context.ram, head, 0)?;
            queue.signal(context.ram)?;
        }
        Ok(())
    }

    fn set_balloon(&mut self, target_mib: u32, context: &mut Context<'_>) -> bool {
        let changed = self
            .config
            .update(NUM_PAGES, &pages(target_mib).to_le_bytes());
        if changed && self.live.is_some() {
            context.interrupt.config_changed();
        }
        true
    }
}

#[cfg(test)]
mod tests;
