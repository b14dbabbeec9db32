//! The upstream's answer: its head read and written on, and how its body is framed.

use std::mem::MaybeUninit;

use http::Method;
use httparse::{Error, Header, ParserConfig, Response, Status};

use super::field::{self, ANSWER_FIELDS_MAX, Field, Tables};
use super::framing::{Chunks, Framing};
use crate::proxy::failure::{BAD_FRAMING, Failure, NO_ANSWER};

/// What the upstream's bytes so far are.
pub enum Read<'h, 'b> {
    /// The beginning of a head.
    Partial,
    /// The head of an informational answer; the real one follows.
    Interim(Interim<'h, 'b>),
    /// The head of the answer.
    Final(Answer<'h, 'b>),
}

/// The head of an informational answer, such as 100 or 103.
pub struct Interim<'h, 'b> {
    /// The status.
    pub status: u16,
    /// Bytes of the head.
    pub head_bytes: usize,
    reason: &'b [u8],
    fields: &'h [Header<'b>],
    odd: bool,
}

/// The head of an answer.
pub struct Answer<'h, 'b> {
    /// The status.
    pub status: u16,
    /// The fields, in order.
    pub fields: &'h [Header<'b>],
    /// Bytes of the head.
    pub head_bytes: usize,
    /// How the body is framed.
    pub framing: Framing,
    /// The upstream's connection can be used again after it.
    pub reusable: bool,
    reason: &'b [u8],
    /// `Content-Length` must not be passed on: chunks outrank it, or there is no body at all.
    lengthless: bool,
    /// A `Connection` line names more than what becomes of the connection.
    nominating: bool,
    /// Values may go over several lines.
    odd: bool,
}

/// Reads a head from the beginning of `bytes`, the answer to a request with `method`.
pub fn read<'h, 'b>(
    bytes: &'b [u8],
    tables: &'h mut Tables<'b>,
    method: &Method,
) -> Result<Read<'h, 'b>, Failure> {
    let Tables { strict, lenient, many } = tables;
    let mut response = Response::new(&mut []);
    let mut parser = ParserConfig::default();
    let mut parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, strict);
    let is_long = parsed == Err(Error::TooManyHeaders);
    let odd = is_long || parsed == Err(Error::HeaderName);
    if odd {
        // Forbidden to senders, for a proxy to mend (RFC 9112, sections 5.1 and 5.2).
        parser.allow_obsolete_multiline_headers_in_responses(true);
        parser.allow_spaces_after_header_name_in_responses(true);
        response = Response::new(&mut []);
        let table: &mut [_] = if is_long { room_for_many(many) } else { lenient };
        parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, table);
    }
    let head_bytes = match parsed {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) => return Ok(Read::Partial),
        Err(_) => return Err(NO_ANSWER),
    };
    match response.code {
        None | Some(..100) => Err(NO_ANSWER),
        // No request of this way asks for another protocol.
        Some(101) => Err(BAD_FRAMING),
        Some(status @ 100..200) => {
            let reason = reason(bytes);
            Ok(Read::Interim(Interim { status, head_bytes, reason, fields: response.headers, odd }))
        }
        _ => framed(response, &bytes[..head_bytes], odd, method).map(Read::Final),
    }
}

fn room_for_many<'t, 'b>(
    many: &'t mut Vec<MaybeUninit<Header<'b>>>,
) -> &'t mut [MaybeUninit<Header<'b>>] {
    many.resize_with(ANSWER_FIELDS_MAX, MaybeUninit::uninit);
    many
}

fn framed<'h, 'b>(
    response: Response<'h, 'b>,
    head: &'b [u8],
    odd: bool,
    method: &Method,
) -> Result<Answer<'h, 'b>, Failure> {
    let status = response.code.ok_or(NO_ANSWER)?;
    let is_http11 = response.version == Some(1);
    let fields: &'h [Header<'b>] = response.headers;
    let (mut length, mut codings, mut kept, mut closed) = (None, 0, false, false);
    let mut nominating = false;
    for field in fields {
        match Field::of(field.name) {
            Field::Length => length = Some(same_length(length, field.value)?),
            Field::Coding if field.value.eq_ignore_ascii_case(b"chunked") => codings += 1,
            Field::Coding => return Err(BAD_FRAMING),
            Field::Connection => {
                for token in field::tokens(field.value) {
                    let (close, keep) = (is(token, "close"), is(token, "keep-alive"));
                    closed |= close;
                    kept |= keep;
                    nominating |= !close && !keep;
                }
            }
            _ => {}
        }
    }
    match codings {
        0 => {}
        // HTTP/1.0 knows no chunks.
        1 if is_http11 => {}
        1 => return Err(NO_ANSWER),
        _ => return Err(BAD_FRAMING),
    }
    let framing = match (status, codings, length) {
        (204 | 304, _, _) | (_, 0, Some(0)) => Framing::Done,
        _ if *method == Method::HEAD => Framing::Done,
        (_, 1.., _) => Framing::Chunked(Chunks::START),
        (_, _, Some(length)) => Framing::Length(length),
        (_, _, None) => Framing::ToEnd,
    };
    let ambiguous = codings > 0 && length.is_some();
    Ok(Answer {
        status,
        fields,
        head_bytes: head.len(),
        framing,
        reusable: !closed && (is_http11 || kept) && !ambiguous && framing != Framing::ToEnd,
        reason: reason(head),
        lengthless: status == 204 || codings > 0,
        nominating,
        odd,
    })
}

