//! OpenAI's responses: what they tell besides their texts, whole or in events.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Told;
use super::events::Events;
use super::scan::{self, Seen, Source, Take, once, plain, value};
use crate::dialect::usage::{Report, Tally};

/// Reads a response that came whole.
pub(super) fn answer<'a>(from: impl Source<'a>) -> Option<Told<'a>> {
    let mut response = Response::default();
    from.object(&mut response)?;
    response.output.as_ref()?;
    let mut tally = Tally::default();
    tally.take_openai_report(&response.usage);
    Some(Told { tally, ..response.told() })
}

/// Reads a stream whose last response holds all that was put out.
pub(super) fn stream(text: &str) -> Option<Told<'_>> {
    let (mut over, mut tally, mut first) = (None, Tally::default(), None);
    for event in Events::of(text) {
        let event = event?;
        if event.data.trim() == "[DONE]" {
            continue;
        }
        let mut told = Event::default();
        event.data.object(&mut told)?;
        tally.take_openai_report(&told.response.usage);
        match told.kind?.as_ref() {
            "response.completed" | "response.incomplete" | "response.failed" => {
                over = Some(told.response).filter(|_| told.has_response);
                over.as_ref()?;
            }
            "error" => return None,
            "response.output_text.delta"
            | "response.refusal.delta"
            | "response.function_call_arguments.delta"
            | "response.custom_tool_call_input.delta"
            | "response.reasoning_summary_text.delta"
            | "response.reasoning_text.delta"
                if told.says =>
            {
                first.get_or_insert(event.start);
            }
            _ => {}
        }
    }
    // Without items in it, the response is rebuilt from the events before it.
    let whole = over.filter(|over| over.output.as_ref().is_some_and(|output| output.any))?;
    let told = Told { tally, first_content_offset: first, ..whole.told() };
    told.finish_reason.is_some().then_some(told)
}

/// A response.
#[derive(Default)]
struct Response<'a> {
    seen: u16,
    id: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    status: Option<Cow<'a, str>>,
    incomplete: Incomplete<'a>,
    usage: Report,
    output: Option<Output>,
}

impl<'a> Response<'a> {
    fn told(self) -> Told<'a> {
        let pending = matches!(self.status.as_deref(), Some("queued" | "in_progress"));
        let says = self.output.is_some_and(|output| output.says);
        let named = |reason: &Cow<'_, str>| !reason.trim().is_empty();
        Told {
            model: self.model,
            response_id: self.id,
            finish_reason: self.incomplete.reason.filter(named).or(self.status),
            empty: !pending && !says,
            ..Told::default()
        }
    }
}

impl<'de> Take<'de> for Response<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let (place, member) = match key {
            "id" => (&mut self.id, 0),
            "model" => (&mut self.model, 1),
            "status" => (&mut self.status, 2),
            "incomplete_details" => {
                once(&mut self.seen, 3)?;
                return value(map, &mut self.incomplete).map(|_| ());
            }
            "usage" => {
                once(&mut self.seen, 4)?;
                return value(map, &mut self.usage).map(|_| ());
            }
            "output" => {
                once(&mut self.seen, 5)?;
                return value(map, self.output.get_or_insert_default())?.list();
            }
            _ => return scan::pass(map),
        };
        once(&mut self.seen, member)?;
        *place = plain(map)?.name();
        Ok(())
    }
}

/// Why a response is incomplete.
#[derive(Default)]
struct Incomplete<'a> {
    seen: u16,
    reason: Option<Cow<'a, str>>,
}

impl<'de> Take<'de> for Incomplete<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key != "reason" {
            return scan::pass(map);
        }
        once(&mut self.seen, 0)?;
        self.reason = plain(map)?.name();
        Ok(())
    }
}

/// The items put out.
#[derive(Default)]
struct Output {
    any: bool,
    /// Any of them says or does something.
    says: bool,
}

impl<'de> Take<'de> for Output {
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut item = Item::default();
        let found = scan::element(list, &mut item)?;
        self.any |= found;
        self.says |= match item.kind.as_deref() {
            None | Some("" | "reasoning") => false,
            Some("message") => item.content.says,
            Some(_) => true,
        };
        Ok(found)
    }
}

#[derive(Default)]
struct Item<'a> {
    seen: u16,
    kind: Option<Cow<'a, str>>,
    content: Content,
}

impl<'de> Take<'de> for Item<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => {
                once(&mut self.seen, 0)?;
                self.kind = plain(map)?.name();
            }
            "content" => {
                once(&mut self.seen, 1)?;
                match value(map, &mut self.content)? {
                    Seen::Text(text) => self.content.says = !text.is_empty(),
                    Seen::Null => {}
                    other => other.list()?,
                }
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

/// The parts of a message.
#[derive(Default)]
struct Content {
    says: bool,
}

impl<'de> Take<'de> for Content {
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut part = Part::default();
        let found = scan::element(list, &mut part)?;
        self.says |= part.text.unwrap_or(part.refusal);
        Ok(found)
    }
}

#[derive(Default)]
struct Part {
    seen: u16,
    text: Option<bool>,
    refusal: bool,
}

impl<'de> Take<'de> for Part {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "text" => {
                once(&mut self.seen, 0)?;
                self.text = plain(map)?.name().map(|text| !text.is_empty());
            }
            "refusal" => {
                once(&mut self.seen, 1)?;
                self.refusal = plain(map)?.is_said();
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

/// One event.
#[derive(Default)]
struct Event<'a> {
    seen: u16,
    kind: Option<Cow<'a, str>>,
    has_response: bool,
    response: Response<'a>,
    says: bool,
}

impl<'de> Take<'de> for Event<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => {
                once(&mut self.seen, 0)?;
                self.kind = plain(map)?.text()?;
            }
            "response" => {
                once(&mut self.seen, 1)?;
                self.has_response = matches!(value(map, &mut self.response)?, Seen::Object(_));
            }
            "delta" => {
                once(&mut self.seen, 2)?;
                self.says = plain(map)?.is_said();
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}
