//! Chat completions, and what is built like them: what an answer that came whole tells besides its texts.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Told;
use super::scan::{self, Seen, Source, Take, once, plain, unindexed, unusual, value};
use crate::dialect::usage::Report;
use crate::domain::Operation;

/// Calls of one streamed message that are told apart.
const CALLS_MAX: u64 = 64;

/// What an answer that came whole tells.
pub(super) fn answer<'a>(from: impl Source<'a>, operation: Operation) -> Option<Told<'a>> {
    let mut answer = Answer::default();
    from.object(&mut answer)?;
    let mut told = Told { model: answer.model, response_id: answer.id, ..Told::default() };
    told.tally.take_openai_report(&answer.usage);
    if operation != Operation::Embeddings {
        let choices = answer.choices?;
        told.empty = match operation {
            Operation::TextCompletion => !choices.write,
            _ => !choices.speak,
        };
        told.finish_reason = choices.zero.or(choices.first).and_then(|end| end.0);
    }
    Some(told)
}

/// A whole answer's members.
#[derive(Default)]
struct Answer<'a> {
    seen: u16,
    id: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    usage: Report,
    choices: Option<Choices<'a>>,
}

/// Why a choice ended.
type End<'a> = (Option<Cow<'a, str>>,);

#[derive(Default)]
struct Choices<'a> {
    /// Any of them says or calls something.
    speak: bool,
    /// Any of them holds a text that is not blank.
    write: bool,
    /// The first one, and the first one with index 0.
    first: Option<End<'a>>,
    zero: Option<End<'a>>,
}

#[derive(Default)]
struct Choice<'a> {
    seen: u16,
    index: Option<u64>,
    finish_reason: Option<Cow<'a, str>>,
    message: Message,
    writes: bool,
}

/// A message that came whole.
#[derive(Default)]
struct Message {
    seen: u16,
    speaks: bool,
}

impl<'de> Take<'de> for Answer<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => {
                once(&mut self.seen, 0)?;
                self.id = plain(map)?.name();
            }
            "model" => {
                once(&mut self.seen, 1)?;
                self.model = plain(map)?.name();
            }
            "usage" => {
                once(&mut self.seen, 2)?;
                value(map, &mut self.usage)?;
            }
            "choices" => {
                once(&mut self.seen, 3)?;
                value(map, self.choices.get_or_insert_default())?.list()?;
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Choices<'de> {
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut choice = Choice::default();
        if !scan::element(list, &mut choice)? {
            return Ok(false);
        }
        self.speak |= choice.message.speaks;
        self.write |= choice.writes;
        let end = (choice.finish_reason,);
        if choice.index == Some(0) && self.zero.is_none() {
            self.zero = Some(end);
        } else if self.first.is_none() {
            self.first = Some(end);
        }
        Ok(true)
    }
}

impl<'de> Take<'de> for Choice<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => {
                once(&mut self.seen, 0)?;
                self.index = Some(map.next_value()?);
            }
            "finish_reason" => {
                once(&mut self.seen, 1)?;
                self.finish_reason = plain(map)?.name();
            }
            "text" => {
                once(&mut self.seen, 3)?;
                self.writes = plain(map)?.name().is_some_and(|text| !text.trim().is_empty());
            }
            "message" => {
                once(&mut self.seen, 2)?;
                match value(map, &mut self.message)? {
                    Seen::Object(_) | Seen::Null => {}
                    _ => return Err(unusual()),
                }
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Message {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "content" => {
                once(&mut self.seen, 0)?;
                self.speaks |= plain(map)?.text()?.is_some_and(|text| !text.is_empty());
            }
            "refusal" => {
                once(&mut self.seen, 1)?;
                self.speaks |= plain(map)?.is_said();
            }
            "tool_calls" => {
                once(&mut self.seen, 2)?;
                let mut calls = Calls::default();
                match value(map, &mut calls)? {
                    Seen::List(_) | Seen::Null => self.speaks |= calls.any,
                    _ => return Err(unusual()),
                }
            }
            "function_call" => {
                once(&mut self.seen, 3)?;
                let mut function = Function::default();
                match value(map, &mut function)? {
                    Seen::Object(_) | Seen::Null => self.speaks |= function.any,
                    _ => return Err(unusual()),
                }
            }
            "audio" => {
                once(&mut self.seen, 4)?;
                plain(map)?.null()?;
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

/// Calls of tools, of which one with a name or arguments is enough.
#[derive(Default)]
pub(super) struct Calls {
    /// They are pieces, told apart by their index.
    pub(super) pieces: bool,
    pub(super) any: bool,
}

impl<'de> Take<'de> for Calls {
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut call = Call::default();
        if !scan::element(list, &mut call)? {
            return Ok(false);
        }
        if self.pieces && call.index.is_none_or(|index| index >= CALLS_MAX) {
            return Err(unusual());
        }
        self.any |= call.function.any;
        Ok(true)
    }
}

#[derive(Default)]
struct Call {
    seen: u16,
    index: Option<u64>,
    function: Function,
}

impl<'de> Take<'de> for Call {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => {
                once(&mut self.seen, 0)?;
                self.index = Some(map.next_value()?);
            }
            "function" => {
                once(&mut self.seen, 1)?;
                value(map, &mut self.function)?.object()?;
            }
            "custom" => return Err(unusual()),
            _ => return unindexed(map).map(|_| ()),
        }
        Ok(())
    }
}

/// The name and the arguments of a call.
#[derive(Default)]
pub(super) struct Function {
    seen: u16,
    /// Any of them is there.
    pub(super) any: bool,
}

impl<'de> Take<'de> for Function {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let member = match key {
            "name" => 0,
            "arguments" => 1,
            "input" => 2,
            _ => return unindexed(map).map(|_| ()),
        };
        once(&mut self.seen, member)?;
        self.any |= plain(map)?.text()?.is_some_and(|text| !text.is_empty());
        Ok(())
    }
}
