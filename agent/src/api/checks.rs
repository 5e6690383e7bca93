//! The node's checks of itself, as measuring clients read them: the same keys and status codes as older nodes
//! (spec crn-api §1.7), run at the same time instead of one after the other, and with `?explain=true` the reason of
//! each failure and what to do about it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use aleph_message::ItemHash;
use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ApiError, App, programs};

/// For each step of a check.
const STEP: Duration = Duration::from_secs(5);
/// For all answers of the diagnostic program; a first one may have to be started.
const PROGRAM: Duration = Duration::from_secs(20);
/// The longest answer of the diagnostic program, in bytes.
const MAX_ANSWER: usize = 1 << 20;

type Outcome = Result<(), String>;

/// `GET /status/check/host`: whether the host reaches the internet and is found by its name, over both families.
pub(super) async fn host(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let checks = &app.config.checks;
    let domain = &app.config.domain;
    let family = async |v6: bool| {
        let address = if v6 { checks.ipv6 } else { checks.ipv4 };
        let (egress, dns, own, http) = tokio::join!(
            egress(address),
            resolve(&checks.host, v6, "set network.dns or the host's resolver"),
            resolve(
                domain,
                v6,
                "give it an address record of this family, or set domain"
            ),
            web(&checks.host, v6),
        );
        [
            ("egress", egress),
            ("dns", dns),
            ("domain", own),
            ("http", http),
        ]
    };
    let (ipv4, ipv6) = tokio::join!(family(false), family(true));
    let mut good = true;
    let (mut shown, mut reasons) = (Map::new(), Map::new());
    for (name, outcomes) in [("ipv4", ipv4), ("ipv6", ipv6)] {
        // What is fetched from the web does not decide (spec crn-api §1.7).
        good &= outcomes
            .iter()
            .all(|(check, outcome)| *check == "http" || outcome.is_ok());
        let passed: Map<_, _> = outcomes
            .iter()
            .map(|(check, outcome)| ((*check).to_owned(), outcome.is_ok().into()))
            .collect();
        for (check, outcome) in outcomes {
            if let Err(reason) = outcome {
                reasons.insert(format!("{name}.{check}"), reason.into());
            }
        }
        shown.insert(name.to_owned(), passed.into());
    }
    answer(good, shown, reasons, &query)
}

fn answer(
    good: bool,
    mut shown: Map<String, Value>,
    reasons: Map<String, Value>,
    query: &HashMap<String, String>,
) -> Response {
    // Clients take every other key for a check.
    if query.contains_key("explain") {
        shown.insert("reasons".to_owned(), reasons.into());
    }
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(shown)).into_response()
}

async fn egress(address: SocketAddr) -> Outcome {
    match timeout(STEP, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "cannot connect to {address}: {error}. See that the host has an address and a default route of this \
             family and that no firewall stands between"
        )),
        Err(_) => Err(format!(
            "{address} did not answer within {STEP:?}. See that no firewall drops outgoing packets"
        )),
    }
}

async fn lookup(name: &str, v6: bool) -> Result<SocketAddr, String> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    match timeout(STEP, tokio::net::lookup_host((name, 80))).await {
        Ok(Ok(mut found)) => found
            .find(|address| address.is_ipv6() == v6)
            .ok_or_else(|| format!("{name} has no {family} address")),
        Ok(Err(error)) => Err(format!("{name} cannot be resolved: {error}")),
        Err(_) => Err(format!("the resolver did not answer within {STEP:?}")),
    }
}

async fn resolve(name: &str, v6: bool, remedy: &str) -> Outcome {
    lookup(name, v6)
        .await
        .map(drop)
        .map_err(|error| format!("{error}: {remedy}"))
}

async fn web(name: &str, v6: bool) -> Outcome {
    let address = lookup(name, v6).await?;
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 5];
        stream.read_exact(&mut status).await?;
        Ok::<_, std::io::Error>(status)
    };
    match timeout(STEP, ask).await {
        Ok(Ok(status)) if &status == b"HTTP/" => Ok(()),
        Ok(Ok(_)) => Err(format!(
            "{name} answered something that is not HTTP: a proxy may stand between"
        )),
        Ok(Err(error)) => Err(format!("http://{name} at {address}: {error}")),
        Err(_) => Err(format!("http://{name} did not answer within {STEP:?}")),
    }
}

/// `GET /status/check/fastapi`: whether the diagnostic program works.
pub(super) async fn fastapi(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let retro = query
        .get("retro-compatibility")
        .is_some_and(|value| value == "true");
    program(&app, &query, retro).await
}

/// `GET /status/check/fastapi/legacy`: the same without what older programs do not have.
pub(super) async fn fastapi_legacy(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    program(&app, &query, true).await
}

/// What decides (spec crn-api §1.7).
const DECISIVE: [&str; 7] = [
    "index",
    "environ",
    "ipv4",
    "internet",
    "dns",
    "error_handling",
    "lifespan",
];

