//! The nouns: what an exchange, a record and a sample are. No I/O; imports nothing of ours.
//!
//! One word, one meaning: the vocabulary of docs/ARCHITECTURE.md is spelled here and used everywhere.

mod address;
mod budget;
pub mod bytes;
mod exchange;
mod fields;
mod ids;
mod kept;
mod level;
mod line;
mod outcome;
mod outline;
mod reading;
mod sample;
mod score;
pub mod semconv;
mod signal;
mod span;
mod tree;
mod usage;

pub use address::{is_metadata, is_metadata_address};
pub use budget::{MemoryBudget, Reservation};
pub use exchange::{CapturedBody, Exchange, Mark, Timing, TraceContext};
pub use fields::Fields;
pub use ids::{ExchangeId, SpanId, TraceId};
pub use kept::Json;
pub use level::{CaptureLevel, Shed, ShedCause, Shedding};
pub use line::to_line;
pub use outcome::{
    DropReason, DropStage, Injection, JoinFate, Outcome, Posted, Protocol, ToldFate, status_class,
};
pub use outline::{Kind, Node, Outline};
pub use reading::{ChatTurn, Countable, Dialect, ModelNames, Operation, Reading, Said, Texts};
pub use sample::{
    Call, CallStep, Dataset, Message, Record, Row, Sample, SampleReason, Sampling, Summary,
};
pub use score::{Criterion, Grade, Judged, Scale, Score, ScoreError, Yardstick};
pub use signal::{
    Alert, Bound, Group, Measure, Method, MonitorRun, Notice, NoticeKind, Scope, Signal,
    SignalKind, State, Trigger, Violations,
};
pub use span::{Span, SpanKind, SpanSource, ToldSpan, TracePart};
pub use tree::{Step, Tokens, Tree, tree};
pub use usage::{Usage, UsageSource};
