//! Which dialect, which operation, which provider: path first, then headers, then the bodies' shape.
//!
//! What none of them tells is [`Operation::Other`], of which no content is kept. A path decides
//! only for calls that carry a body (POST); a shape decides only where request and response agree.

use std::borrow::Cow;

use http::{HeaderName, Method};
use serde_json::Value;

use super::side::Side;
use crate::config::{DialectChoice, Tap};
use crate::domain::{Dialect, Exchange, Fields, Operation};

/// What the heads of an exchange tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// This operation.
    Known(Dialect, Operation),
    /// Something without content of interest.
    Other(Dialect),
    /// The bodies must tell.
    Unsure,
}

/// Decides by the tap's setting, the method, the path and the headers.
pub(super) fn at_a_glance(exchange: &Exchange, tap: &Tap) -> Glance {
    let fixed = match tap.dialect {
        DialectChoice::Auto => None,
        DialectChoice::Fixed(dialect) => Some(dialect),
    };
    let by_path = by_path(&full_path(exchange, tap));
    let calls = matches!(exchange.method, Method::POST | Method::PUT | Method::PATCH);
    if !calls || exchange.status == Some(101) {
        let hinted = by_path.map(|(dialect, _)| dialect);
        return Glance::Other(fixed.or(hinted).unwrap_or(Dialect::Generic));
    }
    match (fixed, by_path) {
        (Some(Dialect::Generic), _) => Glance::Known(Dialect::Generic, Operation::Call),
        (Some(Dialect::Promptflow), Some((Dialect::Promptflow, operation))) => {
            known(Dialect::Promptflow, operation)
        }
        (Some(Dialect::Promptflow), _) => Glance::Known(Dialect::Promptflow, Operation::Score),
        (None, Some((dialect, operation))) => known(dialect, operation),
        (Some(dialect), Some((found, operation))) if dialect == found => known(dialect, operation),
        _ => Glance::Unsure,
    }
}

fn known(dialect: Dialect, operation: Operation) -> Glance {
    match operation {
        Operation::Other => Glance::Other(dialect),
        operation => Glance::Known(dialect, operation),
    }
}

/// The path that the upstream sees: the tap may add a prefix.
pub(super) fn full_path<'a>(exchange: &'a Exchange, tap: &Tap) -> Cow<'a, str> {
    match tap.upstream.path_prefix.as_str() {
        "" => Cow::Borrowed(&exchange.path),
        prefix => Cow::Owned(format!("{prefix}{}", exchange.path)),
    }
}

/// By the last segments of the path, whatever comes before them.
fn by_path(path: &str) -> Option<(Dialect, Operation)> {
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    let last = segments.next().unwrap_or("");
    let before = segments.next().unwrap_or("");
    Some(match (before, last) {
        (_, "score") => (Dialect::Promptflow, Operation::Score),
        (_, "feedback") => (Dialect::Promptflow, Operation::Feedback),
        (_, "health" | "version" | "swagger.json") => (Dialect::Promptflow, Operation::Other),
        ("chat", "completions") => (Dialect::Openai, Operation::Chat),
        (_, "completions") => (Dialect::Openai, Operation::TextCompletion),
        (_, "embeddings") => (Dialect::Openai, Operation::Embeddings),
        (_, "responses") => (Dialect::Openai, Operation::Responses),
        ("v1", "messages") => (Dialect::Anthropic, Operation::Messages),
        ("messages", "count_tokens" | "batches") => (Dialect::Anthropic, Operation::Other),
        _ => return None,
    })
}

/// Decides by headers and by the bodies, where [`at_a_glance`] could not.
pub(super) fn by_shape(
    exchange: &Exchange,
    tap: &Tap,
    request: &Side<'_>,
    response: &Side<'_>,
) -> (Dialect, Operation) {
    let headers = &exchange.request_headers;
    let said = request.json();
    let found = said.and_then(|said| model_call(headers, said, response));
    match (tap.dialect, found) {
        (DialectChoice::Fixed(dialect), Some(found)) if found.0 == dialect => found,
        (DialectChoice::Fixed(dialect), _) => (dialect, Operation::Other),
        (DialectChoice::Auto, Some(found)) => found,
        (DialectChoice::Auto, None)
            if is_azure_ml(headers) && said.is_some_and(Value::is_object) =>
        {
            (Dialect::Promptflow, Operation::Score)
        }
        (DialectChoice::Auto, None) if tap.columns.configured => {
            (Dialect::Generic, Operation::Call)
        }
        (DialectChoice::Auto, None) => (Dialect::Generic, Operation::Other),
    }
}

fn is_azure_ml(headers: &Fields) -> bool {
    headers.contains("azureml-model-deployment")
}

