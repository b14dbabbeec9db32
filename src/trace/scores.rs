//! The span of a score: a child of the exchange's span, with the event of the semantic conventions.

use std::time::SystemTime;

use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::names::{Attributes, millis, scope};
use crate::domain::semconv::attribute as name;
use crate::domain::{self, Score};

/// From this score on the label is `pass`: Azure ML's threshold for one answer.
const PASS_FROM: u8 = 3;

/// The span of `score`, whose exchange had the span `parent` in `trace`. The judge's reason is not on
/// it: content never is.
pub(super) fn span(score: &Score, trace: domain::TraceId, parent: domain::SpanId) -> SpanData {
    let criterion = score.name.as_deref().unwrap_or(score.criterion.label());
    let (flags, state) = (TraceFlags::SAMPLED, TraceState::default());
    let trace_id = TraceId::from_bytes(trace.to_bytes());
    let span_id = SpanId::from_bytes(domain::SpanId::random().to_bytes());
    let end = SystemTime::try_from(score.time).unwrap_or(SystemTime::UNIX_EPOCH);
    let took = score.judge.as_ref().map_or(0.0, |judge| judge.latency_ms);
    let mut about = Attributes::default();
    about.text(name::EVALUATION_NAME, Some(criterion));
    about.put(name::EVALUATION_SCORE, score.score.map(f64::from).or(score.value));
    about.text(name::EVALUATION_LABEL, label(score));
    about.text(name::ERROR_TYPE, score.error.map(|error| error.label()));
    about.text(name::FLOWTAP_ID, Some(&score.exchange.to_string()));
    about.text(name::FLOWTAP_JUDGE, score.judge.as_ref().map(|judge| judge.model.as_str()));
    let mut events = SpanEvents::default();
    events.events.push(Event::new(name::EVALUATION_RESULT, end, about.0.clone(), 0));
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, flags, false, state),
        parent_span_id: SpanId::from_bytes(parent.to_bytes()),
        parent_span_is_remote: true,
        span_kind: SpanKind::Internal,
        name: format!("evaluate {criterion}").into(),
        start_time: end.checked_sub(millis(took)).unwrap_or(end),
        end_time: end,
        status: if score.error.is_some() { Status::error("") } else { Status::Unset },
        attributes: about.0,
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        instrumentation_scope: scope(),
    }
}

fn label(score: &Score) -> Option<&'static str> {
    let given = score.score.map(|score| score >= PASS_FROM).or(score.value.map(|v| v >= 0.5));
    given.map(|passed| if passed { "pass" } else { "fail" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(json: &str) -> Score {
        let common = r#""schema":"flowtap.score.v1","id":"01KB0M1Z5X0000000000000000","time":"2026-11-27T02:00:01Z","exchange":"01KB0M1Z5X0000000000000001","exchange_time":"2026-11-27T02:00:00Z","tap":"chat","deployment":"blue","instance":"i","reason":"the reason","probability":1.0,"injection_suspect":false,"judge":{"model":"gpt-4","prompt":"fluency@1","input":1,"output":1,"latency_ms":250.0}"#;
        serde_json::from_str(&format!("{{{common},{json}}}")).expect("a score")
    }

    fn told(span: &SpanData) -> Vec<String> {
        let event = &span.events.events[0];
        assert_eq!(event.name, "gen_ai.evaluation.result");
        event.attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
    }

    #[test]
    fn a_score_hangs_below_its_exchange_and_tells_no_content() {
        let (trace, parent) = (domain::TraceId::random(), domain::SpanId::random());
        let good = span(&score(r#""criterion":"fluency","score":4,"error":null"#), trace, parent);
        assert_eq!(good.span_context.trace_id().to_string(), trace.to_string());
        assert_eq!(good.parent_span_id.to_string(), parent.to_string());
        assert_eq!(good.name, "evaluate fluency");
        let took = good.end_time.duration_since(good.start_time).expect("in order");
        assert_eq!(took.as_millis(), 250);
        let attributes = told(&good);
        for wanted in [
            "gen_ai.evaluation.name=fluency",
            "gen_ai.evaluation.score.value=4",
            "gen_ai.evaluation.score.label=pass",
        ] {
            assert!(attributes.iter().any(|told| told == wanted), "{wanted} in {attributes:?}");
        }
        assert!(!format!("{good:?}").contains("the reason"));
    }

    #[test]
    fn an_error_is_no_number() {
        let (trace, parent) = (domain::TraceId::random(), domain::SpanId::random());
        let bad = span(
            &score(r#""criterion":"custom","name":"polite","score":null,"error":"timeout""#),
            trace,
            parent,
        );
        let attributes = told(&bad);
        assert!(attributes.contains(&"error.type=timeout".to_owned()), "{attributes:?}");
        assert!(attributes.contains(&"gen_ai.evaluation.name=polite".to_owned()));
        assert!(!attributes.iter().any(|told| told.contains("score")), "{attributes:?}");
    }
}
