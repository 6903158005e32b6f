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
    "a change of an issue": ("PATCH", "issues/none", {"issue_id": "none", "description": "e"}),
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
    "a queue's type": ("a review queue", {"queue_type": "custom"}, 400),
    "a queue's type, a truth": ("a review queue", {"queue_type": True}, 400),
    "a schema's type": ("a label schema", {"type": "feedback"}, 400),
    "a schema's type with a fraction": ("a label schema", {"type": 1.5}, 400),
    "a schema's comment": ("a label schema", {"enable_comment": "yes"}, 400),
    "a schema's input, a text": ("a label schema", {"input": "text"}, 400),
    "a schema's text, a text": ("a label schema", {"input": {"text": "x"}}, 400),
    "a schema's length with a fraction": ("a label schema", {"input": {"text": {"max_length": 5.5}}}, 400),
    "a schema's limit, a word": ("a label schema", {"input": {"numeric": {"min_value": "low"}}}, 400),
    "a schema's options with a number": ("a label schema", {"input": {"categorical": {"options": ["a", 5]}}}, 400),
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


# What a change says of a queue with the users u1 and u2, or of a label schema: stock answers 200 to each, and drops
# what it takes for absent, and all that comes behind it.
HALF_READ: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("review-queues/update", {"update_users": True, "users": users}) for users in (5, "u3", {"0": "u3"}, ["u3", 5])),
    ("review-queues/update", {"update_users": "yes", "users": ["u3"]}),
    ("review-queues/update", {"update_users": 1, "users": ["u3"]}),
    ("review-queues/update", {"update_users": True, "users": ["u3"], "name": 5}),
    ("review-queues/update", {"update_schema_ids": True, "schema_ids": 5}),
    ("review-queues/items/add", {"item_type": "trace", "item_ids": ["tr-1"]}),
    ("review-queues/items/remove", {"item_ids": {"0": "tr-1"}}),
    ("review-queues/items/set-status", {"item_id": "tr-1", "status": "complete"}),
    ("label-schemas/update", {"name": 5}),
    ("label-schemas/update", {"name": "other", "enable_comment": "yes"}),
    ("label-schemas/update", {"input": {"text": {"max_length": "long"}}}),
)
# what can be read, though stock takes it for absent
READ_HERE: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("review-queues/update", {"update_users": "true", "users": ["u3"]}, {"users": ["u3"]}),
    ("label-schemas/update", {"enable_comment": "true"}, {"enable_comment": True}),
    ("label-schemas/update", {"input": {"text": {"maxLength": "5"}}}, {"input": {"text": {"max_length": 5}}}),
)


def _changed(url: str, path: str, message: dict[str, Any]) -> tuple[requests.Response, dict[str, Any]]:
    """What the change of a new queue and schema is answered, and how they are found."""
    kind = path.partition("/")[0]
    make = "a review queue" if kind == "review-queues" else "a label schema"
    method, where, made = GOOD[make]
    made = made | ({"users": ["u1", "u2"]} if kind == "review-queues" else {})
    [entity] = send(url, (method, where, made), f"n{next(NUMBERS)}").json().values()
    ids = {name: entity[name] for name in ("queue_id", "schema_id") if name in entity}
    method = "PATCH" if kind == "label-schemas" else "POST"
    answer = requests.request(method, f"{url}/api/3.0/mlflow/{path}", json=ids | message, timeout=60)
    found = requests.get(f"{url}/api/3.0/mlflow/{kind}/get", params=ids, timeout=60).json()
    return answer, {"made": entity, "now": next(iter(found.values()))}


@pytest.mark.parametrize(("path", "message"), HALF_READ)
def test_nothing_is_changed_by_halves(pair: Pair, path: str, message: dict[str, Any]) -> None:
    answer, entity = _changed(pair.headrace.server.url, path, message)
    assert answer.status_code == 400, answer.text
    assert answer.headers["headrace-answered-by"] == "native"
    assert entity["now"] == entity["made"]


@pytest.mark.parametrize(("path", "message", "expected"), READ_HERE)
def test_what_is_read_here_reaches_stock(
    pair: Pair, path: str, message: dict[str, Any], expected: dict[str, Any]
) -> None:
    answer, entity = _changed(pair.headrace.server.url, path, message)
    assert answer.status_code == 200, answer.text
    assert entity["now"] | expected == entity["now"]


@pytest.mark.parametrize(
    ("more", "status"),
    [("", 200), ("&max_results=5", 200), ("&max_results=1e1", 200), ("&max_results=many", 400), ("&status=open", 400)],
)
def test_a_queues_items(pair: Pair, more: str, status: int) -> None:
    url = pair.headrace.server.url
    [queue] = send(url, GOOD["a review queue"], f"n{next(NUMBERS)}").json().values()
    path = f"{url}/api/3.0/mlflow/review-queues/items/list?queue_id={queue['queue_id']}{more}"
    found = requests.get(path, timeout=60)
    assert found.status_code == status, found.text


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


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/metrics", "/v1/logs", "/favicon.ico", "/robots.txt", "/.env", "/wp-login.php", "/.well-known/x/y.json",
        "/api",
        "/api/2.0/mlflow/nothing",
        "/api/2.0/mlflow/experiments/list", "/ajax-api/2.0/mlflow/nothing/x", "/healthy", "/%C3%A4", "/a%20b%2Fc?x=1",
    ],
)  # fmt: skip
def test_a_path_that_mlflow_has_not(pair: Pair, path: str, method: str) -> None:
    """In stock's words, and without its process: browsers and exporters ask for some by themselves."""
    body = b"x" * 300_000 if method not in ("GET", "HEAD") else None
    expected, found = (
        requests.request(method, s.server.url + path, data=body, timeout=60) for s in (pair.stock, pair.headrace)
    )
    assert (found.status_code, found.content) == (expected.status_code, expected.content) == (404, expected.content)
    assert found.headers["content-type"] == expected.headers["content-type"]
    assert found.headers["headrace-answered-by"] == "native"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "registered-models/search"),
        ("GET", "runs/log-metric"), ("HEAD", "runs/log-metric"), ("PUT", "registered-models/alias"),
        ("DELETE", "logged-models/m/params"),
    ],
)  # fmt: skip
def test_a_method_that_a_path_has_not(pair: Pair, method: str, path: str) -> None:
    """In stock's words, and without its process: R's client searches registered models by POST."""
    expected, found = (
        requests.request(method, f"{s.server.url}/api/2.0/mlflow/{path}", json={"max_results": 5}, timeout=60)
        for s in (pair.stock, pair.headrace)
    )
    assert (found.status_code, found.content) == (expected.status_code, expected.content) == (405, expected.content)
    assert found.headers["content-type"] == expected.headers["content-type"]
    assert {*found.headers["allow"].split(", ")} == {*expected.headers["allow"].split(", ")}
    assert found.headers["headrace-answered-by"] == "native"


@pytest.mark.parametrize(
    "path",
    ["//health", "/health/", "/v1/traces", "/v1/traces/", "/get-artifact/", "/graphql/", "/api/2.0/mlflow/runs/get/"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_beside_one_that_mlflow_has(pair: Pair, path: str, method: str) -> None:
    """A redirect, another status: stock's to say."""
    expected, found = (
        requests.request(method, s.server.url + path, timeout=60, allow_redirects=False)
        for s in (pair.stock, pair.headrace)
    )
    assert found.status_code == expected.status_code
