//! From a checked description to running vCPUs, and back to nothing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crn_protocol::control::Status;
use crn_protocol::devices::{DeviceCounters, DeviceStatus};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::Killable;

use super::bus::{Bus, FromVcpu, ToLoop, Transports};
use super::cpuid::Template;
use super::events::Events;
use super::gate::Gate;
use super::parts::{self, Made};
use super::plug::{Loose, Slot, Socket};
use super::{copy, cpuid, signals, vcpu, vm};
use crate::control::{Blueprint, Source};
use crate::devices::console::{Console, ConsoleEnd, serial};
use crate::devices::{Counters, GuestConnects, SharedCounters};
use crate::error::{kvm, os};
use crate::fd::of_event;
use crate::memory::image::Image;
use crate::memory::{self, Ram};
use crate::pci::PciBus;
use crate::plan::acpi::Cause;
use crate::plan::layout::{EVENTS_GSI, RamLayout, SERIAL_GSI};
use crate::plan::{Places, Plan};
use crate::poller::{Poller, Token};
use crate::sandbox::{Role, install};
use crate::snapshot::board::serial_refused;
use crate::snapshot::host::Host;
use crate::snapshot::memory::Tie;
use crate::snapshot::{self, Snapshot, identity};
use crate::{Error, Result, boot};

/// Messages from vCPUs that wait for the event loop: each vCPU sends one and waits.
const VCPU_MESSAGES: usize = 128;

/// A running machine, owned by the event loop.
pub struct Machine {
    /// The item hash, for log lines.
    pub name: String,
    /// Devices, by index; `None` where one has been detached or none has been attached yet.
    pub slots: Vec<Option<Slot>>,
    /// The console's output.
    pub console: Console,
    console_end: ConsoleEnd,
    /// What vCPUs say; `None` once the machine stops.
    pub messages: Option<Receiver<FromVcpu>>,
    /// Counts up with every message.
    pub kick: Arc<EventFd>,
    pub(super) events: Arc<Events>,
    pub(super) shared: Arc<vcpu::Shared>,
    counters: SharedCounters,
    threads: Vec<JoinHandle<()>>,
    /// The bus on which devices can come and go.
    pub(super) pci: Option<Arc<PciBus>>,
    /// Places on it that a guest has lost its device of, one bit for each index.
    pub(super) lost: u32,
    /// A device has come since the start.
    pub(super) plugged: bool,
    /// Where it runs, for its snapshots.
    pub(super) host: Host,
    /// The memory file of the last snapshot, or of the one that it went on from.
    pub(super) tie: Option<Tie>,
    /// Of the time stamp counter; 0 if KVM does not tell.
    pub(super) tsc_khz: u32,
    /// Holds the virtual machine: dropped after the threads have ended, and before the memory it maps.
    pub(super) socket: Socket,
    /// Guest memory.
    pub ram: Arc<Ram>,
    _images: Vec<Image>,
}

fn event() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK).map_err(os("create an event descriptor"))
}

