//! What a judge, or a user, said of one sample by one criterion.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ExchangeId;
use super::outcome::labelled;
use super::sample::with_microseconds;

labelled! {
    /// What is judged of an answer.
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
    }
}

labelled! {
    /// Why nothing that can be counted as a score came of a judgement or of a user's feedback.
    ScoreError {
        /// It has no rating.
        NoRating = "no_rating",
        /// The rating is nothing that stands for a number.
        Unparsable = "unparsable",
        /// The rating lies outside of its scale.
        OutOfRange = "out_of_range",
        /// It names no exchange that is remembered.
        UnknownExchange = "unknown_exchange",
        /// It fits several exchanges.
        Ambiguous = "ambiguous",
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
    /// 1 to 5; `None` where no valid score came of it, and then `error` says why.
    pub score: Option<u8>,
    /// Why there is no score: a label of a closed set.
    pub error: Option<String>,
    /// The judge's explanation, or the user's comment; redacted.
    pub reason: Option<String>,
    /// With which probability this came to be judged: the sample's own times `evaluate.rate`; 1 for
    /// users, whose feedback is taken whether or not the exchange was sampled.
    pub probability: f64,
    /// Who judged; `None` for users.
    pub judge: Option<Judged>,
    /// The text looks as if it tried to talk the judge into something.
    pub injection_suspect: bool,
}

impl Score {
    /// The schema that [`Score`] is written in.
    pub const SCHEMA: &'static str = "flowtap.score.v1";
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
}
