"""Requests of any kind to the native routes, for test_any_request.py: each begins as a good one, and is then spoiled.

{run}, {experiment} and {folder} stand for those that are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from headrace.resources import all_endpoints
from headrace.settings import Settings
from tests.support.messages import minimal

_KEY_VALUE = {"key": "a", "value": "b"}
_METRIC = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
_RUNS = {"experiment_ids": ["{experiment}"], "filter": "metrics.loss > 0", "order_by": ["params.a"], "max_results": 5}
_EXPERIMENTS = {"filter": "name LIKE 'a%'", "order_by": ["name DESC"], "max_results": 5, "view_type": "ALL"}
_DATASET = {"name": "d", "digest": "x", "source_type": "local", "source": "{}"}
# a good message of each native route; what it is sent as depends on the method
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "experiments/create"): {"name": "a", "tags": [_KEY_VALUE]},
    ("GET", "experiments/get"): {"experiment_id": "{experiment}"},
    ("GET", "experiments/get-by-name"): {"experiment_name": "Default"},
    ("POST", "experiments/set-experiment-tag"): {"experiment_id": "{experiment}", **_KEY_VALUE},
    ("POST", "experiments/delete-experiment-tag"): {"experiment_id": "{experiment}", "key": "a"},
    ("POST", "experiments/update"): {"experiment_id": "{experiment}", "new_name": "b"},
    ("POST", "experiments/delete"): {"experiment_id": "99"},
    ("POST", "experiments/restore"): {"experiment_id": "{experiment}"},
    ("POST", "experiments/search"): _EXPERIMENTS,
    ("GET", "experiments/search"): _EXPERIMENTS,
    ("POST", "experiments/search-datasets"): {"experiment_ids": ["{experiment}"]},
    ("GET", "metrics/get-history"): {"run_id": "{run}", "metric_key": "loss", "max_results": 5, "page_token": "x"},
    ("GET", "metrics/get-history-bulk"): {"run_id": "{run}", "metric_key": "loss", "max_results": 5},
    ("GET", "metrics/get-history-bulk-interval"): {"run_ids": "{run}", "metric_key": "loss", "max_results": 5},
    ("POST", "runs/create"): {"experiment_id": "{experiment}", "start_time": 1, "tags": [_KEY_VALUE]},
    ("GET", "runs/get"): {"run_id": "{run}"},
    ("POST", "runs/update"): {"run_id": "{run}", "status": "FINISHED", "end_time": 1, "run_name": "n"},
    ("POST", "runs/log-metric"): {"run_id": "{run}", **_METRIC},
    ("POST", "runs/log-batch"): {"run_id": "{run}", "metrics": [_METRIC], "params": [], "tags": [_KEY_VALUE]},
    ("POST", "runs/log-parameter"): {"run_id": "{run}", **_KEY_VALUE},
    ("POST", "runs/set-tag"): {"run_id": "{run}", **_KEY_VALUE},
    ("POST", "runs/delete-tag"): {"run_id": "{run}", "key": "a"},
    ("POST", "runs/delete"): {"run_id": "0" * 32},
    ("POST", "runs/restore"): {"run_id": "{run}"},
    ("POST", "runs/log-inputs"): {"run_id": "{run}", "datasets": [{"dataset": _DATASET, "tags": [_KEY_VALUE]}]},
    ("POST", "runs/outputs"): {"run_id": "{run}", "models": [{"model_id": "m-1", "step": 0}]},
    ("POST", "runs/log-model"): {"run_id": "{run}", "model_json": '{"artifact_path": "m", "flavors": {}}'},
    ("POST", "runs/search"): _RUNS,
    ("GET", "model-versions/search"): {"filter": "run_id = '{run}'", "max_results": 5, "order_by": "name"},
    ("POST", "/graphql"): {
        "query": "query Q($data: MlflowGetRunInput!) {mlflowGetRun(input: $data) {run {info {runId}}}}",
        "variables": {"data": {"runId": "{run}"}},
        "operationName": "Q",
    },
    ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url"): {"run_id": "{run}", "path": "a", "expiration": 5},
    ("POST", "/api/2.0/mlflow/artifacts/presigned-download-url"): {"run_id": "{run}", "path": "a"},
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/{folder}"): {"path": "a", "num_parts": 2},
    ("POST", "/api/2.0/mlflow-artifacts/mpu/complete/{folder}"): {
        "path": "a",
        "upload_id": "u",
        "parts": [{"part_number": 1, "etag": "e"}],
    },
    ("POST", "/api/2.0/mlflow-artifacts/mpu/abort/{folder}"): {"path": "a", "upload_id": "u"},
    ("GET", "/api/2.0/mlflow-artifacts/presigned/{folder}"): {},
    ("GET", "/get-artifact"): {"run_id": "{run}", "path": "a.txt"},
    ("GET", "/model-versions/get-artifact"): {"name": "m", "version": "1", "path": "a.txt"},
    ("GET", "/api/2.0/mlflow/artifacts/list"): {"run_id": "{run}", "path": "a", "page_token": "x"},
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"): {"path": "{folder}"},
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{folder}"): {},
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{folder}"): {"a": 1},
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/{folder}/x"): {},
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact"): {"run_uuid": "{run}", "path": "a"},
    ("GET", "/"): {},
    ("GET", "/version"): {},
    ("GET", "/static-files/index.html"): {},
    ("GET", "/ajax-api/2.0/mlflow/users/current"): {},
    ("GET", "/headrace/sign-in"): {"next": "/a"},
    ("GET", "/headrace/tokens"): {},
    ("POST", "/headrace/tokens"): {"csrf": "x", "action": "create", "name": "n", "role": "viewer", "days": "5"},
    ("POST", "/headrace/sign-out"): {"csrf": "x"},
}
_DECLARED = [each for each in all_endpoints(Settings()) if each.handler is not None]
# (method, path, good message): the native endpoints, wherever they are found, and the others above
NATIVE = [
    (each.method, path, GOOD.get((each.method, each.path.removeprefix("2.0/mlflow/"))) or minimal(each))
    for each in _DECLARED
    for path in each.paths("")
] + [(method, path, message) for (method, path), message in GOOD.items() if path.startswith("/")]

_TEXTS = (
    *("", " ", "\0", "a\0b", "\ud800", "é", "\U0001f600", "%", "%00", "%ff", "..", "../..", "/", "\\", "'", '"', ";"),
    *("NaN", "-Infinity", "1e999", "-1", "0", "9" * 40, "x" * 6000, "null", "true", "2147483648", "{run}", "0" * 32),
    *(
        "metrics.a > 1 AND",
        "params.`a",
        "attributes.x = 'y'",
        "tags.a IN ('b',)",
        "name ILIKE '%'",
        "ORDER BY",
        "(" * 50,
    ),
)
_NUMBERS = (0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf"), -0.0)
odd = st.one_of(
    st.sampled_from(_TEXTS),
    st.sampled_from(_NUMBERS),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.none() | st.booleans() | st.just([]) | st.just({}),
    st.recursive(st.none() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)
HEADERS = (
    *(("Content-Type", text) for text in ("application/json; charset=utf-16", "text/plain", "", "multipart/form-data")),
    *(("Content-Encoding", text) for text in ("gzip", "br", "identity", "x")),
    *(("Accept-Encoding", text) for text in ("gzip;q=x", "br, *;q=0", "")),
    *(("X-MLflow-Workspace", text) for text in ("default", "other", " ")),
    *(("Range", text) for text in ("bytes=0-0", "bytes=-0", "bytes=5-1", "bytes=9999999-", "x", "bytes=0-1,2-3")),
    *(("If-None-Match", text) for text in ("*", '"x"', "W/")),
    *(("Cookie", text) for text in ("headrace_session=a.b", "headrace_session=é", "a", "headrace_oidc=x.y")),
    *(("Origin", text) for text in ("http://localhost:1", "http://127.0.0.1")),
    *(("X-Forwarded-For", text) for text in ("x", "::1, ,", "1.2.3.4")),
    *(("Accept", "text/html"), ("If-Modified-Since", "yesterday"), ("Sec-Fetch-Mode", "cors"), ("X-Odd", "\x80\xff")),
)


@dataclass(frozen=True)
class Sent:
    """A request: its target and body as bytes."""

    method: str
    target: str
    body: bytes
    headers: tuple[tuple[str, str], ...]


@st.composite
def spoiled(draw: st.DrawFn, good: Any) -> Any:
    """The value, or a part of it, replaced, left out, or with more than it should have."""
    how = draw(st.sampled_from(["keep", "keep", "inside", "inside", "inside", "odd"]))
    if how == "keep" or (how == "inside" and not isinstance(good, dict | list)):
        return good
    if how == "odd":
        return draw(odd)
    if isinstance(good, list):
        return [draw(spoiled(each)) for each in good] * draw(st.integers(0, 3))
    found = {key: draw(spoiled(value)) for key, value in good.items() if draw(st.integers(0, 7))}
    if not draw(st.integers(0, 7)):
        found[draw(st.text(max_size=5))] = draw(odd)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _query(message: Any) -> str:
    if not isinstance(message, dict):
        return quote(_text(message), safe="=&%+;", errors="surrogatepass")
    pairs = [(key, each) for key, value in message.items() for each in (value if isinstance(value, list) else [value])]
    return urlencode([(key, _text(value)) for key, value in pairs], errors="surrogatepass")


def _json(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """One to a native route."""
    method, path, good = draw(st.sampled_from(NATIVE))
    if path.endswith("/{folder}") and draw(st.booleans()):
        path += "/" + quote(_text(draw(odd)), safe="/%", errors="surrogatepass")
    message = draw(spoiled(good))
    in_query = method in ("GET", "DELETE") or path.endswith("/upload-artifact")
    query = _query(message) if in_query else draw(st.sampled_from(["", "", "", "a=b", "%", "&&=="]))
    body = b"" if in_query else _json(message)
    if path.startswith("/headrace/"):
        body = _query(message).encode()
    if not draw(st.integers(0, 5)):
        body = draw(st.one_of(st.binary(max_size=40), st.just(b"[" * 20_000), st.just(body[: len(body) // 2])))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2, unique_by=lambda header: header[0]))
    return Sent(method, path + ("?" + query if query else ""), body, tuple(headers))
