//! Each rule, shown to catch what it is there for and to let pass what it should.

use std::path::Path;

use super::rules::{self, Fence};
use super::tree::{Fault, Source};
use super::words::{self, Lowest};
use super::{EMPTY_NAMES, FENCES, SPAWN_ONLY_IN, WORDS};

const LIB: &str =
    "//! Map.\n\npub mod domain;\n\npub mod config;\npub mod drain;\n\npub mod app;\n";

fn lines(faults: &[Fault]) -> Vec<usize> {
    faults.iter().map(|fault| fault.line).collect()
}

fn floor_lines(path: &str, text: &str) -> Vec<usize> {
    lines(&rules::floor_faults(&Source::made_up(path, text), &rules::floors(LIB)))
}

#[test]
fn floors_catch_what_looks_up_or_sideways() {
    assert_eq!(floor_lines("src/config.rs", "use crate::domain::Usage;"), [0; 0]);
    assert_eq!(floor_lines("src/config/file.rs", "use crate::config::Config;"), [0; 0], "itself");
    assert_eq!(floor_lines("src/config.rs", "\nuse crate::app::run;"), [2], "up");
    assert_eq!(floor_lines("src/config.rs", "use crate::drain::Drain;"), [1], "sideways");
    assert_eq!(floor_lines("src/config.rs", "use super::app;"), [1], "up by the root");
    assert_eq!(floor_lines("src/config/file.rs", "use super::app;"), [0; 0], "a submodule");
    assert_eq!(floor_lines("src/config.rs", "fn f() { x!(crate::app::run()) }"), [1], "in a macro");
    assert_eq!(floor_lines("src/stray.rs", "use crate::domain::Usage;"), [1], "undeclared");
    assert_eq!(floor_lines("src/app.rs", "use crate::{domain, config::Config, drain};"), [0; 0]);
    assert_eq!(floor_lines("src/app.rs", "use crate::gone::X;"), [1], "no such module");
}

#[test]
fn fences_catch_a_crate_out_of_its_room() {
    let faults =
        |path: &str, text: &str| rules::fence_faults(&Source::made_up(path, text), FENCES).len();
    assert_eq!(faults("src/proxy/serve.rs", "use hyper::body::Incoming;"), 0);
    assert_eq!(faults("src/pipeline.rs", "fn f(b: hyper::body::Incoming) {}"), 1);
    assert_eq!(faults("src/bucket/local.rs", "use aws_sdk_s3::Client;"), 1);
    assert_eq!(faults("src/bucket/s3.rs", "use aws_sdk_s3::Client;"), 0);
    assert_eq!(faults("src/bucket/s3/client.rs", "use aws_sdk_s3::Client;"), 0);
    assert_eq!(faults("src/archive.rs", "use opentelemetry_sdk::trace;"), 1, "any ending");
    assert_eq!(faults("src/archive.rs", "fn f(hyper: u8) {}"), 0, "a plain word");
    assert_eq!(faults("src/archive.rs", "use rand;"), 1, "a whole crate");
    assert_eq!(faults("src/archive.rs", "#[cfg(test)] mod tests { use rand::random; }"), 0);
    let near = [Fence { krate: "sampler", only_in: &["sample"] }];
    let source = Source::made_up("src/samples.rs", "use sampler::X;");
    assert_eq!(rules::fence_faults(&source, &near).len(), 1, "`samples` is not `sample`");
}

#[test]
fn the_spawn_fence_knows_every_way_to_spawn() {
    let faults = |path: &str, text: &str| {
        rules::spawn_faults(&Source::made_up(path, text), SPAWN_ONLY_IN).len()
    };
    for way in [
        "std::thread::spawn(f)",
        "thread::Builder::new()",
        "tokio::spawn(f)",
        "tokio::task::spawn_blocking(f)",
    ] {
        let text = format!("fn f() {{ {way}; }}");
        assert_eq!(faults("src/pipeline.rs", &text), 1, "{way}");
        assert_eq!(faults("src/drain.rs", &text), 0, "{way}");
    }
    assert_eq!(faults("src/pipeline.rs", "use std::thread::{sleep, spawn};"), 1);
}

