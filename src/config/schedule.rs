//! When something is due: five cron fields, or a recurrence of so many minutes, hours, days, weeks
//! or months. Both end as sets of what matches; `monitor::schedule` walks them through a time zone.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday};

use super::kind::Refusal;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Five fields: minute, hour, day of the month, month, day of the week.
    Cron {
        /// As typed.
        text: String,
        /// What they match.
        calendar: Calendar,
    },
    /// Every so many units.
    Recurrence(Recurrence),
}

/// What the fields of a date and a time of day match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// 0 to 59.
    pub minutes: BTreeSet<i8>,
    /// 0 to 23.
    pub hours: BTreeSet<i8>,
    /// 1 to 31; `None` is any.
    pub days: Option<BTreeSet<i8>>,
    /// 1 to 12.
    pub months: BTreeSet<i8>,
    /// From Sunday, 0, to Saturday, 6; `None` is any.
    pub week_days: Option<BTreeSet<i8>>,
}

/// Every so many units, at these times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrence {
    /// The unit.
    pub frequency: Frequency,
    /// How many units; 1 or more.
    pub interval: i64,
    /// 0 to 23, of days, weeks and months.
    pub hours: BTreeSet<i8>,
    /// 0 to 59, of days, weeks and months.
    pub minutes: BTreeSet<i8>,
    /// From Sunday, 0, to Saturday, 6, of weeks.
    pub week_days: BTreeSet<i8>,
    /// 1 to 31, of months.
    pub month_days: BTreeSet<i8>,
    /// What intervals are counted from; nothing is due before it.
    pub start: Option<DateTime>,
}

/// The unit of a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequency {
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days.
    Day,
    /// Weeks, which begin on Monday.
    Week,
    /// Months.
    Month,
}

/// The units with their names.
pub(super) const FREQUENCIES: &[(&str, Frequency)] = &[
    ("minute", Frequency::Minute),
    ("hour", Frequency::Hour),
    ("day", Frequency::Day),
    ("week", Frequency::Week),
    ("month", Frequency::Month),
];

/// The days of the week, Sunday first.
pub(super) const WEEK_DAYS: &[&str] =
    &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

impl Calendar {
    /// Whether a date matches. As in cron, where both days are limited, one of them is enough.
    pub fn matches(&self, date: Date) -> bool {
        let day = self.days.as_ref().map(|days| days.contains(&date.day()));
        let week_day = self.week_days.as_ref().map(|days| days.contains(&sunday_first(date)));
        let either = match (day, week_day) {
            (Some(day), Some(week_day)) => day || week_day,
            (day, week_day) => day.or(week_day).unwrap_or(true),
        };
        either && self.months.contains(&date.month())
    }
}

/// The day of the week, Sunday being 0.
pub fn sunday_first(date: Date) -> i8 {
    match date.weekday() {
        Weekday::Sunday => 0,
        Weekday::Monday => 1,
        Weekday::Tuesday => 2,
        Weekday::Wednesday => 3,
        Weekday::Thursday => 4,
        Weekday::Friday => 5,
        Weekday::Saturday => 6,
    }
}

/// Reads five cron fields: numbers, names of months and days, `*`, ranges, steps and lists.
pub(super) fn cron(text: &str) -> Result<Calendar, Refusal> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, week_day] = *fields.as_slice() else {
        let why = format!("it has {} fields instead of five", fields.len());
        return Err(Refusal::because(why));
    };
    let week: BTreeSet<i8> = field("day of the week", week_day, 0, 7, week_names())?
        .into_iter()
        .map(|d| d % 7)
        .collect();
    let calendar = Calendar {
        minutes: field("minute", minute, 0, 59, &[])?,
        hours: field("hour", hour, 0, 23, &[])?,
        days: limited(day, field("day of the month", day, 1, 31, &[])?),
        months: field("month", month, 1, 12, MONTHS)?,
        week_days: limited(week_day, week),
    };
    match ever(&calendar) {
        true => Ok(calendar),
        false => Err(Refusal::because("no month has such a day")),
    }
}

/// As in cron, a field that begins with `*` limits nothing for the choice between the two days.
fn limited(text: &str, set: BTreeSet<i8>) -> Option<BTreeSet<i8>> {
    (!matches!(text, "*" | "*/1")).then_some(set)
}