/// Builds a machine and runs it; from then on this thread is its event loop and may do nothing else.
///
/// # Errors
/// See [`Error`]; nothing is left behind.
pub fn launch(
    blueprint: Blueprint,
    started: Instant,
    poller: &Poller,
    guest_connects: &mut GuestConnects,
) -> Result<Machine> {
    let host = vm::open(blueprint.kvm)?;
    if usize::from(blueprint.vcpus) > host.get_max_vcpus() {
        return Err(Error::spec(
            "vcpus",
            format!(
                "is {}, this host allows {}",
                blueprint.vcpus,
                host.get_max_vcpus()
            ),
        ));
    }
    let counters = SharedCounters::new(Counters::default());
    let (console_end, console) =
        Console::new(blueprint.console.output, blueprint.console.max_bytes)
            .map_err(|error| Error::spec("console.output", format!("cannot be used: {error}")))?;

    let Made {
        devices,
        images,
        end,
    } = parts::make(
        blueprint.parts,
        blueprint.vcpus,
        RamLayout::new(blueprint.memory_mib),
        &console_end,
    )?;
    let bits = cpuid::address_bits();
    if (end - 1).checked_shr(bits).unwrap_or(0) != 0 {
        return Err(Error::spec(
            "memory_mib",
            format!(
                "is {}, with all images more than {bits} bits, which this host's processors address",
                blueprint.memory_mib
            ),
        ));
    }

    let plan = Plan::new(
        blueprint.vcpus,
        blueprint.memory_mib,
        blueprint.transport,
        devices.len() as u8,
    );
    let (ram, start) = match blueprint.source {
        Source::Boot(payload) => {
            let ram = memory::map(&plan.ram, blueprint.memory_backing)?;
            let entry = boot::load(&ram, &plan, payload)?;
            (ram, Start::Boot(entry))
        }
        Source::Snapshot { state, memory } => {
            let snapshot = Snapshot::read(&state)?;
            let pci = matches!(plan.places, Places::Pci);
            snapshot.check(blueprint.vcpus, blueprint.memory_mib, pci)?;
            let ram = snapshot::memory::map(&plan.ram, &memory, snapshot.tie)?;
            identity::renew(&ram)?;
            (ram, Start::Copy(Box::new(snapshot)))
        }
    };
    let ram = Arc::new(ram);
    let machine = Arc::new(vm::create(&host, &ram)?);
    let born = create_vcpus(&host, &machine, plan.vcpus, &start)?;
    for (index, (image, place)) in images.iter().enumerate() {
        vm::map_image(&host, &machine, ram.num_regions() + index, image, *place)?;
    }

    let socket = Socket::new(Arc::clone(&machine), Arc::clone(&ram));
    let (transports, mut slots) = plug(&socket, &plan.places, devices, poller, guest_connects)?;
    let pci = match &transports {
        Transports::Pci(bus) => Some(Arc::clone(bus)),
        Transports::Mmio(_) => None,
    };

    let events = Arc::new(Events::new().map_err(os("create an event descriptor"))?);
    let serial_line = event()?;
    vm::connect_interrupt(&machine, events.line(), EVENTS_GSI)?;
    vm::connect_interrupt(&machine, &serial_line, SERIAL_GSI)?;
    poller
        .add_readable(of_event(console.kick()), Token::Console)
        .map_err(os("watch the console"))?;
    let com1 = match &start {
        Start::Boot(_) => serial::com1(serial_line, console_end.clone()),
        Start::Copy(snapshot) => {
            events.restore(snapshot.board.causes);
            events
                .raise(Cause::Generation)
                .map_err(os("tell the guest that it is a copy"))?;
            copy::restore_bus(&snapshot.board, &transports);
            let devices = &snapshot.devices;
            copy::go_on(
                devices,
                &transports,
                &mut slots,
                &ram,
                poller,
                guest_connects,
            )?;
            serial::com1_from(&snapshot.board.serial, serial_line, console_end.clone())
                .map_err(|error| Error::Os("restore the serial port", serial_refused(&error)))?
        }
    };

    let (sender, messages) = sync_channel(VCPU_MESSAGES);
    let kick = Arc::new(event()?);
    poller
        .add_readable(of_event(&kick), Token::Vcpus)
        .map_err(os("watch the vCPUs"))?;
    let shared = Arc::new(vcpu::Shared {
        bus: Bus::new(
            transports,
            com1,
            Arc::clone(&events),
            ToLoop::new(sender, Arc::clone(&kick)),
        ),
        stop: AtomicBool::new(false),
        gate: Gate::default(),
        msrs: born.msrs,
        started,
        launch_us: AtomicU64::new(0),
        counters: Arc::clone(&counters),
    });
    signals::prepare_kick().map_err(os("prepare a signal"))?;
    let mut machine = Machine {
        name: blueprint.vm,
        console_end,
        slots,
        console,
        messages: Some(messages),
        kick,
        events,
        shared,
        counters,
        threads: Vec::with_capacity(born.vcpus.len()),
        pci,
        lost: 0,
        plugged: false,
        host: born.host,
        tie: match &start {
            Start::Boot(_) => None,
            Start::Copy(snapshot) => Some(snapshot.tie),
        },
        tsc_khz: born.tsc_khz,
        socket,
        ram,
        _images: images.into_iter().map(|(image, _)| image).collect(),
    };
    let role = Role::Vcpu {
        pci: machine.pci.is_some(),
    };
    // From here on an error takes the started threads down with the machine.
    if let Start::Copy(snapshot) = &start {
        snapshot.board.restore_clock(machine.socket.vm())?;
    }
    for (vcpu, index) in born.vcpus.into_iter().zip(0u8..) {
        let shared = Arc::clone(&machine.shared);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || vcpu::run(index, vcpu, &shared, role))
            .map_err(os("start a vCPU's thread"))?;
        machine.threads.push(thread);
    }
    install(Role::EventLoop {
        pci: machine.pci.is_some(),
    })?;
    Ok(machine)
}

/// Puts the devices at their places.
fn plug(
    socket: &Socket,
    places: &Places,
    devices: Vec<Loose>,
    poller: &Poller,
    guest_connects: &mut GuestConnects,
) -> Result<(Transports, Vec<Option<Slot>>)> {
    let mut slots = Vec::with_capacity(devices.len());
    let transports = match places {
        Places::Mmio(places) => {
            let mut transports = Vec::with_capacity(devices.len());
            for ((device, place), index) in devices.into_iter().zip(places).zip(0..) {
                let (slot, transport) =
                    socket.mmio(index, *place, device, poller, guest_connects)?;
                transports.push(Mutex::new(transport));
                slots.push(Some(slot));
            }
            Transports::Mmio(transports)
        }
        Places::Pci => {
            let bus = PciBus::default();
            for (device, index) in devices.into_iter().zip(0..) {
                let (slot, function) = socket.pci(index, device, poller, guest_connects)?;
                bus.insert(index + 1, function);
                slots.push(Some(slot));
            }
            Transports::Pci(Arc::new(bus))
        }
    };
    Ok((transports, slots))
}

