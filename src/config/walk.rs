//! The walk: a tree of nodes against the table of keys, all faults at once.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::fault::{Complaint, Report, nearest};
use super::kind::{Checked, Kind, Refusal};
use super::map::{Field, Held, Map, join};
use super::node::{Entry, Node, Origin, Scalar, Value};
use super::secret::{self, Exposure};
use super::show::STARS;
use super::table::{Default, Key};

/// Walks `node` along `keys`.
pub(super) fn walk(node: &Node, path: &str, keys: &'static [Key], report: &mut Report) -> Map {
    let no_map = !matches!(node.value, Value::Map(_));
    let entries: &[Entry] = match &node.value {
        Value::Map(entries) => entries,
        Value::Broken => &[],
        _ => {
            let wanted = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
            let complaint = Complaint::new(format!("{wanted} is {}", node.kind()))
                .allowed(Kind::Map(keys).allowed());
            report.fault(&node.origin, complaint);
            &[]
        }
    };
    strangers(entries, path, keys, report);
    let mut walker = Walker { path, entries, no_map, report, at: &node.origin };
    let fields = keys.iter().map(|key| walker.field(key)).collect();
    Map::new(path.to_owned(), node.origin.clone(), fields)
}

/// Reports keys that stand twice or mean nothing.
fn strangers(entries: &[Entry], path: &str, keys: &[Key], report: &mut Report) {
    let mut seen: HashMap<&str, &Origin> = HashMap::new();
    for entry in entries {
        let full = join(path, &entry.key);
        let known = keys.iter().any(|key| key.name == entry.key);
        if !known && secret::may_be(&entry.key) {
            report.hide(&entry.origin);
            let message = "unknown key, which may be a secret and is not shown".to_owned();
            report.fault(&entry.origin, Complaint::new(message).allowed(names(keys).join(", ")));
        } else if let Some(first) = seen.insert(&entry.key, &entry.origin) {
            let place = report.place_in_words(first);
            let message = format!("`{full}` stands twice, before at {place}");
            report.fault(&entry.origin, Complaint::new(message).allowed("each key once"));
        } else if !known {
            let names = names(keys);
            let near = nearest(&entry.key, names.iter().copied());
            if keys.iter().any(|key| Some(key.name) == near && key.kind.is_secret()) {
                report.hide(&entry.node.origin);
            }
            // What is no name may be a secret that lost its colon or its space.
            let veiled = match path {
                "" => "unknown key".to_owned(),
                path => format!("unknown key in `{path}`"),
            };
            let plain = Kind::DottedName.check(&entry.key).is_ok();
            let told = if plain { format!("unknown key `{full}`") } else { veiled.clone() };
            let complaint = Complaint::new(told)
                .veiled(if near.is_none() { Some(veiled) } else { None })
                .nearest(near.map(str::to_owned))
                .allowed(names.join(", "));
            report.fault(&entry.origin, complaint);
        }
    }
}

fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

struct Walker<'a> {
    path: &'a str,
    entries: &'a [Entry],
    /// Reported already: nothing can be missing in it.
    no_map: bool,
    report: &'a mut Report,
    at: &'a Origin,
}

impl Walker<'_> {
    fn field(&mut self, key: &Key) -> Field {
        let path = join(self.path, key.name);
        let entry = self.entries.iter().find(|entry| entry.key == key.name);
        let Some(entry) = entry else {
            let missing = matches!(key.default, Default::Required);
            let faulty = missing || self.no_map;
            if missing && !self.no_map {
                let message = format!("`{path}` is missing");
                let complaint = Complaint::new(message).allowed(key.kind.allowed());
                self.report.fault(self.at, complaint);
            }
            let value = absent(key, &path, self.report);
            return Field { name: key.name, value, origin: self.at.clone(), given: false, faulty };
        };
        let origin = entry.node.origin.clone();
        if key.kind.is_secret() {
            self.report.hide(&origin);
        }
        let value = if matches!(entry.node.value, Value::Null) {
            let complaint = Complaint::new(format!("`{path}` has no value")).allowed(format!(
                "{}; or no `{}` at all",
                key.kind.allowed(),
                key.name
            ));
            self.report.fault(&entry.origin, complaint);
            None
        } else {
            present(key.kind, &path, &entry.node, self.report)
        };
        let faulty = value.is_none();
        let value = value.unwrap_or_else(|| absent(key, &path, self.report));
        Field { name: key.name, value, origin, given: true, faulty }
    }
}

