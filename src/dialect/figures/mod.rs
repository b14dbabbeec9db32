//! The figures of an exchange of which no text will be kept: model, usage, how it ended, and whether
//! anything was said. They are read in one pass over the bytes that builds no object of them.
//!
//! What is read here is what [`read`](super::read) would say, to the letter: whatever is cut, coded in a
//! way that fails, malformed, failed or merely unusual is no matter for this room. It answers `None`, and
//! the exchange is read as a whole.

mod chat;
mod chunks;
mod events;
mod messages;
mod responses;
mod scan;
mod template;

use std::borrow::Cow;

use serde::de::MapAccess;

use super::decode::{self, Decoded};
use super::texts::Outlines;
use super::usage::{Report, Tally};
use super::{Fault, columns, json, metadata, openai, side};
use crate::config::Tap;
use crate::domain::{CapturedBody, Dialect, Exchange, Fields, Operation, Outcome, Reading};
use scan::{Source, Take, once, plain, value};

/// What the answer told, in the words of all dialects.
#[derive(Debug, Default)]
struct Told<'a> {
    model: Option<Cow<'a, str>>,
    response_id: Option<Cow<'a, str>>,
    finish_reason: Option<Cow<'a, str>>,
    tally: Tally,
    empty: bool,
    first_content_offset: Option<u64>,
}

/// Reads the figures of a call to a model that succeeded and told its usage.
pub(super) fn read(
    exchange: &Exchange,
    tap: &Tap,
    dialect: Dialect,
    operation: Operation,
) -> Option<Reading> {
    let succeeded = exchange.status.is_some_and(|status| (200..300).contains(&status));
    if !(succeeded && exchange.outcome == Outcome::Ok && is_model_call(operation)) {
        return None;
    }
    let asked = whole(&exchange.request, &exchange.request_headers)?;
    let answered = whole(&exchange.response, &exchange.response_headers)?;
    let media = side::media(&exchange.response_headers);
    let mut request = Asked::default();
    text(&asked)?.object(&mut request)?;
    let stream = side::streams(media, &answered.head);
    let text = if stream { events(&answered)? } else { text(&answered)? };
    let told = match (operation, stream) {
        (Operation::Messages, true) => messages::stream(text),
        (Operation::Responses, true) => responses::stream(text),
        (Operation::Embeddings, true) => None,
        (_, true) => chunks::stream(text, operation),
        (_, false) => answer(text, operation),
    }?;
    let offset = told.first_content_offset.filter(|_| answered.identity);
    let reading = metadata(Reading::new(dialect, operation), exchange, tap);
    let reading = Reading { stream, first_content_offset: offset, ..reading };
    understood(reading, exchange, tap, request, told)
}

/// As [`read`], of bodies whose outlines are known, and which are no stream.
pub(super) fn read_outlined(
    exchange: &Exchange,
    tap: &Tap,
    dialect: Dialect,
    operation: Operation,
    outlines: &Outlines<'_>,
) -> Option<Reading> {
    let (asked, answered) = outlines.bodies()?;
    let mut request = Asked::default();
    asked.object(&mut request)?;
    let told = answer(answered, operation)?;
    let reading = metadata(Reading::new(dialect, operation), exchange, tap);
    understood(Reading { stream: false, ..reading }, exchange, tap, request, told)
}

/// What an answer that came whole tells.
fn answer<'a>(from: impl Source<'a>, operation: Operation) -> Option<Told<'a>> {
    match operation {
        Operation::Messages => messages::answer(from),
        Operation::Responses => responses::answer(from),
        _ => chat::answer(from, operation),
    }
}

/// All of it, if it tells the usage.
fn understood(
    mut reading: Reading,
    exchange: &Exchange,
    tap: &Tap,
    asked: Asked<'_>,
    told: Told<'_>,
) -> Option<Reading> {
    let operation = reading.operation;
    asked.fill(&mut reading);
    if operation != Operation::Messages {
        reading.model_deployment = openai::deployment(&super::detect::full_path(exchange, tap));
    }
    reading.model.response = short(told.model);
    reading.response_id = short(told.response_id);
    reading.finish_reason = short(told.finish_reason);
    reading.empty = told.empty;
    reading.usage = told.tally.usage();
    reading.fault = columns::any_invalid(&tap.columns).then(|| Fault::Column.label());
    // Embeddings generate nothing: there is no output to know.
    let answers = operation != Operation::Embeddings;
    let unknown = reading.usage.input.is_none() || (answers && reading.usage.output.is_none());
    (!unknown).then_some(reading)
}

