//! Scores that were stored of the recorded answers.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::pick::{Picked, each_line};
use crate::bucket::{Bucket, BucketError, BucketErrorKind};
use crate::domain::{Dataset, ExchangeId, Score};
use crate::ledger::Hour;

/// By exchange; the newest first.
pub(super) type Known = HashMap<ExchangeId, Vec<Score>>;

/// What judges said of the picked requests' answers: their scores lie in folders of the same hours.
pub(super) async fn known(bucket: &dyn Bucket, picked: &Picked) -> Result<Known, BucketError> {
    let folder = |name: &str| Some(name.split_once('/')?.1.rsplit_once('/')?.0.to_owned());
    let folders: BTreeSet<String> = picked.lines.keys().filter_map(|name| folder(name)).collect();
    let mut known = Known::new();
    for folder in folders {
        let prefix = format!("{}/{folder}/", Dataset::Scores.label());
        for listed in bucket.list(&prefix).await? {
            if Hour::in_name(&listed.name).is_none() {
                continue;
            }
            let body = match bucket.get(&listed.name).await {
                Ok(body) => body,
                Err(error) if error.kind == BucketErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // What cannot be read is judged again.
            let _whole = each_line(&body, |line, _| {
                let score = serde_json::from_slice::<Score>(line).ok();
                let score = score.filter(|score| picked.ids.contains(&score.exchange));
                if let Some(score) = score.filter(|score| score.judge.is_some()) {
                    known.entry(score.exchange).or_default().push(score);
                }
            });
        }
    }
    known.values_mut().for_each(|scores| scores.sort_by_key(|score| Reverse(score.time)));
    Ok(known)
}
