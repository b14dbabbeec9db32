//! What is refused, and which headers end at each hop.
//!
//! hyper is a codec, not a proxy: it lets two Hosts, absolute forms, CONNECT and nominated
//! credentials pass (facts measured with 83 raw cases; docs/SECURITY.md has the table). Strict framing
//! beats failing open here: what two servers may read in two ways is how requests are smuggled.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
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
    check_length(&head.headers)?;
    check_nominations(&head.headers)?;
    if head.version <= Version::HTTP_11 {
        check_host(head)?;
        return check_framing(head);
    }
    check_authority(head)?;
    if head.headers.len() > headers_max {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refusal(status, "head_too_large", "more header fields than are allowed"));
    }
    Ok(())
}

/// The longest body that whoever counts in signed integers of 64 bits knows.
const LENGTH_MAX: u64 = i64::MAX.unsigned_abs();

/// HTTP/2's codec holds the body against the first length alone; two that differ would reach HTTP/1.1. hyper
/// takes lengths in which others see a sign.
fn check_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |told| Err(refusal(StatusCode::BAD_REQUEST, "length", told));
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.any(|length| length_of(length) != first.and_then(length_of)) {
        return bad("Content-Length may only be one number");
    }
    match first.and_then(length_of) {
        Some(..=LENGTH_MAX) => Ok(()),
        None if first.is_none() => Ok(()),
        _ => bad("Content-Length is no number, or one of more than 63 bits"),
    }
}

fn length_of(length: &HeaderValue) -> Option<u64> {
    let digits = length.to_str().ok()?.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// HTTP/2 names the host in `:authority`; a `Host` beside it may say nothing else (RFC 9113, section 8.3.1).
fn check_authority(head: &Parts) -> Result<(), Refusal> {
    let bad = |message| Err(refusal(StatusCode::BAD_REQUEST, "host", message));
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    if authority.is_some_and(|authority| authority.contains(&b'@')) {
        return bad("the request's authority is not a host and a port");
    }
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    match (hosts.next(), hosts.next(), authority) {
        (_, Some(_), _) => bad("more than one Host header"),
        (Some(host), None, _) if !is_host(host) => bad(NO_HOST),
        (Some(host), None, Some(authority)) if !authority.eq_ignore_ascii_case(host) => {
            bad("the request's authority and its Host header differ")
        }
        _ => Ok(()),
    }
}

const NO_HOST: &str = "the Host header is not a host and a port";

fn is_host(host: &[u8]) -> bool {
    let is_odd = |b: &u8| matches!(b, b'@' | b'/' | b'?' | b'#' | b',' | b'\\' | ..=b' ' | 127..);
    !host.iter().any(is_odd)
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

/// True for a field whose removal a client must not ask for.
pub fn is_end_to_end(name: &str) -> bool {
    END_TO_END.iter().any(|end| name.eq_ignore_ascii_case(end))
}

fn check_nominations(headers: &HeaderMap) -> Result<(), Refusal> {
    if nominations(headers).any(is_end_to_end) {
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
    if !is_host(host) {
        return bad(NO_HOST);
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

/// The protocols that are asked for, where `Connection: upgrade` and one `Upgrade` both stand. HTTP/2 is none
/// of them: its requests would pass unseen, and its settings belong to this hop.
pub fn asked_protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let protocols = lines.next().filter(|_| lines.next().is_none())?;
    let mut items = protocols.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_http2 =
        |item: &[u8]| item.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"));
    let asks = !items.any(|item| item.is_empty() || is_http2(item))
        && nominations(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    asks.then(|| protocols.clone())
}

/// True where all that the `Content-Length` lines say, in one line or in several, is one number.
pub fn agree_on_length(headers: &HeaderMap) -> bool {
    let mut first = None;
    let mut agrees = |item: &[u8]| {
        let digits = !item.is_empty() && item.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(item).ok().filter(|_| digits);
        let number = number.and_then(|number| number.parse::<u64>().ok());
        number.is_some() && *first.get_or_insert(number) == number
    };
    let lines = headers.get_all(CONTENT_LENGTH).iter();
    let mut items = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    items.all(|item| agrees(item.trim_ascii()))
}

/// One line with the plain number where there are several, or one that says it in another way: some read
/// zeros before a number in their own way.
pub fn write_length_plainly(headers: &mut HeaderMap) {
    let first = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let first = first.and_then(|length| length.split(',').next()?.trim().parse::<u64>().ok());
    if let Some(length) = first {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// Removes from trailers what is about framing or a hop: it belongs into a head.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    const FRAMING: [HeaderName; 4] = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, EXPECT];
    remove_in_order(trailers, |name| FRAMING.contains(name) || HOP_BY_HOP.contains(name));
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
        headers.insert(TE, HeaderValue::from_static("trailers"));
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
        assert_eq!(checked(http2().header("host", "A")), Ok(()));
        assert_eq!(checked(http2().header("host", "b")), Err("host"));
        assert_eq!(checked(http2().header("host", "a").header("host", "a")), Err("host"));
        assert_eq!(checked(Request::get("http://u@a/").version(Version::HTTP_2)), Err("host"));
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
