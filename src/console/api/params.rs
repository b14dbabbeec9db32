//! The parameters: one table for reading them, for telling what is wrong, and for the description.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::domain::{Criterion, ExchangeId, Outcome};
use crate::store::{Axis, Filter, Window};

/// The longest window, in days: charts of a day's step have no more points.
const WINDOW_DAYS_MAX: i64 = 2000;
/// The most spans that a window is divided into.
const SPANS_MAX: i64 = 2000;
/// The spans that a window is divided into where no step is given, at most.
const SPANS_USUAL: i64 = 120;
/// The longest text, in characters.
const TEXT_CHARS_MAX: usize = 256;

/// One parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
}

/// What a parameter takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A time.
    Time,
    /// Any text up to a length.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number: least, most.
    Whole(u64, u64),
    /// A score, or two with a hyphen between them.
    Scores,
    /// What an earlier answer gave.
    Cursor,
    /// A sample's id, in the path.
    Id,
    /// Any text, in the path.
    Name,
}

macro_rules! parameter {
    ($ident:ident, $name:literal, $kind:expr, $about:literal) => {
        pub(super) static $ident: Parameter = Parameter { name: $name, kind: $kind, about: $about };
    };
}

/// The steps, with their seconds.
const STEPS: [(&str, i64); 6] =
    [("1m", 60), ("5m", 300), ("15m", 900), ("1h", 3600), ("6h", 21_600), ("1d", 86_400)];
const STEP_NAMES: &[&str] = &["1m", "5m", "15m", "1h", "6h", "1d"];
const OUTCOMES: &[&str] = &[
    "ok",
    "empty",
    "client_error",
    "upstream_error",
    "connect_error",
    "timeout",
    "client_abort",
    "upstream_abort",
];
const CRITERIA: &[&str] =
    &["groundedness", "relevance", "coherence", "fluency", "similarity", "user_feedback"];
const AXES: &[&str] = &["tap", "deployment", "model", "operation", "outcome"];

parameter!(
    FROM,
    "from",
    Kind::Time,
    "The window's first moment; a day before `to` where it is missing."
);
parameter!(TO, "to", Kind::Time, "The first moment after the window; now where it is missing.");
parameter!(TAP, "tap", Kind::Text, "Only this tap.");
parameter!(DEPLOYMENT, "deployment", Kind::Text, "Only this deployment.");
parameter!(MODEL, "model", Kind::Text, "Only this model.");
parameter!(OUTCOME, "outcome", Kind::Choice(OUTCOMES), "Only exchanges that ended so.");
parameter!(
    STEP,
    "step",
    Kind::Choice(STEP_NAMES),
    "The length of the series' spans; by the window's length where it is missing."
);
parameter!(BY, "by", Kind::Choice(AXES), "Tells figures apart by this.");
parameter!(CRITERION, "criterion", Kind::Choice(CRITERIA), "Only this criterion.");
parameter!(
    YARDSTICK,
    "criterion",
    Kind::Text,
    "Only this criterion: a judged one, a computed one, or the name of a custom one."
);
parameter!(
    PASS_SCORE,
    "pass_score",
    Kind::Whole(1, 5),
    "The lowest score that passes; 3 where it is missing."
);
parameter!(
    Q,
    "q",
    Kind::Text,
    "Words that question or answer hold, all of them; words in double quotes stand together, a word that ends with `*` may go on."
);
parameter!(
    SCORE,
    "score",
    Kind::Scores,
    "The sample's score by `criterion`, else its lowest score: `1` to `5`, or a range such as `1-2`."
);
parameter!(
    SORT,
    "sort",
    Kind::Choice(&["time", "latency", "tokens", "score"]),
    "By what samples are sorted; by time where it is missing. By score leaves out those without one."
);
parameter!(
    ORDER,
    "order",
    Kind::Choice(&["asc", "desc"]),
    "Which end comes first; the largest where it is missing, but the lowest score."
);
parameter!(LIMIT, "limit", Kind::Whole(1, 500), "How many, at most; 50 where it is missing.");
parameter!(
    EXPORTED,
    "limit",
    Kind::Whole(1, 1_000_000),
    "How many, at most; 100000 where it is missing."
);
parameter!(
    CURSOR,
    "cursor",
    Kind::Cursor,
    "The page after an answer: its `next`, with the other parameters as they were."
);
parameter!(MONITOR, "monitor", Kind::Text, "Only this monitor.");
parameter!(STATE, "state", Kind::Choice(&["open", "resolved"]), "Only alerts in this state.");
parameter!(ID, "id", Kind::Id, "The sample's id.");
parameter!(RUN, "id", Kind::Name, "The run's id.");

