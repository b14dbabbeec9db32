//! The OpenTelemetry GenAI semantic conventions, as spoken here: one versioned table of the names
//! that metrics and spans share. Source: `open-telemetry/semantic-conventions`, `docs/gen-ai/` at
//! [`VERSION`], the last release that holds them and the one that today's dashboards read.

use std::borrow::Cow;

use super::{Operation, Outcome};

/// The release of the semantic conventions that every name here is from.
pub const VERSION: &str = "1.41.0";

/// The schema URL that goes with [`VERSION`].
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.0";

/// Metrics, in the form that OpenTelemetry gives them on a Prometheus page: dots are underscores,
/// the unit is the suffix, and a unit in braces (`{token}`) is dropped.
pub mod metric {
    /// `gen_ai.server.request.duration`, seconds.
    pub const REQUEST_DURATION: &str = "gen_ai_server_request_duration_seconds";
    /// `gen_ai.server.time_to_first_token`, seconds.
    pub const TIME_TO_FIRST_TOKEN: &str = "gen_ai_server_time_to_first_token_seconds";
    /// `gen_ai.server.time_per_output_token`, seconds.
    pub const TIME_PER_OUTPUT_TOKEN: &str = "gen_ai_server_time_per_output_token_seconds";
    /// `gen_ai.client.token.usage`, tokens.
    pub const TOKEN_USAGE: &str = "gen_ai_client_token_usage";

    /// Bucket bounds of the durations, in seconds, as the conventions advise.
    pub const DURATION_BUCKETS: &[f64] =
        &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
    /// Bucket bounds of the time to the first token, in seconds: those of the conventions, which
    /// end at 10, and on to a minute, since a long prompt on a busy model takes that.
    pub const FIRST_TOKEN_BUCKETS: &[f64] = &[
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0,
    ];
    /// Bucket bounds of the time per output token, in seconds, as the conventions advise.
    pub const OUTPUT_TOKEN_BUCKETS: &[f64] =
        &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
    /// Bucket bounds of token counts, as the conventions advise.
    pub const TOKEN_BUCKETS: &[f64] = &[
        1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0,
        4194304.0, 16777216.0, 67108864.0,
    ];
}

/// Labels of the metrics: the attributes' names with underscores.
pub mod label {
    /// `gen_ai.operation.name`.
    pub const OPERATION_NAME: &str = "gen_ai_operation_name";
    /// `gen_ai.provider.name`.
    pub const PROVIDER_NAME: &str = "gen_ai_provider_name";
    /// `gen_ai.request.model`.
    pub const REQUEST_MODEL: &str = "gen_ai_request_model";
    /// `gen_ai.response.model`.
    pub const RESPONSE_MODEL: &str = "gen_ai_response_model";
    /// `gen_ai.token.type`: `input` or `output`.
    pub const TOKEN_TYPE: &str = "gen_ai_token_type";
    /// `error.type`.
    pub const ERROR_TYPE: &str = "error_type";
}

/// Attributes of the spans; those of `flowtap.` are our own.
pub mod attribute {
    /// The event of a score, and not an attribute.
    pub const EVALUATION_RESULT: &str = "gen_ai.evaluation.result";
    /// What was done.
    pub const OPERATION_NAME: &str = "gen_ai.operation.name";
    /// Who did it.
    pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
    /// The model asked for.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The answer was asked for as a stream.
    pub const REQUEST_STREAM: &str = "gen_ai.request.stream";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// The criterion of a score.
    pub const EVALUATION_NAME: &str = "gen_ai.evaluation.name";
    /// 1 to 5.
    pub const EVALUATION_SCORE: &str = "gen_ai.evaluation.score.value";
    /// `pass` from 3 on, else `fail`.
    pub const EVALUATION_LABEL: &str = "gen_ai.evaluation.score.label";
    /// Who judged: a model.
    pub const FLOWTAP_JUDGE: &str = "flowtap.judge.model";
    /// The upstream's id of the response.
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    /// Why generation ended.
    pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Seconds to the first chunk of a stream.
    pub const TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    /// Prompt tokens, cached ones included.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Completion tokens, reasoning ones included.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The part of the input that came from the provider's cache.
    pub const CACHE_READ_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
    /// The part of the output that was reasoning.
    pub const REASONING_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
    /// The kind of failure.
    pub const ERROR_TYPE: &str = "error.type";
    /// The status sent to the client.
    pub const STATUS_CODE: &str = "http.response.status_code";
    /// The request's method.
    pub const METHOD: &str = "http.request.method";
    /// The request's path, without the query.
    pub const PATH: &str = "url.path";

    /// Our id of the exchange: finds its record in the bucket.
    pub const FLOWTAP_ID: &str = "flowtap.id";
    /// The tap.
    pub const FLOWTAP_TAP: &str = "flowtap.tap";
    /// The endpoint's deployment.
    pub const FLOWTAP_DEPLOYMENT: &str = "flowtap.deployment";
    /// How the exchange ended.
    pub const FLOWTAP_OUTCOME: &str = "flowtap.outcome";
    /// The caller's name for the request.
    pub const FLOWTAP_REQUEST_ID: &str = "flowtap.request_id";
    /// Who says how many tokens were spent.
    pub const FLOWTAP_USAGE_SOURCE: &str = "flowtap.usage.source";
}

/// The value of `error.type` where none of the known ones fits.
pub const ERROR_OTHER: &str = "_OTHER";

/// `gen_ai.operation.name` for `operation`; `None` for what is no inference. A prompt flow is a
/// workflow of several model calls; OpenAI's responses and Anthropic's messages are chats; a call
/// read by the user's own mapping is generated content of unknown kind.
pub fn operation_name(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Score => Some("invoke_workflow"),
        Operation::Chat | Operation::Responses | Operation::Messages => Some("chat"),
        Operation::TextCompletion => Some("text_completion"),
        Operation::Embeddings => Some("embeddings"),
        Operation::Call => Some("generate_content"),
        Operation::Feedback | Operation::Other => None,
    }
}

/// `error.type` of an exchange: the status where it tells of the failure, else the outcome;
/// `None` for what succeeded, an empty answer included (it has an outcome of its own).
pub fn error_type(status: Option<u16>, outcome: Outcome) -> Option<Cow<'static, str>> {
    match outcome {
        Outcome::Ok | Outcome::Empty => None,
        Outcome::ClientError | Outcome::UpstreamError => match status {
            Some(code @ 400..) => Some(Cow::Owned(code.to_string())),
            _ => Some(Cow::Borrowed(outcome.label())),
        },
        _ => Some(Cow::Borrowed(outcome.label())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inference_has_an_operation_name() {
        let named = Operation::ALL.iter().filter(|op| operation_name(**op).is_some()).count();
        assert_eq!(named, Operation::ALL.len() - 2);
        assert_eq!(operation_name(Operation::Messages), Some("chat"));
    }

    #[test]
    fn the_error_type_is_the_status_where_the_status_is_the_failure() {
        assert_eq!(error_type(Some(200), Outcome::Ok), None);
        assert_eq!(error_type(Some(429), Outcome::ClientError).as_deref(), Some("429"));
        assert_eq!(
            error_type(Some(200), Outcome::UpstreamAbort).as_deref(),
            Some("upstream_abort")
        );
        assert_eq!(error_type(Some(504), Outcome::Timeout).as_deref(), Some("timeout"));
    }
}
