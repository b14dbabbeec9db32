//! Where tests make the disk fail; nothing at all outside of tests.

use std::io;

/// A call that a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Create,
    Open,
    Write,
    Sync,
    Rename,
    Remove,
}

/// Calls of one kind that fail, so many of them, once so many have not.
#[cfg(test)]
#[derive(Clone, Debug)]
struct Armed {
    point: Point,
    kind: io::ErrorKind,
    after: u32,
    times: u32,
}

/// The failures that a test has asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    armed: std::sync::Arc<std::sync::Mutex<Vec<Armed>>>,
}

impl Faults {
    /// Fails where a test has armed `point`.
    #[cfg(not(test))]
    pub(super) fn at(&self, _point: Point) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn at(&self, point: Point) -> io::Result<()> {
        let mut armed = self.armed.lock().expect("no test panics here");
        match armed.iter_mut().find(|armed| armed.point == point && armed.times > 0) {
            Some(armed) if armed.after == 0 => {
                armed.times -= 1;
                Err(io::Error::from(armed.kind))
            }
            Some(armed) => {
                armed.after -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn arm(&self, point: Point, kind: io::ErrorKind) {
        self.arm_times(point, kind, u32::MAX);
    }

    #[cfg(test)]
    pub(super) fn arm_times(&self, point: Point, kind: io::ErrorKind, times: u32) {
        self.arm_after(point, kind, 0, times);
    }

    #[cfg(test)]
    pub(super) fn arm_after(&self, point: Point, kind: io::ErrorKind, after: u32, times: u32) {
        let armed = Armed { point, kind, after, times };
        self.armed.lock().expect("no test panics here").push(armed);
    }

    #[cfg(test)]
    pub(super) fn disarm(&self) {
        self.armed.lock().expect("no test panics here").clear();
    }
}
