//! Pure: which addresses, names and MAC a machine has. Nothing here touches the host.

use std::net::{Ipv4Addr, Ipv6Addr};

use crn_protocol::guest;

/// The prefix length of every machine's IPv4 network: gateway `.1`, guest `.2`.
pub const IPV4_PREFIX: u8 = 24;
/// The prefix length of every machine's IPv6 network: gateway `::0`, guest `::1`.
pub const IPV6_PREFIX: u8 = 124;

/// What a machine is, as its static IPv6 address tells it (the digit after the node's /64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A program run on demand.
    Program,
    /// A program that stays.
    PersistentProgram,
    /// An instance.
    Instance,
}

impl Kind {
    const fn hextet(self) -> u16 {
        match self {
            Self::Program => 1,
            Self::PersistentProgram => 2,
            Self::Instance => 3,
        }
    }
}

/// Where machines' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    ipv4: Ipv4Addr,
    ipv4_prefix: u8,
    ipv6: Ipv6Addr,
}

/// Why a machine can have no addresses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The IPv4 pool is not a network of /8 to /24.
    #[error("IPv4 pool {0:?}: expected a network from /8 to /24, such as 172.16.0.0/12")]
    Ipv4Pool(String),
    /// The IPv6 pool is not a /64 or /56.
    #[error("IPv6 pool {0:?}: expected a network of /64 or /56, such as 2001:db8:0:1::/64")]
    Ipv6Pool(String),
    /// No such /24 in the pool.
    #[error("slot {slot} is outside of the IPv4 pool, which has {slots}")]
    Slot {
        /// The slot asked for.
        slot: u16,
        /// How many there are.
        slots: u32,
    },
    /// Not 64 hexadecimal digits.
    #[error("{0:?} is not an item hash of 64 hexadecimal digits")]
    Hash(String),
}

/// One machine's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The item hash.
    pub vm: String,
    /// The host's end: `vmtap<slot>`.
    pub tap: String,
    /// The guest's MAC address: locally administered, from the item hash.
    pub mac: [u8; 6],
    /// The machine's /24.
    pub ipv4_network: Ipv4Addr,
    /// The host's address in it.
    pub ipv4_gateway: Ipv4Addr,
    /// The guest's.
    pub ipv4: Ipv4Addr,
    /// The machine's /124, whose first address is the host's.
    pub ipv6_network: Ipv6Addr,
    /// The guest's.
    pub ipv6: Ipv6Addr,
}

impl Pools {
    /// Reads both pools as the configuration writes them (`address/prefix`).
    ///
    /// # Errors
    /// [`PlanError::Ipv4Pool`], [`PlanError::Ipv6Pool`].
    pub fn parse(ipv4: &str, ipv6: &str) -> Result<Self, PlanError> {
        let (address, ipv4_prefix) = network::<Ipv4Addr>(ipv4)
            .filter(|(_, prefix)| (8..=IPV4_PREFIX).contains(prefix))
            .ok_or_else(|| PlanError::Ipv4Pool(ipv4.to_owned()))?;
        let (v6, _) = network::<Ipv6Addr>(ipv6)
            .filter(|(_, prefix)| matches!(prefix, 56 | 64))
            .ok_or_else(|| PlanError::Ipv6Pool(ipv6.to_owned()))?;
        let mask = u32::MAX << (32 - u32::from(ipv4_prefix));
        Ok(Self {
            ipv4: Ipv4Addr::from_bits(address.to_bits() & mask),
            ipv4_prefix,
            ipv6: v6,
        })
    }

    /// How many machines the IPv4 pool has a /24 for; valid slots are below it.
    #[must_use]
    pub fn slots(&self) -> u32 {
        1 << (IPV4_PREFIX - self.ipv4_prefix)
    }

    /// The IPv4 pool: address and prefix length.
    #[must_use]
    pub const fn ipv4(&self) -> (Ipv4Addr, u8) {
        (self.ipv4, self.ipv4_prefix)
    }

    /// The /64 every machine's IPv6 address is in: address and prefix length.
    #[must_use]
    pub fn ipv6(&self) -> (Ipv6Addr, u8) {
        let [a, b, c, d, ..] = self.ipv6.segments();
        (Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), 64)
    }

    /// A machine's addresses: IPv4 by its slot, IPv6 and MAC by its hash.
    ///
    /// # Errors
    /// [`PlanError::Slot`], [`PlanError::Hash`].
    pub fn plan(&self, slot: u16, vm: &str, kind: Kind) -> Result<Plan, PlanError> {
        if u32::from(slot) >= self.slots() {
            return Err(PlanError::Slot {
                slot,
                slots: self.slots(),
            });
        }
        let ipv4_network = Ipv4Addr::from_bits(self.ipv4.to_bits() | (u32::from(slot) << 8));
        let host = |last: u32| Ipv4Addr::from_bits(ipv4_network.to_bits() | last);
        let ipv6_network = self.ipv6_network(vm, kind)?;
        Ok(Plan {
            vm: vm.to_owned(),
            tap: format!("vmtap{slot}"),
            mac: mac(vm)?,
            ipv4_network,
            ipv4_gateway: host(1),
            ipv4: host(2),
            ipv6_network,
            ipv6: Ipv6Addr::from_bits(ipv6_network.to_bits() | 1),
        })
    }

    /// The /124 every client computes for itself from a node's pool and an item hash:
    /// `pool[0:64] : kind : hash[0:4] : hash[4:8] : hash[8:11]0`.
    fn ipv6_network(&self, vm: &str, kind: Kind) -> Result<Ipv6Addr, PlanError> {
        let bytes = hash_bytes(vm)?;
        let [a, b, c, d, ..] = self.ipv6.segments();
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Ok(Ipv6Addr::new(
            a,
            b,
            c,
            d,
            kind.hextet(),
            word(0),
            word(2),
            word(4) & 0xfff0,
        ))
    }
}

