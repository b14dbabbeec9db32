//! What the environment and the command line add to the file: `${VAR}`, `FLOWTAP_*`, options.

use std::collections::BTreeMap;

use super::check::Overrides;
use super::fault::{Complaint, Report, nearest};
use super::file;
use super::kind::Kind;
use super::node::{Entry, Node, Origin, Scalar, Value};
use super::table::{Key, ROOT};

const PREFIX: &str = "FLOWTAP_";

/// Variables with the prefix that are no keys: the command line's own, and our tests'.
const RESERVED: &[&str] = &[
    "FLOWTAP_CONFIG",
    "FLOWTAP_BLESS",
    "FLOWTAP_PEERS",
    #[cfg(feature = "failpoints")]
    "FLOWTAP_FAILPOINT",
];

/// Replaces `${VAR}` and `${VAR:-default}` in every value of the file; `$${` is a plain `${`.
pub(super) fn expand(node: &mut Node, env: &[(String, String)], report: &mut Report) {
    let variables = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    expand_at(node, "", &variables, report);
}

fn expand_at(node: &mut Node, path: &str, variables: &BTreeMap<&str, &str>, report: &mut Report) {
    match &mut node.value {
        Value::Scalar(scalar) if scalar.text.contains("${") => {
            match expand_text(&scalar.text, variables) {
                Ok(text) => scalar.text = text,
                Err(complaint) => {
                    report.fault(&node.origin, complaint.of(path));
                    node.value = Value::Broken;
                }
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand_at(item, &format!("{path}[{index}]"), variables, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                expand_at(&mut entry.node, &format!("{path}{dot}{}", entry.key), variables, report);
            }
        }
        _ => {}
    }
}

/// What is wrong with a `${...}`. The text around it may be a secret, so only names are told.
enum Unexpanded {
    NotSet(String),
    Malformed,
}

impl Unexpanded {
    fn of(self, path: &str) -> Complaint {
        match self {
            Self::NotSet(name) => {
                Complaint::new(format!("`{path}` uses the variable `{name}`, which is not set"))
                    .allowed(format!("a variable that is set, or `${{{name}:-default}}`"))
            }
            Self::Malformed => Complaint::new(format!("`{path}` has a malformed `${{...}}`"))
                .allowed("`${NAME}`, `${NAME:-default}`, or `$${` for a plain `${`"),
        }
    }
}

fn expand_text(text: &str, variables: &BTreeMap<&str, &str>) -> Result<String, Unexpanded> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let body = from.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = body;
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = body.split_once('}') else { return Err(Unexpanded::Malformed) };
        out.push_str(variable(inside, variables)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable<'a>(
    inside: &'a str,
    variables: &BTreeMap<&str, &'a str>,
) -> Result<&'a str, Unexpanded> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return Err(Unexpanded::Malformed);
    }
    match (variables.get(name), default) {
        (Some(&""), Some(default)) => Ok(default),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(Unexpanded::NotSet(name.to_owned())),
    }
}

/// Lays `FLOWTAP_*` over `root`, in the order of their paths.
pub(super) fn lay_environment(root: &mut Node, env: &[(String, String)], report: &mut Report) {
    let mut typed: Vec<(Vec<Segment>, &str, &str)> = env
        .iter()
        .filter(|(name, value)| is_ours(name, value))
        .filter_map(|(name, value)| Some((segments(name.strip_prefix(PREFIX)?), &**name, &**value)))
        .collect();
    typed.sort();
    for (segments, name, value) in typed {
        let laid = Laid { origin: Origin::Environment(name.to_owned()), value };
        laid.lay(root, &segments, report);
    }
}

