//! A conversation's id, so that a whole session can be sampled together.
//!
//! In this order: the headers `x-session-id`, `session-id`; in the request's body `session_id`,
//! `conversation_id` (a flow's inputs), `conversation` or `conversation.id` (OpenAI's responses),
//! `metadata.session_id`, `metadata.conversation_id`.

use super::json::Members;
use http::HeaderName;
use serde_json::Value;

use super::json;
use crate::domain::Fields;

const HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-session-id"), HeaderName::from_static("session-id")];
const MEMBERS: &[&str] = &["session_id", "conversation_id", "conversation"];
const INNER_MEMBERS: &[(&str, &str)] =
    &[("conversation", "id"), ("metadata", "session_id"), ("metadata", "conversation_id")];

/// The session that the headers name.
pub(super) fn in_headers(headers: &Fields) -> Option<String> {
    let values = HEADERS.into_iter().filter_map(|name| headers.get(name));
    values.filter_map(|value| value.to_str().ok()).find_map(json::short)
}

/// The session that the request's body names.
pub(super) fn in_body(body: &Value) -> Option<String> {
    let outer = MEMBERS.iter().find_map(|key| json::name(body.member(key)));
    let inner = |(outer, inner): &(&str, &str)| json::name(body.get(outer)?.get(inner));
    outer.or_else(|| INNER_MEMBERS.iter().find_map(inner))
}
