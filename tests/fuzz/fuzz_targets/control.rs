//! What comes over the control socket: lines, and machines that they describe.

#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use crn_protocol::control::{Command, Request};
use crn_protocol::lines::LineBuffer;
use crn_vmm::control::{Blueprint, Disk};
use libfuzzer_sys::fuzz_target;

fn descriptors() -> Vec<OwnedFd> {
    (0..5)
        .map(|_| File::open("/dev/null").expect("/dev/null").into())
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = LineBuffer::default();
    // However it comes in, the same lines come out.
    for piece in bytes.chunks(61) {
        if lines.push(piece).is_err() {
            return;
        }
        loop {
            match lines.next::<Command>() {
                Ok(Some(command)) => match command.request {
                    Request::Launch(spec) => drop(Blueprint::new(*spec, descriptors())),
                    Request::Restore(spec) => drop(Blueprint::restored(*spec, descriptors())),
                    Request::AttachDisk(spec) => drop(Disk::attached(spec, descriptors())),
                    _ => {}
                },
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
