//! Personal data in text: e-mail addresses, payment cards, IBANs, phone numbers, IP addresses.
//! ASCII digits only; full-width and other scripts' digits are not looked for.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};
use regex::Regex;

use super::checksum::{iban_length, is_card, is_iban};
use super::find::Finding;
use crate::config::RedactKind;
use crate::domain::bytes::position;

/// Adds e-mail addresses: letters and digits of any script around `@` (or `%40`, as in forms), and
/// a domain that ends in a label of two letters or more.
pub(super) fn emails(text: &str, found: &mut Vec<Finding>) {
    let signs = memchr_iter(b'@', text.as_bytes()).map(|at| (at, at + 1));
    let encoded = memmem::find_iter(text.as_bytes(), "%40").map(|at| (at, at + 3));
    for (at, after) in signs.chain(encoded) {
        let local: usize =
            text[..at].chars().rev().take_while(|c| is_local(*c)).map(char::len_utf8).sum();
        let domain = domain_len(&text[after..]);
        if local > 0 && domain > 0 {
            found.push(Finding::new(RedactKind::Email, at - local, after + domain));
        }
    }
}

fn is_local(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

/// Bytes of the domain that `text` begins with; 0 for none.
fn domain_len(text: &str) -> usize {
    let is_domain = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let len: usize = text.chars().take_while(is_domain).map(char::len_utf8).sum();
    let domain = text[..len].trim_end_matches(['.', '-']);
    let last = domain.rsplit_once('.').filter(|(first, _)| !first.is_empty()).map(|(_, last)| last);
    let top = last.is_some_and(|last| {
        last.chars().count() >= 2
            && (last.chars().all(char::is_alphabetic) || last.starts_with("xn--"))
    });
    if top { domain.len() } else { 0 }
}

/// A run of digits in a text: where it is, and whether letters touch it.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
    touched: bool,
    /// A single space or hyphen stands between the group before and this one.
    joined: bool,
}

/// Adds payment cards: 13 to 19 digits, written together or in the groups that cards bear, with a
/// known issuer's prefix and a valid check digit (ISO/IEC 7812-1, Luhn).
pub(super) fn cards(text: &str, found: &mut Vec<Finding>) {
    let groups = digit_groups(text.as_bytes());
    let mut next = 0;
    while next < groups.len() {
        let taken = card_at(text, &groups[next..]);
        if let Some(groups_taken) = taken {
            let (first, last) = (groups[next], groups[next + groups_taken - 1]);
            found.push(Finding::new(RedactKind::CreditCard, first.start, last.end));
        }
        next += taken.unwrap_or(1);
    }
}

fn digit_groups(bytes: &[u8]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = 0;
    while let Some(start) = position(bytes, at, |byte| byte.is_ascii_digit()) {
        let len = bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
        let end = start + len;
        let word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
        // The fraction of a decimal number is no card.
        let fraction = start >= 2 && bytes[start - 1] == b'.' && bytes[start - 2].is_ascii_digit();
        let touched = fraction || word(bytes.get(end)) || word(bytes[..start].last());
        let joined = groups
            .last()
            .is_some_and(|last| last.end + 1 == start && matches!(bytes[last.end], b' ' | b'-'));
        groups.push(Group { start, end, touched, joined });
        at = end;
    }
    groups
}

/// How many of the leading groups are a card.
fn card_at(text: &str, groups: &[Group]) -> Option<usize> {
    const LAYOUTS: &[&[usize]] = &[
        &[4, 4, 4, 4, 3],
        &[4, 4, 4, 4],
        &[4, 6, 5],
        &[4, 6, 4],
        &[4, 4, 4, 1],
        &[4, 4, 5],
        &[6, 10],
        &[6, 13],
        &[4, 12],
        &[8, 8],
    ];
    let digits = |count: usize| -> String {
        groups[..count].iter().map(|group| &text[group.start..group.end]).collect()
    };
    let fits = |layout: &[usize]| {
        groups.len() >= layout.len()
            && groups.iter().zip(layout).enumerate().all(|(index, (group, len))| {
                group.end - group.start == *len && !group.touched && (index == 0 || group.joined)
            })
    };
    let single = groups.first().filter(|group| (13..=19).contains(&(group.end - group.start)));
    if single.is_some_and(|group| !group.touched) && is_card(&digits(1)) {
        return Some(1);
    }
    let layout = LAYOUTS.iter().find(|layout| fits(layout) && is_card(&digits(layout.len())))?;
    Some(layout.len())
}

