//! docs/OPERATIONS.md tells of every family of metrics that means trouble what to do: a table made from
//! docs/METRICS.md, which is made from the code. What is no trouble of itself is named there, too, so that
//! a new family is one or the other.

use super::{root, sources};

const BEGIN: &str =
    "<!-- trouble: made from METRICS.md by FLOWTAP_BLESS=1 cargo test --test tidy -->\n";
const END: &str = "<!-- trouble end -->";
/// What begins the sentence that names the others.
const OTHERS: &str = "Figures of how things go, and no trouble of themselves: ";

/// Name and advice of each family in docs/METRICS.md.
fn families(metrics: &str) -> Vec<(&str, &str)> {
    let rows = metrics.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| Some((row.split('`').next()?, row.split(" | ").last()?)));
    let families =
        cells.filter(|(name, _)| name.starts_with("flowtap_") || name.starts_with("gen_ai_"));
    families.map(|(name, advice)| (name, advice.trim_end_matches(" |"))).collect()
}

/// Names between backticks in the sentence of the others.
fn others(book: &str) -> Vec<&str> {
    let sentence = book.split_once(OTHERS).map_or("", |(_, rest)| rest);
    let sentence = sentence.split("\n\n").next().unwrap_or_default();
    sentence.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_metric_that_means_trouble_has_its_advice() {
    let sources = sources();
    let text = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.unwrap_or_else(|| panic!("{path} is missing")).text.clone()
    };
    let (metrics, book) = (text("docs/METRICS.md"), text("docs/OPERATIONS.md"));
    let (families, others) = (families(&metrics), others(&book));
    assert!(families.len() > 70 && others.len() > 10, "{} {}", families.len(), others.len());
    for name in &others {
        assert!(families.iter().any(|(known, _)| known == name), "`{name}` is no metric");
    }
    let troubles = families.iter().filter(|(name, _)| !others.contains(name));
    let rows: Vec<String> =
        troubles.map(|(name, advice)| format!("| `{name}` | {advice} |\n")).collect();
    let table = format!("| Metric | What it tells, and what to do |\n|---|---|\n{}", rows.concat());
    let (before, rest) = book.split_once(BEGIN).expect("a mark before the table");
    let (_, after) = rest.split_once(END).expect("a mark behind it");
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("FLOWTAP_BLESS").is_some() {
        return std::fs::write(root().join("docs/OPERATIONS.md"), wanted).expect("written");
    }
    assert!(wanted == book, "docs/OPERATIONS.md: FLOWTAP_BLESS=1 makes the table anew");
}
