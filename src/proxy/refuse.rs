//! Our own answers: a status, and a JSON object that names the fault and says nothing of the content.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::body::ResponseBody;

/// An answer of our own; the connection ends with it, since a body may be left unread.
pub fn answer(status: StatusCode, reason: &str, message: &str) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(body(reason, message)));
    let mut response = Response::new(ResponseBody::Local(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The same for a head that hyper refused before there was a request, as bytes for the wire.
pub fn raw_answer(status: u16, reason: &str, message: &str) -> Vec<u8> {
    let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let (phrase, body) = (phrase.unwrap_or("Bad Request"), body(reason, message));
    format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn body(reason: &str, message: &str) -> String {
    serde_json::json!({"error": {"type": "flowtap", "code": reason, "message": message}})
        .to_string()
}
