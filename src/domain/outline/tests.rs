//! The outline of whatever text, beside what serde_json makes of it.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::super::line::tests::values;
use super::*;

fn outline(text: &str) -> Option<Outline> {
    Outline::of(text, 8, 1000)
}

fn value(node: Node<'_, '_>) -> Value {
    match node.kind() {
        Kind::Word | Kind::Number => serde_json::from_str(node.raw()).expect("JSON"),
        Kind::Text | Kind::Escaped => node.text().expect("a string").into(),
        Kind::List => node.items().map(value).collect(),
        Kind::Object => {
            let members = node.members().map(|(key, node)| (key.to_owned(), value(node)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

/// What has an outline is what serde_json reads, and what it writes but for blanks and escapes.
fn holds(text: &str) -> Result<bool, TestCaseError> {
    let Some(outline) = outline(text) else { return Ok(false) };
    let whole = outline.whole(text).expect("its text");
    let read: Result<Value, _> = serde_json::from_str(text);
    prop_assert!(read.is_ok(), "no JSON: {}", text);
    let read = read?;
    prop_assert_eq!(&value(whole), &read);
    let line = whole.line();
    prop_assert!(!line.contains(['\n', '\r', '\t']), "{}", line);
    let mut short = String::new();
    whole.write(&mut short);
    for written in [line.as_ref(), &short] {
        let again: Value = serde_json::from_str(written)?;
        prop_assert_eq!(again.to_string(), read.to_string());
    }
    if !text.contains('\\') {
        prop_assert_eq!(short, read.to_string());
    }
    for count in 0..3 {
        let first: Value = serde_json::from_str(&whole.first_items(count))?;
        let items = read.as_array().into_iter().flatten().take(count).cloned();
        prop_assert_eq!(first, items.collect::<Value>());
    }
    Ok(true)
}

proptest! {
    #[test]
    fn whatever_has_an_outline_is_what_serde_json_reads(
        parts in prop::collection::vec(select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"b\":", "\"a\":", "\"a\\n\"", "\"\\u00e9\\\"\"", "\"\\ud83c\"", "\"\\x\"",
            "\"\u{1}\"", "\"é\u{1f389}\"", "null", "true", "false", "nul", "0", "-0", "01", "12", "-1", "1.5", "1.50", "1e5", "1e999",
            "18446744073709551615", "18446744073709551616", "0.1", "1-2", " ", "\n", "\t", "\u{a0}", "\\", "{}", "[]", "[1]",
            "{\"a\":1}", "{\"a\":1,\"a\":2}",
        ]), 0..12),
    ) {
        holds(&parts.concat())?;
    }

    #[test]
    fn json_of_any_shape_has_one(value in values(), spaced in any::<bool>()) {
        let text = if spaced { format!("{value:#}") } else { value.to_string() };
        let again: Value = serde_json::from_str(&text)?;
        // Keys with escapes have none, and numbers that serde_json reads as others.
        let is_plain = !text.contains('\\') && again == value;
        prop_assert!(holds(&text)? || !is_plain, "{}", text);
        let cut = String::from_utf8_lossy(&text.as_bytes()[..text.len() / 2]);
        holds(&cut)?;
    }
}

#[test]
fn only_what_is_plain_has_one() {
    let refused = [
        r#"{"a": 1, "b": 2, "a": 3}"#,
        r#"{"\u0061": 1}"#,
        "1.50",
        "1e5",
        "-0",
        "18446744073709551616",
        "\"\\ud83c\"",
        "[1,]",
        "{,}",
        "[1] x",
        "[[[[[[[[[1]]]]]]]]]",
        "\u{feff}{}",
        "",
    ];
    for text in refused {
        assert!(outline(text).is_none(), "{text}");
    }
    let many = |count: usize| {
        let members = (0..count).map(|at| (format!("k{at}"), json!(at)));
        Value::Object(members.collect()).to_string()
    };
    for count in [1, 16, 17, 400] {
        let text = many(count);
        assert!(outline(&text).is_some(), "{count}");
        let twice = text.replace("\"k0\"", &format!("\"k{}\"", count - 1));
        assert_eq!(outline(&twice).is_some(), count == 1, "{count}");
    }
    assert!(outline(&many(600)).is_none(), "more parts than are allowed");
}

#[test]
fn members_and_items_are_found() {
    let text = "{\"a\": [1, {\"b\": \"x\\ny\"}],\n \"c\": \"z\", \"d\": null}";
    let outline = outline(text).expect("plain");
    assert!(outline.whole("{}").is_none(), "another text");
    let whole = outline.whole(text).expect("its text");
    let list = whole.member("a").expect("a list");
    let inner = list.items().nth(1).and_then(|item| item.member("b")).expect("a text");
    assert_eq!((inner.text(), inner.raw()), (Some("x\ny"), "\"x\\ny\""));
    assert_eq!(list.items().next().and_then(Node::count), Some(1));
    assert_eq!(whole.member("c").and_then(Node::text), Some("z"));
    assert!(whole.member("d").is_some_and(Node::is_null) && whole.member("x").is_none());
    assert_eq!(whole.line(), r#"{"a":[1,{"b":"x\ny"}],"c":"z","d":null}"#);
    assert_eq!(list.first_items(1), "[1]");
    assert_eq!((whole.items().count(), inner.members().count()), (0, 0));
}
