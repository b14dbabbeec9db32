//! Keeps secrets out of what is shown of a configuration: source lines, messages, warnings.
//!
//! A line is masked by the names in it, not by the tree, because the file may be one that the
//! parser refused: what follows a key that sounds like a secret is hidden, with all the lines that
//! belong to it, and so is the user part of any URL.

use std::collections::BTreeMap;

/// A text's lines, each as it may be shown.
#[derive(Debug)]
pub(super) struct Mask {
    lines: Vec<String>,
    /// How many characters of each line are as they were, user parts of URLs aside.
    shown_chars: Vec<usize>,
}

impl Mask {
    /// Masks `text`; each of `hidden` is a line and a column, from 1, from which on it is hidden.
    pub(super) fn of(text: &str, hidden: &[(usize, usize)]) -> Self {
        let mut by_name = Hidden::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines: Vec<String> = text.lines().map(|text| by_name.next(text)).collect();
        hide_anchors(text, &mut lines);
        // The first hidden column of a line hides all after it.
        let mut first = BTreeMap::new();
        for (number, column) in hidden {
            let least = first.entry(number).or_insert(column);
            *least = column.min(least);
        }
        for (number, column) in first {
            if let Some(line) = lines.get_mut(number.saturating_sub(1)) {
                cut(line, column.saturating_sub(1));
            }
        }
        let same = |(raw, shown): (&str, &String)| {
            raw.chars().zip(shown.chars()).take_while(|(raw, shown)| raw == shown).count()
        };
        let shown_chars = text.lines().zip(&lines).map(same).collect();
        Self { lines: lines.iter().map(|text| line(text)).collect(), shown_chars }
    }

    /// Line `number`, from 1.
    pub(super) fn show(&self, number: usize) -> &str {
        self.lines.get(number.saturating_sub(1)).map_or("", String::as_str)
    }

    /// Whether what stands at line `number` and `column`, from 1, is hidden.
    pub(super) fn hides(&self, number: usize, column: usize) -> bool {
        self.shown_chars.get(number.saturating_sub(1)).is_none_or(|shown| column > *shown)
    }
}

/// Hides what an anchor names (`x: &a …`) that a secret key takes (`token: *a`).
fn hide_anchors(text: &str, lines: &mut [String]) {
    let taken = |line: &str| {
        let value = line.get(secret_start(line)?..)?.trim_start().strip_prefix('*')?.to_owned();
        Some(value.chars().take_while(|c| is_name(*c)).collect::<String>())
    };
    let mut names: Vec<String> = text.lines().filter_map(taken).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    for line in lines {
        let named = |at: &usize| {
            let name = line.get(at + 1..).unwrap_or_default();
            let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
            names.binary_search_by(|known| known.as_str().cmp(&name[..end])).is_ok()
        };
        let anchor = line.match_indices('&').map(|(at, _)| at).find(named);
        if let Some(at) = anchor {
            line.truncate(at);
            line.push_str(STARS);
        }
    }
}

/// Replaces what follows the first `chars` characters.
fn cut(line: &mut String, chars: usize) {
    if let Some((at, _)) = line.char_indices().nth(chars) {
        line.truncate(at);
        line.push_str(STARS);
    }
}

/// One line of output: no control characters, no user part, query or fragment in URLs.
pub(super) fn line(text: &str) -> String {
    without_queries(&without_user_parts(text))
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .map(printable)
        .collect()
}

/// Whether a key of this name holds a secret, known to us or not.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
        && !name.ends_with("_file")
        && !name.ends_with("_id")
        && !COUNTS.iter().any(|word| name.contains(word))
}

const STARS: &str = "***";

/// Tokens that are counted, not kept.
const COUNTS: &[&str] = &["token_statistics", "_tokens_", "tokens_per_"];

const SECRET_WORDS: &[&str] = &[
    "key",
    "token",
    "secret",
    "passw",
    "credential",
    "sas",
    "authorization",
    "connection_string",
    "connectionstring",
    "passph",
    "pwd",
    "bearer",
    "cookie",
    "service_account",
    // Addresses of webhooks are secrets in themselves.
    "webhook",
];

/// `text` with what stands before an `@` replaced: after a scheme up to the last `@` of the line,
/// for a password may hold anything, and elsewhere from the last space or quote on.
fn without_user_parts(text: &str) -> String {
    let scheme = text.find(":/").map_or(text.len(), |colon| {
        let slashes = text.get(colon + 1..).unwrap_or_default();
        text.len() - slashes.trim_start_matches('/').len()
    });
    let (before, after) = text.split_at(scheme);
    let ends = |c: char| c.is_whitespace() || "\"'<>`".contains(c);
    let runs = before.split_inclusive(ends).chain([after]);
    runs.map(|run| match run.rsplit_once('@') {
        Some((_, host)) => format!("{STARS}@{host}"),
        None => run.to_owned(),
    })
    .collect()
}

