//! Addresses that nothing of ours may call by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a request to `host` (a name, or an address without brackets) could hand out a machine's
/// credentials: link-local addresses and the clouds' metadata services (AWS, Azure, Google, Alibaba).
pub fn is_metadata(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => is_metadata_address(address),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            ["metadata", "metadata.google.internal", "metadata.goog", "instance-data"]
                .contains(&name.as_str())
        }
    }
}

/// [`is_metadata`] of what a name led to.
pub fn is_metadata_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_metadata_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || METADATA_V6.contains(&v6)
                || v6.to_ipv4().or_else(|| translated(v6)).is_some_and(is_metadata_v4)
        }
    }
}

/// Of AWS: a machine's and a pod's; of Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// What NAT64 makes of an address of its prefix (RFC 6052).
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
        }
        _ => None,
    }
}

fn is_metadata_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || address == Ipv4Addr::new(168, 63, 129, 16)
        || address == Ipv4Addr::new(100, 100, 100, 200)
}
