//! When a monitor is due: its calendar walked through its time zone.
//!
//! A time of day that the clock skips in spring is due when the clock has skipped it. One that the clock
//! shows twice in autumn is due the first time, and both times where every hour is due.

use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};

use crate::config::{Calendar, Frequency, Monitor, Recurrence, Schedule, sunday_first};

/// No calendar that can match at all waits longer: 29 February, on a Monday, over 2100.
const DAYS_AHEAD: usize = 366 * 41;
/// What intervals are counted from where nobody said: a Monday.
const EPOCH: Date = date(1970, 1, 5);

/// The first time after `after` that `monitor` is due; `None` where there is none any more.
pub fn next(monitor: &Monitor, after: Timestamp) -> Option<Timestamp> {
    let zone = TimeZone::get(&monitor.time_zone).unwrap_or(TimeZone::UTC);
    match &monitor.schedule {
        Schedule::Cron { calendar, .. } => {
            let days = |date: Date| calendar.matches(date);
            walk(&zone, after, &Times::of(calendar), days)
        }
        Schedule::Recurrence(recurrence) => recurring(recurrence, &zone, after),
    }
}

/// The last time at or before `now`, and after `since`, that `monitor` was due.
pub fn latest(monitor: &Monitor, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    // Looked for from ever further back, so that a monitor that is due every minute is not walked
    // through a year of minutes.
    let mut hours = 1_i64;
    loop {
        let back = now.checked_sub(hours.hours()).ok().filter(|back| *back > since);
        let mut found = next(monitor, back.unwrap_or(since)).filter(|due| *due <= now);
        if found.is_some() || back.is_none() {
            while let Some(later) = found.and_then(|due| next(monitor, due)) {
                if later > now {
                    break;
                }
                found = Some(later);
            }
            return found;
        }
        hours = hours.saturating_mul(4);
    }
}

/// Times of day, sorted.
struct Times {
    times: Vec<(i8, i8)>,
    every_hour: bool,
}

impl Times {
    fn of(calendar: &Calendar) -> Self {
        let minutes = &calendar.minutes;
        let hours = calendar.hours.iter();
        let times = hours.flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)));
        Self { times: times.collect(), every_hour: calendar.hours.len() == 24 }
    }
}

/// The first of these times after `after`, on the days that `days` lets through.
fn walk(
    zone: &TimeZone,
    after: Timestamp,
    times: &Times,
    days: impl Fn(Date) -> bool,
) -> Option<Timestamp> {
    // A day earlier, for a clock that is put back over midnight.
    let mut day = after.to_zoned_datetime(zone.clone()).date().yesterday().ok()?;
    for _ in 0..DAYS_AHEAD {
        if days(day) {
            let of_day = times.times.iter().flat_map(|(hour, minute)| {
                moments(zone, day.at(*hour, *minute, 0, 0), times.every_hour)
            });
            if let Some(first) = of_day.filter(|moment| *moment > after).min() {
                return Some(first);
            }
        }
        day = day.tomorrow().ok()?;
    }
    None
}

/// When the clock shows `time`: twice where it is put back, if `both` are wanted.
fn moments(zone: &TimeZone, time: DateTime, both: bool) -> Vec<Timestamp> {
    let first = zone.to_ambiguous_timestamp(time);
    let second = zone.to_ambiguous_timestamp(time);
    let twice = both && matches!(first.offset(), jiff::tz::AmbiguousOffset::Fold { .. });
    let second = twice.then(|| second.later().ok()).flatten();
    first.compatible().ok().into_iter().chain(second).collect()
}

fn recurring(recurrence: &Recurrence, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let start = recurrence.start.unwrap_or_else(|| EPOCH.at(0, 0, 0, 0));
    let begin = moments(zone, start, false).first().copied()?;
    let after = after.max(begin.checked_sub(1.nanosecond()).ok()?);
    let seconds = match recurrence.frequency {
        Frequency::Minute => 60,
        Frequency::Hour => 3_600,
        Frequency::Day | Frequency::Week | Frequency::Month => {
            let times = times_of(recurrence, start);
            return walk(zone, after, &times, |day| falls_on(recurrence, start.date(), day));
        }
    };
    let every = recurrence.interval.checked_mul(seconds)?;
    let passed = after.as_second().checked_sub(begin.as_second())?.div_euclid(every);
    let due = |n: i64| Timestamp::from_second(begin.as_second() + n.checked_mul(every)?).ok();
    // The begin may have a fraction that `after` has not reached.
    due(passed).filter(|due| *due > after).or_else(|| due(passed + 1))
}

fn times_of(recurrence: &Recurrence, start: DateTime) -> Times {
    let or = |set: &std::collections::BTreeSet<i8>, else_: i8| match set.is_empty() {
        true => vec![else_],
        false => set.iter().copied().collect(),
    };
    let minutes = or(&recurrence.minutes, start.minute());
    let hours = or(&recurrence.hours, start.hour());
    let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)));
    Times { times: times.collect(), every_hour: hours.len() == 24 }
}

