//! The description of the API, made from the same table that serves it.

use serde_json::{Map, Value, json};

use super::super::check;
use super::{Answer, ROUTES, Route};

/// The schemas of the answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// All of it: OpenAPI 3.1. `guarded` is whether a token is asked for.
pub(super) fn description(guarded: bool) -> Value {
    let mut paths: Map<String, Value> =
        ROUTES.iter().map(|route| (format!("/api/v1{}", route.path), path(route))).collect();
    paths.insert("/api/v1/openapi.json".to_owned(), own_path());
    paths.insert(check::PATH.to_owned(), configured_path());
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

/// The configured monitors, and the check of others.
fn configured_path() -> Value {
    let operation = |id: &str, about: &str, schema: &str, more: &[(&str, &str)]| {
        let mut responses = problems(false);
        responses.retain(|status, _| !matches!(status.as_str(), "503" | "500"));
        for (status, text) in more {
            responses.insert((*status).to_owned(), problem(text));
        }
        let content = json!({"application/json": {"schema": reference(schema)}});
        let answer = json!({"description": "The answer.", "content": content});
        responses.insert("200".to_owned(), answer);
        json!({"operationId": id, "summary": about, "parameters": [], "responses": responses})
    };
    let shown = "The monitors of this flowtap's configuration, as YAML.";
    let checked =
        "Checks a text of monitors by the rules of the configuration. Nothing is changed.";
    let too_long = [("413", "The text is longer than 64 KiB.")];
    let mut post = operation("check_monitors", checked, "CheckedMonitors", &too_long);
    let text = json!({"schema": {"type": "string"}});
    post["requestBody"] = json!({"required": false, "content": {"application/yaml": text}});
    json!({"get": operation("configured_monitors", shown, "ConfiguredMonitors", &[]), "post": post})
}

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
        ("405", "Another method than GET."),
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
