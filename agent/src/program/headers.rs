//! Headers that end at a proxy, and those that a proxy adds (RFC 9110 §7.6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The protocol asked for, or switched to, if any.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    connection_tokens(headers)
        .any(|token| token.eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(UPGRADE).cloned())?
}

/// What the program sees of the client's headers.
pub fn for_program(
    headers: &mut HeaderMap,
    host: Option<Authority>,
    upgrade: Option<HeaderValue>,
    client: IpAddr,
    scheme: &'static str,
) {
    strip(headers, upgrade);
    // Answered here: the body is asked for as soon as the program reads it.
    headers.remove(EXPECT);
    if !headers.contains_key(HOST) {
        let host = host.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    }
    let before: Vec<_> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let chain = before
        .into_iter()
        .map(str::to_owned)
        .chain([client.to_string()])
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// What the client sees of the program's headers.
pub fn for_client(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    strip(headers, upgrade);
}

fn strip(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<_> = connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_connection_names_ends_here() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("a", "b"),
        ]);
        for_client(&mut map, None);
        assert_eq!(map, headers(&[("a", "b")]));
    }

    #[test]
    fn an_upgrade_is_one_only_with_both_headers() {
        assert!(
            upgrade(&headers(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ]))
            .is_some()
        );
        assert!(upgrade(&headers(&[("upgrade", "h2c")])).is_none());
        assert!(upgrade(&headers(&[("connection", "upgrade")])).is_none());
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut map = headers(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "gopher"),
            ("host", "name"),
        ]);
        for_program(
            &mut map,
            None,
            None,
            "2001:db8::1".parse().unwrap(),
            "https",
        );
        assert_eq!(map["x-forwarded-for"], "192.0.2.1, 2001:db8::1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["host"], "name");
    }
}
