//! Makes what is embedded: the tables that count tokens, packed, and the console page where it was
//! built (`web/build.sh` makes `web/dist/page`). Where it was not, flowtap still builds, and its admin
//! address says how to build the page.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpe::byte_pair_encoding::BytePairEncoding;
use rmpv::Value;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web/dist");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("cl100k.tables"), packed(&bpe_openai::cl100k_base().bpe)?)?;
    fs::write(out.join("o200k.tables"), packed(&bpe_openai::o200k_base().bpe)?)?;
    if env::var_os("CARGO_FEATURE_HUB").is_some() {
        fs::write(out.join("page.rs"), page()?)?;
    }
    lay_out()
}

/// Tells the linker of an optimised build for Linux what to lay together (see benches/order.py), and to write
/// the places that are moved at the start in a tenth of the bytes. A linker of one's own is told nothing: not
/// every one knows the former.
fn lay_out() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=link/start.ld");
    let is = |name: &str, value: &str| {
        env::var(format!("CARGO_CFG_TARGET_{name}")).as_deref() == Ok(value)
    };
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let own = flags.contains("linker")
        || flags.contains("fuse-ld")
        || env::var_os("RUSTC_LINKER").is_some();
    let is_optimised = env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    let script = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("link/start.ld");
    let is_known = is("OS", "linux") && is("ENV", "gnu") && is("ARCH", "x86_64");
    if own || !(is_known && is_optimised && script.exists()) {
        return Ok(());
    }
    println!("cargo::rustc-link-arg-bin=flowtap=-Wl,-T,{}", script.display());
    if knows_packed_relocations() {
        println!("cargo::rustc-link-arg-bin=flowtap=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// True where this machine's C library reads them: glibc does since 2.36. What is linked here does not run with
/// an older one anyway.
fn knows_packed_relocations() -> bool {
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let told = asked.ok().and_then(|told| String::from_utf8(told.stdout).ok()).unwrap_or_default();
    let version = told.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let number = |text: &str| text.parse::<u32>().ok();
    version.is_some_and(|(major, minor)| number(major).zip(number(minor)) >= Some((2, 36)))
}

/// Level of zstd: higher ones take minutes to save a few percent more.
const LEVEL: i32 = 9;

/// A vocabulary's fields, in the order of `BytePairEncoding`, that only encoding and decoding need: the
/// tokens' bytes, their hashes, and the two automata that find every match.
const UNUSED: [usize; 4] = [0, 2, 6, 7];

/// A vocabulary as `src/tokens/vocabulary.rs` reads it: a sixth of the bytes of the whole, and a third
/// of its memory.
fn packed(vocabulary: &BytePairEncoding) -> Result<Vec<u8>, Box<dyn Error>> {
    let smallest = BytePairEncoding::from_dictionary([vec![b'a']], None);
    let (mut fields, smallest) = (fields(vocabulary)?, fields(&smallest)?);
    for field in UNUSED {
        fields[field] = smallest[field].clone();
    }
    let mut tables = Vec::new();
    rmpv::encode::write_value(&mut tables, &Value::Array(fields))?;
    Ok(zstd::bulk::compress(&tables, LEVEL)?)
}

fn fields(vocabulary: &BytePairEncoding) -> Result<Vec<Value>, Box<dyn Error>> {
    let whole = rmp_serde::to_vec(vocabulary)?;
    match rmpv::decode::read_value(&mut whole.as_slice())? {
        Value::Array(fields) if fields.len() == 10 => Ok(fields),
        _ => Err("bpe lays out its tables in another way than this build script knows".into()),
    }
}

/// The page's files as a Rust expression.
fn page() -> Result<String, Box<dyn Error>> {
    let page = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("web/dist/page");
    let mut files = Vec::new();
    collect(&page, &mut files)?;
    files.sort();
    let mut assets = String::from("&[\n");
    for file in files.iter().filter(|file| !is_compressed(file)) {
        asset(&page, file, &mut assets)?;
    }
    assets.push_str("]\n");
    Ok(assets)
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
