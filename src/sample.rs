//! Which exchanges are kept: one keyed hash and one comparison an exchange.
//!
//! The chosen id (request, trace or session) is hashed by SipHash-2-4 under a key that replicas
//! share, and the top 53 bits of the hash are read as `u`, a number in `[0, 1)`. The exchange is kept
//! if `u < p`, where `p` is the largest of the rates that apply to it: the general rate, the rate for
//! errors if it did not end `ok`, the rate for slow ones if it took too long.
//!
//! - **The probability is exact.** All rules look at the same `u`, so the exchange is kept if any of
//!   its rules keeps it, and `P(u < max p) = max p`: no correction for overlapping rules, and
//!   `1 / probability` is the weight that makes sums and averages over samples unbiased.
//! - **Replicas agree**, because `u` depends on the id and the key alone.
//! - **Sessions stay whole**: by session, all exchanges of a conversation share their `u`. The rates
//!   for errors and slow exchanges can only add single exchanges of other conversations.
//! - **0 and 1 are exact**: `u < 0` never holds, and `u < 1` always does.

use std::hash::Hasher;
use std::time::Duration;

use hmac::{Hmac, Mac};
use http::HeaderValue;
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;

use crate::config::{SampleBy, SampleRates, Secret};
use crate::domain::{ExchangeId, Outcome, SampleReason, Sampling, TraceId};

/// The value of [`crate::capture::JUDGE_HEADER`], the same for all flowtaps that share `sample.key`. A judge's call that
/// bears it is never sampled, so that judging cannot feed itself. As with the ids that are hashed: with
/// a key of their own, users need not fear that a client makes the value up.
pub fn judge_marker(key: Option<&Secret>) -> HeaderValue {
    let key = key.map_or("flowtap sampling key", Secret::expose);
    let digest = match Hmac::<Sha256>::new_from_slice(key.as_bytes()) {
        Ok(mac) => mac.chain_update(b"judge").finalize().into_bytes(),
        // HMAC takes keys of any length.
        Err(_) => return HeaderValue::from_static("none"),
    };
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&hex).unwrap_or(HeaderValue::from_static("none"))
}

/// The ids of an exchange that a decision may hash.
#[derive(Clone, Copy, Debug)]
pub struct SampleKeys<'a> {
    /// The caller's name for the request, where it gave one.
    pub request_id: Option<&'a str>,
    /// Our own id: what is hashed where the chosen id is missing.
    pub exchange_id: ExchangeId,
    /// The trace, where one is known.
    pub trace_id: Option<TraceId>,
    /// The conversation, where one is known.
    pub session: Option<&'a str>,
}

/// Decides which exchanges are kept; see the module.
#[derive(Clone)]
pub struct Sampler {
    rates: SampleRates,
    hasher: SipHasher24,
}

impl Sampler {
    /// A sampler for `rates`; without a key of the user's own, all flowtaps share a fixed one.
    pub fn new(rates: &SampleRates) -> Self {
        let hasher = SipHasher24::new_with_key(&hash_key(rates.key.as_ref()));
        Self { rates: rates.clone(), hasher }
    }

    /// Keeps (with why and with what probability) or does not keep (`None`) an exchange.
    pub fn decide(
        &self,
        keys: &SampleKeys<'_>,
        outcome: Outcome,
        latency: Duration,
    ) -> Option<Sampling> {
        let sampling = self.rule(outcome, latency);
        (self.position(keys) < sampling.probability).then_some(sampling)
    }

    /// True where an exchange lies within `share`, whatever the rates are: the larger share holds all
    /// that the smaller one does.
    pub fn lies_within(&self, keys: &SampleKeys<'_>, share: f64) -> bool {
        self.position(keys) < share
    }

    /// True where the general rate keeps the exchange, however it ended: known before it is
    /// understood, unless its session decides.
    pub fn keeps_surely(&self, keys: &SampleKeys<'_>) -> bool {
        self.rates.by != SampleBy::Session && self.position(keys) < self.rates.rate
    }

    /// False where no rule can keep the exchange, however it ended; where its session decides, that is
    /// not known.
    pub fn may_keep(&self, keys: &SampleKeys<'_>) -> bool {
        let others = [self.rates.errors, self.rates.slow.map(|slow| slow.rate)];
        let highest = others.into_iter().flatten().fold(self.rates.rate, f64::max);
        self.rates.by == SampleBy::Session || self.position(keys) < highest
    }

