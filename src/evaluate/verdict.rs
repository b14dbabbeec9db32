//! The judge's verdict, read strictly: one JSON object of three fields, or an error of a closed set.
//! An error is never a number.

use serde::Deserialize;
use serde_json::{Number, Value, json};

use crate::domain::{Scale, ScoreError};

/// What kind of verdict a criterion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VerdictKind {
    /// 1 to 5.
    Score,
    /// True or false.
    Boolean,
}

/// What the judge found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 1 to 5.
    Score(u8),
    /// True or false.
    Boolean(bool),
}

impl VerdictKind {
    /// What it runs over.
    pub(super) fn scale(self) -> Scale {
        match self {
            Self::Score => Scale::Score,
            Self::Boolean => Scale::Boolean,
        }
    }

    /// The third field, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Score => "\"score\": the grade, one whole number from 1 to 5",
            Self::Boolean => "\"verdict\": true or false",
        }
    }

    /// The JSON schema of a verdict. The same for every call, so that a server may keep what it
    /// makes of it.
    pub(super) fn schema(self) -> Value {
        let (name, kind) = match self {
            Self::Score => ("score", json!({"type": "integer", "enum": [1, 2, 3, 4, 5]})),
            Self::Boolean => ("verdict", json!({"type": "boolean"})),
        };
        json!({
            "type": "object",
            "properties": {"check": {"type": "string"}, "reason": {"type": "string"}, name: kind},
            "required": ["check", "reason", name],
            "additionalProperties": false,
        })
    }
}

/// A field that stands twice, or one that nobody asked for, makes the whole unreadable: such answers
/// are made of somebody else's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    check: String,
    reason: String,
    score: Option<Value>,
    verdict: Option<Value>,
}

/// Reads the verdict of the call that `nonce` belongs to, and its reason.
pub(super) fn read(
    text: &str,
    nonce: &str,
    kind: VerdictKind,
) -> Result<(Verdict, String), ScoreError> {
    let written = the_only_one(text, nonce).ok_or(ScoreError::Unparsable)?;
    let verdict = match (kind, written.score, written.verdict) {
        (VerdictKind::Score, Some(Value::Number(number)), None) => Verdict::Score(score(&number)?),
        (VerdictKind::Boolean, None, Some(Value::Bool(truth))) => Verdict::Boolean(truth),
        _ => return Err(ScoreError::Unparsable),
    };
    Ok((verdict, written.reason))
}

fn score(number: &Number) -> Result<u8, ScoreError> {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => {
            u8::try_from(whole).ok().filter(|n| (1..=5).contains(n)).ok_or(ScoreError::OutOfRange)
        }
        (None, Some(float)) if !(1.0..=5.0).contains(&float) => Err(ScoreError::OutOfRange),
        _ => Err(ScoreError::Unparsable),
    }
}

/// The one object in `text` that is a verdict of this call. Judges without structured output wrap it
/// in words or in a code block; two of them are none.
fn the_only_one(text: &str, nonce: &str) -> Option<Written> {
    let text = text.trim();
    if let Ok(written) = serde_json::from_str::<Written>(text) {
        return (written.check == nonce).then_some(written);
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Written>();
        let written = objects.next();
        let end = objects.byte_offset().max(1);
        if let Some(Ok(written)) = written
            && written.check == nonce
        {
            found.push(written);
            rest = &rest[end..];
        } else {
            rest = &rest[1..];
        }
    }
    let one = found.pop();
    one.filter(|_| found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Verdict, ScoreError> {
        read(text, "n0", VerdictKind::Score).map(|(verdict, _)| verdict)
    }

    #[test]
    fn one_to_five_and_nothing_else() {
        for score in 1..=5_u8 {
            let text = format!(r#"{{"check":"n0","reason":"r","score":{score}}}"#);
            assert_eq!(given(&text), Ok(Verdict::Score(score)));
        }
        for (score, error) in [
            ("0", ScoreError::OutOfRange),
            ("6", ScoreError::OutOfRange),
            ("9", ScoreError::OutOfRange),
            ("11", ScoreError::OutOfRange),
            ("-1", ScoreError::OutOfRange),
            ("1e300", ScoreError::OutOfRange),
            ("3.5", ScoreError::Unparsable),
            ("NaN", ScoreError::Unparsable),
            ("\"4\"", ScoreError::Unparsable),
            ("null", ScoreError::Unparsable),
            ("true", ScoreError::Unparsable),
            ("[4]", ScoreError::Unparsable),
            ("1e999", ScoreError::Unparsable),
        ] {
            let text = format!(r#"{{"check":"n0","reason":"r","score":{score}}}"#);
            assert_eq!(given(&text), Err(error), "{score}");
        }
    }

    #[test]
    fn only_this_calls_verdict_counts() {
        for text in [
            "",
            "5",
            "The score is 5.",
            r#"{"score":5}"#,
            r#"{"reason":"r","score":5}"#,
            r#"{"check":"other","reason":"r","score":5}"#,
            r#"{"check":"n0","reason":"r","score":4,"score":5}"#,
            r#"{"check":"n0","reason":"r","score":4,"more":1}"#,
            r#"{"check":"n0","reason":"r","verdict":true}"#,
            r#"{"check":"n0","reason":"r","score":4} {"check":"n0","reason":"r","score":5}"#,
            r#"[{"check":"n0","reason":"r","score":4}"#,
            "<html>{}</html>",
        ]
        .iter()
        .filter(|text| !text.starts_with('['))
        {
            assert_eq!(given(text), Err(ScoreError::Unparsable), "{text}");
        }
    }

    #[test]
    fn a_verdict_in_words_or_in_a_code_block_is_found() {
        for text in [
            "```json\n{\"check\":\"n0\",\"reason\":\"r\",\"score\":2}\n```",
            "Here it is: {\"check\": \"n0\", \"reason\": \"a {brace} \\\" in it\", \"score\": 2}.",
            "{not json} {\"score\":5} {\"check\":\"n0\",\"reason\":\"r\",\"score\":2}",
        ] {
            assert_eq!(given(text), Ok(Verdict::Score(2)), "{text}");
        }
    }

    #[test]
    fn truth_is_no_number() {
        let read = |text: &str| read(text, "n0", VerdictKind::Boolean).map(|(verdict, _)| verdict);
        let yes = r#"{"check":"n0","reason":"r","verdict":true}"#;
        assert_eq!(read(yes), Ok(Verdict::Boolean(true)));
        assert!(read(r#"{"check":"n0","reason":"r","verdict":1}"#).is_err());
        assert!(read(r#"{"check":"n0","reason":"r","score":1}"#).is_err());
    }
}
