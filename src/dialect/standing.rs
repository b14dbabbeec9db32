//! Values where they stand in a text with an outline, for serde: what has been read once to know where
//! everything stands is not read once more for what it says.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::skim::{Unreadable, tell_number};
use crate::domain::{Kind, Node};

/// One value.
pub(super) struct Standing<'de, 'a>(pub(super) Node<'de, 'a>);

impl<'de, 'a: 'de> Deserializer<'de> for Standing<'de, 'a> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let node = self.0;
        match node.kind() {
            Kind::Text | Kind::Escaped => {
                visitor.visit_borrowed_str(node.text().ok_or(Unreadable)?)
            }
            Kind::Number => tell_number(node.raw(), visitor),
            Kind::Word if node.is_null() => visitor.visit_unit(),
            Kind::Word => visitor.visit_bool(node.raw() == "true"),
            Kind::List => visitor.visit_seq(Items(node.items())),
            Kind::Object => visitor.visit_map(Members { rest: node.members(), value: None }),
        }
    }

    /// Nothing of the value is looked at.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The elements of a list.
struct Items<I>(I);

impl<'de, 'a: 'de, I: Iterator<Item = Node<'de, 'a>>> SeqAccess<'de> for Items<I> {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        self.0.next().map(|item| seed.deserialize(Standing(item))).transpose()
    }
}

/// The members of an object that are left, and the value of the one whose name was told.
struct Members<'de, 'a, I> {
    rest: I,
    value: Option<Node<'de, 'a>>,
}

impl<'de, 'a: 'de, I: Iterator<Item = (&'a str, Node<'de, 'a>)>> MapAccess<'de>
    for Members<'de, 'a, I>
{
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Name(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Unreadable> {
        seed.deserialize(Standing(self.value.take().ok_or(Unreadable)?))
    }
}

/// The name of a member.
struct Name<'a>(&'a str);

impl<'de, 'a: 'de> Deserializer<'de> for Name<'a> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_borrowed_str(self.0)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
