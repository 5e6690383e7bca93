//! What guest and host may leave undone in packets: feature bits on one side, TAP flags on the other.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
};

/// linux/if_tun.h: checksums.
pub const TUN_F_CSUM: u32 = 0x01;
/// TCP segmentation over IPv4.
pub const TUN_F_TSO4: u32 = 0x02;
/// TCP segmentation over IPv6.
pub const TUN_F_TSO6: u32 = 0x04;
/// UDP fragmentation.
pub const TUN_F_UFO: u32 = 0x10;
/// UDP segmentation over both IP versions: the kernel takes the pair only (Linux 6.2).
pub const TUN_F_USO: u32 = 0x20 | 0x40;

const fn bits(bits: &[u32]) -> u64 {
    let mut sum = 0;
    let mut index = 0;
    while index < bits.len() {
        sum |= 1 << bits[index];
        index += 1;
    }
    sum
}

const ALWAYS: u64 = bits(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
]);
const UFO: u64 = bits(&[VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_HOST_UFO]);
const GUEST_USO: u64 = bits(&[VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6]);
const USO: u64 = GUEST_USO | bits(&[VIRTIO_NET_F_HOST_USO]);

/// The offloads a driver can switch while the device runs (virtio 1.3, section 5.1.6.5.6.1).
pub const GUEST: u64 = GUEST_USO
    | bits(&[
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_UFO,
    ]);

/// The feature bits a TAP that takes these flags allows.
#[must_use]
pub const fn features(tap: u32) -> u64 {
    let mut features = ALWAYS;
    if tap & TUN_F_UFO != 0 {
        features |= UFO;
    }
    if tap & TUN_F_USO == TUN_F_USO {
        features |= USO;
    }
    features
}

/// The TAP flags for what the guest accepts undone.
#[must_use]
pub fn flags(agreed: u64) -> u32 {
    let all = |wanted: u64| agreed & wanted == wanted;
    // Segmentation without checksums is not a combination the kernel has.
    if !all(1 << VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let mut flags = TUN_F_CSUM;
    if all(1 << VIRTIO_NET_F_GUEST_TSO4) {
        flags |= TUN_F_TSO4;
    }
    if all(1 << VIRTIO_NET_F_GUEST_TSO6) {
        flags |= TUN_F_TSO6;
    }
    if all(1 << VIRTIO_NET_F_GUEST_UFO) {
        flags |= TUN_F_UFO;
    }
    if all(GUEST_USO) {
        flags |= TUN_F_USO;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_the_agreed_bits_and_need_checksums() {
        assert_eq!(flags(0), 0);
        assert_eq!(flags(GUEST & !(1 << VIRTIO_NET_F_GUEST_CSUM)), 0);
        assert_eq!(flags(1 << VIRTIO_NET_F_GUEST_CSUM), TUN_F_CSUM);
        let half = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_USO4;
        assert_eq!(flags(half), TUN_F_CSUM, "UDP segmentation comes as a pair");
        assert_eq!(
            flags(GUEST),
            TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_UFO | TUN_F_USO
        );
    }

    #[test]
    fn only_what_the_tap_takes_is_offered() {
        assert_eq!(features(0) & (UFO | USO), 0);
        assert_eq!(features(TUN_F_UFO) & (UFO | USO), UFO);
        assert_eq!(features(0x20) & USO, 0);
        assert_eq!(features(TUN_F_USO | TUN_F_UFO) & GUEST, GUEST);
    }
}
