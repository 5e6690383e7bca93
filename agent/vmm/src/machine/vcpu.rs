//! A vCPU: its first registers, and the thread that runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crn_protocol::control::ExitReason;
use kvm_bindings::{Msrs, kvm_fpu, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::bus::{Bus, FromVcpu};
use super::gate::Gate;
use crate::boot::Entry;
use crate::devices::SharedCounters;
use crate::error::{chain, kvm};
use crate::plan::layout::{BOOT_STACK, GDT, PAGE_TABLES, PVH_START_INFO, ZERO_PAGE};
use crate::sandbox::{Role, install};
use crate::snapshot::vcpu::Vcpu;
use crate::{Error, Result};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;

const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// MTRRs on, everything write-back: the guest's page attributes decide.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;

/// Local vector table entries of the local APIC and their delivery modes (Intel SDM, 11.5.1).
const APIC_LVT_LINT0: usize = 0x350;
const APIC_LVT_LINT1: usize = 0x360;
const APIC_MODE_EXTINT: u32 = 7 << 8;
const APIC_MODE_NMI: u32 = 4 << 8;

/// Selectors that the 64-bit boot protocol asks for; PVH takes any.
pub const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;

/// The descriptors of the boot GDT, by selector.
pub const GDT_ENTRIES: [u64; 5] = [
    0,
    0,
    // Code: present, readable, accessed, 32-bit; long mode has [`CODE_64`] instead.
    0x00cf_9b00_0000_ffff,
    // Data: present, writable, accessed, 4 GiB.
    0x00cf_9300_0000_ffff,
    // A task segment: present, busy.
    0x008f_8b00_0000_ffff,
];
/// The same code segment in long mode: L set, D clear.
pub const CODE_64: u64 = 0x00af_9b00_0000_ffff;

fn segment(selector: u16, kind: u8, system: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: u8::from(system),
        l: 0,
        g: 1,
        ..Default::default()
    }
}

/// Sets a vCPU up. The first one starts at the kernel's entry; the others wait for it in their reset state.
///
/// # Errors
/// [`Error::Kvm`].
pub fn prepare(vcpu: &VcpuFd, first: bool, entry: Entry) -> Result<()> {
    let entries = [
        kvm_msr_entry {
            index: MSR_MTRR_DEFAULT_TYPE,
            data: MTRR_WRITE_BACK,
            ..Default::default()
        },
        kvm_msr_entry {
            index: MSR_MISC_ENABLE,
            data: MISC_ENABLE_FAST_STRING,
            ..Default::default()
        },
    ];
    let msrs = Msrs::from_entries(&entries)
        .map_err(|_| Error::Kvm("take so many MSRs", std::io::ErrorKind::InvalidInput.into()))?;
    // KVM stops at the first one it does not have; none of these is vital.
    vcpu.set_msrs(&msrs).map_err(kvm("set a vCPU's MSRs"))?;
    let fpu = kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    };
    vcpu.set_fpu(&fpu)
        .map_err(kvm("set a vCPU's floating point registers"))?;
    let mut lapic = vcpu.get_lapic().map_err(kvm("read a local APIC"))?;
    set_delivery_mode(&mut lapic, APIC_LVT_LINT0, APIC_MODE_EXTINT);
    set_delivery_mode(&mut lapic, APIC_LVT_LINT1, APIC_MODE_NMI);
    vcpu.set_lapic(&lapic).map_err(kvm("set a local APIC"))?;
    if first {
        set_entry(vcpu, entry)
    } else {
        Ok(())
    }
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let mut bytes = [0; 4];
    for (byte, value) in bytes.iter_mut().zip(&lapic.regs[register..]) {
        *byte = *value as u8;
    }
    let value = u32::from_le_bytes(bytes) & !0x700 | mode;
    for (register, byte) in lapic.regs[register..].iter_mut().zip(value.to_le_bytes()) {
        *register = byte as _;
    }
}

fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let mut sregs = vcpu.get_sregs().map_err(kvm("read a vCPU's segments"))?;
    let mut code = segment(BOOT_CS, 0xb, true);
    let data = segment(BOOT_DS, 0x3, true);
    let mut task = segment(BOOT_TSS, 0xb, false);
    let regs = match entry {
        Entry::Pvh(address) => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            task.limit = 0x67;
            (task.g, task.db) = (0, 0);
            kvm_regs {
                rip: address,
                rbx: PVH_START_INFO,
                rflags: RFLAGS,
                ..Default::default()
            }
        }
        Entry::Linux64(address) => {
            (code.l, code.db) = (1, 0);
            sregs.cr3 = PAGE_TABLES;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PE | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
            kvm_regs {
                rip: address,
                rsi: ZERO_PAGE,
                rsp: BOOT_STACK,
                rbp: BOOT_STACK,
                rflags: RFLAGS,
                ..Default::default()
            }
        }
    };
    (sregs.cs, sregs.tr) = (code, task);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (size_of_val(&GDT_ENTRIES) - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    vcpu.set_sregs(&sregs)
        .map_err(kvm("set a vCPU's segments"))?;
    vcpu.set_regs(&regs).map_err(kvm("set a vCPU's registers"))
}

