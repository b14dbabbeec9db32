//! Anthropic's messages: what they tell besides their texts, whole or in events.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};

use super::Told;
use super::events::Events;
use super::scan::{self, Seen, Source, Take, once, plain, unusual, value};
use super::template::Template;
use crate::dialect::usage::{Report, Tally};

/// Blocks of one message that are told apart.
const BLOCKS_MAX: u64 = 64;

/// Reads a message that came whole.
pub(super) fn answer<'a>(from: impl Source<'a>) -> Option<Told<'a>> {
    let mut message = Message::default();
    from.object(&mut message)?;
    let content = message.content?;
    let mut told = message.names;
    told.tally.take_anthropic_report(&message.usage);
    told.empty = !content.says;
    Some(told)
}

/// Reads a stream that came to its end.
pub(super) fn stream(text: &str) -> Option<Told<'_>> {
    let mut stream = Stream::default();
    let (mut done, mut template) = (false, Template::default());
    for event in Events::of(text) {
        let event = event?;
        if template.is_repeated_by(event.data) {
            continue;
        }
        template = Template::default();
        if event.data.trim() == "[DONE]" {
            done = true;
            continue;
        }
        let mut told = Event::default();
        event.data.object(&mut told)?;
        let carried = stream.take(&mut told)?;
        if carried {
            stream.first_content_offset.get_or_insert(event.start);
            template = Template::of(event.data, told.delta.text.as_ref(), None);
        }
    }
    let mut told = stream.names.filter(|_| stream.ended || done)?;
    told.tally = stream.tally;
    told.empty = !stream.says;
    told.first_content_offset = stream.first_content_offset;
    stream.spent.then_some(told)
}

/// A message.
#[derive(Default)]
struct Message<'a> {
    seen: u16,
    names: Told<'a>,
    usage: Report,
    content: Option<Content>,
}

impl<'de> Take<'de> for Message<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let (place, member) = match key {
            "id" => (&mut self.names.response_id, 0),
            "model" => (&mut self.names.model, 1),
            "stop_reason" => (&mut self.names.finish_reason, 2),
            "usage" => {
                once(&mut self.seen, 3)?;
                return value(map, &mut self.usage).map(|_| ());
            }
            "content" => {
                once(&mut self.seen, 4)?;
                return value(map, self.content.get_or_insert_default())?.list();
            }
            "error" => return plain(map)?.null(),
            _ => return scan::pass(map),
        };
        once(&mut self.seen, member)?;
        *place = plain(map)?.name();
        Ok(())
    }
}

/// The blocks of a message.
#[derive(Default)]
struct Content {
    /// Any of them says or does something.
    says: bool,
}

impl<'de> Take<'de> for Content {
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut block = Block::default();
        let found = scan::element(list, &mut block)?;
        self.says |= match block.kind {
            Kind::Text => block.text,
            Kind::Thought | Kind::Unknown => false,
            Kind::Act => true,
        };
        Ok(found)
    }
}

/// What a block is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Unknown,
    Text,
    Thought,
    /// The use of a tool, or of whatever else.
    Act,
}

#[derive(Default)]
struct Block {
    seen: u16,
    kind: Kind,
    text: bool,
}

