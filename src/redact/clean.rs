//! JSON in which nothing is found, looked through where it stands: it is kept as it is.
//!
//! What is said here of a value is what [`Walk`] would do with it, and each text is given to it. What is
//! only suspicious is not clean: then [`Walk`] has the word.

use std::borrow::Cow;

use super::json::{CARD_MIN, Under, Unreadable, Walk, is_media};
use super::record::RedactedTexts;
use super::{Counts, Redactor, seam};
use crate::domain::{Json, Kind, Node, Said, Texts};

impl Redactor {
    /// The texts as a record keeps them, if nothing is found in any of them.
    ///
    /// A column that is a part of a body is clean if the body is: what nothing is found in where it stands,
    /// below whatever keys, nothing is found in where it stands alone.
    pub fn clean<'a>(&self, texts: &Texts<'_, 'a>) -> Option<RedactedTexts<'a>> {
        let mut counts = Counts::default();
        let mut looking = Looking { walk: Walk::new(self, &mut counts) };
        let joined = [&texts.question, &texts.answer].into_iter().flatten();
        // A list that ends earlier has another end to be read on from.
        let history = texts.chat_history.map(|(turns, count)| turns.items().take(count));
        let is_clean = looking.is_clean(texts.request, Under::Plain)
            && looking.is_clean(texts.response, Under::Plain)
            && joined.clone().all(|said| looking.is_said_clean(said))
            && !history.is_some_and(|turns| self.has_seams(turns));
        is_clean.then(|| RedactedTexts::of(texts))
    }
}

impl<'a> RedactedTexts<'a> {
    fn of(texts: &Texts<'_, 'a>) -> Self {
        let line = |node: Node<'_, 'a>| Json::Text(node.line());
        let said = |said: &Said<'_, 'a>| match said {
            Said::There(node) => line(*node),
            Said::Joined(text) => Json::Value(text.as_str().into()),
        };
        let turns = |(turns, count): (Node<'_, 'a>, usize)| turns.first_items(count);
        Self {
            request: Some(line(texts.request)),
            response: Some(line(texts.response)),
            question: texts.question.as_ref().map(said),
            answer: texts.answer.as_ref().map(said),
            context: texts.context.map(line),
            ground_truth: texts.ground_truth.map(line),
            chat_history: texts.chat_history.map(|history| Json::Text(turns(history).into())),
            counts: Counts::default(),
        }
    }
}

struct Looking<'r> {
    walk: Walk<'r>,
}

impl Looking<'_> {
    fn is_clean(&mut self, node: Node<'_, '_>, under: Under) -> bool {
        match node.kind() {
            Kind::Word => true,
            Kind::Number => {
                node.count().is_none_or(|number| number < CARD_MIN)
                    || self.is_text_clean(node.raw(), Under::Plain)
            }
            Kind::Text | Kind::Escaped => {
                self.is_text_clean(node.text().unwrap_or_default(), under)
            }
            Kind::List => self.is_list_clean(node, under),
            Kind::Object => self.are_members_clean(node, under),
        }
    }

    fn is_said_clean(&mut self, said: &Said<'_, '_>) -> bool {
        match said {
            Said::There(_) => true,
            Said::Joined(text) => self.is_text_clean(text, Under::Plain),
        }
    }

    fn is_text_clean(&mut self, text: &str, under: Under) -> bool {
        matches!(self.walk.string(text, under), Cow::Borrowed(_)) && self.walk.found_nothing()
    }

    fn is_list_clean(&mut self, list: Node<'_, '_>, under: Under) -> bool {
        let mut in_key = false;
        !self.walk.redactor.has_seams(list.items())
            && list.items().all(|item| {
                let under = if in_key { Under::Credential } else { under };
                in_key = item.text().is_some_and(|line| seam::is_in_key(line, in_key));
                self.is_clean(item, under)
            })
    }

    fn are_members_clean(&mut self, object: Node<'_, '_>, under: Under) -> bool {
        let inherited = under.inherited();
        object.members().all(|(key, value)| {
            let (meaning, is_clean) = self.walk.redactor.key(key);
            is_clean
                && !may_be_unreadable(key, value)
                && self.is_clean(value, inherited.of(meaning))
        })
    }
}

