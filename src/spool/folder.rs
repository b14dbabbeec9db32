//! The spool's folder: its lock, its segments by name, and `corrupt/` for what cannot be read.
//!
//! ```text
//! lock                              held by the one owner
//! <run>-<sequence>.open             being written
//! <run>-<sequence>.seg              sealed, waiting for the bucket
//! books                             the newest figures, see `books`
//! corrupt/                          set aside, bounded, the oldest leaves first
//! ```
//! Files of other names are not ours and are left alone. The folder is 0700, files are 0600, and no
//! symlink is ever followed to a file.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::SpoolError;
use super::faults::{Faults, Point};
use crate::capture::failpoint;
use crate::ledger::Incarnation;

/// Files that `corrupt/` may hold.
const CORRUPT_FILES_MAX: usize = 64;
/// A file larger than this is no segment of ours.
const READ_BYTES_MAX: u64 = 1 << 30;

/// Names a segment for ever: no two runs share an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The run that wrote it.
    pub incarnation: Incarnation,
    /// Counts up within the run.
    pub sequence: u64,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}", self.incarnation, self.sequence)
    }
}

impl SegmentId {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (incarnation, sequence) = text.split_once('-')?;
        let incarnation = Incarnation::parse(incarnation)?;
        let digits = sequence.bytes().all(|b| b.is_ascii_digit());
        let sequence = digits.then(|| sequence.parse().ok()).flatten()?;
        Some(Self { incarnation, sequence })
    }
}

/// Whether a segment is still written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Sealed,
}

impl State {
    fn extension(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "seg",
        }
    }
}

/// A segment's file as found in the folder.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: SegmentId,
    pub(super) state: State,
}

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    corrupt_bytes_max: u64,
    _lock: File,
    pub(super) faults: Faults,
}

