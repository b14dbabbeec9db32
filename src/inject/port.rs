//! Which port of a pod the sidecar stands before: the one that takes plain HTTP requests.
//!
//! Manifests do not say what a port speaks; names, well-known numbers, probes and `appProtocol` tell. A
//! port that speaks something else (a database, gRPC, TLS) would be broken by a proxy of HTTP, so it is
//! taken over only where `flowtap.io/port` asks for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Refusal;

/// The port that the sidecar stands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppPort {
    pub(super) number: u16,
    pub(super) names: BTreeSet<String>,
}

/// What was chosen, and what not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one; the others stay as they are.
    One(AppPort, Vec<u16>),
    /// Several could be meant.
    Unclear(Vec<u16>),
    /// None takes plain HTTP.
    Foreign(Vec<u16>),
    /// There is no port.
    None,
}

/// What is known of how a port is spoken to.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    /// A name or a probe says HTTP.
    http: bool,
    /// A name says that it is the one for requests.
    main: bool,
    /// A name, a probe or the protocol says something else.
    foreign: bool,
    /// A name says metrics, health or the like.
    side: bool,
}

const HTTP: &[&str] = &["http", "http1", "web", "www", "api", "rest"];
const SIDE: &[&str] = &[
    "metrics",
    "metric",
    "prometheus",
    "monitoring",
    "telemetry",
    "admin",
    "management",
    "actuator",
    "health",
    "healthz",
    "healthcheck",
    "probe",
    "probes",
    "status",
    "debug",
    "pprof",
    "profiling",
];
#[rustfmt::skip]
const FOREIGN: &[&str] = &[
    "https", "tls", "ssl", "grpc", "grpcs", "h2c", "http2", "udp", "redis", "sentinel", "mysql", "mariadb",
    "postgres", "postgresql", "pgsql", "mongo", "mongodb", "memcache", "memcached", "amqp", "amqps", "mqtt",
    "kafka", "nats", "zookeeper", "cql", "cassandra", "thrift", "ldap", "ldaps", "dns", "smtp", "ssh", "ftp",
    "jmx", "epmd", "gossip", "raft", "memberlist", "peer", "peers",
];
/// TCP ports that are known for something else than plain HTTP
/// (<https://www.iana.org/assignments/service-names-port-numbers>, and the servers' own defaults).
#[rustfmt::skip]
const FOREIGN_NUMBERS: &[u16] = &[
    22, 25, 53, 389, 443, 465, 587, 636, 1433, 1521, 1883, 2181, 2379, 2380, 3306, 4222, 5432, 5671, 5672,
    6379, 6443, 8443, 8883, 9042, 9092, 9300, 11211, 26379, 27017, 50051,
];

/// The port asked for; else the one that Services send traffic to; else the only one: of those that take
/// plain HTTP.
pub(super) fn choose(
    spec: &Value,
    services: &[&Value],
    asked: Option<&str>,
) -> Result<Choice, Refusal> {
    let ports = ports(spec);
    if let Some(asked) = asked {
        let found = number_of(&ports, asked).ok_or_else(|| {
            Refusal::new(format!(
                "flowtap.io/port is `{asked}`, and no container port has that name"
            ))
        })?;
        return Ok(Choice::One(of_number(&ports, found), Vec::new()));
    }
    let mut candidates: BTreeMap<u16, Signs> = BTreeMap::new();
    for port in services.iter().flat_map(|service| service_ports(service)).filter(|p| is_tcp(p)) {
        let number = match target_of(port) {
            Value::String(name) => number_of(&ports, name),
            other => other.as_u64().and_then(|n| u16::try_from(n).ok()),
        };
        let Some(number) = number else { continue };
        let signs = candidates.entry(number).or_default();
        signs.name(port["name"].as_str());
        signs.protocol(port["appProtocol"].as_str());
    }
    if candidates.is_empty() {
        candidates = ports.iter().map(|(number, _)| (*number, Signs::default())).collect();
    }
    for (number, signs) in &mut candidates {
        ports.iter().filter(|(n, _)| n == number).for_each(|(_, name)| signs.name(*name));
        probes(spec).for_each(|probe| signs.probe(probe, &ports, *number));
    }
    Ok(of(&candidates, &ports))
}