    /// The rule with the largest rate of those that apply; the earlier one wins a tie.
    fn rule(&self, outcome: Outcome, latency: Duration) -> Sampling {
        let error = self.rates.errors.filter(|_| outcome != Outcome::Ok);
        let slow = self.rates.slow.filter(|slow| latency > slow.over).map(|slow| slow.rate);
        let others = [(SampleReason::Error, error), (SampleReason::Slow, slow)];
        let (probability, least) = (self.rates.rate, self.least());
        let mut best = Sampling { reason: SampleReason::Rate, probability, least };
        for (reason, rate) in others {
            if let Some(probability) = rate.filter(|rate| *rate > best.probability) {
                best = Sampling { reason, probability, least };
            }
        }
        best
    }

    /// The smallest probability of all that can be kept: the general rate, unless it keeps nothing.
    fn least(&self) -> f64 {
        let others = [self.rates.errors, self.rates.slow.map(|slow| slow.rate)];
        let kept = others.into_iter().flatten().filter(|rate| *rate > 0.0);
        if self.rates.rate > 0.0 { self.rates.rate } else { kept.fold(1.0, f64::min) }
    }

    /// Where the exchange lies in `[0, 1)`.
    fn position(&self, keys: &SampleKeys<'_>) -> f64 {
        let mut hasher = self.hasher;
        match self.rates.by {
            SampleBy::Trace => write_trace(&mut hasher, keys),
            SampleBy::Session => match keys.session {
                Some(session) => hasher.write(session.as_bytes()),
                None => write_request(&mut hasher, keys),
            },
            SampleBy::Request => write_request(&mut hasher, keys),
        }
        unit(hasher.finish())
    }
}

fn write_trace(hasher: &mut SipHasher24, keys: &SampleKeys<'_>) {
    match keys.trace_id {
        Some(trace) => hasher.write(&trace.to_bytes()),
        None => write_request(hasher, keys),
    }
}

fn write_request(hasher: &mut SipHasher24, keys: &SampleKeys<'_>) {
    match keys.request_id {
        Some(id) => hasher.write(id.as_bytes()),
        None => hasher.write(keys.exchange_id.to_string().as_bytes()),
    }
}

