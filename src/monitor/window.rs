//! The window of a run, the steps that violations are counted by, and where the evidence begins.

use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};

use crate::config::Monitor;

/// A window of length `W` is looked at from the newest multiple of `W / 7` that is not before it.
/// Within any time of length `W` there are eight such beginnings at most.
const ANCHORS: i64 = 7;

/// The probability of a false alarm at one threshold within any time as long as the window.
const FALSE_ALARMS: f64 = 0.01;

/// Evidence of this size is an alarm: the eight beginnings share the probability (Bonferroni).
pub const ALARM_AT: f64 = (ANCHORS + 1) as f64 / FALSE_ALARMS;

/// From when to when, in steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
    /// Where the evidence begins.
    pub anchor: Timestamp,
    /// The first moments of all steps, the earliest first; never empty.
    starts: Vec<Timestamp>,
}

impl Window {
    /// The window of a run of `monitor` that is due at `due`. Days and months are those of its time
    /// zone. `None` where the calendar ends.
    pub fn of(monitor: &Monitor, due: Timestamp) -> Option<Self> {
        let zone = TimeZone::get(&monitor.time_zone).unwrap_or(TimeZone::UTC);
        let end = due.to_zoned_datetime(zone).checked_sub(monitor.offset).ok()?;
        let from = end.checked_sub(monitor.window).ok()?.timestamp();
        let mut starts = Vec::new();
        let mut steps = 1;
        loop {
            let back = monitor.step.checked_mul(steps).ok()?;
            let start = end.checked_sub(back).ok()?.timestamp();
            starts.push(start.max(from));
            if start <= from || start >= end.timestamp() {
                break;
            }
            steps += 1;
        }
        starts.reverse();
        Some(Self { from, to: end.timestamp(), anchor: anchor(from, monitor.window)?, starts })
    }

    /// The first moments of all steps.
    pub fn starts(&self) -> &[Timestamp] {
        &self.starts
    }

    /// Whether `time` lies in it.
    pub fn holds(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.to
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.starts.len()
    }

    /// Pieces that lie in one step each, and on one side of the anchor: first moment, first moment
    /// after it.
    pub fn pieces(&self) -> Vec<(Timestamp, Timestamp)> {
        let mut bounds: Vec<_> =
            self.starts.iter().copied().chain([self.anchor, self.to]).collect();
        bounds.retain(|bound| *bound <= self.to);
        bounds.sort_unstable();
        bounds.dedup();
        bounds.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect()
    }

    /// The step of a time that the window holds.
    pub fn step(&self, time: Timestamp) -> usize {
        self.starts.partition_point(|start| *start <= time).saturating_sub(1)
    }
}

/// The first multiple of a seventh of the window that is not before `from`. It goes by the window's
/// nominal length, so that a day of 23 hours does not move it.
fn anchor(from: Timestamp, window: Span) -> Option<Timestamp> {
    let nominal = window.total((Unit::Second, date(2026, 1, 1))).ok()? as i64;
    let grid = (nominal / ANCHORS).max(1);
    // A time with a fraction of a second lies after its whole second.
    let whole = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
    Timestamp::from_second(whole + (-whole).rem_euclid(grid)).ok()
}
