//! Query parameters: comma separated lists, both spellings of each name, unknown names ignored. Of a name given more than
//! once the last value counts, but those of `name[]` are one list.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::store::{After, Page};

/// Largest page in cursor mode.
const CURSOR_PAGE: u64 = 200;
/// Largest page at all: answers are built in memory.
const MAX_PAGE: u64 = 10_000;

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|Query(pairs)| pairs)
            .unwrap_or_default();
        Ok(Self::collect(pairs))
    }
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

impl Params {
    fn collect(pairs: Vec<(String, String)>) -> Self {
        let mut values: HashMap<String, String> = HashMap::with_capacity(pairs.len());
        for (name, value) in pairs {
            match values.get_mut(&name) {
                Some(list) if name.ends_with("[]") => {
                    list.push(',');
                    list.push_str(&value);
                }
                _ => {
                    values.insert(name, value);
                }
            }
        }
        Self(values)
    }

    /// The value of `name`, in camel or snake case; empty counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .or_else(|| self.0.get(&snake(name)))
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether `name` is there, even empty.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A comma separated list; empty when absent.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.get(name)
            .map(|value| {
                value
                    .split(',')
                    .filter(|item| !item.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The first non-empty of several lists, every item of which must be `known`.
    pub fn words(
        &self,
        names: &[&str],
        known: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, ApiError> {
        for name in names {
            let list = self.list(name);
            if let Some(word) = list.iter().find(|word| !known(word)) {
                return Err(ApiError::unprocessable(format!(
                    "{name}: {word:?} is not a known value"
                )));
            }
            if !list.is_empty() {
                return Ok(list);
            }
        }
        Ok(Vec::new())
    }

    /// One of a few words.
    pub fn one_of(
        &self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match words.iter().find(|word| **word == value) {
            Some(word) => Ok(Some(word)),
            None => Err(ApiError::unprocessable(format!(
                "{name}: {value:?} is none of {}",
                words.join(", ")
            ))),
        }
    }

    /// `startDate` and `endDate`, Unix seconds; 0 counts as absent.
    pub fn period(&self) -> Result<(Option<f64>, Option<f64>), ApiError> {
        let seconds = |name: &str| match self.number::<f64>(name)? {
            Some(value) if !value.is_finite() || value < 0.0 => Err(ApiError::unprocessable(
                format!("{name}: must be a time in seconds"),
            )),
            value => Ok(value.filter(|value| *value > 0.0)),
        };
        let (start, end) = (seconds("startDate")?, seconds("endDate")?);
        match (start, end) {
            (Some(start), Some(end)) if end < start => {
                Err(ApiError::unprocessable("endDate is before startDate"))
            }
            period => Ok(period),
        }
    }

    /// The first non-empty of several lists.
    pub fn first_list(&self, names: &[&str]) -> Vec<String> {
        names
            .iter()
            .map(|name| self.list(name))
            .find(|list| !list.is_empty())
            .unwrap_or_default()
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    ApiError::unprocessable(format!("{name}: {value:?} is not a number"))
                })
            })
            .transpose()
    }

    /// A flag; absent is false.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "True" | "1" | "yes" | "on"))
    }

    /// `sortOrder`: ascending for 1.
    pub fn ascending(&self) -> Result<bool, ApiError> {
        match self.get("sortOrder") {
            None | Some("-1") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(ApiError::unprocessable(format!(
                "sortOrder: {other:?} is neither 1 nor -1"
            ))),
        }
    }

    /// `pagination` and `page` of a list that is sent while it is read: any length, 0 for all of it.
    pub fn any_page(&self, default: u64) -> Result<Page, ApiError> {
        let limit = self.number::<u64>("pagination")?.unwrap_or(default);
        let page = self.number::<u64>("page")?.unwrap_or(1);
        if page == 0 {
            return Err(ApiError::unprocessable("page: counts from 1"));
        }
        Ok(Page { limit, page })
    }

    /// `pagination` and `page`.
    pub fn page(&self, default: u64, zero_is_all: bool) -> Result<Page, ApiError> {
        let asked = self.number::<u64>("pagination")?.unwrap_or(default);
        let limit = match asked {
            0 if zero_is_all => MAX_PAGE,
            0 => return Err(ApiError::unprocessable("pagination: must not be 0")),
            n => n.min(MAX_PAGE),
        };
        let page = self.number::<u64>("page")?.unwrap_or(1);
        if page == 0 {
            return Err(ApiError::unprocessable("page: counts from 1"));
        }
        Ok(Page { limit, page })
    }

    /// Page and place to continue of a cursor request; `None` when it is not one.
    pub fn cursor(&self, default: u64) -> Result<Option<(Page, Option<Cursor>)>, ApiError> {
        if !self.has("cursor") {
            return Ok(None);
        }
        let asked = self.number::<u64>("pagination")?.unwrap_or(default);
        if asked == 0 {
            return Err(ApiError::unprocessable(
                "pagination: must not be 0 with a cursor",
            ));
        }
        let page = Page {
            limit: asked.min(CURSOR_PAGE),
            page: 1,
        };
        let after = self.get("cursor").map(Cursor::decode).transpose()?;
        Ok(Some((page, after)))
    }
}

