//! From a checked description to running vCPUs, and back to nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crn_protocol::control::Status;
use crn_protocol::devices::{DeviceCounters, DeviceStatus};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::Killable;

use super::bus::{Bus, FromVcpu, ToLoop};
use super::cpuid::Template;
use super::{signals, vcpu, vm};
use crate::control::Blueprint;
use crate::devices::balloon::Balloon;
use crate::devices::block::Block;
use crate::devices::console::device::VirtioConsole;
use crate::devices::console::{Console, ConsoleEnd, serial};
use crate::devices::net::Net;
use crate::devices::pmem::{self, Pmem};
use crate::devices::rng::Rng;
use crate::devices::vsock::Vsock;
use crate::devices::{Context, Counters, Device, GuestConnects, SharedCounters};
use crate::error::{kvm, os};
use crate::fd::of_event;
use crate::memory::image::Image;
use crate::memory::{self, Ram};
use crate::plan::Plan;
use crate::plan::layout::{POWER_GSI, RamLayout, Range, SERIAL_GSI};
use crate::poller::{Poller, Token};
use crate::virtio::mmio::MmioTransport;
use crate::virtio::{Interrupt, Negotiator, Offer};
use crate::{Error, Result, boot};

/// Messages from vCPUs that wait for the event loop: each vCPU sends one and waits.
const VCPU_MESSAGES: usize = 128;

/// A device with queues and what belongs to it.
pub struct Slot {
    /// Its name to the controller.
    pub name: String,
    /// The device.
    pub device: Box<dyn Device>,
    /// Its way to the driver.
    pub interrupt: Interrupt,
    /// One for each queue.
    pub doorbells: Vec<Arc<EventFd>>,
    /// It broke down and is not called until it is reset.
    pub faulted: bool,
}

/// A running machine, owned by the event loop.
pub struct Machine {
    /// The item hash, for log lines.
    pub name: String,
    /// Devices, by index.
    pub slots: Vec<Slot>,
    /// The console's output.
    pub console: Console,
    console_end: ConsoleEnd,
    /// What vCPUs say; `None` once the machine stops.
    pub messages: Option<Receiver<FromVcpu>>,
    /// Counts up with every message.
    pub kick: Arc<EventFd>,
    power_button: EventFd,
    shared: Arc<vcpu::Shared>,
    counters: SharedCounters,
    threads: Vec<JoinHandle<()>>,
    /// Dropped after the threads have ended, and before the memory it maps.
    _vm: VmFd,
    /// Guest memory.
    pub ram: Arc<Ram>,
    _images: Vec<Image>,
}

fn event() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK).map_err(os("create an event descriptor"))
}

