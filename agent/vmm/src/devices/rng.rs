//! virtio-rng: entropy from the host's getrandom(2).

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::{COMMON_FEATURES, Context, Device};
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Queues};

/// Bytes given to one request at most, however much the driver asks for.
const MAX_REQUEST: usize = 64 * 1024;

/// The device.
#[derive(Debug, Default)]
pub struct Rng {
    queue: Option<LiveQueue>,
}

impl Rng {
    /// The device and what it offers.
    #[must_use]
    pub fn new() -> (Self, Offer) {
        let offer = Offer {
            device_id: VIRTIO_ID_RNG,
            features: COMMON_FEATURES,
            queue_sizes: vec![64],
            config: Vec::new().into(),
        };
        (Self::default(), offer)
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
        self.queue_ready(0, context)
    }

    fn reset(&mut self) {
        self.queue = None;
    }

    fn queue_ready(&mut self, _queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        let Some(queue) = &mut self.queue else {
            return Ok(());
        };
        queue.drain(context.ram, |chain| {
            let Ok(mut request) = Buffers::of(chain, context.ram) else {
                return Ok(0);
            };
            let mut left = request.writable.len().min(MAX_REQUEST);
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
            Ok(written as u32)
        })
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
        let (mut rng, _) = Rng::new();
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
}
