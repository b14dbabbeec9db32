//! Looking for single bytes in texts.

/// Bytes looked at together.
const STRETCH: usize = 32;

/// Where the first byte that `is` means stands, from `from` on; stretches without one are passed over
/// many bytes at a time, since compilers make a few wide instructions of the loop.
pub fn position(bytes: &[u8], from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    // Of a length that is known when compiled: else the loop is one byte at a time.
    let (pieces, _) = rest.as_chunks::<STRETCH>();
    let has = |piece: &[u8; STRETCH]| piece.iter().fold(0, |any, b| any | u8::from(is(*b))) != 0;
    let passed = pieces.iter().take_while(|piece| !has(piece)).count() * STRETCH;
    rest[passed..].iter().position(|byte| is(*byte)).map(|index| from + passed + index)
}

/// True for what does not stand for itself in a string of JSON (RFC 8259, section 7).
pub const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// What [`is_escaped`] says of each byte: quicker for a few.
pub const IS_ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_escaped(byte as u8);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for before in [0, 1, 31, 32, 33, 63, 64, 1000] {
            let text = format!("{}7{}", "x".repeat(before), "y".repeat(before));
            let place = |from| position(text.as_bytes(), from, |byte| byte.is_ascii_digit());
            assert_eq!((place(0), place(before)), (Some(before), Some(before)));
            assert_eq!((place(before + 1), place(text.len() + 1)), (None, None));
        }
    }
}
