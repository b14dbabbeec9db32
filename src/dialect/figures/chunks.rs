//! Chunks of a streamed chat or completion: what they tell besides their texts.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Told;
use super::chat::{Calls, Function};
use super::events::Events;
use super::scan::{self, Seen, Source, Take, once, plain, unindexed, unusual, value};
use super::template::Template;
use crate::dialect::usage::{Report, Tally};
use crate::domain::Operation;

/// Choices of one answer that are told apart.
const CHOICES_MAX: usize = 8;

/// Reads a stream that came to its end.
pub(super) fn stream(text: &str, operation: Operation) -> Option<Told<'_>> {
    let mut chunks = Chunks::default();
    let (mut done, mut template) = (false, Template::default());
    for event in Events::of(text) {
        let event = event?;
        if template.is_repeated_by(event.data) {
            continue;
        }
        // What came in between may have said something else.
        template = Template::default();
        if event.data.trim() == "[DONE]" {
            done = true;
            continue;
        }
        let mut chunk = Chunk::new(&mut chunks);
        event.data.object(&mut chunk)?;
        if chunk.carries {
            template = Template::of(event.data, chunk.content.as_ref(), chunk.padding.as_ref());
            chunks.first_content_offset.get_or_insert(event.start);
        }
        chunks.any = true;
    }
    chunks.told(done, operation)
}

/// The chunks so far.
#[derive(Default)]
struct Chunks<'a> {
    any: bool,
    id: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    tally: Tally,
    choices: [Option<Choice<'a>>; CHOICES_MAX],
    first_content_offset: Option<u64>,
}

/// What became of one choice.
#[derive(Default)]
struct Choice<'a> {
    finish_reason: Option<Cow<'a, str>>,
    speaks: bool,
    writes: bool,
}

impl<'a> Chunks<'a> {
    fn told(self, done: bool, operation: Operation) -> Option<Told<'a>> {
        let choices = || self.choices.iter().flatten();
        let over = choices().next().is_some() && choices().all(|c| c.finish_reason.is_some());
        let says = |choice: &Choice<'_>| match operation {
            Operation::TextCompletion => choice.writes,
            _ => choice.speaks,
        };
        let empty = !choices().any(says);
        let first = self.choices.into_iter().flatten().next();
        (self.any && (done || over)).then_some(Told {
            model: self.model,
            response_id: self.id,
            finish_reason: first.and_then(|choice| choice.finish_reason),
            tally: self.tally,
            empty,
            first_content_offset: self.first_content_offset,
        })
    }
}

/// One chunk.
struct Chunk<'a, 'c> {
    seen: u16,
    chunks: &'c mut Chunks<'a>,
    /// It carries something of the answer.
    carries: bool,
    /// A text in it that the next chunk will have another of.
    content: Option<Cow<'a, str>>,
    /// A text without meaning, by which chunks are made equally long.
    padding: Option<Cow<'a, str>>,
}

impl<'a, 'c> Chunk<'a, 'c> {
    fn new(chunks: &'c mut Chunks<'a>) -> Self {
        Self { seen: 0, chunks, carries: false, content: None, padding: None }
    }
}

