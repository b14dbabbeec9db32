//! The end of the pipeline: an understood exchange becomes figures, and perhaps a sample.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::steps::span_of_flow;
use super::{Pipeline, Understood};
use crate::capture::JUDGE_HEADER;
use crate::config::{self, CaptureMode};
use crate::dialect::{self, Outlines};
use crate::domain::{
    Call, Dataset, DropReason, DropStage, Exchange, Outcome, Reading, Row, Sample, Sampling, Span,
    Summary, semconv, to_line,
};
use crate::join::Ticket;
use crate::ledger::Hour;
use crate::redact::{RedactedSummary, RedactedTexts};
use crate::sample::SampleKeys;

/// Names the deployment of an Azure ML endpoint.
const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");

impl Pipeline {
    /// Measures, decides and keeps; every exchange ends in exactly one entry of the ledger.
    pub(super) fn settle(&self, mut understood: Box<Understood>) {
        let hour = Hour::of(understood.exchange.time);
        let ticket = understood.ticket.take();
        let announced = understood.announced.then_some(understood.exchange.id);
        let row = catch_unwind(AssertUnwindSafe(|| self.sampled_row(understood, ticket.as_ref())));
        if row.is_err() {
            self.abandon_call(ticket.as_ref());
            self.let_go_of_spans(announced);
        }
        let ledger = &self.outlets.ledger;
        match row {
            Err(_) => self.lose_to_panic(hour),
            Ok(None) => ledger.not_sampled(hour, 1),
            Ok(Some(Err((stage, reason)))) => ledger.dropped(hour, stage, reason, 1),
            // The spool keeps the books of what it is given, refusals included.
            Ok(Some(Ok(row))) => {
                let _booked = self.outlets.spool.try_append(row);
            }
        }
    }

    fn sampled_row(
        &self,
        understood: Box<Understood>,
        ticket: Option<&Ticket>,
    ) -> Option<Result<Row, (DropStage, DropReason)>> {
        let Understood {
            exchange,
            mut reading,
            held: _held,
            calls,
            usage_of_calls,
            steps,
            announced,
            hurried,
            ..
        } = *understood;
        let outcome = outcome(exchange.outcome, &reading);
        let sampling = self.decide(&exchange, reading.session.as_deref(), outcome);
        let given_up = hurried.filter(|_| sampling.is_some());
        let sampling = sampling.filter(|_| given_up.is_none());
        let named = sampling.is_some() || self.outlets.tracer.is_some();
        // Names and paths come from clients and upstreams: they are redacted before any figure bears them.
        let summary = self.summarise(&exchange, &mut reading, outcome, named);
        let summary = self.redactor.summary(summary);
        ticket
            .into_iter()
            .for_each(|ticket| self.hand_to_flow(ticket, &exchange, &summary, &reading));
        let spenders = if usage_of_calls { calls.as_slice() } else { &[] };
        self.measure(&exchange, &reading, &summary, spenders);
        self.settle_trace(&exchange, &summary, steps, announced, sampling.is_some());
        if let Some(stage) = given_up {
            return Some(Err((stage, DropReason::Full)));
        }
        let row = self.record(&exchange, reading, summary, calls, sampling?);
        Some(row.map_err(|reason| (DropStage::Pipeline, reason)))
    }

    /// Tells those who hear spans what became of the exchange; stores the trace of a sample.
    fn settle_trace(
        &self,
        exchange: &Exchange,
        summary: &Summary,
        steps: Vec<Span>,
        announced: bool,
        sampled: bool,
    ) {
        let home = sampled.then(|| self.home(summary));
        let telling = self.telling.as_ref().filter(|_| announced);
        let told = telling.map(|telling| telling.settle(exchange.id, home.clone()));
        let told = told.unwrap_or_default();
        let Some(home) = home.filter(|_| !(steps.is_empty() && told.is_empty())) else { return };
        let shared = self.is_trace_shared(exchange).then_some(exchange.trace.trace_id);
        let own = [span_of_flow(summary, &exchange.trace)].into_iter().chain(steps).collect();
        self.store_trace(&home, shared, own, told);
    }

