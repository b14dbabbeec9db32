//! What can go wrong between a request and its answer: how the client is told, and how it is recorded.

use http::StatusCode;

use crate::domain::Outcome;

/// A fault on the way that we answer ourselves.
pub struct Failure {
    /// What the client is told.
    pub status: StatusCode,
    /// What is recorded.
    pub outcome: Outcome,
    /// The fault's name: in the answer, the record and the log.
    pub reason: &'static str,
    /// The fault in words; never any content.
    pub message: &'static str,
}

const fn failure(
    status: StatusCode,
    outcome: Outcome,
    reason: &'static str,
    message: &'static str,
) -> Failure {
    Failure { status, outcome, reason, message }
}

/// The upstream's answer could be read in two ways.
pub const BAD_FRAMING: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::UpstreamError,
    "upstream_framing",
    "the upstream's answer cannot be framed safely",
);
/// No connection.
pub const UNCONNECTED: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::ConnectError,
    "upstream_connect",
    "no connection to the upstream",
);
/// No connection in time.
pub const CONNECT_TIMEOUT: Failure = failure(
    StatusCode::GATEWAY_TIMEOUT,
    Outcome::Timeout,
    "upstream_connect_timeout",
    "connecting to the upstream took too long",
);
/// A connection, and no answer on it.
pub const NO_ANSWER: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::ConnectError,
    "upstream_closed",
    "the upstream closed the connection before it answered, or its answer is no HTTP",
);
/// No answer in time.
pub const RESPONSE_TIMEOUT: Failure = failure(
    StatusCode::GATEWAY_TIMEOUT,
    Outcome::Timeout,
    "upstream_timeout",
    "the upstream did not answer in time",
);
/// The client broke its own framing.
pub const BROKEN_BODY: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientError,
    "body",
    "the request's body broke its framing",
);
/// The client's chunks say more beside their data than anybody reads.
pub const LONG_EXTENSIONS: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientError,
    "chunk_extensions",
    "the extensions of the request's chunks are longer than 16 KiB together",
);
/// The client left in the middle of its body.
pub const CLIENT_LEFT: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientAbort,
    "body_incomplete",
    "the request's body ended before its length",
);
/// The client stopped in the middle of its body.
pub const IDLE_BODY: Failure = failure(
    StatusCode::REQUEST_TIMEOUT,
    Outcome::Timeout,
    "body_idle",
    "the request's body stopped coming",
);
/// The target makes no URL upstream.
pub const UNROUTABLE: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientError,
    "target",
    "the request's target cannot be forwarded",
);