/// Whether any date of a leap year's cycle matches.
fn ever(calendar: &Calendar) -> bool {
    let longest = |month: i8| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let Some(days) = calendar.days.as_ref().filter(|_| calendar.week_days.is_none()) else {
        return true;
    };
    calendar.months.iter().any(|month| days.iter().any(|day| *day <= longest(*month)))
}

fn week_names() -> &'static [&'static str] {
    const NAMES: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    NAMES
}

/// One field: a list of `*`, `n` or `n-m`, each with a `/step` behind it at most.
fn field(
    what: &str,
    text: &str,
    min: i8,
    max: i8,
    names: &[&str],
) -> Result<BTreeSet<i8>, Refusal> {
    let wrong = |part: &str| {
        Refusal::because(format!(
            "the {what} `{part}` is none of {min} to {max}, `*`, `n-m`, `*/n`"
        ))
    };
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let number = |text: &str| named(text, min, names).filter(|n| (min..=max).contains(n));
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => Some((min, max)),
            (_, Some((first, last))) => number(first).zip(number(last)),
            // `5/15` goes on to the end, as Vixie's cron has it.
            _ => number(range).map(|n| (n, if step.is_some() { max } else { n })),
        }
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| wrong(part))?;
        let step = match step {
            None => 1,
            Some(step) => digits(step).filter(|step| *step > 0).ok_or_else(|| wrong(part))?,
        };
        set.extend((first..=last).step_by(step));
    }
    Ok(set)
}

fn digits(text: &str) -> Option<usize> {
    let fine = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fine.then(|| text.parse().ok()).flatten()
}

fn named(text: &str, min: i8, names: &[&str]) -> Option<i8> {
    let lower = text.to_ascii_lowercase();
    let name = names.iter().position(|name| *name == lower).and_then(|at| i8::try_from(at).ok());
    name.map(|at| at + min).or_else(|| digits(text).and_then(|n| i8::try_from(n).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(of: &[i8]) -> BTreeSet<i8> {
        of.iter().copied().collect()
    }

    #[test]
    fn reads_the_fields_of_cron() {
        let daily = cron("15 10 * * *").unwrap();
        assert_eq!((daily.minutes, daily.hours), (set(&[15]), set(&[10])));
        assert_eq!((daily.days, daily.week_days, daily.months.len()), (None, None, 12));
        let often = cron("*/20,5 9-17/4 1,15 JAN-mar mon-5,7").unwrap();
        assert_eq!(often.minutes, set(&[0, 5, 20, 40]));
        assert_eq!(often.hours, set(&[9, 13, 17]));
        assert_eq!(often.days, Some(set(&[1, 15])));
        assert_eq!(often.months, set(&[1, 2, 3]));
        assert_eq!(often.week_days, Some(set(&[0, 1, 2, 3, 4, 5])));
        assert_eq!(cron("50/4 0 * * *").unwrap().minutes, set(&[50, 54, 58]));
    }

    #[test]
    fn refuses_what_is_no_cron_and_says_which_field() {
        for (text, why) in [
            ("15 10 * *", "it has 4 fields instead of five"),
            ("60 10 * * *", "the minute `60` is none of 0 to 59"),
            ("* 24 * * *", "the hour `24`"),
            ("* * 0 * *", "the day of the month `0`"),
            ("* * * foo *", "the month `foo`"),
            ("* * * * 8", "the day of the week `8`"),
            ("5-1 * * * *", "the minute `5-1`"),
            ("*/0 * * * *", "the minute `*/0`"),
            (", * * * *", "the minute ``"),
            ("+1 * * * *", "the minute `+1`"),
            ("0 0 31 2 *", "no month has such a day"),
        ] {
            let said = cron(text).unwrap_err().why.unwrap();
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }

    #[test]
    fn where_both_days_are_limited_one_is_enough() {
        let calendar = cron("0 0 13 * fri").unwrap();
        let on = |day: i8| calendar.matches(jiff::civil::date(2026, 11, day));
        assert!(on(13) && on(20) && on(27) && !on(14), "the 13th is a Friday here");
        assert!(calendar.matches(jiff::civil::date(2026, 12, 13)), "a Sunday, but the 13th");
    }
}
