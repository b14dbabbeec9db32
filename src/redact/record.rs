//! The only place where a [`Record`] is made.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use super::json::{CleanTexts, Walk};
use super::{Counts, Redactor, credential};
use crate::config::{CaptureMode, RedactKind, RedactMode};
use crate::domain::{
    Call, CapturedBody, Exchange, Fields, Json, Message, ModelNames, Operation, Reading, Record,
    Summary,
};

/// Bytes kept of a name that a client or an upstream chose: model, method, request id.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Bytes kept of a score's reason.
const REASON_BYTES_MAX: usize = 4096;

/// Bytes kept of a path or of a header's value.
const LINE_BYTES_MAX: usize = 1024;

/// A summary whose names are redacted, and what was found in them; [`Redactor::summary`] alone makes one.
#[derive(Debug)]
pub struct RedactedSummary {
    summary: Summary,
    counts: Counts,
}

/// The bodies and columns of an exchange as a record keeps them, and what was found in them;
/// [`Redactor::texts`] and [`Redactor::clean`] alone make them.
#[derive(Debug, Default)]
pub struct RedactedTexts<'a> {
    pub(super) request: Option<Json<'a>>,
    pub(super) response: Option<Json<'a>>,
    pub(super) question: Option<Json<'a>>,
    pub(super) answer: Option<Json<'a>>,
    pub(super) context: Option<Json<'a>>,
    pub(super) ground_truth: Option<Json<'a>>,
    pub(super) chat_history: Option<Json<'a>>,
    pub(super) counts: Counts,
}

#[cfg(any(test, feature = "fuzzing"))]
impl RedactedTexts<'_> {
    /// Everything as values, and what was found.
    pub fn into_values(self) -> (Vec<Option<Value>>, BTreeMap<String, u64>) {
        let columns = [self.question, self.answer, self.context, self.ground_truth];
        let others = [self.chat_history, self.request, self.response];
        let all = columns.into_iter().chain(others).map(|json| json.and_then(Json::into_value));
        (all.collect(), self.counts.into_named())
    }
}

impl Deref for RedactedSummary {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.summary
    }
}

