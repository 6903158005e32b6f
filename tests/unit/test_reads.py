"""Which points of a metric's history are sampled for a chart."""

from __future__ import annotations

import pytest

from headrace.db.reads import sample_places


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
def test_sample_places(total: int, count: int, places: list[int]) -> None:
    assert sample_places(total, count) == places
