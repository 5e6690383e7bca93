//! What brings machines here: the scheduler's pushes, owners' notifications, and the question beforehand whether there
//! is room.

use std::collections::BTreeSet;
use std::time::Duration;

use aleph_message::{Content, ItemHash, MessageType};
use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::time_text::text;
use super::{ApiError, App, Shared, owner};
use crate::auth::scheduler::Push;
use crate::intake::workload::{Elsewhere, Workload};
use crate::intake::{self, IntakeError, Verified};
use crate::ledger::{self, Kind, Record, Source};

/// The longest body taken, in bytes.
const MAX_BODY: usize = 1 << 20;
/// How long a notification waits for a failure that comes at once.
const PATIENCE: Duration = Duration::from_millis(700);
/// Credits must last this long at the start, in seconds.
const CREDIT_RUNWAY: u128 = 3600;

#[derive(Deserialize)]
struct Allocation {
    #[serde(default)]
    persistent_vms: Vec<String>,
    #[serde(default)]
    instances: Vec<String>,
    #[serde(default)]
    on_demand_vms: Vec<String>,
    #[serde(default)]
    jobs: Vec<String>,
}

#[derive(Deserialize)]
struct Notification {
    instance: String,
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<axum::body::Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Maximum request body size 1048576 exceeded",
        )
    };
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    to_bytes(body, MAX_BODY).await.map_err(|_| too_large())
}

/// The body of a request that a scheduler has signed, and who that is.
pub(super) async fn scheduled(
    app: &Shared,
    request: Request,
) -> Result<(axum::body::Bytes, String), ApiError> {
    let refused = || {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "Authentication token received is invalid",
        )
    };
    let (parts, body) = request.into_parts();
    if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(refused());
    }
    let body = read_body(&parts.headers, body)
        .await
        .map_err(|_| refused())?;
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let checked = app
        .schedulers
        .check(Push {
            authorization: parts
                .headers
                .get(header::AUTHORIZATION)
                .map(|value| value.to_str().unwrap_or_default()),
            token: text("x-auth-signature"),
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            body: &body,
            now: OffsetDateTime::now_utc().unix_timestamp(),
        })
        .await;
    let signer = checked.map_err(|error| {
        tracing::warn!("a scheduler's request is refused: {}", crate::chain(&error));
        refused()
    })?;
    Ok((body, signer))
}

/// `POST /control/allocations`: the complete list of what the scheduler wants here. It is written down in one
/// transaction and answered; the work goes on by itself.
pub(super) async fn push(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (body, signer) = scheduled(&app, request).await?;
    let allocation: Allocation = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("Body is not an allocation: {error}"),
        )
    })?;
    // Programs on demand start with the first request for them.
    tracing::debug!(
        on_demand = allocation.on_demand_vms.len(),
        "programs that may be asked for here"
    );
    if !allocation.jobs.is_empty() {
        tracing::warn!("jobs in an allocation push are passed over");
    }
    let outcome = allocate(&app, allocation).await?;
    tracing::info!(
        signer,
        successful = outcome.successful.len(),
        failing = outcome.errors.len(),
        stopped = outcome.stopped.len(),
        "allocation push"
    );
    Ok(outcome.into_response())
}

#[derive(Default)]
struct Outcome {
    successful: Vec<String>,
    stopped: Vec<String>,
    errors: Map<String, Value>,
}