/// Lengths that are repeated, in one line or in several, have to agree.
fn same_length(before: Option<u64>, value: &[u8]) -> Result<u64, Failure> {
    let mut found = before;
    for item in value.split(|b| *b == b',') {
        let length = field::length(item.trim_ascii()).ok_or(NO_ANSWER)?;
        if found.is_some_and(|found| found != length) {
            return Err(NO_ANSWER);
        }
        found = Some(length);
    }
    found.ok_or(NO_ANSWER)
}

/// Of lengths that agree, one.
fn first(lengths: &[u8]) -> &[u8] {
    let first = lengths.split(|byte| *byte == b',').next();
    first.map_or(lengths, <[u8]>::trim_ascii)
}

/// The reason phrase that the status line of a whole head ends with. httparse gives none that is not ASCII.
fn reason(head: &[u8]) -> &[u8] {
    const BEFORE: usize = b"HTTP/1.1 200 ".len();
    let line = head.trim_ascii_start();
    let end = memchr::memchr(b'\n', line).unwrap_or(line.len());
    let line = &line[..end];
    line.strip_suffix(b"\r").unwrap_or(line).get(BEFORE..).unwrap_or_default()
}

fn is(token: &[u8], name: &str) -> bool {
    token.eq_ignore_ascii_case(name.as_bytes())
}

