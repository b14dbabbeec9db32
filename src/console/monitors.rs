//! The monitors of this process: what they say, a check of others as somebody writes them, and saving
//! and taking back. A check is made by the file's own rules, with every fault in its place; it changes
//! nothing.
//!
//! A change names the version that it is made on (RFC 9110, 13.1), so that of two people who edit one
//! monitor nobody's text is lost unseen.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::Problem;
use super::{Desk, entry};
use crate::config::{Fault, Place};
use crate::monitor::{Entry, Known, Roster, TEXT_BYTES_MAX, Unsaved};

/// Where all are.
pub const PATH: &str = "/api/v1/configuration/monitors";
/// Where one is.
pub const ONE: &str = "/api/v1/configuration/monitors/{name}";

/// All of it, for the desk's guard to stand before.
pub fn routes() -> Router<Desk> {
    let all: MethodRouter<Desk> = get(shown).post(check).fallback(not_allowed);
    let one: MethodRouter<Desk> = get(one).put(save).delete(revert).fallback(not_allowed);
    Router::new().route(PATH, all).route(ONE, one)
}

async fn shown(State(desk): State<Desk>) -> Result<Json<Value>, Problem> {
    let roster = roster(&desk)?;
    let (why, dir) = (roster.read_only(), roster.dir().display().to_string());
    let entries: Vec<_> = roster.entries().iter().map(|entry| told(&roster, entry)).collect();
    Ok(Json(json!({
        "yaml": roster.shown(), "monitors": entries,
        "saving": {"allowed": why.is_none(), "why_not": why, "folder": dir},
    })))
}

async fn check(State(desk): State<Desk>, body: Body) -> Result<Json<Value>, Problem> {
    let text = text(body).await?;
    Ok(Json(match roster(&desk)?.check(&text) {
        Ok(names) => json!({"monitors": names, "faults": []}),
        Err(faults) => json!({"monitors": [], "faults": list(&faults.0)}),
    }))
}

async fn one(State(desk): State<Desk>, Path(name): Path<String>) -> Result<Response, Problem> {
    let roster = roster(&desk)?;
    let entry = roster.entry(&name).ok_or_else(|| unknown(&name))?;
    Ok(answer(StatusCode::OK, &roster, &entry))
}

async fn save(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (roster, known) = (roster(&desk)?, known(&headers)?);
    let text = text(body).await?;
    let saver = roster.clone();
    let saving = tokio::task::spawn_blocking(move || saver.save(&name, &text, &known));
    let (entry, new) = saving.await.map_err(broken)?.map_err(unsaved)?;
    Ok(answer(if new { StatusCode::CREATED } else { StatusCode::OK }, &roster, &entry))
}

async fn revert(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (roster, known) = (roster(&desk)?, known(&headers)?);
    let reverter = roster.clone();
    let reverting = tokio::task::spawn_blocking(move || reverter.revert(&name, &known));
    Ok(match reverting.await.map_err(broken)?.map_err(unsaved)? {
        Some(entry) => answer(StatusCode::OK, &roster, &entry),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

fn roster(desk: &Desk) -> Result<Roster, Problem> {
    let none = || {
        let why = "this process has no monitors: `flowtap run` and `flowtap hub` do";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    desk.shown.roster.clone().ok_or_else(none)
}

async fn text(body: Body) -> Result<String, Problem> {
    let text = entry::read(body, TEXT_BYTES_MAX).await?;
    let text = String::from_utf8(text.to_vec());
    text.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the text is not UTF-8"))
}

/// What the one who asks knows of the monitor.
fn known(headers: &HeaderMap) -> Result<Known, Problem> {
    let needed = "`If-Match` with the `ETag` that was read, or `If-None-Match: *` for a new one";
    let wrong = |name: &HeaderName, value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes());
        Problem::parameter(name.as_str(), &value, needed)
    };
    let one = |name: HeaderName| {
        let mut values = headers.get_all(&name).iter();
        match (values.next(), values.next()) {
            (Some(_), Some(second)) => Err(wrong(&name, second)),
            (value, _) => Ok(value),
        }
    };
    match (one(IF_MATCH)?, one(IF_NONE_MATCH)?) {
        (None, Some(value)) if value == "*" => Ok(Known::Absent),
        (Some(value), None) if value == "*" => Ok(Known::Any),
        (Some(value), None) => {
            let tag = value.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            let sound = tag.filter(|tag| tag.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            sound.map(|tag| Known::Version(tag.into())).ok_or_else(|| wrong(&IF_MATCH, value))
        }
        (_, Some(value)) => Err(wrong(&IF_NONE_MATCH, value)),
        (None, None) => {
            let why = format!("a change names the version that it is made on: {needed}");
            Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, why))
        }
    }
}

fn answer(status: StatusCode, roster: &Roster, entry: &Entry) -> Response {
    let mut response = (status, Json(told(roster, entry))).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", entry.version)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn told(roster: &Roster, entry: &Entry) -> Value {
    let next = roster.next(&entry.name, Timestamp::now());
    json!({
        "name": entry.name, "yaml": entry.yaml, "saved": entry.saved,
        "configured": entry.configured, "version": entry.version, "next": next, "faults": list(&entry.faults),
    })
}

fn list(faults: &[Fault]) -> Vec<Value> {
    faults.iter().map(fault).collect()
}

fn fault(fault: &Fault) -> Value {
    let place = match &fault.place {
        Place::At { line, column, .. } => Some((line, column)),
        Place::File(_) | Place::Environment(_) | Place::CommandLine(_) | Place::Nowhere => None,
    };
    json!({
        "line": place.map(|(line, _)| line), "column": place.map(|(_, column)| column),
        "message": fault.message, "allowed": fault.allowed, "nearest": fault.nearest,
    })
}

fn unsaved(why: Unsaved) -> Problem {
    let status = match &why {
        Unsaved::ReadOnly(_) => StatusCode::FORBIDDEN,
        Unsaved::Faulty(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Unsaved::Changed => StatusCode::PRECONDITION_FAILED,
        Unsaved::Unknown(_) => StatusCode::NOT_FOUND,
        Unsaved::Configured(_) | Unsaved::Full => StatusCode::CONFLICT,
        Unsaved::Write(..) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    match why {
        Unsaved::Faulty(faults) => {
            Problem::new(status, "the text is no sound monitor").faults(list(&faults.0))
        }
        why => Problem::new(status, why.to_string()),
    }
}

fn unknown(name: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    unsaved(Unsaved::Unknown(name))
}

fn broken(_: tokio::task::JoinError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made")
}

async fn not_allowed(method: Method) -> Problem {
    let why = format!("this is not done with {method}; `Allow` tells what is");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
}
