//! `/api/v1`: what the index holds, as JSON.
//!
//! One table of routes is what is served, what is checked and what `openapi.json` tells. Answers are
//! made on the admin runtime's blocking threads, a few at once, each within its deadline; what was asked
//! wrongly is told with the parameter, what it held and what it may hold.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Desk, View};

mod documents;
mod export;
mod figures;
mod health;
mod openapi;
mod operations;
mod overview;
mod params;
mod problem;
mod quality;
mod record;
mod samples;
mod usage;

pub(super) use problem::Problem;

use params::{Parameter, Params};

/// Answers that are made at once.
const AT_ONCE: usize = 4;
/// How long a question waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(3);

/// One question that can be asked.
struct Route {
    /// Below `/api/v1`.
    path: &'static str,
    about: &'static str,
    parameters: &'static [&'static Parameter],
    answer: Answer,
}

/// What answers it.
enum Answer {
    /// JSON of the schema of this name.
    Json(&'static str, fn(&Asked<'_>) -> Result<Value, Problem>),
    /// A file to keep: its name, its media type, and what writes it.
    File(&'static str, &'static str, export::Form),
}

/// A question, with all that answers it.
struct Asked<'a> {
    view: &'a View,
    desk: &'a Desk,
    params: Params,
}

/// Turns at the store.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Every question.
static ROUTES: &[&Route] = &[
    &overview::ROUTE,
    &usage::ROUTE,
    &operations::ROUTE,
    &quality::ROUTE,
    &samples::LIST,
    &export::CSV,
    &export::JSONL,
    &export::PARQUET,
    &samples::ONE,
    &samples::TRACE,
    &documents::MONITORS,
    &documents::ONE,
    &documents::ALERTS,
    &health::ROUTE,
];

/// All of `/api/v1`, for the desk's guard to stand before.
pub(super) fn routes() -> Router<Desk> {
    let described = get(|State(desk): State<Desk>| async move {
        json(&openapi::description(desk.shown.settings.token.is_some()))
    });
    let described = described.fallback(not_allowed);
    let router = Router::new().route("/api/v1/openapi.json", described);
    ROUTES
        .iter()
        .fold(router, |router, route| router.route(&format!("/api/v1{}", route.path), serve(route)))
}

fn serve(route: &'static Route) -> MethodRouter<Desk> {
    let answer = move |State(desk): State<Desk>, path: Option<Path<String>>, query: RawQuery| async move {
        match ask(route, desk, path.map(|Path(path)| path), query.0).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        }
    };
    get(answer).fallback(not_allowed)
}

async fn ask(
    route: &'static Route,
    desk: Desk,
    path: Option<String>,
    query: Option<String>,
) -> Result<Response, Problem> {
    let named = route.parameters.iter().find(|parameter| parameter.in_path());
    let path = named.map(|parameter| parameter.name).zip(path);
    let query = query.unwrap_or_default();
    let params = Params::read(&query, path, route.parameters, Timestamp::now())?;
    let Some(view) = desk.shown.view.clone() else {
        let why = "there is no index: this process keeps none (`flowtap proxy`), or it could not be \
                   opened, which the log tells";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    };
    match route.answer {
        Answer::Json(_, answer) => {
            let value =
                in_turn(&desk, &view, move |desk, view| answer(&Asked { view, desk, params }));
            Ok(json(&value.await?))
        }
        Answer::File(name, media, form) => {
            let query = samples::query(&params, params::EXPORTED.name, 100_000)?;
            let body = Body::from_stream(export::pages(form, query, desk, view));
            let mut response = body.into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
            if let Ok(kept) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
                headers.insert(CONTENT_DISPOSITION, kept);
            }
            Ok(response)
        }
    }
}

/// Has `work` done by a blocking thread when it is its turn.
async fn in_turn<T: Send + 'static>(
    desk: &Desk,
    view: &View,
    work: impl FnOnce(&Desk, &View) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many questions at once");
    let turn = Arc::clone(&desk.shown.turns.0).acquire_owned();
    let turn = tokio::time::timeout(TURN_WITHIN, turn).await.map_err(|_| busy())?;
    let turn = turn.map_err(|_| busy())?;
    let (asked, view) = (desk.clone(), view.clone());
    let working = tokio::task::spawn_blocking(move || {
        // Held until the work is done, even where nobody waits for it any more.
        let _turn = turn;
        work(&asked, &view)
    });
    let broken = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made");
    let result = working.await.unwrap_or(Err(broken));
    desk.metrics.store_read(match &result {
        Ok(_) => "ok",
        Err(problem) if problem.status() == 503 => "late",
        Err(problem) if problem.status() < 500 => "ok",
        Err(_) => "failed",
    });
    result
}

fn json(value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], value.to_string()).into_response()
}

async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET")
}

/// What is below `/api` and is no question.
pub(super) async fn nowhere(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(120).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is no `{path}`: /api/v1/openapi.json tells what is"),
    )
}
