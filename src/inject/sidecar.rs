//! The container that is injected, and its volume: what the restricted Pod Security Standard asks for,
//! and little more.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The container's and the volume's name, and that of the port that callers reach.
pub const NAME: &str = "flowtap";
/// The port for metrics and health, or the next that is free.
pub(super) const ADMIN_PORT: u16 = 9464;
/// Where spool and bucket lie.
const DATA_DIR: &str = "/var/lib/flowtap";
/// The volume may grow to twice the spool.
const SPOOL_BYTES: &str = "512MiB";
const VOLUME_BYTES: &str = "1Gi";
/// The memory limit: docs/OPERATIONS.md tells what it is made of.
pub(super) const MEMORY: &str = "512Mi";
/// What a pod gets to end in where it does not say.
const GRACE_SECONDS: u64 = 30;

/// A sidecar for one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The image.
    pub image: String,
    /// `FLOWTAP_*` variables, by name.
    pub environment: BTreeMap<String, String>,
    /// The port that takes the traffic; `None` where only the pod itself uses the tap.
    pub port: Option<u16>,
    /// What that port is called.
    pub port_name: String,
    /// The port for metrics and health.
    pub admin_port: u16,
    /// A Secret whose entries become variables.
    pub secret: Option<String>,
    /// The container's memory limit, in Kubernetes' words.
    pub memory: String,
    /// The pod's own `terminationGracePeriodSeconds`.
    pub grace_seconds: Option<u64>,
}

impl Sidecar {
    /// An entry of `initContainers`: a native sidecar, which starts before the pod's containers and ends
    /// after them (Kubernetes 1.29).
    pub fn container(&self) -> Value {
        let mut container = json!({
            "name": NAME,
            "image": self.image,
            "restartPolicy": "Always",
            "args": ["proxy"],
            "env": self.variables(),
        });
        if let Some(secret) = &self.secret {
            container["envFrom"] = json!([{"secretRef": {"name": secret}}]);
        }
        container["ports"] = self.ports();
        container["startupProbe"] = json!({
            "httpGet": {"path": "/readyz", "port": "flowtap-admin"},
            "periodSeconds": 1,
            "failureThreshold": 30,
        });
        container["resources"] = json!({
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": self.memory},
        });
        container["securityContext"] = json!({
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        container["volumeMounts"] = json!([{"name": NAME, "mountPath": DATA_DIR}]);
        container
    }

    /// An entry of `volumes`: the spool outlives a restart of the container, and ends with the pod.
    pub fn volume(&self) -> Value {
        json!({"name": NAME, "emptyDir": {"sizeLimit": VOLUME_BYTES}})
    }

    fn ports(&self) -> Value {
        let traffic = self.port.map(|port| json!({"name": self.port_name, "containerPort": port}));
        let admin = json!({"name": "flowtap-admin", "containerPort": self.admin_port});
        traffic.into_iter().chain([admin]).collect()
    }

    /// Defaults for a pod, and what was set over them, in the order of their names.
    fn variables(&self) -> Value {
        let own = [
            ("FLOWTAP_CAPTURE__MEMORY_BYTES_MAX", "32MiB".to_owned()),
            ("FLOWTAP_DATA_DIR", DATA_DIR.to_owned()),
            ("FLOWTAP_DRAIN_TIMEOUT", self.drain_timeout()),
            ("FLOWTAP_SPOOL__BYTES_MAX", SPOOL_BYTES.to_owned()),
        ];
        let mut all: BTreeMap<String, String> =
            own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        all.extend(self.environment.clone());
        // `$(NAME)` in a value is a reference to Kubernetes, `$$(NAME)` is the text.
        let one = |(name, value): (String, String)| json!({"name": name, "value": value.replace("$(", "$$(")});
        all.into_iter().map(one).collect()
    }

    /// Inside of the pod's grace period, with room for the containers that end before.
    fn drain_timeout(&self) -> String {
        let grace = self.grace_seconds.unwrap_or(GRACE_SECONDS);
        let seconds = grace.saturating_sub(5).max(grace / 2);
        format!("{seconds}s")
    }
}
