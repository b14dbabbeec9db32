//! What a remote store's answer means: by its error code where there is one, else by its status.
//! Codes: the lists of error responses of Amazon S3, Azure Blob Storage and Google Cloud Storage's
//! XML interface, which overlap without contradicting each other.

use std::error::Error;

use super::BucketErrorKind;

/// The kind of an answer that is no success. `operation` is the trait's: a 404 without a code names
/// the object for `get` and `delete`, the bucket for the others.
pub(super) fn kind(operation: &str, status: u16, code: &str) -> BucketErrorKind {
    of_code(code).unwrap_or_else(|| of_status(operation, status))
}

/// An error code as stores spell them: letters, digits and dots, at most 64. What is no code does not
/// get into a message.
pub(super) fn code(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(64).collect()
}

/// The code in an XML error body: `<Error><Code>NoSuchKey</Code>…`; empty where there is none.
pub(super) fn code_in(body: &str) -> String {
    let after = body.split_once("<Code>").map_or("", |(_, after)| after);
    after.split_once("</Code>").map(|(text, _)| code(text)).unwrap_or_default()
}

/// Whether the body of a success begins as an error's does: stores and their proxies send such answers
/// when they notice trouble after the head.
pub(super) fn holds_error(body: &[u8]) -> bool {
    let begin = &body[..body.len().min(1024)];
    begin.windows(7).any(|bytes| bytes == b"<Error>")
}

/// The kind and text of a connection's failure: only the system's own error, never a URL.
pub(super) fn connection(error: &(dyn Error + 'static)) -> (BucketErrorKind, String) {
    match chain(error).find_map(|e| e.downcast_ref::<std::io::Error>()) {
        Some(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            (BucketErrorKind::Timeout, format!("the connection failed: {io}"))
        }
        Some(io) => (BucketErrorKind::Unavailable, format!("the connection failed: {io}")),
        None => (BucketErrorKind::Unavailable, "the connection failed".to_owned()),
    }
}

/// An error and its sources, outermost first.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> + 'a {
    std::iter::successors(Some(error), |&e| e.source())
}

fn of_code(code: &str) -> Option<BucketErrorKind> {
    use BucketErrorKind as Kind;
    Some(match code {
        "NoSuchKey" | "BlobNotFound" => Kind::NotFound,
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" => {
            Kind::NoBucket
        }
        "SlowDown"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException"
        | "ServerBusy"
        | "RequestLimitExceeded"
        | "ServiceUnavailable" => Kind::Throttled,
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "Md5Mismatch"
        | "Crc64Mismatch" => Kind::Integrity,
        "RequestTimeout" | "OperationTimedOut" => Kind::Timeout,
        "AccessDenied"
        | "AuthenticationFailed"
        | "AuthorizationFailure"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired" => Kind::Denied,
        _ if code.starts_with("KMS.") => Kind::Configuration,
        _ => return None,
    })
}

fn of_status(operation: &str, status: u16) -> BucketErrorKind {
    use BucketErrorKind as Kind;
    match status {
        401 | 403 => Kind::Denied,
        404 if matches!(operation, "get" | "delete") => Kind::NotFound,
        404 => Kind::NoBucket,
        408 => Kind::Timeout,
        // A conflict without a code: another write is under way, which passes.
        409 | 429 | 503 => Kind::Throttled,
        300..=399 | 400 | 405 | 501 => Kind::Configuration,
        500..=599 => Kind::Unavailable,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_get_their_kinds() {
        use BucketErrorKind as Kind;
        let cases = [
            ("get", 404, "NoSuchKey", Kind::NotFound),
            ("get", 404, "", Kind::NotFound),
            ("put", 404, "", Kind::NoBucket),
            ("get", 404, "NoSuchBucket", Kind::NoBucket),
            ("get", 404, "ContainerNotFound", Kind::NoBucket),
            ("put", 403, "SignatureDoesNotMatch", Kind::Denied),
            ("put", 400, "ExpiredToken", Kind::Denied),
            ("put", 401, "", Kind::Denied),
            ("put", 503, "SlowDown", Kind::Throttled),
            ("put", 503, "", Kind::Throttled),
            ("put", 500, "InternalError", Kind::Unavailable),
            ("put", 500, "OperationTimedOut", Kind::Timeout),
            ("put", 502, "", Kind::Unavailable),
            ("put", 400, "BadDigest", Kind::Integrity),
            ("put", 301, "PermanentRedirect", Kind::Configuration),
            ("put", 400, "KMS.NotFoundException", Kind::Configuration),
            ("put", 418, "", Kind::Other),
        ];
        for (operation, status, code, expected) in cases {
            assert_eq!(kind(operation, status, code), expected, "{operation} {status} {code}");
        }
    }

    #[test]
    fn codes_are_letters_only() {
        assert_eq!(code("a<b>\n?sig=x"), "absigx");
        assert_eq!(code(&"x".repeat(500)).len(), 64);
        assert_eq!(
            code_in("<?xml?><Error><Code>NoSuchKey</Code><Key>k</Key></Error>"),
            "NoSuchKey"
        );
        assert_eq!(code_in("<Code>cut"), "");
        assert_eq!(code_in("plain"), "");
    }

    #[test]
    fn an_error_is_seen_at_the_beginning_of_a_body_only() {
        assert!(holds_error(b"<?xml version=\"1.0\"?>\n<Error><Code>x</Code></Error>"));
        assert!(!holds_error(b"<ListBucketResult/>"));
        assert!(!holds_error(b""));
        assert!(!holds_error(&[b" ".repeat(2000), b"<Error>".to_vec()].concat()));
    }
}
