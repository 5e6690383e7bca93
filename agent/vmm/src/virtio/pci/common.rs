//! The common configuration structure (virtio 1.3, section 4.1.4.3): fields of one, two and four bytes, each accessed
//! in its own width; those of eight as two halves.

use crate::virtio::negotiate::Register;
use crate::virtio::{Change, Negotiator};

/// A field as a driver of this width finds it.
enum Field {
    Of(Register),
    /// The queue's place among the doorbells, which is its index.
    NotifyOffset,
}

fn decode(offset: u64, width: usize) -> Option<Field> {
    Some(Field::Of(match (offset, width) {
        (0x00, 4) => Register::DeviceFeaturesSelect,
        (0x04, 4) => Register::DeviceFeatures,
        (0x08, 4) => Register::DriverFeaturesSelect,
        (0x0c, 4) => Register::DriverFeatures,
        (0x10, 2) => Register::ConfigVector,
        (0x12, 2) => Register::QueueCount,
        (0x14, 1) => Register::Status,
        (0x15, 1) => Register::ConfigGeneration,
        (0x16, 2) => Register::QueueSelect,
        (0x18, 2) => Register::QueueSize,
        (0x1a, 2) => Register::QueueVector,
        (0x1c, 2) => Register::QueueReady,
        (0x1e, 2) => return Some(Field::NotifyOffset),
        (0x20, 4) => Register::QueueDescriptorsLow,
        (0x24, 4) => Register::QueueDescriptorsHigh,
        (0x28, 4) => Register::QueueDriverLow,
        (0x2c, 4) => Register::QueueDriverHigh,
        (0x30, 4) => Register::QueueDeviceLow,
        (0x34, 4) => Register::QueueDeviceHigh,
        _ => return None,
    }))
}

/// A driver's read; zeros where there is no field of this width.
pub fn read(negotiator: &Negotiator, offset: u64, data: &mut [u8]) {
    if data.len() == 8 {
        let (low, high) = data.split_at_mut(4);
        read(negotiator, offset, low);
        read(negotiator, offset.saturating_add(4), high);
        return;
    }
    let value = match decode(offset, data.len()) {
        Some(Field::Of(register)) => negotiator.read(register),
        Some(Field::NotifyOffset) => negotiator.read(Register::QueueSelect),
        None => 0,
    };
    for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = value;
    }
}

/// A driver's write; lost where there is no field of this width, or one that is only read.
pub fn write(negotiator: &mut Negotiator, offset: u64, data: &[u8]) -> Option<Change> {
    if let Some((low, high)) = data.split_at_checked(4)
        && high.len() == 4
    {
        // None of the fields of four bytes changes the device's life.
        let first = write(negotiator, offset, low);
        return write(negotiator, offset.saturating_add(4), high).or(first);
    }
    let Some(Field::Of(register)) = decode(offset, data.len()) else {
        return None;
    };
    let mut value = [0; 4];
    for (value, byte) in value.iter_mut().zip(data) {
        *value = *byte;
    }
    negotiator.write(register, u32::from_le_bytes(value))
}
