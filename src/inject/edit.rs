//! Edits that can be taken back: every one stands between two comments, with the lines that it replaced.
//!
//! ```yaml
//!     # flowtap:begin
//!     # flowtap:was>    targetPort: 8080
//!     targetPort: flowtap
//!     # flowtap:end
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use super::Refusal;
use super::yaml::{self, Parsed};

const BEGIN: &str = " flowtap:begin";
const END: &str = " flowtap:end";
const WAS: &str = " flowtap:was>";

/// Edits of a text, by line.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    text: &'t str,
    starts: Starts,
    lines: BTreeMap<usize, LineEdit>,
}

#[derive(Debug, Default)]
struct LineEdit {
    /// Replacements within the line, in bytes of the text.
    within: Vec<(Range<usize>, String)>,
    /// Lines that follow it.
    after: Vec<String>,
}

impl<'t> Edits<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, starts: Starts::of(text), lines: BTreeMap::new() }
    }

    /// The text before the edits.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Where its lines begin.
    pub(super) fn starts(&self) -> &Starts {
        &self.starts
    }

    /// Puts `replacement` in the place of `range`, which lies in one line.
    pub(super) fn replace(&mut self, range: Range<usize>, replacement: String) {
        let line = self.starts.line_of(range.start);
        self.lines.entry(line).or_default().within.push((range, replacement));
    }

    /// What [`Self::replace`] can work on.
    pub(super) fn is_one_line(&self, range: Range<usize>) -> bool {
        !self.text.get(range).unwrap_or_default().contains('\n')
    }

    /// Puts `entry` first into the map or list in flow style that begins at byte `at`; `more` follow.
    pub(super) fn insert_flow(&mut self, at: usize, entry: String, more: bool) {
        let comma = if more { ", " } else { "" };
        self.replace(at + 1..at + 1, format!("{entry}{comma}"));
    }

    /// Who reads manifests takes what begins with a brace for JSON, which has no comments: where something
    /// is edited, a comment goes before the brace.
    pub(super) fn begin_with_a_comment(&mut self) {
        let at = self.text.len() - self.text.trim_start().len();
        if !self.lines.is_empty() && self.text[at..].starts_with('{') {
            self.replace(at..at + 1, "{".to_owned());
        }
    }

    /// Puts `lines` after the line that holds byte `at`.
    pub(super) fn insert_after(&mut self, at: usize, lines: Vec<String>) {
        let line = self.starts.line_of(at);
        self.lines.entry(line).or_default().after.extend(lines);
    }

    /// The text with all edits.
    pub(super) fn render(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 4096);
        let usual = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut at = 0;
        for (index, whole) in self.text.split_inclusive('\n').enumerate() {
            match self.lines.get(&index) {
                None => out.push_str(whole),
                Some(edit) => edit.render(whole, at, usual, &mut out),
            }
            at += whole.len();
        }
        out
    }
}

impl LineEdit {
    fn render(&self, whole: &str, at: usize, usual: &str, out: &mut String) {
        let (body, ending) = split_ending(whole);
        let untouched = self.within.is_empty() && !ending.is_empty();
        let between = if ending.is_empty() { usual } else { ending };
        let mut lines = Vec::new();
        if untouched {
            out.push_str(whole);
        } else {
            lines.push(format!("#{WAS}{body}"));
            lines.push(self.edited(body, at));
        }
        lines.extend(self.after.iter().cloned());
        let indented = lines.iter().filter(|line| !line.starts_with('#'));
        let indent = indented.map(|line| line.len() - line.trim_start().len()).min();
        let indent = " ".repeat(indent.unwrap_or_default());
        let mut write = |text: &str, ending: &str| {
            out.push_str(text);
            out.push_str(ending);
        };
        write(&format!("{indent}#{BEGIN}"), between);
        for line in &lines {
            let comment = if line.starts_with('#') { indent.as_str() } else { "" };
            write(&format!("{comment}{line}"), between);
        }
        write(&format!("{indent}#{END}"), ending);
    }

    fn edited(&self, body: &str, at: usize) -> String {
        let mut within: Vec<_> = self.within.iter().collect();
        within.sort_by_key(|(range, _)| range.start);
        let (mut line, mut from) = (String::new(), 0);
        for (range, replacement) in within {
            line.push_str(body.get(from..range.start - at).unwrap_or_default());
            line.push_str(replacement);
            from = range.end - at;
        }
        line.push_str(body.get(from..).unwrap_or_default());
        line
    }
}

