//! The process's one event loop: control socket, devices, console, and the machine's end.

mod requests;

use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crn_protocol::control::{Event, ExitReason, Report};

use crate::Result;
use crate::control::{Blueprint, Controller, Gone};
use crate::devices::{Context, GuestConnects};
use crate::error::{chain, os};
use crate::machine::bus::FromVcpu;
use crate::machine::signals::StopSignals;
use crate::machine::{Machine, launch};
use crate::poller::{Poller, Readiness, Token};
use crate::virtio::{Change, DeviceFault};

/// Console output is collected this long before it is written.
const CONSOLE_BATCH: Duration = Duration::from_millis(2);
/// A console that takes nothing is tried again after this.
const CONSOLE_RETRY: Duration = Duration::from_millis(50);
/// A disk that cannot be taken away at this moment is tried again after this.
const WITHDRAW_RETRY: Duration = Duration::from_millis(1);
/// Faults of one device that are logged: a guest can make as many as it likes, and must not fill the host's disk.
const TOLD_FAULTS: u32 = 8;
/// A controller has this long to take the last event.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The machine is at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: ExitReason,
    /// One sentence for the log; empty when the reason says it all.
    pub detail: String,
}

/// The guest has been asked to power off.
#[derive(Debug, Clone, Copy)]
struct PowerOff {
    /// When it is stopped.
    due: Instant,
    /// How long it was given.
    patience: Duration,
}

/// The guest has been asked to let a disk go.
#[derive(Debug, Clone, Copy)]
struct Detaching {
    /// Of the device.
    index: usize,
    /// When the guest loses it.
    due: Instant,
}

/// The process: a machine, once it is launched, and its controller, while there is one.
pub struct Vmm {
    poller: Poller,
    started: Instant,
    listener: Option<UnixListener>,
    controller: Option<Controller>,
    generation: u32,
    signals: StopSignals,
    machine: Option<Machine>,
    guest_connects: GuestConnects,
    console_due: Option<Instant>,
    power_off: Option<PowerOff>,
    detaching: Vec<Detaching>,
    /// What devices are to hear when the machine goes on, one entry a token.
    held: Vec<(Token, Readiness)>,
    end: Option<End>,
}

impl Vmm {
    /// Prepares the process. Threads started before would take its signals. `started` is the process's start.
    ///
    /// # Errors
    /// [`crate::Error::Os`].
    pub fn new(listener: Option<UnixListener>, started: Instant) -> Result<Self> {
        let poller = Poller::new().map_err(os("create the poller"))?;
        let signals = StopSignals::new().map_err(os("receive signals"))?;
        poller
            .add_readable(&signals, Token::Signal)
            .map_err(os("watch signals"))?;
        if let Some(listener) = &listener {
            listener
                .set_nonblocking(true)
                .map_err(os("use the control socket"))?;
            poller
                .add_readable(listener, Token::Listener)
                .map_err(os("watch the control socket"))?;
        }
        Ok(Self {
            poller,
            started,
            listener,
            controller: None,
            generation: 0,
            signals,
            machine: None,
            guest_connects: GuestConnects::default(),
            console_due: None,
            power_off: None,
            detaching: Vec::new(),
            held: Vec::new(),
            end: None,
        })
    }

    /// Builds a machine and runs it.
    ///
    /// # Errors
    /// [`crate::Error`]: the process is of no use any more.
    pub fn launch(&mut self, blueprint: Blueprint) -> Result<()> {
        let machine = launch(
            blueprint,
            self.started,
            &self.poller,
            &mut self.guest_connects,
        )?;
        tracing::info!(vm = machine.name, "running");
        self.machine = Some(machine);
        Ok(())
    }

    /// Serves until the machine is at its end; the last event has been sent then.
    ///
    /// # Errors
    /// epoll_wait(2)'s.
    pub fn run(&mut self) -> io::Result<End> {
        let mut ready = Vec::new();
        let end = loop {
            self.poller.wait(&mut ready, self.timeout())?;
            for (token, readiness) in ready.drain(..) {
                self.dispatch(token, readiness);
            }
            self.deadlines();
            self.deliver_guest_connects();
            if let Some(end) = self.end.take() {
                break end;
            }
        };
        if let Some(machine) = &mut self.machine {
            machine.stop();
        }
        let vm = self
            .machine
            .as_ref()
            .map_or("", |machine| machine.name.as_str());
        tracing::info!(vm, reason = ?end.reason, detail = end.detail, "stopped");
        self.send(
            &Report::Event(Event::Exited {
                reason: end.reason,
                detail: end.detail.clone(),
            }),
            None,
        );
        if let Some(controller) = &mut self.controller {
            controller.finish(LAST_WORDS);
        }
        Ok(end)
    }

