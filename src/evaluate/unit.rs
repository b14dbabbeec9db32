//! The unit of work: one object of `exchanges/`, in parts of 32 lines. The scores of a part become one
//! object of `scores/` whose name follows from the part's, written only where none is: so however
//! often a part is judged, by however many evaluators, its scores are stored exactly once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use crate::bucket::{Bucket, BucketError};

/// Lines of one part: what a crash lets be judged again at most, for each part under way.
pub(super) const PART_LINES: usize = 32;

const EXCHANGES: &str = "exchanges/";
const SCORES: &str = "scores/";
const ENDING: &str = ".jsonl.gz";
/// Parts without any score have a mark here instead of an empty object among the scores.
const EMPTY: &str = "evaluator/empty/";
/// Arrivals are looked back on for so long.
const DAY: Duration = Duration::from_secs(86_400);
/// Who works on what.
const CLAIMS: &str = "evaluator/claims/";

/// An object of samples: `deployment=D/date=Y-M-D/hour=H/NAME`, between `exchanges/` and `.jsonl.gz`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Unit {
    path: String,
}

impl Unit {
    /// The unit of an object's name; `None` where it is none of ours.
    pub(super) fn of_object(name: &str) -> Option<Self> {
        let path = name.strip_prefix(EXCHANGES)?.strip_suffix(ENDING)?;
        let unit = Self { path: path.to_owned() };
        unit.hour().map(|_| unit)
    }

    /// The object that holds its samples.
    pub(super) fn object(&self) -> String {
        format!("{EXCHANGES}{}{ENDING}", self.path)
    }

    /// The object for the scores of part `part` of `parts`, counted from 1.
    pub(super) fn scores(&self, part: usize, parts: usize) -> String {
        format!("{SCORES}{}-{part:06}of{parts:06}{ENDING}", self.path)
    }

    /// The mark of a part without scores.
    pub(super) fn empty(&self, part: usize, parts: usize) -> String {
        format!("{EMPTY}{}-{part:06}of{parts:06}{ENDING}", self.path)
    }

    /// Where its claims lie.
    pub(super) fn claims(&self) -> String {
        format!("{CLAIMS}{}/", self.path)
    }

    /// The deployment of its samples.
    pub(super) fn deployment(&self) -> &str {
        let folder = self.path.split('/').next().unwrap_or_default();
        folder.strip_prefix("deployment=").unwrap_or(folder)
    }

    /// Not later than its oldest sample: the hour of its folder, or the start of the run that wrote
    /// it where that was later.
    pub(super) fn not_before(&self) -> Timestamp {
        let run = self.path.rsplit('-').nth(1).filter(|run| run.len() == 16);
        let started = run.and_then(|run| u64::from_str_radix(run, 16).ok());
        let started = started.and_then(|id| Timestamp::from_millisecond((id >> 16) as i64).ok());
        let hour = self.hour().unwrap_or(Timestamp::UNIX_EPOCH);
        let within = |at: &Timestamp| *at >= hour && at.duration_since(hour).as_secs() < 3600;
        started.filter(within).unwrap_or(hour)
    }

    fn hour(&self) -> Option<Timestamp> {
        let mut parts = self.path.split('/');
        let (_deployment, date) = (parts.next()?, parts.next()?.strip_prefix("date=")?);
        let hour = parts.next()?.strip_prefix("hour=")?;
        let name = parts.next().filter(|name| !name.is_empty() && parts.next().is_none())?;
        let time = format!("{date}T{hour}:00:00Z").parse().ok()?;
        (!name.contains("..")).then_some(time)
    }

    /// The parts of this unit that are done already.
    pub(super) async fn done(&self, bucket: &dyn Bucket) -> Result<BTreeSet<usize>, BucketError> {
        let mut done = BTreeSet::new();
        for folder in [SCORES, EMPTY] {
            for listed in bucket.list(&format!("{folder}{}-", self.path)).await? {
                let part = part_of(&listed.name, folder).filter(|part| part.path == self.path);
                done.extend(part.map(|part| part.part));
            }
        }
        Ok(done)
    }
}

/// A done part, as its object's name tells.
struct DonePart<'a> {
    path: &'a str,
    part: usize,
    parts: usize,
}

fn part_of<'a>(name: &'a str, folder: &str) -> Option<DonePart<'a>> {
    let (path, which) = name.strip_prefix(folder)?.strip_suffix(ENDING)?.rsplit_once('-')?;
    let (part, parts) = which.split_once("of")?;
    let number = |text: &str| text.parse().ok().filter(|_| text.len() >= 6);
    Some(DonePart { path, part: number(part)?, parts: number(parts)? })
}

/// What a look through the bucket found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Units without all their scores: the deployments take turns, each from its oldest on.
    pub(super) waiting: VecDeque<Unit>,
    /// Their sizes in bytes.
    pub(super) sizes: HashMap<Unit, u64>,
    /// Bytes of each deployment's objects of the last day, judged or not.
    pub(super) recent: BTreeMap<String, u64>,
    /// Units without all their scores that are older than the lookback.
    pub(super) too_old: u64,
}

