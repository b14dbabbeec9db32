//! How many connections the process's file descriptors are enough for. Without one for the upstream, a client
//! that was let in gets an error that is not its upstream's; one that was not waits for its turn.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that are left to all else, at most: the spool, the bucket, the index, the admin side.
const OTHERS_MAX: u64 = 64;
/// Descriptors of a client's connection: its own, and its upstream's.
const EACH: u64 = 2;

/// A connection's leave to be open, given back when dropped.
pub struct Place {
    _of_tap: OwnedSemaphorePermit,
    _of_process: OwnedSemaphorePermit,
}

/// The connections that a tap may have open at once. Half of what the process can have is for all taps, the
/// other half divided among them: one that takes all it can get leaves the others theirs, since its requests
/// may end only after theirs.
#[derive(Clone)]
pub struct Places {
    wanted: Arc<Semaphore>,
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    max: usize,
}

impl Places {
    /// Places for taps that want so many, as far as there are file descriptors. Raises the process's limit of
    /// those as far as it may.
    pub fn of(wanted: &[usize]) -> Vec<Self> {
        Self::within(file_limit(), wanted)
    }

    fn within(limit: u64, wanted: &[usize]) -> Vec<Self> {
        let all = connections_max(limit).min(Semaphore::MAX_PERMITS);
        let own = (all / 2 / wanted.len().max(1)).max(1);
        let shared = all.saturating_sub(own * wanted.len());
        let pool = Arc::new(Semaphore::new(shared));
        let places = |wanted: &usize| Self {
            wanted: Arc::new(Semaphore::new(*wanted)),
            own: Arc::new(Semaphore::new(own)),
            shared: Arc::clone(&pool),
            max: own + shared,
        };
        wanted.iter().map(places).collect()
    }

    /// The most that there can be, whatever is wanted.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Waits for a place; `None` after the end of all.
    pub async fn take(&self) -> Option<Place> {
        let of_tap = Arc::clone(&self.wanted).acquire_owned().await.ok()?;
        let of_process = tokio::select! {
            biased;
            own = Arc::clone(&self.own).acquire_owned() => own,
            shared = Arc::clone(&self.shared).acquire_owned() => shared,
        };
        Some(Place { _of_tap: of_tap, _of_process: of_process.ok()? })
    }
}

fn file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let limit =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    limit.unwrap_or(u64::MAX)
}

/// Of all taps together, with so many descriptors.
fn connections_max(limit: u64) -> usize {
    let others = OTHERS_MAX.min(limit / 4 * 3);
    usize::try_from((limit - others) / EACH).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_connection_has_one_for_its_upstream_and_the_rest_of_the_process_has_some() {
        let alone = |limit| Places::within(limit, &[1])[0].max();
        assert_eq!([64, 256, 1024, 1 << 20].map(alone), [8, 96, 480, 524_256]);
        assert_eq!(Places::within(20_000, &[4096; 5])[0].max(), 5984);
        assert_eq!(Places::within(4, &[9; 9]).iter().map(Places::max).max(), Some(1));
        assert!(Places::within(u64::MAX, &[9])[0].max() > 1 << 20);
    }

    #[test]
    fn a_tap_that_takes_all_it_gets_leaves_the_others_theirs() {
        let taps = Places::within(64, &[4096, 4096]);
        let (first, second) = (all_of(&taps[0]), all_of(&taps[1]));
        assert_eq!((first.len(), second.len()), (6, 2));
        drop(first);
        assert_eq!(all_of(&taps[1]).len(), 4);
        assert_eq!(all_of(&Places::within(1024, &[7])[0]).len(), 7, "no more than wanted");
    }

    fn all_of(places: &Places) -> Vec<Place> {
        std::iter::from_fn(|| places.take().now_or_never().flatten()).collect()
    }
}