/// Whether a recurrence by days, weeks or months falls on `day`, counted from `start`.
fn falls_on(recurrence: &Recurrence, start: Date, day: Date) -> bool {
    let monday = |date: Date| date.checked_sub(i64::from((sunday_first(date) + 6) % 7).days());
    let apart = |from: Date, to: Date| {
        from.until((Unit::Day, to)).map_or(0, |span| i64::from(span.get_days()))
    };
    let of = |set: &std::collections::BTreeSet<i8>, is: i8, started: i8| {
        if set.is_empty() { is == started } else { set.contains(&is) }
    };
    let passed = match recurrence.frequency {
        Frequency::Week => {
            if !of(&recurrence.week_days, sunday_first(day), sunday_first(start)) {
                return false;
            }
            let (Ok(from), Ok(to)) = (monday(start), monday(day)) else { return false };
            apart(from, to) / 7
        }
        Frequency::Month => {
            if !of(&recurrence.month_days, day.day(), start.day()) {
                return false;
            }
            let months = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month());
            months(day) - months(start)
        }
        Frequency::Minute | Frequency::Hour | Frequency::Day => apart(start, day),
    };
    passed.rem_euclid(recurrence.interval) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::tests::monitor_of;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due(yaml: &str, after: &str, n: usize) -> Vec<String> {
        let monitor = monitor_of(yaml);
        let mut at = at(after);
        let mut all = Vec::new();
        for _ in 0..n {
            at = next(&monitor, at).unwrap();
            all.push(at.to_string());
        }
        all
    }

    #[test]
    fn cron_is_due_strictly_after() {
        let daily = "schedule: '15 10 * * *'";
        assert_eq!(
            due(daily, "2026-11-23T10:15:00Z", 2),
            ["2026-11-24T10:15:00Z", "2026-11-25T10:15:00Z"]
        );
        assert_eq!(due(daily, "2026-11-23T10:14:59.999Z", 1), ["2026-11-23T10:15:00Z"]);
        assert_eq!(
            due("schedule: '0 0 29 2 *'", "2026-01-01T00:00:00Z", 1),
            ["2028-02-29T00:00:00Z"]
        );
        assert_eq!(
            due("schedule: '* * * * *'", "2026-11-23T23:59:00Z", 1),
            ["2026-11-24T00:00:00Z"]
        );
    }

    #[test]
    fn the_clock_s_changes_neither_skip_a_run_nor_double_it() {
        let zone = "time_zone: Europe/Berlin, schedule: '30 2 * * *'";
        // 29 March 2026: 2:30 does not exist. 25 October: it exists twice.
        assert_eq!(
            due(zone, "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            due(zone, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        let hourly = "time_zone: Europe/Berlin, schedule: '30 * * * *'";
        assert_eq!(
            due(hourly, "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn recurrences_count_from_their_start() {
        let every = |rest: &str| format!("recurrence: {{{rest}}}");
        assert_eq!(
            due(
                &every("frequency: minute, interval: 90, start: '2026-11-23T10:00:00'"),
                "2026-11-01T00:00:00Z",
                3
            ),
            ["2026-11-23T10:00:00Z", "2026-11-23T11:30:00Z", "2026-11-23T13:00:00Z"]
        );
        assert_eq!(
            due(
                &every("frequency: day, interval: 3, start: '2026-11-23T10:15:00'"),
                "2026-11-23T10:15:00Z",
                2
            ),
            ["2026-11-26T10:15:00Z", "2026-11-29T10:15:00Z"]
        );
        assert_eq!(
            due(
                &every("frequency: day, hours: [18, 6], minutes: [0, 30]"),
                "2026-11-23T06:00:00Z",
                3
            ),
            ["2026-11-23T06:30:00Z", "2026-11-23T18:00:00Z", "2026-11-23T18:30:00Z"]
        );
        assert_eq!(
            due(
                &every(
                    "frequency: week, interval: 2, week_days: [monday, friday], start: '2026-11-23T00:00:00'"
                ),
                "2026-11-23T00:00:00Z",
                3
            ),
            ["2026-11-27T00:00:00Z", "2026-12-07T00:00:00Z", "2026-12-11T00:00:00Z"]
        );
        assert_eq!(
            due(&every("frequency: month, month_days: [31]"), "2026-11-01T00:00:00Z", 2),
            ["2026-12-31T00:00:00Z", "2027-01-31T00:00:00Z"]
        );
    }

    #[test]
    fn the_latest_missed_run_is_found_and_no_other() {
        let daily = monitor_of("schedule: '15 10 * * *'");
        let missed = latest(&daily, at("2026-11-01T10:15:00Z"), at("2026-11-23T10:15:00Z"));
        assert_eq!(missed, Some(at("2026-11-23T10:15:00Z")));
        assert_eq!(latest(&daily, at("2026-11-23T10:15:00Z"), at("2026-11-24T10:14:59Z")), None);
        let minutely = monitor_of("schedule: '* * * * *'");
        let missed = latest(&minutely, at("2025-01-01T00:00:00Z"), at("2026-11-23T10:15:30Z"));
        assert_eq!(missed, Some(at("2026-11-23T10:15:00Z")));
        let yearly = monitor_of("schedule: '0 0 1 1 *'");
        let missed = latest(&yearly, at("2020-01-01T00:00:00Z"), at("2026-11-23T10:15:30Z"));
        assert_eq!(missed, Some(at("2026-01-01T00:00:00Z")));
    }
}
