//! epoll, edge-triggered, with a token that says whose descriptor became ready.
//!
//! Edge-triggered readiness is remembered by its owner until a call returns `EAGAIN`: nothing has to be armed again
//! and a descriptor nobody can serve for the moment costs nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Whose descriptor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The listening control socket.
    Listener,
    /// The controller's connection of this generation.
    Controller(u32),
    /// SIGTERM or SIGINT arrived.
    Signal,
    /// vCPU threads have something to say.
    Vcpus,
    /// The console has output.
    Console,
    /// A stream attached to the console.
    ConsoleStream(u32),
    /// A guest rang the doorbell of a device's queue.
    Queue {
        /// Index of the device.
        device: u8,
        /// Index of its queue.
        queue: u8,
    },
    /// A descriptor of a device's own.
    Device {
        /// Index of the device.
        device: u8,
        /// Chosen by the device.
        id: u32,
    },
}

impl Token {
    const fn pack(self) -> u64 {
        match self {
            Self::Listener => 0,
            Self::Controller(generation) => 1 << 56 | generation as u64,
            Self::Signal => 2 << 56,
            Self::Vcpus => 3 << 56,
            Self::Console => 4 << 56,
            Self::ConsoleStream(id) => 7 << 56 | id as u64,
            Self::Queue { device, queue } => 5 << 56 | (device as u64) << 32 | queue as u64,
            Self::Device { device, id } => 6 << 56 | (device as u64) << 32 | id as u64,
        }
    }

    const fn unpack(bits: u64) -> Self {
        let device = (bits >> 32) as u8;
        let low = bits as u32;
        match bits >> 56 {
            0 => Self::Listener,
            1 => Self::Controller(low),
            2 => Self::Signal,
            3 => Self::Vcpus,
            4 => Self::Console,
            5 => Self::Queue {
                device,
                queue: low as u8,
            },
            7 => Self::ConsoleStream(low),
            _ => Self::Device { device, id: low },
        }
    }
}

/// What a descriptor became ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Reading will not block (end of stream and errors included).
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// The other side is gone for good.
    pub hang_up: bool,
}

/// The process's one epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Creates it.
    ///
    /// # Errors
    /// epoll_create1(2)'s.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches a descriptor for reading and writing, edge-triggered, until it is closed.
    ///
    /// # Errors
    /// epoll_ctl(2)'s; EPERM for descriptors that cannot be polled.
    pub fn add(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    /// Watches a descriptor for reading only, edge-triggered: for event counters and listening sockets.
    ///
    /// # Errors
    /// As [`Poller::add`].
    pub fn add_readable(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    /// Waits for readiness, at most `timeout`.
    ///
    /// # Errors
    /// epoll_wait(2)'s, EINTR excepted.
    pub fn wait(
        &self,
        ready: &mut Vec<(Token, Readiness)>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        ready.clear();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let flags = event.flags;
            let gone = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            let readiness = Readiness {
                readable: gone
                    || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                writable: gone || flags.contains(epoll::EventFlags::OUT),
                hang_up: gone,
            };
            ready.push((Token::unpack(event.data.u64()), readiness));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Controller(7),
            Token::Signal,
            Token::Vcpus,
            Token::Console,
            Token::ConsoleStream(9),
            Token::Queue {
                device: 17,
                queue: 2,
            },
            Token::Device {
                device: 255,
                id: u32::MAX,
            },
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