impl Plan {
    /// What the guest's init is told; `mtu` is the uplink's.
    #[must_use]
    pub fn guest(&self, mtu: u16, dns: Vec<std::net::IpAddr>) -> guest::Network {
        guest::Network {
            ipv4: Some((self.ipv4, IPV4_PREFIX, self.ipv4_gateway)),
            ipv6: Some((self.ipv6, IPV6_PREFIX, self.ipv6_network)),
            dns,
            mtu,
        }
    }

    /// The MAC address in its usual writing.
    #[must_use]
    pub fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// `02` marks a locally administered unicast address; the rest is the hash's end, since its start is in the IPv6
/// address already.
fn mac(vm: &str) -> Result<[u8; 6], PlanError> {
    let bytes = hash_bytes(vm)?;
    Ok([0x02, bytes[27], bytes[28], bytes[29], bytes[30], bytes[31]])
}

fn hash_bytes(vm: &str) -> Result<[u8; 32], PlanError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(vm, &mut bytes).map_err(|_| PlanError::Hash(vm.to_owned()))?;
    Ok(bytes)
}

fn network<A: std::str::FromStr>(text: &str) -> Option<(A, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VM: &str = "deadbeefca0f00000000000000000000000000000000000000000000000000ff";

    fn pools() -> Pools {
        Pools::parse("172.16.0.0/12", "2a01:240:ad00:2500::/64").unwrap()
    }

    #[test]
    fn an_instance_has_the_addresses_clients_compute() {
        let plan = pools().plan(4, VM, Kind::Instance).unwrap();
        assert_eq!(plan.tap, "vmtap4");
        assert_eq!(plan.ipv4_network.to_string(), "172.16.4.0");
        assert_eq!(plan.ipv4_gateway.to_string(), "172.16.4.1");
        assert_eq!(plan.ipv4.to_string(), "172.16.4.2");
        assert_eq!(
            plan.ipv6_network.to_string(),
            "2a01:240:ad00:2500:3:dead:beef:ca00"
        );
        assert_eq!(plan.ipv6.to_string(), "2a01:240:ad00:2500:3:dead:beef:ca01");
        assert_eq!(plan.mac_text(), "02:00:00:00:00:ff");
    }

    #[test]
    fn the_kind_is_a_part_of_the_ipv6_address() {
        for (kind, hextet) in [
            (Kind::Program, 1),
            (Kind::PersistentProgram, 2),
            (Kind::Instance, 3),
        ] {
            assert_eq!(
                pools().plan(1, VM, kind).unwrap().ipv6_network.segments()[4],
                hextet
            );
        }
    }

    #[test]
    fn the_last_slot_is_the_pools_last_network() {
        let plan = pools().plan(4095, VM, Kind::Program).unwrap();
        assert_eq!(plan.ipv4_network.to_string(), "172.31.255.0");
        assert_eq!(
            pools().plan(4096, VM, Kind::Program),
            Err(PlanError::Slot {
                slot: 4096,
                slots: 4096
            })
        );
    }

    #[test]
    fn host_bits_in_the_pool_are_ignored() {
        let pools = Pools::parse("172.16.9.9/12", "fec0::/56").unwrap();
        assert_eq!(
            pools.plan(0, VM, Kind::Program).unwrap().ipv4.to_string(),
            "172.16.0.2"
        );
    }

    #[test]
    fn a_hash_of_another_form_is_refused() {
        for vm in ["", "abc", &VM[1..], &VM.replace('d', "x")] {
            assert_eq!(
                pools().plan(1, vm, Kind::Program),
                Err(PlanError::Hash(vm.to_owned()))
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pool_or_an_error(v4 in ".{0,24}", v6 in ".{0,44}") {
            let _ = Pools::parse(&v4, &v6);
        }

        #[test]
        fn machines_in_different_slots_share_no_network(a in 0u16..4096, b in 0u16..4096) {
            prop_assume!(a != b);
            let (a, b) = (pools().plan(a, VM, Kind::Program).unwrap(), pools().plan(b, VM, Kind::Program).unwrap());
            prop_assert_ne!(a.ipv4_network, b.ipv4_network);
            prop_assert_ne!(a.tap, b.tap);
        }
    }
}
