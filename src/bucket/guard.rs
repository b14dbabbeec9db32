//! What stands before every backend: names are checked, the prefix is added and taken off, sizes are
//! bounded, and every operation ends in time.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::{Boxed, Bucket, BucketError, BucketErrorKind, Listed, OBJECT_BYTES_MAX};

/// The longest name, in bytes. S3 takes keys of 1,024 bytes, Azure 1,024 characters, GCS 1,024 bytes:
/// this leaves room for the prefix.
const NAME_BYTES_MAX: usize = 512;

/// The longest part of a name between slashes, in bytes: file systems take 255.
const SEGMENT_BYTES_MAX: usize = 200;

/// A backend behind the checks.
pub(super) struct Guard {
    store: Box<dyn Bucket>,
    /// Empty, or ending with a slash.
    prefix: String,
    operation_timeout: Duration,
}

impl Guard {
    /// Puts `store` behind the checks. `prefix` comes without slashes at its ends.
    pub(super) fn new(store: Box<dyn Bucket>, prefix: &str, operation_timeout: Duration) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { store, prefix, operation_timeout }
    }

    fn key(&self, name: &str) -> Result<String, BucketError> {
        check(name, Whole::Yes)?;
        Ok(format!("{}{name}", self.prefix))
    }

    async fn within<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let limit = self.operation_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let message = format!("{operation} took longer than {limit:?}");
            Err(BucketError::new(BucketErrorKind::Timeout, message))
        })
    }

    fn strip(&self, listed: Vec<Listed>, prefix: &str) -> Vec<Listed> {
        let names = listed.into_iter().filter_map(|object| {
            let name = object.name.strip_prefix(&self.prefix)?;
            let ours = name.starts_with(prefix) && check(name, Whole::Yes).is_ok();
            ours.then(|| Listed { name: name.to_owned(), bytes: object.bytes })
        });
        let mut names: Vec<Listed> = names.collect();
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        names
    }
}

impl Bucket for Guard {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move {
            let key = self.key(name)?;
            check_size(body.len())?;
            self.within("put", self.store.put(&key, body)).await
        })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move {
            let key = self.key(name)?;
            check_size(body.len())?;
            self.within("put_if_absent", self.store.put_if_absent(&key, body)).await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(async move {
            let key = self.key(name)?;
            self.within("get", self.store.get(&key)).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        Box::pin(async move {
            check(prefix, Whole::No)?;
            let key = format!("{}{prefix}", self.prefix);
            let listed = self.within("list", self.store.list(&key)).await?;
            Ok(self.strip(listed, prefix))
        })
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            check(prefix, Whole::No)?;
            if !prefix.is_empty() && !prefix.ends_with('/') {
                let message = "folders: the prefix does not end with a slash";
                return Err(BucketError::new(BucketErrorKind::Configuration, message));
            }
            let key = format!("{}{prefix}", self.prefix);
            let mut folders = self.within("folders", self.store.folders(&key)).await?;
            folders.retain(|folder| check(folder, Whole::Yes).is_ok());
            folders.sort_unstable();
            folders.dedup();
            Ok(folders)
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move {
            let key = self.key(name)?;
            self.within("delete", self.store.delete(&key)).await
        })
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// Whether a text is a whole name, or only its beginning.
#[derive(Clone, Copy, PartialEq)]
enum Whole {
    Yes,
    No,
}

/// The rule for names, in one place: hostile names never reach a path or a URL.
fn check(name: &str, whole: Whole) -> Result<(), BucketError> {
    let refuse = |why: &str| {
        Err(BucketError::new(BucketErrorKind::Configuration, format!("name refused: {why}")))
    };
    if name.is_empty() {
        return if whole == Whole::Yes { refuse("empty") } else { Ok(()) };
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("longer than 512 bytes");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"=._/-".contains(&b)) {
        return refuse("has characters other than letters, digits, '=', '.', '_', '-' and '/'");
    }
    if name.contains("..") {
        return refuse("has two dots in a row");
    }
    let mut segments: Vec<&str> = name.split('/').collect();
    let last = if whole == Whole::No { segments.pop() } else { None };
    if segments.iter().any(|part| part.is_empty() || part.starts_with('.') || part.ends_with('.')) {
        return refuse("has a part that is empty or begins or ends with a dot");
    }
    if last.is_some_and(|part| part.starts_with('.')) {
        return refuse("has a part that begins with a dot");
    }
    if segments.iter().any(|part| part.len() > SEGMENT_BYTES_MAX) {
        return refuse("has a part longer than 200 bytes");
    }
    Ok(())
}

fn check_size(bytes: usize) -> Result<(), BucketError> {
    if bytes as u64 > OBJECT_BYTES_MAX {
        let message = format!("object of {bytes} bytes refused: more than {OBJECT_BYTES_MAX}");
        return Err(BucketError::new(BucketErrorKind::Configuration, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_our_own_ids_pass() {
        for name in [
            "a",
            "exchanges/deployment=blue/date=2026-11-23/hour=22/pod-7f_1-000001.jsonl.gz",
            "A.b/C-d_e=f",
        ] {
            assert!(check(name, Whole::Yes).is_ok(), "{name}");
        }
        for prefix in ["", "a", "a/", "exchanges/deployment=bl", "a/b."] {
            assert!(check(prefix, Whole::No).is_ok(), "{prefix}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "a/".repeat(256) + "a";
        let wide = "a".repeat(201);
        for name in [
            "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", "./a", "a/.", ".hidden",
            "a/.tmp/b", "a./b", "a\\b", "a\0b", "a b", "a?b", "a%2e", "ä", "con:", "a\n", "a..b",
            &long, &wide,
        ] {
            let error = check(name, Whole::Yes).unwrap_err();
            assert_eq!(error.kind, BucketErrorKind::Configuration, "{name}");
        }
        for prefix in ["/", "a//", "../", ".", "a/.tmp", "a\0", "a/../"] {
            assert!(check(prefix, Whole::No).is_err(), "{prefix}");
        }
    }

    #[test]
    fn only_bodies_of_a_bounded_size_pass() {
        assert!(check_size(OBJECT_BYTES_MAX as usize).is_ok());
        assert!(check_size(OBJECT_BYTES_MAX as usize + 1).is_err());
    }
}
