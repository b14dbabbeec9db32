//! What a user says of an answer: the body of prompt flow's `/feedback`.
//!
//! Prompt flow takes any text there and says nothing of its shape, so this reads a few shapes and no
//! more: a JSON object with a rating, perhaps a comment, perhaps the name of the request it is about.

use serde_json::Value;

use super::columns::Column;
use crate::config;
use crate::domain::{ScoreError, TraceId};

/// The fields that may hold the rating where none is configured; the first that is there decides.
const RATINGS: &[&str] = &["rating", "score", "stars", "thumbs", "thumbs_up"];
/// The fields that may hold the user's words.
const COMMENTS: &[&str] = &["comment", "reason"];
/// Words for good and for bad, in lower case.
const GOOD: &[&str] = &["up", "thumbs_up", "positive", "like", "👍"];
const BAD: &[&str] = &["down", "thumbs_down", "negative", "dislike", "👎"];

/// What a feedback says; unredacted.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// 1 (worst) to 5 (best), or why there is no rating.
    pub rating: Result<u8, ScoreError>,
    /// The user's words.
    pub comment: Option<String>,
    /// The name of the request that it is about, by `request_id` in the body.
    pub request_id: Option<String>,
    /// The trace of the request that it is about, by `trace_id` in the body.
    pub trace_id: Option<TraceId>,
}

/// Reads the body of a feedback.
pub fn read_feedback(body: Option<&Value>, settings: &config::Feedback) -> Feedback {
    let fields = body.filter(|body| body.is_object());
    let text = |name: &str| fields?.get(name)?.as_str().filter(|text| !text.trim().is_empty());
    let trace_id = text("trace_id").map(|id| id.strip_prefix("0x").unwrap_or(id));
    Feedback {
        rating: fields
            .ok_or(ScoreError::Unparsable)
            .and_then(|fields| rating_in(fields, settings).ok_or(ScoreError::NoRating))
            .and_then(|value| rating(&value, settings.scale)),
        comment: COMMENTS.iter().find_map(|name| text(name)).map(str::to_owned),
        request_id: text("request_id").map(str::to_owned),
        trace_id: trace_id.and_then(|id| TraceId::parse(&id.to_ascii_lowercase())),
    }
}

fn rating_in(fields: &Value, settings: &config::Feedback) -> Option<Value> {
    match &settings.rating {
        Some(column) => Column::of(column).find(fields),
        None => RATINGS.iter().find_map(|name| Column::Field(name).find(fields)),
    }
}

/// A truth value, a thumb or a number, as 1 to 5.
fn rating(value: &Value, scale: config::RatingScale) -> Result<u8, ScoreError> {
    match value {
        Value::Bool(good) => Ok(if *good { 5 } else { 1 }),
        Value::Number(number) => number.as_f64().ok_or(ScoreError::Unparsable).and_then(on(scale)),
        Value::String(text) => {
            let word = text.trim().to_lowercase();
            match word.as_str() {
                good if GOOD.contains(&good) => Ok(5),
                bad if BAD.contains(&bad) => Ok(1),
                "true" | "false" => Ok(if word == "true" { 5 } else { 1 }),
                other => other.parse().map_err(|_| ScoreError::Unparsable).and_then(on(scale)),
            }
        }
        _ => Err(ScoreError::Unparsable),
    }
}

/// Stretches a number on its scale to 1 to 5, halves upwards.
fn on(scale: config::RatingScale) -> impl FnOnce(f64) -> Result<u8, ScoreError> {
    let (worst, best) = scale.ends();
    move |number| match number {
        inside if (worst..=best).contains(&inside) => {
            // At most 5.5 before it is rounded down, so that the cast loses nothing but the fraction.
            Ok((1.5 + 4.0 * (inside - worst) / (best - worst)) as u8)
        }
        _ => Err(ScoreError::OutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::RatingScale;
    use serde_json::json;

    fn settings(scale: RatingScale, rating: Option<&str>) -> config::Feedback {
        let within = Duration::from_secs(60);
        config::Feedback { rating: rating.map(str::to_owned), scale, within, requests_max: 10 }
    }

    fn read(body: Value) -> Result<u8, ScoreError> {
        read_feedback(Some(&body), &settings(RatingScale::OneToFive, None)).rating
    }

    #[test]
    fn a_rating_is_a_number_a_truth_value_or_a_thumb() {
        let ratings = [
            (json!({"score": 1, "comment": "nice"}), 1),
            (json!({"rating": 5}), 5),
            (json!({"stars": 4.5}), 5),
            (json!({"stars": 4.4}), 4),
            (json!({"rating": " 3 "}), 3),
            (json!({"thumbs_up": true}), 5),
            (json!({"thumbs_up": "False"}), 1),
            (json!({"thumbs": "Down"}), 1),
            (json!({"thumbs": "👍"}), 5),
            (json!({"rating": null, "score": 2}), 2),
        ];
        for (body, expected) in ratings {
            assert_eq!(read(body.clone()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_rating_gives_no_score() {
        let refused = [
            (json!({"comment": "nice"}), ScoreError::NoRating),
            (json!({}), ScoreError::NoRating),
            (json!([5]), ScoreError::Unparsable),
            (json!("5 stars"), ScoreError::Unparsable),
            (json!({"score": "great"}), ScoreError::Unparsable),
            (json!({"score": {"value": 5}}), ScoreError::Unparsable),
            (json!({"score": 0}), ScoreError::OutOfRange),
            (json!({"score": 6}), ScoreError::OutOfRange),
            (json!({"score": -1e300}), ScoreError::OutOfRange),
            (json!({"score": "NaN"}), ScoreError::OutOfRange),
            (json!({"score": "inf"}), ScoreError::OutOfRange),
        ];
        for (body, expected) in refused {
            assert_eq!(read(body.clone()), Err(expected), "{body}");
        }
        let nothing = read_feedback(None, &settings(RatingScale::OneToFive, None));
        assert_eq!(nothing.rating, Err(ScoreError::Unparsable));
    }

    #[test]
    fn other_scales_are_stretched_to_one_to_five() {
        let cases = [
            (RatingScale::ZeroToOne, json!(0), 1),
            (RatingScale::ZeroToOne, json!(0.5), 3),
            (RatingScale::ZeroToOne, json!(1), 5),
            (RatingScale::ZeroToTen, json!(10), 5),
            (RatingScale::ZeroToTen, json!(5), 3),
            (RatingScale::ZeroToHundred, json!(0), 1),
            (RatingScale::ZeroToHundred, json!(87.5), 5),
            (RatingScale::ZeroToHundred, json!(87.4), 4),
        ];
        for (scale, value, expected) in cases {
            let body = json!({"data": {"r": value}});
            let read = read_feedback(Some(&body), &settings(scale, Some("/data/r")));
            assert_eq!(read.rating, Ok(expected), "{body} on {scale:?}");
        }
    }

    #[test]
    fn the_body_may_name_its_request() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let body = json!({"score": 3, "request_id": "r-1", "trace_id": format!("0x{trace}"), "reason": "so"});
        let read = read_feedback(Some(&body), &settings(RatingScale::OneToFive, None));
        assert_eq!(read.request_id.as_deref(), Some("r-1"));
        assert_eq!(read.trace_id, TraceId::parse(trace));
        assert_eq!(read.comment.as_deref(), Some("so"));
        let wrong = json!({"score": 3, "request_id": 7, "trace_id": "short", "comment": " "});
        let read = read_feedback(Some(&wrong), &settings(RatingScale::OneToFive, None));
        assert_eq!((read.request_id, read.trace_id, read.comment), (None, None, None));
    }
}
