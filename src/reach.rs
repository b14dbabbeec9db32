//! Which addresses may be called by whoever sends requests of our own (judges, webhooks, replays). The name is looked up here, and what is checked is what is connected
//! to, so that a name cannot lead elsewhere the second time.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::{is_metadata, is_metadata_address};

/// A name or an address that is not called.
#[derive(Debug, thiserror::Error)]
#[error("link-local and metadata addresses hand out credentials and are not called (`link_local`)")]
pub struct Forbidden;

/// Looks names up, and refuses those that lead to a metadata service.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// The user says that such an address is meant.
    pub link_local: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let link_local = self.link_local;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !link_local && found.iter().any(|address| is_metadata_address(address.ip())) {
                return Err(Forbidden.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The host of a URL, where it is an address or a name that is known without looking it up.
pub fn check(url: &reqwest::Url, link_local: bool) -> Result<(), Forbidden> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !link_local && is_metadata(host) { Err(Forbidden) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn metadata_services_are_not_called_however_they_are_written() {
        for host in [
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[64:ff9b::a9fe:a9fe]",
            "[::ffff:169.254.169.254]",
            "[fe80::1]",
            "metadata.google.internal",
            "100.100.100.200",
        ] {
            let url = reqwest::Url::parse(&format!("http://{host}/latest/meta-data")).unwrap();
            assert!(check(&url, false).is_err(), "{host}");
            assert!(check(&url, true).is_ok(), "{host}");
        }
        assert!(check(&reqwest::Url::parse("http://127.0.0.1:9093").unwrap(), false).is_ok());
    }
}