impl<'de> Take<'de> for Chunk<'de, '_> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => {
                once(&mut self.seen, 0)?;
                first(&mut self.chunks.id, map)?;
            }
            "model" => {
                once(&mut self.seen, 1)?;
                first(&mut self.chunks.model, map)?;
            }
            "usage" => {
                once(&mut self.seen, 2)?;
                let mut report = Report::default();
                value(map, &mut report)?;
                self.chunks.tally.take_openai_report(&report);
            }
            "choices" => {
                once(&mut self.seen, 3)?;
                match value(map, self)? {
                    Seen::List(_) | Seen::Null => {}
                    _ => return Err(unusual()),
                }
            }
            "error" => plain(map)?.null()?,
            "obfuscation" => self.padding = plain(map)?.name(),
            _ => scan::pass(map)?,
        }
        Ok(())
    }

    /// Of `choices`.
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut piece = Piece::default();
        if !scan::element(list, &mut piece)? {
            return Ok(false);
        }
        let place = self.chunks.choices.get_mut(piece.index as usize).ok_or_else(unusual)?;
        let choice = place.get_or_insert_default();
        choice.speaks |= piece.delta.speaks;
        let writes = piece.text.as_ref().is_some_and(|text| !text.trim().is_empty());
        choice.writes |= writes;
        let names_end = |end: &Cow<'_, str>| !end.is_empty() || choice.finish_reason.is_none();
        if let Some(end) = piece.finish_reason.filter(names_end) {
            choice.finish_reason = Some(end);
        }
        self.carries |= piece.delta.carries || piece.text.as_ref().is_some_and(|t| !t.is_empty());
        // A blank text is no model of others, which may be the first to say something.
        let content = piece.delta.content.or(piece.text.filter(|_| writes));
        self.content = content.or(self.content.take());
        Ok(true)
    }
}

/// Of the names that chunks repeat, the first that is not empty counts.
fn first<'de, A: MapAccess<'de>>(
    known: &mut Option<Cow<'de, str>>,
    map: &mut A,
) -> Result<(), A::Error> {
    let name = plain(map)?;
    if known.is_none() {
        *known = name.text()?.filter(|name| !name.is_empty());
    }
    Ok(())
}

/// A piece of one choice.
#[derive(Default)]
struct Piece<'a> {
    seen: u16,
    index: u64,
    finish_reason: Option<Cow<'a, str>>,
    text: Option<Cow<'a, str>>,
    delta: Delta<'a>,
}

impl<'de> Take<'de> for Piece<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => {
                once(&mut self.seen, 0)?;
                self.index = map.next_value()?;
            }
            "finish_reason" => {
                once(&mut self.seen, 1)?;
                self.finish_reason = plain(map)?.text()?;
            }
            "delta" => {
                once(&mut self.seen, 2)?;
                match value(map, &mut self.delta)? {
                    Seen::Object(_) | Seen::Null => {}
                    _ => return Err(unusual()),
                }
            }
            "text" => {
                once(&mut self.seen, 3)?;
                self.text = plain(map)?.text()?;
            }
            "message" => return Err(unusual()),
            _ => _ = unindexed(map)?,
        }
        Ok(())
    }
}

/// A piece of a message.
#[derive(Default)]
struct Delta<'a> {
    seen: u16,
    speaks: bool,
    carries: bool,
    content: Option<Cow<'a, str>>,
}

impl<'de> Take<'de> for Delta<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "content" => {
                once(&mut self.seen, 0)?;
                self.content = plain(map)?.text()?.filter(|text| !text.is_empty());
                self.says(self.content.is_some());
            }
            "refusal" => {
                once(&mut self.seen, 1)?;
                let refusal = plain(map)?.text()?;
                self.says(refusal.is_some_and(|text| !text.is_empty()));
            }
            "reasoning_content" | "reasoning" => {
                once(&mut self.seen, if key == "reasoning" { 2 } else { 3 })?;
                self.carries |= unindexed(map)?.is_something();
            }
            "tool_calls" => {
                once(&mut self.seen, 4)?;
                let mut calls = Calls { pieces: true, any: false };
                match value(map, &mut calls)? {
                    Seen::List(count) => self.carries |= count > 0,
                    Seen::Null => {}
                    _ => return Err(unusual()),
                }
                self.speaks |= calls.any;
            }
            "function_call" => {
                once(&mut self.seen, 5)?;
                let mut function = Function::default();
                match value(map, &mut function)? {
                    Seen::Object(count) => self.carries |= count > 0,
                    Seen::Null => {}
                    _ => return Err(unusual()),
                }
                self.speaks |= function.any;
            }
            "audio" => plain(map)?.null()?,
            _ => _ = unindexed(map)?,
        }
        Ok(())
    }
}

impl Delta<'_> {
    fn says(&mut self, something: bool) {
        self.speaks |= something;
        self.carries |= something;
    }
}
