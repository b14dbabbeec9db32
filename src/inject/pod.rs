//! The same sidecar for a pod on its way into the cluster, as a JSON patch (RFC 6902).
//!
//! A webhook sees pods and no Services. So that a Service leads to the sidecar where there is one, and to
//! the container where there is none (the webhook was down), the sidecar takes over the name of the port:
//! a Service that sends to a name needs no change, and nothing breaks without a sidecar.

use serde_json::{Value, json};

use super::plan::{self, Decision};
use super::port::AppPort;
use super::sidecar::{NAME, Sidecar};
use super::{Refusal, Settings, bypass};

/// What the container's own port is called once the sidecar has its name.
const MOVED: &str = "flowtap-app";
/// Where probes and hooks name a port.
const PORT_USERS: [&[&str]; 5] = [
    &["readinessProbe"],
    &["livenessProbe"],
    &["startupProbe"],
    &["lifecycle", "postStart"],
    &["lifecycle", "preStop"],
];

/// What is done to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodPatch {
    /// The operations of a JSON patch; empty where the pod stays as it is.
    pub operations: Vec<Value>,
    /// What its owner should know.
    pub notes: Vec<String>,
}

/// The patch for a pod. It gets a sidecar only where its annotation or its label `flowtap.io/inject` is
/// `true`; other annotations are those of [`super::inject`].
pub fn patch(pod: &Value, settings: &Settings) -> Result<PodPatch, Refusal> {
    if !asks(pod) {
        return Ok(PodPatch::default());
    }
    let leave = |why: &str| PodPatch {
        operations: Vec::new(),
        notes: vec![format!("left as it is: {why}")],
    };
    match plan::decide(pod, pod, &[], settings)? {
        Decision::Leave(why) => Ok(leave(&why)),
        Decision::Unclear(why) => Err(Refusal::new(why)),
        Decision::Inject(sidecar, port, _) => {
            let told = |port| bypass::notes(&pod["spec"], port, &sidecar);
            let notes = port.as_ref().map(told).unwrap_or_default();
            let mut patch = injected(pod, *sidecar, port.as_ref());
            patch.notes.extend(notes);
            Ok(patch)
        }
    }
}

fn asks(pod: &Value) -> bool {
    let says = |place: &str| pod["metadata"][place]["flowtap.io/inject"] == "true";
    says("annotations") || says("labels")
}

fn injected(pod: &Value, mut sidecar: Sidecar, port: Option<&AppPort>) -> PodPatch {
    let mut patch = PodPatch::default();
    if let Some(port) = port {
        match (port.names.len(), port.names.first()) {
            (1, Some(name)) => {
                patch.operations = moved(pod, name);
                sidecar.port_name = name.clone();
            }
            _ => patch.notes.push(format!(
                "port {} has no name of its own: a Service reaches the sidecar by targetPort: {NAME} only",
                port.number
            )),
        }
    }
    patch.operations.push(first_in(pod, "initContainers", sidecar.container()));
    patch.operations.push(first_in(pod, "volumes", sidecar.volume()));
    patch
}

/// The container's port gives its name away, and so does that of any other container, which a Service
/// would find before the sidecar's; their probes go by number from now on.
fn moved(pod: &Value, name: &str) -> Vec<Value> {
    let mut operations = Vec::new();
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"][list].as_array().into_iter().flatten().enumerate();
        for (index, container) in containers {
            let path = format!("/spec/{list}/{index}");
            let mut ports = container["ports"].as_array().into_iter().flatten().enumerate();
            // Within a container names are unique.
            if let Some((at, port)) = ports.find(|(_, port)| port["name"] == name) {
                operations.push(replaced(format!("{path}/ports/{at}/name"), json!(MOVED)));
                operations.extend(probes(container, &path, name, &port["containerPort"]));
            }
        }
    }
    operations
}