/// Lays the command line over `root`.
pub(super) fn lay_options(root: &mut Node, overrides: &Overrides, report: &mut Report) {
    let options: [(&'static str, &Option<String>, &[&str]); 4] = [
        ("--upstream", &overrides.upstream, &["taps", "0", "upstream"]),
        ("--listen", &overrides.listen, &["taps", "0", "listen"]),
        ("--admin", &overrides.admin, &["admin", "listen"]),
        ("--data-dir", &overrides.data_dir, &["data_dir"]),
    ];
    let taps = match root.get("taps").map(|taps| &taps.value) {
        Some(Value::List(taps)) => taps.len(),
        _ => 0,
    };
    for (option, value, path) in options {
        let Some(value) = value else { continue };
        let laid = Laid { origin: Origin::CommandLine(option), value };
        let segments: Vec<Segment> = path.iter().map(|part| Segment::of(part)).collect();
        match path.first() {
            Some(&"taps") if taps > 1 => {
                let message = format!("`{option}` is for one tap, and `taps` has {taps}");
                let complaint = Complaint::new(message).allowed("a file with one tap or none");
                report.fault(&laid.origin, complaint);
            }
            _ => laid.lay(root, &segments, report),
        }
    }
}

/// Whether a variable is meant for us. Kubernetes sets variables for every service of a namespace,
/// and one named `flowtap` gives them our prefix: those are recognized by their shape.
fn is_ours(name: &str, value: &str) -> bool {
    name.starts_with(PREFIX) && !RESERVED.contains(&name) && !is_service_link(name, value)
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT[_NAME]`, `X_PORT=tcp://...`, `X_PORT_80_TCP[_PROTO|_PORT|_ADDR]`.
fn is_service_link(name: &str, value: &str) -> bool {
    let protocols = ["tcp://", "udp://", "sctp://"];
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && protocols.iter().any(|p| value.starts_with(p)))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let mut parts = rest.split('_');
            let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
            number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        })
}

/// A step of a path: sorted so that 2 comes before 10.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Index(usize),
    Name(String),
}

impl Segment {
    fn of(text: &str) -> Self {
        match text.parse() {
            Ok(index) => Self::Index(index),
            Err(_) => Self::Name(text.to_ascii_lowercase()),
        }
    }
}

fn segments(name: &str) -> Vec<Segment> {
    name.split("__").map(Segment::of).collect()
}

/// A value to lay over the tree.
struct Laid<'a> {
    origin: Origin,
    value: &'a str,
}

