//! A folder as a bucket. An object appears whole or not at all: it is written beside (`.tmp` in the
//! folder, which readers such as Spark skip), fsynced, then given its name, then the folder is
//! fsynced. Files are 0600, folders 0700. A symbolic link is never read as an object, never written
//! through, and not listed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

use super::{Boxed, Bucket, BucketError, BucketErrorKind, LISTED_MAX, Listed, OBJECT_BYTES_MAX};

/// The folder for unfinished objects. No name can reach it: names have no part that begins with a dot.
const TEMP_FOLDER: &str = ".tmp";

/// Unfinished objects older than this were left by a process that died.
const TEMP_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes the names of unfinished objects differ within this process.
static TEMP_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A folder as a bucket.
pub(super) struct Local {
    root: PathBuf,
    ready: OnceCell<()>,
}

impl Local {
    /// The bucket in the folder `root`, which the first `put` makes.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, ready: OnceCell::new() }
    }

    /// Writes and fsyncs `body` under a temporary name, and makes the folders of `name`.
    async fn stage(&self, name: &str, body: &Bytes) -> io::Result<Staged> {
        self.ready.get_or_try_init(|| prepare(&self.root)).await?;
        let temp = Temp::write(&self.root, body).await?;
        let target = self.root.join(name);
        let folder = make_folders(&self.root, name).await?;
        Ok(Staged { temp, target, folder })
    }
}

impl Bucket for Local {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move {
            let work = async {
                let staged = self.stage(name, &body).await?;
                fs::rename(&staged.temp.path, &staged.target).await?;
                sync_folder(&staged.folder).await
            };
            work.await.map_err(|e| failed("put", &e))
        })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move {
            let work = async {
                let staged = self.stage(name, &body).await?;
                let won = staged.claim().await?;
                sync_folder(&staged.folder).await?;
                Ok(won)
            };
            work.await.map_err(|e: io::Error| failed("put_if_absent", &e))
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(async move {
            let path = self.root.join(name);
            read(&path).await.map_err(|e| failed("get", &e))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        Box::pin(async move { walk(&self.root, prefix).await })
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            match subfolders(&self.root.join(prefix)).await {
                Ok(folders) => Ok(folders),
                Err(e) if is_absent(&e) && !is_file(&self.root).await => Ok(Vec::new()),
                Err(e) => Err(failed("folders", &e)),
            }
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move {
            let path = self.root.join(name);
            let folder = path.parent().unwrap_or(&self.root);
            let gone = match fs::remove_file(&path).await {
                Ok(()) => sync_folder(folder).await,
                Err(e) if is_absent(&e) => Ok(()),
                Err(e) => Err(e),
            };
            gone.map_err(|e| failed("delete", &e))
        })
    }

    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }
}

/// A written object that waits for its name.
struct Staged {
    temp: Temp,
    target: PathBuf,
    folder: PathBuf,
}

