//! The OpenAPI document: every route is registered together with what is said about it, so that the document cannot
//! name a route that is not served, nor leave one out.

mod money;
mod page;
mod schema;

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::handler::Handler;
use axum::http::header;
use axum::response::Html;
use axum::routing::{MethodFilter, get, on};
use serde_json::{Map, Value, json};

use super::info::VERSION;
use crate::node::Node;
pub use schema::{Kind, Schema};

/// A parameter in the query.
#[derive(Clone, Copy)]
pub struct Param {
    /// Name, in the spelling shown; handlers take both.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it does.
    pub about: &'static str,
}

/// Shorthand for tables of parameters.
pub const fn param(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, about }
}

/// What an operation takes in its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Json,
    /// A form with a file, or the bare file.
    File,
}

/// What is said about an operation.
pub struct Operation {
    summary: &'static str,
    params: Vec<Param>,
    body: Body,
    /// Media types and schemas the answer may have.
    answers: Vec<(&'static str, Value)>,
    /// Statuses besides 200 that have the same answer.
    also: &'static [u16],
    path_suffix: &'static str,
}

/// An operation that answers with `schema` as JSON.
pub fn op(summary: &'static str, schema: Schema) -> Operation {
    Operation {
        summary,
        params: Vec::new(),
        body: Body::None,
        answers: vec![("application/json", schema.reference())],
        also: &[],
        path_suffix: "",
    }
}

impl Operation {
    /// Adds query parameters.
    pub fn with(mut self, params: &[Param]) -> Self {
        self.params.extend_from_slice(params);
        self
    }

    /// It takes JSON.
    pub fn takes_json(mut self) -> Self {
        self.body = Body::Json;
        self
    }

    /// It takes a file.
    pub fn takes_file(mut self) -> Self {
        self.body = Body::File;
        self
    }

    /// It answers with something else than JSON, of one of these media types.
    pub fn answers(mut self, media_types: &[&'static str]) -> Self {
        let any = |media_type: &&'static str| (*media_type, json!({}));
        self.answers = media_types.iter().map(any).collect();
        self
    }

    /// Other statuses have the same answer.
    pub fn also(mut self, statuses: &'static [u16]) -> Self {
        self.also = statuses;
        self
    }

    /// Its last path parameter ends in `.json`.
    pub fn dot_json(mut self) -> Self {
        self.path_suffix = ".json";
        self
    }

    fn describe(&self, path: &str) -> Value {
        let in_path = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                let kind = if name == "page" {
                    Kind::Count
                } else {
                    Kind::Text
                };
                json!({"name": name, "in": "path", "required": true, "schema": kind.schema()})
            });
        let in_query = self.params.iter().map(|param| {
            json!({"name": param.name, "in": "query", "description": param.about,
                "schema": param.kind.schema()})
        });
        let content: Map<String, Value> = self
            .answers
            .iter()
            .map(|(media_type, schema)| ((*media_type).to_owned(), json!({"schema": schema})))
            .collect();
        let answer = json!({"description": "Success", "content": content});
        let mut answers = Map::new();
        for status in std::iter::once(&200).chain(self.also) {
            answers.insert(status.to_string(), answer.clone());
        }
        answers.insert(
            "default".into(),
            json!({"description": "Refused or failed: text, or the network's error code with details",
                "content": {"text/plain": {"schema": {"type": "string"}},
                    "application/json": {"schema": Schema::Refusal.reference()}}}),
        );
        let mut described = json!({
            "summary": self.summary,
            "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
            "responses": answers,
        });
        let form = json!({"type": "object", "required": ["file"], "properties": {
            "file": {"type": "string", "format": "binary"}, "metadata": {"type": "string"}}});
        let content = match self.body {
            Body::None => return described,
            Body::Json => json!({"application/json": {"schema": {}}}),
            Body::File => json!({"multipart/form-data": {"schema": form}}),
        };
        described["requestBody"] = json!({"required": true, "content": content});
        described
    }
}

/// Routes, and what is said about them.
#[derive(Default)]
pub struct Api {
    router: Router<Node>,
    paths: BTreeMap<String, Map<String, Value>>,
}

impl Api {
    /// Adds a route that reads; it answers HEAD, too.
    pub fn get<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Node>,
        T: 'static,
    {
        self.add(path, MethodFilter::GET, "get", handler, &operation)
    }

    /// Adds a route that writes.
    pub fn post<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Node>,
        T: 'static,
    {
        self.add(path, MethodFilter::POST, "post", handler, &operation)
    }

    fn add<H, T>(
        mut self,
        path: &'static str,
        filter: MethodFilter,
        method: &str,
        handler: H,
        operation: &Operation,
    ) -> Self
    where
        H: Handler<T, Node>,
        T: 'static,
    {
        let shown = format!("{path}{}", operation.path_suffix);
        self.paths
            .entry(shown)
            .or_default()
            .insert(method.to_owned(), operation.describe(path));
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    /// Changes how the routes added so far are served.
    pub fn layered(mut self, layer: impl FnOnce(Router<Node>) -> Router<Node>) -> Self {
        self.router = layer(self.router);
        self
    }

    /// Puts all routes below `prefix`.
    pub fn below(self, prefix: &str) -> Self {
        Self {
            router: Router::new().nest(prefix, self.router),
            paths: self
                .paths
                .into_iter()
                .map(|(path, operations)| (format!("{prefix}{path}"), operations))
                .collect(),
        }
    }

    /// Adds the routes of another part.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        for (path, operations) in other.paths {
            self.paths.entry(path).or_default().extend(operations);
        }
        self
    }

    fn document(&self) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Core channel node",
                "version": VERSION,
                "description": "Signed messages, files, and what follows from them. Lists in parameters are separated \
                    by commas; every parameter is also understood in snake_case; unknown ones are ignored.",
            },
            "paths": self.paths,
            "components": {"schemas": schema::components()},
        })
    }

    /// The router, which also serves the document and a page about it.
    pub fn finish(self) -> Router<Node> {
        let document = self.document();
        let page = Bytes::from(page::render(&document));
        let text = Bytes::from(document.to_string());
        let shown = page.clone();
        let json = [(header::CONTENT_TYPE, "application/json")];
        self.router
            .route("/", get(async move || Html(shown.clone())))
            .route("/api/docs", get(async move || Html(page.clone())))
            .route(
                "/api/docs/openapi.json",
                get(async move || (json, text.clone())),
            )
    }
}