/// The top 53 bits as a number in `[0, 1)`: all that an `f64` holds without rounding up to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn hash_key(secret: Option<&Secret>) -> [u8; 16] {
    let text = secret.map_or("flowtap sampling key", Secret::expose);
    let digest = Sha256::digest(text.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::config::SlowRate;

    const FAST: Duration = Duration::from_millis(5);

    fn rates(rate: f64) -> SampleRates {
        SampleRates { rate, errors: None, slow: None, by: SampleBy::Request, key: None }
    }

    fn keys(request_id: &str) -> SampleKeys<'_> {
        let exchange_id = ExchangeId::new(Timestamp::UNIX_EPOCH);
        SampleKeys { request_id: Some(request_id), exchange_id, trace_id: None, session: None }
    }

    fn kept(sampler: &Sampler, n: u32) -> usize {
        let ids = (0..n).map(|i| format!("request-{i}"));
        ids.filter(|id| sampler.decide(&keys(id), Outcome::Ok, FAST).is_some()).count()
    }

    #[test]
    fn ten_thousand_ids_stay_within_the_binomial_bounds() {
        // Mean 1000, standard deviation 30; 99.9 % of all draws lie within 3.29 deviations.
        for key in ["a", "b", "c", "d"] {
            let rates = SampleRates { key: Some(Secret::new(key)), ..rates(0.1) };
            let n = kept(&Sampler::new(&rates), 10_000);
            assert!((901..=1099).contains(&n), "kept {n} of 10,000 at 0.1");
        }
    }

    #[test]
    fn a_judges_calls_are_known_by_the_key() {
        let (one, other) = (Secret::new("one"), Secret::new("other"));
        assert_eq!(judge_marker(Some(&one)), judge_marker(Some(&one)));
        assert_ne!(judge_marker(Some(&one)), judge_marker(Some(&other)));
        assert_ne!(judge_marker(None), judge_marker(Some(&one)));
        assert_eq!(judge_marker(None).len(), 32);
    }

    #[test]
    fn zero_and_one_are_exact() {
        assert_eq!(kept(&Sampler::new(&rates(0.0)), 10_000), 0);
        assert_eq!(kept(&Sampler::new(&rates(1.0)), 10_000), 10_000);
        assert!(unit(u64::MAX) < 1.0);
        assert!(unit(0) >= 0.0);
    }

    #[test]
    fn two_replicas_decide_alike_and_another_key_decides_otherwise() {
        let (one, two) = (Sampler::new(&rates(0.5)), Sampler::new(&rates(0.5)));
        let other = SampleRates { key: Some(Secret::new("another")), ..rates(0.5) };
        let other = Sampler::new(&other);
        let decide = |sampler: &Sampler, i: u32| {
            sampler.decide(&keys(&format!("r{i}")), Outcome::Ok, FAST).is_some()
        };
        assert!((0..1000).all(|i| decide(&one, i) == decide(&two, i)));
        assert!((0..1000).any(|i| decide(&one, i) != decide(&other, i)));
    }

    #[test]
    fn the_largest_rate_decides_and_is_recorded() {
        let slow = Some(SlowRate { over: Duration::from_secs(10), rate: 0.5 });
        let sampler = Sampler::new(&SampleRates { errors: Some(1.0), slow, ..rates(0.1) });
        let long = Duration::from_secs(11);
        let rule = |outcome, latency| {
            let rule = sampler.rule(outcome, latency);
            (rule.reason, rule.probability)
        };
        assert_eq!(rule(Outcome::Ok, FAST), (SampleReason::Rate, 0.1));
        assert_eq!(rule(Outcome::Ok, long), (SampleReason::Slow, 0.5));
        assert_eq!(rule(Outcome::Timeout, long), (SampleReason::Error, 1.0));
        let lower = Sampler::new(&SampleRates { errors: Some(0.1), ..rates(0.1) });
        assert_eq!(lower.rule(Outcome::Timeout, FAST).reason, SampleReason::Rate, "ties: the rate");
        // Whatever kept a sample, another might have been kept by less.
        assert_eq!(sampler.rule(Outcome::Timeout, long).least, 0.1);
        let alone = Sampler::new(&SampleRates { errors: Some(1.0), slow, ..rates(0.0) });
        assert_eq!(alone.rule(Outcome::Timeout, FAST).least, 0.5, "a rate of 0 keeps nothing");
    }

    #[test]
    fn what_is_surely_kept_is_kept_however_it_ended() {
        let slow = Some(SlowRate { over: Duration::from_secs(10), rate: 0.3 });
        let sampler = Sampler::new(&SampleRates { errors: Some(0.2), slow, ..rates(0.1) });
        let long = Duration::from_secs(11);
        let ids: Vec<_> = (0..1000).map(|i| format!("r{i}")).collect();
        let surely = |id: &&String| sampler.keeps_surely(&keys(id));
        assert!(ids.iter().filter(surely).all(|id| {
            let decide = |outcome, latency| sampler.decide(&keys(id), outcome, latency);
            let ends = [(Outcome::Ok, FAST), (Outcome::Ok, long), (Outcome::Timeout, FAST)];
            ends.into_iter().all(|(outcome, latency)| decide(outcome, latency).is_some())
        }));
        assert!((50..150).contains(&ids.iter().filter(surely).count()), "one in ten");
        let by_session = SampleRates { by: SampleBy::Session, ..rates(1.0) };
        assert!(
            !Sampler::new(&by_session).keeps_surely(&keys("r")),
            "the session is not known yet"
        );
    }

    #[test]
    fn what_the_general_rate_keeps_the_higher_rates_keep_too() {
        let sampler = Sampler::new(&SampleRates { errors: Some(0.6), ..rates(0.2) });
        for i in 0..1000 {
            let id = format!("r{i}");
            let ok = sampler.decide(&keys(&id), Outcome::Ok, FAST).is_some();
            let failed = sampler.decide(&keys(&id), Outcome::Timeout, FAST).is_some();
            assert!(!ok || failed, "{id} was kept at 0.2 and not at 0.6");
        }
    }

    #[test]
    fn a_session_is_kept_whole_and_a_trace_too() {
        let session = Sampler::new(&SampleRates { by: SampleBy::Session, ..rates(0.5) });
        let trace = Sampler::new(&SampleRates { by: SampleBy::Trace, ..rates(0.5) });
        for i in 0..200_u32 {
            let name = format!("session-{i}");
            let trace_id = TraceId::parse(&format!("{:032x}", i + 1));
            let decisions: Vec<_> = (0..5)
                .map(|turn| {
                    let request = format!("request-{i}-{turn}");
                    let keys = SampleKeys { session: Some(&name), trace_id, ..keys(&request) };
                    let decide = |s: &Sampler| s.decide(&keys, Outcome::Ok, FAST).is_some();
                    (decide(&session), decide(&trace))
                })
                .collect();
            assert!(decisions.windows(2).all(|pair| pair[0] == pair[1]), "{name} was torn");
        }
    }

    #[test]
    fn without_a_session_the_request_decides() {
        let by_session = Sampler::new(&SampleRates { by: SampleBy::Session, ..rates(0.5) });
        let by_request = Sampler::new(&rates(0.5));
        for i in 0..200 {
            let id = format!("r{i}");
            let decide = |s: &Sampler| s.decide(&keys(&id), Outcome::Ok, FAST).is_some();
            assert_eq!(decide(&by_session), decide(&by_request));
        }
    }
}
