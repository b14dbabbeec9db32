//! JSON of which only a few members matter: all of it is checked by the same rules as a text that is
//! built, and nothing of it is built. An error says that the text has to be read as a whole.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use crate::dialect::skim;
use crate::dialect::standing::Standing;
use crate::dialect::usage::count_of;
use crate::domain::Node;

/// Levels that a value of no interest may have. With the levels above it that stays below
/// [`DEPTH_MAX`](crate::dialect::json::DEPTH_MAX); deeper texts are read as a whole.
const LEVELS_MAX: u8 = 50;

/// What takes the parts of one value; parts that it does not name are passed over.
pub(super) trait Take<'de>: Sized {
    /// Takes the member `key` of an object, whose value is next in `map`.
    fn member<A: MapAccess<'de>>(&mut self, _key: &str, map: &mut A) -> Result<(), A::Error> {
        pass(map)
    }

    /// Takes the next element of a list; false where there is none.
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        Ok(list.next_element_seed(Value(&mut Passed::any()))?.is_some())
    }
}

/// What a value is; of objects and lists, the number of their parts.
#[derive(Debug)]
pub(super) enum Seen<'de> {
    Null,
    Bool,
    /// With the count of something that it can be.
    Number(Option<u64>),
    Text(Cow<'de, str>),
    List(usize),
    Object(usize),
}

impl<'de> Seen<'de> {
    /// A string; anything else is no name.
    pub(super) fn name(self) -> Option<Cow<'de, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A string or null; an error for anything else.
    pub(super) fn text<E: Error>(self) -> Result<Option<Cow<'de, str>>, E> {
        match self {
            Self::Text(text) => Ok(Some(text)),
            Self::Null => Ok(None),
            _ => Err(unusual()),
        }
    }

    /// An error for what is no object.
    pub(super) fn object<E: Error>(self) -> Result<(), E> {
        if matches!(self, Self::Object(_)) { Ok(()) } else { Err(unusual()) }
    }

    /// An error for what is no list.
    pub(super) fn list<E: Error>(self) -> Result<(), E> {
        if matches!(self, Self::List(_)) { Ok(()) } else { Err(unusual()) }
    }

    /// An error for what is not null.
    pub(super) fn null<E: Error>(self) -> Result<(), E> {
        if matches!(self, Self::Null) { Ok(()) } else { Err(unusual()) }
    }

    /// True for a string that is not empty.
    pub(super) fn is_said(&self) -> bool {
        matches!(self, Self::Text(text) if !text.is_empty())
    }

    /// True for a string, a list or an object that is not empty.
    pub(super) fn is_something(&self) -> bool {
        self.is_said() || matches!(self, Self::List(1..) | Self::Object(1..))
    }
}

/// What an object is read from.
pub(super) trait Source<'de> {
    /// Reads all of it, which has to be one object.
    fn object(self, into: &mut impl Take<'de>) -> Option<()>;
}

/// A JSON text.
impl<'de> Source<'de> for &'de str {
    fn object(self, into: &mut impl Take<'de>) -> Option<()> {
        let seen = skim::brief(self, Value(into))?;
        matches!(seen, Seen::Object(_)).then_some(())
    }
}

/// A text that has an outline.
impl<'de, 'a: 'de> Source<'de> for Node<'de, 'a> {
    fn object(self, into: &mut impl Take<'de>) -> Option<()> {
        let seen = Value(into).deserialize(Standing(self)).ok()?;
        matches!(seen, Seen::Object(_)).then_some(())
    }
}

/// The next value of an object, whose parts `into` takes.
pub(super) fn value<'de, A: MapAccess<'de>>(
    map: &mut A,
    into: &mut impl Take<'de>,
) -> Result<Seen<'de>, A::Error> {
    map.next_value_seed(Value(into))
}

/// The next value of an object, of whose parts none matters.
pub(super) fn plain<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Seen<'de>, A::Error> {
    value(map, &mut Passed::any())
}

