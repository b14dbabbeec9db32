//! Who works on a unit: claims in the bucket, so that evaluators share the work without talking.
//!
//! A claim is an object that is written only where none is, and lasts for a minute unless renewed.
//! After a crash the next generation may be claimed. Claims save work; they are not what keeps scores
//! single (the names of the scores' objects do), so clocks that differ cost nothing but tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::unit::Unit;
use crate::bucket::{Bucket, BucketError};

/// How long a claim lasts.
const LEASE: Duration = Duration::from_secs(60);
/// It is renewed at this age.
const RENEW_AFTER: Duration = Duration::from_secs(20);

/// A unit that is ours for now.
pub(super) struct Claim {
    name: String,
    instance: Arc<str>,
    /// Claims of earlier generations, to be removed with this one.
    older: Vec<String>,
    renewed: Mutex<Instant>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    instance: String,
    until: Timestamp,
}

impl Claim {
    /// Claims a unit; `None` where another evaluator has it. A claim of our own name is one of an
    /// earlier run: instances have names of their own.
    pub(super) async fn take(
        bucket: &dyn Bucket,
        unit: &Unit,
        instance: &Arc<str>,
        now: Timestamp,
    ) -> Result<Option<Self>, BucketError> {
        let folder = unit.claims();
        let older: Vec<String> =
            bucket.list(&folder).await?.into_iter().map(|listed| listed.name).collect();
        let mut generation = 1;
        if let Some(last) = older.last() {
            if holds(bucket, last, instance, now).await? {
                return Ok(None);
            }
            let number = last.strip_prefix(&folder).and_then(|text| text.parse::<u32>().ok());
            generation = number.unwrap_or(0) + 1;
        }
        let name = format!("{folder}{generation:08}");
        let claimed = bucket.put_if_absent(&name, written(instance, now)).await?;
        crate::capture::failpoint::hit("claim_put");
        let (instance, renewed) = (Arc::clone(instance), Mutex::new(Instant::now()));
        Ok(claimed.then_some(Self { name, instance, older, renewed }))
    }

    /// Renews it where that is due. Failing costs at most that another does the work, too.
    pub(super) async fn renew(&self, bucket: &dyn Bucket, now: Timestamp) {
        {
            let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            if renewed.elapsed() < RENEW_AFTER {
                return;
            }
            *renewed = Instant::now();
        }
        if let Err(error) = bucket.put(&self.name, written(&self.instance, now)).await {
            tracing::debug!(claim = self.name, %error, "a claim could not be renewed");
        }
    }

    /// How often [`Self::renew`] wants to be called.
    pub(super) const fn renew_every() -> Duration {
        RENEW_AFTER
    }

    /// Lets go of the unit.
    pub(super) async fn release(&self, bucket: &dyn Bucket) {
        for name in self.older.iter().chain([&self.name]) {
            if let Err(error) = bucket.delete(name).await {
                tracing::debug!(claim = name, %error, "a claim stays until it expires");
            }
        }
    }
}

/// True where another evaluator's claim still lasts.
async fn holds(
    bucket: &dyn Bucket,
    name: &str,
    instance: &str,
    now: Timestamp,
) -> Result<bool, BucketError> {
    let body = match bucket.get(name).await {
        Err(error) if error.kind == crate::bucket::BucketErrorKind::NotFound => return Ok(false),
        body => body?,
    };
    // What cannot be read was never whole: nobody holds it.
    let claim = serde_json::from_slice::<Written>(&body).ok();
    Ok(claim.is_some_and(|claim| claim.until > now && claim.instance != instance))
}

fn written(instance: &str, now: Timestamp) -> Bytes {
    let until = now.checked_add(LEASE).unwrap_or(now);
    let claim = Written { instance: instance.to_owned(), until };
    Bytes::from(serde_json::to_vec(&claim).unwrap_or_default())
}
