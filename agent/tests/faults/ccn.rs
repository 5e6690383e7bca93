//! Core channel nodes that are dead, lying or slow.

use std::collections::BTreeSet;

use aleph_message::{ItemHash, Keypair};
use http::Method;
use serde_json::{Value, json};

use crate::host::{Host, Setup, image, inside, rounds};
use crate::support::FakeCcn;
use crate::support::line::{Line, Way};

/// Bytes of the images that are lied about.
const SMALL: usize = 1000;

/// What a node may say instead of the truth about an instance and its image.
#[derive(Debug, Clone, Copy)]
enum Lie {
    AnotherMessage,
    AnotherSignature,
    AnotherContent,
    AnotherImage,
    HalfTheImage,
}

impl Lie {
    const ALL: [Self; 5] = [
        Self::AnotherMessage,
        Self::AnotherSignature,
        Self::AnotherContent,
        Self::AnotherImage,
        Self::HalfTheImage,
    ];

    /// Part of the reason that the owner reads.
    fn found_out_as(self) -> &'static str {
        match self {
            Self::AnotherMessage => "was asked for and",
            Self::AnotherSignature | Self::AnotherContent => "is refused",
            Self::AnotherImage | Self::HalfTheImage => "is corrupt",
        }
    }

    /// `other` is an instance's genuine message too.
    fn tell(self, ccn: &FakeCcn, hash: &ItemHash, name: &str, other: &Value) {
        let truth = image(name, SMALL);
        let file = ItemHash::of(&truth);
        let (_, mut message) = ccn.message(hash);
        match self {
            Self::AnotherMessage => message = other.clone(),
            Self::AnotherSignature => message["signature"] = other["signature"].clone(),
            Self::AnotherContent => message["item_content"] = other["item_content"].clone(),
            Self::AnotherImage => ccn.set_file(&file, &image("another", SMALL)),
            Self::HalfTheImage => ccn.set_file(&file, &truth[..SMALL / 2]),
        }
        ccn.set_message(hash, message);
    }
}

/// S3, R5, R10, P12: one node, and all that is known comes from it.
#[tokio::test]
async fn while_the_only_core_channel_node_is_dead_lying_or_slow_nothing_changes_and_nothing_leaks()
{
    if !inside(
        "ccn::while_the_only_core_channel_node_is_dead_lying_or_slow_nothing_changes_and_nothing_leaks",
    ) {
        return;
    }
    let ccn = FakeCcn::start().await;
    let line = Line::to(ccn.address()).await;
    let setup = Setup {
        ccn: Some(line.url()),
        ..Setup::default()
    };
    let mut host = Host::with(ccn, setup).await;
    host.start().await;
    let mut wanted: BTreeSet<_> = (0..2)
        .map(|n| host.instance(&format!("first {n}"), SMALL))
        .collect();
    host.push(&wanted).await;
    host.settle(&wanted).await;
    for round in 0..rounds() {
        lying(&host, &mut wanted, round).await;
        eprintln!("round {round}: the lies are found out");
        dead(&host, &line, &mut wanted, round).await;
        eprintln!("round {round}: the dead is back");
        slow(&mut host, &line, &mut wanted, round).await;
        eprintln!("round {round}: {} machines, as wanted", wanted.len());
    }
    for hash in &wanted {
        host.forget(hash);
    }
    host.settle(&BTreeSet::new()).await;
    host.assert_nothing_half_fetched();
}

/// Nothing of what is lied about runs or holds anything; all of it runs when the truth is told.
async fn lying(host: &Host, wanted: &mut BTreeSet<ItemHash>, round: u64) {
    let before = host.processes();
    let other = wanted.iter().next().unwrap();
    let (_, other) = host.ccn.message(other);
    let mut told = Vec::new();
    for lie in Lie::ALL {
        let name = format!("round {round}, {lie:?}");
        let hash = host.instance(&name, SMALL);
        let (_, truth) = host.ccn.message(&hash);
        lie.tell(&host.ccn, &hash, &name, &other);
        told.push((lie, name, hash, truth));
    }
    let mut all = wanted.clone();
    all.extend(told.iter().map(|(_, _, hash, _)| hash.clone()));
    host.push(&all).await;
    for (lie, _, hash, _) in &told {
        host.wait_for_failure(hash, lie.found_out_as()).await;
        assert!(host.record(hash).await.unwrap().lease.is_none(), "{lie:?}");
    }
    assert!(host.has_traces_of(wanted), "{:?}", host.traces());
    assert_eq!(host.processes(), before);
    for (_, name, hash, truth) in told {
        let truth_of_image = image(&name, SMALL);
        host.ccn
            .set_file(&ItemHash::of(&truth_of_image), &truth_of_image);
        host.ccn.set_message(&hash, truth);
    }
    *wanted = all;
    host.settle(wanted).await;
}

