//! The same objects in whatever layout YAML allows: each is injected and comes back to the byte, or is
//! refused with its line; what is injected means what it should.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// Decides by bytes that were drawn before, so that a failing layout can be made smaller.
struct Draw {
    bytes: Vec<u8>,
    at: usize,
}

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        usize::from(byte) % count
    }

    /// True once in `count` times; never where nothing was drawn.
    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// How one text is written.
struct Writer {
    draw: Draw,
    out: String,
    end: &'static str,
    map_indent: usize,
    list_indent: usize,
    comments: bool,
    blanks: bool,
    flow: bool,
    odd: bool,
    anchors: usize,
}

const TEXTS: &[&str] = &[
    "app",
    "x-1",
    "a b",
    "yes",
    "0.5",
    "8080",
    "# no",
    "a: b",
    "ä€",
    "multi\nline\n",
    "- dash",
    "{{ x }}",
    "",
    "true",
    "null",
    "~",
    " lead",
    "trail ",
    "'q'",
    "\"dq\"",
    "%TAG",
    "@at",
    "`t`",
    "&a",
    "*b",
    "!t",
    "|",
    "> x",
    "\\n",
    "flowtap:begin",
    "# flowtap:begin",
    "x\n# flowtap:begin\ny",
    "a\n\n  in\n\nend\n",
];

impl Writer {
    fn new(bytes: Vec<u8>) -> Self {
        let mut draw = Draw { bytes, at: 0 };
        let end = draw.one(&["\n", "\n", "\r\n"]);
        let (map_indent, list_indent) =
            ([2, 4, 1, 3, 8][draw.below(5)], [0, 2, 4, 1][draw.below(4)]);
        let (comments, blanks) = (draw.once_in(3), draw.once_in(3));
        let (flow, odd) = (draw.once_in(3), draw.once_in(2));
        let out = String::new();
        Self { draw, out, end, map_indent, list_indent, comments, blanks, flow, odd, anchors: 0 }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push_str(self.end);
    }

    /// The end of a line that may bear blanks and a comment.
    fn rest(&mut self) -> String {
        let blanks = if self.blanks { self.draw.one(&["", " ", "  "]) } else { "" };
        let comment = if self.comments { self.draw.one(&["", " # c", " #"]) } else { "" };
        format!("{blanks}{comment}")
    }

    fn between(&mut self, pad: &str) {
        if self.blanks && self.draw.once_in(4) {
            let blank = self.draw.one(&["", " ", "   "]).to_owned();
            self.line(&blank);
        }
        if self.comments && self.draw.once_in(3) {
            let text =
                self.draw.one(&["# a comment", "#", "# spec:", "# - name: x", "# flowtap: begin"]);
            let pad = [pad, "", "   "][self.draw.below(3)];
            self.line(&format!("{pad}{text}"));
        }
    }

    fn scalar(&mut self, value: &Value) -> String {
        let Value::String(text) = value else { return value.to_string() };
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.-".contains(&b))
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
            && !["yes", "true", "null"].contains(&text.as_str());
        match self.draw.below(4) {
            1 => value.to_string(),
            2 if !text.contains('\n') => format!("'{}'", text.replace('\'', "''")),
            3 if self.odd => {
                self.anchors += 1;
                format!("&a{} !!str {value}", self.anchors)
            }
            _ if plain => text.clone(),
            _ => value.to_string(),
        }
    }

