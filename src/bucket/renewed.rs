//! A remote store whose credentials are mended while we run: once it refuses those that we have, it is
//! opened anew with what files and environment hold by then. A key that is replaced on disk needs no restart.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::{Boxed, Bucket, BucketError, BucketErrorKind, Listed, open_remote};
use crate::config;

/// The store as it was opened last.
pub(super) struct Renewed {
    settings: config::Bucket,
    store: RwLock<Arc<dyn Bucket>>,
}

impl Renewed {
    /// Opens the store that the settings name. Errors are settings that can never work.
    pub(super) fn open(settings: &config::Bucket) -> Result<Self, BucketError> {
        let store = RwLock::new(open_remote(settings)?);
        Ok(Self { settings: settings.clone(), store })
    }

    fn store(&self) -> Arc<dyn Bucket> {
        Arc::clone(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes on what came of an operation. After a refusal, which whoever tries again waits long for, the
    /// next one has a store of its own; where that cannot be opened, the one there was.
    fn heed<T>(&self, outcome: Result<T, BucketError>) -> Result<T, BucketError> {
        if outcome.as_ref().is_err_and(refuses_us)
            && let Ok(fresh) = open_remote(&self.settings.with_secrets_of_now())
        {
            *self.store.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        outcome
    }
}

/// True where other credentials may help; some stores say so of those that nobody gave.
fn refuses_us(error: &BucketError) -> bool {
    matches!(error.kind, BucketErrorKind::Denied | BucketErrorKind::Configuration)
}

impl Bucket for Renewed {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move { self.heed(self.store().put(name, body).await) })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move { self.heed(self.store().put_if_absent(name, body).await) })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(async move { self.heed(self.store().get(name).await) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        Box::pin(async move { self.heed(self.store().list(prefix).await) })
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(async move { self.heed(self.store().folders(prefix).await) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move { self.heed(self.store().delete(name).await) })
    }

    fn describe(&self) -> String {
        self.store().describe()
    }
}
