//! What the node measures of itself and of its machines, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use aleph_message::ItemHash;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::about::blocking;
use super::operator::Operator;
use super::{ApiError, App};
use crate::ledger::{Capacity, Record, State as Standing};
use crate::metrics::history::{Counters, Sample};
use crate::metrics::{self, Usage};

/// Families of samples in the text format (version 0.0.4).
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str, values: &[(String, f64)]) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP crn_{name} {help}\n# TYPE crn_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "crn_{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help, &[(String::new(), value)]);
    }
}

/// `GET /metrics`, for the operator.
pub(super) async fn prometheus(State(app): State<App>, _: Operator) -> Result<Response, ApiError> {
    let records = app.ledger.all().await?;
    let capacity = app.reconciler.capacity().await?;
    let promised = app.ledger.disk_held().await?;
    let config = Arc::clone(&app.config);
    let usage = blocking(move || metrics::usage(&config.state_dir, promised)).await?;
    let mut text = Text::default();
    host(&mut text, &usage, capacity, &records);
    let mut states: BTreeMap<&str, f64> = BTreeMap::new();
    for record in &records {
        *states.entry(record.state.word()).or_default() += 1.0;
    }
    let states = states
        .into_iter()
        .map(|(state, count)| (format!("{{state=\"{state}\"}}"), count));
    let states: Vec<_> = states.collect();
    text.family("machines", "gauge", "Machines by state.", &states);
    let nodes = app.intake.ccn.nodes().iter().map(|node| {
        // A label's value ends at a quote.
        let url = node.base().replace(['"', '\\'], "");
        let heard = f64::from(u8::from(node.is_heard()));
        (format!("{{url=\"{url}\"}}"), heard)
    });
    let nodes: Vec<_> = nodes.collect();
    let help = "Whether a core channel node's messages are being listened to.";
    text.family("ccn_heard", "gauge", help, &nodes);
    let latest = app.reconciler.history().latest();
    let running = latest.iter().filter(|(hash, _)| {
        let here = |record: &&Record| record.hash == *hash;
        let record = records.iter().find(here);
        record.is_some_and(|record| matches!(record.state, Standing::Running | Standing::Paused))
    });
    let labelled =
        |(hash, sample): &(ItemHash, Sample)| (format!("{{vm=\"{hash}\"}}"), sample.counters);
    machines(&mut text, &running.map(labelled).collect::<Vec<_>>());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text.0).into_response())
}

/// What the host has, and what of it is given out.
fn host(text: &mut Text, usage: &Usage, capacity: Capacity, records: &[Record]) {
    let mib = |mib: u64| (mib << 20) as f64;
    let leases = || records.iter().filter_map(|record| record.lease);
    let load = f64::from(usage.cpu.load_average.load1);
    text.gauge("load1", "Load average of the last minute.", load);
    let (memory, disk) = (usage.mem.available_kb, usage.disk.available_kb);
    for (name, help, value) in [
        (
            "memory_available_bytes",
            "Memory that could be had now.",
            (memory * 1000) as f64,
        ),
        (
            "disk_available_bytes",
            "Disk that is free and not promised.",
            (disk * 1000) as f64,
        ),
        (
            "capacity_memory_bytes",
            "Memory for machines.",
            mib(capacity.memory_mib),
        ),
        (
            "capacity_vcpus",
            "vCPUs for machines.",
            f64::from(capacity.vcpus),
        ),
        (
            "capacity_disk_bytes",
            "Disk for machines.",
            mib(capacity.disk_mib),
        ),
        (
            "leased_memory_bytes",
            "Memory machines hold.",
            mib(leases().map(|l| l.memory_mib).sum()),
        ),
        (
            "leased_vcpus",
            "vCPUs machines hold.",
            f64::from(leases().map(|l| l.vcpus).sum::<u32>()),
        ),
        (
            "leased_disk_bytes",
            "Disk machines hold.",
            mib(leases().map(|l| l.disk_mib).sum()),
        ),
    ] {
        text.gauge(name, help, value);
    }
}

/// What each of these machines uses, by its labels.
fn machines(text: &mut Text, running: &[(String, Counters)]) {
    type Read = fn(&Counters) -> f64;
    let each: [(&str, &str, &str, Read); 6] = [
        (
            "vm_cpu_seconds_total",
            "counter",
            "CPU time of a machine.",
            |c| c.cpu_us as f64 / 1e6,
        ),
        (
            "vm_memory_bytes",
            "gauge",
            "Memory of a machine on the host.",
            |c| c.memory_bytes as f64,
        ),
        (
            "vm_disk_read_bytes_total",
            "counter",
            "Bytes read from disks.",
            |c| c.disk_read_bytes as f64,
        ),
        (
            "vm_disk_written_bytes_total",
            "counter",
            "Bytes written to disks.",
            |c| c.disk_written_bytes as f64,
        ),
        (
            "vm_network_received_bytes_total",
            "counter",
            "Bytes a machine received.",
            |c| c.net_received_bytes as f64,
        ),
        (
            "vm_network_sent_bytes_total",
            "counter",
            "Bytes a machine sent.",
            |c| c.net_sent_bytes as f64,
        ),
    ];
    for (name, kind, help, read) in each {
        let values = running.iter();
        let values: Vec<_> = values
            .map(|(labels, counters)| (labels.clone(), read(counters)))
            .collect();
        text.family(name, kind, help, &values);
    }
}
