//! The files that the rules look at, and how a fault is told.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path from the repository's root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// The rule's short name.
    pub rule: &'static str,
    /// What was found and what to do about it.
    pub advice: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.advice)
    }
}

/// One text file of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// A source made up for a test of a rule.
    pub fn made_up(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// True for Rust files.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// Every text file that is, or is about to be, tracked.
pub fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = tracked(&root).unwrap_or_else(|| walk(&root, &root));
    paths.sort();
    paths.into_iter().filter_map(|path| read(&root, path)).collect()
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with every fault, one a line.
#[track_caller]
pub fn assert_none(faults: Vec<Fault>) {
    let text: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(text.is_empty(), "\n{}\n({} to put right)", text.join("\n"), text.len());
}

fn read(root: &Path, path: String) -> Option<Source> {
    let text = String::from_utf8(fs::read(root.join(&path)).ok()?).ok()?;
    (!text.contains('\0')).then_some(Source { path, text })
}

fn tracked(root: &Path) -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    (listed.status.success() && !paths.is_empty()).then_some(paths)
}

/// For a source tree without git: everything but what builds and runs leave behind.
fn walk(root: &Path, folder: &Path) -> Vec<String> {
    const LEFT_BEHIND: [&str; 5] = [".git", "target", ".cache", "flowtap-data", "node_modules"];
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !LEFT_BEHIND.contains(&name.as_str()) {
            paths.extend(walk(root, &path));
        } else if path.is_file() {
            paths.extend(path.strip_prefix(root).ok().map(|p| p.to_string_lossy().into_owned()));
        }
    }
    paths
}

#[test]
fn without_git_the_walk_finds_the_same_sources() {
    let walked = walk(&root(), &root());
    assert!(walked.contains(&"src/lib.rs".to_owned()), "{walked:?}");
    assert!(!walked.iter().any(|path| path.starts_with("target/")), "build output is no source");
}