impl Outcome {
    fn into_response(self) -> Response {
        let status = match (self.errors.is_empty(), self.successful.is_empty()) {
            (true, _) => StatusCode::OK,
            (false, false) => StatusCode::MULTI_STATUS,
            (false, true) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json!({
            "success": self.errors.is_empty(),
            "successful": self.successful,
            "failing": self.errors.keys().collect::<Vec<_>>(),
            "stopped": self.stopped,
            "errors": self.errors,
        });
        (status, Json(body)).into_response()
    }
}

async fn allocate(app: &Shared, allocation: Allocation) -> Result<Outcome, ApiError> {
    let mut outcome = Outcome::default();
    let mut wanted = BTreeSet::new();
    for text in allocation
        .persistent_vms
        .into_iter()
        .chain(allocation.instances)
    {
        match text.parse::<ItemHash>() {
            Ok(hash) => {
                wanted.insert(hash);
            }
            Err(error) => {
                outcome.errors.insert(text, error.to_string().into());
            }
        }
    }
    let allocated = app.reconciler.allocate(wanted).await?;
    outcome.stopped = allocated.stopped.iter().map(ToString::to_string).collect();
    for (hash, failure) in allocated.standing {
        match failure {
            Some(reason) => {
                outcome.errors.insert(hash.to_string(), reason.into());
            }
            None => outcome.successful.push(hash.to_string()),
        }
    }
    Ok(outcome)
}

/// `POST /control/allocation/notify`: anyone may say that an instance is meant for this node; its message and its
/// payment decide.
pub(super) async fn notify(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body).await?;
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "Body is not valid JSON"))?;
    let notification: Notification = serde_json::from_value(value).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("Body is not a notification: {error}"),
        )
    })?;
    let hash = owner::hash(&notification.instance)?;
    let verified = app
        .intake
        .message(&hash)
        .await
        .map_err(|error| refusal(&error))?;
    if verified.envelope.message_type != MessageType::Instance {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "400: Message is not an instance",
        ));
    }
    let workload = intake::workload(&verified).map_err(|error| refusal(&error))?;
    check_node(&app, &workload)?;
    let record = owner::machine(&app, &hash).await?;
    check_room(&app, record.as_ref(), &workload).await?;
    let source = check_payment(&app, record.as_ref(), &workload, &verified).await?;

    app.reconciler.run(&hash, source, true).await?;
    let ended =
        |state: &ledger::State| matches!(state, ledger::State::Failed(_) | ledger::State::Running);
    app.reconciler.settle(&hash, PATIENCE, ended).await;
    let failure = match app.ledger.get(&hash).await?.map(|record| record.state) {
        Some(ledger::State::Failed(failure)) => Some(failure),
        _ => None,
    };
    let text = hash.to_string();
    // Where its owner sees what becomes of it.
    let place = [(header::LOCATION, format!("/control/machine/{hash}"))];
    Ok(match failure {
        None => {
            let body = json!({ "success": true, "successful": true, "failing": [], "errors": {} });
            (place, Json(body)).into_response()
        }
        Some(failure) => {
            let body = json!({
                "success": false, "successful": false, "failing": [text],
                "errors": { text.as_str(): failure.reason },
            });
            // Absent when trying again cannot help.
            let again = failure.retry_at.map(|at| {
                let seconds = (at - ledger::now_us()).max(0) / 1_000_000 + 1;
                HeaderValue::from(seconds)
            });
            let mut refused = (StatusCode::SERVICE_UNAVAILABLE, place, Json(body)).into_response();
            if let Some(seconds) = again {
                refused.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            refused
        }
    })
}

/// How a message that cannot be used is answered.
pub(super) fn refusal(error: &IntakeError) -> ApiError {
    let status = match error {
        IntakeError::Unknown(hash) => {
            return ApiError::new(StatusCode::NOT_FOUND, format!("Hash not found: {hash}"));
        }
        IntakeError::Status { status, .. } if status == "pending" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        IntakeError::Status { .. } => StatusCode::NOT_FOUND,
        IntakeError::Ccn(_) | IntakeError::File(_) | IntakeError::Disk(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_REQUEST,
    };
    ApiError::new(status, crate::chain(error))
}

fn check_node(app: &Shared, workload: &Workload) -> Result<(), ApiError> {
    let met = workload.requirements.unmet(app.intake.node());
    met.map_err(|elsewhere| match elsewhere {
        Elsewhere::Nameless => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "503: Node hash not yet discovered, cannot accept targeted allocations",
        ),
        Elsewhere::Pinned(_) => ApiError::new(
            StatusCode::BAD_REQUEST,
            "400: Instance is allocated to a different node",
        ),
        Elsewhere::Other(_) => ApiError::new(StatusCode::BAD_REQUEST, elsewhere.to_string()),
    })
}

