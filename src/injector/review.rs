//! AdmissionReview v1 in, AdmissionReview v1 out.
//!
//! Format: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::Injection;
use crate::inject;

const API: &str = "admission.k8s.io/v1";
/// Kubernetes cuts longer warnings.
const WARNING_CHARS_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    operation: String,
    #[serde(default)]
    object: Value,
}

/// The answer to a review, and what became of the pod; no answer to what is no review.
pub(super) fn answer(body: &[u8], settings: &inject::Settings) -> (Option<Value>, Injection) {
    let review = serde_json::from_slice::<Review>(body).ok();
    let review = review.filter(|r| r.api_version == API && r.kind == "AdmissionReview");
    let Some(Review { request, .. }) = review else { return (None, Injection::Malformed) };
    let is_new_pod = request.operation == "CREATE" && request.object["kind"] == "Pod";
    let patched = match is_new_pod {
        true => inject::patch(&request.object, settings),
        false => Ok(inject::PodPatch::default()),
    };
    let mut response = json!({"uid": request.uid, "allowed": true});
    let what = match patched {
        Ok(patch) => {
            let injected = !patch.operations.is_empty();
            if injected {
                response["patchType"] = json!("JSONPatch");
                response["patch"] =
                    json!(STANDARD.encode(Value::Array(patch.operations).to_string()));
            }
            warn(&mut response, &patch.notes);
            if injected { Injection::Injected } else { Injection::Left }
        }
        Err(refusal) => {
            warn(&mut response, &[format!("no sidecar: {}", refusal.message)]);
            Injection::Refused
        }
    };
    (Some(json!({"apiVersion": API, "kind": "AdmissionReview", "response": response})), what)
}

fn warn(response: &mut Value, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    let lines = notes.iter().map(|note| format!("flowtap: {}", note.replace('\n', " ")));
    response["warnings"] = lines
        .map(|line| Value::from(line.chars().take(WARNING_CHARS_MAX).collect::<String>()))
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> inject::Settings {
        inject::Settings { image: "flowtap:test".to_owned(), set: Vec::new() }
    }

    fn ask(object: Value) -> (Value, Injection) {
        let review = json!({"apiVersion": API, "kind": "AdmissionReview",
            "request": {"uid": "u-1", "operation": "CREATE", "object": object}});
        let (answer, what) = answer(review.to_string().as_bytes(), &settings());
        (answer.expect("an answer")["response"].clone(), what)
    }

    #[test]
    fn a_pod_is_never_denied() {
        let spec =
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}]}]});
        let asking = json!({"annotations": {"flowtap.io/inject": "true"}});
        let (response, what) = ask(json!({"kind": "Pod", "metadata": asking, "spec": spec}));
        assert_eq!(
            (what, &response["allowed"], &response["uid"]),
            (Injection::Injected, &json!(true), &json!("u-1"))
        );
        let patch = STANDARD.decode(response["patch"].as_str().expect("a patch")).expect("base64");
        assert!(serde_json::from_slice::<Vec<Value>>(&patch).expect("a list").len() >= 3);
        let (response, what) = ask(json!({"kind": "Pod", "metadata": {}, "spec": spec}));
        assert_eq!((what, response), (Injection::Left, json!({"uid": "u-1", "allowed": true})));
        let wrong =
            json!({"annotations": {"flowtap.io/inject": "true", "flowtap.io/sample.rate": "9"}});
        let (response, what) = ask(json!({"kind": "Pod", "metadata": wrong, "spec": spec}));
        assert_eq!((what, &response["allowed"]), (Injection::Refused, &json!(true)));
        let warning = response["warnings"][0].as_str().expect("a warning");
        assert!(
            warning.contains("sample.rate")
                && warning.chars().count() <= WARNING_CHARS_MAX
                && !warning.contains('\n')
        );
        let (_, what) = ask(json!({"kind": "Deployment"}));
        assert_eq!(what, Injection::Left);
    }

    #[test]
    fn what_is_no_review_gets_no_answer() {
        let other = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "u", "operation": "CREATE"}});
        for body in [&b""[..], b"{}", b"[1]", other.to_string().as_bytes(), &b"[".repeat(100_000)] {
            assert_eq!(answer(body, &settings()), (None, Injection::Malformed));
        }
    }
}