/// Adds IBANs: a country's letters and length (the SWIFT registry) and a remainder of 1 by 97
/// (ISO 13616), written together or in groups.
pub(super) fn ibans(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let (mut after, mut at) = (0, 0);
    while let Some(digits) = position(bytes, at, |byte| byte.is_ascii_digit()) {
        at = digits + bytes[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let start = digits.wrapping_sub(2);
        if at < digits + 2 || start < after || !begins_iban(bytes, start) {
            continue;
        }
        if let Some(end) = iban_end(text, start) {
            found.push(Finding::new(RedactKind::Iban, start, end));
            (after, at) = (end, end.max(at));
        }
    }
}

/// True where two letters stand at `start`, and no word goes on there.
fn begins_iban(bytes: &[u8], start: usize) -> bool {
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    bytes.get(start..).is_some_and(|bytes| bytes.iter().take(2).all(u8::is_ascii_alphabetic))
        && !bytes[..start].last().is_some_and(goes_on)
}

fn iban_end(text: &str, start: usize) -> Option<usize> {
    let length = iban_length(&text[start..start + 2])?;
    let bytes = text.as_bytes();
    let mut compact = String::with_capacity(length);
    let mut at = start;
    while compact.len() < length {
        let byte = *bytes.get(at)?;
        let separator = matches!(byte, b' ' | b'-') && bytes.get(at + 1)?.is_ascii_alphanumeric();
        if !separator && !byte.is_ascii_alphanumeric() {
            return None;
        }
        if !separator {
            compact.push(char::from(byte.to_ascii_uppercase()));
        }
        at += 1;
    }
    let ends = bytes.get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (ends && is_iban(&compact)).then_some(at)
}

/// Phone numbers: `+` and country code (E.164, with or without separators), North American in
/// its usual forms, and national ones with a leading zero and separators. Plain digits are ids.
static PHONES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let gap = r"[ .\-/()\u{a0}\u{2009}\u{202f}\u{2010}-\u{2013}]";
    let patterns = [
        format!(r"\+[1-9](?:{gap}{{0,3}}[0-9]){{6,14}}"),
        r"(?:1[ .\-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .\-])[0-9]{3}[ .\-][0-9]{4}".into(),
        r"\(?0[0-9]{1,4}\)?(?:(?: [0-9]{2,8}){1,4}|(?:-[0-9]{2,9}){1,3}|(?:\.[0-9]{2}){4}|/ ?[0-9]{4,9})".into(),
    ];
    patterns.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect()
});

/// Adds phone numbers.
pub(super) fn phones(text: &str, found: &mut Vec<Finding>) {
    for stretch in dialled(text.as_bytes()) {
        let from = stretch.start;
        let hits = PHONES.iter().flat_map(|pattern| pattern.find_iter(&text[stretch.clone()]));
        for hit in hits {
            let digits = hit.as_str().bytes().filter(u8::is_ascii_digit).count();
            let plain = hit.as_str().bytes().skip(1).all(|byte| byte.is_ascii_digit());
            let least = if plain || hit.as_str().starts_with(['0', '(']) { 9 } else { 8 };
            let (start, end) = (from + hit.start(), from + hit.end());
            if (least..=15).contains(&digits) && stands_alone(text, start, end) {
                found.push(Finding::new(RedactKind::Phone, start, end));
            }
        }
    }
}

/// Fewer digits are no phone number.
const PHONE_DIGITS_MIN: usize = 8;

/// The stretches that have enough digits and nothing in them but what phone numbers have: those are
/// searched, and not the whole text.
fn dialled(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    // What is beyond ASCII may be a part of a wide blank or of a dash.
    let is_part = |byte: &&u8| {
        byte.is_ascii_digit()
            || matches!(byte, b' ' | b'.' | b'-' | b'/' | b'(' | b')' | b'+')
            || !byte.is_ascii()
    };
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            let digit = position(bytes, next, |byte| byte.is_ascii_digit())?;
            let before = bytes[next..digit].iter().rev().take_while(is_part).count();
            let behind = bytes[digit..].iter().take_while(is_part).count();
            let stretch = digit - before..digit + behind;
            next = stretch.end;
            let digits = bytes[digit..next].iter().filter(|byte| byte.is_ascii_digit()).count();
            if digits >= PHONE_DIGITS_MIN {
                return Some(stretch);
            }
        }
    })
}

/// Neither side goes on as a longer number, an id or a word would.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].chars().next_back();
    let mut after = text[end..].chars();
    let (next, second) = (after.next(), after.next());
    let goes_on = matches!(next, Some('-' | '.' | ':' | ',' | '/' | '%'))
        && second.is_some_and(|c| c.is_ascii_digit());
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !word(before) && !matches!(before, Some('-' | '.' | '#' | '$' | '€')) && !word(next) && !goes_on
}

/// Adds IPv4 and IPv6 addresses, but neither loopback nor unspecified ones, which name nobody, and
/// no versions (`Chrome/120.0.0.0`, `v1.2.3.4`).
pub(super) fn addresses(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let mut at = 0;
    while let Some(start) = position(bytes, at, |byte| byte.is_ascii_digit() || byte == b':') {
        // Hexadecimal letters before the first digit or colon belong to the address.
        let back = bytes[at..start].iter().rev().take_while(|byte| part(byte)).count();
        let start = start - back;
        let len = bytes[start..].iter().take_while(|byte| part(byte)).count();
        let end = start + len;
        let trimmed = text[start..end].trim_end_matches('.').len();
        found.extend(address_in(text, start, start + trimmed));
        at = end.max(start + 1);
    }
}

/// The address in a run of hexadecimal digits, dots and colons.
fn address_in(text: &str, start: usize, end: usize) -> Option<Finding> {
    v6_in(text, start, end).or_else(|| v4_in(text, start, end))
}

