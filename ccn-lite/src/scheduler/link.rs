//! The line to one compute node: what it should run is pushed, what it does is polled. Nodes do not wait for each other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aleph_message::{Keypair, allocation};
use axum::body::Body;
use rand::Rng;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::observed::executions;
use super::{Decision, Scheduler, Vm, VmKind};
use crate::outbound::{Answer, Client, OutboundError};

/// The whole list is pushed this often even when nothing changed, so that a node that lost it gets it again.
const PUSH_EVERY: Duration = Duration::from_secs(60);
/// A push may wait until the node has started everything.
const PUSH_PATIENCE: Duration = Duration::from_secs(120);
/// Attempts before the next regular push.
const PUSH_ATTEMPTS: u32 = 5;
const POLL_EVERY: Duration = Duration::from_secs(10);
const POLL_PATIENCE: Duration = Duration::from_secs(10);
/// Some nodes start a machine to answer this one, so it is asked rarely.
const IPV6_EVERY: Duration = Duration::from_secs(300);
/// Largest answer read, bytes.
const MAX_ANSWER: usize = 8 << 20;

const PUSH_PATH: &str = "/control/allocations";

/// Everything a node should run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Desired {
    persistent_vms: Vec<String>,
    instances: Vec<String>,
    on_demand_vms: Vec<String>,
}

impl Desired {
    pub(super) fn of(node: &str, vms: &[Vm], decision: &Decision) -> Self {
        let mut desired = Self::default();
        for vm in vms {
            if decision
                .assignments
                .get(&vm.hash)
                .is_none_or(|at| at != node)
            {
                continue;
            }
            let list = match vm.kind {
                VmKind::Instance => &mut desired.instances,
                VmKind::PersistentProgram => &mut desired.persistent_vms,
                VmKind::OnDemandProgram => &mut desired.on_demand_vms,
            };
            list.push(vm.hash.clone());
        }
        desired
    }
}

#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("cannot encode the list")]
    Encode(#[from] serde_json::Error),
    #[error("cannot sign")]
    Sign(#[from] aleph_message::SigningError),
    #[error("the push did not get through")]
    Http(#[from] OutboundError),
    #[error("the node answered {0}: {1}")]
    Refused(u16, String),
}

/// The line to one node.
pub(super) struct Link {
    pub(super) hash: String,
    pub(super) address: String,
    pub(super) client: Client,
    pub(super) key: Keypair,
    pub(super) scheduler: Scheduler,
    /// A push went through: have a look at what came of it.
    pub(super) dispatched: Notify,
}

/// A pause around `seconds`, so that nodes and retries do not keep step.
fn around(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.7..1.3))
}

impl Link {
    /// Pushes and polls until dropped.
    pub(super) async fn run(self, desired: watch::Receiver<Desired>) {
        tokio::join!(self.push_forever(desired), self.poll_forever());
    }

