//! Which recorded requests are sent: those that are wanted, and of more than the limit a simple random
//! part. The random bits of their ids decide, so that the same bucket gives the same requests again,
//! and every request has the same chance: the weights `1 / probability` stay what they are.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::recorded::{Recorded, Skip, Wanted};
use crate::bucket::{Bucket, BucketError, BucketErrorKind, LineError, Lines};
use crate::domain::{Dataset, ExchangeId};
use crate::ledger::Hour;

/// What lies in the bucket of what is wanted.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// Numbers of lines, counted from 0, by object.
    pub(super) lines: BTreeMap<String, BTreeSet<u64>>,
    /// The ids of those lines.
    pub(super) ids: BTreeSet<ExchangeId>,
    /// Requests that could be sent, those beyond the limit among them.
    pub(super) found: u64,
    /// Lines that cannot, by why.
    pub(super) skipped: BTreeMap<Skip, u64>,
    /// Objects that could not be read to their end.
    pub(super) damaged: u64,
}

/// A request that may be sent. Sorts by the random part of its id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    chance: [u8; 10],
    object: usize,
    line: u64,
    id: ExchangeId,
}

/// Looks through the bucket. Memory holds one object, and a few bytes for each of `limit` requests.
pub(super) async fn pick(
    bucket: &dyn Bucket,
    wanted: &Wanted,
    limit: usize,
) -> Result<Picked, BucketError> {
    let mut picked = Picked::default();
    let mut chosen: BinaryHeap<Candidate> = BinaryHeap::new();
    let objects = objects(bucket, wanted).await?;
    for (object, name) in objects.iter().enumerate() {
        let body = match bucket.get(name).await {
            Ok(body) => body,
            // Its time to be kept was over since it was listed.
            Err(error) if error.kind == BucketErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let whole = each_line(&body, |line, number| match Recorded::parse(line, wanted) {
            Ok(recorded) => {
                picked.found += 1;
                let (id, chance) = (recorded.id, chance(recorded.id));
                chosen.push(Candidate { chance, object, line: number, id });
                if chosen.len() > limit {
                    chosen.pop();
                }
            }
            Err(why) => *picked.skipped.entry(why).or_default() += 1,
        });
        if !whole {
            picked.damaged += 1;
            tracing::warn!(name, "an object cannot be read to its end");
        }
    }
    for Candidate { object, line, id, .. } in chosen {
        if let Some(name) = objects.get(object) {
            picked.lines.entry(name.clone()).or_default().insert(line);
            picked.ids.insert(id);
        }
    }
    Ok(picked)
}

/// Hands each line and its number to `take`; false where the object is damaged.
pub(super) fn each_line(body: &[u8], mut take: impl FnMut(&[u8], u64)) -> bool {
    let (mut lines, mut number) = (Lines::of(body), 0);
    loop {
        match lines.next() {
            Ok(Some(b"")) => {}
            Ok(Some(line)) => take(line, number),
            Ok(None) => return true,
            Err(LineError::TooLong) => {}
            Err(LineError::Damaged) => return false,
        }
        number += 1;
    }
}

/// The objects that may hold what is wanted, from the oldest hour on.
async fn objects(bucket: &dyn Bucket, wanted: &Wanted) -> Result<Vec<String>, BucketError> {
    let listed = bucket.list(&format!("{}/", Dataset::Exchanges.label())).await?;
    let folder = wanted.deployment.as_ref().map(|of| format!("/deployment={of}/"));
    let within = |name: &String| {
        let Some(hour) = Hour::in_name(name) else { return false };
        let early = wanted.from.is_some_and(|from| hour < Hour::of(from));
        let late = wanted.until.is_some_and(|until| hour.start() >= until);
        let elsewhere = folder.as_ref().is_some_and(|folder| !name.contains(folder));
        !(early || late || elsewhere)
    };
    let mut names: Vec<_> = listed.into_iter().map(|object| object.name).filter(within).collect();
    names.sort_by_key(|name| Hour::in_name(name));
    Ok(names)
}

/// The 80 random bits of an id (<https://github.com/ulid/spec>).
fn chance(id: ExchangeId) -> [u8; 10] {
    let bytes = id.to_bytes();
    std::array::from_fn(|at| bytes.get(at + 6).copied().unwrap_or_default())
}
