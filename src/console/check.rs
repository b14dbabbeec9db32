//! The configured monitors as YAML, and a check of them as somebody writes it: by the file's own rules,
//! with every fault in its place. Nothing is changed by it, and nothing but the text is read.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::api::Problem;
use super::{Desk, entry};
use crate::config::{self, Fault, Place};

/// A text of monitors is not longer.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Where both are.
pub const PATH: &str = "/api/v1/configuration/monitors";

/// Both, for the desk's guard to stand before.
pub fn routes() -> Router<Desk> {
    let both: MethodRouter<Desk> = get(shown).post(check).fallback(not_allowed);
    Router::new().route(PATH, both)
}

async fn shown(State(desk): State<Desk>) -> Json<Value> {
    Json(json!({"yaml": &*desk.shown.monitors}))
}

async fn check(body: Body) -> Response {
    let text = match entry::read(body, TEXT_BYTES_MAX).await {
        Ok(text) => text,
        Err(problem) => return problem.into_response(),
    };
    let Ok(text) = str::from_utf8(&text) else {
        return Problem::new(StatusCode::BAD_REQUEST, "the text is not UTF-8").into_response();
    };
    Json(match config::monitors_in(text) {
        Ok(monitors) => {
            let names: Vec<_> = monitors.iter().map(|monitor| &*monitor.name).collect();
            json!({"monitors": names, "faults": []})
        }
        Err(faults) => {
            let faults: Vec<_> = faults.into_iter().map(fault).collect();
            json!({"monitors": [], "faults": faults})
        }
    })
    .into_response()
}

fn fault(fault: Fault) -> Value {
    let place = match fault.place {
        Place::At { line, column, .. } => Some((line, column)),
        Place::File(_) | Place::Environment(_) | Place::CommandLine(_) | Place::Nowhere => None,
    };
    json!({
        "line": place.map(|(line, _)| line), "column": place.map(|(_, column)| column),
        "message": fault.message, "allowed": fault.allowed, "nearest": fault.nearest,
    })
}

async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET and checked with POST")
}