fn of(candidates: &BTreeMap<u16, Signs>, ports: &[(u16, Option<&str>)]) -> Choice {
    let all = || candidates.keys().copied().collect::<Vec<_>>();
    let spoken = candidates.iter().filter(|(number, signs)| signs.is_http(**number));
    let spoken: Vec<(u16, Signs)> = spoken.map(|(number, signs)| (*number, *signs)).collect();
    let only = |keep: &dyn Fn(&Signs) -> bool| {
        let mut kept = spoken.iter().filter(|(_, signs)| keep(signs));
        kept.next().filter(|_| kept.next().is_none()).map(|(number, _)| *number)
    };
    let one = only(&|_| true)
        .or_else(|| only(&|signs| !signs.side))
        .or_else(|| only(&|signs| signs.main && !signs.side));
    match one {
        Some(number) => {
            let others = all().into_iter().filter(|other| *other != number).collect();
            Choice::One(of_number(ports, number), others)
        }
        None if candidates.is_empty() => Choice::None,
        None if spoken.is_empty() => Choice::Foreign(all()),
        None => Choice::Unclear(spoken.iter().map(|(number, _)| *number).collect()),
    }
}

impl Signs {
    fn name(&mut self, name: Option<&str>) {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        let (http, foreign) = (has(HTTP), has(FOREIGN));
        self.foreign |= foreign;
        self.http |= http && !foreign;
        self.main |= http && !foreign;
        self.side |= has(SIDE) && !http;
    }

    /// <https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol>.
    fn protocol(&mut self, protocol: Option<&str>) {
        match protocol {
            None => {}
            Some("http" | "HTTP" | "kubernetes.io/ws") => self.http = true,
            Some(_) => self.foreign = true,
        }
    }

    fn probe(&mut self, probe: &Value, ports: &[(u16, Option<&str>)], number: u16) {
        let asks = |port: &Value| match port {
            Value::String(name) => number_of(ports, name) == Some(number),
            other => other.as_u64() == Some(u64::from(number)),
        };
        self.foreign |= asks(&probe["grpc"]["port"]);
        if asks(&probe["httpGet"]["port"]) {
            match probe["httpGet"]["scheme"] == "HTTPS" {
                true => self.foreign = true,
                false => self.http = true,
            }
        }
    }

