//! A request's head: plain enough for this way, or not, and how it goes upstream.

use http::Method;
use httparse::{Header, ParserConfig, Request, Status};

use super::field::{self, Field, Table};
use super::framing::{Chunks, Framing};
use crate::proxy::forward::RequestId;
use crate::proxy::guard;
use crate::proxy::route::Route;

/// What the client's bytes so far are.
pub enum Read<'h, 'b> {
    /// The beginning of a head.
    Partial,
    /// The head of a plain request.
    Plain(Ask<'h, 'b>),
    /// Anything else, to be answered or refused by hyper's way.
    Other,
}

/// The head of a plain request: HTTP/1.1 in origin form, one `Host`, a length, chunks or no body, no other
/// protocol asked for.
pub struct Ask<'h, 'b> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: &'b str,
    /// The fields, in order.
    pub fields: &'h [Header<'b>],
    /// Bytes of the head.
    pub head_bytes: usize,
    /// How the body that follows is framed.
    pub body: Framing,
    /// The client waits to be told before it sends the body.
    pub expects: bool,
    /// The client takes trailers.
    pub takes_trailers: bool,
    /// The client wants the connection closed after the answer.
    pub close: bool,
    /// A `Connection` line names fields that end at this hop.
    pub nominating: bool,
    /// The name that the client gave the request.
    pub given_id: Option<&'b [u8]>,
    /// The caller's trace.
    pub traceparent: Option<&'b str>,
}

/// Reads a head from the beginning of `bytes`. What is not plain is not judged here: hyper's way has the
/// rules (`proxy/guard.rs`), and this one takes only what none of them is about.
pub fn read<'h, 'b>(bytes: &'b [u8], table: &'h mut Table<'b>) -> Read<'h, 'b> {
    let mut request = Request::new(&mut []);
    let parser = ParserConfig::default();
    let head_bytes = match parser.parse_request_with_uninit_headers(&mut request, bytes, table) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) => return Read::Partial,
        Err(_) => return Read::Other,
    };
    plain(request, head_bytes).map_or(Read::Other, Read::Plain)
}

fn plain<'h, 'b>(request: Request<'h, 'b>, head_bytes: usize) -> Option<Ask<'h, 'b>> {
    let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    let target = request.path.filter(|target| is_plain_target(target))?;
    if request.version != Some(1) || matches!(method, Method::CONNECT | Method::TRACE) {
        return None;
    }
    let fields: &'h [Header<'b>] = request.headers;
    let mut ask = Ask {
        method,
        target,
        fields,
        head_bytes,
        body: Framing::Done,
        expects: false,
        takes_trailers: false,
        close: false,
        nominating: false,
        given_id: None,
        traceparent: None,
    };
    let (mut hosts, mut framings, mut traces, mut ms_id) = (0, 0, 0, None);
    for field in fields {
        match Field::of(field.name) {
            Field::Plain | Field::Hop => {}
            Field::Host if is_plain_host(field.value) => hosts += 1,
            Field::Connection => {
                for token in field::tokens(field.value) {
                    match asked_of(token)? {
                        Asked::Close => ask.close = true,
                        Asked::Keep => {}
                        Asked::Removal => ask.nominating = true,
                    }
                }
            }
            Field::Length => {
                framings += 1;
                ask.body = Framing::of_length(field::plain_length(field.value)?);
            }
            Field::Coding if field.value.eq_ignore_ascii_case(b"chunked") => {
                framings += 1;
                ask.body = Framing::Chunked(Chunks::START);
            }
            // What nobody knows to be expected is the upstream's to judge.
            Field::Expect => ask.expects |= field.value.eq_ignore_ascii_case(b"100-continue"),
            Field::Te => {
                let mut codings = field::tokens(field.value);
                ask.takes_trailers |= codings.any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            Field::RequestId => ask.given_id = ask.given_id.or(Some(field.value)),
            Field::MsRequestId => ms_id = ms_id.or(Some(field.value)),
            Field::TraceParent => {
                traces += 1;
                ask.traceparent = std::str::from_utf8(field.value).ok().filter(|_| traces == 1);
            }
            Field::Host | Field::Coding | Field::Upgrade => return None,
        }
    }
    ask.given_id = ask.given_id.or(ms_id);
    (hosts == 1 && framings <= 1).then_some(ask)
}

/// What a member of a `Connection` line asks for.
enum Asked {
    /// To close the connection.
    Close,
    /// To keep it, or nothing.
    Keep,
    /// That the fields of this name go no further.
    Removal,
}

/// `None` where a rule says what becomes of the request.
fn asked_of(token: &[u8]) -> Option<Asked> {
    let is = |known: &str| token.eq_ignore_ascii_case(known.as_bytes());
    if is("close") {
        return Some(Asked::Close);
    }
    if is("keep-alive") || is("te") {
        return Some(Asked::Keep);
    }
    let name = std::str::from_utf8(token).ok()?;
    let is_plain = Field::of(name) == Field::Plain && !guard::is_end_to_end(name);
    is_plain.then_some(Asked::Removal)
}