impl Laid<'_> {
    /// Sets the value, or reports and leaves the tree as it was.
    fn lay(&self, root: &mut Node, path: &[Segment], report: &mut Report) {
        let mut laid = root.clone();
        match self.set(&mut laid, Kind::Map(ROOT), path) {
            Ok(()) => *root = laid,
            Err(complaint) => report.fault(&self.origin, complaint),
        }
    }

    fn set(&self, node: &mut Node, kind: Kind, path: &[Segment]) -> Result<(), Complaint> {
        let Some((first, rest)) = path.split_first() else { return self.put(node, kind) };
        match (kind, first) {
            (Kind::Map(keys), Segment::Name(name)) => self.set_key(node, keys, name, rest),
            (Kind::UrlOrMap(keys), Segment::Name(name)) => {
                if matches!(node.value, Value::Scalar(_)) {
                    unfold(node);
                }
                self.set_key(node, keys, name, rest)
            }
            (Kind::Maps(keys), Segment::Index(index)) => {
                let item = self.item(node, *index)?;
                self.set(item, Kind::Map(keys), rest)
            }
            (Kind::SecretMap, Segment::Name(name)) if rest.is_empty() => {
                // A header's name has dashes, a variable's cannot.
                let value = Node::scalar(self.origin.clone(), self.value);
                if let Some(slot) = node.entry(&name.replace('_', "-"), || value.clone()) {
                    *slot = value;
                }
                Ok(())
            }
            _ => Err(self.unknown()),
        }
    }

    fn set_key(
        &self,
        node: &mut Node,
        keys: &'static [Key],
        name: &str,
        rest: &[Segment],
    ) -> Result<(), Complaint> {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            return Err(self.unknown());
        };
        match node.entry(key.name, || Node::map(self.origin.clone())) {
            Some(below) => self.set(below, key.kind, rest),
            None => Err(self.unknown()),
        }
    }

    fn item<'n>(&self, node: &'n mut Node, index: usize) -> Result<&'n mut Node, Complaint> {
        if !matches!(node.value, Value::List(_)) {
            node.value = Value::List(Vec::new());
        }
        let Value::List(items) = &mut node.value else { return Err(self.unknown()) };
        let count = items.len();
        if index == count {
            items.push(Node::map(self.origin.clone()));
        }
        items.get_mut(index).ok_or_else(|| {
            Complaint::new(format!("entry {index} of a list that has {count} entries"))
                .allowed(format!("0 to {count}; {count} adds one"))
        })
    }

    fn put(&self, node: &mut Node, kind: Kind) -> Result<(), Complaint> {
        let bracketed = self.value.trim_start().starts_with(['[', '{']);
        match kind {
            Kind::Map(_) | Kind::Maps(_) | Kind::SecretMap if !bracketed => {
                let what = kind.label();
                return Err(Complaint::new(format!("this is no {what}"))
                    .allowed("the keys below it, or all of it as YAML in `[...]` or `{...}`"));
            }
            Kind::UrlOrMap(_) if !bracketed && matches!(node.value, Value::Map(_)) => {
                let empty = matches!(&node.value, Value::Map(entries) if entries.is_empty());
                let value = Node::scalar(self.origin.clone(), self.value);
                match node.entry("url", || value.clone()) {
                    Some(url) if !empty => *url = value,
                    _ => *node = value,
                }
            }
            kind if kind.is_list() && !bracketed => *node = self.words(),
            Kind::Map(_) | Kind::Maps(_) | Kind::UrlOrMap(_) | Kind::SecretMap if bracketed => {
                *node = self.yaml()?;
            }
            kind if kind.is_list() => *node = self.yaml()?,
            _ => *node = Node::scalar(self.origin.clone(), self.value),
        }
        Ok(())
    }

    fn words(&self) -> Node {
        let words = self.value.split(',').map(str::trim).filter(|word| !word.is_empty());
        let items = words.map(|word| Node::scalar(self.origin.clone(), word)).collect();
        Node { origin: self.origin.clone(), value: Value::List(items) }
    }

    fn yaml(&self) -> Result<Node, Complaint> {
        match file::parse_quietly(self.value) {
            Ok(mut node) => {
                place(&mut node, &self.origin);
                Ok(node)
            }
            Err((_, message)) => Err(Complaint::new(format!("this is not valid YAML: {message}"))),
        }
    }

    fn unknown(&self) -> Complaint {
        let name = match &self.origin {
            Origin::Environment(name) => name.as_str(),
            Origin::CommandLine(option) => option,
            _ => "",
        };
        let names = variables();
        let flat = |name: &str| name.to_ascii_lowercase().replace("__", "_");
        let flat_names: Vec<String> = names.iter().map(|name| flat(name)).collect();
        let near = nearest(&flat(name), flat_names.iter().map(String::as_str));
        let index = near.and_then(|near| flat_names.iter().position(|flat| flat == near));
        Complaint::new(format!("`{name}` names no key"))
            .nearest(index.and_then(|index| names.get(index)).cloned())
            .allowed("`FLOWTAP_` and a key's path, with `__` between its parts")
    }
}

/// A bare URL as the map it stands for.
fn unfold(node: &mut Node) {
    let origin = node.origin.clone();
    let url = std::mem::replace(node, Node::map(origin.clone()));
    node.value = Value::Map(vec![Entry { key: "url".to_owned(), origin, node: url }]);
}

/// Gives all of a tree one place.
fn place(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| place(item, origin)),
        Value::Map(entries) => {
            for entry in entries {
                entry.origin = origin.clone();
                place(&mut entry.node, origin);
            }
        }
        Value::Scalar(Scalar { .. }) | Value::Null | Value::Broken => {}
    }
}

/// The names of all variables; lists show their first entry.
pub(super) fn variables() -> Vec<String> {
    let mut names = Vec::new();
    collect("FLOWTAP", ROOT, &mut names);
    names
}

fn collect(above: &str, keys: &[Key], names: &mut Vec<String>) {
    let joint = if above == "FLOWTAP" { "_" } else { "__" };
    for key in keys {
        let name = format!("{above}{joint}{}", key.name.to_ascii_uppercase());
        let below =
            if matches!(key.kind, Kind::Maps(_)) { format!("{name}__0") } else { name.clone() };
        names.push(name);
        collect(&below, key.below(), names);
    }
}
