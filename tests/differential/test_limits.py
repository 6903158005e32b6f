"""The limits that stock does not have: how large a message is, and how deeply nested, whoever answers it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import API

MEGABYTE = b" " * 2**20
LIMIT_MEGABYTES = 64
QUICKLY = 5.0
STOCKS = "no-such/endpoint"  # nobody here knows it, so it is stock's


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield MEGABYTE


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("path", ["runs/log-batch", STOCKS])
def test_a_body_over_the_limit(pair: Pair, chunked: bool, path: str) -> None:
    count = LIMIT_MEGABYTES + 1
    answer = requests.post(
        f"{pair.headrace.server.url}{API}{path}",
        data=chunks(count) if chunked else MEGABYTE * count,
        headers={"Content-Type": "application/json", "Connection": "close"},
        timeout=60,
    )
    assert answer.status_code == 413
    assert answer.headers["headrace-answered-by"] == "native"
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "--max-body-bytes" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "length", "begun"),
    [
        pytest.param(STOCKS, 2**40, None, id="before its body"),
        pytest.param("runs/set-tag", 2**63, b"{", id="at its first bytes"),
    ],
)
def test_a_length_over_the_limit_is_refused(pair: Pair, path: str, length: int, begun: bytes | None) -> None:
    url = urlsplit(pair.headrace.server.url)
    assert url.hostname is not None
    connection = HTTPConnection(url.hostname, url.port or 80, timeout=60)
    connection.putrequest("POST", f"{API}{path}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(begun)
    assert connection.getresponse().status == 413
    connection.close()


# what begins a message, in which there are more values than a request may have, and what ends it
_MANY = {
    "read strictly": ("POST", f"{API}runs/log-batch", b'{"run_id": "r", "metrics": [', b"]}"),
    "read loosely": ("POST", f"{API}runs/log-batch", b'{"runId": "r", "other": [', b"]}"),
    "with a field of the path": ("PATCH", "/api/3.0/mlflow/traces/tr-1/tags", b'{"key": "k", "other": [', b"]}"),
    "JSON in a text": ("POST", "/api/3.0/mlflow/datasets/d-1/records", b'{"records": "[', b']"}'),
    "a text with JSON": ("POST", f"{API}runs/log-batch", b'"[', b']"'),
    "any value": (
        "POST",
        "/api/3.0/mlflow/traces/tr-1/assessments",
        b'{"assessment": {"feedback": {"value": [',
        b"]}}}",
    ),
    "a query's variables": ("POST", "/graphql", b'{"query": "{a}", "variables": {"a": [', b"]}}"),
    "stock's": ("POST", "/api/3.0/mlflow/issues", b'{"experiment_id": "0", "other": [', b"]}"),
    "stock's, unknown": ("POST", f"{API}{STOCKS}", b'{"other": [', b"]}"),
    "a signed URL's": ("POST", f"{API}artifacts/presigned-upload-url", b'{"run_id": "r", "other": [', b"]}"),
    "spans": ("POST", "/v1/traces", b'{"resourceSpans": [', b"]}"),
}


@pytest.mark.parametrize(("what", "packed"), [*((each, False) for each in _MANY), ("spans", True)])
def test_more_values_than_are_read(pair: Pair, what: str, packed: bool) -> None:
    """Six megabytes, or six kilobytes of spans, that took a worker 600 MB and half a minute."""
    method, path, begin, end = _MANY[what]
    body = begin + b"{}," * 2_000_000 + b"{}" + end
    headers = {"Content-Type": "application/json", "x-mlflow-experiment-id": "0"}
    if packed:
        body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
    for _ in range(3):  # a busy machine takes its time
        began = time.monotonic()
        answer = requests.request(method, pair.headrace.server.url + path, data=body, headers=headers, timeout=120)
        took = time.monotonic() - began
        assert (answer.status_code, answer.headers["headrace-answered-by"]) == (413, "native"), answer.text
        assert "values" in answer.json()["message"]
        if took < QUICKLY:
            break
    assert took < QUICKLY


def _repeated(field: int, message: bytes, count: int = 1) -> bytes:
    """A field of protobuf's that holds this message so many times."""
    size, length = len(message), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return (bytes([field << 3 | 2]) + length + bytes([size]) + message) * count


# without anything in them
_EMPTY = _repeated(2, b"", 1_100_000)
_PROTOBUF = {
    "resources": _repeated(1, b"", 1_100_000),
    "scopes": _repeated(1, _EMPTY),
    "spans": _repeated(1, _repeated(2, _EMPTY)),
    "attributes of a resource": _repeated(1, _repeated(1, _repeated(1, b"", 1_100_000))),
    "attributes": _repeated(1, _repeated(2, _repeated(2, _repeated(9, b"", 1_100_000)))),
}


@pytest.mark.parametrize("what", _PROTOBUF)
def test_more_spans_than_are_read(pair: Pair, what: str) -> None:
    """A few kilobytes, packed; 750,000 resources took a worker 12 s, at a load of 15."""
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "x-mlflow-experiment-id": "0"}
    url = f"{pair.headrace.server.url}/v1/traces"
    answer = requests.post(url, data=gzip.compress(_PROTOBUF[what]), headers=headers, timeout=120)
    assert (answer.status_code, answer.headers["headrace-answered-by"]) == (413, "native"), answer.text
    assert "values" in answer.json()["message"]


@pytest.mark.parametrize("path", ["runs/search", STOCKS])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_that_is_nested_without_end(pair: Pair, path: str, opening: bytes) -> None:
    answer = requests.post(
        f"{pair.headrace.server.url}{API}{path}",
        data=opening * 100_000,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert "nested" in answer.json()["message"]
