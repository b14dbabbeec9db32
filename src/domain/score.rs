//! What a judge, or a user, said of one sample by one criterion.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ExchangeId;
use super::outcome::labelled;
use super::sample::with_microseconds;

labelled! {
    /// What is judged, computed or said of an answer. Judged criteria give a score; computed ones a
    /// value; the two are never mixed.
    Criterion {
        /// Does the context bear out what the answer says?
        Groundedness = "groundedness",
        /// Does the answer speak to the question?
        Relevance = "relevance",
        /// Does it hang together?
        Coherence = "coherence",
        /// Is it well written?
        Fluency = "fluency",
        /// Does it mean what the ground truth means?
        Similarity = "similarity",
        /// What a user said of it.
        UserFeedback = "user_feedback",
        /// A criterion of the user's own; `name` says which.
        Custom = "custom",
        /// Computed: the words shared with the ground truth, as the F1 of SQuAD.
        F1 = "f1",
        /// Computed: BLEU-4 against the ground truth.
        Bleu = "bleu",
        /// Computed: ROUGE-L (F-measure) against the ground truth.
        RougeL = "rouge_l",
        /// Computed: 1 where the answer declines to answer.
        Refusal = "refusal",
        /// Computed: 1 where there is no answer.
        Emptiness = "emptiness",
        /// Computed: the share of word triples that repeat an earlier one.
        Repetition = "repetition",
        /// Computed: 1 where an answer that looks like JSON is JSON, 0 where it is not.
        JsonValidity = "json_validity",
        /// Computed: the share of the answer's words that occur in the context.
        ContextOverlap = "context_overlap",
    }
}

labelled! {
    /// What a score or a value runs over. Figures of different scales are never put together.
    Scale {
        /// 1 to 5.
        Score = "score",
        /// 0 to 1.
        Ratio = "ratio",
        /// 0 or 1: false or true.
        Boolean = "boolean",
    }
}

impl Criterion {
    /// The scale that it always has; `None` for custom ones, of which each has its own.
    pub fn scale(self) -> Option<Scale> {
        match self {
            Self::Custom => None,
            Self::F1 | Self::Bleu | Self::RougeL | Self::Repetition | Self::ContextOverlap => {
                Some(Scale::Ratio)
            }
            Self::Refusal | Self::Emptiness | Self::JsonValidity => Some(Scale::Boolean),
            _ => Some(Scale::Score),
        }
    }

    /// The criterion of this name; custom ones have names of their own.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|of| of.label() == name && **of != Self::Custom).copied()
    }

    /// The criteria that a language model judges with a prompt of ours.
    pub const JUDGED: &[Self] =
        &[Self::Groundedness, Self::Relevance, Self::Coherence, Self::Fluency, Self::Similarity];

    /// The criteria with scores from 1 to 5 that everybody has: what monitors, the index and the page
    /// tell apart.
    pub const RATED: &[Self] = &[
        Self::Groundedness,
        Self::Relevance,
        Self::Coherence,
        Self::Fluency,
        Self::Similarity,
        Self::UserFeedback,
    ];

    /// The criteria that are computed.
    pub const COMPUTED: &[Self] = &[
        Self::F1,
        Self::Bleu,
        Self::RougeL,
        Self::Refusal,
        Self::Emptiness,
        Self::Repetition,
        Self::JsonValidity,
        Self::ContextOverlap,
    ];
}