/// A call to a model at an unknown path: the request must look like one, and the answer must agree.
fn model_call(headers: &Fields, said: &Value, response: &Side<'_>) -> Option<(Dialect, Operation)> {
    let answered = first_object(response)?;
    let object = answered.get("object").and_then(Value::as_str).unwrap_or("");
    let kind = answered.get("type").and_then(Value::as_str).unwrap_or("");
    if is_chat(said) {
        let anthropic =
            matches!(kind, "message" | "message_start") || headers.contains("anthropic-version");
        let openai = answered.get("choices").is_some_and(Value::is_array);
        let refused = answered.get("error").is_some() && said.get("model").is_some();
        return match (anthropic, openai || refused) {
            (true, _) => Some((Dialect::Anthropic, Operation::Messages)),
            (_, true) => Some((Dialect::Openai, Operation::Chat)),
            _ => None,
        };
    }
    let has = |key: &str| said.get(key).is_some();
    match (object, kind) {
        ("text_completion", _) if has("prompt") => {
            Some((Dialect::Openai, Operation::TextCompletion))
        }
        ("response", _) | (_, "response.created") if has("input") => {
            Some((Dialect::Openai, Operation::Responses))
        }
        ("list", _) if has("input") && has("model") => {
            Some((Dialect::Openai, Operation::Embeddings))
        }
        _ => None,
    }
}

/// The answer, or the first event of a streamed one.
fn first_object<'a>(response: &'a Side<'_>) -> Option<Cow<'a, Value>> {
    if !response.is_stream() {
        return response.json().map(Cow::Borrowed);
    }
    let mut first = None;
    response.each_event(&mut |event, _| {
        if first.is_none() {
            first = super::json::parse(event.data.as_bytes()).ok();
        }
    });
    first.map(Cow::Owned)
}

/// A list of messages, each with a role.
fn is_chat(said: &Value) -> bool {
    let messages = super::json::items(said, "messages");
    !messages.is_empty() && messages.iter().all(|m| m.get("role").is_some_and(Value::is_string))
}

/// Azure's own way to bear a key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Hosts whose provider has a name in the semantic conventions (`gen_ai.provider.name`).
const PROVIDERS: &[(&str, &str)] = &[
    ("openai.azure.com", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("openai.com", "openai"),
    ("anthropic.com", "anthropic"),
    ("deepseek.com", "deepseek"),
    ("groq.com", "groq"),
    ("mistral.ai", "mistral_ai"),
    ("perplexity.ai", "perplexity"),
    ("x.ai", "x_ai"),
    ("moonshot.ai", "moonshot_ai"),
    ("moonshot.cn", "moonshot_ai"),
    ("cohere.com", "cohere"),
    ("cohere.ai", "cohere"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
];

/// The provider: by the upstream's host, by Azure OpenAI's path or `api-key` header, else the one
/// that the dialect is named after. A prompt flow and a generic endpoint have none.
pub(super) fn provider(dialect: Dialect, exchange: &Exchange, tap: &Tap) -> Option<&'static str> {
    let default = match dialect {
        Dialect::Openai => "openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Promptflow | Dialect::Generic => return None,
    };
    let host = tap.upstream.host.trim_end_matches('.');
    let by_host = PROVIDERS.iter().find(|(domain, _)| under(host, domain)).map(|(_, name)| *name);
    let azure = dialect == Dialect::Openai && speaks_azure(exchange, tap);
    Some(match (by_host, azure) {
        (Some("openai") | None, true) => "azure.ai.openai",
        (Some(name), _) => name,
        (None, false) => default,
    })
}

/// True where `host` is `domain` or below it, in any case.
fn under(host: &str, domain: &str) -> bool {
    let Some(at) = host.len().checked_sub(domain.len()) else { return false };
    let (below, end) = host.as_bytes().split_at(at);
    end.eq_ignore_ascii_case(domain.as_bytes()) && (below.is_empty() || below.ends_with(b"."))
}

fn speaks_azure(exchange: &Exchange, tap: &Tap) -> bool {
    let path = full_path(exchange, tap);
    path.contains("/openai/deployments/")
        || path.contains("/openai/v1/")
        || exchange.request_headers.contains(API_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_path_decides() {
        let cases = [
            ("/score", Some(Operation::Score)),
            ("/team/flow/score/", Some(Operation::Score)),
            ("/v1/chat/completions", Some(Operation::Chat)),
            ("/openai/deployments/gpt4/chat/completions", Some(Operation::Chat)),
            ("//openai/v1//responses", Some(Operation::Responses)),
            ("/completions", Some(Operation::TextCompletion)),
            ("/v1/messages", Some(Operation::Messages)),
            ("/v1/messages/count_tokens", Some(Operation::Other)),
            ("/v1/threads/t1/messages", None),
            ("/v1/responses/r1/cancel", None),
            ("/scores", None),
            ("/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(by_path(path).map(|(_, operation)| operation), expected, "{path}");
        }
    }
}
