//! The guest's side of COM1, a 16550.

use std::io;

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, SerialState, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::ConsoleEnd;

/// COM1 as the bus has it.
pub type Com1 = Serial<SerialLine, InputTaken, ConsoleEnd>;

/// COM1's interrupt.
#[derive(Debug)]
pub struct SerialLine(pub EventFd);

impl Trigger for SerialLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Has the event loop bring more input when the guest has taken what there was.
#[derive(Debug)]
pub struct InputTaken(ConsoleEnd);

impl SerialEvents for InputTaken {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.0.wake();
    }
}

/// A serial port whose output goes into the console.
#[must_use]
pub fn com1(line: EventFd, console: ConsoleEnd) -> Com1 {
    Serial::with_events(SerialLine(line), InputTaken(console.clone()), console)
}

/// One that goes on from a state.
///
/// # Errors
/// More has been typed than it has room for, or its line cannot be raised.
pub fn com1_from(
    state: &SerialState,
    line: EventFd,
    console: ConsoleEnd,
) -> Result<Com1, vm_superio::serial::Error<io::Error>> {
    Serial::from_state(
        state,
        SerialLine(line),
        InputTaken(console.clone()),
        console,
    )
}

/// Types into the port as much as its FIFO has room for; how many bytes that was.
pub fn type_into(com1: &mut Com1, bytes: &[u8]) -> usize {
    let room = com1.fifo_capacity().min(bytes.len());
    if room == 0 {
        return 0;
    }
    com1.enqueue_raw_bytes(&bytes[..room]).unwrap_or(0)
}
