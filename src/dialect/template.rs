//! Most events of a stream are the one before with another text in it: they need not be built to be folded.

use std::borrow::Cow;
use std::ops::Range;

use super::fold::Fold;
use super::json;
use super::sse::Event;
use crate::domain::bytes::{string_end, string_len};
use crate::domain::{Node, Outline};

/// Where texts stand in an event, quotes included: its content, and one without meaning.
pub(super) type Texts = (Range<usize>, Option<Range<usize>>);

/// An event that others may repeat.
#[derive(Debug)]
pub(super) struct Template {
    name: String,
    data: String,
    /// Where its texts stand, in their order; which of them is the content.
    texts: Vec<Range<usize>>,
    content: usize,
}

impl Template {
    /// The event that `fold` took last, if others may repeat it.
    pub(super) fn of(event: &Event<'_>, fold: &mut impl Fold) -> Option<Self> {
        let outline = Outline::of(&event.data, json::DEPTH_MAX, json::NODES_MAX)?;
        let (content, other) = fold.repeatable(outline.whole(&event.data)?)?;
        let is_second = other.as_ref().is_some_and(|other| other.start < content.start);
        let mut texts = vec![content];
        texts.extend(other);
        texts.sort_by_key(|text| text.start);
        let (name, data) = (event.name.to_string(), event.data.to_string());
        Some(Self { name, data, texts, content: usize::from(is_second) })
    }

    /// The content of an event that differs from this one in nothing but its texts.
    pub(super) fn content_of<'e>(&self, event: &'e Event<'_>) -> Option<Cow<'e, str>> {
        let (mut rest, mut from, mut content) = (&*event.data, 0, None);
        for (nth, text) in self.texts.iter().enumerate() {
            rest = rest.strip_prefix(self.data.get(from..text.start)?)?;
            let (said, behind) = said(rest)?;
            if nth == self.content {
                content = Some(said);
            }
            (rest, from) = (behind, text.end);
        }
        content.filter(|_| self.data.get(from..) == Some(rest) && self.name == event.name)
    }
}

/// What the string in quotes at the beginning of `rest` says, and what stands behind it.
fn said(rest: &str) -> Option<(Cow<'_, str>, &str)> {
    let plain = rest.strip_prefix('"')?;
    let len = string_len(plain.as_bytes())?;
    if plain.as_bytes().get(len) == Some(&b'"') {
        return Some((Cow::Borrowed(&plain[..len]), &plain[len + 1..]));
    }
    let (quoted, behind) = rest.split_at(string_end(rest.as_bytes(), 0)?);
    Some((Cow::Owned(serde_json::from_str(quoted).ok()?), behind))
}

/// The place of a text that is not empty.
pub(super) fn place(text: Node<'_, '_>) -> Option<Range<usize>> {
    text.text().is_some_and(|text| !text.is_empty()).then(|| text.range())
}
