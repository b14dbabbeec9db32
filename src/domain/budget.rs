//! One process-wide budget for what capture may hold, so that monitoring never eats the host's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shedding;

/// Bytes that everything captured may hold at once. Cloning shares the same budget.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    bytes_used: AtomicU64,
    shedding: Shedding,
}

impl MemoryBudget {
    /// A budget of `bytes_max` bytes, all free.
    pub fn new(bytes_max: u64) -> Self {
        Self::shed_with(bytes_max, Shedding::default())
    }

    /// The same, which gives nothing out while `shedding` asks for less than all.
    pub fn shed_with(bytes_max: u64, shedding: Shedding) -> Self {
        let inner = Inner { bytes_max, bytes_used: AtomicU64::new(0), shedding };
        Self { inner: Arc::new(inner) }
    }

    /// An empty reservation to grow as bytes arrive.
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// Bytes reserved now.
    pub fn bytes_used(&self) -> u64 {
        self.inner.bytes_used.load(Ordering::Relaxed)
    }

    /// The limit that the budget was made with, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.inner.bytes_max
    }

    /// How much is looked at: with less than all, nothing more of this budget is given out, so that
    /// bodies under way stop being recorded too.
    pub fn shedding(&self) -> &Shedding {
        &self.inner.shedding
    }

    fn try_take(&self, bytes: u64) -> bool {
        if !self.inner.shedding.is_full() {
            return false;
        }
        let before = self.inner.bytes_used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.inner.bytes_max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: u64) {
        self.inner.bytes_used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A share of a [`MemoryBudget`]; what it holds is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Reservation {
    /// Takes `bytes` more; false, and nothing taken, when the budget would be exceeded or bodies are
    /// not looked at for now.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let granted = self.budget.try_take(bytes);
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    /// Bytes held by this reservation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CaptureLevel, ShedCause};

    #[test]
    fn a_reservation_gives_back_what_it_took() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.reservation();
        assert!(first.try_grow(60));
        let mut second = budget.reservation();
        assert!(!second.try_grow(41), "over the limit is refused");
        assert_eq!(budget.bytes_used(), 60, "a refusal takes nothing");
        assert!(second.try_grow(40));
        drop(first);
        assert_eq!((budget.bytes_used(), second.bytes()), (40, 40));
    }

    #[test]
    fn nothing_is_given_out_while_bodies_are_not_looked_at() {
        let budget = MemoryBudget::new(100);
        let mut held = budget.reservation();
        assert!(held.try_grow(10));
        budget.shedding().ask(ShedCause::Overhead, CaptureLevel::Headers);
        assert!(!held.try_grow(10), "nor to who has some");
        assert_eq!(budget.bytes_used(), 10);
        budget.shedding().ask(ShedCause::Overhead, CaptureLevel::Full);
        assert!(held.try_grow(10));
    }
}
