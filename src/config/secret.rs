//! A value that is never shown, and the files that secrets are read from.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A secret: no `Display`, and a `Debug` that tells nothing.
#[derive(Clone)]
pub struct Secret {
    value: String,
    /// Where it was read from.
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), file: None }
    }

    /// What its file holds now: itself where it came from none, or where that cannot be read or may be
    /// changed by others.
    pub fn of_now(&self) -> Self {
        let file = self.file.as_deref();
        let trusted =
            file.filter(|file| matches!(exposure(file), Ok(kept) if kept != Exposure::Writable));
        trusted.and_then(|file| read_secret(file).ok()).unwrap_or_else(|| self.clone())
    }

    /// The value itself: for the one place that has to send or compare it.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Whether `given` is this secret; takes as long for a wrong one as for the right one of the same
    /// length.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.value.as_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// The same value, wherever it came from.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.value.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Names of keys are words, and shorter than this.
const NAME_BYTES_MAX: usize = 40;
/// The shortest word with a digit that may be a secret.
const OPAQUE_BYTES_MIN: usize = 16;

/// True for what stands where a key's name should and may be a secret instead: it is longer than names are, or
/// a long word with a digit in it.
pub(super) fn may_be(name: &str) -> bool {
    let has_digit = name.bytes().any(|byte| byte.is_ascii_digit());
    name.len() > NAME_BYTES_MAX || (has_digit && name.len() >= OPAQUE_BYTES_MIN)
}

/// The longest secret file, in bytes: a service account's JSON has about 2.5 KiB.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// What a file's permissions say of a secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Nobody else may read it.
    Private,
    /// Others may read it: Kubernetes mounts secrets so by default.
    Readable,
    /// Others may change it.
    Writable,
}

/// Reads at most `bytes_max` bytes of a regular file. The error completes "the file ...".
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    // Looked at first: opening a pipe would wait for its writer.
    let metadata = metadata(path)?;
    if metadata.len() > bytes_max {
        return Err(format!("has {} bytes, more than {bytes_max}", metadata.len()));
    }
    let file = File::open(path).map_err(|error| cannot_read(&error))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(&error))?;
    match bytes.len() as u64 > bytes_max {
        true => Err(format!("has more than {bytes_max} bytes")),
        false => Ok(bytes),
    }
}

/// Reads a secret, without the line ends at its end. The error completes "the file ...".
pub(super) fn read_secret(path: &Path) -> Result<Secret, String> {
    let bytes = read_bounded(path, SECRET_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is empty".to_owned()),
        secret => Ok(Secret { value: secret.to_owned(), file: Some(path.to_owned()) }),
    }
}

/// Who besides its owner may touch the file. The error completes "the file ...".
pub(super) fn exposure(path: &Path) -> Result<Exposure, String> {
    Ok(exposed(&metadata(path)?))
}

fn metadata(path: &Path) -> Result<Metadata, String> {
    let metadata = std::fs::metadata(path).map_err(|error| cannot_read(&error))?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => Err("is not a regular file".to_owned()),
    }
}

fn cannot_read(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        kind => format!("cannot be read: {kind}"),
    }
}

#[cfg(unix)]
fn exposed(metadata: &Metadata) -> Exposure {
    use std::os::unix::fs::PermissionsExt;
    match metadata.permissions().mode() {
        mode if mode & 0o022 != 0 => Exposure::Writable,
        mode if mode & 0o004 != 0 => Exposure::Readable,
        _ => Exposure::Private,
    }
}

#[cfg(not(unix))]
fn exposed(_metadata: &Metadata) -> Exposure {
    Exposure::Private
}
