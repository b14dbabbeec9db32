//! The rules on text of any kind: words that stay out, links that lead somewhere, the lock file.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::tree::{Fault, Source};

/// A text that must not occur.
pub struct Word {
    /// What is looked for.
    pub text: &'static str,
    /// The rule's short name.
    pub rule: &'static str,
    /// What to do instead.
    pub advice: &'static str,
    /// Files that may hold it.
    pub except: &'static [&'static str],
}

/// Every place where a forbidden text stands.
pub fn word_faults(source: &Source, words: &[Word]) -> Vec<Fault> {
    let allowed = words.iter().filter(|word| !word.except.contains(&source.path.as_str()));
    let in_line = |word: &Word| {
        let hits = source.lines().filter(|(_, line)| has_word(line, word.text));
        let fault = |number| {
            let advice = format!("`{}`: {}", word.text, word.advice);
            Fault::new(&source.path, number, word.rule, advice)
        };
        hits.map(|(number, _)| fault(number)).collect::<Vec<_>>()
    };
    allowed.flat_map(in_line).collect()
}

/// True where `word` stands in `line` and is not the middle of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let open = word.starts_with(joins);
    line.match_indices(word).any(|(at, _)| !open || !line[..at].ends_with(joins))
}

/// Every relative link of the Markdown files leads to a file, and to a heading where it names one.
pub fn link_faults(sources: &[Source], root: &Path) -> Vec<Fault> {
    let books = sources.iter().filter(|source| source.path.ends_with(".md"));
    let in_book = |book: &Source| {
        let broken = links(&book.text).into_iter().filter_map(|(line, link)| {
            let advice = link_fault(sources, root, book, &link)?;
            Some(Fault::new(&book.path, line, "links", advice))
        });
        broken.collect::<Vec<_>>()
    };
    books.flat_map(in_book).collect()
}

fn link_fault(sources: &[Source], root: &Path, book: &Source, link: &str) -> Option<String> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(&book.path).parent().unwrap_or(Path::new(""));
    let target = match file {
        "" => book.path.clone(),
        _ => plain(&folder.join(file)),
    };
    if !root.join(&target).exists() {
        return Some(format!("`{link}` leads to no file; correct the link or write the file"));
    }
    let known = sources.iter().find(|source| source.path == target)?;
    let missing = !heading.is_empty() && !headings(&known.text).contains(heading);
    missing.then(|| format!("`{link}`: {target} has no such heading"))
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}

/// Relative link targets with their lines; code blocks and other schemes are left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for piece in line.split("](").skip(1) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !target.is_empty() {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The anchors that a forge makes of the headings.
fn headings(text: &str) -> HashSet<String> {
    let heading = |line: &str| line.starts_with('#').then(|| slug(line.trim_start_matches('#')));
    prose(text).filter_map(|(_, line)| heading(line)).collect()
}

fn slug(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// The lowest version of a crate that the lock file may hold.
pub struct Lowest {
    /// The crate's name; a trailing `*` stands for any ending.
    pub krate: &'static str,
    /// Major, minor, patch.
    pub version: [u64; 3],
}

/// Locked versions that are too low, and crates that must not be there at all.
pub fn lock_faults(lock: &Source, lowest: &[Lowest], never: &[&str]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, name, version) in packages(lock) {
        if never.contains(&name.as_str()) {
            let advice =
                format!("`{name}` must not be in the tree; `cargo tree -i {name}` tells why");
            faults.push(Fault::new(&lock.path, line, "lock", advice));
        }
        let low = lowest.iter().find(|low| matches(&name, low.krate) && version < low.version);
        faults.extend(low.map(|low| {
            let [major, minor, patch] = low.version;
            let advice =
                format!("`{name}` is below {major}.{minor}.{patch}; run `cargo update -p {name}`");
            Fault::new(&lock.path, line, "lock", advice)
        }));
    }
    faults
}

fn matches(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |prefix| name.starts_with(prefix))
}

fn packages(lock: &Source) -> Vec<(usize, String, [u64; 3])> {
    let Ok(table) = lock.text.parse::<toml::Table>() else { return Vec::new() };
    let listed = table.get("package").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let read = |package: &toml::Value| {
        let name = package.get("name")?.as_str()?.to_owned();
        let line = format!("name = \"{name}\"");
        let line = lock.lines().find(|(_, text)| *text == line).map_or(1, |(number, _)| number);
        Some((line, name, version(package.get("version")?.as_str()?)))
    };
    listed.iter().filter_map(read).collect()
}

fn version(text: &str) -> [u64; 3] {
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}
