//! What is refused, and which headers end at each hop.
//!
//! hyper is a codec, not a proxy: it lets two Hosts, absolute forms, CONNECT and nominated
//! credentials pass (facts measured with 83 raw cases; docs/SECURITY.md has the table). Strict framing
//! beats failing open here: what two servers may read in two ways is how requests are smuggled.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Version};

/// A request refused by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: StatusCode,
    /// The fault's name: a metric's label and the answer's `code`.
    pub reason: &'static str,
    /// The fault in words; never any content.
    pub message: &'static str,
}

const fn refusal(status: StatusCode, reason: &'static str, message: &'static str) -> Refusal {
    Refusal { status, reason, message }
}

/// Checks a request's head, which may have `headers_max` fields. What remains of HTTP/2's was checked by
/// its codec, and the number of HTTP/1.1's fields.
pub fn check(head: &Parts, headers_max: usize) -> Result<(), Refusal> {
    check_method(&head.method)?;
    check_nominations(&head.headers)?;
    if head.version <= Version::HTTP_11 {
        check_host(head)?;
        return check_framing(head);
    }
    check_length(&head.headers)?;
    if head.headers.len() > headers_max {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refusal(status, "head_too_large", "more header fields than are allowed"));
    }
    Ok(())
}

/// HTTP/2's codec holds the body against the first length alone; two that differ would reach HTTP/1.1.
fn check_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.any(|length| Some(length) != first) {
        let told = "Content-Length may only be one number";
        return Err(refusal(StatusCode::BAD_REQUEST, "length", told));
    }
    Ok(())
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::CONNECT | Method::TRACE => Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "CONNECT and TRACE are not forwarded",
        )),
        _ => Ok(()),
    }
}

/// Names that a client must not have stripped on the way by naming them in `Connection`.
const END_TO_END: &[&str] = &[
    "authorization",
    "x-api-key",
    "api-key",
    "content-length",
    "traceparent",
    "cookie",
    "host",
    "transfer-encoding",
];

fn check_nominations(headers: &HeaderMap) -> Result<(), Refusal> {
    let nominated = nominations(headers)
        .any(|name| END_TO_END.iter().any(|end| name.eq_ignore_ascii_case(end)));
    if nominated {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "connection",
            "the Connection header names a field that must reach the upstream",
        ));
    }
    Ok(())
}

fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let bad = |message| Err(refusal(StatusCode::BAD_REQUEST, "host", message));
    if second.is_some() {
        return bad("more than one Host header");
    }
    let Some(host) = first else {
        let required = head.version == Version::HTTP_11;
        return if required { bad("HTTP/1.1 needs a Host header") } else { Ok(()) };
    };
    let host = host.as_bytes();
    if host.iter().any(|b| matches!(b, b'@' | b'/' | b'?' | b'#' | b',' | b' ' | b'\\') || *b > 126)
    {
        return bad("the Host header is not a host and a port");
    }
    match head.uri.authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            bad("the request's absolute URL and its Host header differ")
        }
        _ => Ok(()),
    }
}

fn check_framing(head: &Parts) -> Result<(), Refusal> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        _ => {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                "transfer_encoding",
                "Transfer-Encoding may only be one \"chunked\"",
            ));
        }
    };
    let bodiless =
        matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    let unframed = !chunked && !head.headers.contains_key(CONTENT_LENGTH);
    if head.version < Version::HTTP_11 && unframed && !bodiless {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "length",
            "an HTTP/1.0 request with a body needs a Content-Length",
        ));
    }
    Ok(())
}

/// The field names that the `Connection` lines nominate.
pub fn nominations(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter();
    // Item by item: an odd one must not hide those beside it.
    let items = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = items.filter_map(|item| std::str::from_utf8(item.trim_ascii()).ok());
    names.filter(|name| !name.is_empty())
}

/// True where `Connection: upgrade` and `Upgrade: websocket` both stand.
pub fn asks_websocket(headers: &HeaderMap) -> bool {
    let websocket = headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket && nominations(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Fields that end at this hop (RFC 9110, section 7.6.1). `Trailer` stays: without it hyper drops
/// the trailers. `Transfer-Encoding` is removed by the side that knows the framing.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    UPGRADE,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Removes what ends at this hop, keeping the order of the rest.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.get(TE).is_some_and(|te| contains_token(te.as_bytes(), b"trailers"));
    let nominated: Vec<HeaderName> =
        nominations(headers).filter_map(|name| name.parse().ok()).collect();
    let ends_here = |name: &HeaderName| HOP_BY_HOP.contains(name) || nominated.contains(name);
    remove_in_order(headers, ends_here);
    if trailers {
        headers.insert(TE, http::HeaderValue::from_static("trailers"));
    }
}

/// Removes the fields that `doomed` names; `HeaderMap::remove` would move the last field into the gap.
pub fn remove_in_order(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&doomed) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut current = None;
    for (name, value) in headers.drain() {
        current = name.or(current);
        if let Some(name) = current.as_ref().filter(|name| !doomed(name)) {
            kept.append(name.clone(), value);
        }
    }
    *headers = kept;
}

fn contains_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn checked(request: http::request::Builder) -> Result<(), &'static str> {
        check(&request.body(()).expect("a valid request").into_parts().0, 100)
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_refused() {
        let host = || Request::post("/score").header("host", "a");
        assert_eq!(checked(host()), Ok(()));
        assert_eq!(checked(Request::get("/")), Err("host"));
        assert_eq!(checked(host().header("host", "a")), Err("host"));
        assert_eq!(checked(Request::get("/").header("host", "me@a")), Err("host"));
        assert_eq!(checked(Request::get("http://b/").header("host", "a")), Err("host"));
        assert_eq!(checked(Request::get("http://A:80/").header("host", "a:80")), Ok(()));
        assert_eq!(
            checked(host().header("transfer-encoding", "gzip, chunked")),
            Err("transfer_encoding")
        );
        let twice =
            host().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked");
        assert_eq!(checked(twice), Err("transfer_encoding"));
        assert_eq!(checked(host().version(Version::HTTP_10)), Err("length"));
        assert_eq!(checked(Request::get("/").version(Version::HTTP_10)), Ok(()));
        assert_eq!(checked(Request::builder().method("TRACE").uri("/")), Err("method"));
        assert_eq!(checked(host().header("connection", "close, Authorization")), Err("connection"));
        let http2 = || Request::post("http://a/").version(Version::HTTP_2);
        assert_eq!(
            checked(http2().header("content-length", "1").header("content-length", "1")),
            Ok(())
        );
        assert_eq!(
            checked(http2().header("content-length", "1").header("content-length", "2")),
            Err("length")
        );
        let many = |count: usize| (0..count).fold(http2(), |request, _| request.header("a", "b"));
        assert_eq!(checked(many(100)), Ok(()));
        assert_eq!(checked(many(101)), Err("head_too_large"));
    }

    #[test]
    fn what_ends_at_this_hop_goes_and_the_order_of_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("a", "1"),
            ("connection", "x-mine, keep-alive"),
            ("b", "2"),
            ("x-mine", "3"),
            ("b", "4"),
            ("trailer", "t"),
            ("te", "gzip, trailers"),
            ("c", "5"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().expect("valid"));
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().expect("text"))).collect();
        assert_eq!(left, ["a=1", "b=2", "b=4", "trailer=t", "c=5", "te=trailers"]);
    }
}
