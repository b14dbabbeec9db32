//! What a workload gets: which port is taken over, which keys are set, or why nothing is done.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::sidecar::{ADMIN_PORT, MEMORY, NAME, Sidecar};
use super::{Refusal, Settings, keys};

/// Where the tap listens unless told otherwise; the next ones where the pod has taken it.
const LISTEN_PORT: u16 = 15080;

/// What is done with a workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// It gets a sidecar that takes over a port of the pod's, if one is told.
    Inject(Box<Sidecar>, Option<AppPort>),
    /// It stays as it is; why, in words.
    Leave(&'static str),
}

/// The port that the sidecar stands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppPort {
    pub(super) number: u16,
    pub(super) names: BTreeSet<String>,
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

/// The ports that Services send to a pod: numbers or names.
pub(super) fn service_targets(service: &Value) -> impl Iterator<Item = &Value> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.map(|port| {
        port.get("targetPort").filter(|target| !target.is_null()).unwrap_or(&port["port"])
    })
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
    if annotations.get("inject").is_some_and(|value| value == "false") {
        return Ok(Decision::Leave("its annotation flowtap.io/inject is \"false\""));
    }
    let spec = &template["spec"];
    if is_for_windows(spec) {
        return Ok(Decision::Leave("it is for Windows, and flowtap's image for Linux"));
    }
    if containers(spec).any(|container| container["name"] == NAME) {
        return Ok(Decision::Leave("it has a container named flowtap already"));
    }
    if spec["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == NAME) {
        return Err(Refusal::new("it has a volume named flowtap, which the sidecar needs"));
    }
    let keys = keys::read(&annotations, &settings.set)?;
    let port = match keys.upstream() {
        Some(_) => None,
        None => match app_port(spec, services, keys.port.as_deref())? {
            None => {
                return Ok(Decision::Leave(
                    "it has no container port, and no annotation flowtap.io/upstream",
                ));
            }
            some => some,
        },
    };
    let sidecar = sidecar(spec, keys, port.as_ref(), settings)?;
    Ok(Decision::Inject(Box::new(sidecar), port))
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

/// Port number and name, of all containers.
fn ports(spec: &Value) -> Vec<(u16, Option<&str>)> {
    let ports = containers(spec).flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let tcp =
        ports.filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|port| {
        let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
        Some((number, port["name"].as_str()))
    })
    .collect()
}

/// The port asked for; else the one that Services send traffic to; else the only one.
fn app_port(
    spec: &Value,
    services: &[&Value],
    asked: Option<&str>,
) -> Result<Option<AppPort>, Refusal> {
    let ports = ports(spec);
    let named = |name: &str| ports.iter().find(|(_, own)| *own == Some(name)).map(|(n, _)| *n);
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0).or_else(|| named(text));
    if let Some(asked) = asked {
        let found = number(asked).ok_or_else(|| {
            Refusal::new(format!(
                "flowtap.io/port is `{asked}`, and no container port has that name"
            ))
        })?;
        return Ok(Some(of_number(&ports, found)));
    }
    let targets = services.iter().flat_map(|service| service_targets(service));
    let resolve = |target: &Value| match target {
        Value::String(name) => number(name),
        other => other.as_u64().and_then(|n| u16::try_from(n).ok()),
    };
    let targeted: BTreeSet<u16> = targets.filter_map(resolve).collect();
    let own: BTreeSet<u16> = ports.iter().map(|(n, _)| *n).collect();
    let candidates = if targeted.is_empty() { own } else { targeted };
    match candidates.len() {
        0 => Ok(None),
        1 => Ok(candidates.first().map(|number| of_number(&ports, *number))),
        _ => {
            let list = candidates.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            Err(Refusal::new(format!(
                "it has several ports ({list}): say which one by the annotation flowtap.io/port, or leave \
                 it out by flowtap.io/inject: \"false\""
            )))
        }
    }
}

fn of_number(ports: &[(u16, Option<&str>)], number: u16) -> AppPort {
    let names = ports.iter().filter(|(n, _)| *n == number).filter_map(|(_, name)| *name);
    AppPort { number, names: names.map(str::to_owned).collect() }
}

fn sidecar(
    spec: &Value,
    mut keys: keys::Keys,
    port: Option<&AppPort>,
    settings: &Settings,
) -> Result<Sidecar, Refusal> {
    let taken: BTreeSet<u16> = ports(spec).into_iter().map(|(number, _)| number).collect();
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
