//! Server-sent events as servers of models write them: a field `data` of one line, perhaps an `event`
//! before it, and a blank line. Whatever else the format allows is left to [`sse`](crate::dialect::sse).

use memchr::memchr2;

use crate::dialect::sse::Limits;

/// One event of a stream that is here as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// Its `event` field; empty where there was none.
    pub(super) name: &'a str,
    pub(super) data: &'a str,
    /// Where in the stream its first field stands.
    pub(super) start: u64,
}

/// The events of a stream; `None` in place of what cannot be read here, and nothing after it.
pub(super) struct Events<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Events<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next line without its end; `None` where it does not end.
    fn line(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let end = memchr2(b'\r', b'\n', rest.as_bytes())?;
        let after = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        self.at += end + after;
        let crlf_or_lf = after == 2 || rest.as_bytes()[end] == b'\n';
        (crlf_or_lf && end <= Limits::default().line_bytes_max).then(|| &rest[..end])
    }

    fn event(&mut self) -> Option<Option<Event<'a>>> {
        let (mut name, mut data, mut start) = ("", None, None);
        while self.at < self.text.len() {
            let at = self.at as u64;
            let line = self.line()?;
            if let Some(value) = field(line, "data:") {
                if data.replace(value).is_some() {
                    return None;
                }
            } else if let Some(value) = field(line, "event:") {
                name = value;
            } else if line.is_empty() {
                match data {
                    Some(data) => {
                        return Some(Some(Event { name, data, start: start.unwrap_or(at) }));
                    }
                    None => (name, start) = ("", None),
                }
                continue;
            } else if line.starts_with(':') {
                continue;
            } else {
                field(line, "id:")?;
            }
            start.get_or_insert(at);
        }
        // The last event of a cut stream has no blank line.
        data.is_none().then_some(None)
    }
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

impl<'a> Iterator for Events<'a> {
    type Item = Option<Event<'a>>;

    fn next(&mut self) -> Option<Option<Event<'a>>> {
        let event = self.event();
        if event.is_none() {
            self.at = self.text.len();
        }
        event.map_or(Some(None), |event| event.map(Some))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::sse::Parser;

    proptest! {
        #[test]
        fn what_is_read_here_is_what_the_whole_parser_reads(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data: {\"a\":1}", "data:x", "data", "event: e", "event:", "id: 7", ": note", "\n", "\r\n",
                "\r", "\n\n", "retry: 5", "\u{feff}", "é", " ",
            ]), 0..30),
        ) {
            let text: String = parts.concat();
            let mut whole = Vec::new();
            let mut parser = Parser::new(Limits::default());
            parser.push(text.as_bytes(), &mut |event| {
                whole.push((event.name.into_owned(), event.data.into_owned(), event.start));
            });
            let unfinished = parser.finish().is_some();
            let read: Vec<_> = Events::of(&text).collect();
            if read.iter().all(Option::is_some) {
                let of = |event: Event<'_>| (event.name.to_owned(), event.data.to_owned(), event.start);
                let read: Vec<_> = read.into_iter().flatten().map(of).collect();
                prop_assert_eq!(read, whole);
                prop_assert!(!unfinished);
            }
        }
    }
}