impl Folder {
    /// Makes the folder where it is missing and takes its lock.
    pub(super) fn open(
        dir: &Path,
        corrupt_bytes_max: u64,
        faults: Faults,
    ) -> Result<Self, SpoolError> {
        faults.at(Point::Create)?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A mounted volume may belong to another user; its files are 0600 all the same.
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
        let lock = options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), corrupt_bytes_max, _lock: lock, faults }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// True while the folder and the lock in it are where they were.
    pub(super) fn is_there(&self) -> bool {
        self.dir.join("lock").symlink_metadata().is_ok_and(|meta| meta.is_file())
    }

    /// True while its files can be listed and opened.
    fn is_well(&self) -> bool {
        self.faults.at(Point::Open).is_ok()
            && fs::read_dir(&self.dir).is_ok()
            && open_regular(&self.dir.join("lock")).is_ok()
    }

    /// What `read` makes of one file. Where it cannot, and that is not the file's own fault, the folder is
    /// not to be judged by it: the outer error, for whoever comes back later.
    pub(super) fn of_file<T>(&self, read: impl Fn() -> io::Result<T>) -> io::Result<io::Result<T>> {
        let mut result = read();
        if result.is_err() {
            result = self.unless_ill(result)?;
        }
        // It may have been forbidden until a moment ago.
        if result.is_err() { self.unless_ill(read()) } else { Ok(result) }
    }

    fn unless_ill<T>(&self, result: io::Result<T>) -> io::Result<io::Result<T>> {
        match result {
            Err(error) if !self.is_well() => Err(error),
            result => Ok(result),
        }
    }

    /// All segments, oldest first; of two files of one segment the sealed one comes last.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for listed in fs::read_dir(&self.dir)? {
            entries.extend(listed?.file_name().to_str().and_then(entry));
        }
        entries.sort_by_key(|entry| (entry.id, entry.state == State::Sealed));
        Ok(entries)
    }

    /// A fresh segment, empty, for writing and reading back.
    pub(super) fn create(&self, id: SegmentId, state: State) -> io::Result<File> {
        self.faults.at(Point::Create)?;
        options().create_new(true).write(true).read(true).open(self.path(id, state))
    }

    /// Opens a segment for reading: regular files only, so that a pipe cannot block us.
    pub(super) fn open_segment(&self, id: SegmentId, state: State) -> io::Result<File> {
        self.faults.at(Point::Open)?;
        open_regular(&self.path(id, state))
    }

    /// The file of the newest figures, made where it is missing.
    pub(super) fn open_books(&self) -> io::Result<File> {
        let path = self.dir.join("books");
        let file = options().create(true).truncate(false).read(true).write(true).open(path)?;
        let regular = file.metadata()?.is_file();
        regular.then_some(file).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// The same, for reading.
    pub(super) fn read_books(&self) -> io::Result<File> {
        self.faults.at(Point::Open)?;
        open_regular(&self.dir.join("books"))
    }

    /// `<id>.open` becomes `<id>.seg`, and stays so after a power cut.
    pub(super) fn seal(&self, id: SegmentId) -> io::Result<()> {
        self.faults.at(Point::Rename)?;
        let sealed = self.path(id, State::Sealed);
        match fs::rename(self.path(id, State::Open), &sealed) {
            // An attempt before this one got as far, and could not make the name safe.
            Err(error) if error.kind() == io::ErrorKind::NotFound && sealed.exists() => {}
            renamed => renamed?,
        }
        failpoint::hit("spool_sealed");
        self.sync()
    }

    /// Unlinks a segment; one that is gone already is no error.
    pub(super) fn remove(&self, id: SegmentId, state: State) -> io::Result<()> {
        self.faults.at(Point::Remove)?;
        match fs::remove_file(self.path(id, state)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    /// Moves a segment into `corrupt/`, whatever kind of file it is, and keeps `corrupt/` bounded.
    pub(super) fn set_aside(&self, id: SegmentId, state: State) -> io::Result<()> {
        let path = self.path(id, state);
        let corrupt = self.dir.join("corrupt");
        DirBuilder::new().recursive(true).mode(0o700).create(&corrupt)?;
        fs::rename(&path, corrupt.join(path.file_name().unwrap_or_default()))?;
        bound(&corrupt, self.corrupt_bytes_max);
        self.sync()
    }

    /// Makes renames and unlinks durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn path(&self, id: SegmentId, state: State) -> PathBuf {
        self.dir.join(format!("{id}.{}", state.extension()))
    }
}

/// A sealed segment in `dir`, to be read.
pub(super) fn open_sealed(dir: &Path, id: SegmentId) -> io::Result<File> {
    let file = open_regular(&dir.join(format!("{id}.{}", State::Sealed.extension())))?;
    match file.metadata()?.len() {
        0..=READ_BYTES_MAX => Ok(file),
        _ => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
    }
}

/// The whole content of `file`, up to a limit far above any segment.
pub(super) fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
    if bytes > READ_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut content = Vec::with_capacity(bytes as usize);
    (&mut file).take(READ_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// A pipe in a file's place is an error and no wait.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    options
}

/// The standard library adds `O_CLOEXEC` by itself.
fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn open_regular(path: &Path) -> io::Result<File> {
    let flags = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let regular = file.metadata()?.is_file();
    regular.then_some(file).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn entry(name: &str) -> Option<Entry> {
    let (stem, extension) = name.rsplit_once('.')?;
    let state = [State::Open, State::Sealed].into_iter().find(|s| s.extension() == extension)?;
    Some(Entry { id: SegmentId::parse(stem)?, state })
}

/// Removes the oldest files of `dir` until the rest is within the limits.
fn bound(dir: &Path, bytes_max: u64) {
    let listed = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = listed.filter_map(|e| Some((e.path(), e.metadata().ok()?))).collect();
    files.sort_by_key(|(_, meta)| std::cmp::Reverse(meta.modified().ok()));
    let mut bytes = 0;
    for (i, (path, meta)) in files.iter().enumerate() {
        bytes += meta.len();
        if (bytes > bytes_max || i >= CORRUPT_FILES_MAX) && fs::remove_file(path).is_err() {
            tracing::warn!("a file in the spool's corrupt folder cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u64) -> SegmentId {
        let incarnation = Incarnation::parse("0011223344556677").expect("sixteen digits");
        SegmentId { incarnation, sequence }
    }

    fn folder(dir: &Path) -> Folder {
        Folder::open(dir, 100, Faults::default()).expect("opens")
    }

    #[test]
    fn a_second_owner_is_refused_and_the_folder_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = folder(dir.path());
        let error = Folder::open(dir.path(), 100, Faults::default()).expect_err("locked");
        assert!(error.to_string().contains(&dir.path().display().to_string()));
        drop(first);
        folder(dir.path());
    }

    #[test]
    fn folder_and_files_are_for_the_owner_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = folder(&dir.path().join("deep/spool"));
        folder.create(id(1), State::Open).expect("creates");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder.dir), 0o700);
        assert_eq!(mode(&folder.path(id(1), State::Open)), 0o600);
        assert_eq!(mode(&folder.dir.join("lock")), 0o600);
    }

    #[test]
    fn symlinks_are_not_followed_and_foreign_names_are_not_ours() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = folder(dir.path());
        let secret = dir.path().join("secret.txt");
        fs::write(&secret, "keep").expect("writes");
        std::os::unix::fs::symlink(&secret, folder.path(id(1), State::Sealed)).expect("links");
        assert!(open_sealed(dir.path(), id(1)).is_err());
        assert!(folder.create(id(1), State::Sealed).is_err());
        assert_eq!(folder.entries().expect("lists").len(), 1, "the text file is nobody's segment");
        folder.set_aside(id(1), State::Sealed).expect("moves the link itself");
        assert_eq!(fs::read_to_string(&secret).expect("there"), "keep");
    }

    /// Promise (operations): a pipe in place of the spool's lock keeps no start waiting.
    #[test]
    fn a_pipe_in_place_of_the_lock_is_an_error_and_no_wait() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("lock")).status();
        assert!(made.expect("mkfifo is there").success());
        let error = Folder::open(dir.path(), 100, Faults::default()).expect_err("no file");
        assert_eq!(error.label(), "disk");
        fs::remove_file(dir.path().join("lock")).expect("removed");
        folder(dir.path());
    }

    #[test]
    fn what_is_set_aside_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = folder(dir.path());
        for sequence in 0..10 {
            fs::write(folder.path(id(sequence), State::Sealed), [0; 30]).expect("writes");
            folder.set_aside(id(sequence), State::Sealed).expect("moves");
        }
        let left = fs::read_dir(dir.path().join("corrupt")).expect("there").count();
        assert_eq!(left, 3, "three of thirty bytes fit into a hundred");
    }

    #[test]
    fn a_segment_is_known_by_its_name() {
        assert_eq!(SegmentId::parse(&id(7).to_string()), Some(id(7)));
        assert_eq!(SegmentId::parse("0011223344556677-+1"), None);
        assert!(entry("../0011223344556677-00000001.seg").is_none());
        assert!(entry("0011223344556677-00000001.txt").is_none());
    }
}