impl Interim<'_, '_> {
    /// Writes the head that goes to the client: it has no body, whatever it says.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_status(out, self.status, self.reason);
        let passing = |field: &&Header<'_>| field::is_for_trailers(Field::of(field.name));
        self.fields.iter().filter(passing).for_each(|field| write_field(out, field, self.odd));
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a field, an `odd` one in one line.
fn write_field(out: &mut Vec<u8>, field: &Header<'_>, odd: bool) {
    if odd && memchr::memchr2(b'\r', b'\n', field.value).is_some() {
        let lines = field.value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        return field::write(out, field.name.as_bytes(), &lines.collect::<Vec<_>>().join(&b' '));
    }
    field::write(out, field.name.as_bytes(), field.value);
}

fn write_status(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&digits(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

impl Answer<'_, '_> {
    /// Writes the head that goes to the client, which is told where the connection will `close`.
    pub fn write(&self, out: &mut Vec<u8>, close: bool) {
        write_status(out, self.status, self.reason);
        let mut length_written = false;
        for header in self.fields {
            match Field::of(header.name) {
                Field::Connection | Field::Te | Field::Hop | Field::Upgrade => {}
                // Forbidden where there can be no body (RFC 9112, section 6.1).
                Field::Coding if self.status == 204 => {}
                Field::Length
                    if self.lengthless || std::mem::replace(&mut length_written, true) => {}
                Field::Length => field::write(out, header.name.as_bytes(), first(header.value)),
                Field::Coding => write_field(out, header, self.odd),
                _ if self.nominating && field::is_nominated(header.name, self.fields) => {}
                _ => write_field(out, header, self.odd),
            }
        }
        if self.framing == Framing::ToEnd {
            field::write(out, b"transfer-encoding", b"chunked");
        }
        if close {
            field::write(out, b"connection", b"close");
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn digits(status: u16) -> [u8; 3] {
    [100, 10, 1].map(|place| b'0' + u8::try_from(status / place % 10).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How an answer is framed, whether its connection can be used again, and what the client gets.
    fn answered(method: &Method, head: &str) -> Result<(Framing, bool, String), &'static str> {
        let mut tables = field::tables();
        match read(head.as_bytes(), &mut tables, method).map_err(|failure| failure.reason)? {
            Read::Final(answer) => {
                let mut out = Vec::new();
                answer.write(&mut out, false);
                Ok((answer.framing, answer.reusable, String::from_utf8_lossy(&out).into_owned()))
            }
            Read::Partial => Err("partial"),
            Read::Interim(interim) => {
                let mut out = Vec::new();
                interim.write(&mut out);
                Ok((Framing::Done, true, String::from_utf8_lossy(&out).into_owned()))
            }
        }
    }

    fn get(head: &str) -> Result<(Framing, bool, String), &'static str> {
        answered(&Method::GET, head)
    }

    const CHUNKS: Framing = Framing::Chunked(Chunks::START);

    #[test]
    fn names_order_and_reason_stay_and_what_ends_at_this_hop_goes() {
        let head = "HTTP/1.1 299 All Right\r\nX-B: 1\r\nConnection: x-theirs, close\r\nX-THEIRS: 1\r\nKeep-Alive: 5\r\nx-a: 2\r\nX-B: 3\r\nContent-Length: 5\r\ncontent-length: 5\r\nUpgrade: h2c\r\n\r\nhello";
        let written =
            "HTTP/1.1 299 All Right\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(get(head), Ok((Framing::Length(5), false, written.to_owned())));
    }

    #[test]
    fn every_framing_is_read_as_the_rfc_says() {
        let framing = |head: &str| get(head).map(|(framing, reusable, _)| (framing, reusable));
        let ok = |fields: &str| framing(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        assert_eq!(ok("Content-Length: 3\r\n"), Ok((Framing::Length(3), true)));
        assert_eq!(ok("Content-Length: 3, 3\r\n"), Ok((Framing::Length(3), true)));
        assert_eq!(ok("Content-Length: 0\r\n"), Ok((Framing::Done, true)));
        assert_eq!(ok("Transfer-Encoding: Chunked\r\n"), Ok((CHUNKS, true)));
        assert_eq!(ok(""), Ok((Framing::ToEnd, false)));
        assert_eq!(ok("Content-Length: 3\r\nContent-Length: 4\r\n"), Err("upstream_closed"));
        assert_eq!(ok("Content-Length: x\r\n"), Err("upstream_closed"));
        assert_eq!(ok("Transfer-Encoding: gzip, chunked\r\n"), Err("upstream_framing"));
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(ok(twice), Err("upstream_framing"));
        assert_eq!(
            framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            Ok((Framing::Done, true))
        );
        assert_eq!(framing("HTTP/1.1 100 Continue\r\n\r\n"), Ok((Framing::Done, true)));
        assert_eq!(framing("HTTP/1.1 101 Switching\r\n\r\n"), Err("upstream_framing"));
        assert_eq!(framing("HTTP/1.1 200 OK\r\nx: y"), Err("partial"));
        assert_eq!(framing("HTTP/2.0 200 OK\r\n\r\n"), Err("upstream_closed"));
        assert_eq!(framing("HTTP/1.1 099 Odd\r\n\r\n"), Err("upstream_closed"));
        let old = |fields: &str| framing(&format!("HTTP/1.0 200 OK\r\n{fields}\r\n"));
        assert_eq!(old("Content-Length: 3\r\n"), Ok((Framing::Length(3), false)));
        assert_eq!(
            old("Connection: keep-alive\r\nContent-Length: 3\r\n"),
            Ok((Framing::Length(3), true))
        );
        assert_eq!(old("Transfer-Encoding: chunked\r\n"), Err("upstream_closed"));
    }

    #[test]
    fn what_senders_may_not_write_is_written_as_they_should() {
        let odd = "HTTP/1.1 200 OK\r\nX-A: one\r\n\t two\r\n three\r\nX-B \t: 4\r\nContent-Length: 0\r\n\r\n";
        let written =
            "HTTP/1.1 200 OK\r\nX-A: one two three\r\nX-B: 4\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(get(odd), Ok((Framing::Done, true, written.to_owned())));
        assert_eq!(get("HTTP/1.1 200 OK\r\nX-A: one\r\n"), Err("partial"));
        assert_eq!(get("HTTP/1.1 200 OK\r\n: a\r\n\r\n").err(), Some("upstream_closed"));
    }

    #[test]
    fn a_reason_passes_as_it_is_and_so_do_many_fields() {
        let mut tables = field::tables();
        let head = b"HTTP/1.1 200 \xe4\xc3 \r\nContent-Length: 0\r\n\r\n";
        let Ok(Read::Final(answer)) = read(head, &mut tables, &Method::GET) else { panic!("read") };
        let mut out = Vec::new();
        answer.write(&mut out, false);
        assert_eq!(out, head);
        let many = |count| {
            format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(count))
        };
        let most = many(ANSWER_FIELDS_MAX - 1);
        assert_eq!(get(&most), Ok((Framing::Done, true, most.clone())));
        assert_eq!(get(&many(ANSWER_FIELDS_MAX)).err(), Some("upstream_closed"));
    }

    #[test]
    fn what_is_said_ahead_of_an_answer_passes_without_what_ends_here() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
        let written = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        assert_eq!(get(hints).map(|(_, _, written)| written), Ok(written.to_owned()));
    }

    #[test]
    fn a_length_that_would_mislead_the_client_is_taken_out() {
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        let written = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(get(both), Ok((CHUNKS, false, written.to_owned())));
        let none = "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(
            get(none),
            Ok((Framing::Done, true, "HTTP/1.1 204 No Content\r\n\r\n".to_owned()))
        );
        let chunked = none.replace("Content-Length: 2", "Transfer-Encoding: chunked");
        assert_eq!(get(&chunked), get(none));
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n";
        assert_eq!(answered(&Method::HEAD, head), Ok((Framing::Done, true, head.to_owned())));
    }
}
