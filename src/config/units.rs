//! Lengths of time and sizes: how they are typed and shown.

use std::time::Duration;

use super::kind::Refusal;

/// A whole number, of nothing but digits.
pub(super) fn digits(text: &str) -> Option<u64> {
    let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    fine.then(|| text.parse().ok()).flatten()
}

/// The units of time, the longer first, in microseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// A length of time, all units in order.
pub(super) fn time(text: &str, min_ms: u64, max_ms: u64) -> Result<Duration, Refusal> {
    if digits(text).is_some_and(|number| number > 0) {
        return Err(Refusal {
            why: Some("it has no unit".to_owned()),
            nearest: Some(format!("{text}s")),
        });
    }
    let mut rest = if text == "0" { "0s" } else { text };
    let (mut total, mut last_unit) = (0_u64, u64::MAX);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let (Some(number), Some(factor)) = (digits(number), factor) else {
            return Err(Refusal::default());
        };
        if factor >= last_unit {
            return Err(Refusal::because("its units are not in order"));
        }
        let sum = number.checked_mul(factor).and_then(|us| us.checked_add(total));
        (total, last_unit, rest) = (sum.ok_or_else(Refusal::default)?, factor, tail);
    }
    let time = Duration::from_micros(total);
    let fine = !text.is_empty()
        && (Duration::from_millis(min_ms)..=Duration::from_millis(max_ms)).contains(&time);
    if fine { Ok(time) } else { Err(Refusal::default()) }
}

/// The units of size in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

/// A number of bytes.
pub(super) fn bytes(text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let Some(number) = digits(number) else { return Err(Refusal::default()) };
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
        return Err(size_meant(number, unit.trim()));
    };
    let size = number.checked_mul(*factor).filter(|size| (min..=max).contains(size));
    size.ok_or_else(Refusal::default)
}

fn size_meant(number: u64, unit: &str) -> Refusal {
    let first = unit.to_ascii_uppercase();
    match first.get(..1).filter(|first| "KMGT".contains(first) && unit.len() <= 3) {
        Some(first) => Refusal::meant(format!("{number}{first}iB")),
        None => Refusal::default(),
    }
}

/// `time` with the largest unit that leaves no rest.
pub(super) fn show_time(time: Duration) -> String {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS.iter().find(|(_, factor)| us >= *factor && us.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", us / factor))
}

/// `size` with the largest binary unit that leaves no rest.
pub(super) fn show_bytes(size: u64) -> String {
    let unit = SIZE_UNITS.iter().take(4).find(|(_, f)| size >= *f && size.is_multiple_of(*f));
    unit.map_or_else(|| size.to_string(), |(name, factor)| format!("{}{name}", size / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_shows_them_again() {
        let read = |text| time(text, 0, 86_400_000).ok().map(show_time);
        for (text, shown) in
            [("1h30m", "90m"), ("0", "0s"), ("0s", "0s"), ("1500us", "1500us"), ("60s", "1m")]
        {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
        for wrong in ["", "5", "s", "1.5s", "1s1s", "1s1m", "-1s", "1 s", "2d", "99999999999999h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn reads_sizes_and_shows_them_again() {
        let read = |text| bytes(text, 0, u64::MAX).ok().map(show_bytes);
        for (text, shown) in
            [("1MiB", "1MiB"), ("1MB", "1000000"), ("1 KiB", "1KiB"), ("2048", "2KiB"), ("0B", "0")]
        {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
        for wrong in ["", "MiB", "1Mi", "1.5MiB", "-1", "1e3", "99999999999TiB", "+1", "1 x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
