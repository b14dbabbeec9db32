//! Microsoft prompt flow behind `/score`: a JSON object of inputs in, a JSON object of outputs out.
//!
//! A flex flow may answer with a bare JSON string. A streaming flow sends events of one object
//! each: the first carries all outputs that do not stream, every later one a piece of the one that
//! does (its field is `output` for a flex flow that yields text). There is no end mark and no usage:
//! tokens are those of the flow's visible inputs and outputs, unless an output reports `usage`.

use serde_json::{Map, Value};

use super::fold::{Carried, Fold, Folded};
use super::usage::Tally;
use super::{Answer, Fault, View, columns, json};
use crate::config::Columns;
use crate::domain::{Countable, Reading};

/// The field in which a flex flow streams its text.
const FLEX_FIELD: &str = "output";

/// Reads a call of `/score`; the columns have been filled.
pub(super) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    let body = answer.body.filter(|_| view.succeeded());
    if reading.question.is_none() {
        // A flow of one input takes a body that is no JSON as that input.
        reading.question =
            view.request.plain_text().filter(|_| view.succeeded()).and_then(text_value);
    }
    if reading.answer.is_none() {
        reading.answer = body.and_then(|body| unnamed_answer(body, &view.tap.columns));
    }
    if answer.whole_success && body.is_none() && view.response.plain_text().is_some() {
        reading.fault = Some(Fault::Shape.label());
    }
    read_usage(answer, reading);
    reading.empty = answer.whole_success && says_nothing(view, body, reading);
    reading.countable = view.succeeded().then(|| countable(view, answer, reading));
}

/// Takes the `usage` that an output carries, in the words of OpenAI.
pub(super) fn read_usage(answer: &Answer<'_>, reading: &mut Reading) {
    let mut tally = answer.tally;
    if let Some(usage) = answer.reported() {
        tally.take_openai(usage);
    }
    reading.usage = tally.usage();
}

/// True where the answer is blank; where no answer was found, where all is blank but what is known
/// to be something else.
pub(super) fn says_nothing(view: &View<'_>, body: Option<&Value>, reading: &Reading) -> bool {
    match (&reading.answer, body) {
        (Some(answer), _) => json::blank(answer),
        (None, Some(Value::Object(members))) => {
            let besides = beside_the_answer(&view.tap.columns);
            members.iter().all(|(key, value)| besides.contains(&key.as_str()) || json::blank(value))
        }
        (None, Some(other)) => json::blank(other),
        (None, None) => view.response.is_stream() || view.exchange.response.bytes == 0,
    }
}

/// The texts of question, history and context; where no question is known, all texts of the inputs.
pub(super) fn countable(view: &View<'_>, answer: &Answer<'_>, reading: &Reading) -> Countable {
    let mut countable = Countable {
        input_truncated: view.request.partial(),
        output_truncated: answer.cut,
        ..Countable::default()
    };
    if reading.question.is_some() {
        let inputs = [&reading.chat_history, &reading.context, &reading.question];
        inputs.into_iter().flatten().for_each(|value| counted_texts(value, &mut countable.input));
    } else if let Some(inputs) = view.request.json() {
        counted_texts(inputs, &mut countable.input);
    }
    match (&reading.answer, answer.body) {
        (Some(answer), _) => counted_texts(answer, &mut countable.output),
        (None, Some(Value::Object(members))) => {
            let besides = beside_the_answer(&view.tap.columns);
            let others = members.iter().filter(|(key, _)| !besides.contains(&key.as_str()));
            others.for_each(|(_, value)| counted_texts(value, &mut countable.output));
        }
        (None, other) => {
            other.into_iter().for_each(|value| counted_texts(value, &mut countable.output))
        }
    }
    countable
}

/// Pieces of a streamed answer, joined field by field.
pub(super) struct Pieces {
    answer: String,
    besides: Vec<String>,
    outputs: Map<String, Value>,
    plain: String,
    tally: Tally,
    events: u64,
}

impl Pieces {
    /// Nothing yet, of a flow with these columns.
    pub(super) fn new(names: &Columns) -> Self {
        Self {
            answer: columns::field(&names.answer).unwrap_or(FLEX_FIELD).to_owned(),
            besides: beside_the_answer(names).into_iter().map(str::to_owned).collect(),
            outputs: Map::new(),
            plain: String::new(),
            tally: Tally::default(),
            events: 0,
        }
    }

    /// What an object of outputs carries of the answer.
    fn carried(&self, outputs: &Map<String, Value>) -> Carried {
        let speaks = |key: &str| outputs.get(key).is_some_and(|value| !nothing(value));
        if speaks(&self.answer) || speaks(FLEX_FIELD) {
            return Carried::Content;
        }
        let alone = outputs.len() == 1;
        let other =
            outputs.iter().any(|(key, value)| !self.besides.contains(key) && !nothing(value));
        if alone && other { Carried::Perhaps } else { Carried::Nothing }
    }

    fn join(&mut self, outputs: Map<String, Value>) {
        for (key, value) in outputs {
            match (self.outputs.get_mut(&key), value) {
                (Some(Value::String(text)), Value::String(piece)) => text.push_str(&piece),
                (_, value) => _ = self.outputs.insert(key, value),
            }
        }
    }
}

impl Fold for Pieces {
    fn take(&mut self, _name: &str, data: Value) -> Carried {
        self.events += 1;
        match data {
            Value::Object(outputs) => {
                if let Some(usage) = outputs.get("usage") {
                    self.tally.take_openai(usage);
                }
                let carried = self.carried(&outputs);
                self.join(outputs);
                carried
            }
            Value::String(piece) => {
                self.plain.push_str(&piece);
                Carried::content_if(!piece.is_empty())
            }
            _ => Carried::Nothing,
        }
    }

    fn finish(self) -> Folded {
        let body = match (self.outputs.is_empty(), self.plain.is_empty()) {
            (false, _) => Some(Value::Object(self.outputs)),
            (true, false) => Some(Value::String(self.plain)),
            (true, true) => None,
        };
        // A flow's stream has no end mark: that it was cut shows only in its framing.
        Folded { body, tally: self.tally, ended: true, ..Folded::default() }
    }
}

/// The answer of a flow whose answer is not where the columns say: a bare string, the field of a
/// flex flow, or the only output that is nothing else.
fn unnamed_answer(body: &Value, names: &Columns) -> Option<Value> {
    let Value::Object(outputs) = body else {
        return body.is_string().then(|| body.clone());
    };
    let besides = beside_the_answer(names);
    let mut candidates =
        outputs.iter().filter(|(key, _)| !besides.contains(&key.as_str()) && *key != "usage");
    let only = candidates.next().filter(|_| candidates.next().is_none()).map(|(_, value)| value);
    outputs.get(FLEX_FIELD).or(only).filter(|value| !value.is_null()).cloned()
}

/// Outputs that are known to be something else than the answer.
fn beside_the_answer(names: &Columns) -> Vec<&str> {
    let others = [&names.context, &names.ground_truth, &names.question, &names.chat_history];
    let fields = others.into_iter().filter_map(|text| columns::field(text));
    let answer = columns::field(&names.answer);
    fields.filter(|field| Some(*field) != answer).collect()
}

/// Null and the empty string; a blank piece of a stream is content.
fn nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// All texts of a value; a number that stands for a text counts as one.
fn counted_texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Number(_) | Value::Bool(_) => into.push(value.to_string()),
        other => json::texts(other, into),
    }
}

fn text_value(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| Value::String(text.to_owned()))
}
