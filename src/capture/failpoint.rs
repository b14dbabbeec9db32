//! Fail points: a named place that panics, stalls or ends the process when told to. In test builds only
//! (feature `failpoints`); elsewhere nothing is left of them.
//!
//! `FLOWTAP_FAILPOINT=request_body:panic,pipeline:stall=500,spool_synced:kill=3,evaluate:panic=2`:
//! milliseconds of a stall, at which passage the process ends, how many passages panic (all, where no
//! number is given). Read once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Does at `place` what the environment asked for; nothing otherwise.
#[inline]
pub fn hit(place: &str) {
    if cfg!(feature = "failpoints") {
        act(place);
    }
}

/// What is done at a place, and how often it was passed.
struct Action {
    place: String,
    what: What,
    passed: AtomicU64,
}

enum What {
    Panic(u64),
    Stall(Duration),
    Kill(u64),
}

#[allow(clippy::panic)] // to panic is what a fail point is for
fn act(place: &str) {
    let Some(action) = actions().iter().find(|action| action.place == place) else { return };
    let passed = action.passed.fetch_add(1, Ordering::Relaxed) + 1;
    match action.what {
        What::Panic(times) if passed <= times => panic!("fail point {place}"),
        What::Panic(_) => {}
        What::Stall(time) => std::thread::sleep(time),
        // No destructor runs and nothing is flushed: to files it is the same as `kill -9`.
        What::Kill(at) if passed >= at => std::process::abort(),
        What::Kill(_) => {}
    }
}

fn actions() -> &'static [Action] {
    static ACTIONS: OnceLock<Vec<Action>> = OnceLock::new();
    ACTIONS.get_or_init(|| {
        let text = std::env::var("FLOWTAP_FAILPOINT").unwrap_or_default();
        text.split(',').filter_map(parsed).collect()
    })
}

fn parsed(text: &str) -> Option<Action> {
    let (place, what) = text.split_once(':')?;
    let (what, number) = what.split_once('=').unwrap_or((what, "1"));
    let number = number.parse().ok()?;
    let what = match what {
        "panic" => What::Panic(if text.contains('=') { number } else { u64::MAX }),
        "stall" => What::Stall(Duration::from_millis(number)),
        "kill" => What::Kill(number),
        _ => return None,
    };
    Some(Action { place: place.to_owned(), what, passed: AtomicU64::new(0) })
}
