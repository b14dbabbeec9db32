"""Asks the webhook at a URL as an API server does, over TLS with the authority given, and holds its answers
against the form of AdmissionReview v1: each patch is applied by a JSON patch library, and the pod that comes
of it is held against three versions of Kubernetes. Prints what it checked.   admission.py URL CA_FILE"""

import base64
import copy
import http.client
import json
import ssl
import sys
import urllib.parse
import uuid

import jsonpatch
import yaml

import validate_manifests

KINDS = {"group": "", "version": "v1"}


def pod(annotations, spec):
    meta = {"name": "app-5d4f8c7b9-x2x7p", "namespace": "shop", "labels": {"app": "app"}, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def review(found):
    """As the API server of 1.33 writes it."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": {**KINDS, "kind": "Pod"},
            "resource": {**KINDS, "resource": "pods"},
            "requestKind": {**KINDS, "kind": "Pod"},
            "requestResource": {**KINDS, "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
            "object": found,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }


class Server:
    def __init__(self, url, ca_file):
        self.place, self.context = urllib.parse.urlsplit(url), ssl.create_default_context(cafile=ca_file)

    def post(self, body, path="/mutate?timeout=5s"):
        connection = http.client.HTTPSConnection(self.place.hostname, self.place.port, context=self.context, timeout=10)
        connection.request("POST", path, body, {"Content-Type": "application/json", "Accept": "application/json, */*"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def mutate(self, found):
        """The pod after the patch, and the warnings."""
        asked = review(found)
        status, body = self.post(json.dumps(asked))
        assert status == 200, (status, body)
        answer = json.loads(body)
        assert set(answer) == {"apiVersion", "kind", "response"}, answer
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response = answer["response"]
        assert set(response) <= {"uid", "allowed", "patchType", "patch", "warnings", "status", "auditAnnotations"}
        assert response["uid"] == asked["request"]["uid"] and response["allowed"] is True
        assert ("patch" in response) == ("patchType" in response)
        changed = copy.deepcopy(found)
        if "patch" in response:
            assert response["patchType"] == "JSONPatch"
            changed = jsonpatch.apply_patch(found, json.loads(base64.b64decode(response["patch"], validate=True)))
        return changed, response.get("warnings", [])


def main():
    server = Server(*sys.argv[1:3])
    counts = {"valid": 0, "unknown_kinds": 0, "restricted": 0}
    app = {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}],
           "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}}}
    volumes = [{"name": "kube-api-access-7xk2p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
    plain = {"containers": [app], "volumes": volumes}
    asking = {"flowtap.io/inject": "true", "flowtap.io/deployment": "blue", "flowtap.io/bucket": "s3://samples/x"}

    found, warnings = server.mutate(pod({}, plain))
    assert found == pod({}, plain) and not warnings

    found, warnings = server.mutate(pod(asking, plain))
    validate_manifests.check("injected", yaml.safe_dump(found), counts)
    sidecar = found["spec"]["initContainers"][0]
    assert sidecar["name"] == "flowtap" and sidecar["restartPolicy"] == "Always" and not warnings, (sidecar, warnings)
    assert {"name": "http", "containerPort": 15080} in sidecar["ports"]
    changed = found["spec"]["containers"][0]
    assert changed["ports"] == [{"name": "flowtap-app", "containerPort": 8080}]
    assert changed["readinessProbe"]["httpGet"]["port"] == 8080
    assert [volume["name"] for volume in found["spec"]["volumes"]] == ["flowtap", volumes[0]["name"]]
    variables = {variable["name"]: variable["value"] for variable in sidecar["env"]}
    assert variables["FLOWTAP_TAPS__0__UPSTREAM"] == "http://127.0.0.1:8080"
    assert variables["FLOWTAP_TAPS__0__DEPLOYMENT"] == "blue" and variables["FLOWTAP_SAMPLE__RATE"] == "0.25"

    again, warnings = server.mutate(found)
    assert again == found and "already" in warnings[0], warnings

    wait = {"name": "wait", "image": "busybox"}
    unnamed = {"containers": [{"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]}], "initContainers": [wait]}
    found, warnings = server.mutate(pod(asking, unnamed))
    validate_manifests.check("unnamed", yaml.safe_dump(found), counts)
    assert [container["name"] for container in found["spec"]["initContainers"]] == ["flowtap", "wait"]
    assert "targetPort: flowtap" in warnings[0]

    refused, warnings = server.mutate(pod({**asking, "flowtap.io/sample.rate": "nine"}, plain))
    assert "initContainers" not in refused["spec"] and "sample.rate" in warnings[0], warnings

    for body in [b"", b"{}", b"not json", json.dumps({**review(pod({}, plain)), "apiVersion": "admission.k8s.io/v1beta1"})]:
        assert server.post(body)[0] == 400, body
    try:
        assert server.post(b"x" * (9 * 1024 * 1024))[0] == 413
    except (ConnectionError, ssl.SSLError):
        pass  # It was told 413, and its connection closed, before it had sent all.
    assert server.post(b"{}", "/other")[0] == 404
    print(" ".join(f"{key}={value}" for key, value in counts.items()))


if __name__ == "__main__":
    main()
