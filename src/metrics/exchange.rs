//! What one exchange adds to the metrics. The handles of a set of labels are resolved once and kept,
//! so that an exchange costs one look-up and a few atomic additions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use foldhash::fast::RandomState;
use prometheus::{Histogram, IntCounter, Result};

use super::families as f;
use super::labels::{Learned, OTHER};
use super::registry::{Counters, Histograms, Registrar};
use crate::config::MetricsLimits;
use crate::domain::semconv::{self, metric};
use crate::domain::{Call, Operation, Outcome, Summary, Usage, UsageSource, status_class};

/// Sets of labels of exchanges; past it, model, deployment and status in `error_type` are `other`.
/// A set costs at most some 90 lines of `/metrics`, a failure some 20.
const LABEL_SETS_MAX: usize = 1000;
/// More tokens than any exchange can have spent: a false report must not wrap a counter.
const TOKENS_MAX: u64 = u32::MAX as u64;
/// Bucket bounds of our own time, in seconds: from 5 µs, doubling.
const OVERHEAD_BUCKETS: &[f64] = &[
    0.000005, 0.00001, 0.00002, 0.00004, 0.00008, 0.00016, 0.00032, 0.00064, 0.00128, 0.00256,
    0.00512, 0.01024, 0.02048, 0.04096,
];

/// The families that exchanges update.
pub(super) struct Exchanges {
    families: Families,
    pub(super) models: Learned,
    pub(super) deployments: Learned,
    overflow: IntCounter,
    known: Mutex<HashMap<Labels, Arc<Handles>, RandomState>>,
}

struct Families {
    requests: Counters<6>,
    duration: Histograms<2>,
    overhead: Histograms<1>,
    gen_ai_duration: Histograms<7>,
    gen_ai_first_token: Histograms<7>,
    gen_ai_output_token: Histograms<7>,
    gen_ai_tokens: Histograms<8>,
    tokens: Counters<5>,
    cached_input: Counters<3>,
    reasoning_output: Counters<3>,
    usage_unknown: Counters<3>,
}

/// All label values of one exchange.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Labels {
    tap: Arc<str>,
    deployment: Arc<str>,
    model: Arc<str>,
    request_model: Arc<str>,
    response_model: Arc<str>,
    operation: Operation,
    provider: &'static str,
    status: &'static str,
    outcome: Outcome,
    error: ErrorLabel,
}

/// `error_type`, bounded.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ErrorLabel {
    None,
    Status(u16),
    Outcome(Outcome),
    Other,
}

/// Resolved series; those that few exchanges need appear with their first use.
struct Handles {
    requests: IntCounter,
    duration: Histogram,
    overhead: Histogram,
    gen_ai: Option<GenAi>,
    tokens: [OnceLock<Sides<IntCounter>>; UsageSource::ALL.len()],
    cached_input: OnceLock<IntCounter>,
    reasoning_output: OnceLock<IntCounter>,
    usage_unknown: OnceLock<IntCounter>,
}

struct GenAi {
    duration: Histogram,
    first_token: OnceLock<Histogram>,
    output_token: OnceLock<Histogram>,
    tokens: OnceLock<Sides<Histogram>>,
}

struct Sides<T> {
    input: T,
    output: T,
}

impl Exchanges {
    pub(super) fn register(reg: &mut Registrar, limits: &MetricsLimits) -> Result<Self> {
        let families = Families::register(reg)?;
        let overflow = reg.counters(&f::LABEL_OVERFLOW)?;
        Ok(Self {
            families,
            models: Learned::models(limits.models_max, overflow.of(["model"])),
            deployments: Learned::deployments(limits.deployments_max, overflow.of(["deployment"])),
            overflow: overflow.of(["set"]),
            known: Mutex::default(),
        })
    }

    /// The series of a tap that are known before its first exchange.
    pub(super) fn tap_opened(&self, tap: &str) {
        self.families.overhead.of([tap]);
        for outcome in Outcome::ALL {
            self.families.duration.of([tap, outcome.label()]);
        }
    }

