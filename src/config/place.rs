//! Addresses and URLs: where to listen, where to forward to, where to keep.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use url::{Host, Url};

use super::kind::Refusal;
use crate::domain::is_metadata;

/// A URL of an upstream, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpstreamUrl {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) path_prefix: String,
}

/// A URL of a bucket, in its parts. Prefixes have no slash at their ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BucketUrl {
    Local { path: PathBuf },
    S3 { name: String, prefix: String },
    Azure { account: String, container: String, prefix: String },
    Gcs { name: String, prefix: String },
}

/// An address to listen on: `localhost` is 127.0.0.1, and no host is every IPv4 address.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Refusal> {
    let completed = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    completed.parse().map_err(|_| listen_refusal(text))
}

fn listen_refusal(text: &str) -> Refusal {
    if text.parse::<u16>().is_ok() {
        return Refusal::meant(format!("127.0.0.1:{text}"));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Refusal {
            why: Some("it has no port".to_owned()),
            nearest: Some(format!("[{address}]:8080")),
        };
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Refusal {
            why: Some("it has no port".to_owned()),
            nearest: Some(format!("{address}:8080")),
        };
    }
    let bare = text.trim_end_matches('/').split("://").nth(1).filter(|rest| listen(rest).is_ok());
    Refusal { why: None, nearest: bare.map(str::to_owned) }
}

/// An upstream's URL.
pub(super) fn upstream(text: &str) -> Result<UpstreamUrl, Refusal> {
    let url = web(text)?;
    let secure = url.scheme() == "https";
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    let host = host(&url)?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = match url.port() {
        Some(port) => format!("{bracketed}:{port}"),
        None => bracketed,
    };
    let path_prefix = url.path().trim_end_matches('/').to_owned();
    Ok(UpstreamUrl { secure, host, port, authority, path_prefix })
}

/// An endpoint of a store: not where cloud machines keep their credentials.
pub(super) fn endpoint(text: &str) -> Result<(), Refusal> {
    let host = host(&web(text)?)?;
    match is_metadata(&host) {
        true => Err(Refusal::because("metadata and link-local addresses hand out credentials")),
        false => Ok(()),
    }
}

/// An address that messages go to: no user, but a query is fine.
pub(super) fn hook(text: &str) -> Result<(), Refusal> {
    let plain = text.split('?').next().unwrap_or_default();
    host(&web(plain)?).map(drop)
}

/// A mail server's URL, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SmtpUrl {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// `smtps://host` (TLS from the first byte) or `smtp://host`.
pub(super) fn smtp(text: &str) -> Result<SmtpUrl, Refusal> {
    let tls = match text.split_once("://") {
        Some(("smtps", _)) => true,
        Some(("smtp", _)) => false,
        Some(_) => return Err(Refusal::default()),
        None => return Err(Refusal::meant(format!("smtps://{text}"))),
    };
    // The parser of URLs knows neither scheme's hosts; those of `http` have the same form.
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let port = rest.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let url = web(&format!("http://{rest}"))?;
    if url.path() != "/" {
        return Err(Refusal::because("it has a path"));
    }
    let default = if tls { 465 } else { 587 };
    let port = if port.is_some() { url.port().unwrap_or(80) } else { default };
    Ok(SmtpUrl { tls, host: host(&url)?, port })
}