fn is_model_call(operation: Operation) -> bool {
    use Operation::{Chat, Embeddings, Messages, Responses, TextCompletion};
    matches!(operation, Chat | TextCompletion | Responses | Embeddings | Messages)
}

/// The body, where all of it is here.
pub(super) fn whole<'a>(body: &'a CapturedBody, headers: &Fields) -> Option<Decoded<'a>> {
    let decoded = decode::decode(body, headers);
    let whole = body.complete && !decoded.missing && decoded.tail.is_empty();
    (whole && decoded.fault.is_none()).then_some(decoded)
}

/// A body that is a text.
fn text<'a>(body: &'a Decoded<'_>) -> Option<&'a str> {
    simdutf8::basic::from_utf8(&body.head).ok()
}

/// A body of events, within the limits of what is read as JSON.
fn events<'a>(body: &'a Decoded<'_>) -> Option<&'a str> {
    let small = body.head.len() <= json::NODES_MAX || json::within_limits(&body.head);
    text(body).filter(|_| small)
}

fn short(name: Option<Cow<'_, str>>) -> Option<String> {
    json::short(&name?)
}

/// What a request asks for, and in which session.
#[derive(Default)]
struct Asked<'a> {
    seen: u16,
    model: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
    conversation_id: Option<Cow<'a, str>>,
    conversation: Option<Cow<'a, str>>,
    within_conversation: Ids<'a>,
    within_metadata: Ids<'a>,
}

/// Ids within an object of a request.
#[derive(Default)]
struct Ids<'a> {
    seen: u16,
    id: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
    conversation_id: Option<Cow<'a, str>>,
}

impl<'de> Take<'de> for Asked<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let (place, member) = match key {
            "model" => (&mut self.model, 0),
            "session_id" => (&mut self.session_id, 1),
            "conversation_id" => (&mut self.conversation_id, 2),
            "conversation" => {
                once(&mut self.seen, 3)?;
                self.conversation = value(map, &mut self.within_conversation)?.name();
                return Ok(());
            }
            "metadata" => {
                once(&mut self.seen, 4)?;
                return value(map, &mut self.within_metadata).map(|_| ());
            }
            _ => return scan::pass(map),
        };
        once(&mut self.seen, member)?;
        *place = plain(map)?.name();
        Ok(())
    }
}

impl<'de> Take<'de> for Ids<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let (place, member) = match key {
            "id" => (&mut self.id, 0),
            "session_id" => (&mut self.session_id, 1),
            "conversation_id" => (&mut self.conversation_id, 2),
            _ => return scan::pass(map),
        };
        once(&mut self.seen, member)?;
        *place = plain(map)?.name();
        Ok(())
    }
}

impl Asked<'_> {
    /// The order of `session::in_body`.
    fn fill(self, reading: &mut Reading) {
        reading.model.request = short(self.model);
        if reading.session.is_some() {
            return;
        }
        let outer = [self.session_id, self.conversation_id, self.conversation];
        let (conversation, metadata) = (self.within_conversation, self.within_metadata);
        let inner = [conversation.id, metadata.session_id, metadata.conversation_id];
        reading.session = outer.into_iter().chain(inner).find_map(short);
    }
}

impl<'de> Take<'de> for Report {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let place = match key {
            "prompt_tokens" => &mut self.prompt,
            "completion_tokens" => &mut self.completion,
            "input_tokens" => &mut self.input,
            "output_tokens" => &mut self.output,
            "total_tokens" => &mut self.total,
            "cache_read_input_tokens" => &mut self.cache_read,
            "cache_creation_input_tokens" => &mut self.cache_written,
            _ => return self.details(key, map),
        };
        *place = scan::count(map)?;
        Ok(())
    }
}

impl Report {
    fn details<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let mut details = Details::default();
        if !matches!(
            key,
            "prompt_tokens_details"
                | "input_tokens_details"
                | "completion_tokens_details"
                | "output_tokens_details"
        ) {
            return scan::pass(map);
        }
        value(map, &mut details)?;
        match key {
            "prompt_tokens_details" => self.prompt_cached = details.cached,
            "input_tokens_details" => self.input_cached = details.cached,
            "completion_tokens_details" => self.completion_reasoning = details.reasoning,
            _ => self.output_reasoning = details.reasoning,
        }
        Ok(())
    }
}

/// Parts of a figure.
#[derive(Default)]
struct Details {
    cached: Option<u64>,
    reasoning: Option<u64>,
}

impl<'de> Take<'de> for Details {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "cached_tokens" => self.cached = scan::count(map)?,
            "reasoning_tokens" => self.reasoning = scan::count(map)?,
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}
