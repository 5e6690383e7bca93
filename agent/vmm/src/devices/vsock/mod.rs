//! virtio-vsock whose host side is UNIX streams.
//!
//! Host → guest: a client connects to the listening socket, writes `CONNECT <port>\n` ([`greeting`]), and reads
//! `OK <port>\n` (its own port) when the guest has accepted. Guest → host (CID 2): one end of a socket pair goes to the controller.

pub mod connection;
mod copied;
mod credit;
mod greeting;
pub mod packet;
mod to_guest;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crn_protocol::devices::{DeviceCounters, VsockCounters};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::connection::{Connection, Stage, Verdict};
use self::copied::Copied;
use self::greeting::{Greeting, Said};
use self::packet::{HOST_CID, Header, Operation, TYPE_STREAM};
use super::{COMMON_FEATURES, Context, Device, progress_of};
use crate::poller::Readiness;
use crate::virtio::buffers::read_array;
use crate::virtio::{Buffers, DeviceFault, LiveQueue, Offer, Progress, Queues};

const RX: usize = 0;
const TX: usize = 1;
const EVENTS: usize = 2;
/// Connections and greetings together; more are refused. Two of them fit under the usual 1024 descriptors.
const MAX_CONNECTIONS: usize = 480;
/// RST packets that wait for the guest to provide buffers; a guest that provokes more loses them.
const MAX_RESETS: usize = 256;
/// A client has to greet, and a guest to answer REQUEST, within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A guest has to answer a full SHUTDOWN within this time, or gets a RST.
const CLOSING: Duration = Duration::from_secs(2);
/// A host has to take what a guest left behind within this time.
const DRAINING: Duration = Duration::from_secs(30);
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Host ports of connections the host asks for, from here up.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// The listening socket's identifier; connections count up from the next.
const LISTENER: u32 = 0;

#[derive(Debug)]
struct Live {
    rx: LiveQueue,
    tx: LiveQueue,
    /// Its one event is for copies of a machine.
    events: Option<LiveQueue>,
}

/// The device.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    listener: UnixListener,
    live: Option<Live>,
    copied: Copied,
    greetings: HashMap<u32, Greeting>,
    connections: HashMap<u32, Connection>,
    /// (guest port, host port) → connection.
    ports: HashMap<(u32, u32), u32>,
    /// Connections that may have something for the guest, each once.
    ready: VecDeque<u32>,
    resets: VecDeque<(u32, u32)>,
    next_id: u32,
    next_host_port: u32,
    sweep: Option<Instant>,
    /// Accepting failed, with clients left in the listener's queue.
    accept_later: bool,
    counters: VsockCounters,
}

