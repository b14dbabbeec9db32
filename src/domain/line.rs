//! What is kept, as one line of JSON.
//!
//! The bytes are those of serde_json, which looks at every byte of a string by itself; a third of what
//! keeping an exchange costs went there. Here strings are passed over in stretches. Everything that is no
//! string or container is left to serde_json.

use serde::Serialize;
use serde::ser::{self, Serializer};
use serde_json::Error;

use super::bytes::first_escaped;
use super::kept::JSON_TEXT;

/// `value` as one line of JSON, without a line feed; `capacity`: bytes that it may take.
///
/// Fails, as serde_json does, for maps whose keys are no strings; and for byte strings.
pub fn to_line(value: &impl Serialize, capacity: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(capacity);
    value.serialize(Writer::new(&mut out))?;
    Ok(out)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Strings are JSON already.
    is_json: bool,
}

/// The parts of a container, and what ends it.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
    end: &'static [u8],
    /// It is a text that is JSON already, by the name of [`super::Json`]'s.
    is_json: bool,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_json: false }
    }

    fn begin(self, begin: &[u8], end: &'static [u8]) -> Parts<'a> {
        self.out.extend_from_slice(begin);
        Parts { out: self.out, any: false, end, is_json: false }
    }

    /// `{"variant":`, with what the variant holds to follow.
    fn variant(self, variant: &str, begin: &[u8], end: &'static [u8]) -> Parts<'a> {
        self.out.push(b'{');
        text(self.out, variant);
        self.out.push(b':');
        self.begin(begin, end)
    }
}

impl Parts<'_> {
    fn next(&mut self) -> Writer<'_> {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        Writer::new(self.out)
    }

    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let writer = self.next();
        let from = writer.out.len();
        key.serialize(Writer::new(&mut *writer.out))?;
        match writer.out.get(from) {
            Some(b'"') => Ok(()),
            _ => Err(ser::Error::custom("key must be a string")),
        }
    }

    /// The name of a field, which is a word of ours: nothing in it has to be escaped.
    fn field(&mut self, name: &'static str) {
        debug_assert!(first_escaped(name.as_bytes()).is_none(), "{name} has to be escaped");
        let out = &mut *self.next().out;
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Writer::new(&mut *self.out))
    }

    fn close(self) {
        self.out.extend_from_slice(self.end);
    }
}

/// A string in quotes; what has to be escaped is escaped as serde_json does.
fn text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.push(b'"');
    while let Some(at) = first_escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digit = |value: u8| DIGITS[usize::from(value & 15)];
            return out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                digit(byte >> 4),
                digit(byte),
            ]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Numbers and truth values, as serde_json writes them.
macro_rules! plain {
    ($($name:ident: $of:ty),* $(,)?) => {$(
        fn $name(self, value: $of) -> Result<(), Error> {
            serde_json::to_writer(self.out, &value)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    plain! {
        serialize_bool: bool, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        match self.is_json {
            true => self.out.extend_from_slice(value.as_bytes()),
            false => text(self.out, value),
        }
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        Err(ser::Error::custom("bytes are no JSON"))
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let parts = self.variant(name, b"", b"}");
        value.serialize(Writer::new(&mut *parts.out))?;
        parts.close();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Error> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        Ok(self.variant(name, b"[", b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(self.begin(b"{", b"}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        match name == JSON_TEXT {
            true => Ok(Parts { is_json: true, ..self.begin(b"", b"") }),
            false => Ok(self.begin(b"{", b"}")),
        }
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        Ok(self.variant(name, b"{", b"}}"))
    }
}

/// Lists of all kinds.
macro_rules! list {
    ($($of:ident::$part:ident),*) => {$(
        impl ser::$of for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn $part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                value.serialize(self.next())
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        }
    )*};
}

/// Objects with names that are known.
macro_rules! object {
    ($($of:ident),*) => {$(
        impl ser::$of for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                if self.is_json {
                    return value.serialize(Writer { out: &mut *self.out, is_json: true });
                }
                self.field(key);
                self.value(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        }
    )*};
}

list!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
object!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    enum Kind {
        Unit,
        Newtype(u8),
        Tuple(u8, &'static str),
        Struct { a: Option<f32>, b: () },
    }

    #[derive(Serialize)]
    struct Whole {
        kinds: Vec<Kind>,
        pair: (char, i128),
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }

    pub(in crate::domain) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ -~\u{0}-\u{1f}\"\\\\é\u{1f389}]{0,80}".prop_map(Value::from),
            ".{0,200}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".{0,20}", inner), 0..6).prop_map(|members| members
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_line_is_what_serde_json_writes(value in values()) {
            prop_assert_eq!(to_line(&value, 0)?, serde_json::to_vec(&value)?);
        }
    }

    #[test]
    fn every_shape_is_what_serde_json_writes() {
        let kinds = vec![
            Kind::Unit,
            Kind::Newtype(1),
            Kind::Tuple(2, "a\"b"),
            Kind::Struct { a: Some(1.5), b: () },
            Kind::Struct { a: None, b: () },
        ];
        let more = BTreeMap::from([("x\n".to_owned(), json!({"y": [1.0e300, -0.0, "\u{7f}"]}))]);
        let whole = Whole { kinds, pair: ('"', -1), more };
        assert_eq!(to_line(&whole, 64).ok(), serde_json::to_vec(&whole).ok());
        assert!(to_line(&BTreeMap::from([(1.5_f64.to_bits(), 1)]), 0).is_err());
    }
}
