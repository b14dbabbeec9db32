//! How much of the traffic is looked at: full, or less where looking would cost the host too much.
//!
//! Whoever watches a cost (memory, time) asks for a level; the least that anyone asks for holds. Nobody
//! has to know of another, and a request reads one byte for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use super::DropReason;
use super::outcome::labelled;

labelled! {
    /// How much of an exchange is looked at, from all to nothing. The traffic is the same at each.
    CaptureLevel {
        /// Heads and bodies.
        Full = "full",
        /// No bodies: records have no texts, and tokens are not known.
        Headers = "headers",
        /// No record: a request is counted and timed, and accounted for as dropped.
        Metrics = "metrics",
        /// Nothing: that it passed is accounted for, as dropped.
        Off = "off",
    }
}

labelled! {
    /// Why less than all is looked at.
    ShedCause {
        /// The process comes near the memory it may take.
        Memory = "memory",
        /// Looking takes too much time beside the traffic.
        Overhead = "overhead",
    }
}

impl ShedCause {
    /// The reason in the books of an exchange that is not recorded.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::Memory => DropReason::Memory,
            Self::Overhead => DropReason::Overhead,
        }
    }
}

/// What each cause asks for now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shedding {
    asked: Arc<[AtomicU8; ShedCause::ALL.len()]>,
}

/// Less than all of an exchange is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// What is left: never [`CaptureLevel::Full`].
    pub level: CaptureLevel,
    /// Who asked for it.
    pub cause: ShedCause,
}

impl Shedding {
    /// From now on `cause` asks for `level`; gives back what it asked for before.
    pub fn ask(&self, cause: ShedCause, level: CaptureLevel) -> CaptureLevel {
        member(self.asked[cause as usize].swap(level as u8, Ordering::Relaxed))
    }

    /// What holds now; `None` where everything is looked at.
    pub fn now(&self) -> Option<Shed> {
        let asked = |cause: &ShedCause| self.asked[*cause as usize].load(Ordering::Relaxed);
        let (level, cause) = ShedCause::ALL.iter().map(|cause| (asked(cause), *cause)).max()?;
        (level > 0).then(|| Shed { level: member(level), cause })
    }

    /// True where bodies are looked at.
    pub fn is_full(&self) -> bool {
        self.asked.iter().all(|level| level.load(Ordering::Relaxed) == CaptureLevel::Full as u8)
    }
}

fn member(level: u8) -> CaptureLevel {
    CaptureLevel::ALL.get(usize::from(level)).copied().unwrap_or(CaptureLevel::Off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_anyone_asks_for_holds() {
        let shedding = Shedding::default();
        assert_eq!((shedding.now(), shedding.is_full()), (None, true));
        assert_eq!(shedding.ask(ShedCause::Memory, CaptureLevel::Metrics), CaptureLevel::Full);
        shedding.clone().ask(ShedCause::Overhead, CaptureLevel::Headers);
        let now = |level, cause| Some(Shed { level, cause });
        assert_eq!(shedding.now(), now(CaptureLevel::Metrics, ShedCause::Memory));
        assert_eq!(shedding.ask(ShedCause::Memory, CaptureLevel::Full), CaptureLevel::Metrics);
        assert_eq!(shedding.now(), now(CaptureLevel::Headers, ShedCause::Overhead));
        shedding.ask(ShedCause::Overhead, CaptureLevel::Full);
        assert!(shedding.now().is_none() && shedding.is_full());
    }
}
