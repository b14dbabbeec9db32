//! Simulations: windows whose truth is known, by a fixed seed.
#![allow(clippy::unwrap_used)]

use jiff::{Timestamp, ToSpan};

use super::estimate::{self, Class};
use super::evidence::Evidence;
use super::signals::against;
use super::*;
use crate::config::{Config, Monitor, Overrides};
use crate::domain::{
    Bound, Criterion, ExchangeId, Grade, Measure, MonitorRun, State, Trigger, Yardstick,
};

/// A monitor with these keys besides its name and a signal.
pub fn monitor_of(keys: &str) -> Monitor {
    let signals = match keys.contains("signals") {
        true => "",
        false => ", signals: {operations: {}}",
    };
    config_of(&format!("monitors: [{{name: m, {keys}{signals}}}]")).monitors.remove(0)
}

/// A configuration with one tap and this.
pub fn config_of(yaml: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("taps: [{{upstream: 'http://127.0.0.1:9'}}]\n{yaml}\n");
    std::fs::write(file.path(), text).unwrap();
    match crate::config::load(Some(file.path()), &Overrides::default(), &[]) {
        Ok(config) => config,
        Err(faults) => panic!("{faults}"),
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn score(&mut self, shares: &[f64; 5]) -> u8 {
        let mut left = self.share();
        for (score, share) in (1_u8..).zip(shares) {
            left -= share;
            if left < 0.0 {
                return score;
            }
        }
        5
    }
}

/// Requests of one kind: their share of all, the shares of their scores, and the probability with which
/// one is kept.
struct Kind {
    share: f64,
    scores: [f64; 5],
    kept: f64,
}

/// An application: what it answers quickly, what it answers slowly, which is worse, and its errors. Of the
/// first, one in ten is kept; of the others, all are.
struct Application([Kind; 3]);

const TYPICAL: Application = Application([
    Kind { share: 0.93, scores: [0.02, 0.03, 0.10, 0.25, 0.60], kept: 0.1 },
    Kind { share: 0.05, scores: [0.20, 0.20, 0.25, 0.20, 0.15], kept: 1.0 },
    Kind { share: 0.02, scores: [0.75, 0.15, 0.05, 0.03, 0.02], kept: 1.0 },
]);

/// A worse one: many answers are slow, many are errors.
const POOR: Application = Application([
    Kind { share: 0.62, scores: [0.10, 0.15, 0.25, 0.30, 0.20], kept: 0.1 },
    Kind { share: 0.30, scores: [0.60, 0.20, 0.10, 0.05, 0.05], kept: 1.0 },
    Kind { share: 0.08, scores: [0.75, 0.15, 0.05, 0.03, 0.02], kept: 1.0 },
]);

impl Application {
    /// The truth: the mean of `value` over all requests.
    fn mean(&self, value: impl Fn(u8) -> f64) -> f64 {
        let mean = |kind: &Kind| {
            (1_u8..).zip(&kind.scores).map(|(score, share)| share * value(score)).sum::<f64>()
        };
        self.0.iter().map(|kind| kind.share * mean(kind)).sum()
    }

    /// One request: its score and probability, if it was kept.
    fn request(&self, chance: &mut Dice) -> Option<(u8, f64)> {
        let mut left = chance.share();
        let mut kinds = self.0.iter();
        let kind = kinds.find(|kind| {
            left -= kind.share;
            left < 0.0
        });
        let kind = kind.unwrap_or(&self.0[0]);
        let score = chance.score(&kind.scores);
        (chance.share() < kind.kept).then_some((score, kind.kept))
    }

    /// The most that one observation can say against `limit`.
    fn worst(&self, limit: f64) -> f64 {
        (5.0 - limit) * self.heaviest()
    }

    fn heaviest(&self) -> f64 {
        self.0.iter().map(|kind| 1.0 / kind.kept).fold(0.0, f64::max)
    }
}

fn passes(score: u8) -> f64 {
    f64::from(u8::from(score >= 3))
}

/// How often of 2,000 windows of `requests` each the intervals of average and share hold the truth.
fn coverage(application: &Application, requests: usize, seed: u64) -> (f64, f64) {
    let mut chance = Dice(seed);
    let (average, share) = (application.mean(f64::from), application.mean(passes));
    let (mut averages, mut shares) = (0, 0);
    for _ in 0..2_000 {
        let mut counts = std::collections::BTreeMap::<(u8, u64), u64>::new();
        for (score, p) in (0..requests).filter_map(|_| application.request(&mut chance)) {
            *counts.entry((score, p.to_bits())).or_default() += 1;
        }
        let of = |value: fn(u8) -> f64| -> Vec<Class> {
            let class = |((score, p), count): (&(u8, u64), &u64)| Class {
                value: value(*score),
                weight: 1.0 / f64::from_bits(*p),
                heaviest: application.heaviest(),
                count: *count,
            };
            counts.iter().map(class).collect()
        };
        let told = estimate::average(&of(f64::from), 1.0, 5.0).unwrap();
        averages += u32::from(told.low <= average && average <= told.high);
        let told = estimate::share(&of(passes)).unwrap();
        shares += u32::from(told.low <= share && share <= told.high);
    }
    (f64::from(averages) / 20.0, f64::from(shares) / 20.0)
}

#[test]
fn intervals_hold_the_truth_in_95_of_100_windows_with_errors_and_slow_requests_over_sampled() {
    let near = |told: f64| (93.5..=96.5).contains(&told);
    for (name, application, requests, seed) in
        [("typical", TYPICAL, 1_000, 1), ("typical", TYPICAL, 2_000, 2), ("poor", POOR, 1_000, 3)]
    {
        let (average, share) = coverage(&application, requests, seed);
        println!("{name}, {requests} requests: average {average}%, share {share}%");
        assert!(near(average) && near(share), "{name}, {requests}: {average}% and {share}%");
    }
}

/// Scores of two weeks, 150 requests a day; the first week fills the window.
fn two_weeks(application: &Application, chance: &mut Dice) -> Vec<(i64, u8, f64)> {
    const REQUESTS: usize = 2_100;
    let seconds = 14 * 86_400;
    let kept = (0..REQUESTS).filter_map(|_| {
        let second = (chance.share() * f64::from(seconds)) as i64;
        application.request(chance).map(|(score, p)| (second, score, p))
    });
    let mut kept: Vec<_> = kept.collect();
    kept.sort_unstable_by_key(|(second, _, _)| *second);
    kept
}

/// The largest evidence of a week in which the monitor runs every minute: for each beginning that
/// the window's anchor takes in that week, after each observation. `seen` is when each was made, in
/// seconds, and what it says against the limit; `worst` the most that one can say.
fn largest_evidence(seen: &[(i64, f64)], worst: f64) -> f64 {
    let mut largest = 0.0_f64;
    for beginning in 0..=7 {
        let from = beginning * 86_400;
        let mut evidence = Evidence::default();
        for (second, deviation) in seen.iter().filter(|(at, ..)| *at >= from) {
            evidence.add(*deviation, worst, 1);
            // Looked at in the second week only, and as long as the anchor stays.
            if *second >= 7 * 86_400 && *second < from + 7 * 86_400 {
                largest = largest.max(evidence.value());
            }
        }
    }
    largest
}

/// What samples say against `limit`.
fn against_limit(samples: &[(i64, u8, f64)], limit: f64) -> Vec<(i64, f64)> {
    let deviation =
        |(second, score, p): &(i64, u8, f64)| (*second, (limit - f64::from(*score)) / p);
    samples.iter().map(deviation).collect()
}

#[test]
fn at_the_threshold_fewer_than_one_week_in_a_hundred_raises_an_alarm() {
    let mut chance = Dice(4);
    let limit = TYPICAL.mean(f64::from);
    let alarms = (0..2_000).filter(|_| {
        let seen = against_limit(&two_weeks(&TYPICAL, &mut chance), limit);
        largest_evidence(&seen, TYPICAL.worst(limit)) >= ALARM_AT
    });
    let scores = alarms.count();
    // All requests are known: at a limit of 5%, five in a hundred are errors.
    let limit = 0.05;
    let alarms = (0..2_000).filter(|_| {
        let mut seconds: Vec<_> =
            (0..400).map(|_| (chance.share() * 14.0 * 86_400.0) as i64).collect();
        seconds.sort_unstable();
        let error = |chance: &mut Dice| if chance.share() < limit { 1.0 - limit } else { -limit };
        let seen: Vec<_> = seconds.into_iter().map(|at| (at, error(&mut chance))).collect();
        largest_evidence(&seen, limit) >= ALARM_AT
    });
    let errors = alarms.count();
    println!("{scores} of 2,000 weeks by scores, {errors} by errors");
    assert!(scores < 20 && errors < 20, "{scores} and {errors} false alarms in 2,000 weeks");
}

#[test]
fn a_monitor_that_runs_every_minute_finds_no_more_evidence_than_the_simulation() {
    let limit = TYPICAL.mean(f64::from);
    let monitor = monitor_of(&format!(
        "schedule: '* * * * *', signals: {{generation_quality: {{average: {{fluency: {limit}}}}}}}"
    ));
    let samples = two_weeks(&TYPICAL, &mut Dice(8));
    let by = Yardstick::of(Criterion::Fluency).unwrap();
    let start = at("2026-11-02T00:00:00Z");
    let time = |second: i64| start.checked_add(second.seconds()).unwrap();
    let (mut largest, mut runs) = (0.0_f64, 0);
    for minute in 0..7 * 1440 {
        let due = time(7 * 86_400 + minute * 60);
        let window = Window::of(&monitor, due).unwrap();
        let mut tally = Tally::new(window, monitor.scope.clone());
        for (second, score, p) in &samples {
            tally.score(&by, time(*second), Grade::Score(*score), chance(*p), 1);
        }
        let told = signals(&monitor, &tally).remove(0).measures.remove(0);
        assert_ne!(told.state, State::Violated, "a false alarm at {due}: {told:?}");
        largest = largest.max(told.evidence.unwrap());
        runs += 1;
    }
    let simulated = largest_evidence(&against_limit(&samples, limit), TYPICAL.worst(limit));
    println!("{runs} runs: {largest}, simulated {simulated}");
    assert!(largest <= simulated * (1.0 + 1e-9) && largest > simulated / 10.0);
}

/// One in a hundred is kept of what goes well, and all that does not, which is much: the first that are
/// seen are nearly all of the bad ones, and weigh little.
const HARD: Application = Application([
    Kind { share: 0.85, scores: [0.02, 0.03, 0.10, 0.25, 0.60], kept: 0.01 },
    Kind { share: 0.10, scores: [0.75, 0.15, 0.05, 0.03, 0.02], kept: 1.0 },
    Kind { share: 0.05, scores: [0.20, 0.20, 0.25, 0.20, 0.15], kept: 0.3 },
]);

/// With few samples the intervals are wide, and hold the truth rather too often than too seldom.
#[test]
fn intervals_of_few_samples_know_what_is_not_seen_yet() {
    for (requests, seed) in [(100, 10), (300, 11), (1_000, 12)] {
        let (average, share) = coverage(&HARD, requests, seed);
        println!("{requests} requests: average {average}%, share {share}%");
        assert!(average >= 93.5 && share >= 93.5, "{requests}: {average}% and {share}%");
    }
}

#[test]
fn what_is_not_seen_yet_may_weigh_more_than_all_that_is() {
    let monitor = monitor_of(QUALITY);
    let window = Window::of(&monitor, at("2026-11-23T10:15:00Z")).unwrap();
    let by = Yardstick::of(Criterion::Fluency).unwrap();
    let limit = HARD.mean(f64::from);
    let mut dice = Dice(9);
    let alarms = (0..1_000).filter(|_| {
        let mut tally = Tally::new(window.clone(), monitor.scope.clone());
        let kept = std::iter::repeat_with(|| HARD.request(&mut dice)).flatten().take(150);
        kept.collect::<Vec<_>>().into_iter().any(|(score, probability)| {
            let chance = Chance { probability, least: 0.01 };
            tally.score(&by, window.anchor, Grade::Score(score), chance, 1);
            let seen = tally.classes(&by, tally::Part::Anchored, Grade::value);
            against(&seen, limit, Bound::AtLeast, (1.0, 5.0)) >= ALARM_AT
        })
    });
    let alarms = alarms.count();
    println!("{alarms} of 1,000 beginnings");
    assert!(alarms < 5, "{alarms} false alarms in 1,000 beginnings");
}

/// How many samples it takes until a drop is found, in nine cases of ten.
fn found_after(drop: f64, seed: u64) -> usize {
    let mut chance = Dice(seed);
    let limit = TYPICAL.mean(f64::from) + drop;
    let worst = TYPICAL.worst(limit);
    let mut taken: Vec<usize> = (0..500)
        .map(|_| {
            let (mut evidence, mut samples) = (Evidence::default(), 0);
            while evidence.value() < ALARM_AT {
                if let Some((score, p)) = TYPICAL.request(&mut chance) {
                    evidence.add((limit - f64::from(score)) / p, worst, 1);
                    samples += 1;
                }
            }
            samples
        })
        .collect();
    taken.sort_unstable();
    taken[taken.len() * 9 / 10]
}

#[test]
fn a_drop_of_half_a_point_is_found_within_the_samples_that_the_docs_state() {
    let (half, quarter) = (found_after(0.5, 5), found_after(0.25, 6));
    println!("half a point: {half} samples; a quarter: {quarter}");
    assert!(half <= 90, "{half}");
    assert!(quarter <= 550, "{quarter}");
}

/// The chance of a sample when one in ten is kept, or all that is.
fn chance(probability: f64) -> Chance {
    Chance { probability, least: probability.min(0.1) }
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A run that measured one figure; without a state it has no threshold.
pub fn run_of(at: Timestamp, state: Option<State>) -> MonitorRun {
    let monitor =
        monitor_of("schedule: '0 * * * *', signals: {operations: {error_rate_max: 0.01}}");
    let window = Window::of(&monitor, at).unwrap();
    let tally = Tally::new(window.clone(), monitor.scope.clone());
    let mut signals = signals(&monitor, &tally);
    let rate = signals[0].measures.iter_mut().find(|of| &*of.metric == "error_rate").unwrap();
    (rate.threshold, rate.state) = (state.map(|_| 0.01), state.unwrap_or(State::Ok));
    MonitorRun {
        schema: MonitorRun::SCHEMA.to_owned(),
        id: "m".to_owned(),
        attempt: ExchangeId::new(at),
        monitor: monitor.name,
        at,
        made: at,
        instance: "pod".into(),
        trigger: Trigger::Schedule,
        from: window.from,
        to: window.to,
        scope: monitor.scope,
        method: monitor.method,
        state: State::Ok,
        signals,
        alerts: Vec::new(),
        unscored: 0,
        unreadable: 0,
    }
}

/// A week's tally of a monitor: an even stream of `scores`, each with its probability.
fn week(monitor: &Monitor, scores: &[(u8, f64)]) -> Tally {
    let window = Window::of(monitor, at("2026-11-23T10:15:00Z")).unwrap();
    let gap = 7.0 * 86_400.0 / scores.len() as f64;
    let mut tally = Tally::new(window.clone(), monitor.scope.clone());
    for (index, (score, probability)) in scores.iter().enumerate() {
        let time = window.from.checked_add(((index as f64 * gap) as i64).seconds()).unwrap();
        let by = Yardstick::of(Criterion::Fluency).unwrap();
        tally.score(&by, time, Grade::Score(*score), chance(*probability), 1);
    }
    tally
}

fn fluency(monitor: &Monitor, scores: &[(u8, f64)], metric: &str) -> Measure {
    let found = signals(monitor, &week(monitor, scores));
    let measures = found.into_iter().flat_map(|signal| signal.measures);
    measures.into_iter().find(|measure| &*measure.metric == metric).unwrap()
}

const QUALITY: &str = "schedule: '15 10 * * *', signals: {generation_quality: {average: {fluency: 4}, \
                       pass_rate: {fluency: 0.7}}}";

#[test]
fn the_three_states_of_a_measure() {
    let anytime = monitor_of(QUALITY);
    let plain = monitor_of(&format!("{QUALITY}, method: plain"));
    let good: Vec<_> = [(5, 0.1), (4, 0.1)].repeat(100);
    let bad: Vec<_> = [(5, 0.1), (2, 0.1)].repeat(100);
    let few: Vec<_> = [(3, 0.1)].repeat(3);
    for (scores, by_anytime, by_plain) in [
        (&good, State::Ok, State::Ok),
        (&bad, State::Violated, State::Violated),
        (&few, State::NotEnoughData, State::Violated),
        (&vec![], State::NotEnoughData, State::NotEnoughData),
    ] {
        assert_eq!(fluency(&anytime, scores, "fluency_average").state, by_anytime, "{scores:?}");
        assert_eq!(fluency(&plain, scores, "fluency_average").state, by_plain, "{scores:?}");
    }
    let told = fluency(&anytime, &bad, "fluency_pass_rate");
    assert_eq!((told.value, told.count, told.threshold), (Some(0.5), 200, Some(0.7)));
    let days = told.violations.unwrap();
    assert_eq!((days.count, days.possible), (7, 7));
}

#[test]
fn an_oversampled_error_does_not_weigh_more_than_one_request() {
    let monitor = monitor_of(QUALITY);
    // A hundred fives at one in ten, and a hundred ones that were all kept: 1,100 requests.
    let scores: Vec<_> = [(5, 0.1), (1, 1.0)].repeat(100);
    let told = fluency(&monitor, &scores, "fluency_average");
    assert!((told.value.unwrap() - 5_100.0 / 1_100.0).abs() < 1e-9, "{told:?}");
    assert_eq!(told.state, State::Ok, "3 without weights");
}

const fn class(value: f64, weight: f64, heaviest: f64, count: u64) -> Class {
    Class { value, weight, heaviest, count }
}

#[test]
fn the_evidence_of_counts_is_that_of_single_observations() {
    let classes = [class(2.0, 10.0, 10.0, 40), class(5.0, 1.0, 10.0, 7)];
    let mut evidence = Evidence::default();
    for class in classes {
        for _ in 0..class.count {
            evidence.add(class.weight * (4.0 - class.value), 10.0, 1);
        }
    }
    assert!(
        (against(&classes, 4.0, Bound::AtLeast, (1.0, 5.0)) / evidence.value() - 1.0).abs() < 1e-9
    );
}

#[test]
fn a_largest_value_is_held_like_a_least_one_upside_down() {
    let mirrored = |value: f64| 1.0 - value;
    let classes = [class(0.9, 4.0, 4.0, 30), class(0.125, 1.0, 4.0, 9)];
    let turned = classes.map(|class| Class { value: mirrored(class.value), ..class });
    let most = against(&classes, 0.25, Bound::AtMost, (0.0, 1.0));
    let least = against(&turned, 0.75, Bound::AtLeast, (0.0, 1.0));
    assert!((most / least - 1.0).abs() < 1e-9 && most > 1000.0, "{most} {least}");
}

#[test]
fn a_window_has_steps_and_an_anchor_that_stays() {
    let monitor = monitor_of("schedule: '* * * * *', time_zone: Europe/Berlin");
    // The clock is put back on 25 October: that day has 25 hours, and the window 169.
    let window = Window::of(&monitor, at("2026-10-28T10:00:00Z")).unwrap();
    assert_eq!(window.from, at("2026-10-21T09:00:00Z"));
    assert_eq!((window.steps(), window.anchor), (7, at("2026-10-22T00:00:00Z")));
    assert_eq!(window.step(at("2026-10-21T09:00:00Z")), 0);
    assert_eq!(window.step(at("2026-10-28T09:59:59Z")), 6);
    assert!(!window.holds(at("2026-10-28T10:00:00Z")) && window.holds(window.from));
    let mut anchors = std::collections::BTreeSet::new();
    let mut due = at("2026-11-01T00:00:30Z");
    for _ in 0..7 * 1440 {
        anchors.insert(Window::of(&monitor, due).unwrap().anchor);
        due = due.checked_add(1.minute()).unwrap();
    }
    assert!(anchors.len() <= 8, "{anchors:?}");
}

#[test]
fn a_window_shorter_than_its_step_is_one_step() {
    let monitor = monitor_of("schedule: '* * * * *', window: PT1H, offset: PT5M");
    let window = Window::of(&monitor, at("2026-11-23T10:15:00Z")).unwrap();
    assert_eq!((window.from, window.to), (at("2026-11-23T09:10:00Z"), at("2026-11-23T10:10:00Z")));
    assert_eq!(window.steps(), 1);
    assert!(window.anchor > window.from && window.anchor < window.to);
}
