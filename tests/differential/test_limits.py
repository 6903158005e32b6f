"""The one limit that stock does not have: the size of a body that a native endpoint reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import API

MEGABYTE = b" " * 2**20
LIMIT_MEGABYTES = 64


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield MEGABYTE


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_body_over_the_limit(pair: Pair, chunked: bool) -> None:
    count = LIMIT_MEGABYTES + 1
    answer = requests.post(
        f"{pair.headrace.server.url}{API}runs/log-batch",
        data=chunks(count) if chunked else MEGABYTE * count,
        headers={"Content-Type": "application/json", "Connection": "close"},
        timeout=60,
    )
    assert answer.status_code == 413
    assert answer.headers["headrace-answered-by"] == "native"
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "--max-body-bytes" in answer.json()["message"]
