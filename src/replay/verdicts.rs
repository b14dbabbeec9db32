//! Has both answers judged, and gathers what comes of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::Progress;
use super::answer::{Answer, Reader};
use super::compare::{Limits, Pair, Scale, Verdict, compare, scale_of};
use super::keep::Packed;
use super::pick::Picked;
use super::recorded::Recorded;
use super::report::{self, Both, CaseLine, CaseScore, Judging, Report, Requests};
use super::scores::Known;
use super::sending::{Inbox, Sent};
use crate::domain::{ExchangeId, Score};
use crate::evaluate::Jury;

/// Requests whose answers are judged at once; the judge's own limit holds besides.
const JUDGED_AT_ONCE: usize = 32;
/// The share of requests that were answered, as a criterion.
const ANSWERED: &str = "answered";

/// Judges and gathers.
pub(super) struct Verdicts {
    bench: Bench,
    found: Found,
}

struct Bench {
    jury: Option<Jury>,
    known: Known,
}

struct Found {
    id: ExchangeId,
    instance: Arc<str>,
    pairs: BTreeMap<String, (Scale, Vec<Pair>)>,
    answered: Vec<Pair>,
    both: Vec<Both>,
    requests: Requests,
    judging: Judging,
    cases: Packed,
}

/// What is known of a replay besides what it found.
pub(super) struct Head {
    pub(super) target: String,
    pub(super) began: Timestamp,
    pub(super) rate: f64,
    pub(super) limits: Limits,
}

/// One request, judged.
struct Judged {
    recorded: Recorded,
    answer: Answer,
    /// Of the recorded answer.
    old: Vec<Score>,
    new: Vec<Score>,
}

impl Verdicts {
    pub(super) fn new(
        id: ExchangeId,
        instance: Arc<str>,
        jury: Option<Jury>,
        known: Known,
        drift: bool,
    ) -> Self {
        let model = jury.as_ref().and_then(Jury::model).unwrap_or_default().to_owned();
        let found = Found {
            id,
            instance,
            pairs: BTreeMap::new(),
            answered: Vec::new(),
            both: Vec::new(),
            requests: Requests::default(),
            judging: Judging { model, drift, ..Judging::default() },
            cases: Packed::default(),
        };
        Self { bench: Bench { jury, known }, found }
    }

    /// Takes what was sent until there is no more.
    pub(super) async fn take(
        &mut self,
        sent: &mut Inbox,
        reader: &Reader,
        chosen: u64,
        progress: &dyn Fn(Progress),
    ) -> io::Result<()> {
        let Self { bench, found } = self;
        let bench = &*bench;
        let came = std::cell::Cell::new(0_u64);
        let counted = &came;
        let answers = stream::unfold(sent, |sent| async move {
            let next = sent.next().await?;
            counted.set(counted.get() + 1);
            Some((next, sent))
        });
        let judged = answers.map(|sent| bench.judge(sent, reader));
        let mut judged = std::pin::pin!(judged.buffer_unordered(JUDGED_AT_ONCE));
        while let Some(judged) = judged.next().await {
            found.add(&judged)?;
            let compared = found.both.len() as u64;
            progress(Progress { chosen, sent: came.get(), compared });
        }
        if let Some(jury) = &bench.jury {
            jury.close().await;
        }
        Ok(())
    }

    /// The report, and the cases' lines.
    pub(super) fn finish(self, head: Head, picked: Picked) -> io::Result<(Report, Vec<u8>)> {
        let Self { bench, found } = self;
        let judge = bench.jury.as_ref().and_then(Jury::model).map(|_| found.judging);
        let mut criteria = vec![compare(ANSWERED, &found.answered, Scale::Share, &head.limits)];
        criteria.extend(
            found
                .pairs
                .iter()
                .map(|(name, (scale, pairs))| compare(name, pairs, *scale, &head.limits)),
        );
        let notes = notes(judge.as_ref(), &criteria);
        let worst = Verdict::worst(criteria.iter().filter_map(|criterion| criterion.verdict));
        let unsure = notes.is_empty() || worst == Verdict::Worse;
        let requests = Requests {
            found: picked.found,
            skipped: picked.skipped,
            damaged: picked.damaged,
            rate: head.rate,
            ..found.requests
        };
        let (recorded, new, answered_by_both, tokens_comparable) = report::sides(&found.both);
        let report = Report {
            schema: Report::SCHEMA,
            id: found.id,
            time: head.began,
            ended: Timestamp::now(),
            target: head.target,
            verdict: if unsure { worst } else { Verdict::NotEnoughData },
            notes,
            limits: head.limits,
            requests,
            recorded,
            new,
            answered_by_both,
            tokens_comparable,
            criteria,
            judge,
        };
        Ok((report, found.cases.finish()?))
    }
}

