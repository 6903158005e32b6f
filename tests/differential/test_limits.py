"""The limits that stock does not have: how large a message is, and how deeply nested, whoever answers it."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import API

MEGABYTE = b" " * 2**20
LIMIT_MEGABYTES = 64
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


def test_a_length_over_the_limit_is_refused_before_its_body(pair: Pair) -> None:
    url = urlsplit(pair.headrace.server.url)
    assert url.hostname is not None
    connection = HTTPConnection(url.hostname, url.port or 80, timeout=60)
    connection.putrequest("POST", f"{API}{STOCKS}")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


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
