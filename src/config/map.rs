//! Checked maps, as the sections read them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::{Complaint, Report};
use super::kind::Checked;
use super::node::Origin;
use super::secret::Secret;

/// A map whose every value its kind allows.
#[derive(Debug)]
pub(super) struct Map {
    /// Its path, such as `taps[0].timeouts`.
    pub(super) path: String,
    pub(super) origin: Origin,
    fields: Vec<Field>,
}

/// One key of a map, given or not.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) value: Held,
    pub(super) origin: Origin,
    /// The user gave it.
    pub(super) given: bool,
    /// It was reported.
    pub(super) faulty: bool,
}

/// What a key holds.
#[derive(Debug)]
pub(super) enum Held {
    Value(Checked),
    Map(Option<Map>),
    Maps(Vec<Map>),
}

impl Map {
    /// A map of these fields.
    pub(super) fn new(path: String, origin: Origin, fields: Vec<Field>) -> Self {
        Self { path, origin, fields }
    }

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

    /// A calendar length of time; none after a fault.
    pub(super) fn span(&self, name: &str) -> jiff::Span {
        match self.value(name) {
            Checked::Span(span) => *span,
            _ => jiff::Span::new(),
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

/// The path of `name` below `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
