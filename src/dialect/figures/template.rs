//! Most events of a stream are the one before with another text in it.

use std::borrow::Cow;

use memchr::memchr2;

/// An event whose texts may be others in the next one without a difference to any figure.
#[derive(Debug, Default)]
pub(super) struct Template<'a> {
    /// What stands before each text, and what stands behind the last; empty where there is no text.
    fixed: [&'a [u8]; 3],
    /// The texts: so many of them, the first being content, which must not become empty.
    texts: usize,
    /// Which of the texts is the content.
    content: usize,
}

impl<'a> Template<'a> {
    /// The event `data` with a `content` that is not empty, and a `padding`, both within `data`.
    pub(super) fn of(
        data: &'a str,
        content: Option<&Cow<'a, str>>,
        padding: Option<&Cow<'a, str>>,
    ) -> Self {
        let within = |text: Option<&Cow<'a, str>>| match text {
            Some(Cow::Borrowed(text)) => {
                let start = (text.as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
                Some((start, start + text.len()))
            }
            _ => None,
        };
        let Some(content) = within(content) else { return Self::default() };
        let bytes = data.as_bytes();
        let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        let end = bytes.len();
        match within(padding) {
            None => {
                let fixed = [part(0, content.0), part(content.1, end), &[]];
                Self { fixed, texts: 1, content: 0 }
            }
            Some(padding) => {
                let (one, two) = (content.min(padding), content.max(padding));
                let fixed = [part(0, one.0), part(one.1, two.0), part(two.1, end)];
                Self { fixed, texts: 2, content: usize::from(one != content) }
            }
        }
    }

    /// True where `data` differs from the event in nothing but its texts.
    pub(super) fn is_repeated_by(&self, data: &str) -> bool {
        let mut rest = data.as_bytes();
        for text in 0..self.texts {
            let Some(behind) = rest.strip_prefix(self.fixed[text]) else { return false };
            // An escape, or what must not stand in a string, is left to those who read it.
            let Some(len) = memchr2(b'"', b'\\', behind) else { return false };
            let (said, after) = behind.split_at(len);
            let plain = said.iter().all(|byte| *byte >= 0x20);
            if !plain || (said.is_empty() && text == self.content) {
                return false;
            }
            rest = after;
        }
        self.texts > 0 && rest == self.fixed[self.texts]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_texts_may_differ() {
        let data = r#"{"c":"one","n":1,"p":"xx"}"#;
        let (content, padding) = (Cow::Borrowed(&data[6..9]), Cow::Borrowed(&data[22..24]));
        assert_eq!((&*content, &*padding), ("one", "xx"));
        let both = Template::of(data, Some(&content), Some(&padding));
        for same in [r#"{"c":"two é","n":1,"p":""}"#, r#"{"c":"]","n":1,"p":"yyyy"}"#] {
            assert!(both.is_repeated_by(same), "{same}");
        }
        for other in [
            r#"{"c":"","n":1,"p":"xx"}"#,
            r#"{"c":"a\n","n":1,"p":"xx"}"#,
            "{\"c\":\"a\nb\",\"n\":1,\"p\":\"xx\"}",
            r#"{"c":"one","n":2,"p":"xx"}"#,
            r#"{"c":"one","n":1,"p":"xx"} "#,
            r#"{"c":"one","n":1,"p":"xx","p":"xx"}"#,
            r#"{"c":"one"#,
            "",
        ] {
            assert!(!both.is_repeated_by(other), "{other}");
        }
        let one = Template::of(data, Some(&content), None);
        assert!(one.is_repeated_by(r#"{"c":"other","n":1,"p":"xx"}"#));
        assert!(!one.is_repeated_by(r#"{"c":"other","n":1,"p":"yy"}"#));
        assert!(!Template::of(data, None, Some(&padding)).is_repeated_by(data));
        assert!(!Template::default().is_repeated_by(""));
    }
}
