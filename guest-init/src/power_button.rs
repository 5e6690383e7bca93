//! The ACPI power button, as the kernel's button driver gives it to user space: a key of an input device.

use std::fs::{self, File};
use std::io::Read;
use std::thread;

/// `struct input_event` of linux/input.h on x86-64: a 16-byte time, then type, code, value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Calls `pressed` at each press; without a button, never.
pub fn watch(pressed: impl Fn() + Clone + Send + 'static) {
    let Ok(devices) = fs::read_dir("/dev/input") else {
        return;
    };
    for device in devices.flatten() {
        let Ok(mut device) = File::open(device.path()) else {
            continue;
        };
        let pressed = pressed.clone();
        let wait = move || {
            let mut event = [0; EVENT_BYTES];
            while device.read_exact(&mut event).is_ok() {
                if is_press(&event) {
                    pressed();
                }
            }
        };
        let _ = thread::Builder::new()
            .name("power button".to_owned())
            .spawn(wait);
    }
}

fn is_press(event: &[u8; EVENT_BYTES]) -> bool {
    let kind = u16::from_ne_bytes([event[16], event[17]]);
    let code = u16::from_ne_bytes([event[18], event[19]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (kind, code, value) == (EV_KEY, KEY_POWER, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        let mut event = [0; EVENT_BYTES];
        event[16] = 1;
        event[18] = 116;
        assert!(!is_press(&event), "a release");
        event[20] = 1;
        assert!(is_press(&event));
        event[18] = 30;
        assert!(!is_press(&event), "another key");
    }
}