/// What was asked, checked against the route's parameters.
#[derive(Debug)]
pub(super) struct Params {
    given: Vec<(&'static str, String)>,
    now: Timestamp,
}

impl Params {
    /// Reads a query, and what stands in the path, at `now`.
    pub(super) fn read(
        query: &str,
        path: Option<(&'static str, String)>,
        parameters: &[&'static Parameter],
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let known = parameters.iter().find(|known| known.name == name && !known.in_path());
            let Some(known) = known else {
                let names: Vec<_> =
                    parameters.iter().filter(|p| !p.in_path()).map(|p| p.name).collect();
                return Err(Problem::parameter(&name, &value, one_of(&names, "no parameter")));
            };
            if given.iter().any(|(name, _)| *name == known.name) {
                return Err(Problem::parameter(&name, &value, "one value: it is given twice"));
            }
            given.push((known.name, value.into_owned()));
        }
        given.extend(path);
        for parameter in parameters {
            let value = given.iter().find(|(name, _)| *name == parameter.name);
            if let Some((name, value)) = value.filter(|(_, value)| !parameter.kind.allows(value)) {
                return Err(Problem::parameter(name, value, parameter.kind.allowed()));
            }
        }
        Ok(Self { given, now })
    }

    /// What was given, if anything.
    pub(super) fn text(&self, parameter: &Parameter) -> Option<&str> {
        let given = self.given.iter().find(|(name, _)| *name == parameter.name);
        given.map(|(_, value)| value.as_str())
    }

    /// A whole number, or `default`.
    pub(super) fn whole(&self, parameter: &Parameter, default: u64) -> u64 {
        self.text(parameter).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// `from` and `to`.
    pub(super) fn window(&self) -> Result<Window, Problem> {
        let time = |parameter| self.text(parameter).and_then(|text| text.parse::<Timestamp>().ok());
        let to = time(&TO).unwrap_or(self.now);
        let day = SignedDuration::from_hours(24);
        let from = time(&FROM).unwrap_or_else(|| to.checked_sub(day).unwrap_or(Timestamp::MIN));
        let wrong = |allowed: String| {
            let name = if self.text(&FROM).is_some() { "from" } else { "to" };
            Problem::parameter(name, &from.to_string(), allowed)
        };
        if from >= to {
            return Err(wrong(format!("a time before `to`, which is {to}")));
        }
        if to.duration_since(from) > SignedDuration::from_hours(24 * WINDOW_DAYS_MAX) {
            return Err(wrong(format!("a window of at most {WINDOW_DAYS_MAX} days")));
        }
        Ok(Window { from, to })
    }

    /// The labels asked about.
    pub(super) fn filter(&self) -> Filter {
        let text = |parameter| self.text(parameter).map(str::to_owned);
        let outcome = self.text(&OUTCOME);
        let outcome = Outcome::ALL.iter().find(|known| Some(known.label()) == outcome).copied();
        Filter { tap: text(&TAP), deployment: text(&DEPLOYMENT), model: text(&MODEL), outcome }
    }

    /// What figures are told apart by.
    pub(super) fn axis(&self) -> Option<Axis> {
        let axes = [Axis::Tap, Axis::Deployment, Axis::Model, Axis::Operation, Axis::Outcome];
        let name = self.text(&BY)?;
        AXES.iter().zip(axes).find(|(known, _)| **known == name).map(|(_, axis)| axis)
    }

    /// The criterion asked about.
    pub(super) fn criterion(&self) -> Option<Criterion> {
        let name = self.text(&CRITERION)?;
        Criterion::RATED.iter().find(|known| known.label() == name).copied()
    }

    /// The lowest and the highest score asked for.
    pub(super) fn scores(&self) -> Option<(u8, u8)> {
        self.text(&SCORE).and_then(scores)
    }

    /// The id in the path.
    pub(super) fn id(&self) -> Result<ExchangeId, Problem> {
        let text = self.text(&ID).unwrap_or_default();
        ExchangeId::parse(text).ok_or_else(|| Problem::parameter("id", text, Kind::Id.allowed()))
    }

    /// Seconds of a series' step.
    pub(super) fn step(&self, window: Window) -> Result<i64, Problem> {
        let seconds = window.to.duration_since(window.from).as_secs();
        let fits = |step: i64, spans: i64| seconds / step <= spans;
        if let Some(name) = self.text(&STEP) {
            let step = STEPS.iter().find(|(known, _)| *known == name).map_or(86_400, |(_, s)| *s);
            let allowed = format!("a step of which the window has at most {SPANS_MAX}");
            let problem = || Problem::parameter("step", name, allowed);
            return fits(step, SPANS_MAX).then_some(step).ok_or_else(problem);
        }
        let usual = STEPS.iter().map(|(_, step)| *step).find(|step| fits(*step, SPANS_USUAL));
        Ok(usual.unwrap_or(86_400))
    }
}

impl Parameter {
    pub(super) fn in_path(&self) -> bool {
        matches!(self.kind, Kind::Id | Kind::Name)
    }

    /// Its entry in the description.
    pub(super) fn describe(&self) -> Value {
        let place = if self.in_path() { "path" } else { "query" };
        json!({
            "name": self.name, "in": place, "required": self.in_path(),
            "description": self.about, "schema": self.kind.schema(),
        })
    }
}

impl Kind {
    fn allows(self, text: &str) -> bool {
        match self {
            Self::Time => text.parse::<Timestamp>().is_ok(),
            Self::Text | Self::Name => {
                !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX && !text.contains('\0')
            }
            Self::Choice(words) => words.contains(&text),
            Self::Whole(least, most) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                digits && text.parse().is_ok_and(|n| (least..=most).contains(&n))
            }
            Self::Scores => scores(text).is_some(),
            // What it holds is looked at where it is used.
            Self::Cursor => text.len() <= 512,
            Self::Id => ExchangeId::parse(text).is_some(),
        }
    }

    fn allowed(self) -> String {
        match self {
            Self::Time => "a time as of RFC 3339, such as 2026-11-23T22:00:00Z".to_owned(),
            Self::Text | Self::Name => format!("text of 1 to {TEXT_CHARS_MAX} characters"),
            Self::Choice(words) => one_of(words, "nothing"),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Scores => "a score from 1 to 5, or a range such as 1-2".to_owned(),
            Self::Cursor => "the `next` of an earlier answer".to_owned(),
            Self::Id => "a sample's id: 26 characters, a ULID".to_owned(),
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Time => json!({"type": "string", "format": "date-time"}),
            Self::Text | Self::Name => {
                json!({"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX})
            }
            Self::Choice(words) => json!({"type": "string", "enum": words}),
            Self::Whole(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::Scores => json!({"type": "string", "pattern": "^[1-5](-[1-5])?$"}),
            Self::Cursor => json!({"type": "string", "maxLength": 512}),
            Self::Id => json!({"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}),
        }
    }
}

/// `2` or `1-2`.
fn scores(text: &str) -> Option<(u8, u8)> {
    let score = |text: &str| match text.as_bytes() {
        [digit @ b'1'..=b'5'] => Some(digit - b'0'),
        _ => None,
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (score(low)?, score(high)?);
    (low <= high).then_some((low, high))
}

fn one_of(words: &[&str], none: &str) -> String {
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Params, Problem> {
        let known: &[&'static Parameter] = &[&FROM, &TO, &TAP, &OUTCOME, &STEP, &SCORE, &LIMIT];
        let now = "2026-11-23T22:00:00Z".parse().expect("a time");
        Params::read(query, None, known, now)
    }

    fn problem(query: &str) -> String {
        let problem = read(query).and_then(|params| params.window().map(drop)).expect_err(query);
        serde_json::to_string(&problem).expect("JSON")
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_allowed() {
        for (query, words) in [
            ("from=yesterday", ["\"parameter\":\"from\"", "RFC 3339"]),
            ("from=2026-11-24T00:00:00Z", ["\"parameter\":\"from\"", "before `to`"]),
            ("from=1026-11-24T00:00:00Z", ["\"parameter\":\"from\"", "2000 days"]),
            ("outcome=fine", ["\"found\":\"fine\"", "upstream_abort"]),
            ("limit=0", ["\"parameter\":\"limit\"", "1 to 500"]),
            ("score=4-2", ["\"parameter\":\"score\"", "1-2"]),
            ("form=x", ["\"parameter\":\"form\"", "from, to"]),
            ("tap=a&tap=b", ["\"parameter\":\"tap\"", "twice"]),
            ("tap=", ["\"parameter\":\"tap\"", "1 to 256"]),
        ] {
            let told = problem(query);
            assert!(words.iter().all(|word| told.contains(word)), "{query}: {told}");
        }
    }

    #[test]
    fn a_window_ends_now_and_has_a_step_that_suits_it() {
        let day = read("").and_then(|params| params.window()).expect("a day");
        assert_eq!(day.from.to_string(), "2026-11-22T22:00:00Z");
        let step = |query: &str| {
            let params = read(query)?;
            params.step(params.window()?)
        };
        assert_eq!(step(""), Ok(900));
        assert_eq!(step("from=2026-11-23T21:00:00Z"), Ok(60));
        assert_eq!(step("from=2026-08-23T21:00:00%2B02:00"), Ok(86_400));
        assert_eq!(step("step=1m"), Ok(60));
        assert!(step("from=2026-08-23T21:00:00Z&step=1m").is_err(), "too many spans");
    }

    #[test]
    fn the_words_are_those_of_the_closed_sets() {
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(outcomes, OUTCOMES);
        let criteria: Vec<_> = Criterion::RATED.iter().map(|criterion| criterion.label()).collect();
        assert_eq!(criteria, CRITERIA);
        assert_eq!(STEPS.map(|(name, _)| name), *STEP_NAMES);
    }
}