    pub(super) fn ended(&self, summary: &Summary, error_type: Option<&str>, calls: &[Call]) {
        let labels = self.labels(summary, ErrorLabel::read(error_type));
        let handles = self.handles(&labels);
        handles.requests.inc();
        handles.overhead.observe(summary.overhead_us as f64 / 1e6);
        if let Some(seconds) = seconds(summary.latency_ms) {
            handles.duration.observe(seconds);
        }
        if let Some(gen_ai) = &handles.gen_ai {
            gen_ai.ended(&self.families, &labels, summary);
        }
        if !calls.is_empty() {
            calls.iter().for_each(|call| self.spent_by_call(summary, call));
        } else if handles.gen_ai.is_some() {
            handles.spent(&self.families, &labels, summary);
        }
    }

    /// A flow's tokens by the model that spent them, at the flow's own tap and deployment.
    fn spent_by_call(&self, flow: &Summary, call: &Call) {
        let accepted = is_success(call.status) || call.outcome == Outcome::Ok;
        let model = self.model(call.model.as_deref(), accepted);
        let place: [&str; 3] = [&flow.tap, &flow.deployment, &model];
        let source = flow.usage.source.unwrap_or(UsageSource::Estimated).label();
        for (side, tokens) in [("input", call.input), ("output", call.output)] {
            if let Some(tokens) = tokens {
                let labels = [place[0], place[1], place[2], side, source];
                self.families.tokens.of(labels).inc_by(tokens.min(TOKENS_MAX));
            }
        }
        if let Some(cached) = call.cached_input {
            self.families.cached_input.of(place).inc_by(cached.min(TOKENS_MAX));
        }
        if let Some(reasoning) = call.reasoning_output {
            self.families.reasoning_output.of(place).inc_by(reasoning.min(TOKENS_MAX));
        }
    }

    pub(super) fn unread(&self, tap: &str, status: Option<u16>, outcome: Outcome, latency: f64) {
        let values = [tap, "", "", "unknown", status_class(status), outcome.label()];
        self.families.requests.of(values).inc();
        if let Some(seconds) = seconds(latency * 1e3) {
            self.families.duration.of([tap, outcome.label()]).observe(seconds);
        }
    }

    /// The label of the name that says most.
    pub(super) fn model_label(&self, summary: &Summary) -> Arc<str> {
        self.model(summary.model.best(), accepted(summary))
    }

    fn model(&self, name: Option<&str>, accepted: bool) -> Arc<str> {
        match name {
            None => self.models.none(),
            Some(name) if accepted => self.models.learn(name),
            Some(name) => self.models.known(name),
        }
    }

    fn labels(&self, summary: &Summary, error: ErrorLabel) -> Labels {
        let accepted = accepted(summary);
        let request_model = self.model(summary.model.request.as_deref(), accepted);
        let response_model = self.model(summary.model.response.as_deref(), accepted);
        let answered = summary.model.response.is_some();
        Labels {
            tap: summary.tap.clone(),
            deployment: summary.deployment.clone(),
            model: if answered { response_model.clone() } else { request_model.clone() },
            request_model,
            response_model,
            operation: summary.operation,
            provider: summary.provider.unwrap_or(""),
            status: status_class(summary.status),
            outcome: summary.outcome,
            error,
        }
    }

    fn handles(&self, labels: &Labels) -> Arc<Handles> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(labels) {
            return handles.clone();
        }
        if known.len() < LABEL_SETS_MAX {
            let handles = Arc::new(Handles::resolve(&self.families, labels));
            known.insert(labels.clone(), handles.clone());
            return handles;
        }
        self.overflow.inc();
        // What is left varies within closed sets, so this second half of the table is bounded too.
        let folded = labels.folded();
        let resolve = || Arc::new(Handles::resolve(&self.families, &folded));
        known.entry(folded.clone()).or_insert_with(resolve).clone()
    }
}

