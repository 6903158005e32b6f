"""What stock alone answers, with values that it fails at: Headrace refuses them before they get there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import requests

from tests.differential.conftest import Pair

NUMBERS = itertools.count(1)
SCORER = '{"name": "s", "aggregations": []}'
SCORED = {"experiment_id": "0", "name": "s"}
ISSUE = {"experiment_id": "0", "name": "{new}", "description": "d"}
SCHEMA = {"experiment_id": "0", "name": "{new}", "type": "FEEDBACK", "input": {"text": {}}}
# (method, path below 3.0/mlflow/, message): what both do alike
GOOD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an issue": ("POST", "issues", ISSUE),
    "an issue in full": (
        "POST",
        "issues",
        ISSUE | {"status": "resolved", "severity": "high", "root_causes": ["r"], "categories": ["c"]},
    ),
    "a label schema": ("POST", "label-schemas/create", SCHEMA),
    "a review queue": ("POST", "review-queues/create", {"experiment_id": "0", "name": "{new}", "queue_type": "CUSTOM"}),
    "a user's queue": ("POST", "review-queues/get-or-create-user", {"experiment_id": "0", "user": "u"}),
    "a scorer": ("POST", "scorers/register", SCORED | {"serialized_scorer": SCORER}),
    "how much a scorer judges": ("PUT", "scorers/online-config", SCORED | {"sample_rate": 0.0}),
    "a scorer's version as text": (
        "DELETE",
        "scorers/delete",
        SCORED | {"version": "77"},
    ),
}
_BEYOND = str(2**63)
# what is changed in a good message, and the status
SPOILED: dict[str, tuple[str, dict[str, Any], int]] = {
    "an issue's status": ("an issue", {"status": "open"}, 400),
    "an issue's status in capitals": ("an issue", {"status": "PENDING"}, 400),
    "an issue's severity": ("an issue", {"severity": "grave"}, 400),
    "an issue's severity a number": ("an issue", {"severity": 1}, 400),
    "an issue's experiment": ("an issue", {"experiment_id": _BEYOND}, 404),
    "an issue's experiment, a word": ("an issue", {"experiment_id": "x"}, 400),
    "an issue's causes": ("an issue", {"root_causes": "r"}, 400),
    "a schema's experiment": ("a label schema", {"experiment_id": _BEYOND}, 404),
    "a queue's experiment": ("a review queue", {"experiment_id": _BEYOND}, 404),
    "a queue's users": ("a review queue", {"users": 5}, 400),
    "a user's queue's experiment": ("a user's queue", {"experiment_id": "9" * 40}, 404),
    "a scorer that is a number": ("a scorer", {"serialized_scorer": "5"}, 400),
    "a scorer that is a list": ("a scorer", {"serialized_scorer": "[{}]"}, 400),
    "a scorer that is null": ("a scorer", {"serialized_scorer": "null"}, 400),
    "a scorer that is a text": ("a scorer", {"serialized_scorer": '"s"'}, 400),
    "a scorer that is no JSON": ("a scorer", {"serialized_scorer": "{"}, 400),
    "a scorer that is nested": ("a scorer", {"serialized_scorer": "[" * 10_000}, 400),
    "a scorer's experiment": ("a scorer", {"experiment_id": _BEYOND}, 404),
    "how much of an experiment": ("how much a scorer judges", {"experiment_id": _BEYOND}, 404),
    "how much, a list": ("how much a scorer judges", {"sample_rate": [0.5]}, 400),
    "how much, a word": ("how much a scorer judges", {"sample_rate": "much"}, 400),
    "a version that is a list": ("a scorer's version as text", {"version": []}, 400),
    "versions": ("a scorer's version as text", {"version": ["1"]}, 400),
    "a version that is an object": ("a scorer's version as text", {"version": {"a": 1}}, 400),
    "a version beyond 32 bits": ("a scorer's version as text", {"version": _BEYOND}, 400),
    "a version's experiment": ("a scorer's version as text", {"experiment_id": _BEYOND}, 404),
}
_TRACE = {
    "trace_id": "tr-of-no-experiment",
    "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
    "request_time": "2026-01-01T00:00:00Z",
    "state": "OK",
    "assessments": [
        {"assessment_name": "a", "source": {"source_type": "HUMAN", "source_id": "me"}, "feedback": {"value": 1}}
    ],
}
# of a trace that comes with an assessment, which stock stores
TRACES: dict[str, dict[str, Any]] = {
    "no experiment": {"trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {}}},
    "an empty one": {"trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": ""}}},
    "a word": {"trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "x"}}},
    "beyond": {"trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": _BEYOND}}},
    "no time": {"request_time": "now"},
    "no duration": {"execution_duration": "long"},
}
FOUND_BY_NAME = ("label-schemas/get-by-name", "review-queues/get-by-name")


def send(url: str, request: tuple[str, str, dict[str, Any]], new: str) -> requests.Response:
    method, path, message = request
    filled = {name: new if value == "{new}" else value for name, value in message.items()}
    return requests.request(method, f"{url}/api/3.0/mlflow/{path}", json=filled, timeout=60)


@pytest.mark.parametrize("what", GOOD)
def test_good(pair: Pair, what: str) -> None:
    new = f"n{next(NUMBERS)}"
    expected, found = (send(each.server.url, GOOD[what], new) for each in (pair.stock, pair.headrace))
    assert (found.status_code, found.json().keys()) == (expected.status_code, expected.json().keys()), found.text
    assert found.status_code in (200, 404), found.text
    assert found.headers["headrace-answered-by"] == "stock"


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled(pair: Pair, what: str) -> None:
    good, change, status = SPOILED[what]
    method, path, message = GOOD[good]
    found = send(pair.headrace.server.url, (method, path, message | change), f"n{next(NUMBERS)}")
    assert found.status_code == status, found.text
    assert found.headers["headrace-answered-by"] == "native"
    assert found.json()["message"]


@pytest.mark.parametrize("path", FOUND_BY_NAME)
@pytest.mark.parametrize(("experiment", "status"), [(_BEYOND, 404), ("9" * 40, 404), ("x", 400), ("1e3", 400)])
def test_found_by_name(pair: Pair, path: str, experiment: str, status: int) -> None:
    url = f"{pair.headrace.server.url}/api/3.0/mlflow/{path}"
    found = requests.get(url, params={"experiment_id": experiment, "name": "n"}, timeout=60)
    assert found.status_code == status, found.text
    assert found.headers["headrace-answered-by"] == "native"


@pytest.mark.parametrize("what", TRACES)
def test_a_trace_with_an_assessment(pair: Pair, what: str) -> None:
    """Nothing of it is stored."""
    url = f"{pair.headrace.server.url}/api/3.0/mlflow/traces"
    found = requests.post(url, json={"trace": {"trace_info": _TRACE | TRACES[what]}}, timeout=60)
    assert found.status_code in (400, 404), found.text
    assert found.headers["headrace-answered-by"] == "native"
    assert pair.headrace.database.query("SELECT 1 FROM trace_info WHERE request_id = :id", id=_TRACE["trace_id"]) == []


@pytest.mark.parametrize(
    ("query", "status"),
    [("name=m", 400), ("name=m&version=4294967296", 404), (f"name=m&version={_BEYOND}", 404), ("name=m&version=", 400)],
)
def test_a_file_of_no_model_version(pair: Pair, query: str, status: int) -> None:
    found = requests.get(f"{pair.headrace.server.url}/model-versions/get-artifact?{query}&path=a", timeout=60)
    assert found.status_code == status, found.text
