//! What the ledger's rows are named by: an hour of UTC, and one run of the process.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::ExchangeId;

/// One hour of UTC, counted from the Unix epoch: the unit in which losses are accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hour(i64);

impl Hour {
    /// The hour that `at` lies in.
    pub fn of(at: Timestamp) -> Self {
        Self(at.as_second().div_euclid(3600))
    }

    /// The hour's first moment.
    pub fn start(self) -> Timestamp {
        Timestamp::from_second(self.0.saturating_mul(3600)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The first moment after it.
    pub fn end(self) -> Timestamp {
        Self(self.0.saturating_add(1)).start()
    }

    /// `date=2026-11-23/hour=22`: the hour's folders, in Hive's form.
    pub fn partition(self) -> String {
        self.start().strftime("date=%Y-%m-%d/hour=%H").to_string()
    }

    /// The hour of a name that holds `date=…/hour=…`; `None` where it holds none.
    pub fn in_name(name: &str) -> Option<Self> {
        let value = |key: &str| name.split('/').find_map(|part| part.strip_prefix(key));
        let text = format!("{}T{}:00:00Z", value("date=")?, value("hour=")?);
        text.parse().ok().map(Self::of)
    }
}

/// One run of the process: 48 bits of Unix milliseconds and 16 random bits, shown as 16 hex digits.
/// Sorts by start, so that the segments of two runs in one folder have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// A fresh incarnation for a process started at `now`, later than `last` even where the clock
    /// was set back.
    pub fn new(now: Timestamp, last: Option<Self>) -> Self {
        let uuid = ExchangeId::new(now).as_uuid();
        let hex: String = uuid.chars().filter(|c| *c != '-').take(16).collect();
        let fresh = Self::parse(&hex).unwrap_or(Self(0));
        match last {
            Some(last) if last >= fresh => Self(last.0.saturating_add(1)),
            _ => fresh,
        }
    }

    /// When the run began, to the millisecond.
    pub fn started(self) -> Timestamp {
        let millis = i64::try_from(self.0 >> 16).unwrap_or(0);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Reads 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = (text.len() == 16 && lower).then(|| u64::from_str_radix(text, 16).ok());
        value.flatten().map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an incarnation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_names_its_folders_and_is_read_back() {
        let at: Timestamp = "2026-11-23T22:47:50.123456Z".parse().expect("a time");
        let hour = Hour::of(at);
        assert_eq!(hour.partition(), "date=2026-11-23/hour=22");
        let name = format!("exchanges/deployment=blue/{}/pod-1.jsonl.gz", hour.partition());
        assert_eq!(Hour::in_name(&name), Some(hour));
        assert_eq!(Hour::in_name("exchanges/date=x/hour=1/y"), None);
        assert_eq!(hour.start().to_string(), "2026-11-23T22:00:00Z");
    }

    #[test]
    fn incarnations_sort_by_start_and_never_go_back() {
        let at = |ms| Timestamp::from_millisecond(ms).expect("a time");
        let first = Incarnation::new(at(1_700_000_000_000), None);
        let second = Incarnation::new(at(1_700_000_000_001), Some(first));
        assert_eq!(second.started(), at(1_700_000_000_001));
        assert!(second > first);
        let set_back = Incarnation::new(at(1_600_000_000_000), Some(second));
        assert!(set_back > second);
        assert_eq!(Incarnation::parse(&second.to_string()), Some(second));
        assert_eq!(Incarnation::parse("not sixteen hex."), None);
    }
}
