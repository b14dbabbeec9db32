//! The attestation that bodies pass as they came: of one exchange in 64, a digest of the body's bytes as
//! they are read from one socket is held against one of what the other socket took.
//!
//! Between the two lie our buffers, chunk framing taken off and put on, partial writes and repeated
//! requests: all that could lose, double or mix bytes. A digest costs about a tenth of a nanosecond a
//! byte and side; one in 64 makes that nothing, and a fault that happens at all will happen to those.

use crate::domain::ExchangeId;

/// One exchange of so many is attested.
const ONE_OF: u8 = 64;

/// How many bytes passed, and their CRC-32C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    bytes: u64,
    crc: u32,
}

impl Digest {
    /// The next bytes pass.
    pub fn add(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.crc = crc32c::crc32c_append(self.crc, bytes);
            self.bytes += bytes.len() as u64;
        }
    }
}

/// Digests of an exchange's bodies as they came, up and down; nothing where they are not attested.
#[derive(Default)]
pub struct Came(Option<Box<[Digest; 2]>>);

impl Came {
    /// Those of `exchange`: its id's last bits are random.
    pub fn of(exchange: ExchangeId) -> Self {
        Self((exchange.to_bytes()[15].is_multiple_of(ONE_OF)).then(Box::default))
    }

    /// True where the exchange is attested.
    pub fn is_attested(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes of the request's body have come.
    pub fn up(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|came| came[0].add(bytes));
    }

    /// Bytes of the answer's body have come.
    pub fn down(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|came| came[1].add(bytes));
    }

    /// Whether what was sent, up and down and as far as it is known, differs from what came.
    pub fn differs(&self, up: Option<Digest>, down: Option<Digest>) -> Option<[bool; 2]> {
        let came = self.0.as_ref()?;
        Some([up.is_some_and(|up| up != came[0]), down.is_some_and(|down| down != came[1])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_other_bytes_and_other_lengths_and_not_how_they_came() {
        let of = |pieces: &[&[u8]]| {
            let mut digest = Digest::default();
            pieces.iter().for_each(|piece| digest.add(piece));
            digest
        };
        assert_eq!(of(&[b"ab", b"", b"c"]), of(&[b"abc"]));
        for other in [&b"abd"[..], b"ab", b"abcc", b"bac", b""] {
            assert_ne!(of(&[other]), of(&[b"abc"]));
        }
    }

    #[test]
    fn what_differs_is_told_by_its_direction() {
        let mut came = Came(Some(Box::default()));
        came.up(b"question");
        came.down(b"answer");
        let of = |text: &[u8]| {
            let mut digest = Digest::default();
            digest.add(text);
            Some(digest)
        };
        assert_eq!(came.differs(of(b"question"), of(b"answer")), Some([false, false]));
        assert_eq!(came.differs(of(b"question"), of(b"answe")), Some([false, true]));
        assert_eq!(came.differs(of(b"questionn"), None), Some([true, false]));
        assert_eq!(Came::default().differs(None, None), None);
    }

    #[test]
    fn one_exchange_of_64_is_attested() {
        let attested =
            |_: &u32| Came::of(ExchangeId::new(jiff::Timestamp::UNIX_EPOCH)).is_attested();
        let count = (0..64_000).filter(attested).count();
        assert!((700..1300).contains(&count), "{count}");
    }
}
