//! The effective configuration as YAML, secrets masked.

use super::Config;

/// The effective configuration as YAML, secrets masked.
pub fn effective(_config: &Config) -> String {
    String::new()
}
