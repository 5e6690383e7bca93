//! A guest that goes on from another's snapshot becomes itself: its random numbers, clock, names and addresses.

#![allow(unsafe_code, reason = "the entropy ioctls have no safe interface")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crn_protocol::guest::{GuestConfig, Identity};
use rustix::mount::UnmountFlags;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::{Context, Error, Failure, Result, Stage};
use crate::{files, network};

/// Bytes of entropy that a host sends.
const ENTROPY: usize = 64;
/// Where the kernel tells the boot's identifier, and what stands there in a copy.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const NEW_BOOT_ID: &str = "/run/crn/boot_id";
/// The environment, for programs that look at it again.
const ENVIRONMENT: &str = "/run/crn/environment";
/// `linux/random.h`.
const RNDADDENTROPY: rustix::ioctl::Opcode = 0x4008_5203;
const RNDRESEEDCRNG: rustix::ioctl::Opcode = 0x5207;

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct Pool {
    bits: i32,
    size: i32,
    bytes: [u8; ENTROPY],
}

/// Becomes this; what the guest is from then on. Until the first step is done it has no secrets of its own, so that is
/// the entropy.
///
/// # Errors
/// The stage at which it failed.
pub fn renew(
    current: &GuestConfig,
    identity: Identity,
) -> std::result::Result<GuestConfig, Failure> {
    reseed(&identity.entropy).stage("reseed")?;
    set_clock(identity.unix_time_ns).stage("set clock")?;
    let renewed = GuestConfig {
        hostname: identity.hostname,
        network: identity.network,
        workload: current.workload.clone(),
    };
    rustix::system::sethostname(renewed.hostname.as_bytes())
        .context(|| format!("set the host name {:?}", renewed.hostname))
        .stage("configure")?;
    network::replace(current.network.as_ref(), renewed.network.as_ref())
        .stage("configure network")?;
    files::write(&renewed).stage("write configuration files")?;
    fs::create_dir_all("/run/crn")
        .context(|| "create the directory /run/crn".to_owned())
        .stage("write configuration files")?;
    let environment = identity.variables.iter();
    let environment: String = environment.fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}={value}\0");
        text
    });
    fs::write(ENVIRONMENT, environment)
        .context(|| format!("write {ENVIRONMENT}"))
        .stage("write configuration files")?;
    renew_boot_id().stage("renew boot id")?;
    Ok(renewed)
}

/// Gives the kernel these bytes, in hexadecimal, and has it make new keys of them at once.
fn reseed(entropy: &str) -> Result<()> {
    let bytes = parse(entropy)
        .ok_or_else(|| Error::Refused(format!("entropy is not {ENTROPY} bytes in hexadecimal")))?;
    let random = fs::File::options()
        .write(true)
        .open("/dev/urandom")
        .context(|| "open /dev/urandom".to_owned())?;
    let pool = Pool {
        bits: 8 * ENTROPY as i32,
        size: ENTROPY as i32,
        bytes,
    };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info and as many bytes behind it as that says, which is what a `Pool` is.
    let add = unsafe { rustix::ioctl::Setter::<RNDADDENTROPY, Pool>::new(pool) };
    // SAFETY: the descriptor is the random number device's; another kind would refuse the call.
    unsafe { rustix::ioctl::ioctl(&random, add) }.context(|| "add entropy".to_owned())?;
    // SAFETY: RNDRESEEDCRNG has no argument.
    let reseed = unsafe { rustix::ioctl::NoArg::<RNDRESEEDCRNG>::new() };
    // SAFETY: as above.
    unsafe { rustix::ioctl::ioctl(&random, reseed) }.context(|| "reseed".to_owned())
}

fn parse(entropy: &str) -> Option<[u8; ENTROPY]> {
    if entropy.len() != 2 * ENTROPY || !entropy.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; ENTROPY];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(entropy.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The time went on while the guest did not.
fn set_clock(unix_time_ns: u64) -> Result<()> {
    let time = Timespec {
        tv_sec: (unix_time_ns / 1_000_000_000) as i64,
        tv_nsec: (unix_time_ns % 1_000_000_000) as _,
    };
    clock_settime(ClockId::Realtime, time).context(|| "set the clock".to_owned())
}

/// The kernel makes one for each boot, at the first look, and never again.
fn renew_boot_id() -> Result<()> {
    let new = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context(|| "make a boot id".to_owned())?;
    fs::write(NEW_BOOT_ID, new).context(|| format!("write {NEW_BOOT_ID}"))?;
    // That of a copy of which this is a copy.
    let _ = rustix::mount::unmount(BOOT_ID, UnmountFlags::DETACH);
    rustix::mount::mount_bind(Path::new(NEW_BOOT_ID), BOOT_ID)
        .context(|| format!("put {NEW_BOOT_ID} in the place of {BOOT_ID}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entropy_is_so_many_bytes_in_hexadecimal_and_nothing_else(text in "\\PC{0,140}", bytes in prop::collection::vec(any::<u8>(), ENTROPY)) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(parse(&hex).unwrap().to_vec(), bytes);
            prop_assert!(parse(&hex[1..]).is_none());
            if text.len() != 2 * ENTROPY || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                prop_assert!(parse(&text).is_none());
            }
        }
    }
}
