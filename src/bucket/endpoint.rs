//! Which endpoints a bucket may have: not those where clouds hand out credentials.

use url::{Host, Url};

use super::{BucketError, BucketErrorKind};
use crate::domain::{is_metadata, is_metadata_address};

/// Refuses an endpoint that is no `http` or `https` URL, or is a link-local or metadata address: a
/// bucket there could only be a trick to reach instance credentials. Names are not resolved here.
pub(super) fn check(endpoint: Option<&str>) -> Result<(), BucketError> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let refuse = |why: &str| {
        Err(BucketError::new(BucketErrorKind::Configuration, format!("endpoint {why}")))
    };
    let Ok(url) = Url::parse(endpoint) else { return refuse("is not a URL") };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("is neither http nor https");
    }
    match url.host() {
        None => refuse("has no host"),
        Some(Host::Ipv4(address)) if is_metadata_address(address.into()) => refuse("is link-local"),
        Some(Host::Ipv6(address)) if is_metadata_address(address.into()) => refuse("is link-local"),
        Some(Host::Domain(name)) if is_metadata(name) => refuse("is a metadata service"),
        Some(_) => Ok(()),
    }
}

/// True where the endpoint is plain `http`, which is only ever used if the user wrote it so.
pub(super) fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|url| url.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("http://")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_refused_however_they_are_written() {
        for bad in [
            "http://169.254.169.254",
            "http://169.254.169.254:80/x",
            "http://2852039166/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://168.63.129.16/",
            "http://Metadata.Google.Internal./",
            "http://metadata/",
            "ftp://host",
            "file:///etc",
            "host:9000",
            "",
        ] {
            assert!(check(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_endpoints_pass() {
        for good in ["http://127.0.0.1:9000", "https://minio.example:9000/x", "http://[::1]:1"] {
            assert!(check(Some(good)).is_ok(), "{good}");
        }
        assert!(check(None).is_ok());
        assert!(is_plain(Some("HTTP://x")) && !is_plain(Some("https://x")) && !is_plain(None));
    }
}
