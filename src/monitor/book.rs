//! The book of violations: what is open, what is told, what is over. Pure: the last run's book and this
//! run's figures make this run's book, and the notices that follow. The book travels in the stored run,
//! so that any hub can go on with it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::{
    Alert, Bound, Measure, MonitorRun, Notice, NoticeKind, Signal, SignalKind, State,
};

/// What a monitor's settings say about telling.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The signals whose violations are told.
    pub signals: Vec<SignalKind>,
    /// The same violation is told again after this long.
    pub quiet: Duration,
    /// Who gets e-mails instead of the addresses for all.
    pub emails: Vec<String>,
}

/// Enters the figures of `run` into the book that the run before left, and returns what is to be told.
/// `run.alerts` holds the new book afterwards.
pub fn enter(run: &mut MonitorRun, before: &[Alert], telling: &Telling) -> Vec<Notice> {
    let mut book = Book { at: run.at, quiet: telling.quiet, alerts: Vec::new(), told: Vec::new() };
    for signal in run.signals.iter().filter(|signal| telling.signals.contains(&signal.kind)) {
        for measure in signal.measures.iter().filter(|measure| measure.threshold.is_some()) {
            book.enter(signal.kind, measure, find(before, signal.kind, &measure.metric));
        }
    }
    // What is monitored no longer is over: nobody would ever hear of it again.
    let gone = before.iter().filter(|alert| !is_measured(&run.signals, telling, alert));
    gone.filter(|alert| alert.resolved.is_none()).for_each(|alert| book.close(alert));
    let notice = |(kind, alert, measure): (NoticeKind, Alert, Measure)| Notice {
        kind,
        monitor: run.monitor.clone(),
        scope: run.scope.clone(),
        signal: alert.signal,
        measure,
        since: alert.since,
        time: run.at,
        window: (run.from, run.to),
        emails: telling.emails.clone(),
    };
    run.alerts = book.alerts;
    book.told.into_iter().map(notice).collect()
}

struct Book {
    at: Timestamp,
    quiet: Duration,
    alerts: Vec<Alert>,
    told: Vec<(NoticeKind, Alert, Measure)>,
}

impl Book {
    fn enter(&mut self, signal: SignalKind, measure: &Measure, before: Option<&Alert>) {
        let fresh = || Alert {
            signal,
            metric: measure.metric.clone(),
            since: self.at,
            told: self.at,
            resolved: None,
        };
        match (measure.state, before) {
            (State::Violated, None) => {
                let alert = fresh();
                self.tell(NoticeKind::Opened, &alert, measure);
                self.alerts.push(alert);
            }
            (State::Violated, Some(before)) => self.again(before.clone(), measure),
            // Nothing is known: what is open stays open, and nobody is bothered.
            (State::NotEnoughData, Some(before)) => self.keep(before.clone()),
            (State::Ok, Some(before)) if before.resolved.is_none() => {
                if !is_silent(before) {
                    self.tell(NoticeKind::Resolved, before, measure);
                }
                self.alerts.push(Alert { resolved: Some(self.at), ..before.clone() });
            }
            (State::Ok, Some(before)) => self.keep(before.clone()),
            (State::Ok | State::NotEnoughData, None) => {}
        }
    }

    /// A violation that is in the book already: still open, or come again.
    fn again(&mut self, before: Alert, measure: &Measure) {
        let since = if before.resolved.is_some() { self.at } else { before.since };
        let mut alert = Alert { since, resolved: None, ..before };
        if self.is_quiet_over(&alert) {
            let kind = if is_silent(&alert) { NoticeKind::Opened } else { NoticeKind::Repeated };
            alert.told = self.at;
            self.tell(kind, &alert, measure);
        }
        self.alerts.push(alert);
    }

    /// What is measured no longer: this run's book is the last that speaks of it.
    fn close(&mut self, alert: &Alert) {
        if !is_silent(alert) {
            self.tell(NoticeKind::Resolved, alert, &forgotten(alert));
        }
        self.alerts.push(Alert { resolved: Some(self.at), ..alert.clone() });
    }

