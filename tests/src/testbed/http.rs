//! Small HTTP calls with the answers taken apart.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// With the body's text when it is not.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// All values of one header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }
}

/// Sends one request; any status is an answer.
///
/// # Errors
/// When no answer came within `timeout`.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<Answer> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .build()
        .into();
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let answer = agent
        .run(builder.body(body).context("a request")?)
        .with_context(|| format!("{method} {url}"))?;
    let status = answer.status().as_u16();
    let headers = answer
        .headers()
        .iter()
        .map(|(n, v)| {
            (
                n.to_string(),
                String::from_utf8_lossy(v.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = answer
        .into_body()
        .read_to_vec()
        .with_context(|| format!("{method} {url}: the body"))?;
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// GET with a minute's patience.
///
/// # Errors
/// See [`request`].
pub fn get(url: &str) -> Result<Answer> {
    request("GET", url, &[], &[], Duration::from_secs(60))
}

/// GET that must answer 200 with JSON.
///
/// # Errors
/// See [`request`]; any other status.
pub fn get_json(url: &str) -> Result<Value> {
    let answer = get(url)?;
    if answer.status != 200 {
        bail!("GET {url}: {} {}", answer.status, answer.text());
    }
    answer.json()
}
