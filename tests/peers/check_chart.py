"""Holds helm/flowtap to account with Helm itself: lint and render over every value set in
tests/fixtures/helm, every manifest against three versions of Kubernetes, its values against its schema.
Writes the configurations that it renders to the folder given, one file each, for flowtap to check, and
the objects of operators to the file given, one as JSON a line, for check_custom.mjs."""

import json
import pathlib
import re
import shutil
import sys
import tempfile

import yaml
from helm_python.chart import Chart, lint

import validate_manifests

CHART = "helm/flowtap"
SETS = pathlib.Path("tests/fixtures/helm")
# Kinds that Kubernetes itself does not know.
OPERATORS = ("keda.sh/", "cert-manager.io/", "monitoring.coreos.com/")


def load(path):
    return yaml.safe_load(path.read_text()) or {}


def render(chart, values, name="release"):
    with Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        return loaded.render(values=values, name=name, namespace="shop")


def laid_over(base, values):
    """As Helm lays a file of values over another."""
    if not isinstance(base, dict) or not isinstance(values, dict):
        return values
    return {**base, **{key: laid_over(base.get(key), value) for key, value in values.items()}}


def check_good(path, values, folder, custom, counts):
    report = lint(CHART, values, strict=True, namespace="shop")
    messages = [message for message in report["messages"] if message["severity"] >= 2]
    assert not messages and not report["errors"], (path, report)
    for template, text in render(CHART, values).items():
        if not template.endswith(".yaml"):
            continue
        check_keys(path, text)
        validate_manifests.check(f"{path}: {template}", text, counts)
        for found in validate_manifests.objects(text):
            if found["apiVersion"].startswith(OPERATORS):
                custom.write(json.dumps(found) + "\n")
            configs = found.get("data", {}) if found["kind"] == "ConfigMap" else {}
            for config in configs.values():
                if "flowtap.yaml" in configs:
                    part = pathlib.Path(template).stem
                    (folder / f"{path.stem}-{part}.yaml").write_text(config)


class Once(yaml.SafeLoader):
    """Takes no key twice in a map, as Kubernetes takes none."""


def once(loader, node, deep=False):
    keys = [loader.construct_object(key, deep=deep) for key, _ in node.value]
    assert len(keys) == len(set(keys)), (keys, str(node.start_mark))
    return loader.construct_yaml_map(node)


Once.add_constructor("tag:yaml.org,2002:map", once)
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_keys(path, text):
    """What the schemas do not say: keys stand once, and volumes and containers have names of the allowed form."""
    for found in yaml.load_all(text, Once):
        for pod in validate_manifests.pod_specs(found):
            for one in pod.get("volumes", []) + pod["containers"]:
                assert NAME.fullmatch(one["name"]) and len(one["name"]) <= 63, (path, one["name"])


def check_refused(path, wanted, values):
    try:
        render(CHART, values)
    except Exception as error:
        assert wanted in str(error), (path, wanted, str(error))
    else:
        sys.exit(f"{path} renders")


def check_upgrade(sets):
    """Whatever values change, selectors and names of claims stay, which Kubernetes lets nobody change."""
    def fixed(values):
        texts = "\n---\n".join(text for name, text in render(CHART, values).items() if name.endswith(".yaml"))
        found = [found for found in validate_manifests.objects(texts) if found["kind"] == "Deployment"]
        return {one["metadata"]["name"]: one["spec"]["selector"] for one in found}

    first = {}
    for name, values in sets:
        if not {"nameOverride", "fullnameOverride"} & set(values):
            for key, selector in fixed(values).items():
                assert first.setdefault(key, selector) == selector, (name, key)


def check_notes(base):
    """What an operator is told to do next names the release's own objects."""
    values = laid_over(base, {"injector": {"enabled": True}})
    told = next(text for name, text in render(CHART, values, "flowtap").items() if name.endswith("NOTES.txt"))
    for wanted in ["service/flowtap 9464:9464", "flowtap.io/injection=enabled", 'flowtap.io/inject: "true"', "flowtap-admin"]:
        assert wanted in told, (wanted, told)


def check_described(schema, path=""):
    """Every value has a description, and none is unknown."""
    for name, value in schema.get("properties", {}).items():
        assert value.get("description"), f"{path}{name} has no description"
        check_described(value, f"{path}{name}.")


def check_complete(schema, values, path=""):
    """The schema knows every value of values.yaml, and values.yaml every one of the schema's."""
    known = set(schema.get("properties", {})) - ({"global"} if not path else set())
    if not known:
        return
    assert schema["additionalProperties"] is False, path
    assert known == set(values), (path, known ^ set(values))
    for name, value in values.items():
        check_complete(schema["properties"][name], value, f"{path}{name}.")


def check_sidecar(counts):
    """Another chart includes the sidecar by its named templates."""
    with tempfile.TemporaryDirectory() as folder:
        app = pathlib.Path(folder) / "app"
        shutil.copytree(SETS / "app", app)
        shutil.copytree(CHART, app / "charts/flowtap")
        rendered = render(str(app), {}, "shop")
        text = rendered["app/templates/app.yaml"]
        validate_manifests.check("app", text, counts)
        container = next(validate_manifests.pod_specs(yaml.safe_load(text.split("\n---")[0])))["initContainers"][0]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert variables["FLOWTAP_SAMPLE__RATE"] == "0.5" and variables["FLOWTAP_TAPS__0__DEPLOYMENT"] == "blue", variables
        assert variables["FLOWTAP_BUCKET"] == "s3://samples/app" and container["restartPolicy"] == "Always"


def main():
    folder = pathlib.Path(sys.argv[1])
    counts = {"valid": 0, "unknown_kinds": 0, "restricted": 0}
    more = load(SETS / "values.yaml")
    good = [(path, load(path)) for path in sorted(SETS.glob("good/*.yaml"))]
    good += [(pathlib.Path(name), laid_over(more["base"], values)) for name, values in more["good"].items()]
    refused = [(path, path.with_suffix(".txt").read_text().strip(), load(path)) for path in sorted(SETS.glob("refused/*.yaml"))]
    refused += [(values, wanted, laid_over(more["base"], values)) for wanted, values in more["refused"]]
    with open(sys.argv[2], "w", encoding="utf-8") as custom:
        for path, values in good:
            check_good(path, values, folder, custom, counts)
    for one in refused:
        check_refused(*one)
    check_upgrade(good)
    check_notes(more["base"])
    with Chart.load(CHART) as chart:
        check_described(chart.schema)
        check_complete(chart.schema, chart.values)
    check_sidecar(counts)
    print(f"good={len(good)} refused={len(refused)} " + " ".join(f"{k}={v}" for k, v in counts.items()))


if __name__ == "__main__":
    main()
