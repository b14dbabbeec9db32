//! Identifiers that we mint: exchange ids (ULID) and W3C trace and span ids.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A ULID: 48 bits of Unix milliseconds, then 80 random bits; sorts by time.
/// Format: <https://github.com/ulid/spec>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u128);

impl ExchangeId {
    /// A fresh id for an exchange that began at `now`.
    pub fn new(now: Timestamp) -> Self {
        let millis = u128::try_from(now.as_millisecond()).unwrap_or(0) & ((1 << 48) - 1);
        let random = rand::random::<u128>() >> 48;
        Self((millis << 80) | random)
    }

    /// Reads the 26 characters that [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        // 26 digits of 5 bits are 130: the first may only be 0 to 7.
        if text.len() != 26 || text.as_bytes()[0] > b'7' {
            return None;
        }
        text.bytes()
            .try_fold(0_u128, |id, byte| {
                let digit = CROCKFORD.iter().position(|known| *known == byte)?;
                Some((id << 5) | digit as u128)
            })
            .map(Self)
    }

    /// The time that it was made at, to the millisecond.
    pub fn time(&self) -> Timestamp {
        let millis = i64::try_from(self.0 >> 80).unwrap_or(0);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The 26 characters that [`fmt::Display`] writes.
    fn text<'t>(&self, into: &'t mut [u8; 26]) -> &'t str {
        for (i, byte) in into.iter_mut().rev().enumerate() {
            *byte = CROCKFORD[((self.0 >> (5 * i)) & 31) as usize];
        }
        std::str::from_utf8(into).unwrap_or_default()
    }

    /// The id as big-endian bytes: they sort as the text does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The same 128 bits in the form of a UUID, for headers whose readers expect one.
    pub fn as_uuid(&self) -> String {
        let mut text = String::with_capacity(36);
        for (at, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        text
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; 26]))
    }
}

impl fmt::Debug for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for ExchangeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an exchange id (a ULID)"))
    }
}

impl Serialize for ExchangeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; 26]))
    }
}

macro_rules! hex_id {
    ($name:ident, $int:ty, $digits:literal, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name($int);

        impl $name {
            /// A fresh id; never zero, which the specification calls invalid.
            pub fn random() -> Self {
                Self(rand::random::<$int>().max(1))
            }

            /// Reads lower-case hex of the exact length; `None` for anything else and for zero.
            pub fn parse(text: &str) -> Option<Self> {
                let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let value = (text.len() == $digits && lower)
                    .then(|| <$int>::from_str_radix(text, 16).ok())
                    .flatten()?;
                (value != 0).then_some(Self(value))
            }

            /// The id of these big-endian bytes; `None` where there are more or fewer, and for zero.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let value = <$int>::from_be_bytes(bytes.try_into().ok()?);
                (value != 0).then_some(Self(value))
            }

            /// The id as big-endian bytes.
            pub fn to_bytes(self) -> [u8; $digits / 2] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text)
                    .ok_or_else(|| D::Error::custom(concat!("not ", $digits, " hex digits")))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

hex_id!(TraceId, u128, 32, "A W3C trace id: 16 bytes, shown as 32 lower-case hex digits.");
hex_id!(SpanId, u64, 16, "A W3C span id: 8 bytes, shown as 16 lower-case hex digits.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_id_is_a_ulid_that_sorts_by_time() {
        let early = ExchangeId::new(Timestamp::UNIX_EPOCH);
        let late = ExchangeId::new(Timestamp::from_millisecond(1_700_000_000_000).expect("valid"));
        assert!(late > early && late.to_string() > early.to_string());
        assert_eq!(early.to_string().len(), 26);
        assert!(early.to_string().starts_with("0000000000"));
        assert_eq!(ExchangeId::parse(&late.to_string()), Some(late));
        assert_eq!(late.time().as_millisecond(), 1_700_000_000_000);
        for wrong in [
            "",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "0ZZZZZZZZZZZZZZZZZZZZZZZZI",
            "é23456789012345678901234",
        ] {
            assert_eq!(ExchangeId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(late.as_uuid().replace('-', ""), format!("{:032x}", late.0));
        assert_eq!(
            late.as_uuid().match_indices('-').map(|(at, _)| at).collect::<Vec<_>>(),
            [8, 13, 18, 23]
        );
    }

    #[test]
    fn hex_ids_read_only_what_the_specification_allows() {
        let text = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(TraceId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        assert_eq!(TraceId::parse(&"0".repeat(32)), None);
        assert_eq!(TraceId::parse(&text.to_uppercase()), None);
        assert_eq!(SpanId::parse("+0f067aa0ba902b"), None);
        assert_eq!(SpanId::parse("00f067aa0ba902b7").map(|id| id.to_bytes()[0]), Some(0));
    }
}
