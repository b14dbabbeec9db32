//! The console page's files, embedded at build, each in the form that the client takes best.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
};
use axum::response::{IntoResponse, Response};

use super::api::Problem;

/// A file of the page.
struct Asset {
    /// Its path below the page's root.
    path: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
    brotli: Option<&'static [u8]>,
}

/// What `build.rs` found in `web/dist/page`; empty where the page was not built.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The style of the pages without a script.
const STYLE: &str = include_str!("style.css");
/// What stands in for the page where it was not built.
const NOT_BUILT: &str = include_str!("not_built.html");

/// The page: one document for every view; the view is in the address.
pub async fn page(headers: HeaderMap) -> Response {
    match find("index.html") {
        Some(asset) => asset.answer(&headers),
        None => document(NOT_BUILT.to_owned()),
    }
}

/// A file of the page. Their names hold a hash of what is in them, so they may be kept for ever.
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match find(&format!("assets/{name}")) {
        Some(asset) => {
            let mut response = asset.answer(&headers);
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(CACHE_CONTROL, forever);
            response
        }
        None => Problem::new(StatusCode::NOT_FOUND, "no such file").into_response(),
    }
}

/// The style of the pages without a script.
pub async fn style() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"))], STYLE).into_response()
}

/// An HTML document.
pub fn document(html: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], html).into_response()
}

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let (body, coding) = match (self.brotli, self.gzip) {
            (Some(brotli), _) if accepts(headers, "br") => (brotli, Some("br")),
            (_, Some(gzip)) if accepts(headers, "gzip") => (gzip, Some("gzip")),
            _ => (self.plain, None),
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    }

    fn kind(&self) -> &'static str {
        match self.path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("txt") => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        }
    }
}

/// The client takes this coding: named, and not with a quality of zero.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let listed = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let refused = parts.any(|part| {
            let quality = part.strip_prefix("q=").map(str::parse::<f32>);
            quality.is_some_and(|quality| quality.is_ok_and(|quality| quality == 0.0))
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))])
    }

    const ASSET: Asset = Asset {
        path: "assets/page-1a2b.js",
        plain: b"plain",
        gzip: Some(b"gzip"),
        brotli: Some(b"brotli"),
    };

    #[test]
    fn the_smallest_form_that_the_client_takes_is_sent() {
        for (offer, coding) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("GZIP;q=0.8", Some("gzip")),
            ("br;q=0, gzip", Some("gzip")),
            ("brotli", None),
            ("", None),
        ] {
            let answer = ASSET.answer(&accepting(offer));
            let sent = answer.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes());
            assert_eq!(sent, coding.map(str::as_bytes), "{offer}");
            assert_eq!(answer.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
            assert_eq!(answer.headers()[VARY], "accept-encoding");
        }
    }

    #[tokio::test]
    async fn only_files_of_the_page_are_found() {
        for name in ["../index.html", "", "gone.js", "%2e%2e/index.html"] {
            let answer = asset(Path(name.to_owned()), HeaderMap::new()).await;
            assert_eq!(answer.status(), 404, "{name}");
        }
    }
}
