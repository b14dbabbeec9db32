//! `feedback`: what users say of answers, and how far back it may reach.

use std::time::Duration;

use super::kind::Kind::{Choice, Column, Time, Whole};
use super::kind::show_time;
use super::map::Map;
use super::show::Shown;
use super::table::Default::{Is, Unset};
use super::table::Key;

const DAY_MS: u64 = 86_400_000;

/// What users say of answers, in requests of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The field that holds the rating; `None` looks for usual names.
    pub rating: Option<String>,
    /// What numbers mean. Default 1 to 5.
    pub scale: RatingScale,
    /// How long after an answer feedback for it may come. Default 1 h.
    pub within: Duration,
    /// Requests that are remembered for their feedback. Default 10,000.
    pub requests_max: usize,
}

/// The scale of ratings that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatingScale {
    /// Stars.
    OneToFive,
    /// Bad or good, and what lies between.
    ZeroToOne,
    /// As asked for recommendations.
    ZeroToTen,
    /// Percent.
    ZeroToHundred,
}

impl RatingScale {
    /// The worst and the best rating.
    pub fn ends(self) -> (f64, f64) {
        match self {
            Self::OneToFive => (1.0, 5.0),
            Self::ZeroToOne => (0.0, 1.0),
            Self::ZeroToTen => (0.0, 10.0),
            Self::ZeroToHundred => (0.0, 100.0),
        }
    }
}

/// The keys of `feedback`.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "rating",
        Column,
        Unset("the first of `rating`, `score`, `stars`, `thumbs`, `thumbs_up`"),
        "Which field of a feedback holds the rating.",
        "/data/stars",
    ),
    Key::new(
        "scale",
        Choice(&["1-5", "0-1", "0-10", "0-100"]),
        Is("1-5"),
        "The scale of ratings that are numbers, worst to best; other scales are stretched to 1 to 5. \
         Truth values and thumbs need none.",
        "0-1",
    ),
    Key::new(
        "within",
        Time(1_000, DAY_MS),
        Is("1h"),
        "How long after an answer feedback for it may come.",
        "1h",
    ),
    Key::new(
        "requests_max",
        Whole(0, 1_000_000),
        Is("10000"),
        "Requests that are remembered for their feedback, some 600 bytes each; the oldest go first. \
         0 takes no feedback.",
        "10000",
    ),
];

const SCALES: &[(&str, RatingScale)] = &[
    ("1-5", RatingScale::OneToFive),
    ("0-1", RatingScale::ZeroToOne),
    ("0-10", RatingScale::ZeroToTen),
    ("0-100", RatingScale::ZeroToHundred),
];

/// Builds `feedback`.
pub(super) fn build(map: &Map) -> Feedback {
    let word = map.text("scale").unwrap_or_default();
    let scale = SCALES.iter().find(|(name, _)| *name == word).map(|(_, scale)| *scale);
    Feedback {
        rating: map.text("rating").map(str::to_owned),
        scale: scale.unwrap_or(RatingScale::OneToFive),
        within: map.time("within"),
        requests_max: map.size("requests_max"),
    }
}

/// `feedback` as YAML.
pub(super) fn show(feedback: &Feedback) -> Vec<(&'static str, Shown)> {
    let scale = SCALES.iter().find(|(_, scale)| *scale == feedback.scale);
    vec![
        ("rating", Shown::optional(feedback.rating.as_ref())),
        ("scale", Shown::text(scale.map_or("", |(name, _)| name))),
        ("within", Shown::text(show_time(feedback.within))),
        ("requests_max", Shown::text(feedback.requests_max)),
    ]
}
