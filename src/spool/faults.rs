//! Where tests make the disk fail; nothing at all outside of tests.

use std::io;

/// A call that a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Create,
    Write,
    Sync,
    Rename,
}

/// The failures that a test has asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    armed: std::sync::Arc<std::sync::Mutex<Vec<(Point, io::ErrorKind, u32)>>>,
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
        match armed.iter_mut().find(|(at, _, times)| *at == point && *times > 0) {
            Some((_, kind, times)) => {
                *times -= 1;
                Err(io::Error::from(*kind))
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
        self.armed.lock().expect("no test panics here").push((point, kind, times));
    }

    #[cfg(test)]
    pub(super) fn disarm(&self) {
        self.armed.lock().expect("no test panics here").clear();
    }
}