/// A bucket's URL.
pub(super) fn bucket(text: &str) -> Result<BucketUrl, Refusal> {
    if text.contains(|c: char| c.is_control()) {
        return Err(Refusal::because("it has control characters"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let path = text.starts_with('/') || text.starts_with("./") || text.starts_with("../");
        let nearest = path.then(|| format!("file://{text}"));
        return Err(Refusal { why: Some("it has no scheme".to_owned()), nearest });
    };
    if scheme != "file" && rest.contains(['?', '#', '@', '%', '\\', ' ']) {
        return Err(Refusal::because("options stand in the map, not in the URL"));
    }
    match scheme {
        "file" => local(rest),
        "s3" => {
            let (name, prefix) = named(rest)?;
            when(is_bucket_name(name), "the bucket's name")?;
            Ok(BucketUrl::S3 { name: name.to_owned(), prefix })
        }
        "gs" => {
            let (name, prefix) = named(rest)?;
            when(is_bucket_name(name), "the bucket's name")?;
            Ok(BucketUrl::Gcs { name: name.to_owned(), prefix })
        }
        "az" => azure(rest),
        other => {
            let near = match other {
                "azure" | "azblob" | "abfs" | "abfss" | "wasbs" => Some("az"),
                "gcs" | "gcp" => Some("gs"),
                "s3a" | "s3n" => Some("s3"),
                _ => None,
            };
            Err(Refusal { why: None, nearest: near.map(|near| format!("{near}://{rest}")) })
        }
    }
}

/// Whether `text` is a host name or an address, without port.
pub(super) fn is_host(text: &str) -> bool {
    text.len() <= 253 && !text.contains(char::is_whitespace) && Host::parse(text).is_ok()
}

/// An http or https URL without user, query and fragment.
fn web(text: &str) -> Result<Url, Refusal> {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(web_refusal(text));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(Refusal::because("it has spaces, control characters or backslashes"));
    }
    let url = Url::parse(text).map_err(|error| Refusal::because(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::because("user and password have no place in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Refusal::because("it has a query or a fragment"));
    }
    match url.port() {
        Some(0) => Err(Refusal::because("port 0 is no port")),
        _ => Ok(url),
    }
}

fn web_refusal(text: &str) -> Refusal {
    if text.contains("://") || text.is_empty() {
        return Refusal::default();
    }
    let local = text.starts_with("localhost") || text.starts_with("127.") || text.starts_with('[');
    let guess = format!("{}://{text}", if local { "http" } else { "https" });
    let why = Some("it has no scheme".to_owned());
    Refusal { why, nearest: web(&guess).is_ok().then_some(guess) }
}

fn host(url: &Url) -> Result<String, Refusal> {
    match url.host() {
        Some(Host::Domain(name)) => Ok(name.to_owned()),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        None => Err(Refusal::because("it has no host")),
    }
}

fn local(rest: &str) -> Result<BucketUrl, Refusal> {
    let relative = rest == "." || rest.starts_with("./") || rest.starts_with("../");
    if !rest.starts_with('/') && !relative {
        let nearest = (!rest.is_empty()).then(|| format!("file:///{rest}"));
        let why = Some("a file URL has three slashes, or `./` after two".to_owned());
        return Err(Refusal { why, nearest });
    }
    let trimmed = rest.trim_end_matches('/');
    when(!trimmed.is_empty(), "a folder below the root")?;
    Ok(BucketUrl::Local { path: PathBuf::from(trimmed) })
}

fn azure(rest: &str) -> Result<BucketUrl, Refusal> {
    let (account, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (container, prefix) = named(path)?;
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    when((3..=24).contains(&account.len()) && lower(account), "the account's name")?;
    let plain = container.trim_start_matches('$').replace('-', "");
    when((3..=63).contains(&container.len()) && lower(&plain), "the container's name")?;
    Ok(BucketUrl::Azure { account: account.to_owned(), container: container.to_owned(), prefix })
}

/// A name, and the prefix after it.
fn named(rest: &str) -> Result<(&str, String), Refusal> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let piece = |piece: &str| !matches!(piece, "" | "." | "..");
    when(prefix.is_empty() || prefix.split('/').all(piece), "the prefix")?;
    when(prefix.len() <= 512, "the prefix")?;
    Ok((name, prefix.to_owned()))
}

/// Amazon's and Google's rules for bucket names, and the wider ones of stores that speak like them.
fn is_bucket_name(name: &str) -> bool {
    (3..=222).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..")
}

fn when(fine: bool, what: &str) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(Refusal::because(format!("{what} is missing or malformed"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_to_listen_on() {
        let address = |text| listen(text).ok().map(|address| address.to_string());
        assert_eq!(address(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(address("localhost:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(address("[::1]:80").as_deref(), Some("[::1]:80"));
        for wrong in ["", ":", "8080", "::1:80", "1.2.3.4", "host:80", "1.2.3.4:99999", "[::1]"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
        let meant = |text| listen(text).unwrap_err().nearest;
        assert_eq!(meant("8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(meant("http://127.0.0.1:80/").as_deref(), Some("127.0.0.1:80"));
    }

    #[test]
    fn reads_upstreams() {
        let url = upstream("https://[2001:DB8::1]:8443/a/b/").unwrap();
        assert_eq!((url.secure, &*url.host, url.port), (true, "2001:db8::1", 8443));
        assert_eq!((&*url.authority, &*url.path_prefix), ("[2001:db8::1]:8443", "/a/b"));
        let url = upstream("http://Example.com:80").unwrap();
        assert_eq!((&*url.authority, url.port, &*url.path_prefix), ("example.com", 80, ""));
        for wrong in [
            "",
            "http://",
            "http:/x",
            "http:x",
            "ftp://x",
            "http://u@x",
            "http://:p@x",
            "http://x?a",
            "http://x#a",
            "http://x:0",
            "http://x:99999",
            "http://a b",
            "http://x\\y",
            "http://[::1",
            "x.example:80",
        ] {
            assert!(upstream(wrong).is_err(), "{wrong}");
        }
        let meant = upstream("x.example:80").unwrap_err().nearest;
        assert_eq!(meant.as_deref(), Some("https://x.example:80"));
    }

    #[test]
    fn refuses_endpoints_that_hand_out_credentials() {
        for host in [
            "169.254.169.254",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "0xa9fea9fe",
            "2852039166",
            "metadata.google.internal",
            "Metadata.Google.Internal.",
            "168.63.129.16",
            "100.100.100.200",
        ] {
            assert!(endpoint(&format!("http://{host}/latest")).is_err(), "{host}");
        }
        assert!(endpoint("http://127.0.0.1:9000").is_ok());
    }

    #[test]
    fn reads_buckets() {
        let s3 = BucketUrl::S3 { name: "my.bucket".into(), prefix: "a/b".into() };
        assert_eq!(bucket("s3://my.bucket/a/b/").unwrap(), s3);
        let local = BucketUrl::Local { path: "/a b/c".into() };
        assert_eq!(bucket("file:///a b/c/").unwrap(), local);
        for wrong in [
            "",
            "s3",
            "s3://",
            "s3://ab",
            "s3:///x",
            "s3://name/a//b",
            "s3://name/../x",
            "s3://name?x=y",
            "s3://k:s@name",
            "file://host/x",
            "file://",
            "file:///",
            "az://account",
            "az://a/container",
            "az://account/C",
            "gs://-name",
            "file:///a\nb",
        ] {
            assert!(bucket(wrong).is_err(), "{wrong}");
        }
    }
}