async fn program(
    app: &App,
    query: &HashMap<String, String>,
    retro: bool,
) -> Result<Response, ApiError> {
    let configured = app.config.checks.program.as_deref();
    let Some(hash) = configured.and_then(|hash| hash.parse::<ItemHash>().ok()) else {
        let text = "no diagnostic program is configured: set checks.program to the hash of one";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let mut outcomes: BTreeMap<&str, Outcome> = BTreeMap::new();
    let all = async {
        // The first one starts the program; the others find it running.
        outcomes.insert("index", check(app, &hash, "index").await);
        let others = [
            "environ",
            "messages",
            "dns",
            "ipv4",
            "internet",
            "cache",
            "persistent_storage",
        ]
        .into_iter()
        .chain(["error_handling"])
        .chain(["get_a_message", "lifespan"].into_iter().filter(|_| !retro));
        let others = others.map(async |name| (name, check(app, &hash, name).await));
        outcomes.extend(futures_util::future::join_all(others).await);
    };
    if timeout(PROGRAM, all).await.is_err() {
        let text = format!("the diagnostic program did not answer within {PROGRAM:?}");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let good = outcomes
        .iter()
        .all(|(name, outcome)| outcome.is_ok() || !DECISIVE.contains(name));
    let shown = outcomes
        .iter()
        .map(|(name, outcome)| ((*name).to_owned(), outcome.is_ok().into()))
        .collect();
    let reasons = outcomes
        .into_iter()
        .filter_map(|(name, outcome)| Some((name.to_owned(), outcome.err()?.into())))
        .collect();
    Ok(answer(good, shown, reasons, query))
}

async fn check(app: &App, hash: &ItemHash, name: &str) -> Outcome {
    let ok = |holds: bool, wanted: &str, answer: &Value| {
        if holds {
            Ok(())
        } else {
            Err(format!("expected {wanted}, the program answered {answer}"))
        }
    };
    match name {
        "index" => {
            let answer = json_of(app, hash, "/").await?;
            ok(
                answer["Example"] == "example_fastapi",
                "Example to be example_fastapi",
                &answer,
            )
        }
        "environ" => {
            let answer = json_of(app, hash, "/environ").await?;
            let keys = [
                "ALEPH_API_HOST",
                "ALEPH_API_UNIX_SOCKET",
                "ALEPH_REMOTE_CRYPTO_HOST",
                "ALEPH_REMOTE_CRYPTO_UNIX_SOCKET",
                "ALEPH_ADDRESS_TO_USE",
            ];
            let missing = keys.into_iter().find(|key| answer.get(key).is_none());
            missing.map_or(Ok(()), |key| {
                Err(format!("the program has no variable {key}"))
            })
        }
        "dns" => {
            let answer = json_of(app, hash, "/dns").await?;
            let has = |family: &str| answer[family].as_str().is_some_and(|text| !text.is_empty());
            ok(
                has("ipv4") && has("ipv6"),
                "addresses of both families",
                &answer,
            )
        }
        "ipv4" => {
            let answer = json_of(app, hash, "/ip/4").await?;
            ok(answer["result"] == true, "a connection over IPv4", &answer)
        }
        "internet" => {
            let answer = json_of(app, hash, "/internet").await?;
            let good = answer["result"].as_i64().is_some_and(|status| status < 400);
            ok(good, "an HTTP status below 400", &answer)
        }
        "cache" => {
            json_of(app, hash, "/cache/set/a/42").await?;
            let answer = json_of(app, hash, "/cache/get/a").await?;
            ok(answer == "42" || answer == 42, "42 from the cache", &answer)
        }
        "persistent_storage" => {
            let count = async || {
                let answer = json_of(app, hash, "/state/increment").await?;
                answer["counter"]
                    .as_i64()
                    .ok_or_else(|| format!("no counter in {answer}"))
            };
            let (first, second) = (count().await?, count().await?);
            ok(
                second > first,
                "a counter that grows",
                &json!([first, second]),
            )
        }
        "error_handling" => {
            let (status, text) = ask(app, hash, "/raise").await?;
            let told = status == StatusCode::INTERNAL_SERVER_ERROR && text.contains("Traceback");
            ok(
                told,
                "a 500 with a traceback",
                &json!([status.as_u16(), text]),
            )
        }
        "lifespan" => {
            let answer = json_of(app, hash, "/lifespan").await?;
            ok(answer["Lifespan"] == true, "Lifespan to be true", &answer)
        }
        path => json_of(app, hash, &format!("/{path}")).await.map(drop),
    }
}

async fn json_of(app: &App, hash: &ItemHash, path: &str) -> Result<Value, String> {
    let (status, text) = ask(app, hash, path).await?;
    if !status.is_success() {
        return Err(format!("{path} answered {status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("{path} did not answer JSON: {error}"))
}

/// Asks the program as a visitor would, only without a way around.
async fn ask(app: &App, hash: &ItemHash, path: &str) -> Result<(StatusCode, String), String> {
    let request = Request::get(path)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = programs::answer(app, hash, path, request).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), MAX_ANSWER)
        .await
        .map_err(|error| format!("{path}: {error}"))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
