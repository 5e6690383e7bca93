//! virtio-rng: entropy from the host's getrandom(2).

use std::time::Instant;

use crn_protocol::devices::{DeviceCounters, Limits, NewLimits, RngCounters};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::limiter::Flow;
use super::{COMMON_FEATURES, Context, Device, progress_of};
use crate::memory::Ram;
use crate::virtio::queue::Served;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues};

/// Bytes given to one request at most, however much the driver asks for.
const MAX_REQUEST: usize = 64 * 1024;

/// The device.
#[derive(Debug)]
pub struct Rng {
    queue: Option<LiveQueue>,
    flow: Flow,
    counters: RngCounters,
}

impl Rng {
    /// The device and what it offers.
    #[must_use]
    pub fn new(limits: &Limits) -> (Self, Offer) {
        let offer = Offer {
            device_id: VIRTIO_ID_RNG,
            features: COMMON_FEATURES,
            queue_sizes: vec![64],
            config: Vec::new().into(),
        };
        let rng = Self {
            queue: None,
            flow: Flow::new(limits, Instant::now()),
            counters: RngCounters::default(),
        };
        (rng, offer)
    }

    fn serve(&mut self, ram: &Ram, now: Instant) -> Result<(), DeviceFault> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        if self.flow.wait.is_early(now) {
            return Ok(());
        }
        self.flow.wait.end();
        let (flow, counters) = (&mut self.flow, &mut self.counters);
        queue.drain_while(ram, |chain| {
            let Ok(mut request) = Buffers::of(chain, ram) else {
                return Ok(Served::Used(0));
            };
            let mut left = request.writable.len().min(MAX_REQUEST);
            if !flow.admits(left as u64, now, &mut counters.throttled) {
                return Ok(Served::Later);
            }
            let mut written = 0;
            let mut bytes = [0; 4096];
            while left > 0 {
                let wanted = left.min(bytes.len());
                let got = rustix::rand::getrandom(
                    &mut bytes[..wanted],
                    rustix::rand::GetRandomFlags::empty(),
                )
                .map_err(std::io::Error::from)?;
                written += request.writable.write(&bytes[..got]);
                left -= got;
            }
            counters.bytes += written as u64;
            Ok(Served::Used(written as u32))
        })
    }
}

impl Device for Rng {
    fn activate(
        &mut self,
        _features: u64,
        mut queues: Queues,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.queue = Some(queues.require(0)?);
        self.serve(context.ram, Instant::now())
    }

    fn reset(&mut self) {
        self.queue = None;
        self.flow.wait.end();
    }

    fn queue_ready(&mut self, _queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        self.serve(context.ram, Instant::now())
    }

    fn deadline(&self) -> Option<Instant> {
        self.flow.wait.until()
    }

    fn deadline_passed(
        &mut self,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        self.serve(context.ram, now)
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        progress_of([(0, self.queue.as_ref())])
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Rng(self.counters)
    }

    fn set_limits(
        &mut self,
        limits: &NewLimits,
        context: &mut Context<'_>,
    ) -> Result<bool, DeviceFault> {
        let now = Instant::now();
        let taken = self.flow.set(limits, now);
        self.serve(context.ram, now)?;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::devices::testing::{Driver, Host, READ, WRITE, ram};

    #[test]
    fn requests_are_filled_up_to_the_cap() {
        let ram = ram();
        let mut driver = Driver::new(&ram, 0);
        driver.offer(&[(0x10_0000, 32, WRITE)]);
        let (mut rng, _) = Rng::new(&Limits::default());
        let mut host = Host::new();
        rng.activate(0, vec![driver.live()].into(), &mut host.context(&ram))
            .unwrap();
        assert_eq!(driver.used(), (1, 0, 32));
        let mut bytes = [0; 32];
        ram.read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
        assert_ne!(bytes, [0; 32]);
        driver.offer(&[(0x10_0000, 1 << 20, WRITE), (0x20_0000, 1 << 20, WRITE)]);
        rng.queue_ready(0, &mut host.context(&ram)).unwrap();
        assert_eq!(driver.used().2, MAX_REQUEST as u32);
        driver.offer(&[(0x10_0000, 32, READ)]);
        driver.offer(&[(u64::MAX, 32, WRITE)]);
        rng.queue_ready(0, &mut host.context(&ram)).unwrap();
        assert_eq!((driver.used().0, driver.used().2), (4, 0));
    }

    #[test]
    fn a_limited_guest_waits_and_a_lifted_limit_lets_it_go_on() {
        use crn_protocol::devices::Rate;

        let ram = ram();
        let limits = Limits {
            bytes: Some(Rate {
                per_second: 1,
                burst: 64,
            }),
            operations: None,
        };
        let mut driver = Driver::new(&ram, 0);
        let (mut rng, _) = Rng::new(&limits);
        let mut host = Host::new();
        for _ in 0..3 {
            driver.offer(&[(0x10_0000, 64, WRITE)]);
        }
        rng.activate(0, vec![driver.live()].into(), &mut host.context(&ram))
            .unwrap();
        assert_eq!(driver.used().0, 1);
        let deadline = rng.deadline().unwrap();
        rng.queue_ready(0, &mut host.context(&ram)).unwrap();
        assert_eq!(driver.used().0, 1, "ringing does not help");
        rng.deadline_passed(deadline, &mut host.context(&ram))
            .unwrap();
        assert_eq!(driver.used().0, 2);
        let lifted = NewLimits::Transfer(Limits::default());
        assert!(rng.set_limits(&lifted, &mut host.context(&ram)).unwrap());
        assert_eq!((driver.used().0, rng.deadline()), (3, None));
        assert_eq!(rng.counters.throttled, 2);
    }
}