/// What a key is without a value. Nothing is reported: defaults are right, as a test shows.
fn absent(key: &Key, path: &str, report: &mut Report) -> Held {
    match (key.kind, key.default) {
        (Kind::Map(keys), Default::Is(_)) => {
            Held::Map(Some(walk(&Node::map(Origin::Nowhere), path, keys, report)))
        }
        (Kind::Map(_) | Kind::UrlOrMap(_), _) => Held::Map(None),
        (Kind::Maps(_), _) => Held::Maps(Vec::new()),
        (kind, Default::Is(text)) if kind.is_list() => {
            let words = text.trim_matches(['[', ']']).split(',').map(str::trim);
            let words = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
            Held::Value(Checked::Texts(words))
        }
        (kind, Default::Is(text)) => Held::Value(kind.check(text).unwrap_or(Checked::Unset)),
        _ => Held::Value(Checked::Unset),
    }
}

fn present(kind: Kind, path: &str, node: &Node, report: &mut Report) -> Option<Held> {
    match kind {
        Kind::Map(keys) => Some(Held::Map(Some(walk(node, path, keys, report)))),
        Kind::UrlOrMap(keys) => url_or_map(keys, path, node, report),
        Kind::Maps(keys) => {
            let items = items(kind, path, node, report)?;
            let walk = |(index, item): (usize, &Node)| {
                walk(item, &format!("{path}[{index}]"), keys, report)
            };
            Some(Held::Maps(items.iter().enumerate().map(walk).collect()))
        }
        Kind::SecretMap => secrets(path, node, report).map(Held::Value),
        kind if kind.is_list() => words(kind, path, node, report).map(Held::Value),
        Kind::SecretFile => secret_file(path, node, report).map(Held::Value),
        kind => {
            let text = single(kind, path, node, report)?;
            let checked = value(kind, path, text, &node.origin, report)?;
            if let Kind::Pem(what) = kind {
                pem(what, path, text, &node.origin, report)?;
            }
            Some(Held::Value(checked))
        }
    }
}

/// A bare URL is a map with the one key `url`.
fn url_or_map(keys: &'static [Key], path: &str, node: &Node, report: &mut Report) -> Option<Held> {
    let url = keys.iter().find(|key| key.name == "url")?;
    match &node.value {
        Value::Scalar(text) => {
            value(url.kind, path, text, &node.origin, report)?;
            let entry =
                Entry { key: url.name.to_owned(), origin: node.origin.clone(), node: node.clone() };
            let map = Node { origin: node.origin.clone(), value: Value::Map(vec![entry]) };
            Some(Held::Map(Some(walk(&map, path, keys, report))))
        }
        Value::Map(_) => Some(Held::Map(Some(walk(node, path, keys, report)))),
        _ => {
            wrong_shape(Kind::UrlOrMap(keys), path, node, report);
            None
        }
    }
}

fn wrong_shape(kind: Kind, path: &str, node: &Node, report: &mut Report) {
    if matches!(node.value, Value::Broken) {
        return;
    }
    let complaint = Complaint::new(format!("`{path}` is {}", node.kind())).allowed(match kind {
        Kind::Maps(_) => format!("a list of maps, each with {}", kind.allowed()),
        other => other.allowed(),
    });
    report.fault(&node.origin, complaint);
}

/// Entries of a list: few enough that checking them against each other stays cheap.
const ITEMS_MAX: usize = 256;

fn items<'a>(kind: Kind, path: &str, node: &'a Node, report: &mut Report) -> Option<&'a [Node]> {
    let Value::List(items) = &node.value else {
        wrong_shape(kind, path, node, report);
        return None;
    };
    if items.len() > ITEMS_MAX {
        let message = format!("`{path}` has {} entries", items.len());
        let complaint = Complaint::new(message).allowed(format!("at most {ITEMS_MAX} entries"));
        report.fault(&node.origin, complaint);
        return None;
    }
    Some(items)
}

fn single<'a>(kind: Kind, path: &str, node: &'a Node, report: &mut Report) -> Option<&'a Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        _ => {
            wrong_shape(kind, path, node, report);
            None
        }
    }
}

/// Checks one value; what is reported shows it as typed, and not at all if it is a secret.
fn value(
    kind: Kind,
    path: &str,
    typed: &Scalar,
    origin: &Origin,
    report: &mut Report,
) -> Option<Checked> {
    match kind.check(&typed.text) {
        Ok(checked) => {
            if kind.is_secret() && typed.text == STARS {
                report.warn(format!("`{path}` is `{STARS}`: what stands for a secret, not one"));
            }
            Some(checked)
        }
        Err(refusal) => {
            report.fault(origin, refused(kind, path, typed, refusal));
            None
        }
    }
}

fn refused(kind: Kind, path: &str, typed: &Scalar, refusal: Refusal) -> Complaint {
    // A reason or a guess may quote the value, which came out of a variable here.
    let expanded = typed.text != typed.shown;
    let why = refusal.why.filter(|_| !expanded).map(|why| format!(": {why}")).unwrap_or_default();
    let message = match kind.is_secret() {
        true => format!("`{path}` is not a usable secret{why}"),
        false if typed.shown.is_empty() => format!("`{path}` is empty"),
        false => format!("`{path}` is `{}`{why}", shorten(&typed.shown)),
    };
    Complaint::new(message).allowed(kind.allowed()).nearest(refusal.nearest.filter(|_| !expanded))
}