/// Looks for samples without scores that are not older than `lookback`.
pub(super) async fn survey(
    bucket: &dyn Bucket,
    now: Timestamp,
    lookback: Duration,
) -> Result<Survey, BucketError> {
    // Scores before samples: what is scored in between is found waiting, and then found done.
    let exchanges = bucket.list(EXCHANGES).await?;
    let (scores, empty) = (bucket.list(SCORES).await?, bucket.list(EMPTY).await?);
    let mut done: HashMap<&str, usize> = HashMap::new();
    let parts = scores.iter().filter_map(|listed| part_of(&listed.name, SCORES));
    for part in parts.chain(empty.iter().filter_map(|listed| part_of(&listed.name, EMPTY))) {
        let left = done.entry(part.path).or_insert(part.parts);
        *left = left.saturating_sub(1);
    }
    let oldest = now.checked_sub(lookback).unwrap_or(Timestamp::UNIX_EPOCH);
    let day_ago = now.checked_sub(DAY).unwrap_or(Timestamp::UNIX_EPOCH);
    let (mut found, mut too_old) = (Vec::new(), 0);
    let (mut sizes, mut recent) = (HashMap::new(), BTreeMap::<String, u64>::new());
    for listed in &exchanges {
        let Some(unit) = Unit::of_object(&listed.name) else { continue };
        if unit.not_before() >= day_ago {
            let bytes = recent.entry(unit.deployment().to_owned()).or_default();
            *bytes = bytes.saturating_add(listed.bytes);
        }
        // The last samples of an hour are an hour younger than its beginning.
        let youngest = unit.not_before().checked_add(Duration::from_secs(3600));
        match done.get(unit.path.as_str()) {
            Some(0) => {}
            _ if youngest.is_ok_and(|at| at < oldest) => too_old += 1,
            _ => {
                sizes.insert(unit.clone(), listed.bytes);
                found.push(unit);
            }
        }
    }
    Ok(Survey { waiting: in_turn(found), sizes, recent, too_old })
}

/// One unit of each deployment after the other, each deployment from its oldest on.
fn in_turn(units: Vec<Unit>) -> VecDeque<Unit> {
    let mut lanes: BTreeMap<String, Vec<Unit>> = BTreeMap::new();
    for unit in units {
        lanes.entry(unit.deployment().to_owned()).or_default().push(unit);
    }
    let mut placed: Vec<(usize, Unit)> = Vec::new();
    for mut lane in lanes.into_values() {
        lane.sort_by_key(|unit| (unit.not_before(), unit.path.clone()));
        placed.extend(lane.into_iter().enumerate());
    }
    placed.sort_by_key(|(turn, _)| *turn);
    placed.into_iter().map(|(_, unit)| unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Unit {
        Unit::of_object(&format!("exchanges/{path}.jsonl.gz")).expect("a unit")
    }

    #[test]
    fn names_lead_to_and_fro() {
        let unit = unit("deployment=blue/date=2026-11-23/hour=22/pod-7f-019ac2f3b5000000-00000003");
        let scores = unit.scores(2, 10);
        assert_eq!(
            scores,
            "scores/deployment=blue/date=2026-11-23/hour=22/pod-7f-019ac2f3b5000000-00000003-000002of000010.jsonl.gz"
        );
        let part = part_of(&scores, SCORES).expect("a part");
        assert_eq!((part.path, part.part, part.parts), (unit.path.as_str(), 2, 10));
        assert_eq!(unit.deployment(), "blue");
        for strange in [
            "scores/deployment=blue/date=2026-11-23/hour=22/pod-019ac2f3b5000000-00000003.jsonl.gz",
            "scores/x.jsonl.gz",
            "scores/a-1of2.jsonl.gz",
        ] {
            assert!(part_of(strange, SCORES).is_none(), "{strange}");
        }
        for strange in
            ["exchanges/x.jsonl.gz", "exchanges/deployment=a/date=x/hour=1/y.jsonl.gz", "usage/a"]
        {
            assert!(Unit::of_object(strange).is_none(), "{strange}");
        }
    }

    #[test]
    fn a_unit_is_as_old_as_its_hour_or_its_run() {
        let started: Timestamp = "2026-11-23T22:30:00Z".parse().expect("a time");
        let run = format!("{:016x}", (started.as_millisecond() as u64) << 16);
        let path =
            |hour: &str| format!("deployment=a/date=2026-11-23/hour={hour}/i-{run}-00000001");
        assert_eq!(unit(&path("22")).not_before(), started);
        assert_eq!(unit(&path("23")).not_before().to_string(), "2026-11-23T23:00:00Z");
    }

    #[test]
    fn deployments_take_turns() {
        let path = |deployment: &str, hour: u8| {
            unit(&format!("deployment={deployment}/date=2026-11-23/hour={hour:02}/a"))
        };
        let turns = in_turn(vec![path("a", 3), path("a", 1), path("a", 2), path("b", 9)]);
        assert_eq!(turns, [path("a", 1), path("b", 9), path("a", 2), path("a", 3)]);
    }
}