labelled! {
    /// Why there is no score, of a judgement or of a user's feedback.
    ScoreError {
        /// Not applicable: the sample has no question.
        MissingQuestion = "missing_question",
        /// Not applicable: the sample has no answer.
        MissingAnswer = "missing_answer",
        /// Not applicable: the sample has no context.
        MissingContext = "missing_context",
        /// Not applicable: the sample has no ground truth.
        MissingGroundTruth = "missing_ground_truth",
        /// The judge's answer is not the one that was asked for, or a user's rating stands for no number.
        Unparsable = "unparsable",
        /// The score lies outside of 1 to 5, or the rating outside of its scale.
        OutOfRange = "out_of_range",
        /// The judge, or a filter before it, declined.
        Refused = "refused",
        /// The judge did not answer in time.
        Timeout = "timeout",
        /// The judge could not be reached, or broke off.
        Connect = "connect",
        /// The judge kept saying 429.
        RateLimited = "rate_limited",
        /// The judge said 3xx: redirects are not followed.
        Redirected = "redirected",
        /// The judge said 4xx.
        Http4xx = "http_4xx",
        /// The judge said 5xx, or something that is no HTTP.
        Http5xx = "http_5xx",
        /// The judge's answer was too large to be read.
        TooLarge = "too_large",
        /// The day's tokens were spent, and `judge.when_exhausted` is `skip`.
        Budget = "budget",
        /// Evaluating the sample panicked each time: a fault of ours, which the log names.
        Panicked = "panicked",
        /// A user's feedback has no rating.
        NoRating = "no_rating",
        /// It names no exchange that is remembered.
        UnknownExchange = "unknown_exchange",
        /// It fits several exchanges.
        Ambiguous = "ambiguous",
    }
}

impl ScoreError {
    /// What may become of a user's feedback.
    pub const OF_FEEDBACK: &[Self] = &[
        Self::NoRating,
        Self::Unparsable,
        Self::OutOfRange,
        Self::UnknownExchange,
        Self::Ambiguous,
    ];

    /// What may become of a judgement.
    pub const OF_JUDGES: &[Self] = &[
        Self::MissingQuestion,
        Self::MissingAnswer,
        Self::MissingContext,
        Self::MissingGroundTruth,
        Self::Unparsable,
        Self::OutOfRange,
        Self::Refused,
        Self::Timeout,
        Self::Connect,
        Self::RateLimited,
        Self::Redirected,
        Self::Http4xx,
        Self::Http5xx,
        Self::TooLarge,
        Self::Budget,
        Self::Panicked,
    ];

    /// True where the criterion does not apply to the sample: nobody was asked.
    pub fn is_not_applicable(self) -> bool {
        matches!(
            self,
            Self::MissingQuestion
                | Self::MissingAnswer
                | Self::MissingContext
                | Self::MissingGroundTruth
        )
    }
}

/// One criterion's judgement of one sample. Stored as a line of `scores/`, partitioned by the
/// deployment and the time of the sample, so that both lie in folders of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `flowtap.score.v1`.
    pub schema: String,
    /// The score's own id; of a user's feedback the id of the exchange that brought it.
    pub id: ExchangeId,
    /// When it was given; written with microseconds.
    #[serde(serialize_with = "with_microseconds")]
    pub time: Timestamp,
    /// The sample that was judged.
    pub exchange: ExchangeId,
    /// When that exchange began; written with microseconds.
    #[serde(serialize_with = "with_microseconds")]
    pub exchange_time: Timestamp,
    /// The tap of that exchange.
    pub tap: Arc<str>,
    /// The deployment of that exchange.
    pub deployment: Arc<str>,
    /// The flowtap process that judged.
    pub instance: Arc<str>,
    /// What was judged.
    pub criterion: Criterion,
    /// The name of a custom criterion; `None` for all others.
    #[serde(default)]
    pub name: Option<Arc<str>>,
    /// What `score` or `value` runs over; `None` in lines of older versions.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// 1 to 5 of a judged criterion or a user; `None` for computed criteria, for custom ones that are
    /// true or false, and where no valid score came of it: then `error` says why.
    pub score: Option<u8>,
    /// 0 to 1 of a computed criterion; 0 or 1 of a custom one that is true or false.
    #[serde(default)]
    pub value: Option<f64>,
    /// Why there is neither score nor value.
    pub error: Option<ScoreError>,
    /// The judge's explanation, or the user's comment; redacted.
    pub reason: Option<String>,
    /// With which probability this came to be: the sample's own; for what a judge was asked about times
    /// that with which the evaluator drew it; 1 for users, whose feedback is taken whether or not the
    /// exchange was sampled.
    pub probability: f64,
    /// The least probability that any sample of the deployment had when this one was drawn: none weighs
    /// more than its inverse. `None` in lines of older versions.
    #[serde(default)]
    pub probability_least: Option<f64>,
    /// Who judged; `None` for users.
    pub judge: Option<Judged>,
    /// The text looks as if it tried to talk the judge into something.
    pub injection_suspect: bool,
    /// The judge had failed its own test when it gave this score: it may not be what it was.
    #[serde(default)]
    pub judge_drift: bool,
}

