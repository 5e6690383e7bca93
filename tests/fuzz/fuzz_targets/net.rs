//! A NIC's two directions whose driver is hostile; what comes from the network is random as well.

#![no_main]

use std::cell::RefCell;
use std::io;
use std::time::Instant;

use crn_fuzz::{Rig, Script, Step};
use crn_protocol::devices::{Limits, NicCounters};
use crn_vmm::devices::limiter::Limiter;
use crn_vmm::devices::net::receive::{Receiver, Source};
use crn_vmm::devices::net::send::{Sender, Sink};
use libfuzzer_sys::fuzz_target;
use vm_memory::VolatileSlice;

/// Takes everything, and looks at every byte of it.
struct Wire(RefCell<Vec<Vec<u8>>>);

impl Sink for Wire {
    fn write(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut bytes = [0; 512];
        Ok(packet
            .iter()
            .map(|slice| slice.copy_to(&mut bytes[..]).max(slice.len()))
            .sum())
    }
}

impl Source for Wire {
    fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.0.borrow_mut().pop().ok_or(io::ErrorKind::WouldBlock)?;
        let count = next.len().min(packet.len());
        packet[..count].copy_from_slice(&next[..count]);
        Ok(count)
    }

    fn scatter(&self, packet: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let next = self.0.borrow_mut().pop().ok_or(io::ErrorKind::WouldBlock)?;
        let mut rest = next.as_slice();
        for slice in packet {
            let count = rest.len().min(slice.len());
            slice.copy_from(&rest[..count]);
            rest = &rest[count..];
        }
        Ok(next.len() - rest.len())
    }
}

fuzz_target!(|input: (bool, bool, Script, Vec<Vec<u8>>)| {
    let (mergeable, event_idx, script, packets) = input;
    let rig = Rig::default();
    rig.prepare(&script, 2);
    let wire = Wire(RefCell::new(packets));
    let (mut receiver, mut sender) = (Receiver::default(), Sender::default());
    receiver.set_queue(Some(rig.queue(0, event_idx)), mergeable);
    sender.set_queue(Some(rig.queue(1, event_idx)));
    let mut now = Instant::now();
    let mut limiter = Limiter::new(&Limits::default(), now);
    let mut counters = NicCounters::default();
    for step in script.steps().take(64) {
        rig.write(step);
        match step {
            Step::Offer { queue, head } => rig.offer(queue % 2, *head),
            Step::Ready { .. } => receiver.readable(),
            Step::Wait { ms } => now += std::time::Duration::from_millis((*ms).into()),
            _ => {}
        }
        let ram = rig.ram();
        let sent = sender.send(&wire, ram, &mut limiter, &mut counters, now);
        let received = receiver.receive(&wire, ram, &mut limiter, &mut counters, now);
        if sent.and(received).is_err() {
            return;
        }
    }
});