    async fn push_forever(&self, mut desired: watch::Receiver<Desired>) {
        let mut failures = 0;
        loop {
            let list = desired.borrow_and_update().clone();
            let pause = match self.push(&list).await {
                Ok(errors) => {
                    failures = 0;
                    for (vm, error) in &errors {
                        tracing::warn!(vm, node = self.hash, error, "the node cannot run it");
                    }
                    self.scheduler
                        .0
                        .observed()
                        .entry(self.hash.clone())
                        .or_default()
                        .errors = errors;
                    self.dispatched.notify_one();
                    PUSH_EVERY
                }
                Err(error) => {
                    let error = crate::outbound::chain(&error);
                    tracing::warn!(
                        node = self.hash,
                        address = self.address,
                        error,
                        "allocation push failed"
                    );
                    failures += 1;
                    if failures % PUSH_ATTEMPTS == 0 {
                        PUSH_EVERY
                    } else {
                        Duration::from_secs(1 << (failures % PUSH_ATTEMPTS))
                    }
                }
            };
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(around(pause)) => {}
            }
        }
    }

    /// Sends the list; returns the errors the node reports, by item hash.
    async fn push(&self, list: &Desired) -> Result<BTreeMap<String, String>, PushError> {
        let body = serde_json::to_vec(list)?;
        let now = crate::store::now() as i64;
        let authorization = allocation::authorization(&self.key, "POST", PUSH_PATH, &body, now)?;
        let request = http::Request::post(format!("{}{PUSH_PATH}", self.address))
            .header(http::header::AUTHORIZATION, authorization)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(OutboundError::from)?;
        let answer = self
            .client
            .send(request, MAX_ANSWER, Some(PUSH_PATIENCE))
            .await?;
        let report: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        // 207 and 503 say which machines failed; a 503 of a proxy says nothing of the kind.
        let errors = report.get("errors").and_then(Value::as_object);
        match errors {
            Some(errors) if matches!(answer.status.as_u16(), 200 | 207 | 503) => {
                let text = |error: &Value| {
                    error
                        .as_str()
                        .map_or_else(|| error.to_string(), str::to_owned)
                };
                Ok(errors
                    .iter()
                    .map(|(vm, error)| (vm.clone(), text(error)))
                    .collect())
            }
            None if answer.status.is_success() => Ok(BTreeMap::new()),
            _ => {
                let text: String = String::from_utf8_lossy(&answer.body)
                    .chars()
                    .take(200)
                    .collect();
                Err(PushError::Refused(answer.status.as_u16(), text))
            }
        }
    }

    async fn poll_forever(&self) {
        let mut ipv6_asked: Option<Instant> = None;
        loop {
            let with_ipv6 = ipv6_asked.is_none_or(|asked| asked.elapsed() > IPV6_EVERY);
            if self.poll(with_ipv6).await && with_ipv6 {
                ipv6_asked = Some(Instant::now());
            }
            tokio::select! {
                () = self.dispatched.notified() => tokio::time::sleep(Duration::from_secs(1)).await,
                () = tokio::time::sleep(around(POLL_EVERY)) => {}
            }
        }
    }

    /// Asks everything once; false when the node did not answer.
    async fn poll(&self, with_ipv6: bool) -> bool {
        let (config, usage, list) = tokio::join!(
            self.ask("/status/config"),
            self.ask("/about/usage/system"),
            self.ask("/v2/about/executions/list"),
        );
        let ipv6 = if with_ipv6 && config.is_ok() {
            self.ask("/status/check/ipv6").await.ok()
        } else {
            None
        };
        if let Err(error) = &config {
            tracing::debug!(
                node = self.hash,
                error = crate::outbound::chain(error),
                "the node does not answer"
            );
        }
        let answered = config.is_ok();
        let came = {
            let mut all = self.scheduler.0.observed();
            let observed = all.entry(self.hash.clone()).or_default();
            let was_online = observed.is_online();
            if let Ok(config) = config {
                observed.last_seen = Some(Instant::now());
                observed.config = config;
                observed.usage = usage.unwrap_or(Value::Null);
                observed.executions = list.ok().as_ref().and_then(executions);
            }
            if let Some(ipv6) = ipv6 {
                observed.ipv6 = ipv6;
            }
            !was_online && observed.is_online()
        };
        if came {
            tracing::info!(node = self.hash, address = self.address, "node online");
            self.scheduler.0.reconsider.notify_one();
        }
        answered
    }

    async fn ask(&self, path: &str) -> Result<Value, OutboundError> {
        let url = format!("{}{path}", self.address);
        let Answer { status, body, .. } = self.client.get(&url, MAX_ANSWER, POLL_PATIENCE).await?;
        if !status.is_success() {
            return Err(OutboundError::Body(
                format!("{path} answered {status}").into(),
            ));
        }
        serde_json::from_slice(&body).map_err(|error| OutboundError::Body(error.into()))
    }
}
