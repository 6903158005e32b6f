"""The chart: Helm lints and renders it (as a library: there is no `helm` in a registry of packages), the schemas of
Kubernetes' own API take what comes out, and what it promises is in it. No cluster runs it here."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.asgi.security import SecurityPolicy
from headrace.settings import Settings
from tests.deploy.helm import NEEDED, Refused, containers, helm, pods, render
from tests.deploy.parts import CHART, ROOT, program

KUBERNETES = ("1.27", "1.37")  # the chart's kubeVersion, and the newest that there are schemas of
EVERYTHING: dict[str, Any] = NEEDED | {
    "database": NEEDED["database"] | {"caConfigMap": {"name": "rds-ca"}},
    "artifacts": {
        "destination": "s3://b/p",
        "region": "eu-west-1",
        "endpoint": "http://s3",
        "credentialsSecret": "keys",
    },
    "adminTokenSecret": {"name": "mlflow-admin"},
    "settings": {"HEADRACE_GRANTS": True, "MLFLOW_WORKERS": 2, "MLFLOW_STATIC_PREFIX": "/mlflow"},
    "extraEnv": [
        {"name": "HEADRACE_OIDC_CLIENT_SECRET", "valueFrom": {"secretKeyRef": {"name": "oidc", "key": "secret"}}}
    ],
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "tlsSecret": "tls",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"},
    },
    "trustedProxies": "10.0.0.0/16",
    "migrate": True,
    "networkPolicy": {"enabled": True, "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/mlflow"}},
    "imagePullSecrets": [{"name": "registry"}],
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "affinity": {"podAntiAffinity": {}},
    "podLabels": {"team": "ml"},
    "podAnnotations": {"a": "b"},
    "service": {"annotations": {"a": "b"}},
}
BOTH = pytest.mark.parametrize("values", [NEEDED, EVERYTHING], ids=["what is needed", "everything"])


@BOTH
def test_helm_lints_it(values: dict[str, Any]) -> None:
    report = helm(values)["lint"]
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@BOTH
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(values: dict[str, Any], version: str, tmp_path: Path) -> None:
    assert check(render(values), version, tmp_path) == ""


def test_the_schemas_find_what_is_wrong(tmp_path: Path) -> None:
    objects = render(NEEDED)
    pods(objects)["Deployment"]["containers"][0]["readinesProbe"] = {}
    assert "readinesProbe" in check(objects, KUBERNETES[-1], tmp_path)


def check(objects: list[dict[str, Any]], version: str, folder: Path) -> str:
    """What is wrong, empty for nothing."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    command: list[str | Path] = [program("kubernetes-validate"), "--kubernetes-version", version, "--strict", file]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "repository"),
        (NEEDED | {"artifacts": {"destination": "/data"}}, "destination"),
        (NEEDED | {"database": {"host": "db"}}, "passwordSecret"),
        (NEEDED | {"settings": {"grants": "true"}}, "grants"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        helm(values)


@BOTH
def test_containers_are_locked_up(values: dict[str, Any]) -> None:
    found = pods(render(values))
    assert found.keys() == {"Deployment", "CronJob"}
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_secrets_come_by_reference() -> None:
    for container in containers(render(EVERYTHING)):
        by_reference = {each["name"] for each in container["env"] if "valueFrom" in each}
        assert {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "HEADRACE_OIDC_CLIENT_SECRET"} <= by_reference
        names = [each["name"] for each in container["env"]]
        assert len(names) == len(set(names))
    assert [each["kind"] for each in render(EVERYTHING) if each["kind"] == "Secret"] == []


def test_probes_and_the_end() -> None:
    pod = pods(render(NEEDED))["Deployment"]
    [server] = pod["containers"]
    assert server["livenessProbe"]["httpGet"]["path"] == server["startupProbe"]["httpGet"]["path"] == "/health"
    assert server["readinessProbe"]["httpGet"]["path"] == "/ready"
    env = {each["name"]: each.get("value") for each in server["env"]}
    delay, timeout = int(env["HEADRACE_SHUTDOWN_DELAY"]), int(env["HEADRACE_SHUTDOWN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] > delay + timeout
    probe = server["readinessProbe"]
    assert delay >= probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert env["MLFLOW_HOST"] == "0.0.0.0"
    assert "HEADRACE_INSECURE_NO_AUTH" not in env
    [server] = pods(render(EVERYTHING))["Deployment"]["containers"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/mlflow/ready"


def test_the_schema_is_brought_up_only_when_asked() -> None:
    assert "initContainers" not in pods(render(NEEDED))["Deployment"]
    pod = pods(render(EVERYTHING))["Deployment"]
    [first], [server] = pod["initContainers"], pod["containers"]
    assert first["args"] == ["db", "upgrade"]
    assert first["image"] == server["image"]


def test_the_server_understands_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    [server] = pods(render(EVERYTHING))["Deployment"]["containers"]
    env = {each["name"]: each.get("value", "0123456789abcdef" * 2) for each in server["env"]}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = resolved(env)
    assert settings.protected
    assert settings.grants
    assert settings.database is not None
    assert settings.database.shown == "postgresql://mlflow@db.example.com:5432/mlflow"
    assert (settings.artifacts_destination, settings.artifact_transfer) == ("s3://b/p", "always-proxy")


@pytest.mark.parametrize(
    ("values", "more"),
    [
        (NEEDED, []),
        (EVERYTHING, ["mlflow.example.com"]),
        (NEEDED | {"allowedHosts": "a.example,b.example"}, ["b.example"]),
    ],
    ids=["what is needed", "everything", "allowedHosts"],
)
def test_it_answers_by_the_names_that_it_is_called_by(values: dict[str, Any], more: list[str]) -> None:
    """Those in the notes among them; a monitoring system asks each pod by its address."""
    [server] = pods(render(values))["Deployment"]["containers"]
    hosts = next(each["value"] for each in server["env"] if each["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS")
    allows = SecurityPolicy(Settings(allowed_hosts=hosts)).allows_host
    [notes] = [text for name, text in helm(values)["rendered"].items() if name.endswith("NOTES.txt")]
    named = re.findall(r"https?://([\w.-]+\w)", notes)
    assert named[0] == "mlflow-headrace.ml"
    for host in (*named, *more, "mlflow-headrace", "mlflow-headrace.ml.svc.cluster.local:8080"):
        assert allows(host.encode()), host
    for host in ("localhost:5000", "127.0.0.1:5000", "10.1.2.3:5000", "172.31.0.1:5000", "192.168.1.1"):
        assert allows(host.encode()), host
    for host in ("evil.example", "10.evil.example", "mlflow-headrace.evil.example", "172.32.0.1"):
        assert not allows(host.encode()), host


def resolved(env: dict[str, str]) -> Settings:
    from headrace.settings.resolve import resolve

    return resolve({}, env)


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
    json.loads((CHART / "values.schema.json").read_text())
