//! virtio-blk over a raw image, with as many queues as there are vCPUs.
//!
//! A chain is parsed once into a [`request`] of [`engine`] steps, which then belong to the device: in flight under
//! keys of its own ([`slab`]), never under the guest's descriptor heads. Whatever is in flight is waited for before a
//! reset is over and before guest memory goes away.

mod disk;
mod engine;
mod request;
mod slab;
#[allow(
    unsafe_code,
    reason = "io_uring entries point to memory the kernel works on"
)]
mod uring;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crn_protocol::devices::{DeviceCounters, DiskCounters, Engine as Wanted, Limits, NewLimits};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

pub use disk::ID_LENGTH;

use self::disk::{Disk, QUEUE_SIZE};
use self::engine::{Engine, Finished, MAX_IN_FLIGHT, Outcome, Step};
use self::request::{Kind, Parsed, Refused, Work, parse};
use self::slab::Slab;
use super::limiter::Flow;
use super::{Context, Device, progress_of};
use crate::memory::Ram;
use crate::memory::pieces::Pieces;
use crate::poller::Readiness;
use crate::virtio::queue::BUDGET;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues};

/// Queues of one disk at most; more vCPUs share them.
const MAX_QUEUES: u16 = 16;
/// Requests handled in one go where each of them blocks: the machine's other devices wait meanwhile.
const BLOCKING_BUDGET: usize = 16;

/// A queue and what is known about it.
#[derive(Debug)]
struct Lane {
    queue: LiveQueue,
    /// The device has not yet seen its end, and comes back to it by itself.
    pending: bool,
    /// Chains were returned that the driver has not been told of.
    returned: bool,
    /// Heads in flight: a driver that offers one of them again has lost its way.
    heads: Vec<u16>,
}

/// A request in flight.
#[derive(Debug)]
struct Request {
    lane: usize,
    head: u16,
    status: Pieces,
    room: usize,
    filled: usize,
    kind: Kind,
    bytes: u64,
    /// What follows the step in flight.
    steps: VecDeque<Step>,
    /// Writes finished when the flush among its steps began.
    written: u64,
}

/// The device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    engine: Engine,
    flow: Flow,
    lanes: Vec<Option<Lane>>,
    /// Guest memory, while there is a driver.
    ram: Option<Arc<Ram>>,
    requests: Slab<Request>,
    /// Without an agreed flush, every write is made durable before it is answered.
    write_through: bool,
    /// Writes finished so far, and how many of them a flush has covered.
    written: u64,
    flushed: u64,
    /// A flush has failed: what was written before it may be lost, and no later flush can promise otherwise.
    lossy: bool,
    counters: DiskCounters,
}

impl Block {
    /// A disk over a regular file or block device; also returns what it offers. `id` beyond [`ID_LENGTH`] is cut.
    ///
    /// # Errors
    /// When the descriptor does not fit or the wanted engine is not to be had.
    pub fn new(
        file: OwnedFd,
        read_only: bool,
        id: &str,
        queues: u16,
        engine: Wanted,
        limits: &Limits,
    ) -> io::Result<(Self, Offer)> {
        let (disk, file) = Disk::new(file, read_only, id)?;
        let queues = queues.clamp(1, MAX_QUEUES);
        let offer = Offer {
            device_id: VIRTIO_ID_BLOCK,
            features: disk.features(queues),
            queue_sizes: vec![QUEUE_SIZE; usize::from(queues)],
            config: disk.config(queues).into(),
        };
        let engine = Engine::new(file, engine)?;
        let counters = DiskCounters {
            io_uring: engine.is_uring(),
            ..DiskCounters::default()
        };
        let block = Self {
            disk,
            engine,
            flow: Flow::new(limits, Instant::now()),
            lanes: Vec::new(),
            ram: None,
            requests: Slab::new(MAX_IN_FLIGHT),
            write_through: true,
            written: 0,
            flushed: 0,
            lossy: false,
            counters,
        };
        Ok((block, offer))
    }

    /// Takes requests, begins them, and answers those that are finished, until there is nothing to do but wait.
    fn pump(&mut self, now: Instant) -> Result<(), DeviceFault> {
        let Some(ram) = self.ram.clone() else {
            return Ok(());
        };
        let mut budget = if self.engine.is_uring() {
            BUDGET
        } else {
            BLOCKING_BUDGET
        };
        loop {
            for lane in 0..self.lanes.len() {
                self.fetch(lane, &ram, &mut budget, now)?;
            }
            self.engine.submit()?;
            let mut progress = false;
            while let Some(finished) = self.engine.finished() {
                progress = true;
                self.step_finished(finished, &ram)?;
            }
            if !progress {
                break;
            }
        }
        for lane in self.lanes.iter_mut().flatten() {
            if lane.pending && budget == 0 {
                lane.queue.ring_again();
            }
        }
        self.tell(&ram)
    }

