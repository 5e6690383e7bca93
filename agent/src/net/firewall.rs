//! The node's nftables rules, written whole from the guests that are, as one transaction in nft's own language.
//!
//! Nothing here matches traffic that neither comes from nor goes to a `vmtap*` device, and no other table is touched.
//! Machines are elements of sets and maps: the rules are the same however many there are.
//!
//! | table, chain | what it does |
//! |---|---|
//! | `inet crn` `arrivals` | before anything else: device, MAC and source address together are a lease's, or the packet goes |
//! | `inet crn` `prerouting` | ports of the host lead to guests (IPv4) |
//! | `inet crn` `postrouting` | guests' IPv4 leaves with the host's address; IPv6 is not translated |
//! | `inet crn` `forward` | guest → outside, of a secluded one only answers; outside → guest when forwarded, asked for, or IPv6; else drop |
//! | `inet crn` `input` | guest → host: answers, neighbour discovery, ping of its gateway; else drop |
//! | `arp crn` `input` | ARP with the lease's own MAC and address |
//! | `inet crn-limits` | bandwidth and connections of each guest |
//!
//! `inet crn` and `arp crn` are made anew each time. `inet crn-limits` does not depend on which guests there are and is
//! kept: it counts.

use std::fmt::Write as _;

use super::{Plan, Pools};

/// Every table of this node; what else is in the host's firewall is not touched.
pub(super) const TABLES: [&str; 2] = ["crn", "crn-limits"];
/// Neighbour discovery of one guest in packets a second, ARP the same: each may make an entry in the host's table,
/// which is everybody's.
const DISCOVERY_RATE: u32 = 10;
/// A limit's bucket holds what a second allows (`nft_limit_init`) and this, in KiB: a few frames with all their segments
/// still in one.
const BURST_KIB: u64 = 256;

/// The fastest limit in megabits a second: the kernel counts a rate's and its bucket's bytes in nanoseconds, in 64 bits.
pub const MAX_MEGABITS: u32 = 100_000;

/// One guest and what is open to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its addresses.
    pub plan: Plan,
    /// Ports of the host that lead to it.
    pub forwards: Vec<Forward>,
    /// It may answer and begin nothing.
    pub secluded: bool,
}

/// A port of the host that leads to a port of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forward {
    /// TCP or UDP.
    pub transport: Transport,
    /// The port on the host's uplink.
    pub host: u16,
    /// The port in the guest.
    pub guest: u16,
}

/// What a forward carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What one guest may use of the network, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once that the guest began, and as many that others began to it; `None` is without limit.
    pub connections: Option<u32>,
    /// Megabits a second, 1 to [`MAX_MEGABITS`]; `None` is without limit.
    pub megabits: Option<u32>,
}

/// Whether an interface's name can stand in the rules: nothing that nft reads as more than a name.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

/// The transaction that makes the tables exactly these guests'; without guests, the one that removes them. `uplink`
/// is a name that [`is_plain_name`].
#[must_use]
pub fn ruleset(uplink: &str, pools: &Pools, limits: Limits, guests: &[Guest]) -> String {
    let mut script = String::new();
    // Adding first makes the deletion good whether the table was there or not.
    for table in ["inet crn", "arp crn"] {
        let _ = writeln!(script, "add table {table}\ndelete table {table}");
    }
    if guests.is_empty() {
        script.push_str("add table inet crn-limits\ndelete table inet crn-limits\n");
        return script;
    }
    script.push_str("table inet crn {\n");
    sets(&mut script, guests);
    chains(&mut script, uplink, pools);
    script.push_str("}\ntable arp crn {\n");
    arp(&mut script, guests);
    script.push_str("}\n");
    limit(&mut script, limits);
    script
}

/// The lease's device, MAC and `address`, as the sets of senders have them.
fn sender(plan: &Plan, address: impl std::fmt::Display) -> String {
    format!("\"{}\" . {} . {address}", plan.tap, plan.mac_text())
}

fn sets(script: &mut String, guests: &[Guest]) {
    let of_each = |element: &dyn Fn(&Plan) -> String| {
        guests
            .iter()
            .map(|guest| element(&guest.plan))
            .collect::<Vec<_>>()
    };
    let mut set = |kind: &str, name: &str, of: &str, elements: Vec<String>| {
        write_set(script, kind, name, of, &elements);
    };
    set(
        "set",
        "senders4",
        "ifname . ether_addr . ipv4_addr",
        of_each(&|plan| format!("{} comment \"{}\"", sender(plan, plan.ipv4), plan.vm)),
    );
    set(
        "set",
        "senders6",
        "ifname . ether_addr . ipv6_addr",
        of_each(&|plan| sender(plan, plan.ipv6)),
    );
    set(
        "set",
        "cards",
        "ifname . ether_addr",
        of_each(&|plan| format!("\"{}\" . {}", plan.tap, plan.mac_text())),
    );
    set(
        "set",
        "receivers4",
        "ifname . ipv4_addr",
        of_each(&|plan| format!("\"{}\" . {}", plan.tap, plan.ipv4)),
    );
    set(
        "set",
        "receivers6",
        "ifname . ipv6_addr",
        of_each(&|plan| format!("\"{}\" . {}", plan.tap, plan.ipv6)),
    );
    let secluded = guests.iter().filter(|guest| guest.secluded);
    let secluded = secluded.map(|guest| format!("\"{}\"", guest.plan.tap));
    set("set", "secluded", "ifname", secluded.collect());
    for transport in [Transport::Tcp, Transport::Udp] {
        let forwards = guests.iter().flat_map(|guest| {
            let own = guest.forwards.iter();
            own.filter(|forward| forward.transport == transport)
                .map(|forward| {
                    format!(
                        "{} comment \"port {} of {}\" : {} . {}",
                        forward.host, forward.guest, guest.plan.vm, guest.plan.ipv4, forward.guest
                    )
                })
        });
        let forwards = forwards.collect();
        let name = format!("forwarded-{}", transport.name());
        set(
            "map",
            &name,
            "inet_service : ipv4_addr . inet_service",
            forwards,
        );
    }
}