/// What all vCPU threads share.
pub struct Shared {
    /// Where registers are.
    pub bus: Bus,
    /// Set when the machine is to stop; a kick signal follows until the thread has seen it.
    pub stop: AtomicBool,
    /// Where vCPUs wait while the machine is paused.
    pub gate: Gate<(u8, Result<Vcpu>)>,
    /// Those of which a snapshot has the values.
    pub msrs: Vec<u32>,
    /// The process's start.
    pub started: Instant,
    /// Microseconds from there to the first entry into the guest; 0 before.
    pub launch_us: AtomicU64,
    /// Exits are counted.
    pub counters: SharedCounters,
}

/// Runs a vCPU until the machine stops, in a thread that may do nothing else afterwards.
pub fn run(index: u8, mut vcpu: VcpuFd, shared: &Arc<Shared>, role: Role) {
    if let Err(error) = install(role) {
        let (reason, detail) = (ExitReason::Failed, chain(&error));
        return shared
            .bus
            .to_loop()
            .send(FromVcpu::Stopped { reason, detail });
    }
    let entered = u64::try_from(shared.started.elapsed().as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let _ = shared
        .launch_us
        .compare_exchange(0, entered, Ordering::Relaxed, Ordering::Relaxed);
    while !shared.stop.load(Ordering::Acquire) {
        if shared.gate.is_closed() {
            if let Some((reason, detail)) = complete(&mut vcpu, shared) {
                return shared
                    .bus
                    .to_loop()
                    .send(FromVcpu::Stopped { reason, detail });
            }
            shared
                .gate
                .wait(|| (index, Vcpu::save(&vcpu, &shared.msrs)));
            // The guest's watchdogs are told that the time away was no hang; one without kvm-clock cannot be told.
            let _ = vcpu.kvmclock_ctrl();
            continue;
        }
        if let Turn::End(reason, detail) = run_once(&mut vcpu, shared) {
            shared
                .bus
                .to_loop()
                .send(FromVcpu::Stopped { reason, detail });
            return;
        }
    }
}

/// What an entry into the guest has come to.
enum Turn {
    /// Nothing: a signal.
    Interrupted,
    /// The guest's exit has been answered.
    Answered,
    /// The machine is at its end.
    End(ExitReason, String),
}

/// Has KVM carry out what the answer to the guest's last exit means for its registers, without entering the guest: they
/// are only right then. `Some` when the machine is at its end.
fn complete(vcpu: &mut VcpuFd, shared: &Shared) -> Option<(ExitReason, String)> {
    vcpu.set_kvm_immediate_exit(1);
    // An instruction may have more than one exit.
    let end = loop {
        match run_once(vcpu, shared) {
            Turn::End(reason, detail) => break Some((reason, detail)),
            Turn::Interrupted => break None,
            Turn::Answered if !shared.gate.is_closed() => break None,
            Turn::Answered => {}
        }
    };
    vcpu.set_kvm_immediate_exit(0);
    end
}

/// Enters the guest once.
fn run_once(vcpu: &mut VcpuFd, shared: &Shared) -> Turn {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            return Turn::Interrupted;
        }
        Err(error) => {
            let detail = format!("KVM cannot run a vCPU: {error}");
            return Turn::End(ExitReason::Failed, detail);
        }
    };
    shared.counters.exits.add(1);
    match answer(exit, shared) {
        Answer::Done => Turn::Answered,
        Answer::End(reason, detail) => Turn::End(reason, detail),
        Answer::Failed(failure) => {
            let at = vcpu.get_regs().map_or(0, |regs| regs.rip);
            Turn::End(ExitReason::Failed, format!("{failure} (rip {at:#x})"))
        }
    }
}

enum Answer {
    Done,
    End(ExitReason, String),
    /// The vCPU cannot go on.
    Failed(String),
}

fn answer(exit: VcpuExit<'_>, shared: &Shared) -> Answer {
    match exit {
        VcpuExit::IoOut(port, data) => {
            if let Some(reason) = shared.bus.port_write(port, data) {
                return Answer::End(reason, String::new());
            }
        }
        VcpuExit::IoIn(port, data) => shared.bus.port_read(port, data),
        VcpuExit::MmioRead(address, data) => shared.bus.memory_read(address, data),
        VcpuExit::MmioWrite(address, data) => shared.bus.memory_write(address, data),
        VcpuExit::Hlt
        | VcpuExit::Intr
        | VcpuExit::IrqWindowOpen
        | VcpuExit::SetTpr
        | VcpuExit::Nmi => {}
        VcpuExit::Shutdown => return Answer::End(ExitReason::Reset, "triple fault".to_owned()),
        VcpuExit::SystemEvent(kind, _) => {
            return match kind {
                kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => {
                    Answer::End(ExitReason::PowerOff, String::new())
                }
                kvm_bindings::KVM_SYSTEM_EVENT_RESET => {
                    Answer::End(ExitReason::Reset, String::new())
                }
                kind => Answer::End(
                    ExitReason::Failed,
                    format!("KVM reports system event {kind}"),
                ),
            };
        }
        VcpuExit::FailEntry(reason, cpu) => {
            return Answer::Failed(format!(
                "the processor refuses to enter the guest: reason {reason:#x} on CPU {cpu}"
            ));
        }
        exit => return Answer::Failed(format!("KVM gives up on a vCPU: {exit:?}")),
    }
    Answer::Done
}
