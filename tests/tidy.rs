//! The rules of the house that no compiler keeps, read from the source. Every failure names file,
//! line, rule and what to do. The tables below are the rules; `tests/tidy/` is how they are read.

#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/promises.rs"]
mod promises;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;

use rules::Fence;
use tree::{Fault, Source, assert_none, root, sources};
use words::{Lowest, Word};

/// Lines of a Rust file, tests included.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;
/// Half of all functions are shorter than this.
const MEDIAN_LINES_BELOW: usize = 10;

/// Where each heavy crate may be named. Unit tests (`#[cfg(test)] mod`) stand outside the fences.
const FENCES: &[Fence] = &[
    Fence {
        krate: "hyper",
        only_in: &["proxy", "console", "injector", "collector", "evaluate/judge", "alert"],
    },
    Fence {
        krate: "hyper_util",
        only_in: &["proxy", "console", "injector", "collector", "evaluate/judge", "alert"],
    },
    Fence { krate: "async_nats", only_in: &["queue"] },
    Fence { krate: "axum", only_in: &["console", "injector", "collector"] },
    Fence { krate: "pingora_*", only_in: &["proxy", "metrics"] },
    Fence { krate: "aws_sdk_s3", only_in: &["bucket/s3"] },
    Fence { krate: "aws_config", only_in: &["bucket/s3"] },
    Fence { krate: "object_store", only_in: &["bucket"] },
    Fence { krate: "tiktoken_rs", only_in: &["tokens"] },
    Fence { krate: "bpe*", only_in: &["tokens"] },
    Fence { krate: "rmp_serde", only_in: &["tokens"] },
    Fence { krate: "prometheus", only_in: &["metrics"] },
    Fence { krate: "opentelemetry*", only_in: &["trace", "collector/otlp"] },
    Fence { krate: "tonic*", only_in: &["collector/otlp"] },
    Fence { krate: "rusqlite", only_in: &["store"] },
    Fence { krate: "parquet", only_in: &["export/table"] },
    Fence { krate: "rand", only_in: &["sample", "domain/ids"] },
    Fence { krate: "lettre", only_in: &["alert"] },
    Fence { krate: "reqwest", only_in: &["alert", "evaluate/judge", "reach", "replay"] },
    Fence { krate: "statrs", only_in: &["monitor/estimate"] },
    Fence { krate: "serde_saphyr", only_in: &["config/file"] },
    Fence { krate: "granit_parser", only_in: &["inject/yaml"] },
];

/// Where threads and tasks may begin. Whatever begins elsewhere nobody waits for at shutdown.
const SPAWN_ONLY_IN: &[&str] =
    &["drain", "proxy", "console", "injector", "collector", "spool", "archive", "trace"];

/// Names of files and modules that say nothing.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "manager", "handler", "handlers", "misc"];

/// This file spells what it forbids in halves, so that it need not forgive itself.
const WORDS: &[Word] = &[
    word(concat!("TO", "DO"), "unfinished", "finish it, or open an issue and delete the note", &[]),
    word(concat!("FIX", "ME"), "unfinished", "fix it, or open an issue and delete the note", &[]),
    word(concat!("todo", "!("), "unfinished", "write it, or leave it out", &[]),
    word(concat!("unimple", "mented!("), "unfinished", "write it, or leave it out", &[]),
    word(concat!("dbg", "!("), "leftover", "remove it, or use `tracing`", &[]),
    word(
        concat!("#[ig", "nore"),
        "ignored",
        "a test that does not run proves nothing: fix or delete it",
        &[],
    ),
    word(
        concat!("/wo", "rk/"),
        "places",
        "a path of one machine; use one inside the repository",
        &[],
    ),
    word(
        concat!("/ro", "ot/"),
        "places",
        "a path of one machine; use one inside the repository",
        &[],
    ),
    word(
        concat!("/tmp", "/wt"),
        "places",
        "a path of one machine; use one inside the repository",
        &[],
    ),
    word(concat!("crates", ".io"), "registries", REGISTRIES, &["Cargo.lock", "fuzz/Cargo.lock"]),
    word(concat!("pypi", ".org"), "registries", REGISTRIES, &[]),
    word(concat!("python", "hosted.org"), "registries", REGISTRIES, &[]),
    word(concat!("npm", "js.org"), "registries", REGISTRIES, &[]),
    word(concat!("deb.deb", "ian.org"), "registries", REGISTRIES, &[]),
];

const REGISTRIES: &str = "name the package, not the host it comes from: mirrors have other names";

const fn word(
    text: &'static str,
    rule: &'static str,
    advice: &'static str,
    except: &'static [&'static str],
) -> Word {
    Word { text, rule, advice, except }
}

/// Versions below these have known faults (docs/SECURITY.md).
const LOWEST: &[Lowest] = &[
    Lowest { krate: "pingora*", version: [0, 9, 1] },
    Lowest { krate: "h2", version: [0, 4, 16] },
    Lowest { krate: "bytes", version: [1, 11, 1] },
    Lowest { krate: "tracing-subscriber", version: [0, 3, 20] },
];

