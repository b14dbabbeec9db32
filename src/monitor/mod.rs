//! Monitors: scores and counts of a window become figures, and figures a decision.
//!
//! The core is pure: `tally` counts what a window held, `signals` makes figures of the counts
//! (`estimate`) and compares them with thresholds (`evidence`). Around it `schedule` tells when a run is
//! due, `reader` counts what lies in the bucket and `indexed` what the store has of it, `book` keeps what is
//! open. `roster` tells which monitors there are: the configured ones, and those that were `saved` since.
//! docs/MONITORS.md tells people what the figures mean.

pub mod azureml;
mod book;
mod estimate;
mod evidence;
mod indexed;
mod plan;
mod reader;
mod roster;
mod run;
mod saved;
pub mod schedule;
mod signals;
mod table;
mod tally;
mod watch;
mod window;

pub use book::{Telling, enter};
pub use estimate::{Class, Estimate, average, share};
pub use indexed::Indexed;
pub use plan::Plan;
pub use reader::{Counted, count};
pub use roster::{Entry, Known, Roster, Unsaved};
pub use run::{Outcome, RunError, Runner};
pub use saved::TEXT_BYTES_MAX;
pub use signals::signals;
pub use table::{Table, figure};
pub use tally::{Chance, Tally};
pub use watch::Watch;
pub use window::{ALARM_AT, Window};

#[cfg(test)]
mod tests;