impl Vsock {
    /// The device over a listening socket, and what it offers.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(cid: u32, listener: OwnedFd) -> io::Result<(Self, Offer)> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let offer = Offer {
            device_id: VIRTIO_ID_VSOCK,
            features: COMMON_FEATURES,
            queue_sizes: vec![256, 256, 64],
            config: u64::from(cid).to_le_bytes().to_vec().into(),
        };
        let vsock = Self {
            cid: u64::from(cid),
            listener,
            live: None,
            copied: Copied::Settled,
            greetings: HashMap::new(),
            connections: HashMap::new(),
            ports: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_id: LISTENER + 1,
            next_host_port: FIRST_HOST_PORT,
            sweep: None,
            accept_later: false,
            counters: VsockCounters::default(),
        };
        Ok((vsock, offer))
    }

    fn new_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1).max(LISTENER + 1);
            if !self.greetings.contains_key(&id) && !self.connections.contains_key(&id) {
                return id;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.greetings.len() + self.connections.len() >= MAX_CONNECTIONS
    }

    fn schedule_sweep(&mut self) {
        self.sweep.get_or_insert_with(|| Instant::now() + SWEEP);
    }

    fn accept(&mut self, context: &mut Context<'_>) {
        if self.live.is_some() && self.copied != Copied::Settled {
            // Clients stay in the listener's queue.
            return;
        }
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a vsock client");
                    // The listener's edge is used up: those who wait in its queue are looked for later.
                    self.accept_later = true;
                    self.schedule_sweep();
                    return;
                }
            };
            // Without a driver there is nobody to connect to: the client sees its stream end.
            if self.live.is_none() || self.is_full() || stream.set_nonblocking(true).is_err() {
                self.counters.refused += 1;
                continue;
            }
            let id = self.new_id();
            if context.poller.add(&stream, context.token(id)).is_err() {
                continue;
            }
            let greeting = Greeting::new(stream, Instant::now() + HANDSHAKE);
            self.greetings.insert(id, greeting);
            self.schedule_sweep();
            self.greet(id);
        }
    }

    /// Reads a greeting as far as it has come, and connects when it is whole.
    fn greet(&mut self, id: u32) {
        let Some(greeting) = self.greetings.get_mut(&id) else {
            return;
        };
        let port = match greeting.read() {
            Said::Nothing => return,
            Said::Port(port) => Some(port),
            Said::Nonsense => None,
        };
        let Some(greeting) = self.greetings.remove(&id) else {
            return;
        };
        let Some(guest_port) = port else { return };
        let host_port = self.new_host_port(guest_port);
        let mut connection = Connection::to_guest(greeting.stream, guest_port, host_port);
        connection.deadline = Some(Instant::now() + HANDSHAKE);
        // Data may have come with the greeting, and its edge been used up.
        connection.ready(Readiness {
            readable: true,
            writable: true,
            hang_up: false,
        });
        self.insert(id, connection);
    }

    fn new_host_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let port = self.next_host_port;
            self.next_host_port = self.next_host_port.wrapping_add(1).max(FIRST_HOST_PORT);
            if !self.ports.contains_key(&(guest_port, port)) {
                return port;
            }
        }
    }

    fn insert(&mut self, id: u32, connection: Connection) {
        self.counters.opened += 1;
        self.ports
            .insert((connection.guest_port, connection.host_port), id);
        self.connections.insert(id, connection);
        self.mark_ready(id);
        self.schedule_sweep();
    }

    fn mark_ready(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.queued
            && connection.has_work()
        {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Does what a connection's last step asked for.
    fn settle(&mut self, id: u32, verdict: Verdict) {
        match verdict {
            Verdict::Keep => self.mark_ready(id),
            Verdict::Drop => self.remove(id),
            Verdict::Reset => {
                if let Some(connection) = self.connections.get(&id) {
                    self.owe_reset(connection.guest_port, connection.host_port);
                }
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(connection) = self.connections.remove(&id) {
            let ports = (connection.guest_port, connection.host_port);
            if self.ports.get(&ports) == Some(&id) {
                self.ports.remove(&ports);
            }
        }
    }

    /// The guest knows nothing of the connection any more; what it sent is still delivered.
    fn guest_gone(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.guest_gone() {
            connection.deadline = Some(Instant::now() + DRAINING);
            let ports = (connection.guest_port, connection.host_port);
            self.ports.remove(&ports);
            self.schedule_sweep();
        } else {
            self.remove(id);
        }
    }

    fn refuse(&mut self, header: &Header) {
        if header.operation != Some(Operation::Reset) {
            self.owe_reset(header.source_port, header.destination_port);
        }
    }

    fn owe_reset(&mut self, guest_port: u32, host_port: u32) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back((guest_port, host_port));
        }
    }

    /// Takes one packet from the guest.
    fn take(&mut self, mut packet: Buffers<'_>, context: &mut Context<'_>) {
        let Some(header) = read_array(&mut packet.readable) else {
            return;
        };
        let header = Header::from_bytes(&header);
        let data = packet.readable.take(header.length as usize);
        if header.source_cid != self.cid
            || header.kind != TYPE_STREAM
            || data.len() != header.length as usize
        {
            return;
        }
        if header.destination_cid != HOST_CID {
            return self.refuse(&header);
        }
        let Some(&id) = self
            .ports
            .get(&(header.source_port, header.destination_port))
        else {
            if header.operation == Some(Operation::Request) {
                self.guest_connects(&header, context);
            } else {
                self.refuse(&header);
            }
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.set_peer_room((header.buffer, header.forwarded));
        let verdict = match header.operation {
            Some(Operation::Response) => connection.accepted(),
            Some(Operation::Data) => {
                self.counters.tx_bytes += data.len() as u64;
                connection.receive(data)
            }
            Some(Operation::Shutdown) => {
                let verdict = connection.guest_shut_down(header.flags);
                if header.flags & packet::SHUTDOWN_BOTH == packet::SHUTDOWN_BOTH
                    && verdict == Verdict::Keep
                {
                    // The guest has closed its socket: it is let go at once, its last bytes follow when they can.
                    self.refuse(&header);
                    return self.guest_gone(id);
                }
                verdict
            }
            Some(Operation::CreditUpdate) => Verdict::Keep,
            Some(Operation::CreditRequest) => {
                connection.credit_requested();
                Verdict::Keep
            }
            Some(Operation::Reset) => return self.guest_gone(id),
            Some(Operation::Request) | None => Verdict::Reset,
        };
        self.settle(id, verdict);
    }

    fn guest_connects(&mut self, header: &Header, context: &mut Context<'_>) {
        if self.is_full() || !context.guest_connects.has_room() {
            self.counters.refused += 1;
            return self.refuse(header);
        }
        let Ok((ours, theirs)) = UnixStream::pair() else {
            return self.refuse(header);
        };
        let id = self.new_id();
        if ours.set_nonblocking(true).is_err()
            || context.poller.add(&ours, context.token(id)).is_err()
        {
            return self.refuse(header);
        }
        let room = (header.buffer, header.forwarded);
        let connection =
            Connection::from_guest(ours, header.source_port, header.destination_port, room);
        self.insert(id, connection);
        context
            .guest_connects
            .push(header.destination_port, theirs.into());
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        // The queue leaves the device while packets are taken, which may touch all the rest of it.
        let Some(mut live) = self.live.take() else {
            return Ok(());
        };
        let ram = context.ram;
        let result = live.tx.drain(ram, |chain| {
            if let Ok(packet) = Buffers::of(chain, ram) {
                self.take(packet, context);
            }
            Ok(0)
        });
        self.live = Some(live);
        result
    }
}

impl Device for Vsock {
    fn start(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        context
            .poller
            .add_readable(&self.listener, context.token(LISTENER))
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
            events: queues.take(EVENTS),
        });
        self.forget_connections(context)?;
        // Clients an earlier failure has left waiting.
        self.accept(context);
        self.queue_ready(TX, context)
    }

    fn reset(&mut self) {
        self.live = None;
        self.copied = Copied::Settled;
        self.greetings.clear();
        self.connections.clear();
        self.ports.clear();
        self.ready.clear();
        self.resets.clear();
        // A device that is not called any more must not ask to be.
        self.sweep = None;
        self.accept_later = false;
    }

    fn queue_ready(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), DeviceFault> {
        if queue == TX {
            self.transmit(context)?;
        }
        if queue == EVENTS {
            self.forget_connections(context)?;
        }
        if queue == RX || queue == TX {
            self.receive(context)?;
        }
        Ok(())
    }

    fn io_ready(
        &mut self,
        id: u32,
        ready: Readiness,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        if id == LISTENER {
            self.accept(context);
        } else if let Some(connection) = self.connections.get_mut(&id) {
            let verdict = connection.ready(ready);
            if connection.stage() == Stage::Connecting && ready.hang_up {
                self.settle(id, Verdict::Reset);
            } else {
                self.settle(id, verdict);
            }
        } else {
            self.greet(id);
        }
        self.receive(context)
    }

    fn progress(&self) -> Vec<(u16, Progress)> {
        let Some(live) = &self.live else {
            return Vec::new();
        };
        progress_of([
            (RX, Some(&live.rx)),
            (TX, Some(&live.tx)),
            (EVENTS, live.events.as_ref()),
        ])
    }

    fn restore(&mut self, _saved: &[u64]) {
        self.copied = Copied::Untold;
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters::Vsock(VsockCounters {
            streams: self.connections.len() as u64,
            ..self.counters
        })
    }

    fn deadline(&self) -> Option<Instant> {
        self.sweep
    }

    fn deadline_passed(
        &mut self,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), DeviceFault> {
        if std::mem::take(&mut self.accept_later) {
            self.accept(context);
        }
        self.greetings.retain(|_, greeting| greeting.deadline > now);
        let expired: Vec<(u32, Stage)> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline.is_some_and(|deadline| deadline <= now))
            .map(|(id, connection)| (*id, connection.stage()))
            .collect();
        for (id, stage) in expired {
            self.settle(
                id,
                if stage == Stage::Draining {
                    Verdict::Drop
                } else {
                    Verdict::Reset
                },
            );
        }
        let timed = self.accept_later
            || !self.greetings.is_empty()
            || self.connections.values().any(|one| one.deadline.is_some());
        self.sweep = timed.then(|| now + SWEEP);
        self.receive(context)
    }
}

#[cfg(test)]
mod tests;
