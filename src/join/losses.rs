//! When what was lost had begun: which flows it may have belonged to.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Losses that are remembered one by one.
const RECENT_MAX: usize = 256;

/// Moments of which the older ones are remembered as one: all that was before.
#[derive(Debug, Default)]
pub(super) struct Losses {
    recent: VecDeque<Timestamp>,
    before: Option<Timestamp>,
}

impl Losses {
    pub(super) fn add(&mut self, time: Timestamp) {
        if self.recent.back() == Some(&time) {
            return;
        }
        self.recent.push_back(time);
        if self.recent.len() > RECENT_MAX {
            self.before = self.before.max(self.recent.pop_front());
        }
    }

    /// True where something that began from `began` to `ended` may have been lost.
    pub(super) fn touch(&self, began: Timestamp, ended: Timestamp) -> bool {
        self.before >= Some(began) || self.recent.iter().any(|time| (began..=ended).contains(time))
    }
}