fn probes(container: &Value, path: &str, name: &str, number: &Value) -> Vec<Value> {
    let users = PORT_USERS.iter().flat_map(|user| {
        ["httpGet", "tcpSocket"].into_iter().filter_map(move |action| {
            let named = plan::at(container, user)[action]["port"] == name;
            named.then(|| format!("{path}/{}/{action}/port", user.join("/")))
        })
    });
    users.map(|path| replaced(path, number.clone())).collect()
}

fn replaced(path: String, value: Value) -> Value {
    json!({"op": "replace", "path": path, "value": value})
}

fn first_in(pod: &Value, list: &str, item: Value) -> Value {
    match pod["spec"][list].is_array() {
        true => json!({"op": "add", "path": format!("/spec/{list}/0"), "value": item}),
        false => json!({"op": "add", "path": format!("/spec/{list}"), "value": [item]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { image: "flowtap:test".to_owned(), set: Vec::new() }
    }

    fn pod(annotations: Value, spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": annotations}, "spec": spec})
    }

    fn paths(patch: &PodPatch) -> Vec<&str> {
        patch.operations.iter().map(|op| op["path"].as_str().expect("a path")).collect()
    }

    #[test]
    fn only_a_pod_that_asks_gets_a_sidecar_and_only_one() {
        let spec = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]});
        let quiet = patch(&pod(json!({}), spec.clone()), &settings()).expect("no refusal");
        assert_eq!(quiet, PodPatch::default());
        let asked = pod(json!({"flowtap.io/inject": "true"}), spec);
        let done = patch(&asked, &settings()).expect("a patch");
        assert_eq!(paths(&done), ["/spec/initContainers", "/spec/volumes"]);
        assert!(done.notes[0].contains("targetPort: flowtap"), "{:?}", done.notes);
        let mut again = asked;
        again["spec"]["initContainers"] = done.operations[0]["value"].clone();
        let second = patch(&again, &settings()).expect("no refusal");
        assert!(second.operations.is_empty() && second.notes.len() == 1);
    }

    #[test]
    fn the_sidecar_takes_over_the_ports_name_and_probes_go_by_number() {
        let spec = json!({
            "initContainers": [{"name": "init"}],
            "volumes": [],
            "containers": [
                {"name": "log", "ports": [{"containerPort": 9090, "name": "metrics"}], "readinessProbe": {"tcpSocket": {"port": "http"}}},
                {"name": "app", "ports": [{"containerPort": 8080, "name": "http"}],
                 "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                 "livenessProbe": {"tcpSocket": {"port": 8080}},
                 "lifecycle": {"preStop": {"httpGet": {"path": "/", "port": "http"}}}},
            ]
        });
        let annotations = json!({"flowtap.io/inject": "true", "flowtap.io/port": "http", "flowtap.io/deployment": "blue"});
        let done = patch(&pod(annotations, spec), &settings()).expect("a patch");
        assert_eq!(
            paths(&done),
            [
                "/spec/containers/1/ports/0/name",
                "/spec/containers/1/readinessProbe/httpGet/port",
                "/spec/containers/1/lifecycle/preStop/httpGet/port",
                "/spec/initContainers/0",
                "/spec/volumes/0",
            ]
        );
        assert_eq!(
            (&done.operations[0]["value"], &done.operations[1]["value"]),
            (&json!("flowtap-app"), &json!(8080))
        );
        assert_eq!(
            done.operations[3]["value"]["ports"][0],
            json!({"name": "http", "containerPort": 15080})
        );
        assert!(done.notes.is_empty());
    }

    #[test]
    fn what_cannot_be_injected_is_refused() {
        let spec = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81}]}]});
        let refusal = patch(&pod(json!({"flowtap.io/inject": "true"}), spec), &settings());
        assert!(refusal.expect_err("refused").message.contains("several ports"));
        let odd = json!({"metadata": {"labels": {"flowtap.io/inject": "true"}}, "spec": "none"});
        assert!(patch(&odd, &settings()).expect("no refusal").operations.is_empty());
    }
}