impl Staged {
    /// Gives the object its name unless the name is taken; true if it was free.
    async fn claim(&self) -> io::Result<bool> {
        match fs::hard_link(&self.temp.path, &self.target).await {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) if has_no_hard_links(&e) => self.claim_empty().await,
            Err(e) => Err(e),
        }
    }

    /// For file systems without hard links: an empty file takes the name, then the object replaces
    /// it. A crash in between leaves the empty file.
    async fn claim_empty(&self) -> io::Result<bool> {
        match new_file(&self.target).await {
            Ok(_) => fs::rename(&self.temp.path, &self.target).await.map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// A file under a temporary name, which goes when this does, however the operation ends.
struct Temp {
    path: PathBuf,
}

impl Temp {
    async fn write(root: &Path, body: &Bytes) -> io::Result<Self> {
        let number = TEMP_NUMBER.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}-{number}", std::process::id(), since.as_nanos());
        let temp = Self { path: root.join(TEMP_FOLDER).join(name) };
        let mut file = new_file(&temp.path).await?;
        file.write_all(body).await?;
        file.flush().await?;
        file.sync_all().await?;
        let written = file.metadata().await?.len();
        if written != body.len() as u64 {
            let message = format!("wrote {} bytes, found {written}", body.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(temp)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After a rename nothing is left to remove, and what cannot be removed is swept a day later.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the root and sweeps what dead processes left.
async fn prepare(root: &Path) -> io::Result<()> {
    let temp = root.join(TEMP_FOLDER);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&temp).await?;
    let mut entries = fs::read_dir(&temp).await?;
    while let Some(entry) = entries.next_entry().await? {
        let changed = entry.metadata().await.and_then(|meta| meta.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > TEMP_AGE_MAX) {
            let _ = fs::remove_file(entry.path()).await;
        }
    }
    Ok(())
}

async fn new_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

/// Makes the folders of `name` one by one, each made durable, none a symbolic link.
async fn make_folders(root: &Path, name: &str) -> io::Result<PathBuf> {
    let mut folder = root.to_owned();
    let parts = name.rsplit_once('/').map_or("", |(folders, _)| folders);
    for part in parts.split('/').filter(|part| !part.is_empty()) {
        let parent = folder.clone();
        folder.push(part);
        match fs::DirBuilder::new().mode(0o700).create(&folder).await {
            Ok(()) => sync_folder(&parent).await?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&folder).await?.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(folder)
}

async fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder).await?.sync_all().await
}

async fn read(path: &Path) -> io::Result<Bytes> {
    // NONBLOCK: a named pipe that somebody put there must not hold us.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(flags.bits() as i32).open(path).await?;
    let meta = file.metadata().await?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if meta.len() > OBJECT_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut body = Vec::with_capacity(meta.len() as usize);
    file.take(OBJECT_BYTES_MAX).read_to_end(&mut body).await?;
    Ok(body.into())
}

/// All regular files below the folder of `prefix`; names that begin with a dot are not ours.
async fn walk(root: &Path, prefix: &str) -> Result<Vec<Listed>, BucketError> {
    let top = prefix.rsplit_once('/').map_or("", |(folders, _)| folders);
    let mut found = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        match read_folder(root, &folder, prefix, &mut folders, &mut found).await {
            Ok(()) => {}
            // A folder may vanish while we walk, and a bucket that nothing was put in has none.
            Err(e) if is_absent(&e) && (folder != top || !is_file(root).await) => {}
            Err(e) => return Err(failed("list", &e)),
        }
        if found.len() > LISTED_MAX {
            let message = format!("more than {LISTED_MAX} objects: list a narrower prefix");
            return Err(BucketError::new(BucketErrorKind::Other, message));
        }
    }
    Ok(found)
}

async fn read_folder(
    root: &Path,
    folder: &str,
    prefix: &str,
    folders: &mut Vec<String>,
    found: &mut Vec<Listed>,
) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(folder)).await?;
    while let Some(entry) = entries.next_entry().await? {
        let Some(part) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if part.starts_with('.') {
            continue;
        }
        let name = if folder.is_empty() { part } else { format!("{folder}/{part}") };
        let kind = entry.file_type().await?;
        if kind.is_dir() && (name.starts_with(prefix) || prefix.starts_with(&name)) {
            folders.push(name);
        } else if kind.is_file() && name.starts_with(prefix) {
            match entry.metadata().await {
                Ok(meta) => found.push(Listed { name, bytes: meta.len() }),
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// The names of the folders in `folder`; links are none.
async fn subfolders(folder: &Path) -> io::Result<Vec<String>> {
    let mut entries = fs::read_dir(folder).await?;
    let mut folders = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_type().await?.is_dir() {
            folders.extend(entry.file_name().to_str().map(str::to_owned));
        }
    }
    Ok(folders)
}

async fn is_file(path: &Path) -> bool {
    fs::metadata(path).await.is_ok_and(|meta| meta.is_file())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Linux answers EPERM where a file system has no hard links (FAT, some FUSE), others say so.
fn has_no_hard_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

fn failed(operation: &str, error: &io::Error) -> BucketError {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => BucketErrorKind::NotFound,
        Io::NotADirectory if operation == "get" => BucketErrorKind::NotFound,
        Io::AlreadyExists => BucketErrorKind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => BucketErrorKind::Denied,
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::FileTooLarge => {
            BucketErrorKind::Configuration
        }
        Io::InvalidData | Io::UnexpectedEof => BucketErrorKind::Integrity,
        Io::TimedOut => BucketErrorKind::Timeout,
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            BucketErrorKind::Denied
        }
        // Full disks, quotas, stale mounts and broken disks: the same write may pass later.
        _ => BucketErrorKind::Unavailable,
    };
    BucketError::new(kind, format!("{operation}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn bucket() -> (tempfile::TempDir, Local) {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().join("bucket"));
        (folder, local)
    }

    #[tokio::test]
    async fn files_are_private_and_nothing_unfinished_stays() {
        let (_folder, local) = bucket();
        local.put("a/b/c", Bytes::from_static(b"x")).await.unwrap();
        assert!(!local.put_if_absent("a/b/c", Bytes::from_static(b"y")).await.unwrap());
        let mode = |path: &str| {
            std::fs::metadata(local.root.join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode("a"), mode("a/b"), mode("a/b/c")), (0o700, 0o700, 0o700, 0o600));
        assert_eq!(std::fs::read_dir(local.root.join(TEMP_FOLDER)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn symbolic_links_are_not_followed() {
        let (folder, local) = bucket();
        local.put("a/x", Bytes::from_static(b"x")).await.unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), b"secret").unwrap();
        symlink(outside.join("secret"), local.root.join("a/leaf")).unwrap();
        symlink(&outside, local.root.join("a/dir")).unwrap();
        assert_eq!(local.get("a/leaf").await.unwrap_err().kind, BucketErrorKind::Denied);
        assert!(local.put("a/dir/y", Bytes::from_static(b"y")).await.is_err());
        assert!(!outside.join("y").exists());
        local.put("a/leaf", Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
        let names: Vec<_> = local.list("").await.unwrap().into_iter().map(|o| o.name).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_swept_and_what_is_young_stays() {
        let (_folder, local) = bucket();
        let temp = local.root.join(TEMP_FOLDER);
        std::fs::create_dir_all(&temp).unwrap();
        std::fs::write(temp.join("young"), b"").unwrap();
        let old = std::fs::File::create(temp.join("old")).unwrap();
        old.set_modified(SystemTime::now() - 2 * TEMP_AGE_MAX).unwrap();
        local.put("a", Bytes::new()).await.unwrap();
        assert!(temp.join("young").exists());
        assert!(!temp.join("old").exists());
    }

    #[tokio::test]
    async fn a_name_without_hard_links_is_still_claimed_once() {
        let (_folder, local) = bucket();
        let first = local.stage("a", &Bytes::from_static(b"1")).await.unwrap();
        let second = local.stage("a", &Bytes::from_static(b"2")).await.unwrap();
        assert!(first.claim_empty().await.unwrap());
        assert!(!second.claim_empty().await.unwrap());
        assert_eq!(local.get("a").await.unwrap(), "1");
    }

    #[tokio::test]
    async fn a_root_that_is_a_file_fails_and_is_not_an_empty_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let local = Local::new(path);
        assert!(local.put("a", Bytes::new()).await.is_err());
        assert_eq!(local.list("").await.unwrap_err().kind, BucketErrorKind::Configuration);
        assert!(local.folders("").await.is_err() && local.folders("a/").await.is_err());
    }
}
