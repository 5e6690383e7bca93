//! ACPI sleep and reset registers: how a guest says that it is done.

use crn_protocol::control::ExitReason;

use crate::plan::acpi::S5_SLEEP_TYPE;
use crate::plan::layout::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};

/// Bits of the sleep control register (ACPI 6.5, table 4.19).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;
/// The keyboard controller's command port and its "pulse reset" command: what `reboot=k` and old kernels use.
const KEYBOARD_COMMAND_PORT: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// Code for real mode that resets the machine: `mov dx, RESET_PORT; mov al, RESET_VALUE; out dx, al; hlt; jmp` back to
/// the `hlt`. Where there is no EFI, Linux restarts a hardware-reduced machine by jumping to where its BIOS would be.
pub const RESET_CODE: [u8; 9] = {
    let [low, high] = RESET_PORT.to_le_bytes();
    [0xba, low, high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};

/// What a write to an I/O port says about the machine's end, if anything.
#[must_use]
pub const fn port_write(port: u16, value: u8) -> Option<ExitReason> {
    match port {
        SLEEP_CONTROL_PORT
            if value & SLEEP_ENABLE != 0
                && value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == S5_SLEEP_TYPE =>
        {
            Some(ExitReason::PowerOff)
        }
        RESET_PORT if value == RESET_VALUE => Some(ExitReason::Reset),
        KEYBOARD_COMMAND_PORT if value == KEYBOARD_RESET => Some(ExitReason::Reset),
        _ => None,
    }
}

/// What one of the registers reads as; `None` for other ports.
#[must_use]
pub const fn port_read(port: u16) -> Option<u8> {
    match port {
        SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT | RESET_PORT => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_values_end_the_machine() {
        assert_eq!(
            port_write(SLEEP_CONTROL_PORT, 0x34),
            Some(ExitReason::PowerOff)
        );
        assert_eq!(port_write(SLEEP_CONTROL_PORT, 0x14), None);
        assert_eq!(port_write(SLEEP_CONTROL_PORT, 0x2c), None);
        assert_eq!(port_write(SLEEP_STATUS_PORT, 0x80), None);
        assert_eq!(port_write(RESET_PORT, RESET_VALUE), Some(ExitReason::Reset));
        assert_eq!(port_write(RESET_PORT, 0), None);
        assert_eq!(port_write(0x64, 0xfe), Some(ExitReason::Reset));
    }
}
