//! What a monitor found over a window: signals made of measures, and the alerts that follow from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::labelled;
use super::{ExchangeId, Outcome};

labelled! {
    /// The verdict on a measure, a signal or a whole run.
    State {
        /// Within its threshold, or without one.
        Ok = "ok",
        /// Beyond its threshold.
        Violated = "violated",
        /// Too little was seen to say either.
        NotEnoughData = "not_enough_data",
    }
}

impl State {
    /// The state of a whole: violated before lacking data before ok.
    pub fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        let rank = |state: &Self| match state {
            Self::Ok => 0,
            Self::NotEnoughData => 1,
            Self::Violated => 2,
        };
        states.into_iter().max_by_key(rank).unwrap_or(Self::Ok)
    }

    /// The value of `flowtap_monitor_state`.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Violated => 1,
            Self::NotEnoughData => 2,
        }
    }
}

labelled! {
    /// A group of figures that a monitor computes.
    SignalKind {
        /// Scores, by criterion.
        GenerationQuality = "generation_quality",
        /// Tokens, from all requests.
        TokenStatistics = "token_statistics",
        /// Requests, errors and latency, from all requests.
        Operations = "operations",
    }
}

labelled! {
    /// How a threshold is compared.
    Method {
        /// By a test that stays valid however often it is made.
        Anytime = "anytime",
        /// The figure against the threshold, whatever it rests on.
        Plain = "plain",
    }
}

labelled! {
    /// The side of a threshold on which all is well.
    Bound {
        /// At the threshold or above.
        AtLeast = "at_least",
        /// At the threshold or below.
        AtMost = "at_most",
    }
}

impl Bound {
    /// Whether `value` lies on the bad side of `threshold`.
    pub fn is_beyond(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => value < threshold,
            Self::AtMost => value > threshold,
        }
    }
}

labelled! {
    /// Why a run was made.
    Trigger {
        /// Its time had come.
        Schedule = "schedule",
        /// Somebody asked.
        Manual = "manual",
    }
}

/// How often a figure lay beyond its threshold, computed for each step of the window by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// Steps in which it did.
    pub count: u64,
    /// Steps in which it could have: those with data.
    pub possible: u64,
}

/// One figure of a signal; docs/MONITORS.md has the formulas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Its name, such as `groundedness_average`.
    pub metric: Arc<str>,
    /// The figure; `None` where nothing was seen.
    pub value: Option<f64>,
    /// Lower end of the 95% interval; `None` for exact figures.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// Observations behind the figure.
    pub count: u64,
    /// How many equally weighted observations would tell as much.
    pub effective: f64,
    /// The limit.
    pub threshold: Option<f64>,
    /// The good side of the limit.
    pub bound: Bound,
    /// The verdict; `ok` without a threshold.
    pub state: State,
    /// Evidence against the threshold: an e-value. 1 is none; see docs/MONITORS.md.
    pub evidence: Option<f64>,
    /// By step; `None` without a threshold.
    pub violations: Option<Violations>,
}

/// Totals of one tap's deployment and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The tap.
    pub tap: Arc<str>,
    /// The deployment.
    pub deployment: Arc<str>,
    /// The model; empty for flows, whose calls have groups of their own.
    pub model: Arc<str>,
    /// Requests.
    pub requests: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// The figures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Which.
    pub kind: SignalKind,
    /// The worst of its measures.
    pub state: State,
    /// The figures.
    pub measures: Vec<Measure>,
    /// Token statistics by tap, deployment and model.
    pub groups: Vec<Group>,
    /// Operations: requests by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
}

/// A violation that is open, or was until lately: one entry of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The signal.
    pub signal: SignalKind,
    /// The measure's name.
    pub metric: Arc<str>,
    /// The run that found it first.
    pub since: Timestamp,
    /// When it was last told.
    pub told: Timestamp,
    /// The run that found it gone; it stays in the book for the quiet time.
    pub resolved: Option<Timestamp>,
}

/// What a monitor looks at; `None` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// One tap.
    pub tap: Option<Arc<str>>,
    /// One deployment.
    pub deployment: Option<Arc<str>>,
    /// One model.
    pub model: Option<Arc<str>>,
}

/// One run of a monitor, as stored: one object of `monitors/` with this one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorRun {
    /// `flowtap.monitor.v1`.
    pub schema: String,
    /// `<monitor>@<time>`: the same for the same run, whoever makes it.
    pub id: String,
    /// Which attempt wrote it: tells a writer whose answer was lost from another writer.
    pub attempt: ExchangeId,
    /// The monitor's name.
    pub monitor: Arc<str>,
    /// When it was due; for a manual run the time asked for.
    pub at: Timestamp,
    /// When it was made.
    pub made: Timestamp,
    /// The flowtap process that made it.
    pub instance: Arc<str>,
    /// Why.
    pub trigger: Trigger,
    /// The window's first moment.
    pub from: Timestamp,
    /// The first moment after the window.
    pub to: Timestamp,
    /// What it looked at.
    pub scope: Scope,
    /// How thresholds were compared.
    pub method: Method,
    /// The worst of its signals.
    pub state: State,
    /// What it found.
    pub signals: Vec<Signal>,
    /// The book after this run; empty for manual ones.
    pub alerts: Vec<Alert>,
    /// Samples that a judge could not score.
    pub unscored: u64,
    /// Objects of the bucket that could not be read and were left out.
    pub unreadable: u64,
}

impl MonitorRun {
    /// The schema that [`MonitorRun`] is written in.
    pub const SCHEMA: &'static str = "flowtap.monitor.v1";
}

labelled! {
    /// What a notice says.
    NoticeKind {
        /// A violation was found.
        Opened = "opened",
        /// It is still there.
        Repeated = "repeated",
        /// It is gone.
        Resolved = "resolved",
        /// Nothing: somebody tries whether messages arrive.
        Test = "test",
    }
}

/// A message for people, before it has a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it says.
    pub kind: NoticeKind,
    /// The monitor.
    pub monitor: Arc<str>,
    /// What it looked at.
    pub scope: Scope,
    /// The signal.
    pub signal: SignalKind,
    /// The figure, with its threshold and interval.
    pub measure: Measure,
    /// The run that found it first.
    pub since: Timestamp,
    /// The run that this tells of.
    pub time: Timestamp,
    /// That run's window.
    pub window: (Timestamp, Timestamp),
    /// Who gets it by e-mail instead of the addresses that are set for all; empty: those.
    pub emails: Vec<String>,
}

impl Notice {
    /// The same for every message about one violation, from its opening to its end.
    pub fn key(&self) -> String {
        let since = self.since.as_second();
        format!("{}/{}/{}/{since}", self.monitor, self.signal.label(), self.measure.metric)
    }
}