    fn finish(&mut self, reason: ExitReason, detail: impl Into<String>) {
        self.end.get_or_insert(End {
            reason,
            detail: detail.into(),
        });
    }

    fn is_paused(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_paused)
    }

    fn device_count(&self) -> usize {
        self.machine
            .as_ref()
            .map_or(0, |machine| machine.slots.len())
    }

    fn timeout(&self) -> Option<Duration> {
        let devices = self
            .machine
            .iter()
            .filter(|machine| !machine.is_paused())
            .flat_map(|machine| {
                machine
                    .slots
                    .iter()
                    .flatten()
                    .filter_map(|slot| slot.device.deadline())
            });
        let next = devices
            .chain(self.console_due)
            .chain(self.power_off.map(|power_off| power_off.due))
            .chain(self.detaching.iter().map(|one| one.due))
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        if self.console_due.is_some_and(|due| due <= now) {
            self.drain_console(now);
        }
        if let Some(power_off) = self.power_off.filter(|power_off| power_off.due <= now) {
            let patience = power_off.patience.as_millis();
            let detail = format!("the guest did not power off within {patience} ms");
            self.power_off = None;
            self.finish(ExitReason::Stopped, detail);
        }
        self.withdraw_disks(now);
        if self.is_paused() {
            return;
        }
        for index in 0..self.device_count() {
            self.call_device(index, |device, context| match device.deadline() {
                Some(deadline) if deadline <= now => device.deadline_passed(now, context),
                _ => Ok(()),
            });
        }
    }

    /// Takes away the disks that the guest was to let go by now.
    fn withdraw_disks(&mut self, now: Instant) {
        let mut due = Vec::new();
        for one in &mut self.detaching {
            if one.due <= now {
                due.push(one.index);
                // Should a vCPU be at the device just now, it is tried again.
                one.due = now + WITHDRAW_RETRY;
            }
        }
        for index in due {
            let machine = self.machine.as_mut();
            match machine.and_then(|machine| machine.withdraw(index)) {
                Some(true) => {
                    tracing::warn!(
                        device = index,
                        "the guest did not let a disk go and loses it"
                    );
                    self.forget_device(index);
                }
                // The guest was quicker; its vCPU's word is on the way.
                Some(false) => self.detaching.retain(|one| one.index != index),
                None => {}
            }
        }
    }

    fn drain_console(&mut self, now: Instant) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        self.console_due = match machine.drain_console() {
            Ok(true) => None,
            Ok(false) => Some(now + CONSOLE_RETRY),
            Err(error) => {
                tracing::debug!(vm = machine.name, %error, "the console takes no output");
                None
            }
        };
    }

    /// Keeps for later what a device is not to hear while the machine is paused.
    fn hold(&mut self, token: Token, readiness: Readiness) {
        match self.held.iter_mut().find(|(held, _)| *held == token) {
            Some((_, held)) => {
                held.readable |= readiness.readable;
                held.writable |= readiness.writable;
                held.hang_up |= readiness.hang_up;
            }
            None => self.held.push((token, readiness)),
        }
    }

    fn dispatch(&mut self, token: Token, readiness: Readiness) {
        match token {
            Token::Queue { .. } | Token::Device { .. } if self.is_paused() => {
                self.hold(token, readiness);
            }
            Token::Listener => self.accept(),
            Token::Controller(generation) if generation == self.generation => self.serve(readiness),
            Token::Controller(_) => {}
            Token::Signal => self.finish(ExitReason::Stopped, "a signal"),
            Token::Vcpus => self.hear_vcpus(),
            Token::Console => {
                if let Some(machine) = &self.machine {
                    let _ = machine.console.kick().read();
                    self.console_due
                        .get_or_insert_with(|| Instant::now() + CONSOLE_BATCH);
                }
            }
            Token::ConsoleStream(id) => {
                if let Some(machine) = &mut self.machine {
                    machine.console.stream_ready(id, readiness);
                    machine.type_in();
                }
            }
            Token::Queue { device, queue } => {
                if let Some(doorbell) = self.machine.as_ref().and_then(|machine| {
                    machine
                        .slots
                        .get(usize::from(device))?
                        .as_ref()?
                        .doorbells
                        .get(usize::from(queue))
                }) {
                    let _ = doorbell.read();
                }
                self.call_device(usize::from(device), |device, context| {
                    device.queue_ready(usize::from(queue), context)
                });
            }
            Token::Device { device, id } => {
                self.call_device(usize::from(device), |device, context| {
                    device.io_ready(id, readiness, context)
                });
            }
        }
    }

    /// Calls a device unless it has broken down; a fault breaks it down.
    fn call_device(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut dyn crate::devices::Device, &mut Context<'_>) -> Result<(), DeviceFault>,
    ) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        let Some(Some(slot)) = machine.slots.get_mut(index) else {
            return;
        };
        if slot.faulted {
            return;
        }
        let mut context = Context {
            ram: &machine.ram,
            poller: &self.poller,
            interrupt: &slot.interrupt,
            index: index as u8,
            guest_connects: &mut self.guest_connects,
        };
        if let Err(fault) = call(&mut *slot.device, &mut context) {
            if slot.faults < TOLD_FAULTS {
                tracing::warn!(
                    vm = machine.name,
                    device = index,
                    error = chain(&fault),
                    "a device stops until the guest resets it"
                );
            }
            slot.faults = slot.faults.saturating_add(1);
            slot.faulted = true;
            slot.device.reset();
            slot.interrupt.needs_reset();
        }
    }

    fn hear_vcpus(&mut self) {
        if let Some(machine) = &self.machine {
            let _ = machine.kick.read();
        }
        while let Some(message) = self
            .machine
            .as_ref()
            .and_then(|machine| machine.messages.as_ref()?.try_recv().ok())
        {
            match message {
                FromVcpu::Stopped { reason, detail } => self.finish(reason, detail),
                FromVcpu::Ejected { index } => self.forget_device(usize::from(index)),
                FromVcpu::Device {
                    index,
                    change,
                    done,
                } => {
                    self.change_device(usize::from(index), change);
                    // The vCPU waits for this; it cannot have gone.
                    let _ = done.send(());
                }
            }
        }
    }

    fn change_device(&mut self, index: usize, change: Change) {
        match change {
            Change::Activate { features, queues } => {
                self.call_device(index, |device, context| {
                    device.activate(features, queues, context)
                });
            }
            Change::Reset => {
                if let Some(Some(slot)) = self
                    .machine
                    .as_mut()
                    .and_then(|machine| machine.slots.get_mut(index))
                {
                    slot.device.reset();
                    slot.interrupt.reset();
                    slot.faulted = false;
                }
            }
        }
    }

    /// A device has left the bus.
    fn forget_device(&mut self, index: usize) {
        self.detaching.retain(|one| one.index != index);
        let Some(machine) = &mut self.machine else {
            return;
        };
        let Some(mut slot) = machine.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        slot.device.reset();
        if let Err(error) = slot.device.flush() {
            tracing::error!(%error, device = index, "what the guest wrote may not be durable");
        }
        tracing::info!(vm = machine.name, device = index, "a device is detached");
        if slot.is_disk {
            let serial = slot.name;
            self.send(&Report::Event(Event::DiskDetached { serial }), None);
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            let controller = match Controller::new(stream) {
                Ok(controller) => controller,
                Err(error) => {
                    tracing::warn!(%error, "cannot serve a controller");
                    continue;
                }
            };
            self.generation = self.generation.wrapping_add(1);
            if let Err(error) = self
                .poller
                .add(controller.stream(), Token::Controller(self.generation))
            {
                tracing::warn!(%error, "cannot watch a controller");
                continue;
            }
            self.controller = Some(controller);
        }
    }

    fn serve(&mut self, readiness: Readiness) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        let mut commands = Vec::new();
        let mut result = Ok(());
        if readiness.writable {
            result = controller.writable();
        }
        if readiness.readable && result.is_ok() {
            result = controller.read(&mut commands);
        }
        for (command, descriptors) in commands {
            self.execute(command, descriptors);
        }
        self.note(result);
    }

    fn note(&mut self, result: Result<(), Gone>) {
        if let Err(gone) = result {
            if gone.0.is_some() {
                tracing::warn!(error = chain(&gone), "the control connection ends");
            }
            self.controller = None;
            // Whoever has started this process has ended before there was a machine: nobody else asks for it.
            if self.machine.is_none() {
                self.finish(
                    ExitReason::Stopped,
                    "the controller has left before there was a machine",
                );
            }
        }
    }

    fn send(&mut self, report: &Report, descriptor: Option<std::os::fd::OwnedFd>) {
        if let Some(controller) = &mut self.controller {
            let result = controller.send(report, descriptor);
            self.note(result);
        }
    }

    fn deliver_guest_connects(&mut self) {
        while self.controller.is_some()
            && let Some((port, stream)) = self.guest_connects.pop()
        {
            self.send(&Report::Event(Event::GuestConnect { port }), Some(stream));
        }
    }
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Vmm")
            .field("signals", &self.signals)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