    /// Tells the driver of the chains it has got back.
    fn tell(&mut self, ram: &Ram) -> Result<(), DeviceFault> {
        for lane in self.lanes.iter_mut().flatten() {
            if std::mem::take(&mut lane.returned) {
                lane.queue.signal(ram)?;
            }
        }
        Ok(())
    }

    /// Takes requests from one queue, as far as the bounds allow.
    fn fetch(
        &mut self,
        index: usize,
        ram: &Arc<Ram>,
        budget: &mut usize,
        now: Instant,
    ) -> Result<(), DeviceFault> {
        while *budget > 0 && !self.requests.is_full() && !self.flow.wait.is_early(now) {
            let Some(Some(lane)) = self.lanes.get_mut(index) else {
                return Ok(());
            };
            if !lane.pending {
                return Ok(());
            }
            lane.queue.mute(ram)?;
            let Some(chain) = lane.queue.pop(ram)? else {
                lane.pending = lane.queue.unmute(ram)?;
                continue;
            };
            *budget -= 1;
            let head = chain.head_index();
            if lane.heads.contains(&head) {
                return Err(DeviceFault::HeadInFlight(head));
            }
            let parsed = Buffers::of(chain, ram)
                .ok()
                .and_then(|buffers| parse(buffers, &self.disk, ram));
            // A chain without a place for its status cannot be answered.
            let Some(parsed) = parsed else {
                lane.queue.push_used(ram, head, 0)?;
                lane.returned = true;
                continue;
            };
            let transfer = parsed.work.as_ref().map_or(0, Work::transfer);
            let throttled = &mut self.counters.throttled;
            if !self.flow.admits(transfer, now, throttled) {
                lane.queue.rewind(1);
                return Ok(());
            }
            self.begin(index, head, parsed, ram)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        lane: usize,
        head: u16,
        parsed: Parsed,
        ram: &Arc<Ram>,
    ) -> Result<(), DeviceFault> {
        let Parsed { status, room, work } = parsed;
        let mut request = Request {
            lane,
            head,
            status,
            room,
            filled: 0,
            kind: Kind::Identity,
            bytes: 0,
            steps: VecDeque::new(),
            written: self.written,
        };
        let refused = match work {
            Ok(work) => {
                request.kind = work.kind;
                request.bytes = work.bytes;
                request.filled = work.filled;
                request.steps = work.steps;
                None
            }
            Err(refused) => Some(refused),
        };
        if request.kind == Kind::Flush {
            if self.lossy {
                return self.answer(&request, Err(Refused::Io), ram);
            }
            if self.flushed == self.written {
                request.steps.clear();
            }
        } else if self.write_through && matches!(request.kind, Kind::Write | Kind::Discard) {
            request.steps.push_back(Step::Sync);
        }
        match (refused, request.steps.pop_front()) {
            (Some(refused), _) => self.answer(&request, Err(refused), ram),
            (None, None) => self.answer(&request, Ok(()), ram),
            (None, Some(step)) => {
                if let Some(Some(lane)) = self.lanes.get_mut(lane) {
                    lane.heads.push(head);
                }
                let key = self
                    .requests
                    .insert(request)
                    .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
                Ok(self.engine.start(key, step)?)
            }
        }
    }

    fn step_finished(&mut self, finished: Finished, ram: &Arc<Ram>) -> Result<(), DeviceFault> {
        let (key, step, result) = finished;
        let was_sync = matches!(step, Step::Sync);
        let outcome = step.proceed(result);
        let Some(request) = self.requests.get_mut(key) else {
            return Ok(());
        };
        let result = match outcome {
            Outcome::Again(step) => return Ok(self.engine.start(key, step)?),
            Outcome::Done => {
                if was_sync {
                    self.flushed = self.flushed.max(request.written);
                }
                if let Some(step) = request.steps.pop_front() {
                    if matches!(step, Step::Sync) {
                        // The write before it is finished and covered by it.
                        self.written += 1;
                        request.written = self.written;
                    }
                    return Ok(self.engine.start(key, step)?);
                }
                Ok(())
            }
            Outcome::Failed(error) => {
                tracing::debug!(%error, "a disk request fails");
                self.lossy |= was_sync;
                Err(Refused::Io)
            }
        };
        let Some(request) = self.requests.remove(key) else {
            return Ok(());
        };
        if matches!(request.kind, Kind::Write | Kind::Discard) {
            // Also when it failed: some of it may have been written.
            self.written += u64::from(!was_sync);
        }
        if let Some(Some(lane)) = self.lanes.get_mut(request.lane) {
            lane.heads.retain(|head| *head != request.head);
        }
        self.answer(&request, result, ram)
    }

    fn answer(
        &mut self,
        request: &Request,
        result: Result<(), Refused>,
        ram: &Ram,
    ) -> Result<(), DeviceFault> {
        let counters = &mut self.counters;
        match request.kind {
            Kind::Read => counters.reads += 1,
            Kind::Write => counters.writes += 1,
            Kind::Flush => counters.flushes += 1,
            Kind::Discard => counters.discards += 1,
            Kind::Identity => {}
        }
        let (code, written) = match result {
            Ok(()) => {
                match request.kind {
                    Kind::Read => counters.read_bytes += request.bytes,
                    Kind::Write => counters.written_bytes += request.bytes,
                    Kind::Discard => counters.discarded_bytes += request.bytes,
                    Kind::Flush | Kind::Identity => {}
                }
                (VIRTIO_BLK_S_OK, request.filled)
            }
            Err(refused) => {
                counters.errors += 1;
                let code = match refused {
                    Refused::Io => VIRTIO_BLK_S_IOERR,
                    Refused::Unsupported => VIRTIO_BLK_S_UNSUPP,
                };
                (code, request.room)
            }
        };
        request.status.write(&[code as u8]);
        if let Some(Some(lane)) = self.lanes.get_mut(request.lane) {
            let length = u32::try_from(written + 1).unwrap_or(u32::MAX);
            lane.queue.push_used(ram, request.head, length)?;
            lane.returned = true;
        }
        Ok(())
    }

    /// Waits for what is in flight. Requests are not answered: their driver is gone.
    fn abandon(&mut self) {
        while let Some((key, step, result)) = self.engine.wait() {
            // Whatever is still to do for the request stays undone; only what the file may hold is noted.
            if matches!(step, Step::Sync) {
                self.lossy |= result.is_err();
            } else {
                self.written += 1;
            }
            let _ = self.requests.remove(key);
        }
        self.requests = Slab::new(MAX_IN_FLIGHT);
    }
}

impl Device for Block {
    fn start(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.engine.event() {
            Some(event) => context.poller.add_readable(event, context.token(0)),
            None => Ok(()),
        }
    }

