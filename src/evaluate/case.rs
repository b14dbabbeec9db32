//! Samples as the evaluator reads them out of the bucket: the columns, and who they belong to.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::{ExchangeId, SpanId, TraceId};

/// Bytes of one line; a longer one is no sample of ours.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is judged of a sample, redacted long before.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub(super) id: ExchangeId,
    pub(super) time: Timestamp,
    pub(super) tap: Arc<str>,
    pub(super) deployment: Arc<str>,
    #[serde(default)]
    question: Option<Value>,
    #[serde(default)]
    answer: Option<Value>,
    #[serde(default)]
    context: Option<Value>,
    #[serde(default)]
    ground_truth: Option<Value>,
    /// The exchange's trace and span, where somebody besides us knows them.
    #[serde(default)]
    pub(super) trace_id: Option<TraceId>,
    #[serde(default)]
    pub(super) span_id: Option<SpanId>,
    sample: Kept,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Kept {
    probability: f64,
}

/// A column that a criterion may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Question,
    Answer,
    Context,
    GroundTruth,
}

impl Input {
    pub(super) const ALL: [Self; 4] =
        [Self::Question, Self::Answer, Self::Context, Self::GroundTruth];

    /// The name of the column.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Context => "context",
            Self::GroundTruth => "ground_truth",
        }
    }
}

impl Case {
    /// Reads a line of `exchanges/`; `None` for anything else.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The same question, answered by somebody else. A `context` of its own is the one that this answer
    /// was made from; without one it is the recorded.
    pub fn answered(&self, answer: Option<Value>, context: Option<Value>) -> Self {
        let context = context.or_else(|| self.context.clone());
        Self { answer, context, ..self.clone() }
    }

    /// A case of our own making.
    pub(super) fn made(id: ExchangeId, now: Timestamp, texts: [&str; 4]) -> Self {
        let [question, answer, context, ground_truth] =
            texts.map(|text| Some(Value::String(text.to_owned())));
        let (tap, deployment) = (Arc::from("flowtap"), Arc::from("flowtap"));
        let sample = Kept { probability: 1.0 };
        let (trace_id, span_id) = (None, None);
        Self {
            id,
            time: now,
            tap,
            deployment,
            question,
            answer,
            context,
            ground_truth,
            trace_id,
            span_id,
            sample,
        }
    }

    /// With which probability it was kept.
    pub(super) fn probability(&self) -> f64 {
        self.sample.probability
    }

    /// The text of a column; `None` where there is none, or nothing but space.
    pub(super) fn text(&self, input: Input) -> Option<String> {
        let value = match input {
            Input::Question => &self.question,
            Input::Answer => &self.answer,
            Input::Context => &self.context,
            Input::GroundTruth => &self.ground_truth,
        };
        let text = match value.as_ref()? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => return None,
            Value::Object(fields) if fields.is_empty() => return None,
            other => other.to_string(),
        };
        (!text.trim().is_empty()).then_some(text)
    }
}

/// The lines of an object, as they come; `None` for a line that is no sample.
pub(super) struct Lines {
    reader: BufReader<MultiGzDecoder<Cursor<Bytes>>>,
    broken: bool,
}

impl Lines {
    pub(super) fn of(object: Bytes) -> Self {
        Self { reader: BufReader::new(MultiGzDecoder::new(Cursor::new(object))), broken: false }
    }

    /// How many lines an object has; what cannot be unpacked to its end counts up to there, and its
    /// torn end as one.
    pub(super) fn count_of(object: Bytes) -> usize {
        let mut lines = Self::of(object);
        let mut line = Vec::new();
        let mut count = 0;
        while lines.read(&mut line).is_some() {
            count += 1;
        }
        count
    }

    /// Reads a line; `Some(false)` where it is torn or too long, which is the last.
    fn read(&mut self, line: &mut Vec<u8>) -> Option<bool> {
        line.clear();
        if self.broken {
            return None;
        }
        match (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', line) {
            Ok(0) => None,
            Ok(_) if line.len() as u64 >= LINE_BYTES_MAX => {
                self.broken = true;
                Some(false)
            }
            Ok(_) => Some(true),
            Err(_) => {
                self.broken = true;
                Some(false)
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Option<Case>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let whole = self.read(&mut line)?;
        Some(whole.then(|| Case::parse(&line)).flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const SAMPLE: &str = r#"{"id":"01KB0M1Z5X0000000000000000","time":"2026-11-27T02:00:00.000001Z","tap":"chat","deployment":"blue","question":"q","answer":{"a":1},"context":" ","sample":{"reason":"rate","probability":0.5},"more":[1]}"#;

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("packed");
        encoder.finish().expect("packed")
    }

    #[test]
    fn samples_are_read_and_strangers_are_set_aside() {
        let bytes = Bytes::from(packed(&format!("{SAMPLE}\nno json\n{{}}\n{SAMPLE}\n")));
        assert_eq!(Lines::count_of(bytes.clone()), 4);
        let cases: Vec<_> = Lines::of(bytes).collect();
        assert_eq!(
            cases.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, false, true]
        );
        let case = cases[0].as_ref().expect("a case");
        assert_eq!(case.text(Input::Question).as_deref(), Some("q"));
        assert_eq!(case.text(Input::Answer).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!((case.text(Input::Context), case.text(Input::GroundTruth)), (None, None));
        assert!((case.probability() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn torn_and_foreign_objects_end_where_they_can_be_read() {
        let mut torn = packed(&format!("{SAMPLE}\n").repeat(100));
        torn.truncate(torn.len() - 20);
        for bytes in [torn, b"no gzip at all".to_vec()] {
            let bytes = Bytes::from(bytes);
            let count = Lines::count_of(bytes.clone());
            assert_eq!(Lines::of(bytes).count(), count, "both passes see the same lines");
            assert!((1..=100).contains(&count));
        }
        assert_eq!(Lines::count_of(Bytes::new()), 1, "an object without a byte is torn");
    }
}