impl Redactor {
    /// Makes the record of `exchange` from what was understood of it.
    ///
    /// `CaptureMode::Metadata` keeps no text, whatever `texts` hold, and no headers. Names and paths pass
    /// the same detectors as content, and are cut at a fixed length.
    ///
    /// `redactions` counts what was found in bodies, headers and names. A column is a copy of part
    /// of a body, so what is found in both counts once; `binary` counts what could not be read.
    /// The names of `calls` are redacted, too, and counted by the calls' own records.
    pub fn record<'a>(
        &self,
        exchange: &Exchange,
        texts: RedactedTexts<'a>,
        named: RedactedSummary,
        mode: CaptureMode,
        calls: Vec<Call>,
    ) -> Record<'a> {
        let full = mode == CaptureMode::Full;
        let RedactedSummary { summary, counts: mut names } = named;
        let texts = if full { texts } else { RedactedTexts::default() };
        let mut side = |headers: &Fields, captured: &CapturedBody, body| Message {
            headers: if full { self.headers(headers, &mut names) } else { BTreeMap::new() },
            body,
            bytes: captured.bytes,
            truncated: captured.truncated(),
        };
        let request = side(&exchange.request_headers, &exchange.request, texts.request);
        let response = side(&exchange.response_headers, &exchange.response, texts.response);
        let request_id = self.counted_request_id(exchange, &mut names);
        names.add_all(&texts.counts);
        Record {
            summary,
            calls: calls.into_iter().map(|call| self.call(call)).collect(),
            question: texts.question,
            answer: texts.answer,
            context: texts.context,
            ground_truth: texts.ground_truth,
            chat_history: texts.chat_history,
            request,
            response,
            trace_id: Some(exchange.trace.trace_id),
            span_id: Some(exchange.trace.span_id),
            request_id,
            redactions: names.into_named(),
        }
    }

    /// The texts of a reading without what must not be kept; none of an unknown operation.
    pub fn texts(&self, reading: Reading) -> RedactedTexts<'static> {
        if reading.operation == Operation::Other {
            return RedactedTexts::default();
        }
        let (mut bodies, mut columns) = (Counts::default(), Counts::default());
        let none = CleanTexts::default();
        let request = self.body(reading.request_body, &none, &mut bodies);
        let response = self.body(reading.response_body, &none, &mut bodies);
        let clean = match self.mode {
            // What is left as it is has to be counted wherever it is found.
            RedactMode::Off => none,
            _ => CleanTexts::of([request.as_ref(), response.as_ref()]),
        };
        let mut column =
            |value: Option<Value>| self.body(value, &clean, &mut columns).map(Json::Value);
        let (question, answer) = (column(reading.question), column(reading.answer));
        let (context, ground_truth) = (column(reading.context), column(reading.ground_truth));
        let chat_history = column(reading.chat_history);
        drop(clean);
        let (request, response) = (request.map(Json::Value), response.map(Json::Value));
        let counts = bodies.larger(&columns);
        RedactedTexts {
            request,
            response,
            question,
            answer,
            context,
            ground_truth,
            chat_history,
            counts,
        }
    }

    /// `summary` with all that a client or an upstream chose redacted and cut: fit for metrics,
    /// spans, rollups and records.
    pub fn summary(&self, summary: Summary) -> RedactedSummary {
        let mut counts = Counts::default();
        RedactedSummary { summary: self.named(summary, &mut counts), counts }
    }

    /// A call's names likewise; its flow's record counts nothing for them, the call's own does.
    pub fn call(&self, call: Call) -> Call {
        let counts = &mut Counts::default();
        let mut name = |text: Option<String>| text.map(|text| self.name(&text, counts));
        Call { model: name(call.model), deployment: name(call.deployment), ..call }
    }

    /// What a judge or a user gave as the reason of a score, redacted and cut.
    pub fn reason(&self, text: &str) -> String {
        cut(self.text(text), REASON_BYTES_MAX)
    }

    /// The name that the request of `exchange` goes by, redacted and cut.
    pub fn request_id(&self, exchange: &Exchange) -> Option<String> {
        self.counted_request_id(exchange, &mut Counts::default())
    }

    fn counted_request_id(&self, exchange: &Exchange, counts: &mut Counts) -> Option<String> {
        // One that we made says nothing of anybody.
        let own = exchange.id.as_uuid();
        exchange.request_id.as_deref().map(|id| match id == own {
            true => own,
            false => self.name(id, counts),
        })
    }

    /// A deployment's name as it may stand in a folder's; see [`Redactor::summary`].
    pub fn deployment(&self, name: &Arc<str>) -> Arc<str> {
        self.folder(name, &mut Counts::default())
    }

    fn named(&self, summary: Summary, counts: &mut Counts) -> Summary {
        let mut model = |name: Option<String>| name.map(|name| self.repeated_name(name, counts));
        let model = ModelNames {
            request: model(summary.model.request),
            response: model(summary.model.response),
        };
        let finish_reason = summary.finish_reason.map(|reason| self.repeated_name(reason, counts));
        let response_id = summary.response_id.map(|id| self.name(&id, counts));
        let method = self.method(&summary.method, counts);
        let path = summary.path.split(['?', '#']).next().unwrap_or_default();
        let path = cut(self.repeated(path, counts), LINE_BYTES_MAX);
        let deployment = self.folder(&summary.deployment, counts);
        Summary { model, finish_reason, response_id, method, path, deployment, ..summary }
    }

    /// Methods are words; what is none may be anything.
    fn method(&self, method: &str, counts: &mut Counts) -> String {
        let hides = self.kinds.contains(&RedactKind::Secret) && self.mode != RedactMode::Off;
        if hides && credential::is_opaque_word(method) {
            return self.secret(method, counts);
        }
        cut(self.repeated(method, counts), NAME_BYTES_MAX)
    }

    /// What takes the place of `text`, which is a secret as a whole.
    fn secret(&self, text: &str, counts: &mut Counts) -> String {
        counts.add("secret", 1);
        self.placeholder(RedactKind::Secret, text)
    }

    /// As [`Self::name`], for names that come again and again: one that is clean is not copied.
    fn repeated_name(&self, mut name: String, counts: &mut Counts) -> String {
        let redacted = match self.repeated(&name, counts) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        };
        name = redacted.unwrap_or(name);
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        name
    }

    pub(super) fn name(&self, text: &str, counts: &mut Counts) -> String {
        cut(self.scan(text, counts), NAME_BYTES_MAX)
    }

    /// A deployment's name is a folder's, too, so that no placeholder may stand in it.
    fn folder(&self, name: &Arc<str>, counts: &mut Counts) -> Arc<str> {
        match self.repeated(name, counts) {
            Cow::Borrowed(_) => name.clone(),
            Cow::Owned(_) => Arc::from("redacted"),
        }
    }

    /// A body or a column; binary content cannot be inspected and is not kept.
    pub(super) fn body(
        &self,
        body: Option<Value>,
        clean: &CleanTexts<'_>,
        counts: &mut Counts,
    ) -> Option<Value> {
        let body = body?;
        if self.mode != RedactMode::Off && is_binary(&body) {
            counts.add("binary", 1);
            return None;
        }
        Some(Walk::new(self, counts).but_for(clean).value(body))
    }

    fn headers(&self, headers: &Fields, counts: &mut Counts) -> BTreeMap<String, String> {
        let allowed = headers.names().filter(|name| self.headers_allowed.contains(name.as_str()));
        allowed.map(|name| (name.to_string(), self.header(headers, name, counts))).collect()
    }

    /// All values of one header, as one line.
    fn header(&self, headers: &Fields, name: &http::HeaderName, counts: &mut Counts) -> String {
        let has_url = matches!(
            name.as_str(),
            "referer" | "location" | "content-location" | "operation-location" | "link"
        );
        let values: Vec<String> = headers
            .get_all(name.as_str())
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .map(|value| match value.split_once('?') {
                Some((before, _)) if has_url => before.to_owned(),
                _ => value,
            })
            .collect();
        let hides = self.kinds.contains(&RedactKind::Secret) && self.mode != RedactMode::Off;
        let values: Vec<Cow<'_, str>> = values
            .iter()
            .map(|value| match hides && credential::is_in_header(name.as_str(), value) {
                true => Cow::Owned(self.secret(value, counts)),
                false => Cow::Borrowed(value.as_str()),
            })
            .collect();
        cut(self.repeated(&values.join(", "), counts), LINE_BYTES_MAX)
    }
}

/// What a dialect makes of a body that is neither JSON nor text: `{"base64": "…"}`.
fn is_binary(body: &Value) -> bool {
    body.as_object()
        .is_some_and(|map| map.len() == 1 && map.get("base64").is_some_and(Value::is_string))
}

/// At most `bytes_max` bytes of `text`: cut after redaction, so that no half of a secret stays.
pub(super) fn cut(text: Cow<'_, str>, bytes_max: usize) -> String {
    let mut text = text.into_owned();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}
