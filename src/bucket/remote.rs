//! A bucket over a store of the object_store crate: what Azure and GCS share.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};

use super::answer::{self, chain};
use super::{Boxed, Bucket, BucketError, BucketErrorKind, LISTED_MAX, Listed, OBJECT_BYTES_MAX};

/// Connecting takes at most this long, or one attempt's limit if that is shorter.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Retries within one operation; the archive's own back-off does the rest.
const RETRIES_MAX: usize = 1;

/// A store of the object_store crate as a bucket.
pub(super) struct Remote {
    store: Box<dyn ObjectStore>,
    url: String,
}

impl Remote {
    /// `url` is what `describe` tells.
    pub(super) fn new(store: Box<dyn ObjectStore>, url: String) -> Self {
        Self { store, url }
    }

    async fn write(&self, operation: &str, name: &str, body: Bytes, mode: PutMode) -> Put {
        let path = path(operation, name)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&path, body.into(), options).await {
            Ok(put) if put.e_tag.as_deref().is_some_and(|tag| !tag.is_empty()) => Ok(true),
            Ok(_) => {
                let message = format!("{operation}: the answer has no ETag");
                Err(BucketError::new(BucketErrorKind::Integrity, message))
            }
            Err(error) if operation == "put_if_absent" && is_taken(&error) => Ok(false),
            Err(error) => Err(failed(operation, &error)),
        }
    }

    async fn read(&self, name: &str) -> Result<Bytes, BucketError> {
        let path = path("get", name)?;
        let got = self.store.get(&path).await.map_err(|e| failed("get", &e))?;
        let bytes = got.meta.size;
        if bytes > OBJECT_BYTES_MAX {
            let message = format!("get: object has more than {OBJECT_BYTES_MAX} bytes");
            return Err(BucketError::new(BucketErrorKind::Configuration, message));
        }
        let body = got.bytes().await.map_err(|e| failed("get", &e))?;
        if body.len() as u64 != bytes {
            let message = format!("get: {} bytes came, {bytes} were announced", body.len());
            return Err(BucketError::new(BucketErrorKind::Integrity, message));
        }
        Ok(body)
    }

    /// The crate lists folders, so the prefix's folder is asked for and the rest is filtered here.
    async fn pages(&self, prefix: &str) -> Result<Vec<Listed>, BucketError> {
        let folder = prefix.rsplit_once('/').map(|(folder, _)| path("list", folder)).transpose()?;
        let mut objects = self.store.list(folder.as_ref());
        let mut found = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(|e| failed("list", &e))? {
            let name = String::from(object.location);
            if name.starts_with(prefix) {
                found.push(Listed { name, bytes: object.size });
            }
            if found.len() > LISTED_MAX {
                let message = format!("more than {LISTED_MAX} objects: list a narrower prefix");
                return Err(BucketError::new(BucketErrorKind::Other, message));
            }
        }
        Ok(found)
    }
}

impl Bucket for Remote {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move {
            self.write("put", name, body, PutMode::Overwrite).await.map(|_written| ())
        })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(self.write("put_if_absent", name, body, PutMode::Create))
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(self.read(name))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        Box::pin(self.pages(prefix))
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            let folder =
                prefix.strip_suffix('/').map(|folder| path("folders", folder)).transpose()?;
            let listed = self.store.list_with_delimiter(folder.as_ref()).await;
            let listed = listed.map_err(|e| failed("folders", &e))?;
            let names = listed.common_prefixes.into_iter().map(String::from);
            Ok(names
                .filter_map(|name| {
                    name.strip_prefix(prefix).map(|n| n.trim_end_matches('/').to_owned())
                })
                .collect())
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move {
            let path = path("delete", name)?;
            match self.store.delete(&path).await.map_err(|e| failed("delete", &e)) {
                Err(absent) if absent.kind == BucketErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}

/// Time limits of one attempt; plain `http` only where the endpoint itself is.
pub(super) fn client(attempt_timeout: Duration, plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(attempt_timeout)
        .with_connect_timeout(attempt_timeout.min(CONNECT_TIMEOUT_MAX))
        .with_allow_http(plain)
}

/// One quick retry, within the operation's limit.
pub(super) fn retry(operation_timeout: Duration) -> RetryConfig {
    RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: operation_timeout,
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
    }
}

/// Whether the body was stored; false only for `put_if_absent`.
type Put = Result<bool, BucketError>;

fn path(operation: &str, name: &str) -> Result<Path, BucketError> {
    Path::parse(name).map_err(|_| {
        let message = format!("{operation}: the prefix has a part that the store cannot name");
        BucketError::new(BucketErrorKind::Configuration, message)
    })
}

/// GCS answers 412 where the name is taken, Azure 409 `BlobAlreadyExists`. Other conflicts, a container
/// that is being deleted for one, must not pass for a stored object.
fn is_taken(error: &object_store::Error) -> bool {
    match answered(error) {
        Some((412, _)) => true,
        Some((409, code)) => code.is_empty() || code == "BlobAlreadyExists",
        _ => false,
    }
}

/// The status and code of the store's answer. The crate keeps the types of these errors to itself, so
/// their texts are read: `Server returned non-2xx status code: 503 Service Unavailable: BODY`, and for
/// one of a batch of deletions `… (code: 403)`. The tests against real stores and scripted faults
/// notice if they are ever worded otherwise.
fn answered(error: &object_store::Error) -> Option<(u16, String)> {
    chain(error).map(ToString::to_string).find_map(|text| {
        if let Some((_, after)) = text.split_once("non-2xx status code: ") {
            return Some((after.get(..3)?.parse().ok()?, answer::code_in(after)));
        }
        let (_, after) = text.rsplit_once("(code: ")?;
        Some((after.strip_suffix(')')?.parse().ok()?, String::new()))
    })
}

/// Messages hold the status, the store's error code and the system's error at most: the crate's own
/// texts quote URLs and answers.
fn failed(operation: &str, error: &object_store::Error) -> BucketError {
    let (kind, what) = match answered(error) {
        Some((status, code)) => {
            let kind = match (status, code.as_str()) {
                (412, _) | (409, "BlobAlreadyExists") => BucketErrorKind::AlreadyExists,
                (status, code) => answer::kind(operation, status, code),
            };
            (kind, format!("status {status} {code}"))
        }
        None => kind_of_silence(error),
    };
    BucketError::new(kind, format!("{operation}: {what}"))
}

/// Errors without a status: connections, credentials, answers that make no sense.
fn kind_of_silence(error: &object_store::Error) -> (BucketErrorKind, String) {
    if let Some(http) = chain(error).find_map(|e| e.downcast_ref::<HttpError>()) {
        return match http.kind() {
            HttpErrorKind::Timeout => (BucketErrorKind::Timeout, "no answer in time".to_owned()),
            HttpErrorKind::Decode => (BucketErrorKind::Unavailable, "unusable answer".to_owned()),
            _ => answer::connection(http as &(dyn Error + 'static)),
        };
    }
    let unusable = |kind, what: &str| (kind, what.to_owned());
    match error {
        object_store::Error::NotFound { .. } => {
            unusable(BucketErrorKind::NotFound, "no such object")
        }
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            unusable(BucketErrorKind::Denied, "no permission")
        }
        object_store::Error::Generic { .. } => {
            unusable(BucketErrorKind::Unavailable, "unusable credentials or answer")
        }
        _ => unusable(BucketErrorKind::Other, "refused by the client"),
    }
}
