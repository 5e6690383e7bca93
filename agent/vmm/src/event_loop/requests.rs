//! What the controller asks for.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crn_protocol::control::{
    Command, Descriptor, DiskSpec, ExitReason, Reply, Report, Request, SnapshotSpec, Status,
};
use crn_protocol::devices::NewLimits;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::{Detaching, PowerOff, Vmm};
use crate::control::{Blueprint, Disk, Files};
use crate::error::chain;
use crate::machine::Machine;
use crate::plan::layout::MIB;

/// Each look at whether vCPUs have left the guest is followed by this much sleep.
const PAUSE_STEP: Duration = Duration::from_micros(200);
/// vCPUs leave within a few steps; one that does not is stuck in the host.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);

impl Vmm {
    pub(super) fn execute(&mut self, command: Command, descriptors: Vec<OwnedFd>) {
        let result = self
            .try_execute(command.request, descriptors)
            .map(|()| self.status());
        self.send(
            &Report::Reply(Reply {
                id: command.id,
                result,
            }),
            None,
        );
    }

    /// Does it, or says in one sentence why not.
    fn try_execute(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        match request {
            Request::Launch(spec) => self.launch_blueprint(|| Blueprint::new(*spec, descriptors)),
            Request::Restore(spec) => {
                self.launch_blueprint(|| Blueprint::restored(*spec, descriptors))
            }
            Request::Snapshot(spec) => self.snapshot(&spec, descriptors),
            Request::Status => {
                self.refresh_counters();
                Ok(())
            }
            Request::SetLimits { .. } | Request::Balloon { .. } if self.is_paused() => {
                Err("the machine is paused".to_owned())
            }
            Request::SetLimits { device, limits } => self.set_limits(&device, &limits),
            Request::Balloon { target_mib } => self.set_balloon(target_mib),
            Request::AttachConsole { stream } => self.attach_console(stream, descriptors),
            Request::PowerButton => self.press_power_button(),
            Request::PowerOff { deadline_ms } => self.power_off(Duration::from_millis(deadline_ms)),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::AttachDisk(spec) => self.attach_disk(spec, descriptors),
            Request::DetachDisk {
                serial,
                deadline_ms,
            } => self.detach_disk(&serial, deadline_ms.map(Duration::from_millis)),
            Request::Stop => {
                if let Some(machine) = &mut self.machine {
                    machine.stop();
                }
                self.finish(ExitReason::Stopped, "");
                Ok(())
            }
        }
    }

    fn machine(&mut self) -> Result<&mut Machine, String> {
        self.machine
            .as_mut()
            .ok_or_else(|| "no machine has been launched".to_owned())
    }

    fn status(&self) -> Status {
        self.machine
            .as_ref()
            .map(Machine::status)
            .unwrap_or_default()
    }

    fn refresh_counters(&mut self) {
        if self.is_paused() {
            return;
        }
        for index in 0..self.device_count() {
            self.call_device(index, |device, context| device.refresh(context));
        }
    }

    fn set_limits(&mut self, name: &str, limits: &NewLimits) -> Result<(), String> {
        let slots = &self.machine()?.slots;
        let index = slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|slot| slot.name == name))
            .ok_or_else(|| format!("there is no device {name}"))?;
        let mut taken = false;
        self.call_device(index, |device, context| {
            taken = device.set_limits(limits, context)?;
            Ok(())
        });
        if taken {
            Ok(())
        } else {
            Err(format!("{name} has no such limits"))
        }
    }

    fn attach_console(
        &mut self,
        stream: Descriptor,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let Some(machine) = &mut self.machine else {
            return Err("no machine has been launched".to_owned());
        };
        let stream = descriptors
            .into_iter()
            .nth(usize::from(stream.0))
            .ok_or("stream names a descriptor that did not come")?;
        machine
            .console
            .attach(stream, &self.poller)
            .map_err(|error| format!("cannot attach to the console: {error}"))
    }

    fn set_balloon(&mut self, target_mib: u32) -> Result<(), String> {
        let ram = &self.machine()?.ram;
        let memory: u64 = ram.iter().map(GuestMemoryRegion::len).sum();
        if u64::from(target_mib) * MIB >= memory {
            return Err(format!(
                "target_mib is {target_mib}, the machine has {}",
                memory / MIB
            ));
        }
        let mut taken = false;
        for index in 0..self.device_count() {
            self.call_device(index, |device, context| {
                taken |= device.set_balloon(target_mib, context);
                Ok(())
            });
        }
        if taken {
            Ok(())
        } else {
            Err("the machine has no balloon".to_owned())
        }
    }

    fn launch_blueprint(
        &mut self,
        blueprint: impl FnOnce() -> crate::Result<Blueprint>,
    ) -> Result<(), String> {
        if self.machine.is_some() {
            return Err("this process already runs a machine".to_owned());
        }
        blueprint()
            .and_then(|blueprint| self.launch(blueprint))
            .map_err(|error| {
                let detail = chain(&error);
                self.finish(ExitReason::Failed, detail.clone());
                detail
            })
    }

    fn press_power_button(&mut self) -> Result<(), String> {
        self.machine()?
            .press_power_button()
            .map_err(|error| format!("cannot press the power button: {error}"))
    }

    fn power_off(&mut self, patience: Duration) -> Result<(), String> {
        self.press_power_button()?;
        // A time too far away to be written is no deadline.
        self.power_off = Instant::now()
            .checked_add(patience)
            .map(|due| PowerOff { due, patience });
        Ok(())
    }

    fn pause(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PAUSE_PATIENCE;
        while !self.machine()?.pause() {
            // A vCPU on its way out may be waiting for a device of its own.
            self.hear_vcpus();
            if self.end.is_some() {
                return Err("the machine is at its end".to_owned());
            }
            if Instant::now() > deadline {
                self.resume()?;
                return Err("a vCPU does not leave the guest".to_owned());
            }
            std::thread::sleep(PAUSE_STEP);
        }
        self.machine()?.flush();
        Ok(())
    }

    fn resume(&mut self) -> Result<(), String> {
        self.machine()?.resume();
        for (token, readiness) in std::mem::take(&mut self.held) {
            self.dispatch(token, readiness);
        }
        Ok(())
    }

    fn snapshot(&mut self, spec: &SnapshotSpec, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let machine = self.machine()?;
        if !machine.is_paused() {
            return Err("the machine is not paused".to_owned());
        }
        let mut files = Files::new(descriptors);
        let mut file = |field, at| files.take(field, at).map(File::from);
        let state = file("state", spec.state).map_err(|error| chain(&error))?;
        let memory = file("memory", spec.memory).map_err(|error| chain(&error))?;
        machine
            .snapshot(&state, &memory, spec.differences)
            .map_err(|error| chain(&error))
    }

    fn detach_disk(&mut self, serial: &str, patience: Option<Duration>) -> Result<(), String> {
        let index = self
            .machine()?
            .detach_disk(serial)
            .map_err(|error| chain(&error))?;
        // A time too far away to be written is no deadline.
        let due = patience.and_then(|patience| Instant::now().checked_add(patience));
        self.detaching.retain(|one| one.index != index);
        self.detaching
            .extend(due.map(|due| Detaching { index, due }));
        Ok(())
    }

    fn attach_disk(&mut self, spec: DiskSpec, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let machine = self
            .machine
            .as_mut()
            .ok_or_else(|| "no machine has been launched".to_owned())?;
        Disk::attached(spec, descriptors)
            .and_then(|disk| machine.attach_disk(disk, &self.poller, &mut self.guest_connects))
            .map_err(|error| chain(&error))
    }
}
