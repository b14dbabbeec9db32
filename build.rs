//! Embeds the console page where it was built (`web/build.sh` makes `web/dist/page`). Where it was
//! not, flowtap still builds, and its admin address says how to build the page.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web/dist");
    if env::var_os("CARGO_FEATURE_HUB").is_none() {
        return Ok(());
    }
    let page = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("web/dist/page");
    let mut files = Vec::new();
    collect(&page, &mut files)?;
    files.sort();
    let mut assets = String::from("&[\n");
    for file in files.iter().filter(|file| !is_compressed(file)) {
        asset(&page, file, &mut assets)?;
    }
    assets.push_str("]\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("page.rs"), assets)?;
    Ok(())
}

/// One file with its compressed forms, as a Rust expression.
fn asset(page: &Path, file: &Path, out: &mut String) -> Result<(), Box<dyn Error>> {
    let path = file.strip_prefix(page)?.to_string_lossy().replace('\\', "/");
    let form = |ending: &str| {
        let compressed = PathBuf::from(format!("{}.{ending}", file.display()));
        let there = compressed.is_file();
        if there { format!("Some(include_bytes!({compressed:?}))") } else { "None".to_owned() }
    };
    let (gzip, brotli) = (form("gz"), form("br"));
    writeln!(
        out,
        "Asset {{ path: {path:?}, plain: include_bytes!({file:?}), gzip: {gzip}, brotli: {brotli} }},"
    )?;
    Ok(())
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "gz" || ending == "br")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
