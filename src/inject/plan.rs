//! What a workload gets: which port is taken over, which keys are set, or why nothing is done.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::port::{self, AppPort, Choice};
use super::sidecar::{ADMIN_PORT, MEMORY, NAME, Sidecar};
use super::{Refusal, Settings, keys};

/// Where the tap listens unless told otherwise; the next ones where the pod has taken it.
const LISTEN_PORT: u16 = 15080;

/// What is done with a workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// It gets a sidecar that takes over a port of the pod's, if one is told; the pod's other ports.
    Inject(Box<Sidecar>, Option<AppPort>, Vec<u16>),
    /// It stays as it is; why, in words.
    Leave(String),
    /// Nobody can tell which of its ports is meant; what to do, in words.
    Unclear(String),
}

/// Where the pod template lies in an object of a kind; `None` for kinds without one.
pub(super) fn template_path(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&[]),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "Job"
        | "ReplicationController" => Some(&["spec", "template"]),
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// The value at `path`.
pub(super) fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// The namespace of an object.
pub(super) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

/// True where `service` sends traffic to pods of `template` in the namespace of `object`.
pub(super) fn selects(service: &Value, object: &Value, template: &Value) -> bool {
    let Some(selector) = service["spec"]["selector"].as_object() else { return false };
    let labels = &template["metadata"]["labels"];
    !selector.is_empty()
        && namespace(service) == namespace(object)
        && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Decides what `object`, whose pod template is `template`, gets.
pub(super) fn decide(
    object: &Value,
    template: &Value,
    services: &[&Value],
    settings: &Settings,
) -> Result<Decision, Refusal> {
    let annotations = annotations(object, template);
    let spec = &template["spec"];
    if let Some(why) = stays(&annotations, spec) {
        return Ok(Decision::Leave(why.to_owned()));
    }
    if spec["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == NAME) {
        return Err(Refusal::new("it has a volume named flowtap, which the sidecar needs"));
    }
    let keys = keys::read(&annotations, &settings.set)?;
    let (port, others) = match keys.upstream() {
        Some(_) => (None, Vec::new()),
        None => match port::choose(spec, services, keys.port.as_deref())? {
            Choice::One(port, others) => (Some(port), others),
            choice => return Ok(undecided(&choice)),
        },
    };
    let sidecar = sidecar(spec, keys, port.as_ref(), settings)?;
    Ok(Decision::Inject(Box::new(sidecar), port, others))
}

/// Why a pod gets no sidecar, whatever its ports are.
fn stays(annotations: &BTreeMap<String, String>, spec: &Value) -> Option<&'static str> {
    if annotations.get("inject").is_some_and(|value| value == "false") {
        return Some("its annotation flowtap.io/inject is \"false\"");
    }
    if is_for_windows(spec) {
        return Some("it is for Windows, and flowtap's image for Linux");
    }
    let named = containers(spec).any(|container| container["name"] == NAME);
    named.then_some("it has a container named flowtap already")
}

fn undecided(choice: &Choice) -> Decision {
    let listed = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    match choice {
        Choice::Unclear(ports) => Decision::Unclear(format!(
            "it has several ports ({}): say which one by the annotation flowtap.io/port, or leave it out \
             by flowtap.io/inject: \"false\"",
            listed(ports)
        )),
        Choice::Foreign(ports) => Decision::Leave(format!(
            "by name or number it takes no plain HTTP ({}); the annotation flowtap.io/port says otherwise",
            listed(ports)
        )),
        _ => Decision::Leave(
            "it has no container port, and no annotation flowtap.io/upstream".to_owned(),
        ),
    }
}

/// `flowtap.io/*` of the object and of its pods, which go before; names without the prefix.
fn annotations(object: &Value, template: &Value) -> BTreeMap<String, String> {
    let of =
        |value: &Value| value["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let all = of(object).into_iter().chain(of(template));
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    all.filter_map(|(name, value)| {
        Some((name.strip_prefix("flowtap.io/")?.to_owned(), text(value)))
    })
    .collect()
}

fn is_for_windows(spec: &Value) -> bool {
    let selector = &spec["nodeSelector"];
    let labels = ["kubernetes.io/os", "beta.kubernetes.io/os"];
    spec["os"]["name"] == "windows" || labels.iter().any(|label| selector[label] == "windows")
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let of = |key: &str| spec[key].as_array().into_iter().flatten();
    of("containers").chain(of("initContainers"))
}

fn sidecar(
    spec: &Value,
    mut keys: keys::Keys,
    port: Option<&AppPort>,
    settings: &Settings,
) -> Result<Sidecar, Refusal> {
    let taken: BTreeSet<u16> = port::ports(spec).into_iter().map(|(number, _)| number).collect();
    let host = if port.is_some() { "0.0.0.0" } else { "127.0.0.1" };
    if let Some(port) = port {
        keys.set_default("FLOWTAP_TAPS__0__UPSTREAM", format!("http://127.0.0.1:{}", port.number));
        // The application sees the name that it was called by, as it did before.
        keys.set_default("FLOWTAP_TAPS__0__HOST", "client".to_owned());
    }
    let free = |from: u16| (from..).find(|port| !taken.contains(port)).unwrap_or(from);
    keys.set_default("FLOWTAP_ADMIN__LISTEN", format!("0.0.0.0:{}", free(ADMIN_PORT)));
    keys.set_default("FLOWTAP_TAPS__0__LISTEN", format!("{host}:{}", free(LISTEN_PORT)));
    let admin_port = keys.port_of("FLOWTAP_ADMIN__LISTEN").unwrap_or(ADMIN_PORT);
    let listen = keys.port_of("FLOWTAP_TAPS__0__LISTEN");
    if let Some(taken) = listen.filter(|listen| taken.contains(listen)) {
        return Err(Refusal::new(format!(
            "port {taken}, where the tap shall listen, is a container's own"
        )));
    }
    keys.check()?;
    Ok(Sidecar {
        image: keys.image.unwrap_or_else(|| settings.image.clone()),
        environment: keys.environment,
        port: listen.filter(|_| port.is_some()),
        port_name: NAME.to_owned(),
        admin_port,
        secret: keys.secret,
        memory: keys.memory.unwrap_or_else(|| MEMORY.to_owned()),
        grace_seconds: spec["terminationGracePeriodSeconds"].as_u64(),
    })
}