/// Takes back every edit: the very bytes that were there before. Texts without edits come back as they are.
pub(super) fn restore(text: &str, parsed: &Parsed) -> Result<String, Refusal> {
    let starts = Starts::of(text);
    let marks: BTreeMap<usize, &str> = parsed
        .comments
        .iter()
        .filter(|(at, _)| stands_alone(text, *at))
        .map(|(at, comment)| (starts.line_of(*at), comment.trim_end_matches('\r')))
        .collect();
    let (mut out, mut block): (String, Option<(usize, Vec<&str>)>) = (String::new(), None);
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let mark = marks.get(&index).copied().unwrap_or_default();
        let misplaced =
            |what: &str| Err(Refusal::new(format!("`#{what}` is out of place")).at(index + 1));
        block = match (mark, block) {
            (BEGIN, None) => Some((index, Vec::new())),
            (BEGIN, Some(_)) => return misplaced(BEGIN),
            (END, None) => return misplaced(END),
            (END, Some((_, was))) => {
                let (_, ending) = split_ending(whole);
                was.iter().for_each(|line| out.extend([*line, ending]));
                None
            }
            (mark, Some((began, mut was))) => {
                was.extend(mark.strip_prefix(WAS));
                Some((began, was))
            }
            (_, None) => {
                out.push_str(whole);
                None
            }
        };
    }
    match block {
        Some((began, _)) => Err(Refusal::new(format!("`#{BEGIN}` has no `#{END}`")).at(began + 1)),
        None => Ok(out),
    }
}

/// Reads a text and takes back every edit in it.
pub(super) fn restored(text: &str) -> Result<String, Refusal> {
    restore(text, &yaml::parse(text)?)
}

/// A line's text, and its end.
fn split_ending(line: &str) -> (&str, &str) {
    let body = line.strip_suffix('\n').unwrap_or(line);
    let body = if body.len() < line.len() { body.strip_suffix('\r').unwrap_or(body) } else { body };
    (body, &line[body.len()..])
}

/// Where each line of a text begins.
#[derive(Debug)]
pub(super) struct Starts(Vec<usize>);

impl Starts {
    pub(super) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// The line that holds byte `at`, counted from 0.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The column of byte `at`, in bytes from 0.
    pub(super) fn column_of(&self, at: usize) -> usize {
        at - self.0.get(self.line_of(at)).copied().unwrap_or_default()
    }
}

/// Nothing but blanks before byte `at` on its line.
pub(super) fn stands_alone(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.rsplit('\n').next().unwrap_or_default().bytes().all(|byte| byte == b' ' || byte == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str) -> String {
        let mut edits = Edits::of(text);
        let at = text.find("b: 2").expect("there");
        edits.insert_after(at, vec!["x: 1".to_owned(), "y: 2".to_owned()]);
        let port = text.find("8080").expect("there");
        edits.replace(port..port + 4, "flowtap".to_owned());
        edits.render()
    }

    #[test]
    fn edits_are_seen_and_can_be_taken_back_to_the_byte() {
        for text in [
            "a: 1\nb: 2\nport: 8080 # c\nd: 4\n",
            "a: 1\r\nb: 2\r\nport: 8080\r\n",
            "a: 1\nb: 2\r\nport: 8080  ",
            "port: 8080\nb: 2",
            "port: 8080\r\nb: 2",
        ] {
            let edited = edited(text);
            let value =
                yaml::parse(&edited).expect("parses").documents[0].value().expect("a value");
            assert_eq!(value["port"], "flowtap", "{edited}");
            assert_eq!((&value["x"], &value["b"]), (&1.into(), &2.into()), "{edited}");
            assert_eq!(restored(&edited).expect("restores"), text, "{edited:?}");
            assert_eq!(restored(text).expect("restores"), text);
            assert!(!edited.contains("\n\n"), "{edited:?}");
        }
    }

    #[test]
    fn marks_inside_of_a_text_are_text() {
        let text = "data: |\n  # flowtap:begin\n  # flowtap:was>x\nother: '# flowtap:end'\n";
        assert_eq!(restored(text).expect("restores"), text);
    }

    #[test]
    fn marks_that_do_not_match_are_refused_with_their_line() {
        for (text, line) in [
            ("a: 1\n# flowtap:end\n", 2),
            ("# flowtap:begin\na: 1\n", 1),
            ("# flowtap:begin\n# flowtap:begin\n# flowtap:end\na: 1\n", 2),
        ] {
            assert_eq!(restored(text).expect_err("refused").line, line);
        }
    }
}
