//! The exchanges of the last while, by the names that a user's feedback may call them.
//!
//! Feedback comes minutes after the answer that it is about, in a request of its own. It is joined to
//! the only exchange of its name at its tap; where several bear the name, the one with the same caller's
//! span. Where that leaves several, nobody can tell, and none is chosen.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Key;
use super::aged::Aged;
use crate::config;
use crate::domain::{ExchangeId, Fields, ScoreError, SpanId};

/// Exchanges remembered under one name.
const PER_NAME_MAX: usize = 16;
/// The headers in which callers name a request.
const NAMING_HEADERS: [&str; 2] = ["x-request-id", "x-ms-client-request-id"];

/// An exchange that feedback may be about.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its id.
    pub id: ExchangeId,
    /// When it began.
    pub time: Timestamp,
    /// Its tap.
    pub tap: Arc<str>,
    /// Its deployment.
    pub deployment: Arc<str>,
    /// The caller's span, where the caller sent one.
    pub parent_span_id: Option<SpanId>,
}

/// What a feedback says of the exchange that it is about.
#[derive(Clone, Debug)]
pub struct About {
    /// The names that it may have, the best first.
    pub keys: Vec<Key>,
    /// The tap that the feedback came through.
    pub tap: Arc<str>,
    /// When the feedback came.
    pub time: Timestamp,
    /// The caller's span that the feedback names.
    pub parent_span_id: Option<SpanId>,
}

/// Recent exchanges by name: bounded by number and by time.
#[derive(Debug)]
pub struct Recent {
    within: Duration,
    names_max: usize,
    seen: Aged<VecDeque<Seen>>,
}

impl Recent {
    /// Remembers nothing yet.
    pub fn new(settings: &config::Feedback) -> Self {
        // By its own name and by its trace.
        let names_max = settings.requests_max.saturating_mul(2);
        Self { within: settings.within, names_max, seen: Aged::default() }
    }

    /// Remembers an exchange under `keys`.
    pub fn remember(&mut self, keys: &[Key], exchange: &Seen, now: Instant) {
        for key in keys {
            // A name is as young as its last use.
            let mut named = self.seen.remove(key).unwrap_or_default();
            named.push_back(exchange.clone());
            if named.len() > PER_NAME_MAX {
                named.pop_front();
            }
            *self.seen.entry(key, now) = named;
        }
        while self.seen.len() > self.names_max {
            self.seen.pop_oldest();
        }
    }

    /// The exchange that a feedback is about, by the first of its names that is remembered.
    pub fn find(&self, about: &About) -> Result<&Seen, ScoreError> {
        let named = |key: &Key| {
            let named = self.seen.get(key).into_iter().flatten();
            named.filter(|seen| seen.tap == about.tap && seen.time < about.time).collect::<Vec<_>>()
        };
        let found = about.keys.iter().map(named).find(|found| !found.is_empty());
        match found.as_deref() {
            None => Err(ScoreError::UnknownExchange),
            Some([one]) => Ok(one),
            Some(several) => only_of_span(several, about).ok_or(ScoreError::Ambiguous),
        }
    }

    /// Lets go of what is too old for feedback.
    pub fn expire(&mut self, now: Instant) {
        let limit = now.checked_sub(self.within);
        while self.seen.oldest().is_some_and(|since| Some(since) < limit) {
            self.seen.pop_oldest();
        }
    }
}

/// The names that `headers` give a request.
pub fn header_names(headers: &Fields) -> Vec<Key> {
    let values = NAMING_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    let mut names: Vec<Key> = values.filter_map(Key::request).collect();
    names.dedup();
    names
}

fn only_of_span<'a>(several: &[&'a Seen], about: &About) -> Option<&'a Seen> {
    let span = about.parent_span_id?;
    let mut of_span = several.iter().filter(|seen| seen.parent_span_id == Some(span));
    of_span.next().filter(|_| of_span.next().is_none()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RatingScale;

    fn recent(requests_max: usize) -> Recent {
        let within = Duration::from_secs(60);
        let scale = RatingScale::OneToFive;
        Recent::new(&config::Feedback { rating: None, scale, within, requests_max })
    }

    fn time(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("a time")
    }

    fn name(text: &str) -> Key {
        Key::request(text).expect("a name")
    }

    fn seen(ms: i64, span: Option<&str>) -> Seen {
        let parent_span_id = span.and_then(SpanId::parse);
        let (tap, deployment) = (Arc::from("chat"), Arc::from("blue"));
        Seen { id: ExchangeId::new(time(ms)), time: time(ms), tap, deployment, parent_span_id }
    }

    fn about(keys: &[&str], span: Option<&str>) -> About {
        About {
            keys: keys.iter().map(|key| name(key)).collect(),
            tap: Arc::from("chat"),
            time: time(1000),
            parent_span_id: span.and_then(SpanId::parse),
        }
    }

    #[test]
    fn feedback_finds_its_exchange_by_the_first_name_that_is_known() {
        let (mut recent, now) = (recent(10), Instant::now());
        let (a, b) = (seen(1, None), seen(2, None));
        recent.remember(&[name("a"), name("trace-a")], &a, now);
        recent.remember(&[name("b")], &b, now);
        assert_eq!(recent.find(&about(&["own", "trace-a"], None)), Ok(&a));
        assert_eq!(recent.find(&about(&["b", "a"], None)), Ok(&b));
        assert_eq!(recent.find(&about(&["own"], None)), Err(ScoreError::UnknownExchange));
        assert_eq!(recent.find(&about(&[], None)), Err(ScoreError::UnknownExchange));
        let elsewhere = About { tap: Arc::from("other"), ..about(&["a"], None) };
        assert_eq!(recent.find(&elsewhere), Err(ScoreError::UnknownExchange));
        let before = About { time: time(1), ..about(&["a"], None) };
        assert_eq!(recent.find(&before), Err(ScoreError::UnknownExchange), "not of its future");
    }

    #[test]
    fn of_several_of_one_name_only_the_span_can_tell() {
        let (mut recent, now) = (recent(10), Instant::now());
        let (one, two) = ("00f067aa0ba902b7", "00f067aa0ba902b8");
        for (at, span) in [(1, Some(one)), (2, Some(two)), (3, None)] {
            recent.remember(&[name("t")], &seen(at, span), now);
        }
        assert_eq!(recent.find(&about(&["t"], None)), Err(ScoreError::Ambiguous));
        let found = recent.find(&about(&["t"], Some(two))).map(|seen| seen.time);
        assert_eq!(found, Ok(time(2)));
        recent.remember(&[name("t")], &seen(4, Some(two)), now);
        assert_eq!(recent.find(&about(&["t"], Some(two))), Err(ScoreError::Ambiguous));
    }

    #[test]
    fn what_is_remembered_is_bounded_by_number_and_by_time() {
        let (mut recent, now) = (recent(50), Instant::now());
        for at in 0..1000 {
            recent.remember(&[name(&format!("r{at}"))], &seen(at, None), now);
            recent.remember(&[name("same")], &seen(at, None), now);
        }
        assert_eq!(recent.seen.len(), 100);
        assert!(recent.find(&about(&["r999"], None)).is_ok());
        assert!(recent.find(&about(&["r1"], None)).is_err());
        let later = now + Duration::from_secs(61);
        recent.remember(&[name("young")], &seen(1, None), later);
        recent.expire(later);
        assert_eq!(recent.seen.len(), 1);
        let mut none = self::recent(0);
        none.remember(&[name("a")], &seen(1, None), now);
        assert_eq!(none.seen.len(), 0);
    }
}
