//! What is promised, by which test, with which figure: gathered from the tests' own comments, so that no
//! book promises what no test holds.
//!
//! `/// Promise (security): what holds. Figure: how much, measured by this test.` in the comment of a test,
//! over one line or several. The tables stand in docs/SECURITY.md and docs/OPERATIONS.md between two marks.

use super::tree::Source;

/// The books that have a table, by the word in the comment.
pub const BOOKS: [(&str, &str); 2] =
    [("security", "docs/SECURITY.md"), ("operations", "docs/OPERATIONS.md")];

const BEGIN: &str =
    "<!-- promises: made from the tests by FLOWTAP_BLESS=1 cargo test --test tidy -->\n";
const END: &str = "<!-- promises end -->";

/// One promise.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promise {
    path: String,
    text: String,
    figure: String,
    test: String,
}

/// The promises of one kind, in the order of files and lines.
pub fn promises(sources: &[Source], kind: &str) -> Vec<Promise> {
    let begin = format!("/// Promise ({kind}): ");
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.flat_map(|source| in_source(source, &begin)).collect()
}

fn in_source(source: &Source, begin: &str) -> Vec<Promise> {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let places = lines.iter().enumerate().filter(|(_, line)| line.starts_with(begin));
    let promise = |(at, _): (usize, &&str)| {
        let comment = lines[at..].iter().take_while(|line| line.starts_with("///"));
        let words: Vec<_> = comment.map(|line| line.trim_start_matches('/').trim()).collect();
        let said = words.join(" ");
        let said = said.split_once(": ").map_or("", |(_, said)| said);
        let (text, figure) = said.split_once(" Figure: ").unwrap_or((said, ""));
        let name = lines[at..].iter().find_map(|line| function(line)).unwrap_or_default();
        let end = |text: &str| text.trim_end_matches('.').to_owned();
        Promise { path: source.path.clone(), text: end(text), figure: end(figure), test: name }
    };
    places.map(promise).collect()
}

fn function(line: &str) -> Option<String> {
    let rest = line.split_once("fn ")?.1;
    Some(rest.split(['(', '<']).next()?.to_owned())
}

/// The table of a book.
pub fn table(promises: &[Promise]) -> String {
    let row = |promise: &Promise| {
        let Promise { path, text, figure, test } = promise;
        let room = path.trim_start_matches("tests/it/").trim_end_matches(".rs");
        format!("| {text} | `{room}`: `{test}` | {figure} |\n")
    };
    let rows: String = promises.iter().map(row).collect();
    format!("| Promised | Held by | Figure |\n|---|---|---|\n{rows}")
}

/// The book with `table` between its marks; `None` where it has none.
pub fn with_table(book: &str, table: &str) -> Option<String> {
    let (before, rest) = book.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}
