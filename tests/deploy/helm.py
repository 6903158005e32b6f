"""Helm itself, as a library in an environment of its own: the chart linted and rendered."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from typing import Any

import yaml

from tests.deploy.parts import CHART, program

# what a user must say
NEEDED: dict[str, Any] = {
    "image": {"repository": "registry.example.com/headrace"},
    "database": {"host": "db.example.com", "passwordSecret": {"name": "mlflow-database"}},
    "artifacts": {"destination": "s3://mlflow-artifacts"},
}
_SCRIPT = """
import json, sys
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError
chart, values = sys.argv[1], json.loads(sys.argv[2])
try:
    with Chart.load(chart) as loaded:
        rendered = loaded.render(values, name="mlflow", namespace="ml")
    print(json.dumps({"lint": lint(chart, values, strict=True), "rendered": rendered}))
except HelmError as error:
    sys.exit(str(error))
"""


class Refused(Exception):
    """Helm's words about values or the chart."""


def helm(values: dict[str, Any]) -> dict[str, Any]:
    """`lint`: the report of `helm lint --strict`; `rendered`: path -> what `helm template` makes of it."""
    answer: dict[str, Any] = json.loads(_helm(json.dumps(values)))
    return answer


@cache
def _helm(values: str) -> str:
    done = subprocess.run([program("python"), "-c", _SCRIPT, CHART, values], capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that an installation with these values makes."""
    rendered = helm(values)["rendered"]
    texts = [text for name, text in rendered.items() if not name.endswith("NOTES.txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specifications of pods, by the kind of what makes them."""
    found = {}
    for each in objects:
        if each["kind"] == "Deployment":
            found["Deployment"] = each["spec"]["template"]["spec"]
        elif each["kind"] == "CronJob":
            found["CronJob"] = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The containers of all pods."""
    found = pods(objects).values()
    return [each for pod in found for each in (*pod.get("initContainers", ()), *pod["containers"])]
