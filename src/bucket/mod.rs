//! (placeholder: built next door)
#![allow(missing_docs)]

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, BucketError>> + Send + 'a>>;

pub trait Bucket: Send + Sync {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()>;
    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool>;
    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes>;
    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>>;
    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()>;
    fn describe(&self) -> String;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketErrorKind {
    NotFound,
    Denied,
    Unavailable,
}

impl BucketErrorKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }

    pub fn is_transient(self) -> bool {
        self == Self::Unavailable
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}", kind.label())]
pub struct BucketError {
    pub kind: BucketErrorKind,
    pub message: String,
}

impl BucketError {
    pub fn new(kind: BucketErrorKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: message.as_ref().to_owned() }
    }
}