/// A path of characters that hyper, too, takes and passes as they are, with or without a query.
fn is_plain_target(target: &str) -> bool {
    const ALLOWED: [bool; 256] = {
        let mut allowed = [false; 256];
        let others = b"-._~!$&'()*+,;=:@%/?\"[\\]^{|}";
        let mut at = 0;
        while at < 256 {
            allowed[at] = (at as u8).is_ascii_alphanumeric() || at >= 128;
            at += 1;
        }
        at = 0;
        while at < others.len() {
            allowed[others[at] as usize] = true;
            at += 1;
        }
        allowed
    };
    target.starts_with('/') && target.bytes().all(|byte| ALLOWED[usize::from(byte)])
}

fn is_plain_host(host: &[u8]) -> bool {
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !host.is_empty() && host.iter().all(plain)
}

impl Ask<'_, '_> {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Writes the head that goes upstream: the route's `Host`, a name if it has none, and our `trace` if any.
    pub fn write(&self, out: &mut Vec<u8>, route: &Route, id: &RequestId, trace: Option<&[u8]>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(route.target(self.target).as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut trace = trace;
        let traced = trace.is_some();
        for header in self.fields {
            let name = header.name.as_bytes();
            match Field::of(header.name) {
                Field::Connection | Field::Te | Field::Hop => {}
                Field::Plain
                    if self.nominating && field::is_nominated(header.name, self.fields) => {}
                Field::Host => field::write(out, name, route.host_bytes(header.value)),
                Field::TraceParent if traced => {
                    trace.take().into_iter().for_each(|ours| field::write(out, name, ours));
                }
                _ => field::write(out, name, header.value),
            }
        }
        if self.takes_trailers {
            field::write(out, b"TE", b"trailers");
        }
        if let RequestId::Minted(minted) = id {
            field::write(out, b"x-ms-client-request-id", minted.as_bytes());
        }
        trace.into_iter().for_each(|ours| field::write(out, b"traceparent", ours));
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(head: &str) -> Option<(Framing, bool)> {
        let mut table = field::table();
        match read(head.as_bytes(), &mut table) {
            Read::Plain(ask) => Some((ask.body, ask.close)),
            _ => None,
        }
    }

    fn post(fields: &str) -> Option<(Framing, bool)> {
        is_plain(&format!("POST /score?a=%20b HTTP/1.1\r\nHost: a:1\r\n{fields}\r\n"))
    }

    #[test]
    fn only_what_no_rule_is_about_is_plain() {
        assert_eq!(post("Content-Length: 12\r\n"), Some((Framing::Length(12), false)));
        assert_eq!(post("connection: Keep-Alive, CLOSE\r\n"), Some((Framing::Done, true)));
        let chunks = Some((Framing::Chunked(Chunks::START), false));
        assert_eq!(post("Transfer-Encoding: Chunked\r\nTE: gzip\r\nTrailer: x\r\n"), chunks);
        assert_eq!(post("Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n"), chunks);
        for field in
            ["Expect: y 100-continue\r\n", "Keep-Alive: 5\r\n", "Connection: x\r\nx: 1\r\n"]
        {
            assert_eq!(post(field), Some((Framing::Done, false)), "{field:?}");
        }
        let odd = "GET /\u{e4}|{}\"[]\\^ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(is_plain(odd), Some((Framing::Done, false)));
        for field in [
            "Host: b\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 01\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Connection: authorization\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
            "Connection: expect\r\n",
            "Upgrade: h2c\r\n",
            "x: y\r\n folded\r\n",
            "x : y\r\n",
            "x: a\0b\r\n",
        ] {
            assert_eq!(post(field), None, "{field:?}");
        }
        for head in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: me@a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /` HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert_eq!(is_plain(head), None, "{head:?}");
        }
    }

    #[test]
    fn more_fields_than_the_table_holds_are_not_read_here() {
        let many = |count: usize| post(&"a: b\r\n".repeat(count));
        assert!(many(field::FIELDS_MAX - 1).is_some());
        assert_eq!(many(field::FIELDS_MAX), None);
    }

    #[test]
    fn the_head_that_goes_upstream_is_the_clients_but_for_what_ends_here() {
        let head = "POST /chat?x HTTP/1.1\r\nA: 1\r\nHOST: a\r\nConnection: close, TE, gone\r\nGone: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nTraceParent:  t \r\nb:\r\nA: 2\r\n\r\n";
        let mut table = field::table();
        let Read::Plain(ask) = read(head.as_bytes(), &mut table) else { panic!("plain") };
        assert_eq!((ask.path(), ask.traceparent), ("/chat", Some("t")));
        let mut out = Vec::new();
        let route = Route::for_test("/v1");
        ask.write(&mut out, &route, &RequestId::Minted("id".to_owned()), Some(b"ours"));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "POST /v1/chat?x HTTP/1.1\r\nA: 1\r\nHOST: up\r\nTraceParent: ours\r\nb:\r\nA: 2\r\nTE: trailers\r\nx-ms-client-request-id: id\r\n\r\n"
        );
    }
}