/// `text` without what stands behind a `?` or `#` of a URL: keys and signatures.
fn without_queries(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'<>`,}".contains(c);
    let run = |run: &str| {
        let url = run.find(":/")?;
        let query = url + run.get(url..)?.find(['?', '#'])? + 1;
        let end = run.trim_end_matches(ends).len();
        (query < end).then(|| format!("{}{STARS}{}", &run[..query], &run[end..]))
    };
    text.split_inclusive(ends).map(|part| run(part).unwrap_or_else(|| part.to_owned())).collect()
}

fn printable(c: char) -> char {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || invisible { '\u{fffd}' } else { c }
}

/// What is still hidden from the lines before.
#[derive(Default)]
struct Hidden {
    /// Lines indented deeper than this belong to a secret key.
    indent: Option<usize>,
    /// A quoted value goes on until this closes it.
    quote: Option<char>,
}

impl Hidden {
    fn next(&mut self, text: &str) -> String {
        let indent = text.chars().take_while(|c| *c == ' ').count();
        if let Some(quote) = self.quote {
            if text.contains(quote) {
                self.quote = None;
            }
            return format!("{}{STARS}", " ".repeat(indent));
        }
        match self.indent {
            // What has no colon starts no key: it goes on with the value, however it is indented.
            Some(parent) if indent > parent || !text.contains(':') => {
                format!("{}{STARS}", " ".repeat(indent))
            }
            _ => self.start(text, indent),
        }
    }

    fn start(&mut self, text: &str, indent: usize) -> String {
        self.indent = None;
        let Some(end) = secret_start(text) else { return text.to_owned() };
        let (shown, rest) = text.split_at(end);
        self.indent = Some(indent);
        let rest = rest.trim();
        self.quote = ['"', '\''].into_iter().find(|quote| rest.matches(*quote).count() % 2 == 1);
        if rest.is_empty() { shown.to_owned() } else { format!("{shown} {STARS}") }
    }
}

/// Where in `text` the first secret starts: after its key's colon, or after the key where the
/// colon was forgotten, or at a colon whose key ended on the line before.
fn secret_start(text: &str) -> Option<usize> {
    let bare = text.trim_start_matches([' ', '-']);
    if bare.starts_with(':') {
        return Some(text.len() - bare.len());
    }
    let mut rest = text;
    while let Some(at) = rest.find(is_name) {
        let name = rest.get(at..).unwrap_or_default();
        let (name, after) = name.split_at(name.find(|c| !is_name(c)).unwrap_or(name.len()));
        if let Some(gap) = secret_gap(name, after) {
            return Some(text.len() - after.len() + gap);
        }
        rest = after;
    }
    None
}

/// How much of `after` stands between a secret's key and the secret; `None` if `name` is no such
/// key. `headers` is one where its value is a map.
fn secret_gap(name: &str, after: &str) -> Option<usize> {
    let gap = after.get(..after.find(is_name).unwrap_or(after.len())).unwrap_or_default();
    let colon = gap.find(':').map(|at| at + 1);
    if name == "headers" {
        let value = after.get(colon?..).unwrap_or_default().trim_start();
        return if value.is_empty() || value.starts_with('{') { colon } else { None };
    }
    match colon {
        _ if !is_secret_name(name) => None,
        Some(end) => Some(end),
        None => (after.starts_with(' ') && !after.trim().is_empty()).then_some(0),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Mask::of(text, &[]).lines.join("\n")
    }

    #[test]
    fn hides_what_follows_a_secret_key() {
        assert_eq!(shown("  token: abc"), "  token: ***");
        assert_eq!(shown("redact: {mode: hash, key: abc, x: y}"), "redact: {mode: hash, key: ***");
        assert_eq!(shown("api_keys: [abc]"), "api_keys: ***");
        assert_eq!(shown("  key_file: /run/x"), "  key_file: /run/x");
        assert_eq!(shown("  headers: {authorization: abc}"), "  headers: ***");
        assert_eq!(shown("  headers: [content-type]"), "  headers: [content-type]");
    }

    #[test]
    fn hides_what_an_anchor_of_a_secret_names() {
        let text = "x: &a abc\ny: &b kept\nadmin: {token: *a, read_only: *b}";
        assert_eq!(shown(text), "x: ***\ny: &b kept\nadmin: {token: ***");
    }

    #[test]
    fn hides_the_lines_that_belong_to_it() {
        let text = "a:\n  token: |\n    abc\n\n    def\n  b: c";
        assert_eq!(shown(text), "a:\n  token: ***\n    ***\n***\n    ***\n  b: c");
        assert_eq!(shown("{token: \"abc\ndef\",\na: b}"), "{token: ***\n***\na: b}");
    }

    #[test]
    fn hides_the_user_part_of_urls_and_control_characters() {
        assert_eq!(line("at `https://a:b@c/d`"), "at `https://***@c/d`");
        assert_eq!(line("https:/a@b c@d"), "https:/***@d");
        assert_eq!(line("x a:b@c d@e"), "x ***@c ***@e");
        assert_eq!(line("a: \"http://h/?sig=abc#x\", b: c?d"), "a: \"http://h/?***\", b: c?d");
        assert_eq!(line("is `https://h/#abc`: it has"), "is `https://h/#***`: it has");
        assert_eq!(line("a\u{1b}[1m\tb"), "a\u{fffd}[1m b");
    }
}
