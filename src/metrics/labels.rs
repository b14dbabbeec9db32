//! Bounded tables of names that come from outside and become label values.
//!
//! A client can name any model, so a name is learnt only from exchanges that the upstream accepted,
//! only if it is shaped like a name, and only while there is room: at its first use while the table
//! is less than half full, afterwards at the third use among the last [`WINDOW`] uses of unknown
//! names (a count-min sketch counts them). What is learnt stays for ever, so that no flood of names
//! can push a real one out; everything else is `other`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use pingora_limits::estimator::Estimator;
use prometheus::IntCounter;

/// The label of a name that has none of its own.
pub(super) const OTHER: &str = "other";

/// Longer names are `other`.
const NAME_BYTES_MAX: usize = 64;
/// Uses of an unknown name that admit it once the table is half full.
const USES_MIN: isize = 3;
/// Uses of unknown names after which their counts start anew.
const WINDOW: usize = 2048;
const SKETCH_HASHES: usize = 4;
const SKETCH_SLOTS: usize = 4096;

/// The names learnt so far, at most `names_max`.
pub(super) struct Learned {
    names: RwLock<HashSet<Arc<str>, RandomState>>,
    names_max: usize,
    allowed: fn(u8) -> bool,
    uses: Estimator,
    uses_in_window: AtomicUsize,
    other: Arc<str>,
    empty: Arc<str>,
    overflow: IntCounter,
}

impl Learned {
    /// Model names: what providers use in them, `/`, `:`, `@` and `+` included.
    pub(super) fn models(names_max: usize, overflow: IntCounter) -> Self {
        Self::new(names_max, |b| plain(b) || matches!(b, b'/' | b':' | b'@' | b'+'), overflow)
    }

    /// Deployments: what is safe as a folder's name.
    pub(super) fn deployments(names_max: usize, overflow: IntCounter) -> Self {
        Self::new(names_max, plain, overflow)
    }

    fn new(names_max: usize, allowed: fn(u8) -> bool, overflow: IntCounter) -> Self {
        Self {
            names: RwLock::default(),
            names_max,
            allowed,
            uses: Estimator::new(SKETCH_HASHES, SKETCH_SLOTS),
            uses_in_window: AtomicUsize::new(0),
            other: Arc::from(OTHER),
            empty: Arc::from(""),
            overflow,
        }
    }

    /// The label of a name that the upstream accepted.
    pub(super) fn learn(&self, name: &str) -> Arc<str> {
        self.find(name).unwrap_or_else(|| {
            let admitted = self.well_formed(name) && self.used_enough(name);
            admitted.then(|| self.admit(name)).flatten().unwrap_or_else(|| self.overflowed())
        })
    }

    /// The label of a name that nobody vouches for.
    pub(super) fn known(&self, name: &str) -> Arc<str> {
        self.find(name).unwrap_or_else(|| self.overflowed())
    }

    /// The label of what has no name.
    pub(super) fn none(&self) -> Arc<str> {
        self.empty.clone()
    }

    fn find(&self, name: &str) -> Option<Arc<str>> {
        match name {
            "" => Some(self.empty.clone()),
            OTHER => Some(self.other.clone()),
            // Before it is hashed: a name may be a megabyte long.
            long if long.len() > NAME_BYTES_MAX => None,
            _ => self.names.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned(),
        }
    }

    fn well_formed(&self, name: &str) -> bool {
        name.len() <= NAME_BYTES_MAX
            && name.bytes().all(self.allowed)
            && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
    }

    fn used_enough(&self, name: &str) -> bool {
        if self.names.read().unwrap_or_else(PoisonError::into_inner).len() * 2 < self.names_max {
            return true;
        }
        if self.uses_in_window.fetch_add(1, Ordering::Relaxed) >= WINDOW {
            self.uses_in_window.store(0, Ordering::Relaxed);
            self.uses.reset();
        }
        self.uses.incr(name, 1) >= USES_MIN
    }

    fn admit(&self, name: &str) -> Option<Arc<str>> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if !names.contains(name) && names.len() >= self.names_max {
            return None;
        }
        let name: Arc<str> = Arc::from(name);
        names.insert(name.clone());
        Some(name)
    }

    fn overflowed(&self) -> Arc<str> {
        self.overflow.inc();
        self.other.clone()
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names_max: usize) -> Learned {
        Learned::models(names_max, IntCounter::new("overflow_total", "test").expect("a name"))
    }

    #[test]
    fn a_flood_of_names_neither_grows_the_table_nor_pushes_a_name_out() {
        let models = table(10);
        assert_eq!(&*models.learn("gpt-4"), "gpt-4", "the first use admits while there is room");
        for i in 0..10_000 {
            models.learn(&format!("hostile-{i}"));
        }
        assert_eq!(&*models.learn("gpt-4"), "gpt-4");
        let learnt = models.names.read().expect("lock").len();
        // The sketch hashes with keys of chance, and names that share all its cells count together.
        assert!((5..=7).contains(&learnt), "names used once fill the first half: {learnt} of 10");
        let label = (0..3).map(|_| models.learn("claude-3")).last().expect("three");
        assert_eq!(&*label, "claude-3", "a name in real use still gets in");
        for i in 0..30 {
            (0..3).for_each(|_| drop(models.learn(&format!("busy-{i}"))));
        }
        assert_eq!(models.names.read().expect("lock").len(), 10);
        assert!(models.overflow.get() > 9_000);
    }

    #[test]
    fn only_what_looks_like_a_name_is_learnt() {
        let models = table(10);
        let long = "m".repeat(65);
        for hostile in ["a\"b", "a\nb", "a b", "modèle", "\u{1b}[31m", "-x", "{}", "a\\", &long] {
            assert_eq!(&*models.learn(hostile), OTHER, "{hostile:?}");
        }
        assert_eq!(&*models.learn("meta-llama/Llama-3.1:8b@v2"), "meta-llama/Llama-3.1:8b@v2");
        assert_eq!(&*models.learn(""), "");
        assert_eq!(&*models.known("unheard-of"), OTHER, "nobody vouched for it");
        let overflow = IntCounter::new("overflow_total", "test").expect("a name");
        let deployments = Learned::deployments(10, overflow);
        assert_eq!(&*deployments.learn("../etc"), OTHER);
        assert_eq!(&*deployments.learn("a/b"), OTHER);
        assert_eq!(&*deployments.learn("blue"), "blue");
    }
}