    fn activate(
        &mut self,
        features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        self.ram = Some(Arc::new(context.ram.clone()));
        let lane = |queue| Lane {
            queue,
            pending: true,
            returned: false,
            heads: Vec::new(),
        };
        self.lanes = vec![Some(lane(queues.require(0)?))];
        self.lanes
            .extend((1..usize::from(MAX_QUEUES)).map(|index| queues.take(index).map(lane)));
        self.pump(Instant::now())
    }

    fn reset(&mut self) {
        self.abandon();
        self.lanes.clear();
        self.ram = None;
        self.flow.wait.end();
    }

    fn queue_ready(&mut self, queue: usize, _context: &mut Context<'_>) -> Result<(), DeviceFault> {
        if let Some(Some(lane)) = self.lanes.get_mut(queue) {
            lane.pending = true;
        }
        self.pump(Instant::now())
    }

    fn io_ready(
        &mut self,
        _id: u32,
        _ready: Readiness,
        _context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.pump(Instant::now())
    }

    fn deadline(&self) -> Option<Instant> {
        self.flow.wait.until()
    }

    fn deadline_passed(
        &mut self,
        now: Instant,
        _context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.flow.wait.end();
        self.pump(now)
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        let queues = self.lanes.iter().enumerate();
        progress_of(queues.map(|(index, lane)| (index, lane.as_ref().map(|lane| &lane.queue))))
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Disk(self.counters)
    }

    fn set_limits(
        &mut self,
        limits: &NewLimits,
        _context: &mut Context<'_>,
    ) -> Result<bool, DeviceFault> {
        let now = Instant::now();
        let taken = self.flow.set(limits, now);
        self.pump(now)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(ram) = self.ram.clone() {
            while let Some(finished) = self.engine.wait() {
                self.step_finished(finished, &ram)
                    .map_err(io::Error::other)?;
                self.engine.submit()?;
            }
            self.tell(&ram).map_err(io::Error::other)?;
        }
        if self.lossy {
            return Err(io::Error::other("an earlier flush has failed"));
        }
        if self.flushed != self.written {
            self.engine.sync()?;
            self.flushed = self.written;
        }
        Ok(())
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
