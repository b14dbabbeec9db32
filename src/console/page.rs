//! The page and the API: what they show, where they are, and who stands before them.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::routing::get;

use super::api::Problem;
use super::{Console, Desk, api, assets, entry, monitors};
use crate::bucket::Bucket;
use crate::config::Admin;
use crate::ingest::Progress;
use crate::monitor::Roster;
use crate::store::Store;

/// What the page and the API read; without it they show this process alone.
#[derive(Clone)]
pub struct View {
    /// The index.
    pub store: Store,
    /// Where the whole records are.
    pub bucket: Arc<dyn Bucket>,
    /// How far the index is.
    pub progress: Progress,
}

/// What they show.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) settings: Arc<Admin>,
    pub(super) view: Option<View>,
    pub(super) turns: api::Turns,
    /// The monitors of this process, if it may have any.
    pub(super) roster: Option<Roster>,
}

impl Shown {
    /// Nothing yet.
    pub(super) fn new(settings: &Admin) -> Self {
        let settings = Arc::new(settings.clone());
        Self { settings, view: None, turns: api::Turns::default(), roster: None }
    }
}

impl Console {
    /// Shows monitors, and lets them be saved.
    pub fn watched_by(&mut self, roster: Roster) {
        self.desk.shown.roster = Some(roster);
    }

    /// Shows what an index holds.
    pub fn show(&mut self, view: View) {
        self.desk.shown.view = Some(view);
    }
}

/// The page's views: their addresses are the page's own business.
const VIEWS: &[&str] = &[
    "/",
    "/tokens",
    "/quality",
    "/operations",
    "/samples",
    "/samples/{id}",
    "/monitors",
    "/monitors/{name}",
    "/alerts",
    "/health",
];

/// All of it, each behind its guard, and what answers for anything else.
pub(super) fn routes(desk: &Desk) -> Router<Desk> {
    let guarded = api::routes()
        .merge(monitors::routes())
        .route_layer(middleware::from_fn_with_state(desk.clone(), entry::admitted));
    let page = VIEWS.iter().fold(Router::new(), |page, view| page.route(view, get(assets::page)));
    let page = page.route("/assets/{name}", get(assets::asset)).merge(entry::routes());
    let known =
        guarded.merge(page).route_layer(middleware::from_fn_with_state(desk.clone(), entry::known));
    known.route("/style.css", get(assets::style)).fallback(not_found)
}

async fn not_found(uri: Uri) -> Problem {
    match uri.path().starts_with("/api") {
        true => api::nowhere(uri).await,
        false => Problem::new(StatusCode::NOT_FOUND, "no such page"),
    }
}