/// What runs runs on; what came in that time, a start and an end, is made up for.
async fn dead(host: &Host, line: &Line, wanted: &mut BTreeSet<ItemHash>, round: u64) {
    let before = host.processes();
    line.set(Way::Dead);
    let (coming, going) = (
        host.instance(&format!("round {round}, dead"), SMALL),
        wanted.pop_first().unwrap(),
    );
    let mut pushed = wanted.clone();
    pushed.extend([coming.clone(), going.clone()]);
    host.push(&pushed).await;
    host.forget(&going);
    host.wait_for_failure(&coming, "cannot ask the core channel node")
        .await;
    assert_eq!(host.processes(), before);
    line.set(Way::Good);
    wanted.insert(coming);
    host.settle(wanted).await;
}

/// In the middle of an image nothing more comes, and the agent is killed. What has come is not lost, and is no machine.
async fn slow(host: &mut Host, line: &Line, wanted: &mut BTreeSet<ItemHash>, round: u64) {
    let before = host.processes();
    line.set(Way::Stalls(2 << 20));
    let name = format!("round {round}, slow");
    let coming = host.instance(&name, 3 << 20);
    let file = ItemHash::of(&image(&name, 3 << 20));
    let mut pushed = wanted.clone();
    pushed.insert(coming.clone());
    host.push(&pushed).await;
    let partial = host.dir.path().join("s/cache/partial").join(file.as_str());
    host.wait("a part of the image", async |_| {
        std::fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0)
    })
    .await;
    let status = host
        .request(Method::GET, "/about/usage/system", String::new(), None)
        .await;
    assert!(status.is_some_and(|status| status.is_success()));
    host.kill();
    host.start().await;
    assert_eq!(host.processes(), before);
    assert!(host.has_traces_of(wanted), "{:?}", host.traces());
    line.set(Way::Good);
    wanted.insert(coming);
    host.settle(wanted).await;
}

/// S3, row "Message trust": one of three is no hindrance, whatever is the matter with it.
#[tokio::test]
async fn machines_come_and_go_while_one_of_three_core_channel_nodes_is_dead_lying_or_slow() {
    if !inside(
        "ccn::machines_come_and_go_while_one_of_three_core_channel_nodes_is_dead_lying_or_slow",
    ) {
        return;
    }
    let ccn = FakeCcn::start().await;
    let (first, second, third) = (
        Line::to(ccn.address()).await,
        Line::to(ccn.address()).await,
        Line::to(ccn.address()).await,
    );
    let setup = Setup {
        ccn: Some(first.url()),
        others: vec![second.url(), third.url()],
        ..Setup::default()
    };
    let mut host = Host::with(ccn, setup).await;
    host.start().await;
    let mut wanted = BTreeSet::from([host.instance("first", SMALL)]);
    host.push(&wanted).await;
    host.settle(&wanted).await;
    for way in [Way::Dead, Way::Breaks(500), Way::Stalls(0)] {
        eprintln!("{way:?}");
        first.set(way);
        let going = wanted.pop_first().unwrap();
        wanted.insert(host.instance(&format!("{way:?}"), SMALL));
        host.forget(&going);
        host.push(&wanted).await;
        host.settle(&wanted).await;
    }
    first.set(Way::Good);
    let stranger = Keypair::generate();
    for lie in Lie::ALL {
        eprintln!("{lie:?}");
        let liar = FakeCcn::start().await;
        let name = format!("{lie:?}");
        let (stays, coming) = (
            wanted.iter().next().unwrap().clone(),
            host.instance(&name, SMALL),
        );
        liar.copy(&host.ccn);
        let (_, other) = host.ccn.message(&stays);
        lie.tell(&liar, &coming, &name, &other);
        liar.set_status(&stays, "forgotten");
        let wishes = json!({stays.as_str(): {"ports": {"80": {"tcp": true}}}});
        liar.set_aggregate(&host.owner.address(), "port-forwarding", wishes);
        liar.set_aggregate(
            &host.owner.address(),
            "security",
            json!({"authorizations": [{"address": stranger.address()}]}),
        );
        first.lead_to(liar.address());
        wanted.insert(coming);
        host.push(&wanted).await;
        host.settle(&wanted).await;
        let ports = host.record(&stays).await.unwrap().ports;
        assert_eq!(ports.len(), 1, "{ports:?}");
        first.lead_to(host.ccn.address());
    }
    for hash in &wanted {
        host.forget(hash);
    }
    host.settle(&BTreeSet::new()).await;
    host.assert_nothing_half_fetched();
}