    /// What is over is remembered for the quiet time.
    fn keep(&mut self, before: Alert) {
        if before.resolved.is_none() || !self.is_quiet_over(&before) {
            self.alerts.push(before);
        }
    }

    fn is_quiet_over(&self, alert: &Alert) -> bool {
        let quiet = SignedDuration::try_from(self.quiet).unwrap_or(SignedDuration::MAX);
        self.at.duration_since(alert.told) >= quiet
    }

    fn tell(&mut self, kind: NoticeKind, alert: &Alert, measure: &Measure) {
        self.told.push((kind, alert.clone(), measure.clone()));
    }
}

/// Whether it came again within the quiet time, so that nobody knows of it.
fn is_silent(alert: &Alert) -> bool {
    alert.since > alert.told
}

fn find<'a>(book: &'a [Alert], signal: SignalKind, metric: &str) -> Option<&'a Alert> {
    book.iter().find(|alert| alert.signal == signal && *alert.metric == *metric)
}

fn is_measured(signals: &[Signal], telling: &Telling, alert: &Alert) -> bool {
    signals.iter().any(|signal| {
        let same =
            |measure: &Measure| measure.metric == alert.metric && measure.threshold.is_some();
        signal.kind == alert.signal
            && telling.signals.contains(&signal.kind)
            && signal.measures.iter().any(same)
    })
}

/// The figure of something that has none any more.
fn forgotten(alert: &Alert) -> Measure {
    Measure {
        metric: alert.metric.clone(),
        value: None,
        low: None,
        high: None,
        count: 0,
        effective: 0.0,
        threshold: None,
        bound: Bound::AtMost,
        state: State::Ok,
        evidence: None,
        violations: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::tests::{at, run_of};

    fn telling() -> Telling {
        let signals = vec![SignalKind::Operations];
        Telling { signals, quiet: Duration::from_secs(4 * 3600), emails: Vec::new() }
    }

    fn kinds(notices: &[Notice]) -> Vec<NoticeKind> {
        notices.iter().map(|notice| notice.kind).collect()
    }

    #[test]
    fn what_is_measured_no_longer_is_over_in_the_book_as_well_and_then_forgotten() {
        let mut first = run_of(at("2026-11-23T10:00:00Z"), Some(State::Violated));
        assert_eq!(kinds(&enter(&mut first, &[], &telling())), [NoticeKind::Opened]);
        // Its threshold was taken out of the settings.
        let mut second = run_of(at("2026-11-23T11:00:00Z"), None);
        let told = enter(&mut second, &first.alerts, &telling());
        assert_eq!((kinds(&told), told[0].measure.threshold), (vec![NoticeKind::Resolved], None));
        let [alert] = second.alerts.as_slice() else { panic!("{:?}", second.alerts) };
        assert_eq!((alert.since, alert.resolved), (first.at, Some(second.at)));
        let mut third = run_of(at("2026-11-23T12:00:00Z"), None);
        assert_eq!(kinds(&enter(&mut third, &second.alerts, &telling())), []);
        assert_eq!(third.alerts, []);
    }

    #[test]
    fn what_comes_again_within_the_quiet_time_is_told_when_that_is_over() {
        let states =
            [State::Violated, State::Ok, State::Violated, State::Violated, State::Violated];
        let (mut before, mut all) = (Vec::new(), Vec::new());
        for (hour, state) in states.into_iter().chain([State::NotEnoughData, State::Ok]).enumerate()
        {
            let mut run = run_of(at(&format!("2026-11-23T{:02}:00:00Z", 10 + hour)), Some(state));
            let told = kinds(&enter(&mut run, &before, &telling()));
            all.extend(told.into_iter().map(|kind| (10 + hour, kind)));
            before = run.alerts;
        }
        let (opened, resolved) = (NoticeKind::Opened, NoticeKind::Resolved);
        assert_eq!(all, [(10, opened), (11, resolved), (14, opened), (16, resolved)]);
    }
}
