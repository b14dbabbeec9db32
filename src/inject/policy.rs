//! NetworkPolicies that let callers reach the application's port, and would shut them out of the sidecar's.
//!
//! A policy names ports of the pod, not of the Service, so that what a Service sends to the sidecar has
//! to be let in by the sidecar's own port: <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

use serde_json::Value;

use super::plan::namespace;
use super::port::AppPort;

/// Of `policies`, those to which the sidecar's port, number and name, should be added: they let in the
/// application's port, and no policy lets in the sidecar's.
pub(super) fn shutting_out<'p>(
    policies: impl Iterator<Item = &'p Value>,
    object: &Value,
    template: &Value,
    app: &AppPort,
    sidecar: (u16, &str),
) -> Vec<&'p Value> {
    let theirs = policies.filter(|policy| holds_for(policy, object, template));
    let theirs: Vec<&Value> = theirs.collect();
    let is_app = |port: &Value| app.names.iter().any(|name| covers(port, app.number, name));
    let is_app = |port: &Value| is_app(port) || covers(port, app.number, "");
    let is_sidecar = |port: &Value| covers(port, sidecar.0, sidecar.1);
    if theirs.iter().any(|policy| lets_in(policy, is_sidecar)) {
        return Vec::new();
    }
    theirs.into_iter().filter(|policy| lets_in(policy, is_app)).collect()
}

/// The policy says who may come into pods of `template`.
fn holds_for(policy: &Value, object: &Value, template: &Value) -> bool {
    let types = policy["spec"]["policyTypes"].as_array();
    let ingress = types.is_none_or(|types| types.iter().any(|kind| kind == "Ingress"));
    ingress
        && namespace(policy) == namespace(object)
        && matches(&policy["spec"]["podSelector"], &template["metadata"]["labels"])
}

/// A label selector; an empty one takes all.
fn matches(selector: &Value, labels: &Value) -> bool {
    let of = |key: &str| selector[key].as_array().into_iter().flatten();
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    exact.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && of("matchExpressions").all(|expression| {
            let label = expression["key"].as_str().and_then(|key| labels.get(key));
            let listed = || {
                let mut values = expression["values"].as_array().into_iter().flatten();
                label.is_some_and(|label| values.any(|value| value == label))
            };
            match expression["operator"].as_str() {
                Some("In") => listed(),
                Some("NotIn") => !listed(),
                Some("Exists") => label.is_some(),
                Some("DoesNotExist") => label.is_none(),
                _ => false,
            }
        })
}

/// Some rule names no port, which is all of them, or one that is `wanted`.
fn lets_in(policy: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    let mut rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
    rules.any(|rule| match rule["ports"].as_array().filter(|ports| !ports.is_empty()) {
        Some(ports) => ports.iter().any(&wanted),
        None => true,
    })
}

/// The rule's port is this one of TCP: by number, in a range, or by name.
fn covers(port: &Value, number: u16, name: &str) -> bool {
    let tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    let number = u64::from(number);
    tcp && match &port["port"] {
        Value::Null => true,
        Value::String(named) => named == name,
        first => first.as_u64().is_some_and(|first| {
            let last = port["endPort"].as_u64().unwrap_or(first);
            (first..=last).contains(&number)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(policies: &[Value]) -> Vec<&str> {
        let object = json!({"metadata": {"name": "web", "namespace": "shop"}});
        let template = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        let app = AppPort { number: 8080, names: ["http".to_owned()].into() };
        let found = shutting_out(policies.iter(), &object, &template, &app, (15080, "flowtap"));
        found.iter().filter_map(|policy| policy["metadata"]["name"].as_str()).collect()
    }

    fn policy(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    }

    fn by_ports(name: &str, ports: Value) -> Value {
        policy(name, json!({"podSelector": {}, "ingress": [{"ports": ports}]}))
    }

    #[test]
    fn a_policy_that_names_the_old_port_alone_is_told() {
        for ports in [
            json!([{"port": 8080}]),
            json!([{"port": "http"}]),
            json!([{"port": 8000, "endPort": 9000}]),
        ] {
            assert_eq!(names(&[by_ports("old", ports)]), ["old"]);
        }
        let selected = json!({"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front"]}, {"key": "batch", "operator": "DoesNotExist"},
        ]}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": [{"port": 8080}]}]});
        assert_eq!(names(&[policy("old", selected)]), ["old"]);
    }

    #[test]
    fn a_policy_that_lets_the_sidecar_in_or_is_not_about_it_is_not() {
        for ports in [
            json!([{"port": 8080}, {"port": "flowtap"}]),
            json!([{"port": 8080}, {"port": 15080}]),
            json!([{"port": 8000, "endPort": 16000}]),
            json!([{"protocol": "TCP"}]),
            json!([]),
            json!([{"port": 8080, "protocol": "UDP"}]),
        ] {
            assert!(names(&[by_ports("fine", ports.clone())]).is_empty(), "{ports}");
        }
        let old = || json!([{"ports": [{"port": 8080}]}]);
        for spec in [
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": old()}),
            json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, "ingress": old()}),
            json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": old()}),
            json!({"podSelector": {}, "ingress": []}),
        ] {
            assert!(names(&[policy("other", spec.clone())]).is_empty(), "{spec}");
        }
        let other = json!({"metadata": {"name": "elsewhere"}, "spec": {"podSelector": {}, "ingress": old()}});
        assert!(names(&[other]).is_empty(), "another namespace");
        let both = [
            by_ports("old", json!([{"port": 8080}])),
            by_ports("new", json!([{"port": "flowtap"}])),
        ];
        assert!(names(&both).is_empty(), "policies add up");
    }
}
