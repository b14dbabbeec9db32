//! Numbers in few bytes: base 128, the lowest seven bits first, the high bit where more follow.

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// Writes `n`.
pub(super) fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes `n` so that small ones of either sign are short.
pub(super) fn signed(out: &mut Vec<u8>, n: i64) {
    number(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Writes `n` in eight bytes.
pub(super) fn float(out: &mut Vec<u8>, n: f64) {
    out.extend_from_slice(&n.to_le_bytes());
}

impl Reader<'_> {
    /// What [`number`] wrote.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    /// What [`signed`] wrote.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// What [`float`] wrote.
    pub(super) fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_back() {
        for n in [0, 1, 127, 128, 300, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, n);
            signed(&mut out, n as i64);
            float(&mut out, n as f64);
            let mut reader = Reader(&out);
            assert_eq!(reader.number(), Some(n));
            assert_eq!(reader.signed(), Some(n as i64));
            assert_eq!(reader.float(), Some(n as f64));
            assert_eq!(reader.number(), None);
        }
    }
}
