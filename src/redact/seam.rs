//! Secrets in pieces: texts of one list that read on from one to the next, as tokens of a stream do.

use serde_json::Value;

use super::issued::{TOKEN_BYTES_MIN, is_token_sign};
use super::{Counts, Redactor, credential};
use crate::config::{RedactKind, RedactMode};
use crate::domain::Node;

/// Members of a list's elements that hold a piece of text.
const MEMBERS: &[&str] = &["text", "content", "delta", "arguments"];

/// A stretch of one element's text that reads on from the element before it or to the one behind it.
struct Piece {
    element: usize,
    start: usize,
    end: usize,
}

impl Redactor {
    /// Takes out what is a secret only once the texts of neighbouring elements are joined.
    pub(super) fn seams(&self, items: &mut [Value], counts: &mut Counts) {
        if !self.looks_for_secrets() {
            return;
        }
        for value in items.iter_mut().filter_map(credential::value_of_pair) {
            counts.add("secret", 1);
            *value = self.placeholder(RedactKind::Secret, value);
        }
        if items.len() < 2 {
            return;
        }
        self.joined(items, counts, &mut |item| match item {
            Value::String(text) => Some(text),
            _ => None,
        });
        for member in MEMBERS {
            self.joined(items, counts, &mut |item| match item.get_mut(*member) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            });
        }
    }

    /// True where [`Self::seams`] would take something out of the elements of a list.
    pub(super) fn has_seams<'o, 'a: 'o>(
        &self,
        items: impl Iterator<Item = Node<'o, 'a>> + Clone,
    ) -> bool {
        let has_any = |text: &dyn Fn(Node<'o, 'a>) -> Option<&'o str>| {
            !secrets(items.clone().map(|item| text(item).unwrap_or(""))).is_empty()
        };
        let reads_on = || {
            has_any(&Node::text)
                || MEMBERS.iter().any(|member| has_any(&|item| item.member(member)?.text()))
        };
        self.looks_for_secrets()
            && (items.clone().any(credential::is_pair)
                || (items.clone().nth(1).is_some() && reads_on()))
    }

    fn looks_for_secrets(&self) -> bool {
        self.kinds.contains(&RedactKind::Secret) && self.mode != RedactMode::Off
    }

    fn joined(
        &self,
        items: &mut [Value],
        counts: &mut Counts,
        text: &mut impl FnMut(&mut Value) -> Option<&mut String>,
    ) {
        let texts = items.iter_mut().map(|item| text(item).map_or("", |text| text.as_str()));
        for secret in secrets(texts).iter().rev() {
            counts.add("secret", 1);
            self.take_out(items, secret, text);
        }
    }

    /// The first piece becomes the placeholder, and the others go.
    fn take_out(
        &self,
        items: &mut [Value],
        secret: &[Piece],
        text: &mut impl FnMut(&mut Value) -> Option<&mut String>,
    ) {
        for (nth, piece) in secret.iter().enumerate().rev() {
            let Some(text) = items.get_mut(piece.element).and_then(&mut *text) else { continue };
            let placeholder = if nth == 0 {
                self.placeholder(RedactKind::Secret, &text[piece.start..piece.end])
            } else {
                String::new()
            };
            text.replace_range(piece.start..piece.end, &placeholder);
        }
    }
}

/// The secrets in pieces among the texts of a list's elements.
fn secrets<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<Vec<Piece>> {
    let (mut run, mut pieces) = (String::new(), Vec::new());
    let mut secrets = Vec::new();
    for (element, found) in texts.enumerate() {
        let head = found.bytes().take_while(|byte| is_token_sign(*byte)).count();
        add(&mut run, &mut pieces, found, Piece { element, start: 0, end: head });
        if head < found.len() || found.is_empty() {
            settle(&mut run, &mut pieces, &mut secrets);
            let tail = found.bytes().rev().take_while(|byte| is_token_sign(*byte)).count();
            let (start, end) = (found.len() - tail, found.len());
            add(&mut run, &mut pieces, found, Piece { element, start, end });
        }
    }
    settle(&mut run, &mut pieces, &mut secrets);
    secrets
}

/// Keeps the pieces of a run that is a secret as a whole, and begins anew.
fn settle(run: &mut String, pieces: &mut Vec<Piece>, secrets: &mut Vec<Vec<Piece>>) {
    if pieces.len() > 1 && is_secret(run) && reads_on(run, pieces) {
        secrets.push(std::mem::take(pieces));
    }
    pieces.clear();
    run.clear();
}

fn is_secret(text: &str) -> bool {
    may_be_secret(text) && !super::find::find(&[RedactKind::Secret], text).is_empty()
}