fn shorten(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

fn words(kind: Kind, path: &str, node: &Node, report: &mut Report) -> Option<Checked> {
    let items = items(kind, path, node, report)?;
    let mut words: Vec<String> = Vec::with_capacity(items.len());
    let faults = report.count();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(typed) = single(kind, &path, item, report) else { continue };
        if value(kind, &path, typed, &item.origin, report).is_none() {
            continue;
        }
        let word = match kind {
            Kind::Choices(_) | Kind::Emails => typed.text.clone(),
            _ => typed.text.to_lowercase(),
        };
        if words.contains(&word) {
            let message = format!("`{path}` is `{}` a second time", shorten(&typed.shown));
            report.fault(&item.origin, Complaint::new(message).allowed("each word once"));
        }
        words.push(word);
    }
    (report.count() == faults).then_some(Checked::Texts(words))
}

fn secrets(path: &str, node: &Node, report: &mut Report) -> Option<Checked> {
    let Value::Map(entries) = &node.value else {
        wrong_shape(Kind::SecretMap, path, node, report);
        return None;
    };
    strangers_of_headers(entries, path, report);
    report.hide(&node.origin);
    let mut secrets = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = join(path, &entry.key);
        let typed = single(Kind::SecretMap, &path, &entry.node, report)?;
        match value(Kind::SecretMap, &path, typed, &entry.node.origin, report)? {
            Checked::Secret(secret) => secrets.push((entry.key.to_lowercase(), secret)),
            _ => return None,
        }
    }
    Some(Checked::Secrets(secrets))
}

fn strangers_of_headers(entries: &[Entry], path: &str, report: &mut Report) {
    let mut seen = HashSet::new();
    for entry in entries {
        if Kind::HeaderNames.check(&entry.key).is_err() {
            let message = format!("`{path}` has a key that is no header name");
            report.fault(&entry.origin, Complaint::new(message).allowed("header names"));
        } else if !seen.insert(entry.key.to_ascii_lowercase()) {
            let message = format!("`{}` stands twice", join(path, &entry.key));
            report.fault(&entry.origin, Complaint::new(message).allowed("each header once"));
        }
    }
}

fn secret_file(path: &str, node: &Node, report: &mut Report) -> Option<Checked> {
    let typed = single(Kind::SecretFile, path, node, report)?;
    value(Kind::SecretFile, path, typed, &node.origin, report)?;
    let file = Path::new(&typed.text);
    unexposed(path, typed, &node.origin, report)?;
    match secret::read_secret(file) {
        Ok(secret) => Some(Checked::Secret(secret)),
        Err(why) => {
            let message = format!("`{path}`: the file `{}` {why}", shorten(&typed.shown));
            let complaint = Complaint::new(message).allowed(Kind::SecretFile.allowed());
            report.fault(&node.origin, complaint);
            None
        }
    }
}

/// The longest PEM file: the system's bundle of all roots has about 220 KiB.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A file that others may change is a fault; one that others may read, as Kubernetes mounts
/// secrets by default, is a warning.
fn unexposed(path: &str, typed: &Scalar, origin: &Origin, report: &mut Report) -> Option<()> {
    let shown = shorten(&typed.shown);
    let (message, allowed) = match secret::exposure(Path::new(&typed.text)) {
        Ok(Exposure::Private) => return Some(()),
        Ok(Exposure::Readable) => {
            report.warn(format!("`{path}`: others may read the file `{shown}`; `chmod 600` it"));
            return Some(());
        }
        Ok(Exposure::Writable) => (
            format!("`{path}`: others may change the file `{shown}`"),
            "a file that only its owner may change: `chmod 600` it",
        ),
        Err(why) => (format!("`{path}`: the file `{shown}` {why}"), "the path of a file"),
    };
    report.fault(origin, Complaint::new(message).allowed(allowed));
    None
}

fn pem(
    what: &'static str,
    path: &str,
    typed: &Scalar,
    origin: &Origin,
    report: &mut Report,
) -> Option<()> {
    if what.ends_with("KEY") {
        unexposed(path, typed, origin, report)?;
    }
    let mark = format!("{what}-----");
    let why = match secret::read_bounded(Path::new(&typed.text), PEM_BYTES_MAX) {
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains(&mark) => return Some(()),
        Ok(_) => format!("holds no {}", what.to_lowercase()),
        Err(why) => why,
    };
    let message = format!("`{path}`: the file `{}` {why}", shorten(&typed.shown));
    report.fault(origin, Complaint::new(message).allowed(Kind::Pem(what).allowed()));
    None
}