    fn flow(&mut self, value: &Value, pad: &str) -> String {
        let wide = !pad.is_empty() && self.draw.once_in(3);
        let inner = if wide { format!("{pad}  ") } else { String::new() };
        let parts: Vec<String> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), self.flow(value, &inner)))
                .collect(),
            Value::Array(items) => items.iter().map(|item| self.flow(item, &inner)).collect(),
            other => return self.scalar(other),
        };
        let (open, close) = if value.is_object() { ("{", "}") } else { ("[", "]") };
        if wide && !parts.is_empty() {
            let lines = parts.join(&format!(",{}{inner}", self.end));
            return format!("{open}{0}{inner}{lines}{0}{pad}{close}", self.end);
        }
        let space = self.draw.one(&["", " "]);
        format!("{open}{space}{}{space}{close}", parts.join(", "))
    }

    fn block(&mut self, value: &Value, pad: &str) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                self.between(pad);
                let key = if key.contains('/') { json!(key).to_string() } else { key.clone() };
                self.entry(&format!("{pad}{key}:"), value, pad);
            }),
            Value::Array(items) => items.iter().for_each(|item| {
                self.between(pad);
                self.item(item, pad);
            }),
            other => {
                let text = self.scalar(other);
                self.line(&format!("{pad}{text}"));
            }
        }
    }

    fn is_block(&mut self, value: &Value) -> bool {
        let filled = value.as_object().is_some_and(|map| !map.is_empty())
            || value.as_array().is_some_and(|list| !list.is_empty());
        filled && !(self.flow && self.draw.once_in(6))
    }

    fn entry(&mut self, head: &str, value: &Value, pad: &str) {
        if self.is_block(value) {
            let anchor = if self.odd && self.draw.once_in(6) { " &here" } else { "" };
            let rest = self.rest();
            self.line(&format!("{head}{anchor}{rest}"));
            let width = if value.is_object() { self.map_indent } else { self.list_indent };
            return self.block(value, &format!("{pad}{}", " ".repeat(width)));
        }
        if let Some(text) = value.as_str().filter(|text| text.contains('\n'))
            && self.draw.once_in(2)
        {
            return self.literal(head, text, pad);
        }
        let text = match value {
            Value::Null => self.draw.one(&["", " null", " ~"]).to_owned(),
            Value::Object(_) | Value::Array(_) => {
                format!(" {}", self.flow(value, &format!("{pad} ")))
            }
            other => format!("{}{}", self.draw.one(&[" ", "  ", "\t"]), self.scalar(other)),
        };
        let rest = self.rest();
        self.line(&format!("{head}{text}{rest}"));
    }

    fn literal(&mut self, head: &str, text: &str, pad: &str) {
        let chomp = if text.ends_with('\n') { "" } else { "-" };
        self.line(&format!("{head} |{chomp}"));
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            let line = if line.is_empty() { String::new() } else { format!("{pad}  {line}") };
            self.line(&line);
        }
    }

    fn item(&mut self, value: &Value, pad: &str) {
        let dash = format!("{pad}-");
        if !self.is_block(value) {
            let (text, rest) = (self.flow(value, &format!("{pad} ")), self.rest());
            return self.line(&format!("{dash} {text}{rest}"));
        }
        if self.odd && self.draw.once_in(5) {
            let rest = self.rest();
            self.line(&format!("{dash}{rest}"));
            return self.block(value, &format!("{pad}  "));
        }
        let Some((key, first)) = value.as_object().and_then(|map| map.iter().next()) else {
            self.line(&dash);
            return self.block(value, &format!("{pad}  "));
        };
        let inner = format!("{pad}  ");
        self.entry(&format!("{dash} {key}:"), first, &inner);
        let others: Map<String, Value> = value
            .as_object()
            .into_iter()
            .flatten()
            .skip(1)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.block(&Value::Object(others), &inner);
    }
}

/// A workload and its Service, of a random kind, with whatever else its pod's spec has.
fn objects_of(draw: &mut Draw, number: usize) -> Vec<Value> {
    let name = format!("w{number}");
    let port = [80, 8000, 3000][draw.below(3)];
    let mut container = json!({"name": name, "image": "app:1", "ports": [{"containerPort": port}]});
    for key in ["args", "command"] {
        let texts: Vec<&str> = (0..draw.below(3)).map(|_| draw.one(TEXTS)).collect();
        if !texts.is_empty() {
            container[key] = json!(texts);
        }
    }
    let mut spec = json!({"containers": [container]});
    for (key, item) in [
        ("initContainers", json!({"name": "i", "image": "b"})),
        ("volumes", json!({"name": "v", "emptyDir": {}})),
    ] {
        match draw.below(5) {
            1 => spec[key] = json!([item]),
            2 => spec[key] = json!([]),
            3 => spec[key] = Value::Null,
            _ => {}
        }
    }
    let note = draw.one(TEXTS);
    let metadata =
        json!({"name": name, "labels": {"app": name}, "annotations": {"example.com/note": note}});
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec});
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"];
    let kind = draw.one(&kinds);
    let spec = match kind {
        "Pod" => spec,
        "CronJob" => json!({"jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"template": template}),
    };
    let workload = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec});
    let ports = match draw.below(3) {
        0 => json!([{"port": port}]),
        1 => json!([{"name": "http", "port": 80, "targetPort": port}]),
        _ => {
            json!([{"port": 81, "targetPort": port}, {"name": "metrics", "port": 9000, "targetPort": 9001}])
        }
    };
    let service = json!({"kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": ports}});
    if draw.once_in(2) { vec![service, workload] } else { vec![workload, service] }
}