impl Families {
    fn register(reg: &mut Registrar) -> Result<Self> {
        let duration = metric::DURATION_BUCKETS;
        Ok(Self {
            requests: reg.counters(&f::REQUESTS)?,
            duration: reg.histograms(&f::REQUEST_DURATION, duration)?,
            overhead: reg.histograms(&f::OVERHEAD, OVERHEAD_BUCKETS)?,
            gen_ai_duration: reg.histograms(&f::GEN_AI_DURATION, duration)?,
            gen_ai_first_token: reg
                .histograms(&f::GEN_AI_FIRST_TOKEN, metric::FIRST_TOKEN_BUCKETS)?,
            gen_ai_output_token: reg
                .histograms(&f::GEN_AI_OUTPUT_TOKEN, metric::OUTPUT_TOKEN_BUCKETS)?,
            gen_ai_tokens: reg.histograms(&f::GEN_AI_TOKENS, metric::TOKEN_BUCKETS)?,
            tokens: reg.counters(&f::TOKENS_SPENT)?,
            cached_input: reg.counters(&f::CACHED_INPUT)?,
            reasoning_output: reg.counters(&f::REASONING_OUTPUT)?,
            usage_unknown: reg.counters(&f::USAGE_UNKNOWN)?,
        })
    }
}

impl Labels {
    fn folded(&self) -> Self {
        let fold = |name: &Arc<str>| if name.is_empty() { name.clone() } else { Arc::from(OTHER) };
        let error = match self.error {
            ErrorLabel::Status(_) => ErrorLabel::Other,
            known => known,
        };
        Self {
            deployment: fold(&self.deployment),
            model: fold(&self.model),
            request_model: fold(&self.request_model),
            response_model: fold(&self.response_model),
            error,
            ..self.clone()
        }
    }

    fn place(&self) -> [&str; 3] {
        [&self.tap, &self.deployment, &self.model]
    }

    fn with_gen_ai<T>(&self, use_values: impl FnOnce([&str; 7]) -> T) -> T {
        let operation = semconv::operation_name(self.operation).unwrap_or_default();
        let (request, response) = (&self.request_model, &self.response_model);
        let error = self.error.text();
        use_values([
            &self.tap,
            &self.deployment,
            operation,
            self.provider,
            request,
            response,
            &error,
        ])
    }
}

impl ErrorLabel {
    fn read(error_type: Option<&str>) -> Self {
        let Some(text) = error_type else { return Self::None };
        let status = text.parse().ok().filter(|code| (400..600).contains(code));
        let outcome = || Outcome::ALL.iter().find(|outcome| outcome.label() == text);
        status
            .map(Self::Status)
            .or_else(|| outcome().map(|o| Self::Outcome(*o)))
            .unwrap_or(Self::Other)
    }

    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Status(code) => code.to_string(),
            Self::Outcome(outcome) => outcome.label().to_owned(),
            Self::Other => semconv::ERROR_OTHER.to_owned(),
        }
    }
}

impl Handles {
    fn resolve(families: &Families, labels: &Labels) -> Self {
        let [tap, deployment, model] = labels.place();
        let (operation, outcome) = (labels.operation.label(), labels.outcome.label());
        let inference = semconv::operation_name(labels.operation).is_some();
        let requests = [tap, deployment, model, operation, labels.status, outcome];
        Self {
            requests: families.requests.of(requests),
            duration: families.duration.of([tap, outcome]),
            overhead: families.overhead.of([tap]),
            gen_ai: inference.then(|| GenAi::resolve(families, labels)),
            tokens: Default::default(),
            cached_input: OnceLock::new(),
            reasoning_output: OnceLock::new(),
            usage_unknown: OnceLock::new(),
        }
    }

