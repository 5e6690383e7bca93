//! The largest machine there is, under the host's own KVM: its last byte is memory. Without /dev/kvm, or without root,
//! nothing is tested.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[allow(dead_code, reason = "this machine is started from the command line")]
mod support;

use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

use crn_protocol::control::ExitReason;

/// Maps the last 2 MiB of 512 GiB (3 GiB of them stand below the gap for devices, so that they end at 513 GiB), writes
/// their last eight bytes, reads them back, writes 'Y' or 'N' to COM1, and powers off.
#[rustfmt::skip]
const GUEST: &[u8] = &[
    // The second entry of the PML4 leads to a table at 3 MiB, its first to one above; that one's last is the page.
    0xc7, 0x04, 0x25, 0x08, 0x90, 0x00, 0x00, 0x03, 0x00, 0x30, 0x00, // mov dword [0x9008], 0x300003
    0xc7, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, 0x03, 0x10, 0x30, 0x00, // mov dword [0x300000], 0x301003
    0x48, 0xb8, 0x83, 0x00, 0xe0, 0x3f, 0x80, 0x00, 0x00, 0x00, // mov rax, 0x803fe00083
    0x48, 0x89, 0x04, 0x25, 0xf8, 0x1f, 0x30, 0x00, // mov [0x301ff8], rax
    0x48, 0xbb, 0xf8, 0xff, 0xff, 0x3f, 0x80, 0x00, 0x00, 0x00, // mov rbx, 0x803ffffff8
    0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // mov rax, 0x1122334455667788
    0x48, 0x89, 0x03, // mov [rbx], rax
    0x48, 0x8b, 0x0b, // mov rcx, [rbx]
    0x48, 0x39, 0xc1, // cmp rcx, rax
    0xb0, 0x59, 0x74, 0x02, 0xb0, 0x4e, // mov al, 'Y'; je +2; mov al, 'N'
    0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
    0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, // mov dx, 0x600; mov al, 0x34; out dx, al
    0xeb, 0xfe, // jmp $
];

/// R17: a machine of 30 GiB and more did not start when its console was logged. This one's is all that it says.
#[test]
fn a_machine_has_sixty_four_vcpus_and_half_a_tebibyte() {
    if support::kvm().is_none() {
        return;
    }
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    let mut image = Vec::new();
    let mut elf = support::kernel(&[(support::LOAD, GUEST)]);
    elf.rewind().unwrap();
    elf.read_to_end(&mut image).unwrap();
    kernel.write_all(&image).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_crn-vmm"))
        .args(["run", "--vcpus", "64", "--memory", "524288", "--kernel"])
        .arg(kernel.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(i32::from(ExitReason::PowerOff.code())),
        "{errors}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Y", "{errors}");
}
