//! The scheduler's public API: v1 for the command line, v0 for the older libraries, and the list of compute nodes.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::observed::Observed;
use super::{Node, Plan, Scheduler, Vm, VmKind};

const MAX_PAGE_SIZE: usize = 1000;

/// How long a plan is said to hold, seconds: until the next regular push.
const PERIOD_SECONDS: f64 = 60.0;

/// The routes, to be merged with the node's own.
pub fn routes(scheduler: Scheduler) -> Router {
    Router::new()
        .route("/api/v1/vms", get(vms))
        .route("/api/v1/vms/{hash}", get(vm))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{hash}", get(node))
        .route("/api/v1/stats", get(stats))
        .route("/api/v0/plan", get(plan_v0))
        .route("/api/v0/nodes", get(nodes_v0))
        .route("/api/v0/allocation/{hash}", get(allocation_v0))
        .route("/crns.json", get(crns))
        .with_state(scheduler)
}

type Seen = BTreeMap<String, Observed>;

fn not_found(what: &str) -> Response {
    (
        StatusCode::NOT_FOUND,
        Json(json!({ "error": format!("{what} not found") })),
    )
        .into_response()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Filter {
    owner: Option<String>,
    owners: Option<String>,
    sender: Option<String>,
    vm_hash: Option<String>,
    hash: Option<String>,
    node: Option<String>,
    status: Option<String>,
    page: Option<usize>,
    page_size: Option<usize>,
}

impl Filter {
    fn page_of(&self, items: Vec<Value>) -> Json<Value> {
        let page = self.page.unwrap_or(1).max(1);
        let size = self.page_size.unwrap_or(200).clamp(1, MAX_PAGE_SIZE);
        let total = items.len();
        let items: Vec<Value> = items
            .into_iter()
            .skip((page - 1).saturating_mul(size))
            .take(size)
            .collect();
        Json(json!({
            "items": items,
            "pagination": {
                "page": page,
                "page_size": size,
                "total_items": total,
                "total_pages": total.div_ceil(size),
            },
        }))
    }
}

/// Whether `value` is one of the comma-separated `wanted`, without regard to case; no filter admits all.
fn is_among(wanted: Option<&str>, value: &str) -> bool {
    wanted.is_none_or(|wanted| {
        wanted
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case(value))
    })
}

