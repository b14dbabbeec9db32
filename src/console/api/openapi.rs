//! The description of the API, made from the same table that serves it.

use serde_json::{Map, Value, json};

use super::super::monitors;
use super::{Answer, ROUTES, Route};

/// The schemas of the answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// All of it: OpenAPI 3.1. `guarded` is whether a token is asked for.
pub(super) fn description(guarded: bool) -> Value {
    let mut paths: Map<String, Value> =
        ROUTES.iter().map(|route| (format!("/api/v1{}", route.path), path(route))).collect();
    paths.insert("/api/v1/openapi.json".to_owned(), own_path());
    paths.insert(monitors::PATH.to_owned(), monitors_path());
    paths.insert(monitors::ONE.to_owned(), monitor_path());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "flowtap",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "What the index of the bucket holds. Times are RFC 3339 in UTC; units are in \
                            the names; what is not known is null. The edges of windows are exact for \
                            samples, and minutes for all sums.",
        },
        "security": if guarded { json!([{"token": []}]) } else { json!([]) },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "Asked for where `admin.token` is set.",
            }},
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
        },
    })
}

fn path(route: &Route) -> Value {
    let (media, schema) = match &route.answer {
        Answer::Json(name, _) => ("application/json", reference(name)),
        Answer::File(_, media, _) => {
            (media.split(';').next().unwrap_or_default(), json!({"type": "string"}))
        }
    };
    let parameters: Vec<_> =
        route.parameters.iter().map(|parameter| parameter.describe()).collect();
    let mut responses = problems(route.parameters.iter().any(|parameter| parameter.in_path()));
    responses.insert(
        "200".to_owned(),
        json!({"description": "The answer.", "content": {media: {"schema": schema}}}),
    );
    let id = route.path.trim_matches('/').replace(['/', '.'], "_").replace(['{', '}'], "");
    json!({"get": {
        "operationId": id, "summary": route.about, "parameters": parameters,
        "responses": responses,
    }})
}

fn own_path() -> Value {
    let mut responses = problems(false);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "This description.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }),
    );
    json!({"get": {
        "operationId": "openapi", "summary": "This description.", "parameters": [],
        "responses": responses,
    }})
}

/// An operation on the monitors' texts: how else it may end, besides what holds for all.
fn on_monitors(id: &str, about: &str, schema: &str, more: &[(&str, &str)]) -> Value {
    let mut responses = problems(false);
    responses.remove("500");
    for (status, text) in more {
        responses.insert((*status).to_owned(), problem(text));
    }
    let content = json!({"application/json": {"schema": reference(schema)}});
    let answer = json!({"description": "The answer.", "content": content});
    responses.insert("200".to_owned(), answer);
    json!({"operationId": id, "summary": about, "parameters": [], "responses": responses})
}

/// All monitors, and the check of others.
fn monitors_path() -> Value {
    let shown = "The monitors of this flowtap: configured and saved.";
    let checked =
        "Checks a text of monitors by the rules of the configuration. Nothing is changed.";
    let mut post = on_monitors("check_monitors", checked, "CheckedMonitors", TEXT_PROBLEMS);
    post["requestBody"] = text_body(false);
    json!({"get": on_monitors("configured_monitors", shown, "ConfiguredMonitors", &[]), "post": post})
}

/// One monitor: read, saved, taken back.
fn monitor_path() -> Value {
    const GONE: (&str, &str) = ("404", "There is no such monitor.");
    const CHANGES: &[(&str, &str)] = &[
        ("403", "The request comes from another site, or this flowtap is read-only."),
        ("409", "It was not saved, so nothing is taken back; or there are too many."),
        ("412", "Somebody changed the monitor meanwhile."),
        ("428", "The request does not say which version it changes."),
        ("500", "The disk did not take it."),
    ];
    let get = on_monitors("configured_monitor", "One monitor.", "ConfiguredMonitor", &[GONE]);
    let saved = "Saves a monitor: over the one of this name, or a new one. It is on the disk and in \
                 force when this is answered.";
    let faulty = ("422", "The text is no sound monitor of this name.");
    let more = [CHANGES, TEXT_PROBLEMS, &[faulty]].concat();
    let mut put = on_monitors("save_monitor", saved, "ConfiguredMonitor", &more);
    put["requestBody"] = text_body(true);
    put["responses"]["201"] = put["responses"]["200"].clone();
    let reverted = "Takes back what was saved: what is configured counts again.";
    let more = [CHANGES, &[GONE]].concat();
    let mut delete = on_monitors("revert_monitor", reverted, "ConfiguredMonitor", &more);
    delete["responses"]["204"] = json!({"description": "Nothing of this name is configured."});
    let tag = json!({"ETag": {
        "description": "The version, for `If-Match`.", "schema": {"type": "string"},
    }});
    let mut path = json!({"get": get, "put": put, "delete": delete});
    for (method, status) in [("get", "200"), ("put", "200"), ("put", "201"), ("delete", "200")] {
        path[method]["responses"][status]["headers"] = tag.clone();
    }
    for (method, conditions) in
        [("put", &["If-Match", "If-None-Match"][..]), ("delete", &["If-Match"])]
    {
        let conditions = conditions.iter().map(|name| condition(name));
        path[method]["parameters"] = conditions.collect();
    }
    path["parameters"] = json!([{
        "name": "name", "in": "path", "required": true, "description": "The monitor's name.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    }]);
    path
}

/// Any YAML is read, and its faults are told.
fn text_body(required: bool) -> Value {
    json!({"required": required, "content": {"application/yaml": {"schema": {}}}})
}

fn condition(name: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": false,
        "description": "The `ETag` that was read, or `*`.", "schema": {"type": "string"},
    })
}

/// How a text may be no text.
const TEXT_PROBLEMS: &[(&str, &str)] =
    &[("408", "The text did not come in time."), ("413", "The text is longer than 64 KiB.")];

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// How any question may end otherwise.
fn problems(named: bool) -> Map<String, Value> {
    let about = [
        ("400", "A parameter is not what it may be, or not known."),
        ("401", "The token is missing or wrong."),
        ("403", "The request comes from another site."),
        ("404", "Nothing bears this id."),
        ("405", "Another method than those described here."),
        ("421", "This `Host` is not answered."),
        ("500", "The answer could not be made."),
        ("503", "There is no index, or the answer took too long."),
    ];
    let about = about.into_iter().filter(|(status, _)| named || *status != "404");
    about.map(|(status, text)| (status.to_owned(), problem(text))).collect()
}

fn problem(text: &str) -> Value {
    json!({
        "description": text,
        "content": {"application/problem+json": {"schema": reference("Problem")}},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All names that are referred to anywhere in `value`.
    fn references(value: &Value, names: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(text) if key == "$ref" => {
                    let name = text.rsplit('/').next().unwrap_or_default();
                    names.insert(name.to_owned());
                }
                _ => references(value, names),
            }),
            Value::Array(list) => list.iter().for_each(|value| references(value, names)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_is_there_and_is_used() {
        let description = description(true);
        let schemas = description["components"]["schemas"].as_object().expect("schemas");
        let mut used = BTreeSet::new();
        references(&description, &mut used);
        let there: BTreeSet<_> = schemas.keys().cloned().collect();
        assert_eq!(used, there);
    }
}
