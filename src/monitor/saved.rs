//! The folder of saved monitors: a file each, in the form of the configuration, as it was typed.
//!
//! A file is written beside its place, brought to the disk, and put there in one step: a crash leaves
//! the old text or the new one. Only its owner can read it, for it may name people.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text is not longer, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// So many are read and kept.
pub(super) const SAVED_MAX: usize = 100;
/// What names of files end with.
const ENDING: &str = ".yaml";

/// Reads all; the error of one is its own. A missing folder is an empty one.
pub(super) fn read(dir: &Path) -> io::Result<BTreeMap<Arc<str>, io::Result<String>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        match file.to_str().and_then(|file| file.strip_suffix(ENDING)).filter(|name| is_name(name))
        {
            Some(name) => names.push(Arc::from(name)),
            None => tracing::debug!(?file, "this is no saved monitor; it is left alone"),
        }
    }
    names.sort();
    if let Some(beyond) = names.get(SAVED_MAX..).filter(|beyond| !beyond.is_empty()) {
        tracing::warn!(
            ?beyond,
            max = SAVED_MAX,
            "there are too many saved monitors; these are left alone"
        );
    }
    names.truncate(SAVED_MAX);
    Ok(names.into_iter().map(|name| (Arc::clone(&name), text(&place(dir, &name)))).collect())
}

fn text(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    match text.len() > TEXT_BYTES_MAX {
        true => Err(io::Error::other(format!("it is longer than {TEXT_BYTES_MAX} bytes"))),
        false => Ok(text),
    }
}

/// Puts `text` in the place of what was saved under `name`.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        dir.parent().map_or(Ok(()), sync)?;
    }
    let fresh = dir.join(format!(".{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, place(dir, name))?;
    sync(dir)
}

/// Takes away what was saved under `name`.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(place(dir, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync(dir),
    }
}

/// Why nothing can be written there, as far as can be told without writing.
pub(super) fn unwritable(dir: &Path) -> Option<String> {
    // What is not there yet is made below the nearest folder that is.
    let nearest = dir.ancestors().find(|path| path.as_os_str().is_empty() || path.exists())?;
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let denied = rustix::fs::access(nearest, access).err();
    let why = denied.map(|error| io::Error::from(error).to_string());
    let why = why.or_else(|| (!nearest.is_dir()).then(|| "it is no folder".to_owned()));
    why.map(|why| format!("the folder {} cannot be written to: {why}", nearest.display()))
}

/// Names of monitors: letters, digits, `-` and `_`.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}

fn place(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{ENDING}"))
}

fn sync(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
