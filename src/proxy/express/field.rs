//! Header fields as they came: which of them mean something to a hop, and how they are written on.

use std::mem::MaybeUninit;

use httparse::Header;

/// The fields of a head that can be read; hyper's own limit.
pub const FIELDS_MAX: usize = super::super::connect::HYPER_HEADERS_MAX;

/// Room for the fields of one head.
pub type Table<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

/// An empty table; costs nothing to make.
pub fn table<'b>() -> Table<'b> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// Fields that an answer may have: more than a request, since nobody else is there to bound them.
pub const ANSWER_FIELDS_MAX: usize = 1000;

/// Room for the readings of an answer's head.
pub struct Tables<'b> {
    /// For the first.
    pub strict: Table<'b>,
    /// For one that forgives.
    pub lenient: Table<'b>,
    /// For one with many fields; holds nothing until there are.
    pub many: Vec<MaybeUninit<Header<'b>>>,
}

/// Empty tables.
pub fn tables<'b>() -> Tables<'b> {
    Tables { strict: table(), lenient: table(), many: Vec::new() }
}

/// What a field is to this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Nothing: it passes.
    Plain,
    /// `Host`.
    Host,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding`.
    Coding,
    /// `Expect`.
    Expect,
    /// `TE`.
    Te,
    /// `Upgrade`.
    Upgrade,
    /// Any other field that ends at this hop (RFC 9110, section 7.6.1).
    Hop,
    /// `x-request-id`.
    RequestId,
    /// `x-ms-client-request-id`.
    MsRequestId,
    /// `traceparent`.
    TraceParent,
}

impl Field {
    /// What the field `name` is.
    pub fn of(name: &str) -> Self {
        let is =
            |known: &str, field| if name.eq_ignore_ascii_case(known) { field } else { Self::Plain };
        match name.len() {
            2 => is("te", Self::Te),
            4 => is("host", Self::Host),
            6 => is("expect", Self::Expect),
            7 => is("upgrade", Self::Upgrade),
            10 if name.eq_ignore_ascii_case("connection") => Self::Connection,
            10 => is("keep-alive", Self::Hop),
            11 => is("traceparent", Self::TraceParent),
            12 => is("x-request-id", Self::RequestId),
            14 if name.eq_ignore_ascii_case("content-length") => Self::Length,
            14 => is("http2-settings", Self::Hop),
            16 => is("proxy-connection", Self::Hop),
            17 => is("transfer-encoding", Self::Coding),
            18 => is("proxy-authenticate", Self::Hop),
            19 => is("proxy-authorization", Self::Hop),
            22 => is("x-ms-client-request-id", Self::MsRequestId),
            _ => Self::Plain,
        }
    }
}

/// True for what means nothing to a hop, and may come behind a body.
pub fn is_for_trailers(field: Field) -> bool {
    matches!(field, Field::Plain | Field::RequestId | Field::MsRequestId | Field::TraceParent)
}

/// The members of a comma-separated list.
pub fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// True where a `Connection` line among `fields` says that those called `name` end at this hop.
pub fn is_nominated(name: &str, fields: &[Header<'_>]) -> bool {
    let mut lines = fields.iter().filter(|field| Field::of(field.name) == Field::Connection);
    lines.any(|line| tokens(line.value).any(|token| token.eq_ignore_ascii_case(name.as_bytes())))
}

/// As [`length`], of a number as it is mostly written: some read zeros before it in their own way.
pub fn plain_length(value: &[u8]) -> Option<u64> {
    length(value).filter(|_| value == b"0" || !value.starts_with(b"0"))
}

/// Digits and nothing else, and not so many that a sum could overflow.
pub fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Writes one field line.
pub fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(if value.is_empty() { b":" } else { b": " });
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
