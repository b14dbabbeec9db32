//! Fail points, in test builds only: a named place that panics or stalls when told to.
//!
//! `FLOWTAP_FAILPOINT=request_body:panic,pipeline:stall=500` (milliseconds). Read once.

use std::sync::OnceLock;
use std::time::Duration;

/// Does at `place` what the environment asked for; nothing otherwise.
#[allow(clippy::panic)] // to panic is what a fail point is for
pub fn hit(place: &str) {
    match actions().iter().find(|(name, _)| name == place).map(|(_, action)| action.as_str()) {
        Some("panic") => panic!("fail point {place}"),
        Some(action) => stall(action),
        None => {}
    }
}

fn stall(action: &str) {
    if let Some(ms) = action.strip_prefix("stall=").and_then(|ms| ms.parse().ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

fn actions() -> &'static [(String, String)] {
    static ACTIONS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    ACTIONS.get_or_init(|| {
        let text = std::env::var("FLOWTAP_FAILPOINT").unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
        pairs.map(|(place, action)| (place.to_owned(), action.to_owned())).collect()
    })
}
