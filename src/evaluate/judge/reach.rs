//! Where the judge may be: names are resolved here, so that none leads to where clouds hand out
//! credentials, whatever a name server says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// EC2's metadata service on IPv6.
const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Resolves by the system, and leaves out link-local and metadata addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let fine: Vec<SocketAddr> = found.filter(|at| !is_link_local(at.ip())).collect();
            if fine.is_empty() {
                return Err("no address that a judge may have".into());
            }
            Ok(Box::new(fine.into_iter()) as Addrs)
        })
    }
}

/// True for addresses at which clouds hand out credentials.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == EC2_METADATA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_known_in_every_form() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(is_link_local(bad.parse().expect("an address")), "{bad}");
        }
        for fine in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1"] {
            assert!(!is_link_local(fine.parse().expect("an address")), "{fine}");
        }
    }
}