impl Score {
    /// The schema that [`Score`] is written in.
    pub const SCHEMA: &'static str = "flowtap.score.v1";

    /// What the sample was measured by; `None` where the criterion does not apply to it, and for a
    /// custom criterion without a name of its own.
    pub fn yardstick(&self) -> Option<Yardstick> {
        if self.error.is_some_and(ScoreError::is_not_applicable) {
            return None;
        }
        let name = match self.criterion {
            Criterion::Custom => {
                Some(self.name.clone().filter(|name| Criterion::named(name).is_none())?)
            }
            _ => None,
        };
        let told = || self.value.map_or(Scale::Score, |_| Scale::Boolean);
        let scale = self.criterion.scale().or(self.scale).unwrap_or_else(told);
        Some(Yardstick { criterion: self.criterion, name, scale })
    }

    /// What was given on that scale; `None` where nothing valid was.
    pub fn grade(&self) -> Option<Grade> {
        match self.yardstick()?.scale {
            Scale::Score => self.score.filter(|n| (1..=5).contains(n)).map(Grade::Score),
            Scale::Ratio | Scale::Boolean => self.value.and_then(Grade::of_value),
        }
    }
}

/// What a sample is measured by: a criterion, the name of a custom one, and its scale.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Yardstick {
    /// The criterion.
    pub criterion: Criterion,
    /// The name of a custom one; `None` for all others.
    pub name: Option<Arc<str>>,
    /// What its figures run over.
    pub scale: Scale,
}

impl Yardstick {
    /// That of a criterion which everybody has; `None` for custom ones.
    pub fn of(criterion: Criterion) -> Option<Self> {
        Some(Self { criterion, name: None, scale: criterion.scale()? })
    }

    /// That of this name, with `scale` where it is a custom one's.
    pub fn named(name: &str, scale: Scale) -> Self {
        Criterion::named(name).and_then(Self::of).unwrap_or_else(|| Self {
            criterion: Criterion::Custom,
            name: Some(Arc::from(name)),
            scale,
        })
    }

    /// The name in figures and on the page.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.criterion.label())
    }
}

/// What was given by one yardstick. Values are kept in thousandths, so that equal ones can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grade {
    /// 1 to 5.
    Score(u8),
    /// 0 to 1000 thousandths.
    Thousandths(u16),
}

impl Grade {
    /// A value from 0 to 1; `None` for any other number.
    pub fn of_value(value: f64) -> Option<Self> {
        let fits = (0.0..=1.0).contains(&value);
        fits.then(|| Self::Thousandths((value * 1000.0).round() as u16))
    }

    /// 1 to 5, or 0 to 1.
    pub fn value(self) -> f64 {
        match self {
            Self::Score(score) => f64::from(score),
            Self::Thousandths(of) => f64::from(of) / 1000.0,
        }
    }
}

/// Which judge, asked how, at what cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The judge's model as configured.
    pub model: String,
    /// The prompt and its version, `groundedness@1`.
    pub prompt: String,
    /// Prompt tokens spent, all attempts together.
    pub input: Option<u64>,
    /// Completion tokens spent, all attempts together.
    pub output: Option<u64>,
    /// Milliseconds that it took, all attempts together.
    pub latency_ms: f64,
    /// Some of the text was too long and was cut before it was judged.
    #[serde(default)]
    pub truncated: bool,
}
