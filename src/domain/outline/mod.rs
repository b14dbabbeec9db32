//! The outline of a JSON text: where each of its values stands. Nothing of the text is copied, but strings
//! with escapes, so that a text in which there is nothing to change can be kept as it is.
//!
//! Only what is plain has an outline: text that another reader of JSON would read in the same way and, but
//! for blanks and escapes, write in the same way. Whatever else JSON allows (a name given twice, numbers
//! that a reader rounds) has to be read as a [`serde_json::Value`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use memchr::memchr2;

use super::bytes::string_len;

/// Digits of a number that surely fits 64 bits.
const DIGITS_MAX: usize = 18;
/// Members of an object below which comparing all names is quicker than hashing them.
const FEW_MEMBERS: usize = 16;

/// Where the values of a JSON text stand, in the order of the text. It does not hold the text, which has to be
/// given again to look at a value.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Of the text.
    bytes: usize,
    /// The first one is the whole; a container's parts follow it, a member's name before its value.
    parts: Vec<Part>,
    /// Strings without their escapes.
    plain: Vec<String>,
    /// No line feed, carriage return or tab stands between the values.
    is_line: bool,
}

/// One value or name.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    /// Where it stands, quotes included.
    start: u32,
    end: u32,
    /// The part behind all of its own.
    next: u32,
    /// Which of the strings with escapes it is.
    plain: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`, `true` or `false`.
    Word,
    /// A number.
    Number,
    /// A string without escapes.
    Text,
    /// A string with escapes.
    Escaped,
    /// An array.
    List,
    /// An object.
    Object,
}

/// One value of a text with an outline.
#[derive(Clone, Copy, Debug)]
pub struct Node<'o, 'a: 'o> {
    outline: &'o Outline,
    text: &'a str,
    at: usize,
}

impl Outline {
    /// The outline of `text`, with at most `depth_max` containers around a value and `parts_max` values and
    /// names; `None` where it is not JSON, or not plain.
    pub fn of(text: &str, depth_max: usize, parts_max: usize) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let bytes = text.len();
        let outline = Self { bytes, parts: Vec::with_capacity(64), plain: vec![], is_line: true };
        let mut reader = Reader { text, outline, at: 0, depth_max, parts_max, names: Vec::new() };
        reader.value(0)?;
        reader.peek().is_none().then_some(reader.outline)
    }

    /// The whole of `text`, which must be the one that this is the outline of; `None` for one of another length.
    pub fn whole<'a>(&self, text: &'a str) -> Option<Node<'_, 'a>> {
        (text.len() == self.bytes).then_some(Node { outline: self, text, at: 0 })
    }

    /// Bytes that it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let plain = self.plain.iter().map(|text| size_of::<String>() + text.capacity());
        self.parts.capacity() * size_of::<Part>() + plain.sum::<usize>()
    }
}

impl<'o, 'a> Node<'o, 'a> {
    fn part(self) -> Part {
        self.outline.parts[self.at]
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.part().kind
    }

    /// Its JSON, as it stands in the text.
    pub fn raw(self) -> &'a str {
        &self.text[self.range()]
    }

    /// Where it stands in the text; no two values stand at one place.
    pub fn range(self) -> Range<usize> {
        let Part { start, end, .. } = self.part();
        start as usize..end as usize
    }

    /// What a string says.
    pub fn text(self) -> Option<&'o str> {
        match self.kind() {
            Kind::Text => self.raw().get(1..self.raw().len() - 1),
            Kind::Escaped => self.outline.plain.get(self.part().plain as usize).map(String::as_str),
            _ => None,
        }
    }

    /// True for `null`.
    pub fn is_null(self) -> bool {
        self.raw() == "null"
    }

    /// The number, where it is a whole one.
    pub fn count(self) -> Option<u64> {
        if self.kind() == Kind::Number { self.raw().parse().ok() } else { None }
    }

    /// The elements of an array, none for anything else.
    pub fn items(self) -> impl Iterator<Item = Node<'o, 'a>> + Clone {
        self.within(Kind::List)
    }

    /// Names and values of an object, none for anything else.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Node<'o, 'a>)> + Clone {
        let mut parts = self.within(Kind::Object);
        std::iter::from_fn(move || {
            let name = parts.next()?.raw();
            Some((&name[1..name.len() - 1], parts.next()?))
        })
    }

    /// The member `name` of an object.
    pub fn member(self, name: &str) -> Option<Node<'o, 'a>> {
        let (part, parts) = (self.part(), self.outline.parts.as_slice());
        let end = if part.kind == Kind::Object { part.next as usize } else { 0 };
        let mut at = self.at + 1;
        while at < end {
            let (key, value) = (parts.get(at)?, parts.get(at + 1)?);
            // Most are of another length, which is told without a look at the text.
            let (start, end) = (key.start as usize + 1, key.end as usize - 1);
            if end - start == name.len() && self.text.get(start..end) == Some(name) {
                return Some(Node { at: at + 1, ..self });
            }
            at = value.next as usize;
        }
        None
    }

    /// Its JSON on one line: as it stands, where no line feed is in it.
    pub fn line(self) -> Cow<'a, str> {
        if self.outline.is_line {
            return Cow::Borrowed(self.raw());
        }
        let mut line = String::with_capacity(self.raw().len());
        self.write(&mut line);
        Cow::Owned(line)
    }

    /// The JSON of an array's first `count` elements, as an array on one line.
    pub fn first_items(self, count: usize) -> String {
        let mut line = String::from("[");
        let items = self.items().take(count);
        match (items.clone().next(), items.clone().last()) {
            (Some(first), Some(last)) if self.outline.is_line => {
                let (start, end) = (first.part().start as usize, last.part().end as usize);
                line.push_str(&self.text[start..end]);
            }
            _ => write_all(items, &mut line),
        }
        line.push(']');
        line
    }

    /// Adds its JSON without any blanks.
    fn write(self, line: &mut String) {
        match self.kind() {
            Kind::List => {
                line.push('[');
                write_all(self.items(), line);
                line.push(']');
            }
            Kind::Object => {
                line.push('{');
                let mut sign = "";
                for part in self.within(Kind::Object) {
                    line.push_str(sign);
                    sign = if sign == ":" { "," } else { ":" };
                    part.write(line);
                }
                line.push('}');
            }
            _ => line.push_str(self.raw()),
        }
    }

    fn within(self, kind: Kind) -> impl Iterator<Item = Node<'o, 'a>> + Clone {
        let (part, Self { outline, text, .. }) = (self.part(), self);
        let end = if part.kind == kind { part.next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let node = (at < end).then_some(Node { outline, text, at })?;
            at = node.part().next as usize;
            Some(node)
        })
    }
}

/// Adds values with commas between.
fn write_all<'o, 'a: 'o>(items: impl Iterator<Item = Node<'o, 'a>>, line: &mut String) {
    let mut sign = "";
    for item in items {
        line.push_str(std::mem::replace(&mut sign, ","));
        item.write(line);
    }
}

struct Reader<'a> {
    text: &'a str,
    outline: Outline,
    at: usize,
    depth_max: usize,
    parts_max: usize,
    /// Names of the objects that are open.
    names: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// The next byte that is no blank; it stays where it is.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes().get(self.at)?;
            match byte {
                b' ' => {}
                b'\n' | b'\r' | b'\t' => self.outline.is_line = false,
                _ => return Some(byte),
            }
            self.at += 1;
        }
    }

    /// Adds what begins at `start` and ends here.
    fn add(&mut self, kind: Kind, start: usize, plain: usize) -> Option<()> {
        let next = self.outline.parts.len() + 1;
        let small = |number: usize| u32::try_from(number).ok();
        let (start, end, plain) = (small(start)?, small(self.at)?, small(plain)?);
        self.outline.parts.push(Part { kind, start, end, next: small(next)?, plain });
        (next <= self.parts_max).then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let byte = self.peek()?;
        let start = self.at;
        match byte {
            b'"' => self.string(),
            b'{' | b'[' if depth < self.depth_max => self.container(byte, depth + 1),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'-' | b'0'..=b'9' => {
                self.number()?;
                self.add(Kind::Number, start, 0)
            }
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let start = self.at;
        self.bytes()[start..].starts_with(word.as_bytes()).then_some(())?;
        self.at += word.len();
        self.add(Kind::Word, start, 0)
    }

    /// Passes over a number that is written as it would be written again.
    fn number(&mut self) -> Option<()> {
        let rest = &self.bytes()[self.at..];
        let is_part =
            |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
        let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let text = &self.text[self.at..self.at + len];
        self.at += len;
        let is_count = len <= DIGITS_MAX && text.bytes().all(|digit| digit.is_ascii_digit());
        if is_count && (!text.starts_with('0') || len == 1) {
            return Some(());
        }
        let number: serde_json::Number = serde_json::from_str(text).ok()?;
        (number.to_string() == text).then_some(())
    }

    /// Passes over the string whose opening quote is next; true where it has escapes.
    fn quoted(&mut self) -> Option<bool> {
        let start = self.at + 1;
        let bytes = self.bytes().get(start..)?;
        let mut at = string_len(bytes)?;
        if bytes[at] == b'"' {
            self.at = start + at + 1;
            return Some(false);
        }
        while bytes[at] == b'\\' {
            at += 2;
            at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        }
        self.at = start + at + 1;
        (bytes[at] == b'"').then_some(true)
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at;
        if !self.quoted()? {
            return self.add(Kind::Text, start, 0);
        }
        let plain = serde_json::from_str(&self.text[start..self.at]).ok()?;
        self.outline.plain.push(plain);
        self.add(Kind::Escaped, start, self.outline.plain.len() - 1)
    }

    fn container(&mut self, begin: u8, depth: usize) -> Option<()> {
        let (kind, end) = if begin == b'{' { (Kind::Object, b'}') } else { (Kind::List, b']') };
        let (own, names) = (self.outline.parts.len(), self.names.len());
        let start = self.at;
        self.add(kind, start, 0)?;
        self.at += 1;
        let mut is_first = true;
        loop {
            let byte = self.peek()?;
            if byte == end {
                break;
            }
            if !std::mem::replace(&mut is_first, false) {
                (byte == b',').then_some(())?;
                self.at += 1;
            }
            if kind == Kind::Object {
                self.name()?;
            }
            self.value(depth)?;
        }
        self.at += 1;
        let next = self.outline.parts.len();
        let part = self.outline.parts.get_mut(own)?;
        (part.end, part.next) = (u32::try_from(self.at).ok()?, u32::try_from(next).ok()?);
        let are_own = are_different(&self.names[names..]);
        self.names.truncate(names);
        are_own.then_some(())
    }

    /// A member's name, without escapes, and the colon behind it.
    fn name(&mut self) -> Option<()> {
        (self.peek()? == b'"').then_some(())?;
        let start = self.at;
        (!self.quoted()?).then_some(())?;
        self.names.push(&self.text[start + 1..self.at - 1]);
        self.add(Kind::Text, start, 0)?;
        (self.peek()? == b':').then_some(())?;
        self.at += 1;
        Some(())
    }
}

/// True where no name is there twice.
fn are_different(names: &[&str]) -> bool {
    if names.len() > FEW_MEMBERS {
        let mut known = HashSet::with_capacity(names.len());
        return names.iter().all(|name| known.insert(name));
    }
    names.iter().enumerate().all(|(at, name)| !names[..at].contains(name))
}

#[cfg(test)]
mod tests;
