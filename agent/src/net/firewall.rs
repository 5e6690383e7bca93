//! The nftables table `inet crn`, built whole from the guests that are, as one transaction.
//!
//! Nothing here matches traffic that neither comes from nor goes to a `vmtap*` device, and no other table is touched.
//!
//! | chain | what it does |
//! |---|---|
//! | `prerouting` | ports of the host lead to guests (IPv4) |
//! | `postrouting` | guests' IPv4 leaves with the host's address; IPv6 is not translated |
//! | `forward` | guest → outside when MAC and address are the lease's; outside → guest when forwarded or IPv6; else drop |
//! | `input` | guest → host: answers, neighbour discovery, ping of the gateway; else drop |

use std::borrow::Cow;
use std::collections::HashSet;

use nftables::batch::Batch;
use nftables::expr::{
    CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField,
    Prefix, SetItem,
};
use nftables::schema::{Chain, NfListObject, Nftables, Rule, Table};
use nftables::stmt::{
    Accept, Drop, JumpTarget, Match, NAT, NATFamily, Operator, Statement, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::{Plan, Pools};

const TABLE: &str = "crn";
/// Every TAP of a machine.
const TAPS: &str = "vmtap*";
/// `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_FILTER`, `NF_IP_PRI_NAT_SRC`.
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// One guest and what is open to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its addresses.
    pub plan: Plan,
    /// Ports of the host that lead to it.
    pub forwards: Vec<Forward>,
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

/// The transaction that makes the table exactly these guests'; without guests, the one that removes it.
#[must_use]
pub fn ruleset(uplink: &str, pools: &Pools, guests: &[Guest]) -> Nftables<'static> {
    let mut batch = Batch::new();
    // Adding first makes the deletion good whether the table was there or not.
    batch.add(table());
    batch.delete(table());
    if !guests.is_empty() {
        batch.add(table());
        nat(&mut batch, uplink, pools, guests);
        forward(&mut batch, uplink, guests);
        input(&mut batch);
    }
    batch.to_nftables()
}

fn nat(batch: &mut Batch<'static>, uplink: &str, pools: &Pools, guests: &[Guest]) {
    base_chain(
        batch,
        "prerouting",
        NfChainType::NAT,
        NfHook::Prerouting,
        DSTNAT,
    );
    for guest in guests {
        for port in &guest.forwards {
            rule(
                batch,
                "prerouting",
                &format!("port {} of {}", port.guest, guest.plan.vm),
                vec![
                    is(meta(MetaKey::Iifname), text(uplink)),
                    // Only what is for the host itself: its ports are forwarded, not those of whoever is behind it.
                    is(fib_daddr_type(), text("local")),
                    is(
                        payload(port.transport.name(), "dport"),
                        Expression::Number(u32::from(port.host)),
                    ),
                    Statement::DNAT(Some(NAT {
                        addr: Some(text(guest.plan.ipv4.to_string())),
                        family: Some(NATFamily::IP),
                        port: Some(Expression::Number(u32::from(port.guest))),
                        flags: None,
                    })),
                ],
            );
        }
    }
    base_chain(
        batch,
        "postrouting",
        NfChainType::NAT,
        NfHook::Postrouting,
        SRCNAT,
    );
    let (pool, prefix) = pools.ipv4();
    rule(
        batch,
        "postrouting",
        "guests' private addresses do not exist outside",
        vec![
            is(
                payload("ip", "saddr"),
                network(pool.to_string(), u32::from(prefix)),
            ),
            is(meta(MetaKey::Oifname), text(uplink)),
            Statement::Masquerade(None),
        ],
    );
}

fn forward(batch: &mut Batch<'static>, uplink: &str, guests: &[Guest]) {
    for guest in guests {
        from_guest(batch, uplink, &guest.plan);
        to_guest(batch, uplink, &guest.plan);
    }
    base_chain(
        batch,
        "forward",
        NfChainType::Filter,
        NfHook::Forward,
        FILTER,
    );
    rule(
        batch,
        "forward",
        "what a guest sends is its own chain's affair",
        vec![per_tap(MetaKey::Iifname, guests, |plan| {
            format!("from-{}", plan.tap)
        })],
    );
    rule(
        batch,
        "forward",
        "from a machine that is not known, or gone",
        vec![is(meta(MetaKey::Iifname), text(TAPS)), drop()],
    );
    rule(
        batch,
        "forward",
        "what a guest receives is its own chain's affair",
        vec![per_tap(MetaKey::Oifname, guests, |plan| {
            format!("to-{}", plan.tap)
        })],
    );
    rule(
        batch,
        "forward",
        "to a machine that is not known, or gone",
        vec![is(meta(MetaKey::Oifname), text(TAPS)), drop()],
    );
}