/// Crates that must not come in, not even through another: abandoned, or a second TLS.
const NEVER: &[&str] = &["serde_yml", "serde_yaml", "libyml", "openssl-sys", "native-tls"];

/// The books that the README must lead to.
const BOOKS: &[&str] = &[
    "docs/ARCHITECTURE.md",
    "docs/CONFIG.md",
    "docs/METRICS.md",
    "docs/OPERATIONS.md",
    "docs/SECURITY.md",
    "CHANGELOG.md",
    "LICENSE",
];

fn rust_below(folder: &str) -> Vec<Source> {
    sources().into_iter().filter(|s| s.is_rust() && s.path.starts_with(folder)).collect()
}

fn over(sources: &[Source], rule: impl Fn(&Source) -> Vec<Fault>) -> Vec<Fault> {
    assert!(!sources.is_empty(), "no source was looked at: a rule over nothing proves nothing");
    sources.iter().flat_map(rule).collect()
}

#[test]
fn every_room_sees_only_the_floors_below_it() {
    let sources = rust_below("src/");
    let lib = sources.iter().find(|s| s.path == "src/lib.rs").expect("src/lib.rs is there");
    let floors = rules::floors(&lib.text);
    assert!(floors.len() > 3, "lib.rs was read: {floors:?}");
    assert_none(over(&sources, |source| rules::floor_faults(source, &floors)));
}

#[test]
fn every_fenced_crate_stays_behind_its_fence() {
    assert_none(over(&rust_below("src/"), |source| rules::fence_faults(source, FENCES)));
}

#[test]
fn nothing_is_spawned_where_nobody_waits_for_it() {
    assert_none(over(&rust_below("src/"), |source| rules::spawn_faults(source, SPAWN_ONLY_IN)));
}

#[test]
fn an_exchange_cannot_be_serialized() {
    let sources = rust_below("src/");
    let there = sources.iter().any(|s| s.text.contains("pub struct Exchange {"));
    assert!(there, "`Exchange` is where this rule looks for it");
    assert_none(over(&sources, rules::serialize_faults));
}

#[test]
fn files_and_functions_are_short() {
    let sources = rust_below("");
    assert_none(over(&sources, |source| rules::file_faults(source, FILE_LINES_MAX)));
    assert_none(over(&sources, |source| rules::length_faults(source, FUNCTION_LINES_MAX)));
}

#[test]
fn half_of_all_functions_are_short() {
    let sources = rust_below("src/");
    let mut lengths: Vec<usize> =
        sources.iter().flat_map(rules::functions).map(|function| function.lines).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    let longest = lengths.last().copied().unwrap_or(0);
    println!("{} functions, median {median} lines, longest {longest}", lengths.len());
    assert!(median < MEDIAN_LINES_BELOW, "median {median}; name the parts of the long ones");
}

#[test]
fn names_say_something() {
    assert_none(over(&rust_below(""), |source| rules::name_faults(source, EMPTY_NAMES)));
}

#[test]
fn nothing_is_unfinished_and_nothing_tells_of_one_machine() {
    assert_none(over(&sources(), |source| words::word_faults(source, WORDS)));
}

#[test]
fn links_lead_somewhere() {
    assert_none(words::link_faults(&sources(), &root()));
}

#[test]
fn the_readme_leads_to_every_book() {
    let sources = sources();
    let text = |path: &str| sources.iter().find(|s| s.path == path).map(|s| s.text.clone());
    let readme = text("README.md").expect("README.md is there");
    let missing = |path: &&&str| text(path).is_none() || !readme.contains(&format!("]({path})"));
    let fault = |path: &&str| {
        Fault::new("README.md", 1, "books", format!("`{path}` is missing, or not linked from here"))
    };
    assert_none(BOOKS.iter().filter(missing).map(fault).collect());
}

#[test]
fn the_lock_file_holds_no_known_fault() {
    let sources = sources();
    let lock = sources.iter().find(|s| s.path == "Cargo.lock").expect("Cargo.lock is committed");
    assert!(lock.text.contains("name = \"h2\""), "the crates with a floor are in the tree");
    assert_none(words::lock_faults(lock, LOWEST, NEVER));
}

#[test]
fn the_books_promise_what_tests_hold() {
    let sources = sources();
    for (kind, path) in promises::BOOKS {
        let promises = promises::promises(&sources, kind);
        assert!(promises.len() > 5, "{promises:?}");
        let book = sources.iter().find(|source| source.path == path).expect("the book");
        let wanted = promises::with_table(&book.text, &promises::table(&promises));
        let wanted = wanted.unwrap_or_else(|| panic!("{path} has no marks for the table"));
        if std::env::var_os("FLOWTAP_BLESS").is_some() {
            std::fs::write(root().join(path), &wanted).expect("written");
        } else {
            assert!(wanted == book.text, "{path}: FLOWTAP_BLESS=1 makes the table anew");
        }
    }
}

#[path = "tidy/proofs.rs"]
mod proofs;

#[path = "tidy/trouble.rs"]
mod trouble;
