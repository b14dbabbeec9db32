//! What went wrong, as RFC 9457 tells it.

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::export::TableError;
use crate::store::StoreError;

/// Characters of what was found that are told again.
const FOUND_CHARS_MAX: usize = 120;

/// An answer that is none: `application/problem+json`. Boxed, for it is rare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(Box<Told>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Told {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// What it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    /// What it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<String>,
    /// What is wrong with a text, each in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Value>,
}

impl Problem {
    /// A problem without a parameter.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Told {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
            found: None,
            allowed: None,
            faults: Vec::new(),
        }))
    }

    /// The status.
    pub(super) fn status(&self) -> u16 {
        self.0.status
    }

    /// A parameter that holds what it cannot hold.
    pub(crate) fn parameter(name: &str, found: &str, allowed: impl Into<String>) -> Self {
        let name: String = name.chars().take(FOUND_CHARS_MAX).collect();
        let mut problem =
            Self::new(StatusCode::BAD_REQUEST, format!("`{name}` is not what it may be"));
        problem.0.parameter = Some(name);
        problem.0.found = Some(found.chars().take(FOUND_CHARS_MAX).collect());
        problem.0.allowed = Some(allowed.into());
        problem
    }

    /// The same, of a text with these faults.
    pub(crate) fn faults(mut self, faults: Vec<Value>) -> Self {
        self.0.faults = faults;
        self
    }

    /// Nothing bears this name.
    pub(super) fn unknown(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} is not in the store"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Late => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            error => {
                tracing::warn!(%error, "the store could not answer");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the store could not answer")
            }
        }
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        tracing::warn!(%error, "a table could not be written");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the table could not be written")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let json = HeaderValue::from_static("application/problem+json");
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, json)], body).into_response();
        let extra: Option<(HeaderName, &str)> = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "2")),
            StatusCode::UNAUTHORIZED => {
                Some((HeaderName::from_static("www-authenticate"), "Bearer"))
            }
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