/// As [`plain`]; an error where a list holds objects with an `index`, by which folding tells them apart.
pub(super) fn unindexed<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Seen<'de>, A::Error> {
    value(map, &mut Passed { indexed: false, ..Passed::any() })
}

/// Passes over the next value of an object.
pub(super) fn pass<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value_seed(Nothing).map(|_| ())
}

/// The next value of an object, as a count of something; `None` for what is none.
pub(super) fn count<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u64>, A::Error> {
    match plain(map)? {
        Seen::Number(count) => Ok(count),
        _ => Ok(None),
    }
}

/// Takes the next element of a list, which must be an object; false where there is none.
pub(super) fn element<'de, A: SeqAccess<'de>>(
    list: &mut A,
    into: &mut impl Take<'de>,
) -> Result<bool, A::Error> {
    match list.next_element_seed(Value(into))? {
        None => Ok(false),
        Some(Seen::Object(_)) => Ok(true),
        Some(_) => Err(unusual()),
    }
}

/// Notes that a member came; an error where it came before, since then the last one counts.
pub(super) fn once<E: Error>(seen: &mut u16, member: u8) -> Result<(), E> {
    let before = *seen;
    *seen |= 1 << member;
    if before == *seen { Err(unusual()) } else { Ok(()) }
}

/// What has to be read as a whole.
pub(super) fn unusual<E: Error>() -> E {
    E::custom("unusual")
}

/// A value of which nothing matters, within so many levels.
struct Passed {
    left: u8,
    indexed: bool,
}

impl Passed {
    fn any() -> Self {
        Self { left: LEVELS_MAX, indexed: true }
    }

    fn below<E: Error>(&self) -> Result<Self, E> {
        match self.left {
            0 => Err(unusual()),
            left => Ok(Self { left: left - 1, ..*self }),
        }
    }
}

impl<'de> Take<'de> for Passed {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if !self.indexed && key == "index" {
            return Err(unusual());
        }
        value(map, &mut self.below()?).map(|_| ())
    }

    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        Ok(list.next_element_seed(Value(&mut self.below()?))?.is_some())
    }
}

/// Passes over a value.
struct Nothing;

impl<'de> DeserializeSeed<'de> for Nothing {
    type Value = Seen<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Seen<'de>, D::Error> {
        // Whoever knows where the value ends need not look into it.
        from.deserialize_ignored_any(Value(&mut Passed::any()))
    }
}

/// Reads any value.
struct Value<'a, T>(&'a mut T);

impl<'de, T: Take<'de>> DeserializeSeed<'de> for Value<'_, T> {
    type Value = Seen<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Seen<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Value<'_, T> {
    type Value = Seen<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen<'de>, E> {
        Ok(Seen::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Seen<'de>, E> {
        Ok(Seen::Bool)
    }

    fn visit_u64<E: Error>(self, whole: u64) -> Result<Seen<'de>, E> {
        Ok(Seen::Number(count_of(Some(whole), None)))
    }

    fn visit_i64<E: Error>(self, negative: i64) -> Result<Seen<'de>, E> {
        Ok(Seen::Number(count_of(None, Some(negative as f64))))
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<Seen<'de>, E> {
        Ok(Seen::Number(count_of(None, Some(float))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seen<'de>, E> {
        Ok(Seen::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Seen<'de>, E> {
        Ok(Seen::Text(Cow::Borrowed(text)))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Seen<'de>, E> {
        Ok(Seen::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen<'de>, A::Error> {
        let mut count = 0;
        while self.0.element(&mut list)? {
            count += 1;
        }
        Ok(Seen::List(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen<'de>, A::Error> {
        let mut count = 0;
        while let Some(key) = map.next_key_seed(Key)? {
            self.0.member(&key, &mut map)?;
            count += 1;
        }
        Ok(Seen::Object(count))
    }
}

/// Reads a key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }
}