fn v6_in(text: &str, start: usize, end: usize) -> Option<Finding> {
    let mut run = &text[start..end];
    // In `node:2001:db8::1` what stands before the first colon is a label.
    let labelled = text[..start].chars().next_back().is_some_and(is_word);
    let colon = run.starts_with(':') && !run.starts_with("::");
    if labelled || colon {
        run = run.split_once(':')?.1;
    }
    let address = run.strip_suffix(':').filter(|short| !short.ends_with(':')).unwrap_or(run);
    let parsed: Ipv6Addr = address.parse().ok()?;
    let somebody = !parsed.is_loopback() && !parsed.is_unspecified();
    let inside = labelled && address.starts_with(':');
    let ends = !text[end..].chars().next().is_some_and(is_word);
    let from = end - run.len();
    (somebody && ends && !inside && is_deliberate(address))
        .then(|| Finding::new(RedactKind::Ip, from, from + address.len()))
}

/// A part between colons, as in `ip:203.0.113.7:443`.
fn v4_in(text: &str, start: usize, end: usize) -> Option<Finding> {
    let mut from = start;
    for part in text[start..end].split(':') {
        let to = from + part.len();
        let address: Option<Ipv4Addr> = part.parse().ok();
        let somebody = address.is_some_and(|address| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_broadcast()
        });
        if somebody && is_bare(text, from, to) && !is_version(&text[..from]) {
            return Some(Finding::new(RedactKind::Ip, from, to));
        }
        from = to + 1;
    }
    None
}

/// No word goes on before or after.
fn is_bare(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    !before.is_some_and(is_word) && !after.is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words of code such as `add::bed` parse as IPv6, too: an address has digits, and several groups
/// or a first group that is in use (global unicast, unique local, link local).
fn is_deliberate(address: &str) -> bool {
    let groups = address.split(':').filter(|group| !group.is_empty()).count();
    let first = address.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let in_use = first.len() >= 3 && first.starts_with(['2', '3', 'f']);
    address.bytes().any(|byte| byte.is_ascii_digit())
        && (groups >= 3 || in_use || address.contains('.'))
}

/// What stands before makes the four numbers a version.
fn is_version(before: &str) -> bool {
    let product = before.strip_suffix('/').and_then(|name| name.chars().next_back());
    let word = before.trim_end_matches([' ', '.', ':', '=']);
    let last = word.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    let named = ["version", "v", "ver", "release", "build"];
    product.is_some_and(char::is_alphanumeric)
        || named.iter().any(|name| last.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Where the patterns hit, tried on the whole text.
    fn hits(patterns: &[Regex], text: &str) -> Vec<(usize, usize)> {
        let mut hits: Vec<_> = patterns
            .iter()
            .flat_map(|pattern| pattern.find_iter(text))
            .filter(|hit| hit.as_str().bytes().filter(u8::is_ascii_digit).count() >= 8)
            .map(|hit| (hit.start(), hit.end()))
            .collect();
        hits.sort_unstable();
        hits
    }

    proptest! {
        #[test]
        fn no_number_lies_outside_of_what_is_searched(parts in prop::collection::vec(select(vec![
            "+", "1", "49", "30", "0", "(", ")", "555", "2120", "901820", "-", ".", "/", " ", "  ", "x", "a ", ", ", "\u{a0}", "\u{2009}",
            "\u{202f}", "\u{2012}", "é", "\n", "555-123-4567", "+14155552671", "(212) 555-0187", "01 23 45 67 89", "+1 (555) 123-4567",
        ]), 0..16)) {
            let text = parts.concat();
            let within = dialled(text.as_bytes()).flat_map(|stretch| {
                let from = stretch.start;
                let found = hits(&PHONES, &text[stretch]).into_iter();
                found.map(move |(start, end)| (from + start, from + end)).collect::<Vec<_>>()
            });
            prop_assert_eq!(within.collect::<Vec<_>>(), hits(&PHONES, &text));
        }

        #[test]
        fn ibans_begin_where_two_letters_and_two_digits_are_a_word(parts in prop::collection::vec(select(vec![
            "DE89", "de", "89", "3704 0044 0532 0130 00", "370400440532013000", "GB29 NWBK 6016 1331 9268 19", "gb29nwbk60161331926819",
            " ", "-", "_", "x", "é", "1", "DE89 3704 0044 0532 0130 00", ".", "NO93 8601 1117 947", "NO9386011117947",
        ]), 0..10)) {
            let text = parts.concat();
            let starts = Regex::new(r"(?-u:\b)[A-Za-z]{2}[0-9]{2}").expect("a pattern");
            let mut expected: Vec<Finding> = Vec::new();
            for start in starts.find_iter(&text).map(|hit| hit.start()) {
                if expected.last().is_none_or(|last| start >= last.end) {
                    let end = iban_end(&text, start);
                    expected.extend(end.map(|end| Finding::new(RedactKind::Iban, start, end)));
                }
            }
            let mut found = Vec::new();
            ibans(&text, &mut found);
            prop_assert_eq!(found, expected);
        }
    }
}