/// True for what [`Walk`] would leave out, and for what a dialect may have made of a body that is neither
/// JSON nor text.
fn may_be_unreadable(key: &str, value: Node<'_, '_>) -> bool {
    match Unreadable::of(key) {
        _ if key == "base64" => true,
        Unreadable::No => false,
        Unreadable::Vector | Unreadable::Odds => {
            matches!(value.kind(), Kind::Text | Kind::Escaped | Kind::List | Kind::Object)
        }
        Unreadable::Media => value.text().is_some_and(is_media),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};

    use super::super::canaries::canaries;
    use super::super::tests::redactor;
    use super::*;
    use crate::config::RedactMode;
    use crate::domain::Outline;

    /// What `clean` says of a body whose first list's first `turns` elements are the history.
    fn is_clean(redactor: &Redactor, text: &str, turns: usize) -> Option<bool> {
        let outline = Outline::of(text, 64, 10_000)?;
        let body = outline.whole(text)?;
        let list = body.members().map(|(_, value)| value).find(|value| value.kind() == Kind::List);
        let texts = Texts {
            request: body,
            response: body,
            question: None,
            answer: None,
            context: None,
            ground_truth: None,
            chat_history: list.map(|list| (list, turns)),
        };
        Some(redactor.clean(&texts).is_some())
    }

    /// True where the other way, which builds the value, leaves all of it as it is.
    fn stays(redactor: &Redactor, value: &Value) -> bool {
        let mut counts = Counts::default();
        Walk::new(redactor, &mut counts).value(value.clone()) == *value && counts.0.is_empty()
    }

    /// Whatever `clean` passes, the other way leaves as it is, its parts by themselves included.
    fn holds(redactor: &Redactor, text: &str, turns: usize) -> bool {
        if is_clean(redactor, text, turns) != Some(true) {
            return false;
        }
        let value: Value = serde_json::from_str(text).expect("JSON");
        let members = || value.as_object().into_iter().flat_map(|members| members.values());
        let list = members().find_map(Value::as_array).into_iter().flatten();
        let history: Value = list.take(turns).cloned().collect();
        for part in members().chain([&value, &history]) {
            assert!(stays(redactor, part), "something is found in {part} of {text}");
        }
        true
    }

    const KEYS: &[&str] = &[
        "messages",
        "content",
        "role",
        "text",
        "key",
        "api_key",
        "authorization",
        "sig",
        "data",
        "embedding",
        "logprobs",
        "base64",
        "arguments",
        "delta",
        "password",
        "joe@example.com",
        "value",
        "a",
        "model",
        "url",
        "tool_calls",
    ];
    const TEXTS: &[&str] = &[
        "",
        "hello there",
        "user",
        "gpt-4o-2024-08-06",
        "sk-proj-Zx9Qw7Er5Ty3",
        "Ui1Op0As8Df6Gh4Jk2Lz",
        "sk-",
        "-----BEGIN RSA PRIVATE KEY-----",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
        "-----END RSA PRIVATE KEY-----",
        "joe@example.com",
        "4111 1111 1111 1111",
        "data:image/png;base64,iVBORw0KGgo",
        "{\"password\": \"hunter2\"}",
        "{\"note\": \"fine\"}",
        "[\"a\", {\"api_key\": \"x\"}]",
        "{\"a\": \"joe@example.com\"}",
        "sk%2Dproj%2DZx9Qw7Er5Ty3Ui1Op0As8Df6Gh4Jk2Lz",
        "line\nbreak \"quoted\" \\ and more",
        "Bearer abcdef0123456789",
        "203.0.113.77",
        "api_key=abcd1234efgh",
        "c2stcHJvai1aeDlRdzdFcjVUeTNVaTFPcDBBczhEZjZHaDRKazJMeg",
        "é\u{1f389}",
        "https://u:p4ssw0rd@h/",
        "a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "[email]",
        "x y z",
    ];

    fn bodies() -> impl Strategy<Value = Value> {
        let texts = select(TEXTS).prop_map(Value::from);
        let numbers =
            select(vec![0_u64, 1, 4_111_111_111_111_111, 1_732_400_000_123]).prop_map(Value::from);
        let blob = Just(Value::from("QUJD".repeat(100)));
        let leaf = prop_oneof![8 => texts, 1 => numbers, 1 => blob, 1 => Just(Value::Null), 1 => Just(Value::Bool(true))];
        let inner = leaf.prop_recursive(4, 24, 5, |inner| {
            let members = prop::collection::vec((select(KEYS), inner.clone()), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Value::from),
                members.prop_map(|members| members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()),
            ]
        });
        prop::collection::vec((select(KEYS), inner), 1..4).prop_map(|members| {
            members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_passes_that_the_other_way_finds(
            body in bodies(), turns in 0_usize..4, spaced in any::<bool>(), escaped in any::<bool>(),
        ) {
            let text = if spaced { format!("{body:#}") } else { body.to_string() };
            // Escapes of characters that need none.
            let text = if escaped { text.replace("sk-", "\\u0073k-").replace('@', "\\u0040") } else { text };
            for mode in [RedactMode::Mask, RedactMode::Hash, RedactMode::Off] {
                holds(&redactor(mode), &text, turns);
            }
        }
    }

    #[test]
    fn what_is_plain_is_clean_and_what_only_stays_may_not_be() {
        let redactor = redactor(RedactMode::Mask);
        let chat = json!({"model": "gpt-4o-mini", "messages": [{"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "what do\n\"documents\" say about §5?"}], "temperature": 0.2, "max_tokens": 400,
            "logprobs": null, "created": 1_732_400_000, "usage": {"prompt_tokens": 412, "completion_tokens": 318}});
        assert!(holds(&redactor, &chat.to_string(), 1));
        assert!(holds(&redactor, &format!("{chat:#}"), 1));
        let suspicious = [
            json!({"embedding": "x"}),
            json!({"base64": "x"}),
            json!({"logprobs": {"content": []}}),
            json!({"api_key": "x"}),
            json!({"authorization": {"value": "hunter2secret99"}}),
            json!({"lines": ["-----BEGIN PRIVATE KEY-----", "x", "-----END PRIVATE KEY-----"]}),
            json!({"pieces": ["sk-proj-Zx9Qw7Er5Ty3", "Ui1Op0As8Df6Gh4Jk2Lz"]}),
            json!({"pieces": [{"text": "sk-proj-Zx9Qw7Er5Ty3"}, {"text": "Ui1Op0As8Df6Gh4Jk2Lz"}]}),
            json!({"number": 4_111_111_111_111_111_u64}),
            json!({"arguments": "{\"password\": \"hunter2\"}"}),
            json!({"image_url": "data:image/png;base64,iVBORw0KGgo"}),
            json!({"joe@example.com": 1}),
        ];
        for body in suspicious {
            assert!(!holds(&redactor, &body.to_string(), 0), "{body}");
        }
    }

    /// Every secret's shape in every place, as the canaries of the other way.
    #[test]
    fn no_canary_is_clean_wherever_it_stands() {
        let redactor = redactor(RedactMode::Mask);
        for (_, text) in canaries() {
            let places = [
                json!({"messages": [{"role": "user", "content": text}]}),
                json!({"messages": [{"content": [{"type": "text", "text": text}]}]}),
                json!({text.as_str(): 1}),
                json!({"calls": [{"arguments": json!({"note": text}).to_string()}]}),
                json!({"calls": [{"arguments": json!({"in": json!({"deep": text}).to_string()}).to_string()}]}),
                json!({"error": {"message": format!("upstream said: {text}")}}),
                json!([text]),
            ];
            for place in places {
                assert_ne!(is_clean(&redactor, &place.to_string(), 0), Some(true), "{place}");
            }
        }
    }
}
