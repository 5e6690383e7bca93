use proptest::prelude::*;

use super::super::Kind;
use super::*;

fn pools() -> Pools {
    Pools::parse("172.16.0.0/12", "2001:db8:0:1::/64").unwrap()
}

fn guest(slot: u16, forwards: Vec<Forward>) -> Guest {
    let vm = format!("{slot:064x}");
    let plan = pools().plan(slot, &vm, Kind::Instance).unwrap();
    Guest {
        plan,
        forwards,
        secluded: slot.is_multiple_of(3),
    }
}

fn rules(script: &str) -> Vec<&str> {
    script
        .lines()
        .filter(|line| line.starts_with("\t\t") && !line.contains("elements"))
        .filter(|line| !line.starts_with("\t\t\t"))
        .collect()
}

/// Asks nft itself, in a network of its own; the rules go nowhere.
fn is_understood(script: &str) -> bool {
    let mut child = crate::net::tests::lab::unshare()
        .args(["nft", "-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, script.as_bytes()).unwrap();
    drop(input);
    child.wait().unwrap().success()
}

#[test]
fn no_guests_means_no_tables() {
    let script = ruleset("eth0", &pools(), Limits::default(), &[]);
    let tables = ["inet crn", "arp crn", "inet crn-limits"];
    let expected = tables.map(|table| format!("add table {table}\ndelete table {table}\n"));
    assert_eq!(script, expected.concat());
}

/// P9, R12: thousands of rules made the network slow.
#[test]
fn two_hundred_machines_need_no_more_rules_than_one() {
    let limits = Limits {
        connections: Some(10),
        megabits: Some(MAX_MEGABITS),
    };
    let guests: Vec<_> = (4..204)
        .map(|slot| {
            let forward = |transport| Forward {
                transport,
                host: 24000 + slot,
                guest: 22,
            };
            guest(slot, vec![forward(Transport::Tcp), forward(Transport::Udp)])
        })
        .collect();
    let one = ruleset("eth0", &pools(), limits, &guests[..1]);
    let all = ruleset("eth0", &pools(), limits, &guests);
    assert_eq!(rules(&one), rules(&all));
    assert!(is_understood(&all));
}

#[test]
fn a_name_that_is_more_than_a_name_is_not_plain() {
    for name in ["eth0", "enp1s0", "bond0.100", "wg-a"] {
        assert!(is_plain_name(name), "{name}");
    }
    for name in ["", "eth0\" accept", "eth*", "a;b", "a\\b", "a{"] {
        assert!(!is_plain_name(name), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn nft_understands_the_rules_of_any_guests(
        slots in prop::collection::btree_set(0u16..4096, 0..20),
        ports in prop::collection::btree_set(any::<u16>(), 0..40),
        connections in prop::option::of(1u32..1_000_000),
        megabits in prop::option::of(1u32..=MAX_MEGABITS),
    ) {
        let mut ports = ports.into_iter();
        let guests: Vec<_> = slots
            .iter()
            .map(|slot| {
                let mut forwards = Vec::new();
                for transport in [Transport::Tcp, Transport::Udp] {
                    if let Some(port) = ports.next() {
                        forwards.push(Forward { transport, host: port, guest: port ^ 1 });
                    }
                }
                guest(*slot, forwards)
            })
            .collect();
        let script = ruleset("eth0", &pools(), Limits { connections, megabits }, &guests);
        prop_assert!(is_understood(&script), "{script}");
    }

    #[test]
    fn every_lease_is_told_with_device_card_and_address_together(slot in 0u16..4096) {
        let guest = guest(slot, vec![]);
        let script = ruleset("eth0", &pools(), Limits::default(), std::slice::from_ref(&guest));
        let plan = &guest.plan;
        let card = format!("\"{}\" . {}", plan.tap, plan.mac_text());
        let (v4, v6) = (format!("{card} . {}", plan.ipv4), format!("{card} . {}", plan.ipv6));
        prop_assert!(script.contains(&v4), "{}", script);
        prop_assert!(script.contains(&v6), "{}", script);
    }
}
