//! Keeps secrets out of what is shown of a configuration: source lines, messages, warnings.
//!
//! A line is masked by the names in it, not by the tree, because the file may be one that the
//! parser refused: what follows a key that sounds like a secret is hidden, with all the lines that
//! belong to it, and so is the user part of any URL.

/// A text's lines, each as it may be shown.
#[derive(Debug)]
pub(super) struct Mask {
    lines: Vec<String>,
}

impl Mask {
    /// Masks `text`.
    pub(super) fn of(text: &str) -> Self {
        let mut hidden = Hidden::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { lines: text.lines().map(|text| line(&hidden.next(text))).collect() }
    }

    /// Line `number` (from 1); from `secret_column` (from 1) on, nothing but `***`.
    pub(super) fn show(&self, number: usize, secret_column: Option<usize>) -> String {
        let line = self.lines.get(number.saturating_sub(1)).map_or("", String::as_str);
        match secret_column {
            Some(column) => {
                let before: String = line.chars().take(column.saturating_sub(1)).collect();
                format!("{before}{STARS}")
            }
            None => line.to_owned(),
        }
    }
}

/// One line of output: no control characters, no user part in URLs.
pub(super) fn line(text: &str) -> String {
    without_user_parts(text)
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
}

const STARS: &str = "***";

const SECRET_WORDS: &[&str] = &[
    "key",
    "token",
    "secret",
    "passw",
    "credential",
    "sas",
    "authorization",
    "cookie",
    "service_account",
];

/// `text` with the user part of every URL in it replaced.
fn without_user_parts(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| c.is_whitespace() || "\"'<>`".contains(c));
        let run = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
        let user = run.rfind('@').unwrap_or(0);
        out.push_str("://");
        out.push_str(if user > 0 { STARS } else { "" });
        out.push_str(piece.get(user..).unwrap_or_default());
    }
    out
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
            Some(parent) if text.trim().is_empty() || indent > parent => {
                format!("{}{STARS}", " ".repeat(indent))
            }
            _ => self.start(text, indent),
        }
    }

    fn start(&mut self, text: &str, indent: usize) -> String {
        self.indent = None;
        let Some(end) = secret_end(text) else { return text.to_owned() };
        let (shown, rest) = text.split_at(end);
        self.indent = Some(indent);
        let rest = rest.trim();
        self.quote = ['"', '\''].into_iter().find(|quote| rest.matches(*quote).count() % 2 == 1);
        if rest.is_empty() { shown.to_owned() } else { format!("{shown} {STARS}") }
    }
}

/// Where in `text` the first secret key's colon ends. `headers` counts when its value is a map.
fn secret_end(text: &str) -> Option<usize> {
    text.match_indices(':').map(|(at, colon)| at + colon.len()).find(|end| {
        let before = text.get(..end - 1).unwrap_or_default();
        let before = before.trim_end().trim_end_matches(['"', '\'']);
        let name = before.rsplit(|c: char| !is_name(c)).next().unwrap_or_default();
        let after = text.get(*end..).unwrap_or_default().trim();
        let headers = name == "headers" && (after.is_empty() || after.starts_with('{'));
        headers || is_secret_name(name)
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Mask::of(text).lines.join("\n")
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
    fn hides_the_lines_that_belong_to_it() {
        let text = "a:\n  token: |\n    abc\n\n    def\n  b: c";
        assert_eq!(shown(text), "a:\n  token: ***\n    ***\n***\n    ***\n  b: c");
        assert_eq!(shown("{token: \"abc\ndef\",\na: b}"), "{token: ***\n***\na: b}");
    }

    #[test]
    fn hides_the_user_part_of_urls_and_control_characters() {
        assert_eq!(line("at https://a:b@c/d"), "at https://***@c/d");
        assert_eq!(line("a\u{1b}[1m\tb"), "a\u{fffd}[1m b");
    }
}