async fn check_room(
    app: &Shared,
    record: Option<&Record>,
    workload: &Workload,
) -> Result<(), ApiError> {
    if record.is_some_and(|record| record.lease.is_some()) {
        return Ok(());
    }
    let capacity = app.reconciler.capacity().await?;
    if let Err(refusal) = app
        .ledger
        .would_admit(&workload.owner, workload.demand(), capacity)
        .await?
    {
        tracing::warn!("{refusal}");
        let text = "This CRN cannot host the requested instance at this time.";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok(())
}

/// Whether the payment lets it start, and as whose it then counts.
async fn check_payment(
    app: &Shared,
    record: Option<&Record>,
    workload: &Workload,
    verified: &Verified,
) -> Result<Source, ApiError> {
    match workload.payment.method {
        "credit" => {
            let unavailable =
                |error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, crate::chain(&error));
            let hash = &verified.envelope.item_hash;
            let price = app
                .intake
                .ccn
                .price(hash.as_str())
                .await
                .map_err(unavailable)?;
            let price = price
                .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "404: Price not found"))?;
            let per_second = fixed_point(&price.cost).ok_or_else(|| {
                ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the price is not understood",
                )
            })?;
            let balance = app
                .intake
                .ccn
                .balance(&workload.owner)
                .await
                .map_err(unavailable)?
                .credit_balance;
            let required = per_second.saturating_mul(CREDIT_RUNWAY);
            if u128::from(balance).saturating_mul(UNIT) < required {
                let text = format!(
                    "Insufficient credits for this instance\n\nRequired: {} credits\nCurrent user balance: {balance}",
                    required.div_ceil(UNIT)
                );
                return Err(ApiError::new(StatusCode::PAYMENT_REQUIRED, text));
            }
            Ok(Source::Notify)
        }
        "superfluid" => {
            if workload.payment.receiver.as_deref() != Some(app.config.payment_receiver()) {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "400: Message is not for this instance",
                ));
            }
            // Without a chain to ask, a stream cannot be seen.
            Err(ApiError::new(
                StatusCode::PAYMENT_REQUIRED,
                "402: This node cannot verify payment streams",
            ))
        }
        // Held tokens are the scheduler's to judge; what it has brought here may be started again.
        _ => match record {
            Some(record)
                if record.source == Source::Scheduler && record.kind == Some(Kind::Instance) =>
            {
                Ok(Source::Scheduler)
            }
            _ => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "400: Invalid payment method",
            )),
        },
    }
}

/// One credit in the unit of [`fixed_point`].
const UNIT: u128 = 1_000_000_000_000_000_000;

/// Decimal digits as a whole number of 10⁻¹⁸.
fn fixed_point(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.get(..fraction.len().min(18))?;
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let scale = 10u128.pow(18 - u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()? * scale
    };
    whole
        .parse::<u128>()
        .ok()?
        .checked_mul(UNIT)?
        .checked_add(fraction)
}

/// `POST /control/reserve_resources`, signed: keeps room for an instance for a minute. The body is its content.
pub(super) async fn reserve(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    request: Body,
) -> Result<Json<Value>, ApiError> {
    let sender = owner::sender_once(&app, &method, &uri, &headers).await?;
    let body = read_body(&headers, request).await?;
    owner::check_body(&headers, &body)?;
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "Body is not valid JSON"))?;
    let content = Content::parse(MessageType::Instance, value)
        .map_err(|rejection| ApiError::new(StatusCode::BAD_REQUEST, rejection.reason()))?;
    // The content has no message yet, so no hash either.
    let nameless = ItemHash::of(b"");
    let workload = Workload::read(&nameless, &content)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    check_node(&app, &workload)?;
    let capacity = app.reconciler.capacity().await?;
    let ports = app.config.network.host_ports;
    match app
        .ledger
        .reserve(&sender.address, workload.demand(), capacity, ports)
        .await?
    {
        Ok(expires) => Ok(Json(
            json!({ "status": "reserved", "expires": text(expires) }),
        )),
        Err(refusal) => {
            tracing::warn!("{refusal}");
            let text = "This CRN cannot reserve the requested resources at this time.";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_are_read_exactly() {
        assert_eq!(
            fixed_point("0.003958333333333333"),
            Some(3_958_333_333_333_333)
        );
        assert_eq!(fixed_point("12"), Some(12 * UNIT));
        assert_eq!(fixed_point("1.5"), Some(UNIT + UNIT / 2));
        assert_eq!(fixed_point("0.0000000000000000019"), Some(1));
        for text in ["", ".", "-1", "1e3", "a", "1.é"] {
            assert_eq!(fixed_point(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_price_or_none(text in "[0-9.]{0,48}|.{0,16}", whole in any::<u64>(), part in 0u64..10u64.pow(18)) {
            let _ = fixed_point(&text);
            let exact = u128::from(whole) * UNIT + u128::from(part);
            prop_assert_eq!(fixed_point(&format!("{whole}.{part:018}")), Some(exact));
        }
    }
}
