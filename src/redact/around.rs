//! Where a pattern has to be tried: around the long words of a text, since what it finds has one in it.
//! A long text with a token in it is searched there, and not from its beginning to its end.

use std::ops::Range;

/// A stretch of a text around one of its long words, in which every match lies that has a part of that
/// word in it. Neither edge makes a boundary of words where none is.
pub(super) type Around = fn(&str, Range<usize>) -> Range<usize>;

/// The stretches around all of `words`, which are in order; stretches that touch are one.
///
/// What is found in them one by one is what is found in the whole text.
pub(super) fn stretches(text: &str, words: &[Range<usize>], around: Around) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for word in words {
        if stretches.last().is_some_and(|last| last.start <= word.start && word.end <= last.end) {
            continue;
        }
        let mut stretch = around(text, word.clone());
        while let Some(last) = stretches.pop_if(|last| stretch.start <= last.end) {
            stretch = last.start.min(stretch.start)..last.end.max(stretch.end);
        }
        stretches.push(stretch);
    }
    stretches
}

/// All that could be of one token with the word: no token has anything else in it.
pub(super) fn token(text: &str, word: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let is_part = |byte: &&u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'_' | b'-' | b'.' | b'+' | b'/' | b'=' | b'~' | b'$' | b':' | b',' | b'@'
            )
    };
    let before = bytes[..word.start].iter().rev().take_while(is_part).count();
    let behind = bytes[word.end..].iter().take_while(is_part).count();
    word.start - before..word.end + behind
}

/// Bytes of a verb between a name and its value, and more.
const VERB_BYTES: usize = 24;
/// Bytes of the longest name of a credential, and more.
const NAME_BYTES: usize = 128;

/// The word, and before it what names it: a name, signs, a verb, signs.
pub(super) fn named(text: &str, word: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let before_signs = |at: usize| at - bytes[..at].iter().rev().take_while(is_between).count();
    let verb = before_signs(word.start).saturating_sub(VERB_BYTES);
    let name = before_signs(verb).saturating_sub(NAME_BYTES);
    let name = text.floor_char_boundary(name);
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let within = bytes[..name].iter().rev().take_while(is_word).count();
    name - within..word.end
}

/// True for what stands, any number of times, between a name, a verb and a value.
fn is_between(byte: &&u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',' | b':' | b'=' | b'\\' | b'"' | b'\'' | b'`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_touch_are_one() {
        let text = "the key is:   abcdefghijklmno1 abcdefghijklmno2. then a long way to go, and a long way more, and more, and more, then \
                    a secret is abcdefghijklmno3:abcdefghijklmno4";
        let words: Vec<_> = text.match_indices("abc").map(|(at, _)| at..at + 16).collect();
        let found = |around| {
            let stretches = stretches(text, &words, around).into_iter();
            stretches.map(|stretch| &text[stretch]).collect::<Vec<_>>()
        };
        assert_eq!(
            found(token),
            ["abcdefghijklmno1", "abcdefghijklmno2.", "abcdefghijklmno3:abcdefghijklmno4"]
        );
        assert_eq!(found(named), [text]);
    }

    #[test]
    fn a_long_text_of_words_side_by_side_takes_no_square_of_its_length() {
        for unit in
            ["abcdefghijklmno1:", "abcdefghijklmno1\\", "abcdefghijklmno1 \\\\\\\\\\\\\\\\\\\\"]
        {
            let text = unit.repeat(60_000);
            let words: Vec<_> = text.match_indices("abc").map(|(at, _)| at..at + 16).collect();
            let began = std::time::Instant::now();
            assert!(!stretches(&text, &words, token).is_empty());
            assert!(!stretches(&text, &words, named).is_empty());
            assert!(began.elapsed() < std::time::Duration::from_secs(5), "{unit}");
        }
    }
}