impl<'de> Take<'de> for Block {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => {
                once(&mut self.seen, 0)?;
                self.kind = match plain(map)?.name().as_deref() {
                    None | Some("") => Kind::Unknown,
                    Some("text") => Kind::Text,
                    Some("thinking" | "redacted_thinking") => Kind::Thought,
                    Some(_) => Kind::Act,
                };
            }
            "text" => {
                once(&mut self.seen, 1)?;
                self.text = plain(map)?.text()?.is_some_and(|text| !text.is_empty());
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

/// The events of a stream so far.
#[derive(Default)]
struct Stream<'a> {
    names: Option<Told<'a>>,
    tally: Tally,
    /// Blocks that began, by index; those of them that are texts.
    begun: u64,
    texts: u64,
    says: bool,
    /// What was spent in the end is known.
    spent: bool,
    ended: bool,
    first_content_offset: Option<u64>,
}

impl<'a> Stream<'a> {
    /// Takes an event; true if it carried content, and `None` where it is unusual.
    fn take(&mut self, event: &mut Event<'a>) -> Option<bool> {
        match event.kind.take()?.as_ref() {
            "message_start" if self.names.is_none() => {
                let message = std::mem::take(&mut event.message);
                self.tally.take_anthropic_report(&message.usage);
                self.names = Some(message.names).filter(|_| event.has_message);
                return self.names.is_some().then_some(false);
            }
            "content_block_start" => self.begin(event)?,
            "content_block_delta" => {
                let block = event.place()?;
                let (text, pieces) = (&event.delta.text, &event.delta.pieces);
                let said = text.as_ref().is_some_and(|text| !text.is_empty());
                if self.begun & block == 0 {
                    return None;
                }
                if let Some(pieces) = pieces {
                    return Some(!pieces.is_empty());
                }
                self.says |= said && self.texts & block != 0;
                return Some(said || event.delta.thinks);
            }
            "message_delta" => {
                event.usage.output?;
                self.tally.take_anthropic_report(&event.usage);
                self.spent = true;
                let names = self.names.as_mut()?;
                if event.delta.ends {
                    names.finish_reason = event.delta.stop_reason.take();
                }
            }
            "message_stop" => self.ended = true,
            "ping" | "content_block_stop" => {}
            _ => return None,
        }
        Some(false)
    }

    fn begin(&mut self, event: &Event<'a>) -> Option<()> {
        let (place, block) = (event.place()?, event.block.as_ref()?);
        let again = self.begun & place != 0;
        self.begun |= place;
        match block.kind {
            Kind::Text => {
                self.texts |= place;
                self.says |= block.text;
            }
            Kind::Thought => {}
            Kind::Act => self.says = true,
            Kind::Unknown => return None,
        }
        (!again).then_some(())
    }
}

/// One event.
#[derive(Default)]
struct Event<'a> {
    seen: u16,
    kind: Option<Cow<'a, str>>,
    index: u64,
    has_message: bool,
    message: Message<'a>,
    block: Option<Block>,
    delta: Delta<'a>,
    usage: Report,
}

impl Event<'_> {
    /// The bit of the block that it is about.
    fn place(&self) -> Option<u64> {
        (self.index < BLOCKS_MAX).then_some(1 << self.index)
    }
}

impl<'de> Take<'de> for Event<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => {
                once(&mut self.seen, 0)?;
                self.kind = plain(map)?.text()?;
            }
            "index" => {
                once(&mut self.seen, 1)?;
                self.index = map.next_value()?;
            }
            "message" => {
                once(&mut self.seen, 2)?;
                self.has_message = matches!(value(map, &mut self.message)?, Seen::Object(_));
            }
            "content_block" => {
                once(&mut self.seen, 3)?;
                value(map, self.block.get_or_insert_default())?.object()?;
            }
            "delta" => {
                once(&mut self.seen, 4)?;
                value(map, &mut self.delta)?.object()?;
            }
            "usage" => {
                once(&mut self.seen, 5)?;
                value(map, &mut self.usage)?;
            }
            _ => scan::pass(map)?,
        }
        Ok(())
    }
}

/// A piece of a block, or of the message itself.
#[derive(Default)]
struct Delta<'a> {
    seen: u16,
    text: Option<Cow<'a, str>>,
    /// Of the input of a tool.
    pieces: Option<Cow<'a, str>>,
    thinks: bool,
    ends: bool,
    stop_reason: Option<Cow<'a, str>>,
}

impl<'de> Take<'de> for Delta<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "text" => {
                once(&mut self.seen, 0)?;
                self.text = plain(map)?.text()?;
            }
            "partial_json" => {
                once(&mut self.seen, 1)?;
                self.pieces = plain(map)?.text()?;
            }
            "thinking" => {
                once(&mut self.seen, 2)?;
                self.thinks = plain(map)?.text()?.is_some_and(|text| !text.is_empty());
            }
            "stop_reason" => {
                once(&mut self.seen, 3)?;
                self.ends = true;
                self.stop_reason = plain(map)?.name();
            }
            "type" | "signature" | "stop_sequence" | "citation" => scan::pass(map)?,
            _ => return Err(unusual()),
        }
        Ok(())
    }
}
