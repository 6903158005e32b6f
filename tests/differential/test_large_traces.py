"""Traces that are large, deep or come in many pieces: the rows are stock's."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.differential.conftest import Pair
from tests.differential.test_otlp import PROTOBUF, compare, new_trace, post
from tests.unit.traces.spans import MILLION, START, body, span

MEGABYTE = 1_000_000
GZIP = PROTOBUF | {"Content-Encoding": "gzip"}
Spans = list[dict[str, Any]]


def tree(trace_id: bytes, size: int, parent_of: Callable[[int], int], more: dict[str, Any] | None = None) -> Spans:
    """Spans with the numbers from 1 on, 0 is no parent; every third one tells its tokens."""
    return [
        span(
            {**(more or {}), **({"mlflow.chat.tokenUsage": {"input_tokens": number}} if number % 3 == 0 else {})},
            trace_id=trace_id,
            span_id=number.to_bytes(8, "big"),
            parent_id=parent_of(number).to_bytes(8, "big"),
            name=f"step {number}",
            start=START + number * MILLION,
            end=START + (number + 7) * MILLION,
        )
        for number in range(1, size + 1)
    ]


def eighth(number: int) -> int:
    return number // 8


def before(number: int) -> int:
    return number - 1


def pieces(spans: Spans, number: int) -> list[bytes]:
    """In so many requests, children before their parents, too."""
    spans = random.Random(7).sample(spans, len(spans))
    return [body(*spans[at::number]) for at in range(number)]


TEXT = {"text": '{"a": "\\"' + "x" * MEGABYTE + '"}'}
# name -> the requests that make the trace
LARGE: dict[str, Callable[[bytes], list[bytes]]] = {
    "a megabyte in an attribute": lambda id_: [body(span({"mlflow.spanInputs": "é" * (MEGABYTE // 2)}, trace_id=id_))],
    "a megabyte in each of three": lambda id_: [body(*tree(id_, 3, eighth, TEXT))],
    "1,000 spans": lambda id_: [body(*tree(id_, 1_000, eighth))],
    "1,000 spans in 5 requests": lambda id_: pieces(tree(id_, 1_000, eighth), 5),
    "a chain of 500": lambda id_: [body(*tree(id_, 500, before))],
    "a chain of 500 in 5 requests": lambda id_: pieces(tree(id_, 500, before), 5),
}


@pytest.mark.parametrize(("parent_of", "number"), [(eighth, 1), (before, 20)], ids=["a tree", "a chain in 20 requests"])
def test_10_000_spans(pair: Pair, parent_of: Callable[[int], int], number: int) -> None:
    """Stock needs too long for so many to be asked each time: their sums are known."""
    trace_id = new_trace()
    for sent in pieces(tree(trace_id, 10_000, parent_of), number):
        assert post(pair.headrace, sent, PROTOBUF)[::3] == (200, True)
    named = {"id": f"tr-{trace_id.hex()}"}
    rows = pair.headrace.database.query("SELECT * FROM trace_info WHERE request_id = :id", **named)
    # spans below one that has told its tokens do not count
    told = [number for number in range(1, 10_001) if not any(each % 3 == 0 for each in above(number, parent_of))]
    assert [(row["input_tokens"], row["timestamp_ms"], row["execution_time_ms"]) for row in rows] == [
        (sum(each for each in told if each % 3 == 0), START // MILLION + 1, 10_006)
    ]
    stored = pair.headrace.database.query("SELECT count(*) AS n FROM spans WHERE trace_id = :id", **named)
    assert stored[0]["n"] == 10_000


def above(number: int, parent_of: Callable[[int], int]) -> Iterator[int]:
    while number := parent_of(number):
        yield number


@pytest.mark.parametrize("large", LARGE)
def test_large(pair: Pair, large: str) -> None:
    trace_id = new_trace()
    compare(pair, *LARGE[large](trace_id), traces=(trace_id,))


def test_large_and_packed(pair: Pair) -> None:
    trace_id = new_trace()
    compare(pair, gzip.compress(body(*tree(trace_id, 3, eighth, TEXT))), traces=(trace_id,), headers=GZIP)