fn from_guest(batch: &mut Batch<'static>, uplink: &str, plan: &Plan) {
    let chain = format!("from-{}", plan.tap);
    plain_chain(batch, &chain);
    let rules = [
        (
            "not the leased MAC address",
            vec![
                Statement::Match(Match {
                    left: payload("ether", "saddr"),
                    right: text(plan.mac_text()),
                    op: Operator::NEQ,
                }),
                drop(),
            ],
        ),
        (
            "leased IPv4 address to the outside",
            vec![
                is(meta(MetaKey::Oifname), text(uplink)),
                is(payload("ip", "saddr"), text(plan.ipv4.to_string())),
                accept(),
            ],
        ),
        (
            "leased IPv6 address to the outside",
            vec![
                is(meta(MetaKey::Oifname), text(uplink)),
                is(payload("ip6", "saddr"), text(plan.ipv6.to_string())),
                accept(),
            ],
        ),
        ("spoofed, or to another guest", vec![drop()]),
    ];
    for (comment, statements) in rules {
        rule(batch, &chain, comment, statements);
    }
}

fn to_guest(batch: &mut Batch<'static>, uplink: &str, plan: &Plan) {
    let chain = format!("to-{}", plan.tap);
    plain_chain(batch, &chain);
    let from_uplink = || is(meta(MetaKey::Iifname), text(uplink));
    let rules = [
        ("answers", vec![from_uplink(), known(), accept()]),
        (
            "a forwarded port",
            vec![from_uplink(), has("status", vec![text("dnat")]), accept()],
        ),
        (
            "IPv6 is open to the guest's own address",
            vec![
                from_uplink(),
                is(payload("ip6", "daddr"), text(plan.ipv6.to_string())),
                accept(),
            ],
        ),
        ("nothing asked for it", vec![drop()]),
    ];
    for (comment, statements) in rules {
        rule(batch, &chain, comment, statements);
    }
}

fn input(batch: &mut Batch<'static>) {
    base_chain(batch, "input", NfChainType::Filter, NfHook::Input, FILTER);
    let from_guests = || is(meta(MetaKey::Iifname), text(TAPS));
    let rules = [
        (
            "answers to the host",
            vec![from_guests(), known(), accept()],
        ),
        (
            "neighbour discovery, and ping of the gateway",
            vec![
                from_guests(),
                is(
                    payload("icmpv6", "type"),
                    set(["nd-neighbor-solicit", "nd-neighbor-advert", "echo-request"].map(text)),
                ),
                accept(),
            ],
        ),
        (
            "ping of the gateway",
            vec![
                from_guests(),
                is(payload("icmp", "type"), text("echo-request")),
                accept(),
            ],
        ),
        (
            "guests have no business with the host",
            vec![from_guests(), drop()],
        ),
    ];
    for (comment, statements) in rules {
        rule(batch, "input", comment, statements);
    }
}

/// `iifname vmap { "vmtap4" : goto from-vmtap4, … }`: one lookup however many machines there are.
fn per_tap(key: MetaKey, guests: &[Guest], chain: impl Fn(&Plan) -> String) -> Statement<'static> {
    let elements = guests
        .iter()
        .map(|guest| {
            let target = JumpTarget {
                target: Cow::Owned(chain(&guest.plan)),
            };
            SetItem::MappingStatement(text(guest.plan.tap.clone()), Statement::Goto(target))
        })
        .collect();
    Statement::VerdictMap(VerdictMap {
        key: meta(key),
        data: Expression::Named(NamedExpression::Set(elements)),
    })
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    })
}

fn base_chain(
    batch: &mut Batch<'static>,
    name: &'static str,
    kind: NfChainType,
    hook: NfHook,
    priority: i32,
) {
    batch.add(NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }));
}

fn plain_chain(batch: &mut Batch<'static>, name: &str) {
    batch.add(NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: Cow::Owned(name.to_owned()),
        ..Chain::default()
    }));
}

fn rule(
    batch: &mut Batch<'static>,
    chain: &str,
    comment: &str,
    statements: Vec<Statement<'static>>,
) {
    batch.add(NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: Cow::Owned(chain.to_owned()),
        expr: Cow::Owned(statements),
        comment: Some(Cow::Owned(comment.to_owned())),
        ..Rule::default()
    }));
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

fn known() -> Statement<'static> {
    has("state", vec![text("established"), text("related")])
}

/// Whether the connection has one of these bits.
fn has(key: &'static str, bits: Vec<Expression<'static>>) -> Statement<'static> {
    let left = Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }));
    Statement::Match(Match {
        left,
        right: Expression::List(bits),
        op: Operator::IN,
    })
}

fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

fn drop() -> Statement<'static> {
    Statement::Drop(Some(Drop {}))
}

fn text(text: impl Into<String>) -> Expression<'static> {
    Expression::String(Cow::Owned(text.into()))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(
        PayloadField {
            protocol: protocol.into(),
            field: field.into(),
        },
    )))
}

fn fib_daddr_type() -> Expression<'static> {
    let flags = HashSet::from([FibFlag::Daddr]);
    Expression::Named(NamedExpression::Fib(Fib {
        result: FibResult::Type,
        flags,
    }))
}

fn network(address: String, prefix: u32) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(text(address)),
        len: prefix,
    }))
}

fn set<const N: usize>(items: [Expression<'static>; N]) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(
        items.into_iter().map(SetItem::Element).collect(),
    ))
}
