//! A kernel of any content: ELF, bzImage, or neither.

#![no_main]

use std::fs::File;
use std::io::{Seek, Write};

use crn_protocol::control::Transport;
use crn_vmm::boot::{Payload, load};
use crn_vmm::memory::Ram;
use crn_vmm::plan::Plan;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::GuestAddress;

fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("kernel", MemfdFlags::CLOEXEC).expect("a file"));
    file.write_all(bytes).expect("room");
    file.rewind().expect("a file");
    file
}

fuzz_target!(|kernel: &[u8]| {
    let plan = Plan::new(1, 32, Transport::Pci, 1);
    let ram = Ram::from_ranges(&[(GuestAddress(0), 32 << 20)]).expect("memory");
    let payload = Payload {
        kernel: file(kernel),
        initramfs: Some(file(b"an archive")),
        cmdline: "console=ttyS0".to_owned(),
    };
    // Whether it can be started is its own affair.
    let _ = load(&ram, &plan, payload);
});