    /// A call of our own judge: measured as all traffic is, and never kept.
    fn is_judges(&self, exchange: &Exchange) -> bool {
        exchange.request_headers.get(JUDGE_HEADER).is_some_and(|mark| *mark == self.judge_marker)
    }

    /// Known before anything is understood: a sample will be made of the exchange.
    pub(super) fn keeps_surely(&self, exchange: &Exchange) -> bool {
        !self.is_judges(exchange) && self.sampler.keeps_surely(&self.sample_keys(exchange, None))
    }

    /// Known before anything is understood: a sample may be made of the exchange.
    pub(super) fn may_keep(&self, exchange: &Exchange) -> bool {
        self.sampler.may_keep(&self.sample_keys(exchange, None))
    }

    /// What a sample keeps of the bodies: as they are where nothing is found in them, else as they were
    /// read, which is done now where only figures were wanted before.
    fn texts<'a>(
        &self,
        reading: Reading,
        exchange: &Exchange,
        outlines: Option<&Outlines<'a>>,
        tap: &config::Tap,
    ) -> RedactedTexts<'a> {
        if reading.request_body.is_some() || reading.response_body.is_some() {
            return self.redactor.texts(reading);
        }
        let texts = outlines.and_then(|outlines| outlines.texts(tap, reading.operation));
        let clean = texts.and_then(|texts| self.redactor.clean(&texts));
        clean.unwrap_or_else(|| self.redactor.texts(dialect::read(exchange, tap)))
    }

    /// Takes the names out of the reading; `named`: those, too, that no metric and no rollup bears, so
    /// that nobody has to look for secrets in what nobody asked for.
    fn summarise(
        &self,
        exchange: &Exchange,
        reading: &mut Reading,
        outcome: Outcome,
        named: bool,
    ) -> Summary {
        let ms = |us: u64| us as f64 / 1000.0;
        let first_token_us =
            reading.first_content_offset.and_then(|at| exchange.response.arrival_us(at));
        let text = |text: &str| if named { text.to_owned() } else { String::new() };
        Summary {
            id: exchange.id,
            time: exchange.time,
            tap: Arc::clone(&exchange.tap),
            deployment: self.deployment(exchange),
            instance: Arc::clone(&self.instance),
            dialect: reading.dialect,
            operation: reading.operation,
            method: text(exchange.method.as_str()),
            path: text(&exchange.path),
            status: exchange.status,
            outcome,
            fault: exchange.fault,
            model: std::mem::take(&mut reading.model),
            stream: reading.stream,
            latency_ms: ms(exchange.timing.total_us),
            first_byte_ms: exchange.timing.first_byte_us.map(ms),
            first_token_ms: first_token_us.map(ms),
            overhead_us: exchange.timing.overhead_us,
            usage: reading.usage,
            provider: reading.provider,
            finish_reason: reading.finish_reason.take().filter(|_| named),
            response_id: reading.response_id.take().filter(|_| named),
        }
    }

    /// The tap's deployment, else the one that the request or the answer names, else `default`.
    /// Names are learnt from successful answers only, so that a hostile client can invent none.
    pub(super) fn deployment(&self, exchange: &Exchange) -> Arc<str> {
        let metrics = &self.outlets.metrics;
        if let Some(configured) =
            self.taps.get(&exchange.tap).and_then(|tap| tap.deployment.clone())
        {
            return metrics.deployment_label(&configured);
        }
        let named = exchange
            .request_headers
            .get(DEPLOYMENT)
            .or_else(|| exchange.response_headers.get(DEPLOYMENT));
        let named = named.and_then(|value| value.to_str().ok()).unwrap_or("default");
        if named == "default" || exchange.status.is_some_and(|status| (200..300).contains(&status))
        {
            metrics.deployment_label(named)
        } else {
            metrics.known_deployment_label(named)
        }
    }

    /// `spenders`: the calls that the usage is the sum of; empty where it is the exchange's own.
    fn measure(
        &self,
        exchange: &Exchange,
        reading: &Reading,
        summary: &Summary,
        spenders: &[Call],
    ) {
        let metrics = &self.outlets.metrics;
        let error_type = semconv::error_type(summary.status, summary.outcome);
        metrics.exchange_of_calls(summary, error_type.as_deref(), spenders);
        if let Some(fault) = reading.fault {
            metrics.reading_fault(&summary.tap, reading.dialect, fault);
        }
        if exchange.request.truncated() || exchange.response.truncated() {
            metrics.capture_truncated(&summary.tap);
        }
        self.rollup().record(summary, metrics.model_label(summary));
        if let Some(tracer) = &self.outlets.tracer {
            let request_id = self.redactor.request_id(exchange);
            tracer.exchange(summary, &exchange.trace, request_id.as_deref());
        }
    }

    /// Someone besides us knows the trace: the caller sent it, or its span is exported.
    pub(super) fn is_trace_shared(&self, exchange: &Exchange) -> bool {
        exchange.trace.parent_span_id.is_some() || self.outlets.tracer.is_some()
    }

    fn decide(
        &self,
        exchange: &Exchange,
        session: Option<&str>,
        outcome: Outcome,
    ) -> Option<Sampling> {
        if self.is_judges(exchange) {
            return None;
        }
        let latency = Duration::from_micros(exchange.timing.total_us);
        self.sampler.decide(&self.sample_keys(exchange, session), outcome, latency)
    }

    fn sample_keys<'a>(&self, exchange: &'a Exchange, session: Option<&'a str>) -> SampleKeys<'a> {
        SampleKeys {
            request_id: exchange.request_id.as_deref(),
            exchange_id: exchange.id,
            trace_id: self.is_trace_shared(exchange).then_some(exchange.trace.trace_id),
            session,
        }
    }

    fn record(
        &self,
        exchange: &Exchange,
        mut reading: Reading,
        summary: RedactedSummary,
        calls: Vec<Call>,
        sampling: Sampling,
    ) -> Result<Row, DropReason> {
        let tap = self.taps.get(&exchange.tap);
        let mode = tap.map_or(CaptureMode::Metadata, |tap| tap.capture);
        let (deployment, time) = (Arc::clone(&summary.deployment), summary.time);
        let full = tap.filter(|tap| tap.capture == CaptureMode::Full);
        let outlines = reading.outlines.take();
        let outlines = full.and_then(|_| dialect::outlines(exchange, reading.operation, outlines));
        let texts = full.map(|tap| self.texts(reading, exchange, outlines.as_ref(), tap));
        let texts = texts.unwrap_or_default();
        let mut record = self.redactor.record(exchange, texts, summary, mode, calls);
        if !self.is_trace_shared(exchange) {
            (record.trace_id, record.span_id) = (None, None);
        }
        for (kind, count) in &record.redactions {
            self.outlets.metrics.redacted(kind, *count);
        }
        self.outlets.metrics.sampled(&exchange.tap, sampling.reason);
        let sample = Sample { schema: Sample::SCHEMA, record, sample: sampling };
        // Every part of a sample is a JSON type; a failure would be a bug of the redactor's.
        let json = to_line(&sample, row_bytes(exchange)).map_err(|_| DropReason::Corrupt)?;
        Ok(Row { dataset: Dataset::Exchanges, deployment, time, json })
    }
}

/// What a row will take, roughly: both bodies, columns that repeat their texts, and the rest.
fn row_bytes(exchange: &Exchange) -> usize {
    let captured = [&exchange.request, &exchange.response].map(|b| b.head.len() + b.tail.len());
    2 * captured.iter().sum::<usize>() + 1024
}

/// What the bytes say of an answer that came whole: an error told in mid-stream, after the 200 was sent,
/// is the upstream's all the same.
fn outcome(on_the_wire: Outcome, reading: &Reading) -> Outcome {
    match on_the_wire {
        Outcome::Ok if reading.finish_reason.as_deref() == Some("error") => Outcome::UpstreamError,
        Outcome::Ok if reading.empty => Outcome::Empty,
        other => other,
    }
}
