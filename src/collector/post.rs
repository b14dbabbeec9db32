//! Reads one post, within its bounds, from a sender who may send it; and says why not.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Request, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Desk;
use crate::config::Secret;
use crate::domain::{Posted, Reservation};

/// For a whole body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// What is refused is still read to its end, so that its sender reads the answer: so many times the
/// largest allowed, and for so long.
const UNREAD_TIMES: usize = 8;
const UNREAD_WITHIN: Duration = Duration::from_secs(2);

/// A post that was read.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) head: request::Parts,
    pub(super) body: Bytes,
    _held: Reservation,
}

/// Why a post is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No token, or a wrong one.
    #[error("the token is missing or wrong")]
    Unauthorized,
    /// Too large as it came, or unpacked.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s", BODY_WITHIN.as_secs())]
    Timeout,
    /// There is no room now.
    #[error("more than can be taken now; try again later")]
    Busy,
    /// It is not what the protocol says; the text says what is wrong.
    #[error("{0}")]
    Malformed(String),
    /// No such path.
    #[error("there is only {0} here")]
    Path(&'static str),
    /// No such method.
    #[error("only POST is answered here")]
    Method,
    /// No such media type or coding.
    #[error("{0}")]
    Media(String),
}

impl Refusal {
    /// How it is counted.
    pub(super) fn posted(&self) -> Posted {
        match self {
            Self::Unauthorized => Posted::Unauthorized,
            Self::TooLarge(_) => Posted::TooLarge,
            Self::Timeout => Posted::Timeout,
            Self::Busy => Posted::Busy,
            Self::Malformed(_) => Posted::Malformed,
            Self::Path(_) | Self::Method | Self::Media(_) => Posted::Unknown,
        }
    }

    /// Its status in HTTP.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Media(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

impl Post {
    /// Reads `request`, unless `refused` says already why it is not taken.
    pub(super) async fn read(
        desk: &Desk,
        request: Request<Incoming>,
        refused: Option<Refusal>,
    ) -> Result<Self, Refusal> {
        let (head, mut body) = request.into_parts();
        let refused = match is_admitted(desk.token.as_ref(), &head.headers) {
            false => Some(Refusal::Unauthorized),
            true => refused.or_else(|| too_long(&head.headers, desk.body_bytes_max)),
        };
        let read = match refused {
            Some(refusal) => Err(refusal),
            None => tokio::time::timeout(BODY_WITHIN, read(desk, &mut body))
                .await
                .unwrap_or(Err(Refusal::Timeout)),
        };
        match read {
            Ok((body, held)) => Ok(Self { head, body, _held: held }),
            Err(refusal) => {
                pass_over(body, desk.body_bytes_max * UNREAD_TIMES).await;
                Err(refusal)
            }
        }
    }

    /// The body without its content coding, which is gzip or none.
    pub(super) fn unpacked(&self, bytes_max: usize) -> Result<Bytes, Refusal> {
        let coding = self.head.headers.get(CONTENT_ENCODING).map(|value| value.as_bytes());
        match coding {
            None | Some(b"" | b"identity") => Ok(self.body.clone()),
            Some(b"gzip" | b"x-gzip") => gunzip(&self.body, bytes_max),
            Some(_) => Err(Refusal::Media("the only content coding is gzip".to_owned())),
        }
    }
}

/// Bearer, or Basic with the token as its password: a client that cannot send a header of its own may
/// have it in its URL.
fn is_admitted(token: Option<&Secret>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let Some(given) = headers.get(AUTHORIZATION).map(|value| value.as_bytes()) else {
        return false;
    };
    let (scheme, rest) = given.split_at(given.iter().position(|b| *b == b' ').unwrap_or(0));
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return token.is(rest);
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest).unwrap_or_default();
    let password = decoded.iter().position(|b| *b == b':').map(|colon| &decoded[colon + 1..]);
    scheme.eq_ignore_ascii_case(b"basic") && password.is_some_and(|given| token.is(given))
}

fn too_long(headers: &HeaderMap, bytes_max: usize) -> Option<Refusal> {
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    (length > bytes_max as u64).then_some(Refusal::TooLarge(bytes_max))
}

async fn read(desk: &Desk, body: &mut Incoming) -> Result<(Bytes, Reservation), Refusal> {
    let mut held = desk.bodies.reservation();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::Malformed("the body broke off".to_owned());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if read.len() + data.len() > desk.body_bytes_max {
            return Err(Refusal::TooLarge(desk.body_bytes_max));
        }
        if !held.try_grow(data.len() as u64) {
            return Err(Refusal::Busy);
        }
        read.extend_from_slice(&data);
    }
    Ok((read.into(), held))
}

/// Reads what nobody wants, a while.
async fn pass_over(mut body: Incoming, bytes_max: usize) {
    let mut left = bytes_max;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    drop(tokio::time::timeout(UNREAD_WITHIN, reading).await);
}

fn gunzip(packed: &[u8], bytes_max: usize) -> Result<Bytes, Refusal> {
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(packed).take(bytes_max as u64 + 1);
    if reader.read_to_end(&mut unpacked).is_err() {
        return Err(Refusal::Malformed("the body is no gzip".to_owned()));
    }
    match unpacked.len() > bytes_max {
        true => Err(Refusal::TooLarge(bytes_max)),
        false => Ok(unpacked.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))])
    }

    #[test]
    fn the_token_is_a_bearer_token_or_a_password() {
        let token = Secret::new("t0ken");
        let basic = |text: &str| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        };
        for right in ["Bearer t0ken", "bearer  t0ken", &basic("flowtap:t0ken"), &basic(":t0ken")] {
            assert!(is_admitted(Some(&token), &headers(right)), "{right}");
        }
        for wrong in
            ["t0ken", "Bearer", "Bearer t0kem", "Bearer t0ken x", "Basic t0ken", &basic("t0ken")]
        {
            assert!(!is_admitted(Some(&token), &headers(wrong)), "{wrong}");
        }
        assert!(!is_admitted(Some(&token), &HeaderMap::new()));
        assert!(is_admitted(None, &HeaderMap::new()));
    }

    #[test]
    fn a_small_body_cannot_unpack_to_a_large_one() {
        use std::io::Write;
        let pack = |bytes: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            packer.write_all(bytes).expect("in memory");
            packer.finish().expect("in memory")
        };
        assert_eq!(gunzip(&pack(b"abc"), 3).expect("it fits"), "abc");
        assert_eq!(gunzip(&pack(b"abcd"), 3), Err(Refusal::TooLarge(3)));
        assert_eq!(gunzip(&pack(&vec![0; 10_000_000]), 1000), Err(Refusal::TooLarge(1000)));
        assert!(matches!(gunzip(b"abc", 1000), Err(Refusal::Malformed(_))));
        let mut cut = pack(b"abcdefgh");
        cut.truncate(cut.len() - 3);
        assert!(matches!(gunzip(&cut, 1000), Err(Refusal::Malformed(_))));
    }
}
