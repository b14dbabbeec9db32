//! What a build without a hub has in the place of `page.rs`: a line that says so.

use axum::Router;
use axum::http::StatusCode;

use super::Desk;

/// An answer for whatever is neither metrics nor health.
pub(super) fn routes(_desk: &Desk) -> Router<Desk> {
    Router::new().fallback(|| async {
        let told = "this build is the sidecar alone: it has /metrics, /livez and /readyz; page and API \
                    are the hub's (`flowtap hub`)\n";
        (StatusCode::NOT_FOUND, told)
    })
}
