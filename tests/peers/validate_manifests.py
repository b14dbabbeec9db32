"""Holds manifests (files, or - for stdin) against the schemas of three Kubernetes versions, and every
container named flowtap in them against the restricted Pod Security Standard. Prints what it checked."""

import sys

import kubernetes_validate
import yaml

VERSIONS = ["1.29", "1.33", "1.37"]


def objects(text):
    for document in yaml.safe_load_all(text):
        if document and document.get("kind", "").endswith("List"):
            # The items of a list of one kind need not bear it.
            own = {"apiVersion": document["apiVersion"], "kind": document["kind"].removesuffix("List")}
            yield from ({**own, **item} for item in document["items"])
        elif document:
            yield document


def pod_specs(value):
    """Every pod spec, wherever it is."""
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield value
        for inner in value.values():
            yield from pod_specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_specs(inner)


def restricted(container, pod):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, for one container."""
    own, of_pod = container.get("securityContext", {}), pod.get("securityContext", {})
    either = lambda key: own.get(key, of_pod.get(key))
    assert either("runAsNonRoot") is True, "runAsNonRoot"
    assert either("runAsUser") not in (0, None), "runAsUser"
    assert own.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation"
    assert own.get("capabilities", {}).get("drop") == ["ALL"], "capabilities"
    assert not own["capabilities"].get("add"), "added capabilities"
    assert (either("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"), "seccompProfile"
    assert own.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem"
    assert not own.get("privileged"), "privileged"
    assert all("hostPort" not in port for port in container.get("ports", [])), "hostPort"
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], "resources"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        assert "hostPath" not in volumes.get(mount["name"], {}), "hostPath"


def check(name, text, counts):
    for found in objects(text):
        kind = found.get("kind")
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(found, version, strict=True)
                counts["valid"] += 1
            except kubernetes_validate.SchemaNotFoundError:
                counts["unknown_kinds"] += 1
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"{name}: {kind}: {version}: {error.message} at {list(error.path)}")
        for pod in pod_specs(found):
            for container in pod.get("initContainers", []) + pod["containers"]:
                if container["name"].startswith("flowtap"):
                    try:
                        restricted(container, pod)
                    except AssertionError as error:
                        sys.exit(f"{name}: {kind}: not restricted: {error}")
                    counts["restricted"] += 1


def main():
    counts = {"valid": 0, "unknown_kinds": 0, "restricted": 0}
    for name in sys.argv[1:]:
        check(name, sys.stdin.read() if name == "-" else open(name, encoding="utf-8-sig").read(), counts)
    print(" ".join(f"{key}={value}" for key, value in counts.items()))


if __name__ == "__main__":
    main()
