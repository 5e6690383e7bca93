//! What a process takes, as the kernel tells it.

use std::fs;
use std::path::Path;

/// Resident and private memory of a process beyond its guest's, KiB; `None` when it is gone.
pub fn beyond(pid: u32, guest_kib: u64) -> Option<(u64, u64)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    // An exited process has none.
    (!smaps.is_empty()).then(|| sum_beyond(&smaps, guest_kib))
}

/// Sums `Rss` and the `Private_*` pages over all mappings but the guest's memory: those of at least three quarters of
/// its size (the rest may be mapped on its own, around a hole). Values in KiB.
fn sum_beyond(smaps: &str, guest_kib: u64) -> (u64, u64) {
    let (mut resident, mut private) = (0, 0);
    let mut is_guest = false;
    for line in smaps.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        let kib = || {
            value
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap_or(0)
        };
        match field {
            // The first field of each mapping.
            "Size" => is_guest = kib() >= guest_kib * 3 / 4,
            "Rss" if !is_guest => resident += kib(),
            "Private_Clean" | "Private_Dirty" if !is_guest => private += kib(),
            _ => {}
        }
    }
    (resident, private)
}

/// Exits from the guest so far, by KVM's own counter: `/sys/kernel/debug/kvm/<pid>-<fd>/exits`.
pub fn exits(pid: u32) -> Option<u64> {
    let prefix = format!("{pid}-");
    let machine = fs::read_dir(Path::new("/sys/kernel/debug/kvm"))
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))?;
    fs::read_to_string(machine.path().join("exits"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_left_out_of_the_sum() {
        let smaps = "\
55d0c8a00000-55d0c8a21000 r--p 00000000 fe:00 1234 /usr/bin/vmm
Size:                132 kB
Rss:                 100 kB
Private_Clean:        40 kB
Private_Dirty:         4 kB
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:               20000 kB
Private_Clean:         0 kB
Private_Dirty:     20000 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Size:                132 kB
Rss:                  12 kB
Private_Dirty:        12 kB
";
        assert_eq!(sum_beyond(smaps, 128 * 1024), (112, 56));
    }
}
