//! How many connections the process's file descriptors are enough for. Without one for the upstream, a client
//! that was let in gets an error that is not its upstream's; one that was not waits for its turn.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left to all else, at most: the spool, the bucket, the index, the admin side.
const OTHERS_MAX: u64 = 64;
/// Descriptors of a client's connection: its own, and its upstream's.
const EACH: u64 = 2;

/// Raises the process's limit as far as it may, and says how many client connections each of `taps` can
/// have at once.
pub fn connections_max(taps: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let limit =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    limit.map_or(usize::MAX, |limit| share(limit, taps))
}

/// Of `limit` descriptors, for each of `taps`.
fn share(limit: u64, taps: usize) -> usize {
    let others = OTHERS_MAX.min(limit / 4 * 3);
    let all = usize::try_from((limit - others) / EACH).unwrap_or(usize::MAX);
    (all / taps.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_one_for_its_upstream_and_the_rest_of_the_process_has_some() {
        assert_eq!([64, 256, 1024, 1 << 20].map(|limit| share(limit, 1)), [8, 96, 480, 524_256]);
        assert_eq!((share(1024, 2), share(4, 9)), (240, 1));
    }
}
