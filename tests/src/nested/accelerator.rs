//! What makes a nested machine's processor.

use std::fs::{self, File};

use super::Clock;

/// A processor in software, with SVM. Without XSAVE: its emulation lets a guest's XSETBV past KVM, and guests then find
/// sizes that contradict one another. Nor, then, what cannot be used without it.
pub const EMULATED_CPU: &str = "max,+svm,+npt,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq";

/// The same without fast string instructions: each byte that one of them moves would count as an instruction, where
/// processors move dozens at once. Kernels and libraries then move eight or sixteen.
const COUNTED_CPU: &str =
    "max,+svm,+npt,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-erms,-fsrm";

/// What makes the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Emulation,
    CountedEmulation,
    Kvm { intel: bool },
}

impl Accelerator {
    /// The best this host has for such a clock.
    pub fn choose(clock: Clock) -> Self {
        if clock == Clock::Instructions {
            return Accelerator::CountedEmulation;
        }
        // KVM may be there without either extension (paravirtual hosts); a stock kernel does not get far on those.
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag| flags.split_ascii_whitespace().any(|word| word == flag);
        let usable = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        match (usable, has("vmx"), has("svm")) {
            (true, true, _) => Accelerator::Kvm { intel: true },
            (true, _, true) => Accelerator::Kvm { intel: false },
            _ => Accelerator::Emulation,
        }
    }

    /// QEMU's.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Accelerator::Emulation => &["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU],
            Accelerator::CountedEmulation => &[
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                COUNTED_CPU,
            ],
            Accelerator::Kvm { .. } => &["-accel", "kvm", "-cpu", "host"],
        }
    }

    /// What the machine's kernel has to load for its own `/dev/kvm`.
    pub fn kvm_module(self) -> &'static str {
        match self {
            Accelerator::Kvm { intel: true } => "kvm-intel",
            _ => "kvm-amd",
        }
    }
}