/// Where a list continues: the sort time and the hash of the last row.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// Unix seconds.
    pub time: f64,
    /// Hash.
    pub hash: String,
}

impl From<Cursor> for After {
    fn from(cursor: Cursor) -> Self {
        Self {
            time: cursor.time,
            hash: cursor.hash,
        }
    }
}

impl Cursor {
    /// Opaque text for clients.
    pub fn encode(&self) -> String {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(
            serde_json::json!({"h": self.hash, "t": self.time.to_bits().to_string()}).to_string(),
        )
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        use base64::Engine;
        let parse = || -> Option<Self> {
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .ok()?;
            let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            let time = f64::from_bits(value["t"].as_str()?.parse().ok()?);
            time.is_finite().then_some(())?;
            Some(Self {
                time,
                hash: value["h"].as_str()?.to_owned(),
            })
        };
        parse().ok_or_else(|| ApiError::unprocessable("cursor: invalid"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_are_understood() {
        let params = Params([("sort_order".to_owned(), "1".to_owned())].into());
        assert!(params.ascending().unwrap());
        let params = Params([("sortOrder".to_owned(), "1".to_owned())].into());
        assert!(params.ascending().unwrap());
    }

    #[test]
    fn a_name_with_brackets_makes_a_list_of_all_its_values() {
        let pairs = [
            ("addresses[]", "a"),
            ("page", "1"),
            ("addresses[]", "b,c"),
            ("page", "2"),
        ];
        let params = Params::collect(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        assert_eq!(params.list("addresses[]"), ["a", "b", "c"]);
        assert_eq!(params.get("page"), Some("2"));
    }

    #[test]
    fn cursor_survives_the_round_trip() {
        let cursor = Cursor {
            time: 1_700_000_000.123_456_7,
            hash: "ab".into(),
        };
        assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        assert!(Cursor::decode("%%%").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_safe_as_a_cursor_and_any_place_makes_one(
            text in "\\PC{0,80}", time in -1e12..1e12_f64, hash in "\\PC{0,80}",
        ) {
            let _ = Cursor::decode(&text);
            let cursor = Cursor { time, hash };
            prop_assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }

        #[test]
        fn any_query_is_refused_or_makes_a_bounded_page(
            names in prop::collection::vec("(pagination|page|cursor|startDate|end_date|sortOrder|hashes|msgType)", 0..6),
            values in prop::collection::vec("(-?[0-9]{0,25}|[0-9.e+-]{0,6}|POST|nan|inf|,|\\PC{0,8})", 6),
        ) {
            let params = Params(names.into_iter().zip(values).collect());
            if let Ok(page) = params.page(20, true) {
                prop_assert!(page.limit <= MAX_PAGE && page.page > 0);
                let _ = page.clause();
            }
            if let Ok(Some((page, _))) = params.cursor(20) {
                prop_assert!((1..=CURSOR_PAGE).contains(&page.limit));
            }
            if let Ok((Some(start), Some(end))) = params.period() {
                prop_assert!(start.is_finite() && start <= end);
            }
            let _ = crate::api::filter::filter(&params);
        }
    }
}