    fn is_http(self, number: u16) -> bool {
        self.http || !(self.foreign || FOREIGN_NUMBERS.contains(&number))
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let of = |key: &str| spec[key].as_array().into_iter().flatten();
    of("containers").chain(of("initContainers"))
}

fn probes(spec: &Value) -> impl Iterator<Item = &Value> {
    let all = ["readinessProbe", "livenessProbe", "startupProbe"];
    containers(spec).flat_map(move |one| all.into_iter().map(|probe| &one[probe]))
}

fn is_tcp(port: &Value) -> bool {
    port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP")
}

/// TCP port number and name, of all containers.
pub(super) fn ports(spec: &Value) -> Vec<(u16, Option<&str>)> {
    let ports = containers(spec).flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports
        .filter(|port| is_tcp(port))
        .filter_map(|port| {
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            Some((number, port["name"].as_str()))
        })
        .collect()
}

fn number_of(ports: &[(u16, Option<&str>)], text: &str) -> Option<u16> {
    let named = || ports.iter().find(|(_, own)| *own == Some(text)).map(|(number, _)| *number);
    text.parse::<u16>().ok().filter(|number| *number > 0).or_else(named)
}

fn of_number(ports: &[(u16, Option<&str>)], number: u16) -> AppPort {
    let names = ports.iter().filter(|(n, _)| *n == number).filter_map(|(_, name)| *name);
    // Several containers may use a name: it leads to the first of them.
    let names = names.filter(|name| {
        ports.iter().find(|(_, own)| *own == Some(*name)).is_some_and(|(first, _)| *first == number)
    });
    AppPort { number, names: names.map(str::to_owned).collect() }
}

/// The ports of a Service.
pub(super) fn service_ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

/// Where a Service's port leads to in a pod: a number or a name.
pub(super) fn target_of(port: &Value) -> &Value {
    port.get("targetPort").filter(|target| !target.is_null()).unwrap_or(&port["port"])
}

impl AppPort {
    /// A Service's port leads to it.
    pub(super) fn is_target_of(&self, port: &Value) -> bool {
        is_tcp(port)
            && match target_of(port) {
                Value::String(name) => self.names.contains(name),
                other => other.as_u64() == Some(u64::from(self.number)),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(spec: &Value, services: &[Value]) -> Choice {
        choose(spec, &services.iter().collect::<Vec<_>>(), None).expect("no refusal")
    }

    fn one_of(ports: Value) -> Choice {
        chosen(&json!({"containers": [{"ports": ports}]}), &[])
    }

    fn number(choice: &Choice) -> Option<u16> {
        match choice {
            Choice::One(port, _) => Some(port.number),
            _ => None,
        }
    }

    #[test]
    fn a_port_that_speaks_something_else_is_no_candidate() {
        for port in [
            json!({"containerPort": 6379}),
            json!({"containerPort": 7000, "name": "tcp-redis"}),
            json!({"containerPort": 8080, "name": "grpc"}),
            json!({"containerPort": 8081, "name": "https"}),
            json!({"containerPort": 7946, "name": "http-memberlist"}),
        ] {
            assert!(matches!(one_of(json!([port])), Choice::Foreign(_)), "{port}");
        }
        let plain = json!([{"containerPort": 6379, "name": "http"}]);
        assert_eq!(number(&one_of(plain)), Some(6379), "its name says otherwise");
        let udp = json!([{"containerPort": 53, "protocol": "UDP"}]);
        assert_eq!(one_of(udp), Choice::None);
        let mixed = json!([{"containerPort": 6379}, {"containerPort": 8000}]);
        assert!(
            matches!(one_of(mixed), Choice::One(port, others) if port.number == 8000 && others == [6379])
        );
    }

    #[test]
    fn names_and_probes_tell_the_port_for_requests_from_those_beside_it() {
        for ports in [
            json!([{"containerPort": 3100, "name": "http-metrics"}, {"containerPort": 9095, "name": "grpc"}, {"containerPort": 7946, "name": "http-memberlist"}]),
            json!([{"containerPort": 9090, "name": "metrics"}, {"containerPort": 3100, "name": "server"}]),
            json!([{"containerPort": 3100, "name": "web"}, {"containerPort": 5000, "name": "else"}]),
        ] {
            assert_eq!(number(&one_of(ports.clone())), Some(3100), "{ports}");
        }
        let both = json!([{"containerPort": 80}, {"containerPort": 81}]);
        assert_eq!(one_of(both), Choice::Unclear(vec![80, 81]));
        let probed = |probe: Value| {
            chosen(
                &json!({"containers": [{"ports": [{"containerPort": 8443}], "readinessProbe": probe}]}),
                &[],
            )
        };
        assert_eq!(number(&probed(json!({"httpGet": {"path": "/", "port": 8443}}))), Some(8443));
        let secure = json!({"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}});
        assert_eq!(probed(secure), Choice::Foreign(vec![8443]));
        let spec = json!({"containers": [{"ports": [{"containerPort": 9555}], "livenessProbe": {"grpc": {"port": 9555}}}]});
        assert_eq!(chosen(&spec, &[]), Choice::Foreign(vec![9555]));
    }

    #[test]
    fn services_tell_what_their_ports_are_for() {
        let spec =
            json!({"containers": [{"ports": [{"containerPort": 8080}, {"containerPort": 8083}]}]});
        let service = |ports: Value| json!({"spec": {"ports": ports}});
        let server = service(
            json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443, "targetPort": 8080}]),
        );
        let metrics = service(json!([{"name": "metrics", "port": 8083}]));
        assert_eq!(number(&chosen(&spec, &[server, metrics])), Some(8080));
        let typed = service(
            json!([{"port": 8080, "appProtocol": "kubernetes.io/h2c"}, {"port": 8083, "appProtocol": "http"}, {"port": 8080, "protocol": "UDP"}]),
        );
        assert_eq!(number(&chosen(&spec, &[typed])), Some(8083));
        let port = AppPort { number: 8080, names: ["web".to_owned()].into() };
        assert!(port.is_target_of(&json!({"port": 80, "targetPort": "web"})));
        assert!(!port.is_target_of(&json!({"port": 8080, "protocol": "UDP"})));
    }
}
