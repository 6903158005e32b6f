"""The written cases, each on its own run: status, headers, JSON and rows are stock's."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from tests.differential import (
    cases_bad_input,
    cases_batch,
    cases_metrics,
    cases_params_tags,
    cases_runs,
)
from tests.differential.compare import compare
from tests.differential.conftest import Pair
from tests.differential.harness import Case

CLIENTS = 16
TABLES = {
    "create": cases_runs.CREATE + cases_runs.CREATE_BAD,
    "get": cases_runs.GET + cases_runs.GET_BAD,
    "update": cases_runs.UPDATE + cases_runs.UPDATE_BAD,
    "metric": cases_metrics.VALUES
    + cases_metrics.ODD_VALUES
    + cases_metrics.STEPS_AND_TIMES
    + cases_metrics.KEYS
    + cases_metrics.BAD,
    "param": cases_params_tags.PARAMS + cases_params_tags.PARAMS_BAD,
    "tag": cases_params_tags.TAGS + cases_params_tags.TAGS_BAD,
    "batch": cases_batch.GOOD + cases_batch.BAD,
    "input": cases_bad_input.ALL,
}
CASES = [
    # the table's name is a part of the case's, so that each is named once
    replace(case, name=f"{table}: {case.name}")
    for table, listed in TABLES.items()
    for case in listed
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.encode("ascii", "replace").decode())
def test_case(pair: Pair, case: Case) -> None:
    compare(case, pair.expected(case), pair.headrace.play(case))


def test_all_together(pair: Pair) -> None:
    """The same cases at the same time, good and bad ones mixed: group commit lets none touch another."""
    cases = [case for case in CASES if case.requests[0].endpoint != "experiments/create"]
    random.Random(0).shuffle(cases)
    expected = [pair.expected(case) for case in cases]
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(pair.headrace.another_client())) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            lots = pool.map(lambda n: [clients[n].play(case) for case in cases[n::CLIENTS]], range(CLIENTS))
        found = [transcript for lot in itertools.zip_longest(*lots) for transcript in lot if transcript]
    differing = []
    for case, stock, headrace in zip(cases, expected, found, strict=True):
        try:
            compare(case, stock, headrace)
        except AssertionError as error:
            differing.append(f"{case.name}: {error}")
    assert not differing, "\n".join(differing)