fn write_set(script: &mut String, kind: &str, name: &str, of: &str, elements: &[String]) {
    let _ = writeln!(script, "\t{kind} {name} {{\n\t\ttype {of}");
    // nft has no words for an empty list.
    if !elements.is_empty() {
        let elements = elements.join(",\n\t\t\t");
        let _ = writeln!(script, "\t\telements = {{ {elements} }}");
    }
    script.push_str("\t}\n");
}

fn chains(script: &mut String, uplink: &str, pools: &Pools) {
    let (pool, prefix) = pools.ipv4();
    let _ = write!(
        script,
        r#"	set discovery {{
		type ifname
		size 65535
		flags dynamic
	}}
	chain arrivals {{
		type filter hook prerouting priority raw; policy accept;
		iifname "vmtap*" jump identity
	}}
	chain identity {{
		iifname . ether saddr . ip saddr @senders4 return comment "the lease's IPv4"
		iifname . ether saddr . ip6 saddr @senders6 return comment "the lease's IPv6"
		iifname . ether saddr @cards ip6 saddr {{ ::, fe80::/64 }} ip6 hoplimit 255 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} return comment "neighbour discovery, to the host alone"
		drop comment "not a lease of this device"
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{uplink}" fib daddr type local dnat ip to tcp dport map @forwarded-tcp
		iifname "{uplink}" fib daddr type local dnat ip to udp dport map @forwarded-udp
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {pool}/{prefix} oifname "{uplink}" masquerade comment "private addresses do not exist outside"
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname @secluded ct state != {{ established, related }} drop comment "asked for no internet"
		iifname "vmtap*" oifname "{uplink}" accept comment "who it is was seen on arrival"
		iifname "vmtap*" drop comment "to another guest, or elsewhere"
		oifname "vmtap*" jump to-guest
	}}
	chain to-guest {{
		iifname != "{uplink}" drop comment "not from outside"
		oifname . ip daddr @receivers4 ct state established,related accept comment "answers"
		oifname . ip daddr @receivers4 ct status dnat accept comment "a forwarded port"
		oifname . ip6 daddr @receivers6 accept comment "IPv6 is open to the guest's own address"
		drop comment "nothing asked for it"
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "vmtap*" jump to-host
	}}
	chain to-host {{
		ct state established,related accept comment "answers to the host"
		icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} update @discovery {{ iifname limit rate {DISCOVERY_RATE}/second burst {DISCOVERY_RATE} packets }} accept
		icmp type echo-request fib daddr . iif type local accept comment "ping of its gateway"
		icmpv6 type echo-request fib daddr . iif type local accept comment "ping of its gateway"
		drop comment "guests have no business with the host"
	}}
"#
    );
}

fn arp(script: &mut String, guests: &[Guest]) {
    let unset = std::net::Ipv4Addr::UNSPECIFIED;
    // From 0.0.0.0 a guest asks whether its address is still free (RFC 5227).
    let senders = guests
        .iter()
        .flat_map(|guest| [guest.plan.ipv4, unset].map(|address| sender(&guest.plan, address)));
    let of = "ifname . ether_addr . ipv4_addr";
    let senders: Vec<_> = senders.collect();
    write_set(script, "set", "senders", of, &senders);
    let _ = write!(
        script,
        r#"	set requests {{
		type ifname
		size 65535
		flags dynamic
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "vmtap*" jump from-guest
	}}
	chain from-guest {{
		iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders arp operation {{ request, reply }} update @requests {{ iifname limit rate {DISCOVERY_RATE}/second burst {DISCOVERY_RATE} packets }} accept
		drop comment "not a lease of this device"
	}}
"#
    );
}

/// What counts stays from one transaction to the next: a change of one machine must not give all others their
/// connections anew.
fn limit(script: &mut String, limits: Limits) {
    script.push_str(
        "add table inet crn-limits
add chain inet crn-limits forward { type filter hook forward priority filter + 10; policy accept; }
flush chain inet crn-limits forward
",
    );
    for (key, way) in [("iifname", "sent"), ("oifname", "received")] {
        let mut rule = |set: &str, words: &str, limit: String| {
            let _ = writeln!(
                script,
                "add set inet crn-limits {set}-{way} {{ type ifname; size 65535; flags dynamic; }}
add rule inet crn-limits forward {key} \"vmtap*\" {words} @{set}-{way} {{ {key} {limit} }} drop"
            );
        };
        if let Some(most) = limits.connections {
            rule(
                "connections",
                // The first packet alone: one without an answer is still new, and has been counted.
                "ct state new ct status & confirmed == 0 add",
                format!("ct count over {most}"),
            );
        }
        if let Some(megabits) = limits.megabits {
            let kib = u64::from(megabits) * 1_000_000 / 8 / 1024;
            rule(
                "bytes",
                "update",
                format!("limit rate over {kib} kbytes/second burst {BURST_KIB} kbytes"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
