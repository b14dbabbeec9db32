//! The walk: a tree of nodes against the table of keys, all faults at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{Complaint, Report, nearest};
use super::kind::{Checked, Kind, Refusal};
use super::node::{Entry, Node, Origin, Scalar, Value};
use super::secret::{self, Exposure, Secret};
use super::show::STARS;
use super::table::{Default, Key, LATER};

/// A map whose every value its kind allows.
#[derive(Debug)]
pub(super) struct Map {
    /// Its path, such as `taps[0].timeouts`.
    pub(super) path: String,
    pub(super) origin: Origin,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    value: Held,
    origin: Origin,
    given: bool,
    faulty: bool,
}

#[derive(Debug)]
enum Held {
    Value(Checked),
    Map(Option<Map>),
    Maps(Vec<Map>),
}

/// Walks `node` along `keys`.
pub(super) fn walk(node: &Node, path: &str, keys: &'static [Key], report: &mut Report) -> Map {
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
    let mut walker = Walker { path, entries, report, at: &node.origin };
    let fields = keys.iter().map(|key| walker.field(key)).collect();
    Map { path: path.to_owned(), origin: node.origin.clone(), fields }
}

/// Reports keys that stand twice, belong to a later version or mean nothing.
fn strangers(entries: &[Entry], path: &str, keys: &[Key], report: &mut Report) {
    for (index, entry) in entries.iter().enumerate() {
        let full = join(path, &entry.key);
        let first = entries.iter().take(index).find(|earlier| earlier.key == entry.key);
        if let Some(first) = first {
            let place = report.place_in_words(&first.origin);
            let message = format!("`{full}` stands twice, first at {place}");
            report.fault(&entry.origin, Complaint::new(message).allowed("each key once"));
        } else if path.is_empty() && LATER.contains(&entry.key.as_str()) {
            let message = format!("`{full}` is not available in this version");
            report.fault(&entry.origin, Complaint::new(message));
        } else if !keys.iter().any(|key| key.name == entry.key) {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let complaint = Complaint::new(format!("unknown key `{full}`"))
                .nearest(nearest(&entry.key, names.iter().copied()).map(str::to_owned))
                .allowed(names.join(", "));
            report.fault(&entry.origin, complaint);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

struct Walker<'a> {
    path: &'a str,
    entries: &'a [Entry],
    report: &'a mut Report,
    at: &'a Origin,
}

impl Walker<'_> {
    fn field(&mut self, key: &Key) -> Field {
        let path = join(self.path, key.name);
        let entry = self.entries.iter().find(|entry| entry.key == key.name);
        let Some(entry) = entry else {
            let faulty = matches!(key.default, Default::Required);
            if faulty {
                let message = format!("`{path}` is missing");
                let complaint = Complaint::new(message).allowed(key.kind.allowed());
                self.report.fault(self.at, complaint);
            }
            let value = absent(key, &path, self.report);
            return Field { name: key.name, value, origin: self.at.clone(), given: false, faulty };
        };
        let origin = entry.node.origin.clone();
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
    let complaint = Complaint::new(format!("`{path}` is {}", node.kind()))
        .allowed(match kind {
            Kind::Maps(_) => format!("a list of maps, each with {}", kind.allowed()),
            other => other.allowed(),
        })
        .secret(kind.is_secret());
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
    Complaint::new(message)
        .allowed(kind.allowed())
        .nearest(refusal.nearest.filter(|_| !expanded))
        .secret(kind.is_secret())
}

fn shorten(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

fn words(kind: Kind, path: &str, node: &Node, report: &mut Report) -> Option<Checked> {
    let items = items(kind, path, node, report)?;
    let mut words: Vec<String> = Vec::with_capacity(items.len());
    let mut fine = true;
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let word = single(kind, &path, item, report).and_then(|typed| {
            value(kind, &path, typed, &item.origin, report).map(|_| typed.text.clone())
        });
        let word =
            word.map(|w| if matches!(kind, Kind::Choices(_)) { w } else { w.to_lowercase() });
        match word {
            Some(word) if words.contains(&word) => {
                let message = format!("`{path}` is `{}` a second time", shorten(&word));
                report.fault(&item.origin, Complaint::new(message).allowed("each word once"));
                fine = false;
            }
            Some(word) => words.push(word),
            None => fine = false,
        }
    }
    fine.then_some(Checked::Texts(words))
}

fn secrets(path: &str, node: &Node, report: &mut Report) -> Option<Checked> {
    let Value::Map(entries) = &node.value else {
        wrong_shape(Kind::SecretMap, path, node, report);
        return None;
    };
    strangers_of_headers(entries, path, report);
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
    for (index, entry) in entries.iter().enumerate() {
        let same = |earlier: &Entry| earlier.key.eq_ignore_ascii_case(&entry.key);
        if entries.iter().take(index).any(same) {
            let message = format!("`{}` stands twice", join(path, &entry.key));
            report.fault(&entry.origin, Complaint::new(message).allowed("each header once"));
        } else if Kind::HeaderNames.check(&entry.key).is_err() {
            let message = format!("`{path}` has a key that is no header name");
            report.fault(&entry.origin, Complaint::new(message).allowed("header names"));
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
    let message = match secret::exposure(Path::new(&typed.text)) {
        Ok(Exposure::Private) => return Some(()),
        Ok(Exposure::Readable) => {
            report.warn(format!("`{path}`: others may read the file `{shown}`; `chmod 600` it"));
            return Some(());
        }
        Ok(Exposure::Writable) => {
            format!("`{path}`: others may change the file `{shown}`")
        }
        Err(why) => format!("`{path}`: the file `{shown}` {why}"),
    };
    let allowed = "a file that only its owner may change: `chmod 600` it";
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

impl Map {
    fn field(&self, name: &str) -> Option<&Field> {
        let field = self.fields.iter().find(|field| field.name == name);
        debug_assert!(field.is_some(), "no key {name} in the table of `{}`", self.path);
        field
    }

    fn value(&self, name: &str) -> &Checked {
        match self.field(name).map(|field| &field.value) {
            Some(Held::Value(checked)) => checked,
            _ => &Checked::Unset,
        }
    }

    /// Whether the user gave it.
    pub(super) fn given(&self, name: &str) -> bool {
        self.field(name).is_some_and(|field| field.given)
    }

    /// Whether none of these has a fault: only then can they be compared.
    pub(super) fn sound(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.field(name).is_some_and(|field| !field.faulty))
    }

    /// Where its value stands, else where the map stands.
    pub(super) fn origin(&self, name: &str) -> &Origin {
        self.field(name).map_or(&self.origin, |field| &field.origin)
    }

    /// The path of a key of this map.
    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Checked::Bool(true))
    }

    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Checked::Whole(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number or a size; 0 after a fault.
    pub(super) fn size(&self, name: &str) -> usize {
        self.whole(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.value(name) {
            Checked::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A length of time; none after a fault.
    pub(super) fn time(&self, name: &str) -> Duration {
        match self.value(name) {
            Checked::Time(time) => *time,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn listen(&self, name: &str) -> Option<SocketAddr> {
        match self.value(name) {
            Checked::Listen(address) => Some(*address),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Checked::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path_buf(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Checked::Texts(texts) => texts.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn secrets(&self, name: &str) -> Vec<(String, Secret)> {
        match self.value(name) {
            Checked::Secrets(secrets) => secrets.clone(),
            _ => Vec::new(),
        }
    }

    /// A secret given as `name` or by the file `name_file`, but not both.
    pub(super) fn secret(&self, name: &str, report: &mut Report) -> Option<Secret> {
        let in_file = format!("{name}_file");
        if self.given(name) && self.given(&in_file) {
            let message =
                format!("`{}` and `{}` are both given", self.path_of(name), self.path_of(&in_file));
            report.fault(self.origin(&in_file), Complaint::new(message).allowed("one of the two"));
        }
        [name, &in_file].into_iter().find_map(|name| match self.value(name) {
            Checked::Secret(secret) => Some(secret.clone()),
            _ => None,
        })
    }

    /// A map below this one.
    pub(super) fn map(&self, name: &str) -> Option<&Map> {
        match self.field(name).map(|field| &field.value) {
            Some(Held::Map(map)) => map.as_ref(),
            _ => None,
        }
    }

    /// A list of maps below this one.
    pub(super) fn maps(&self, name: &str) -> &[Map] {
        match self.field(name).map(|field| &field.value) {
            Some(Held::Maps(maps)) => maps,
            _ => &[],
        }
    }
}