    fn spent(&self, families: &Families, labels: &Labels, summary: &Summary) {
        let usage = &summary.usage;
        if usage.is_unknown() {
            if accepted(summary) {
                self.usage_unknown.get_or_init(|| families.usage_unknown.of(labels.place())).inc();
            }
            return;
        }
        let sides = self.sides(families, labels, usage);
        sides.input.inc_by(usage.input.unwrap_or(0).min(TOKENS_MAX));
        sides.output.inc_by(usage.output.unwrap_or(0).min(TOKENS_MAX));
        if let Some(cached) = usage.cached_input {
            let counter =
                self.cached_input.get_or_init(|| families.cached_input.of(labels.place()));
            counter.inc_by(cached.min(TOKENS_MAX));
        }
        if let Some(reasoning) = usage.reasoning_output {
            let resolve = || families.reasoning_output.of(labels.place());
            self.reasoning_output.get_or_init(resolve).inc_by(reasoning.min(TOKENS_MAX));
        }
    }

    fn sides(&self, families: &Families, labels: &Labels, usage: &Usage) -> &Sides<IntCounter> {
        // Tokens without a source would be a defect; the most cautious word for them is this one.
        let source = usage.source.unwrap_or(UsageSource::Estimated);
        self.tokens[source as usize].get_or_init(|| {
            let [tap, deployment, model] = labels.place();
            let of = |side| families.tokens.of([tap, deployment, model, side, source.label()]);
            Sides { input: of("input"), output: of("output") }
        })
    }
}

impl GenAi {
    fn resolve(families: &Families, labels: &Labels) -> Self {
        Self {
            duration: labels.with_gen_ai(|values| families.gen_ai_duration.of(values)),
            first_token: OnceLock::new(),
            output_token: OnceLock::new(),
            tokens: OnceLock::new(),
        }
    }

    fn ended(&self, families: &Families, labels: &Labels, summary: &Summary) {
        if let Some(seconds) = seconds(summary.latency_ms) {
            self.duration.observe(seconds);
        }
        if summary.stream && summary.outcome == Outcome::Ok && labels.error == ErrorLabel::None {
            self.streamed(families, labels, summary);
        }
        if !summary.usage.is_unknown() {
            self.spent(families, labels, &summary.usage);
        }
    }

    fn streamed(&self, families: &Families, labels: &Labels, summary: &Summary) {
        let Some(first) = summary.first_token_ms.and_then(seconds) else { return };
        let resolve = || labels.with_gen_ai(|values| families.gen_ai_first_token.of(values));
        self.first_token.get_or_init(resolve).observe(first);
        let rest = seconds(summary.latency_ms).map(|total| (total - first).max(0.0));
        let tokens_after_first = summary.usage.output.unwrap_or(0).saturating_sub(1);
        if let (Some(rest), 1..) = (rest, tokens_after_first) {
            let resolve = || labels.with_gen_ai(|values| families.gen_ai_output_token.of(values));
            self.output_token.get_or_init(resolve).observe(rest / tokens_after_first as f64);
        }
    }

    fn spent(&self, families: &Families, labels: &Labels, usage: &Usage) {
        let sides = self.tokens.get_or_init(|| {
            labels.with_gen_ai(|[a, b, c, d, e, f, g]| {
                let of = |side| families.gen_ai_tokens.of([a, b, c, d, e, f, g, side]);
                Sides { input: of("input"), output: of("output") }
            })
        });
        if let Some(input) = usage.input {
            sides.input.observe(input.min(TOKENS_MAX) as f64);
        }
        if let Some(output) = usage.output {
            sides.output.observe(output.min(TOKENS_MAX) as f64);
        }
    }
}

fn accepted(summary: &Summary) -> bool {
    is_success(summary.status)
}

fn is_success(status: Option<u16>) -> bool {
    status.is_some_and(|code| (200..300).contains(&code))
}

/// Milliseconds as seconds; `None` for what is no time at all.
fn seconds(millis: f64) -> Option<f64> {
    (millis.is_finite() && millis >= 0.0).then_some(millis / 1e3)
}
