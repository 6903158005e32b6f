"""Which points of a metric's history are sampled for a chart, and how their values are written."""

from __future__ import annotations

from math import inf, nan

import pytest

from headrace.entities import number
from headrace.resources.metrics.endpoints import sampled_rows


@pytest.mark.parametrize(
    ("total", "count", "places"),
    [
        (1, 1, [1]),
        (3, 5, [1, 2, 3]),
        (5, 5, [1, 2, 3, 4, 5]),
        (5, 4, [1, 3, 4, 5]),
        (10, 1, [10]),
        (10, 2, [1, 10]),
        (10, 3, [1, 5, 10]),
        (11, 3, [1, 5, 11]),
    ],
)
def test_sampled_rows(total: int, count: int, places: list[int]) -> None:
    assert sampled_rows(total, count) == places


@pytest.mark.parametrize(
    ("value", "written"), [(1.5, 1.5), (nan, "NaN"), ("NaN", "NaN"), (inf, "Infinity"), (-inf, "-Infinity")]
)
def test_values_as_protobuf_writes_them(value: float | str, written: float | str) -> None:
    """msgspec makes null of what JSON has not."""
    assert number(value) == written
