//! Ways into a pod that lead past its sidecar, or that the sidecar shares: told, never changed.

use serde_json::Value;

use super::port::AppPort;
use super::sidecar::Sidecar;

/// What the owner of a pod with `spec` should know of `sidecar` before its port `app`.
pub(super) fn notes(spec: &Value, app: &AppPort, sidecar: &Sidecar) -> Vec<String> {
    let mut notes = Vec::new();
    let of = |key: &str| spec[key].as_array().into_iter().flatten();
    let containers = of("containers").chain(of("initContainers"));
    let ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    let app_port = |port: &&Value| port["containerPort"].as_u64() == Some(u64::from(app.number));
    if spec["hostNetwork"] == true {
        let own = sidecar.port.into_iter().chain([sidecar.admin_port]);
        let own: Vec<String> = own.map(|port| port.to_string()).collect();
        notes.push(format!(
            "it shares the node's network: flowtap takes the node's ports {}, and who calls port {} of the \
             node passes flowtap by",
            own.join(" and "),
            app.number
        ));
    } else {
        let on_node = ports.filter(app_port).filter_map(|port| port["hostPort"].as_u64());
        notes.extend(
            on_node.map(|port| {
                format!("who calls port {port} of the node (hostPort) passes flowtap by")
            }),
        );
    }
    notes
}

/// A Service without an address of its own: its name leads to the pods, on whatever port is called.
pub(super) fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::{Settings, plan};
    use serde_json::json;

    fn noted(spec: Value) -> Vec<String> {
        let settings = Settings { image: "flowtap:test".to_owned(), set: Vec::new() };
        let template = json!({"spec": spec});
        match plan::decide(&template, &template, &[], &settings).expect("no refusal") {
            plan::Decision::Inject(sidecar, Some(app), _) => {
                notes(&template["spec"], &app, &sidecar)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_of_the_node_are_told() {
        let with = |port: Value| json!({"containers": [{"name": "a", "ports": [port]}]});
        assert!(noted(with(json!({"containerPort": 80}))).is_empty());
        let told = noted(with(json!({"containerPort": 80, "hostPort": 8080})));
        assert!(told.len() == 1 && told[0].contains("8080"), "{told:?}");
        let mut spec = with(json!({"containerPort": 80, "hostPort": 80}));
        spec["hostNetwork"] = json!(true);
        let told = noted(spec);
        assert!(told.len() == 1 && told[0].contains("15080 and 9464"), "{told:?}");
    }
}
