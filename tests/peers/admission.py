"""Asks the webhook at a URL as an API server does, over TLS with the authority given, and holds its answers
against the form of AdmissionReview v1: each patch is applied by a JSON patch library, and the pod that comes
of it is held against three versions of Kubernetes. Prints what it checked.   admission.py URL CA_FILE"""

import base64
import copy
import http.client
import json
import random
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
        return self.answer(review(found))

    def answer(self, asked):
        """The object after the patch, and the warnings: the answer is of the form that the API server takes."""
        found = asked["request"].get("object")
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


def changed(asked, **request):
    """The review with other fields in its request; None takes one out."""
    fields = {**asked["request"], **request}
    return {**asked, "request": {key: value for key, value in fields.items() if value is not None}}


def check_others(server, asking, spec):
    """What is no new pod is allowed and left; a new pod gets its patch, whatever else the review has."""
    wanted = review(pod(asking, spec))
    of = lambda kind, **more: {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "annotations": asking}, **more}
    for asked in [
        changed(wanted, operation="DELETE", oldObject=wanted["request"]["object"]),
        changed(wanted, operation="UPDATE", oldObject=wanted["request"]["object"]),
        changed(wanted, operation="UPDATE", subResource="ephemeralcontainers"),
        changed(wanted, operation="CONNECT", subResource="exec", object=of("PodExecOptions")),
        changed(wanted, subResource="eviction", object=of("Eviction")),
        changed(wanted, subResource="binding", object=of("Binding", target={"kind": "Node", "name": "n"})),
        changed(wanted, object=of("Deployment", spec={"template": {"spec": spec}})),
        changed(wanted, object=of("Pod", spec=None)), changed(wanted, object=of("Pod", spec="none")),
        changed(wanted, object=of("Pod", spec={"containers": None})), changed(wanted, object=of("Pod", spec={"containers": [1, [], None]})),
        changed(wanted, object={"kind": "Pod", "metadata": None, "spec": spec}), changed(wanted, object=[]), changed(wanted, object=None),
    ]:
        if asked["request"]["operation"] == "DELETE":
            asked["request"]["object"] = None
        found, _ = server.answer(asked)
        assert found == asked["request"].get("object"), asked
    nameless = pod(asking, spec)
    nameless["metadata"] = {"generateName": "app-", "annotations": asking}
    large = pod({**asking, "example.com/large": "x" * 1_400_000}, spec)
    for asked in [changed(wanted, dryRun=True), changed(wanted, namespace=None), review(nameless), review(large),
                  {**wanted, "later": 1}, changed(wanted, later={"a": [1]})]:
        found, _ = server.answer(asked)
        assert found["spec"]["initContainers"][0]["name"] == "flowtap"


def check_malformed(server):
    """What is no review of v1 is a client error, told in words."""
    good = review(pod({}, {"containers": []}))
    for body in [
        b"", b"{}", b"not json", b"null", b"[1]", b"\xff\xfe", b'"text"', json.dumps(good).encode("utf-16"), json.dumps(good)[:-9],
        b"[" * 100_000, json.dumps({**good, "apiVersion": "admission.k8s.io/v1beta1"}), json.dumps({**good, "kind": "Review"}),
        json.dumps({**good, "request": None}), json.dumps({**good, "request": {"uid": 3}}),
        json.dumps(changed(good, operation=None)), json.dumps(changed(good, uid=None)),
    ]:
        status, told = server.post(body)
        assert status == 400 and b"AdmissionReview" in told, (status, told, body[:80])
    try:
        assert server.post(b"x" * (9 * 1024 * 1024))[0] == 413
    except (ConnectionError, ssl.SSLError):
        pass  # It was told 413, and its connection closed, before it had sent all.
    assert server.post(b"{}", "/other")[0] == 404


def made_up(draw):
    """A pod of random containers, ports, probes and annotations."""
    names, containers = ["http", "metrics", "grpc", "web", None, None], []
    for index in range(draw.randint(1, 3)):
        ports = [{"containerPort": number, **({"name": name} if name else {})}
                 for number, name in zip(draw.sample([80, 8080, 3000, 6379, 9464, 15080], draw.randint(0, 3)), draw.sample(names, 3))]
        one = {"name": f"c{index}", "image": "app:1", "ports": ports}
        for probe in draw.sample(["readinessProbe", "livenessProbe", "startupProbe"], draw.randint(0, 2)):
            if ports:
                port = draw.choice(ports)
                one[probe] = {draw.choice(["httpGet", "tcpSocket"]): {"port": port.get("name", port["containerPort"])}}
        containers.append(one)
    annotations = {"flowtap.io/inject": "true"}
    for key, value in [("port", "http"), ("port", "80"), ("deployment", "blue"), ("sample.rate", "nine"), ("tap.m.upstream", "http://m"),
                       ("tap.m.listen", "127.0.0.1:9999"), ("upstream", "http://a.example"), ("nonsense", "x"), ("memory", "64Mi")]:
        if draw.random() < 0.15:
            annotations[f"flowtap.io/{key}"] = value
    spec = {"containers": containers}
    for key, item in [("initContainers", {"name": "i", "image": "i:1"}), ("volumes", {"name": "v", "emptyDir": {}})]:
        if draw.random() < 0.6:
            spec[key] = draw.choice([[item], [], None])
    return pod(annotations, spec)


def check_made_up(server, counts):
    """Whatever the pod, it is allowed; what comes of it is a pod, whose names are unique and lead where they led."""
    draw, injected = random.Random(20261127), 0
    for _ in range(150):
        before = made_up(draw)
        after, warnings = server.mutate(before)
        if after == before:
            assert warnings, before
            continue
        injected += 1
        containers = after["spec"]["initContainers"] + after["spec"]["containers"]
        assert [container["name"] for container in containers].count("flowtap") == 1
        assert [volume["name"] for volume in after["spec"]["volumes"]].count("flowtap") == 1
        for container, was in zip(after["spec"]["containers"], before["spec"]["containers"]):
            for ports in (container["ports"], was["ports"]):
                names = [port["name"] for port in ports if "name" in port]
                assert len(names) == len(set(names)), container
            assert [port["containerPort"] for port in container["ports"]] == [port["containerPort"] for port in was["ports"]]
            number = lambda one, port: next((p["containerPort"] for p in one["ports"] if p.get("name") == port), port)
            for probe in ["readinessProbe", "livenessProbe", "startupProbe"]:
                for action, told in was.get(probe, {}).items():
                    assert number(container, container[probe][action]["port"]) == number(was, told["port"]), (container, was)
        again, _ = server.mutate(after)
        assert again == after
        if injected <= 25:
            validate_manifests.check("made up", yaml.safe_dump(after), counts)
    assert injected > 50, injected


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

    check_others(server, asking, plain)
    check_malformed(server)
    check_made_up(server, counts)
    print(" ".join(f"{key}={value}" for key, value in counts.items()))


if __name__ == "__main__":
    main()
