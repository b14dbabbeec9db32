//! The bucket: where samples, rollups and the ledger end up. A folder, S3, Azure Blob or GCS, behind
//! one small trait, held to one conformance suite (`tests/it/bucket.rs`).
//!
//! Every bucket that leaves this room stands behind the guard (`guard`): it alone checks names, adds
//! the prefix and keeps the operation's time limit, so no backend can forget to. Opening never
//! touches the network: credentials and regions are looked up by the first operation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::config;

mod answer;
mod azure;
mod checked;
mod endpoint;
mod error;
mod gcs;
mod guard;
mod lines;
mod local;
mod remote;
mod renewed;
mod s3;

pub use error::{BucketError, BucketErrorKind};
pub use lines::{LineError, Lines};

use guard::Guard;
use renewed::Renewed;

/// The most bytes an object may have: 512 MiB, far above a segment, so that a foreign object cannot
/// fill the memory.
pub const OBJECT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The most objects one listing returns; past it the listing is refused rather than cut short.
pub const LISTED_MAX: usize = 1_000_000;

/// What the operations return: a boxed future, so that the trait can be a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, BucketError>> + Send + 'a>>;

/// A flat store of named objects.
///
/// Names are paths of our own ids: letters, digits, `=`, `.`, `_`, `-` and `/`, no segment empty or
/// beginning or ending with a dot, at most 512 bytes; any other name is refused with
/// [`BucketErrorKind::Configuration`] before anything is done. Every operation ends within the
/// operation timeout of the settings. A few quick retries may happen inside one operation; back-off
/// over minutes is the caller's.
pub trait Bucket: Send + Sync {
    /// Stores `body` under `name`, replacing what was there. `Ok` means that the store has confirmed
    /// the whole object: a folder has fsynced it, a remote store has answered with its ETag.
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()>;

    /// Like `put`, but only where nothing bears the name: of several writers exactly one gets
    /// `true`, the others `false`. After an error the object may still have been stored (the answer
    /// was lost), so the next attempt may get `false` for the writer's own object.
    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool>;

    /// The whole object, at most [`OBJECT_BYTES_MAX`].
    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes>;

    /// All objects whose names begin with `prefix`, sorted by name, at most [`LISTED_MAX`]. The
    /// prefix is text: `a/b` finds `a/b/c` and `a/bc`. What has no valid name is left out.
    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>>;

    /// The folders directly below `prefix`, by their own names, sorted: `a/` finds `b` where there is
    /// `a/b/c`. The prefix is empty or ends with a slash; at most [`LISTED_MAX`]. Stores that can tell
    /// folders without listing all that is in them do.
    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            let listed = self.list(prefix).await?;
            let rest = listed.iter().filter_map(|object| object.name.strip_prefix(prefix));
            let mut folders: Vec<_> =
                rest.filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect();
            folders.dedup();
            Ok(folders)
        })
    }

    /// Removes the object; that there is none is no error.
    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()>;

    /// The bucket's URL, without secrets.
    fn describe(&self) -> String;
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name, as the other operations take it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Opens the bucket that the settings name. Reads files and environment at most; the network is
/// first touched by the first operation. Errors are settings that can never work.
pub async fn open(settings: &config::Bucket) -> Result<Arc<dyn Bucket>, BucketError> {
    let (store, prefix): (Box<dyn Bucket>, &str) = match &settings.store {
        config::BucketStore::Local { path } => (Box::new(local::Local::new(path.clone())), ""),
        config::BucketStore::S3(s3) => (Box::new(Renewed::open(settings)?), &s3.prefix),
        config::BucketStore::Azure(azure) => (Box::new(Renewed::open(settings)?), &azure.prefix),
        config::BucketStore::Gcs(gcs) => (Box::new(Renewed::open(settings)?), &gcs.prefix),
    };
    Ok(Arc::new(Guard::new(store, prefix, settings.operation_timeout)))
}

/// A store with the credentials of `settings`, and of files and environment as they are now.
fn open_remote(settings: &config::Bucket) -> Result<Arc<dyn Bucket>, BucketError> {
    let (attempt, operation) = (settings.attempt_timeout, settings.operation_timeout);
    Ok(match &settings.store {
        config::BucketStore::Local { path } => Arc::new(local::Local::new(path.clone())),
        config::BucketStore::S3(s3) => {
            endpoint::check(s3.endpoint.as_deref())?;
            Arc::new(s3::S3::new(s3.clone(), attempt, operation))
        }
        config::BucketStore::Azure(azure) => {
            endpoint::check(azure.endpoint.as_deref())?;
            Arc::new(azure::open(azure, attempt, operation)?)
        }
        config::BucketStore::Gcs(gcs) => {
            endpoint::check(gcs.endpoint.as_deref())?;
            Arc::new(gcs::open(gcs, attempt, operation)?)
        }
    })
}
