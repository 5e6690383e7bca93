//! Answers that are lists: by page, by cursor, and of any length, sent while they are read.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Cursor;
use crate::store::{After, Page};

/// Rows read at once: what a longer list holds in memory.
const CHUNK: u64 = 200;

/// A page of a list.
pub fn paged(key: &str, items: Vec<Value>, page: Page, total: u64) -> Value {
    let mut body = json!({
        "pagination_per_page": page.limit,
        "pagination_page": page.page,
        "pagination_total": total,
        "pagination_item": key,
    });
    body[key] = Value::Array(items);
    body
}

/// A part of a list that goes on at `last`, the place of its last row, when it is full.
pub fn by_cursor(key: &str, items: Vec<Value>, page: Page, last: Option<Cursor>) -> Json<Value> {
    let is_full = items.len() as u64 == page.limit;
    let next = last.filter(|_| is_full).map(|cursor| cursor.encode());
    let mut body = json!({
        "pagination_per_page": page.limit,
        "next_cursor": next,
        "pagination_item": key,
    });
    body[key] = Value::Array(items);
    Json(body)
}

/// A list being sent.
struct Sending<F> {
    read: F,
    /// What to read next; `None` at the end.
    next: Option<(Page, Option<After>)>,
    /// Rows still wanted; `None` for all.
    wanted: Option<u64>,
    is_first: bool,
    tail: Option<String>,
}

impl<F, R> Sending<F>
where
    F: FnMut(Page, Option<After>) -> R,
    R: Future<Output = Result<(Vec<Value>, Option<After>), ApiError>>,
{
    /// The next piece of the answer.
    async fn step(&mut self) -> Result<Option<String>, ApiError> {
        let Some((page, after)) = self.next.take() else {
            return Ok(self.tail.take());
        };
        let (items, last) = (self.read)(page, after).await?;
        let read = items.len() as u64;
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(read));
        let limit = self.wanted.map_or(CHUNK, |wanted| wanted.min(CHUNK));
        if read == page.limit && limit > 0 {
            self.next = last.map(|last| (Page { limit, page: 1 }, Some(last)));
        }
        let mut text = String::new();
        for item in items {
            if !std::mem::take(&mut self.is_first) {
                text.push(',');
            }
            text.push_str(&item.to_string());
        }
        Ok(Some(text))
    }
}

/// A page of any length, `limit` 0 for everything. `read` gives the rows of a page that follows a place, and the place of
/// the last one.
pub async fn streamed<F, R>(
    key: &'static str,
    page: Page,
    total: u64,
    mut read: F,
) -> Result<Response, ApiError>
where
    F: FnMut(Page, Option<After>) -> R + Send + 'static,
    R: Future<Output = Result<(Vec<Value>, Option<After>), ApiError>> + Send,
{
    if (1..=CHUNK).contains(&page.limit) {
        let (items, _) = read(page, None).await?;
        return Ok(Json(paged(key, items, page, total)).into_response());
    }
    let limit = match page.limit {
        0 => CHUNK,
        limit => limit.min(CHUNK),
    };
    let first = Page { limit, page: 1 };
    // The pages before this one end with the row this one goes on after.
    let skipped = page.limit.saturating_mul(page.page.saturating_sub(1));
    let next = match skipped {
        0 => Some((first, None)),
        skipped => {
            let (_, last) = read(
                Page {
                    limit: 1,
                    page: skipped,
                },
                None,
            )
            .await?;
            last.map(|last| (first, Some(last)))
        }
    };
    let mut body = paged(key, Vec::new(), page, total);
    if let Value::Object(map) = &mut body {
        map.remove(key);
    }
    // The members of the object follow the list.
    let tail = format!("],{}", &body.to_string()[1..]);
    let sending = Sending {
        read,
        next,
        wanted: (page.limit > 0).then_some(page.limit),
        is_first: true,
        tail: Some(tail),
    };
    let opening = Bytes::from(format!("{{\"{key}\":["));
    let head = stream::once(async move { Ok::<_, std::io::Error>(opening) });
    let rest = stream::try_unfold(sending, |mut sending| async move {
        let piece = sending.step().await.map_err(std::io::Error::other)?;
        Ok(piece.map(|piece| (Bytes::from(piece), sending)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(head, rest));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
