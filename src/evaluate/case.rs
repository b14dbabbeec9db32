//! Samples as the evaluator reads them out of the bucket: the columns, and who they belong to.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::ration::Stratum;
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
    /// The turns before the question.
    #[serde(default)]
    chat_history: Option<Value>,
    #[serde(default)]
    model: Option<Names>,
    #[serde(default)]
    calls: Vec<Called>,
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
    /// Missing in lines of older versions.
    #[serde(default)]
    least: Option<f64>,
}

/// Who a line belongs to, without its texts.
#[derive(Deserialize)]
struct Whose {
    deployment: Arc<str>,
    #[serde(default)]
    model: Option<Names>,
    #[serde(default)]
    calls: Vec<Called>,
}

#[derive(Clone, Debug, Deserialize)]
struct Names {
    request: Option<Arc<str>>,
    response: Option<Arc<str>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Called {
    #[serde(default)]
    model: Option<Arc<str>>,
}

/// The stratum of a sample: its model is the one that answered, else the one that was asked for; a
/// flow's is that of its first call.
fn stratum(deployment: &Arc<str>, names: Option<&Names>, calls: &[Called]) -> Stratum {
    let own = names.and_then(|names| names.response.as_ref().or(names.request.as_ref()));
    let model = own.or_else(|| calls.iter().find_map(|call| call.model.as_ref()));
    Stratum {
        deployment: Arc::clone(deployment),
        model: model.map_or_else(|| Arc::from(""), Arc::clone),
    }
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
        let sample = Kept { probability: 1.0, least: Some(1.0) };
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
            chat_history: None,
            model: None,
            calls: Vec::new(),
            trace_id,
            span_id,
            sample,
        }
    }

    /// With which probability it was kept.
    pub(super) fn probability(&self) -> f64 {
        self.sample.probability
    }

    /// The least probability with which any was kept then, as far as that is known.
    pub(super) fn probability_least(&self) -> f64 {
        self.sample.least.unwrap_or(self.sample.probability)
    }

    /// What it is told apart by where a budget is dealt out.
    pub(super) fn stratum(&self) -> Stratum {
        stratum(&self.deployment, self.model.as_ref(), &self.calls)
    }

    /// The turns before the question, the last of them where they are longer than `chars_max`; true if
    /// some were left out. `None` where there are none.
    pub(super) fn history(&self, chars_max: usize) -> Option<(String, bool)> {
        let turns: Vec<String> = match self.chat_history.as_ref()? {
            Value::Array(turns) => turns.iter().map(Value::to_string).collect(),
            Value::String(text) if !text.trim().is_empty() => vec![text.clone()],
            _ => return None,
        };
        let mut left = chars_max;
        let fits = |turn: &&String| {
            let chars = turn.chars().count();
            let fits = chars <= left;
            left = left.saturating_sub(chars);
            fits
        };
        let mut kept: Vec<&str> = turns.iter().rev().take_while(fits).map(String::as_str).collect();
        kept.reverse();
        let cut = kept.len() < turns.len();
        (!turns.is_empty()).then(|| (kept.join("\n"), cut))
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

    /// How many lines an object has, each told to `each` with its place from 0 on; what cannot be
    /// unpacked to its end counts up to there, and its torn end as one.
    pub(super) fn walk(object: Bytes, mut each: impl FnMut(usize, &[u8])) -> usize {
        let mut lines = Self::of(object);
        let mut line = Vec::new();
        let mut count = 0;
        while lines.read(&mut line).is_some() {
            each(count, &line);
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

/// The stratum of a line; `None` for a line that is no sample.
pub(super) fn stratum_of(line: &[u8]) -> Option<Stratum> {
    let whose = serde_json::from_slice::<Whose>(line).ok()?;
    Some(stratum(&whose.deployment, whose.model.as_ref(), &whose.calls))
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

    fn count(bytes: &Bytes) -> usize {
        Lines::walk(bytes.clone(), |_, _| {})
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("packed");
        encoder.finish().expect("packed")
    }

    #[test]
    fn samples_are_read_and_strangers_are_set_aside() {
        let bytes = Bytes::from(packed(&format!("{SAMPLE}\nno json\n{{}}\n{SAMPLE}\n")));
        assert_eq!(count(&bytes), 4);
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
    fn a_sample_is_told_apart_by_deployment_and_model() {
        let of = |more: &str| {
            let line = SAMPLE.replace("\"more\":[1]", more);
            let case: Case = serde_json::from_str(&line).expect("a case");
            let told = case.stratum();
            assert_eq!(stratum_of(line.as_bytes()), Some(told.clone()));
            (told.deployment.to_string(), told.model.to_string())
        };
        let blue = |model: &str| ("blue".to_owned(), model.to_owned());
        assert_eq!(of(r#""model":{"request":"a","response":"b"}"#), blue("b"));
        assert_eq!(of(r#""model":{"request":"a","response":null}"#), blue("a"));
        let calls = r#""calls":[{"model":null},{"model":"c","input":1}]"#;
        assert_eq!(
            of(&format!(r#""model":{{"request":null,"response":null}},{calls}"#)),
            blue("c")
        );
        assert_eq!(of("\"more\":[1]"), blue(""));
        assert_eq!(stratum_of(b"no json"), None);
    }

    #[test]
    fn of_a_long_history_the_last_turns_are_left() {
        let history = |text: &str, max| {
            let line = SAMPLE.replace("\"more\":[1]", &format!("\"chat_history\":{text}"));
            let case: Case = serde_json::from_str(&line).expect("a case");
            case.history(max)
        };
        for nothing in ["null", "[]", "\" \"", "{}"] {
            assert_eq!(history(nothing, 10), None);
        }
        let two = r#"[{"q":"first"},{"q":"second"}]"#;
        let both = "{\"q\":\"first\"}\n{\"q\":\"second\"}";
        assert_eq!(history(two, 100), Some((both.to_owned(), false)));
        assert_eq!(history(two, 20), Some(("{\"q\":\"second\"}".to_owned(), true)));
        assert_eq!(history(two, 3), Some((String::new(), true)));
    }

    #[test]
    fn torn_and_foreign_objects_end_where_they_can_be_read() {
        let mut torn = packed(&format!("{SAMPLE}\n").repeat(100));
        torn.truncate(torn.len() - 20);
        for bytes in [torn, b"no gzip at all".to_vec()] {
            let bytes = Bytes::from(bytes);
            let count = count(&bytes);
            assert_eq!(Lines::of(bytes).count(), count, "both passes see the same lines");
            assert!((1..=100).contains(&count));
        }
        assert_eq!(count(&Bytes::new()), 1, "an object without a byte is torn");
    }
}
