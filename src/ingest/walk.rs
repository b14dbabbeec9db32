//! Through the bucket's folders, a day or an hour at a time, so that no listing is large.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Ingest, IngestError};
use crate::bucket::Listed;
use crate::domain::Dataset;
use crate::ledger::Hour;

/// How far back a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// This hour, the one before and the one after: clocks differ.
    Hours,
    /// Today, yesterday and tomorrow.
    Days,
    /// Everything that is kept.
    All,
}

/// Datasets whose folders are first named by the same thing, in the order in which they are read: what
/// refers to a sample comes after it.
struct Shelf {
    key: &'static str,
    datasets: &'static [Dataset],
}

const SHELVES: [Shelf; 2] = [
    Shelf {
        key: "deployment=",
        datasets: &[Dataset::Exchanges, Dataset::Usage, Dataset::Scores, Dataset::Traces],
    },
    Shelf { key: "monitor=", datasets: &[Dataset::Monitors] },
];

impl Ingest {
    /// Reads what is new within `reach`, and what may have changed of the ledger where `ledger` says so.
    pub(super) async fn walk(
        &mut self,
        reach: Reach,
        ledger: bool,
        now: Timestamp,
    ) -> Result<(), IngestError> {
        let horizon = self.store.horizon()?;
        for shelf in &SHELVES {
            let tops = self.folders(shelf, "").await?;
            for top in tops.iter().filter(|top| top.starts_with(shelf.key)) {
                let folders = match reach {
                    Reach::All => self.folders(shelf, &format!("{top}/")).await?,
                    reach => recent(reach, now),
                };
                for folder in folders.iter().filter(|folder| is_kept(folder, horizon)) {
                    self.walk_folder(shelf, &format!("{top}/{folder}/"), horizon).await?;
                }
            }
        }
        if ledger {
            let dates = match reach {
                Reach::All => self.bucket.folders("ledger/").await?.into_iter().collect(),
                reach => recent(reach, now),
            };
            for date in dates.iter().filter(|date| is_kept(date, horizon)) {
                self.walk_ledger(date, horizon).await?;
            }
        }
        Ok(())
    }

    /// The folders below `path` in any of a shelf's datasets.
    async fn folders(&self, shelf: &Shelf, path: &str) -> Result<BTreeSet<String>, IngestError> {
        let mut folders = BTreeSet::new();
        for dataset in shelf.datasets {
            let prefix = format!("{}/{path}", dataset.label());
            folders.extend(self.bucket.folders(&prefix).await?);
        }
        Ok(folders)
    }

    /// One day or hour of a shelf.
    async fn walk_folder(
        &self,
        shelf: &Shelf,
        path: &str,
        horizon: Timestamp,
    ) -> Result<(), IngestError> {
        let mut listings = Vec::new();
        // The last ones are listed first: what they refer to was in the bucket before them.
        for dataset in shelf.datasets.iter().rev() {
            let prefix = format!("{}/{path}", dataset.label());
            let listed = self.bucket.list(&prefix).await?;
            if !listed.is_empty() {
                listings.push((*dataset, prefix, listed));
            }
        }
        for (dataset, prefix, listed) in listings.into_iter().rev() {
            let known = self.store.known(&prefix)?;
            let is_new = |object: &Listed| {
                let read = known.get(&object.name);
                let whole = read.is_some_and(|read| read.whole && read.bytes == object.bytes);
                !whole && is_kept_hour(&object.name, horizon)
            };
            let new = listed.into_iter().filter(is_new).collect();
            self.read_all(dataset, new).await?;
        }
        Ok(())
    }

    /// One day or hour of the ledger: what is new, or may still change.
    async fn walk_ledger(&self, folder: &str, horizon: Timestamp) -> Result<(), IngestError> {
        let prefix = format!("{}/{folder}/", Dataset::Ledger.label());
        let listed = self.bucket.list(&prefix).await?;
        let (known, unsettled) = (self.store.known(&prefix)?, self.store.unsettled(&prefix)?);
        let is_due = |object: &Listed| {
            let read = known.get(&object.name).is_some_and(|read| read.bytes == object.bytes);
            (!read || unsettled.contains(&object.name)) && is_kept_hour(&object.name, horizon)
        };
        self.read_all(Dataset::Ledger, listed.into_iter().filter(is_due).collect()).await
    }
}

/// The folders below a deployment that new objects come to.
fn recent(reach: Reach, now: Timestamp) -> BTreeSet<String> {
    let (step, days) = match reach {
        Reach::Hours => (SignedDuration::from_hours(1), false),
        Reach::Days | Reach::All => (SignedDuration::from_hours(24), true),
    };
    let moments = [-1, 0, 1].map(|n| now.checked_add(step * n).unwrap_or(now));
    let folders = moments.map(|at| Hour::of(at).partition());
    let day = |folder: String| folder.split('/').next().unwrap_or_default().to_owned();
    folders.into_iter().map(|folder| if days { day(folder) } else { folder }).collect()
}

/// Whether a folder that begins with `date=…` is one, and holds anything that is kept.
fn is_kept(folder: &str, horizon: Timestamp) -> bool {
    let last = Hour::in_name(&format!("{}/hour=23", folder.split('/').next().unwrap_or_default()));
    last.is_some_and(|last| last >= Hour::of(horizon))
}

fn is_kept_hour(name: &str, horizon: Timestamp) -> bool {
    Hour::in_name(name).is_none_or(|hour| hour >= Hour::of(horizon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_folders_span_midnight() {
        let now: Timestamp = "2026-11-23T00:10:00Z".parse().expect("a time");
        let hours = recent(Reach::Hours, now).into_iter().collect::<Vec<_>>();
        assert_eq!(
            hours,
            ["date=2026-11-22/hour=23", "date=2026-11-23/hour=00", "date=2026-11-23/hour=01"]
        );
        let days = recent(Reach::Days, now).into_iter().collect::<Vec<_>>();
        assert_eq!(days, ["date=2026-11-22", "date=2026-11-23", "date=2026-11-24"]);
    }

    #[test]
    fn what_lies_before_the_horizon_is_not_looked_at() {
        let horizon: Timestamp = "2026-11-23T22:00:00Z".parse().expect("a time");
        assert!(is_kept("date=2026-11-23", horizon) && is_kept("date=2026-11-24/hour=01", horizon));
        assert!(!is_kept("date=2026-11-22", horizon) && !is_kept("date=x", horizon));
        let name = |hour| format!("usage/deployment=a/date=2026-11-23/hour={hour}/x.jsonl.gz");
        assert!(is_kept_hour(&name("22"), horizon) && !is_kept_hour(&name("21"), horizon));
    }
}