async fn vms(State(scheduler): State<Scheduler>, Query(filter): Query<Filter>) -> Json<Value> {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let items = plan
        .vms
        .iter()
        .filter(|vm| {
            is_among(filter.owner.as_deref(), &vm.owner)
                && is_among(filter.owners.as_deref(), &vm.owner)
                && is_among(filter.sender.as_deref(), &vm.sender)
                && filter
                    .vm_hash
                    .as_deref()
                    .is_none_or(|prefix| vm.hash.starts_with(prefix))
                && is_among(
                    filter.node.as_deref(),
                    plan.decision
                        .assignments
                        .get(&vm.hash)
                        .map_or("", String::as_str),
                )
        })
        .map(|vm| vm_entry(vm, &plan, &seen))
        .filter(|entry| {
            is_among(
                filter.status.as_deref(),
                entry["status"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    filter.page_of(items)
}

async fn vm(State(scheduler): State<Scheduler>, Path(hash): Path<String>) -> Response {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    match plan.vms.iter().find(|vm| vm.hash == hash) {
        Some(vm) => Json(vm_entry(vm, &plan, &seen)).into_response(),
        None => not_found("VM"),
    }
}

/// What is wanted and what is seen, as one word.
fn status(vm: &Vm, plan: &Plan, seen: &Seen) -> &'static str {
    let Some(at) = plan.decision.assignments.get(&vm.hash) else {
        let never = plan.decision.unschedulable.contains_key(&vm.hash);
        return if never {
            "unschedulable"
        } else {
            "unscheduled"
        };
    };
    let runs_on = |observed: &Observed| observed.execution(&vm.hash).is_some();
    let here = seen.get(at).is_some_and(runs_on);
    let elsewhere = seen
        .iter()
        .any(|(hash, observed)| hash != at && observed.is_online() && runs_on(observed));
    // Programs started by requests may run anywhere, and nowhere.
    if vm.kind == VmKind::OnDemandProgram {
        return if here { "dispatched" } else { "scheduled" };
    }
    match (
        seen.get(at).is_some_and(Observed::is_online),
        here,
        elsewhere,
    ) {
        (false, _, _) => "unknown",
        (true, true, true) => "duplicated",
        (true, true, false) => "dispatched",
        (true, false, true) => "misplaced",
        (true, false, false) => "scheduled",
    }
}

fn vm_entry(vm: &Vm, plan: &Plan, seen: &Seen) -> Value {
    let at = plan.decision.assignments.get(&vm.hash);
    let unschedulable = plan.decision.unschedulable.get(&vm.hash);
    let scheduling = match (at, unschedulable) {
        (Some(_), _) => "scheduled",
        (None, Some(_)) => "unschedulable",
        (None, None) => "unscheduled",
    };
    let observed_nodes: Vec<&String> = seen
        .iter()
        .filter(|(_, node)| node.execution(&vm.hash).is_some())
        .map(|(hash, _)| hash)
        .collect();
    let error = at
        .and_then(|at| seen.get(at)?.errors.get(&vm.hash))
        .or(unschedulable);
    json!({
        "vm_hash": vm.hash,
        "vm_type": vm.kind.word(),
        "allocated_node": at,
        "status": status(vm, plan, seen),
        "scheduling_status": scheduling,
        "migration_target": null,
        "owner": vm.owner,
        "sender": vm.sender,
        "observed_nodes": observed_nodes,
        "running": at.and_then(|at| seen.get(at)?.execution(&vm.hash)).is_some_and(|execution| execution.running),
        "payment_type": vm.payment_type,
        "requirements_vcpus": vm.vcpus,
        "requirements_memory": vm.memory_mib,
        "created_at": vm.created,
        "error": error,
    })
}

async fn nodes(State(scheduler): State<Scheduler>, Query(filter): Query<Filter>) -> Json<Value> {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let items = plan
        .nodes
        .iter()
        .filter(|node| {
            let fragment = filter.hash.as_deref();
            fragment.is_none_or(|fragment| {
                node.hash.starts_with(fragment) || node.hash.ends_with(fragment)
            })
        })
        .map(|node| node_entry(node, &plan, seen.get(&node.hash)))
        .collect();
    filter.page_of(items)
}

async fn node(State(scheduler): State<Scheduler>, Path(hash): Path<String>) -> Response {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    match plan.nodes.iter().find(|node| node.hash == hash) {
        Some(node) => Json(node_entry(node, &plan, seen.get(&hash))).into_response(),
        None => not_found("Node"),
    }
}

fn node_entry(node: &Node, plan: &Plan, seen: Option<&Observed>) -> Value {
    let status = match seen {
        Some(seen) if seen.is_online() => "healthy",
        Some(seen) if seen.last_seen.is_some() => "unreachable",
        _ => "unknown",
    };
    json!({
        "node_hash": node.hash,
        "address": node.address,
        "status": status,
        "name": node.entry["name"],
        "owner": node.entry["owner"],
        "version": seen.and_then(Observed::version),
        "confidential_computing_enabled": seen.is_some_and(Observed::is_confidential),
        "supports_ipv6": seen.is_some_and(Observed::supports_ipv6),
        "vm_count": plan.decision.assignments.values().filter(|at| **at == node.hash).count(),
    })
}

async fn stats(State(scheduler): State<Scheduler>) -> Json<Value> {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let mut statuses = BTreeMap::<&str, usize>::new();
    for vm in &plan.vms {
        *statuses.entry(status(vm, &plan, &seen)).or_default() += 1;
    }
    Json(json!({
        "total_vms": plan.vms.len(),
        "vms_by_status": statuses,
        "total_nodes": plan.nodes.len(),
        "healthy_nodes": seen.values().filter(|node| node.is_online()).count(),
    }))
}

fn period(plan: &Plan) -> Value {
    let start = OffsetDateTime::from_unix_timestamp(plan.decided as i64)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    json!({"start_timestamp": start.format(&Rfc3339).unwrap_or_default(), "duration_seconds": PERIOD_SECONDS})
}

async fn plan_v0(State(scheduler): State<Scheduler>) -> Json<Value> {
    let plan = scheduler.0.plan();
    let mut entries = Map::new();
    for node in &plan.nodes {
        let of_kind = |kind: VmKind| -> Vec<&str> {
            let here = |vm: &&Vm| {
                vm.kind == kind && plan.decision.assignments.get(&vm.hash) == Some(&node.hash)
            };
            plan.vms
                .iter()
                .filter(here)
                .map(|vm| vm.hash.as_str())
                .collect()
        };
        let entry = json!({
            "persistent_vms": of_kind(VmKind::PersistentProgram),
            "instances": of_kind(VmKind::Instance),
            "on_demand_vms": of_kind(VmKind::OnDemandProgram),
            "jobs": [],
        });
        entries.insert(node.hash.clone(), entry);
    }
    Json(json!({"period": period(&plan), "plan": entries}))
}

fn node_item_v0(node: &Node, seen: Option<&Observed>) -> Value {
    json!({
        "node_id": node.hash,
        "url": node.address,
        "ipv6": seen.and_then(Observed::ipv6_pool),
        "supports_ipv6": seen.is_some_and(Observed::supports_ipv6),
    })
}

async fn nodes_v0(State(scheduler): State<Scheduler>) -> Json<Value> {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let nodes: Vec<Value> = plan
        .nodes
        .iter()
        .map(|node| node_item_v0(node, seen.get(&node.hash)))
        .collect();
    Json(json!({ "nodes": nodes }))
}

async fn allocation_v0(State(scheduler): State<Scheduler>, Path(hash): Path<String>) -> Response {
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let vm = plan.vms.iter().find(|vm| vm.hash == hash);
    let at = plan.decision.assignments.get(&hash);
    let node = at.and_then(|at| plan.nodes.iter().find(|node| node.hash == *at));
    let (Some(vm), Some(node)) = (vm, node) else {
        return not_found("Allocation");
    };
    let seen = seen.get(&node.hash);
    let ipv6 = seen.and_then(|seen| seen.execution(&hash)?.ipv6.clone());
    Json(json!({
        "vm_hash": vm.hash,
        "vm_type": vm.kind.word(),
        "vm_ipv6": ipv6,
        "period": period(&plan),
        "node": node_item_v0(node, seen),
    }))
    .into_response()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CrnFilter {
    filter_inactive: Option<String>,
}

async fn crns(State(scheduler): State<Scheduler>, Query(filter): Query<CrnFilter>) -> Json<Value> {
    let active_only = filter
        .filter_inactive
        .is_some_and(|flag| flag.eq_ignore_ascii_case("true") || flag == "1");
    let (plan, seen) = (scheduler.0.plan(), scheduler.0.observed());
    let unseen = Observed::default();
    let rows: Vec<Value> = plan
        .nodes
        .iter()
        .map(|node| (node, seen.get(&node.hash).unwrap_or(&unseen)))
        .filter(|(_, seen)| !active_only || seen.is_online())
        .map(|(node, seen)| crn_row(node, seen))
        .collect();
    Json(json!({ "crns": rows }))
}

fn crn_row(node: &Node, seen: &Observed) -> Value {
    let entry = &node.entry;
    let word = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .filter(|word| !word.is_empty())
    };
    let configured = seen
        .config
        .pointer("/payment/PAYMENT_RECEIVER_ADDRESS")
        .and_then(Value::as_str);
    let receiver = configured
        .filter(|word| !word.is_empty())
        .or(word("stream_reward"))
        .or(word("reward"));
    let computing =
        |name: &str| seen.config.pointer(&format!("/computing/{name}")) == Some(&Value::Bool(true));
    let usage = if seen.is_online() {
        seen.usage.clone()
    } else {
        Value::Null
    };
    let gpus = usage
        .pointer("/gpu/available_devices")
        .cloned()
        .unwrap_or_else(|| json!([]));
    json!({
        "hash": node.hash,
        "name": entry["name"],
        "address": node.address,
        "owner": entry["owner"],
        "parent": entry.get("parent"),
        "status": entry.get("status"),
        "score": entry.get("score").and_then(Value::as_f64).unwrap_or(0.0),
        "reward": word("reward"),
        "version": seen.version(),
        "payment_receiver_address": receiver,
        "gpu_support": computing("ENABLE_GPU_SUPPORT"),
        "confidential_support": seen.is_confidential(),
        "qemu_support": true,
        "ipv6_check": seen.ipv6_check(),
        "system_usage": usage,
        "compatible_available_gpus": gpus,
        "terms_and_conditions": word("terms_and_conditions"),
    })
}