/// Why nothing can be said to be not worse, whatever the figures say.
fn notes(judge: Option<&Judging>, criteria: &[super::Compared]) -> Vec<String> {
    let mut notes = Vec::new();
    match judge {
        None => notes.push("nothing was judged: the settings have no `judge`".to_owned()),
        Some(judge) if judge.drift => {
            notes.push("the judge fails its own test: it may see no difference".to_owned());
        }
        Some(_) if criteria.iter().filter(|of| of.verdict.is_some()).count() < 2 => {
            notes.push("no criterion has a score of both answers".to_owned());
        }
        Some(_) => {}
    }
    notes
}

impl Bench {
    async fn judge(&self, sent: Sent, reader: &Reader) -> Judged {
        let Sent { recorded, exchange } = sent;
        let answer = reader.read(&recorded, &exchange);
        drop(exchange);
        let both = recorded.told.is_answer() && answer.told.is_answer();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        if let Some(jury) = self.jury.as_ref().filter(|_| both) {
            let known = self.known.get(&recorded.id).map_or(&[][..], Vec::as_slice);
            let case = recorded.case.answered(answer.answer.clone(), answer.context.clone());
            (old, new) = tokio::join!(jury.grade(&recorded.case, known), jury.grade(&case, &[]));
        }
        Judged { recorded, answer, old, new }
    }
}

impl Found {
    fn add(&mut self, judged: &Judged) -> io::Result<()> {
        let Judged { recorded, answer, old, new } = judged;
        let (weight, heaviest) = (1.0 / recorded.probability, 1.0 / recorded.least);
        let one = |answered: bool| f64::from(u8::from(answered));
        let requests = &mut self.requests;
        requests.sent += 1;
        requests.masked += u64::from(recorded.masked);
        requests.from = requests.from.into_iter().chain([recorded.time]).min();
        requests.to = requests.to.max(Some(recorded.time));
        self.answered.push(Pair {
            weight,
            heaviest,
            recorded: one(recorded.told.is_answer()),
            new: one(answer.told.is_answer()),
        });
        let told = (recorded.told.clone(), answer.told.clone());
        self.both.push(Both { weight, recorded: told.0, new: told.1 });
        let mut scores = Vec::new();
        for (old, new) in old.iter().filter_map(|old| Some((old, same(old, new)?))) {
            self.count(old);
            self.count(new);
            self.pair([weight, heaviest], old, new);
            scores.push(CaseScore {
                criterion: label(old),
                recorded: value(old),
                new: value(new),
                recorded_reason: old.reason.as_deref(),
                new_reason: new.reason.as_deref(),
                error: old.error.or(new.error).map(|error| error.label()),
            });
        }
        self.cases.add(&CaseLine {
            schema: CaseLine::SCHEMA,
            replay: self.id,
            exchange: recorded.id,
            exchange_time: recorded.time,
            tap: &recorded.tap,
            probability: recorded.probability,
            masked: recorded.masked,
            recorded: &recorded.told,
            new: &answer.told,
            request_id: answer.request_id.as_deref(),
            answer: answer.answer.as_ref(),
            scores,
        })
    }
}

impl Found {
    /// What a score cost, or why there is none. A criterion that does not apply cost nothing.
    fn count(&mut self, score: &Score) {
        let Some(judge) = &score.judge else { return };
        if score.instance != self.instance {
            self.judging.reused += 1;
            return;
        }
        self.judging.asked += u64::from(score.error.is_none());
        self.judging.input += judge.input.unwrap_or(0);
        self.judging.output += judge.output.unwrap_or(0);
        if let Some(error) = score.error {
            *self.judging.errors.entry(error.label()).or_default() += 1;
        }
    }

    /// A judged criterion is compared even where no pair came of it: nothing can be said of it then.
    fn pair(&mut self, [weight, heaviest]: [f64; 2], old: &Score, new: &Score) {
        let scale = scale_of(old.criterion, old.value.or(new.value).is_some());
        let known = self.pairs.contains_key(label(old));
        let values = value(old).zip(value(new));
        if !known && values.is_none() && old.judge.is_none() {
            return;
        }
        let (kept, pairs) =
            self.pairs.entry(label(old).to_owned()).or_insert_with(|| (scale, Vec::new()));
        if let Some((recorded, new)) = values {
            *kept = scale;
            pairs.push(Pair { weight, heaviest, recorded, new });
        }
    }
}

/// The score of the same criterion.
fn same<'s>(old: &Score, new: &'s [Score]) -> Option<&'s Score> {
    new.iter().find(|new| new.criterion == old.criterion && new.name == old.name)
}

fn label(score: &Score) -> &str {
    score.name.as_deref().unwrap_or(score.criterion.label())
}

fn value(score: &Score) -> Option<f64> {
    score.value.or(score.score.map(f64::from))
}