/// False for signs of tokens that are too few for one, and assign nothing. Of a web token the beginning is one.
fn may_be_secret(text: &str) -> bool {
    text.len() >= TOKEN_BYTES_MIN || text.contains('=') || text.contains("eyJ")
}

/// True unless one piece is a secret alone, and what stands beside it are words.
fn reads_on(run: &str, pieces: &[Piece]) -> bool {
    let mut at = 0;
    let texts = pieces.iter().map(|piece| {
        let from = at;
        at += piece.end - piece.start;
        &run[from..at]
    });
    let (alone, parts): (Vec<_>, Vec<_>) = texts.partition(|text| is_secret(text));
    alone.is_empty() || parts.into_iter().all(credential::is_opaque)
}

fn add(run: &mut String, pieces: &mut Vec<Piece>, text: &str, piece: Piece) {
    if piece.start < piece.end {
        run.push_str(&text[piece.start..piece.end]);
        pieces.push(piece);
    }
}

/// True where the line behind `line` belongs to a private key; `in_key`: so does `line` itself.
pub(super) fn is_in_key(line: &str, in_key: bool) -> bool {
    if in_key { !line.contains("-----END ") } else { begins_key(line) }
}

/// True where a private key begins in `text` and does not end in it.
fn begins_key(text: &str) -> bool {
    let begin = text.rfind("-----BEGIN ").map(|at| &text[at..]);
    begin.is_some_and(|key| key.contains("PRIVATE KEY") && !key.contains("-----END "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::json::Walk;
    use super::*;
    use crate::redact::tests::redactor;

    const KEY: &str = "sk-proj-Zx9Qw7Er5Ty3Ui1Op0As8Df6Gh4Jk2Lz";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_not_searched_is_no_secret(
            text in "(sk-|xox[a-z][.-]|AKIA|eyJ|-u|--user|//|basic|api_key|pwd|token|SG[.])?[A-Za-z0-9_.+/~-]{0,14}",
        ) {
            let found = super::super::find::find(&[RedactKind::Secret], &text);
            prop_assert!(may_be_secret(&text) || found.is_empty(), "{} {:?}", text, found);
        }
    }

    fn redacted(value: Value) -> (Value, u64) {
        let (redactor, mut counts) = (redactor(RedactMode::Mask), Counts::default());
        let redacted = Walk::new(&redactor, &mut counts).value(value);
        (redacted, counts.0.get("secret").copied().unwrap_or(0))
    }

    #[test]
    fn a_secret_in_pieces_is_found_however_it_was_cut() {
        for length in [1, 3, 5, 11, 25] {
            let pieces: Vec<_> =
                KEY.as_bytes().chunks(length).map(String::from_utf8_lossy).collect();
            let mut list = vec![json!("my key is ")];
            list.extend(pieces.iter().map(|piece| json!(piece)));
            list.push(json!(" it is"));
            let joined = |value: &Value| {
                let items = value.as_array().into_iter().flatten();
                items.filter_map(Value::as_str).collect::<String>()
            };
            let (kept, found) = redacted(Value::Array(list));
            assert_eq!(
                (joined(&kept).as_str(), found),
                ("my key is [secret] it is", 1),
                "{length}"
            );
            let parts = pieces.iter().map(|piece| json!({"type": "text", "text": piece}));
            let (kept, found) = redacted(json!({"content": parts.collect::<Vec<_>>()}));
            let text = kept.to_string();
            assert!(text.contains("[secret]") && found == 1, "{length}: {text}");
            assert!(!text.contains("Zx9") || length < 3, "{length}: {text}");
        }
    }

    #[test]
    fn texts_that_only_stand_beside_each_other_stay() {
        let lists = json!([["hello", "world", "understandable"], ["a", 1, "b"], [{"text": "Hi"}, {"text": "there"}],
            ["gpt-4o-2024-08-06", "gpt-4o-mini"]]);
        assert_eq!(redacted(lists.clone()), (lists, 0));
        let thanked = json!([{"content": format!("it is {KEY}")}, {"content": "Thanks"}]);
        let kept = json!([{"content": "it is [secret]"}, {"content": "Thanks"}]);
        assert_eq!(redacted(thanked), (kept, 1));
    }

    #[test]
    fn a_private_key_line_by_line_goes_whole() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let lines = json!([
            "x\n",
            "-----BEGIN PRIVATE KEY-----\n",
            line,
            line,
            "-----END PRIVATE KEY-----\n",
            "y"
        ]);
        let kept = redacted(lines).0;
        assert_eq!(kept, json!(["x\n", "[secret]", "[secret]", "[secret]", "[secret]", "y"]));
    }
}
