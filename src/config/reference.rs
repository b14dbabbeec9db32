//! docs/CONFIG.md: every key with its type, default, allowed values, meaning and an example, from
//! the same table that checks them.

use std::fmt::Write;

use super::kind::Kind;
use super::table::{Default, Key, ROOT};

/// What stands before the keys.
const HEAD: &str = include_str!("reference.md");

/// The whole of docs/CONFIG.md.
pub fn reference() -> String {
    let mut out = format!("{HEAD}## Keys\n");
    section(&mut out, "", ROOT);
    out
}

/// The paths of all keys, as they are named in docs and faults; `[]` stands for any entry of a list.
pub fn key_paths() -> Vec<String> {
    let mut paths = Vec::new();
    collect(&mut paths, "", ROOT);
    paths
}

fn collect(paths: &mut Vec<String>, above: &str, keys: &[Key]) {
    for key in keys {
        paths.push(key.path(above).trim_end_matches("[]").to_owned());
        collect(paths, &key.path(above), key.below());
    }
}

/// A table of one map's keys, then those of the maps below it.
fn section(out: &mut String, path: &str, keys: &[Key]) {
    // Writing to a string cannot fail.
    let _ = match path {
        "" => writeln!(out, "\n### The file"),
        path => writeln!(out, "\n### `{path}`"),
    };
    out.push_str("\n| Key | Type | Default | Allowed | Meaning | Example |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    for key in keys {
        out.push_str(&row(key, path));
    }
    for key in keys.iter().filter(|key| !key.below().is_empty()) {
        section(out, &key.path(path), key.below());
    }
}

fn row(key: &Key, above: &str) -> String {
    let path = key.path(above);
    let default = match key.default {
        Default::Required => "required".to_owned(),
        Default::Is("{}") => "the defaults below".to_owned(),
        Default::Is(text) => format!("`{text}`"),
        Default::Unset(why) => format!("not set: {why}"),
    };
    let allowed = match key.kind {
        Kind::Map(_) | Kind::Maps(_) => "the keys below".to_owned(),
        Kind::UrlOrMap(_) => "a URL, or a map with the keys below".to_owned(),
        Kind::Choice(words) => list(words),
        Kind::Choices(words) => format!("each at most once: {}", list(words)),
        kind => kind.range(),
    };
    let example = format!("`{}: {}`", key.name, key.example);
    let cells = [
        format!("`{path}`"),
        key.kind.label().to_owned(),
        default,
        allowed,
        key.doc.to_owned(),
        example,
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fault::Report;
    use crate::config::file;
    use crate::config::node::{Entry, Node, Origin, Value};
    use crate::config::walk::walk;

    fn all(keys: &'static [Key]) -> Vec<&'static Key> {
        keys.iter().flat_map(|key| std::iter::once(key).chain(all(key.below()))).collect()
    }

    /// The faults of a file that holds this one key of `keys`, faults of the other keys left out.
    fn faults(keys: &'static [Key], key: &Key, yaml: &str) -> String {
        let node = file::parse_quietly(yaml).expect("valid YAML");
        let node = match node {
            Node { value: Value::Map(entries), .. } => entries.into_iter().next().unwrap().node,
            other => panic!("{other:?}"),
        };
        let entry = Entry { key: key.name.to_owned(), origin: Origin::Nowhere, node };
        let node = Node { origin: Origin::Nowhere, value: Value::Map(vec![entry]) };
        let mut report = Report::new(None);
        walk(&node, "", keys, &mut report);
        let mentions = |message: &str| message.starts_with(&format!("`{}", key.name));
        let faults = report.into_faults().into_iter().map(|fault| fault.message);
        faults.filter(|m| mentions(m) && !m.ends_with("is missing")).collect::<Vec<_>>().join("\n")
    }

    fn each_map(keys: &'static [Key], check: &mut dyn FnMut(&'static [Key], &'static Key)) {
        for key in keys {
            check(keys, key);
            each_map(key.below(), check);
        }
    }

    #[test]
    fn every_default_and_every_example_is_allowed() {
        each_map(ROOT, &mut |keys, key| {
            let on_disk = matches!(key.kind, Kind::Pem(_) | Kind::SecretFile | Kind::Map(_));
            if !on_disk {
                let example = faults(keys, key, &format!("{}: {}", key.name, key.example));
                assert_eq!(example, "", "example of {}", key.name);
            }
            if let Default::Is(text) = key.default {
                let default = faults(keys, key, &format!("{}: {text}", key.name));
                assert_eq!(default, "", "default of {}", key.name);
            }
        });
    }

    #[test]
    fn every_key_is_told_in_full() {
        for key in all(ROOT) {
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{}", key.name);
            assert!(!key.example.is_empty() && !key.kind.label().is_empty(), "{}", key.name);
            assert!(!key.kind.allowed().is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn paths_are_unique() {
        let mut paths = key_paths();
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
        assert!(paths.contains(&"taps[].upstream.url".to_owned()));
    }
}