/// A text of some objects, and those objects.
fn text_of(bytes: Vec<u8>) -> (String, Vec<Value>) {
    let mut writer = Writer::new(bytes);
    let mut objects = Vec::new();
    for number in 0..=writer.draw.below(2) {
        objects.extend(objects_of(&mut writer.draw, number));
    }
    if writer.draw.once_in(8) {
        objects = vec![json!({"kind": "List", "items": objects})];
    }
    let head =
        writer.draw.one(&["", "---", "%YAML 1.1\n---", "# head", "\n"]).replace('\n', writer.end);
    if !head.is_empty() {
        writer.line(&head);
    }
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            let mark = writer
                .draw
                .one(&["---", "--- # next", "...\n---", "---\n# c\n"])
                .replace('\n', writer.end);
            writer.line(&mark);
        }
        if writer.flow && writer.draw.once_in(4) {
            let text = writer.flow(object, " ");
            writer.line(&text);
        } else {
            writer.block(object, "");
        }
    }
    let mut text = writer.out;
    match writer.draw.below(6) {
        1 => text.push_str("..."),
        2 => text.truncate(text.trim_end().len()),
        3 => text.insert(0, '\u{feff}'),
        _ => {}
    }
    (text, objects)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_layout_it_comes_back_to_the_byte(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let (text, objects) = text_of(bytes);
        let read = values(&text);
        prop_assert_eq!(&read, &objects, "{}", text);
        match inject(&text, &settings()) {
            Err(refusals) => {
                prop_assert!(refusals.iter().all(|refusal| refusal.line > 0), "{:?}\n{}", refusals, text);
                prop_assert!(refusals.iter().all(|one| ALLOWED.iter().any(|why| one.message.contains(why))), "{:?}\n{}", refusals, text);
            }
            Ok(injected) => {
                prop_assert_eq!(&uninject(&injected.text).expect("restores"), &text);
                prop_assert_eq!(&inject(&injected.text, &settings()).expect("again").text, &injected.text);
                let after: Vec<Value> = values(&injected.text).into_iter().map(without_sidecar).collect();
                let before: Vec<Value> = objects.into_iter().map(without_sidecar).collect();
                prop_assert_eq!(after, before, "{}", injected.text);
            }
        }
    }
}

/// Why a layout may be refused.
const ALLOWED: &[&str] = &[];

fn values(text: &str) -> Vec<Value> {
    let parsed = yaml::parse(text.trim_start_matches('\u{feff}')).expect("parses");
    let all = parsed.documents.iter().map(|document| document.value().expect("a value"));
    all.filter(|value| !value.is_null()).collect()
}

/// The object without what `inject` adds, and without where Services send to.
fn without_sidecar(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("targetPort");
            if map.contains_key("containers") {
                for list in ["initContainers", "volumes"] {
                    let items =
                        map.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
                    let kept: Vec<Value> =
                        items.into_iter().filter(|item| item["name"] != NAME).collect();
                    map.insert(list.to_owned(), Value::Array(kept));
                }
            }
            map.values_mut().for_each(|inner| *inner = without_sidecar(inner.take()));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|inner| *inner = without_sidecar(inner.take()))
        }
        _ => {}
    }
    value
}