/// Builds a machine and runs it.
///
/// # Errors
/// See [`Error`]; nothing is left behind.
pub fn launch(
    blueprint: Blueprint,
    started: Instant,
    poller: &Poller,
    guest_connects: &mut GuestConnects,
) -> Result<Machine> {
    let host = vm::open()?;
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

    let mut devices: Vec<(String, Box<dyn Device>, Offer)> = Vec::new();
    for (index, disk) in blueprint.disks.into_iter().enumerate() {
        let (block, offer) = Block::new(
            disk.file,
            disk.read_only,
            &disk.serial,
            u16::from(blueprint.vcpus),
            disk.engine,
            &disk.limits,
        )
        .map_err(|source| Error::Disk { index, source })?;
        let name = match disk.serial {
            serial if serial.is_empty() => format!("disk{index}"),
            serial => serial,
        };
        devices.push((name, Box::new(block), offer));
    }
    for (index, nic) in blueprint.nics.into_iter().enumerate() {
        let (net, offer) = Net::new(nic.taps, nic.mac, nic.mtu, &nic.limits)
            .map_err(|source| Error::Nic { index, source })?;
        devices.push((format!("nic{index}"), Box::new(net), offer));
    }
    if let Some((cid, listener)) = blueprint.vsock {
        let (vsock, offer) = Vsock::new(cid, listener).map_err(os("use the vsock listener"))?;
        devices.push(("vsock".to_owned(), Box::new(vsock), offer));
    }
    let (rng, offer) = Rng::new(&blueprint.entropy);
    devices.push(("rng".to_owned(), Box::new(rng), offer));

    if let Some(target_mib) = blueprint.balloon {
        let (balloon, offer) = Balloon::new(target_mib);
        devices.push(("balloon".to_owned(), Box::new(balloon), offer));
    }
    if blueprint.console.virtio {
        let (virtio_console, offer) = VirtioConsole::new(&console_end);
        devices.push(("console".to_owned(), Box::new(virtio_console), offer));
    }
    let mut images = Vec::with_capacity(blueprint.pmem.len());
    let mut places = Vec::with_capacity(blueprint.pmem.len());
    let mut free = RamLayout::new(blueprint.memory_mib)
        .regions()
        .last()
        .map_or(0, Range::end);
    for (index, file) in blueprint.pmem.iter().enumerate() {
        let (image, place) =
            pmem::map(file, free).map_err(|source| Error::Pmem { index, source })?;
        free = place.end();
        images.push(image);
        places.push(place);
        let (device, offer) = Pmem::new(place);
        devices.push((format!("pmem{index}"), Box::new(device), offer));
    }

    let plan = Plan::new(blueprint.vcpus, blueprint.memory_mib, devices.len() as u8);
    let ram = Arc::new(memory::map(&plan.ram)?);
    let machine = vm::create(&host, &ram)?;
    for (index, (image, place)) in images.iter().zip(&places).enumerate() {
        vm::map_image(&host, &machine, ram.num_regions() + index, image, *place)?;
    }
    let entry = boot::load(&ram, &plan, blueprint.payload)?;

    let mut slots = Vec::with_capacity(devices.len());
    let mut transports = Vec::with_capacity(devices.len());
    for ((name, device, offer), place) in devices.into_iter().zip(&plan.virtio) {
        let interrupt = Interrupt::new().map_err(os("create an event descriptor"))?;
        vm::connect_interrupt(&machine, interrupt.line(), place.gsi)?;
        let mut doorbells = Vec::with_capacity(offer.queue_sizes.len());
        for queue in 0..offer.queue_sizes.len() {
            let doorbell = Arc::new(event()?);
            vm::connect_doorbell(&machine, &doorbell, *place, queue as u32)?;
            let token = Token::Queue {
                device: slots.len() as u8,
                queue: queue as u8,
            };
            poller
                .add_readable(of_event(&doorbell), token)
                .map_err(os("watch a doorbell"))?;
            doorbells.push(doorbell);
        }
        let negotiator = Negotiator::new(
            offer,
            interrupt.clone(),
            doorbells.clone(),
            Arc::clone(&ram),
        );
        transports.push(MmioTransport::new(negotiator));
        let mut slot = Slot {
            name,
            device,
            interrupt,
            doorbells,
            faulted: false,
        };
        let mut context = Context {
            ram: &ram,
            poller,
            interrupt: &slot.interrupt,
            index: slots.len() as u8,
            guest_connects,
        };
        slot.device
            .start(&mut context)
            .map_err(os("watch a device's descriptor"))?;
        slots.push(slot);
    }

    let (power_button, serial_line) = (event()?, event()?);
    vm::connect_interrupt(&machine, &power_button, POWER_GSI)?;
    vm::connect_interrupt(&machine, &serial_line, SERIAL_GSI)?;
    poller
        .add_readable(of_event(console.kick()), Token::Console)
        .map_err(os("watch the console"))?;
    let com1 = serial::com1(serial_line, console_end.clone());

    let (sender, messages) = sync_channel(VCPU_MESSAGES);
    let kick = Arc::new(event()?);
    poller
        .add_readable(of_event(&kick), Token::Vcpus)
        .map_err(os("watch the vCPUs"))?;
    let shared = Arc::new(vcpu::Shared {
        bus: Bus::new(transports, com1, ToLoop::new(sender, Arc::clone(&kick))),
        stop: AtomicBool::new(false),
        started,
        launch_us: AtomicU64::new(0),
        counters: Arc::clone(&counters),
    });
    let vcpus = create_vcpus(&host, &machine, plan.vcpus, entry)?;
    signals::prepare_kick().map_err(os("prepare a signal"))?;
    let mut machine = Machine {
        name: blueprint.vm,
        console_end,
        slots,
        console,
        messages: Some(messages),
        kick,
        power_button,
        shared,
        counters,
        threads: Vec::with_capacity(vcpus.len()),
        _vm: machine,
        ram,
        _images: images,
    };
    // From here on an error takes the started threads down with the machine.
    for (index, vcpu) in vcpus.into_iter().enumerate() {
        let shared = Arc::clone(&machine.shared);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || vcpu::run(vcpu, &shared))
            .map_err(os("start a vCPU's thread"))?;
        machine.threads.push(thread);
    }
    Ok(machine)
}

fn create_vcpus(host: &Kvm, machine: &VmFd, count: u8, entry: boot::Entry) -> Result<Vec<VcpuFd>> {
    let mut vcpus = Vec::with_capacity(usize::from(count));
    let mut template = None;
    for id in 0..count {
        let vcpu = machine
            .create_vcpu(u64::from(id))
            .map_err(kvm("create a vCPU"))?;
        let template = match &template {
            Some(template) => template,
            None => {
                let khz = host
                    .check_extension(Cap::GetTscKhz)
                    .then(|| vcpu.get_tsc_khz().ok())
                    .flatten();
                template.insert(Template::new(host, count, khz)?)
            }
        };
        vcpu.set_cpuid2(&template.vcpu(u32::from(id))?)
            .map_err(kvm("set a vCPU's CPUID"))?;
        vcpu::prepare(&vcpu, id == 0, entry)?;
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}

impl Machine {
    /// State and counters.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status {
            running: self.messages.is_some(),
            launch_us: self.shared.launch_us.load(Ordering::Relaxed),
            exits: self.counters.exits.get(),
            ..Status::default()
        };
        for slot in &self.slots {
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
        self.power_button.write(1)
    }

    /// Takes every vCPU out of the guest for good, makes disks durable and lets the console's last lines out.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
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
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Err(error) = slot.device.flush() {
                tracing::error!(%error, device = index, "what the guest wrote may not be durable");
            }
        }
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