#[test]
fn an_exchange_is_caught_however_it_becomes_serializable() {
    let faults = |text: &str| {
        rules::serialize_faults(&Source::made_up("src/domain/exchange.rs", text)).len()
    };
    assert_eq!(faults("#[derive(Debug, serde::Serialize)] pub struct Exchange { a: u8 }"), 1);
    assert_eq!(faults("#[cfg_attr(x, derive(Serialize))] pub struct Exchange { a: u8 }"), 1);
    assert_eq!(faults("impl serde::Serialize for Exchange {}"), 1);
    assert_eq!(faults("impl Serialize for &super::Exchange {}"), 1);
    assert_eq!(faults("#[derive(Debug)] pub struct Exchange; impl Serialize for Record {}"), 0);
}

#[test]
fn lengths_are_counted_from_fn_to_brace() {
    let body = "    let _ = 1;\n".repeat(69);
    let long = Source::made_up("src/a.rs", &format!("//! A.\nfn f() {{\n{body}}}\n"));
    assert_eq!(lines(&rules::length_faults(&long, 70)), [2]);
    assert_eq!(rules::length_faults(&long, 71).len(), 0);
    assert_eq!(lines(&rules::file_faults(&long, 40)), [40]);
    assert_eq!(rules::file_faults(&Source::made_up("src/a.rs", "use x;\n"), 500).len(), 1);
}

#[test]
fn empty_names_are_caught_in_paths_and_in_modules() {
    let faults = |path: &str, text: &str| {
        rules::name_faults(&Source::made_up(path, text), EMPTY_NAMES).len()
    };
    assert_eq!(faults("src/utils.rs", ""), 1);
    assert_eq!(faults("src/common/mod.rs", ""), 1);
    assert_eq!(faults("src/proxy.rs", "pub mod helpers;"), 1);
    assert_eq!(faults("src/proxy.rs", "mod manager {\n}"), 1);
    assert_eq!(faults("src/proxy.rs", "mod forward;\nlet utils = 1;"), 0);
}

#[test]
fn every_forbidden_word_is_found_and_longer_words_are_not() {
    for word in WORDS {
        let text = format!("fine\n# {} here\n", word.text);
        let faults = words::word_faults(&Source::made_up("docs/a.md", &text), WORDS);
        assert_eq!(lines(&faults), [2], "{}", word.text);
    }
    let longer = Source::made_up("src/a.rs", concat!("let MASTO", "DON = 1; // /homework/"));
    assert_eq!(words::word_faults(&longer, WORDS), []);
}

#[test]
fn broken_links_are_found() {
    let book = "# Data flow\n[a](#data-flow) [b](#nowhere) [c](../b.md#x) [d](gone.md)\n\
                ```\n[e](code.md)\n```\n[f](https://example.com) [g](../b.md#b)\n";
    let sources = [Source::made_up("docs/a.md", book), Source::made_up("b.md", "# B\n")];
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("docs")).expect("made");
    for source in &sources {
        std::fs::write(folder.path().join(&source.path), &source.text).expect("written");
    }
    let faults = words::link_faults(&sources, folder.path());
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.line == 2));
    assert!(words::link_faults(&sources, Path::new("/nowhere")).len() > 3, "files are looked for");
}

#[test]
fn low_and_banned_versions_are_found() {
    let lock = "[[package]]\nname = \"h2\"\nversion = \"0.4.15\"\n\n\
                [[package]]\nname = \"pingora-limits\"\nversion = \"0.10.0\"\n\n\
                [[package]]\nname = \"serde_yml\"\nversion = \"0.0.12\"\n";
    let lowest = [
        Lowest { krate: "h2", version: [0, 4, 16] },
        Lowest { krate: "pingora*", version: [0, 9, 1] },
    ];
    let faults = words::lock_faults(&Source::made_up("Cargo.lock", lock), &lowest, &["serde_yml"]);
    assert_eq!(lines(&faults), [2, 10]);
}