/// How a machine begins.
enum Start {
    /// At a kernel's entry.
    Boot(boot::Entry),
    /// Where another machine was.
    Copy(Box<Snapshot>),
}

/// vCPUs with their registers, and what they are like.
struct Born {
    vcpus: Vec<VcpuFd>,
    host: Host,
    tsc_khz: u32,
    /// Those that KVM lists.
    msrs: Vec<u32>,
}

fn create_vcpus(host: &Kvm, machine: &VmFd, count: u8, start: &Start) -> Result<Born> {
    let vcpus = (0..count)
        .map(|id| machine.create_vcpu(u64::from(id)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(kvm("create a vCPU"))?;
    let khz = host
        .check_extension(Cap::GetTscKhz)
        .then(|| vcpus.first()?.get_tsc_khz().ok())
        .flatten();
    let msrs = host
        .get_msr_index_list()
        .map_err(kvm("list the MSRs it saves"))?;
    let template = Template::new(host, count, khz)?;
    let born = Born {
        host: Host::here(template.vcpu(0)?.as_slice()),
        tsc_khz: khz.unwrap_or(0),
        msrs: msrs.as_slice().to_vec(),
        vcpus,
    };
    if let Start::Copy(snapshot) = start {
        snapshot.host.check(&born.host)?;
        snapshot.board.check(born.tsc_khz)?;
        snapshot.board.restore_chips(machine)?;
    }
    for (vcpu, id) in born.vcpus.iter().zip(0u8..) {
        vcpu.set_cpuid2(&template.vcpu(u32::from(id))?)
            .map_err(kvm("set a vCPU's CPUID"))?;
        match start {
            Start::Boot(entry) => vcpu::prepare(vcpu, id == 0, *entry)?,
            Start::Copy(snapshot) => {
                if let Some(saved) = snapshot.vcpus.get(usize::from(id)) {
                    saved.restore(vcpu)?;
                }
            }
        }
    }
    Ok(born)
}

impl Machine {
    /// State and counters.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status {
            running: self.messages.is_some(),
            paused: self.is_paused(),
            launch_us: self.shared.launch_us.load(Ordering::Relaxed),
            exits: self.counters.exits.get(),
            ..Status::default()
        };
        for slot in self.slots.iter().flatten() {
            let counters = slot.device.counters();
            match counters {
                DeviceCounters::Disk(disk) => {
                    status.disk_read_bytes += disk.read_bytes;
                    status.disk_written_bytes += disk.written_bytes;
                }
                DeviceCounters::Nic(nic) => {
                    status.net_rx_bytes += nic.rx_bytes;
                    status.net_tx_bytes += nic.tx_bytes;
                }
                _ => {}
            }
            status.devices.push(DeviceStatus {
                name: slot.name.clone(),
                counters,
            });
        }
        status
    }

    /// Moves the console's output and input; true when the output has taken everything.
    ///
    /// # Errors
    /// As [`Console::drain`].
    pub fn drain_console(&mut self) -> io::Result<bool> {
        let result = self.console.drain(Duration::ZERO);
        self.type_in();
        result
    }

    /// Types into the serial port what has been read from the console's streams.
    pub fn type_in(&mut self) {
        self.console_end
            .read(|bytes| self.shared.bus.type_into_serial(bytes));
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// write(2)'s.
    pub fn press_power_button(&self) -> io::Result<()> {
        self.events.raise(Cause::PowerButton)
    }

    /// How many vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> u8 {
        u8::try_from(self.threads.len()).unwrap_or(u8::MAX)
    }

    /// Whether vCPUs are kept out of the guest.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.gate.is_closed()
    }

    /// Has every vCPU leave the guest; to be called until they have, which it says. They may need the event loop on
    /// their way.
    #[must_use]
    pub fn pause(&self) -> bool {
        let gate = &self.shared.gate;
        if !gate.is_closed() {
            gate.close();
        }
        let running = || self.threads.iter().filter(|thread| !thread.is_finished());
        if gate.waiting() >= running().count() {
            return true;
        }
        for thread in running() {
            // A thread that has ended meanwhile needs no signal.
            let _ = thread.kill(signals::kick_signal());
        }
        false
    }

    /// Lets the vCPUs go on.
    pub fn resume(&self) {
        self.shared.gate.open();
    }

    /// Waits for what devices have under way and makes durable what the guest wrote.
    pub fn flush(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            if let Err(error) = slot.device.flush() {
                tracing::error!(%error, device = slot.name, "what the guest wrote may not be durable");
            }
        }
    }

    /// Takes every vCPU out of the guest for good, makes disks durable and lets the console's last lines out.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.gate.open();
        // A vCPU that waits for the event loop is let go.
        self.messages = None;
        for thread in self.threads.drain(..) {
            // The signal is lost on a thread between its look at `stop` and KVM_RUN, so it is sent until it works.
            while !thread.is_finished() {
                if thread.kill(signals::kick_signal()).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
        self.flush();
        if let Err(error) = self.console.drain(Duration::from_millis(200)) {
            tracing::debug!(%error, "the console's last output is lost");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.messages.is_some() {
            self.stop();
        }
    }
}
