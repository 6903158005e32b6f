"""Generated sequences of requests to one run, whose keys, steps and timestamps collide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from tests.differential.compare import compare
from tests.differential.conftest import Pair
from tests.differential.harness import Case, Request
from tests.differential.requests_of import (
    delete_tag,
    get_run,
    log_batch,
    log_metric,
    log_param,
    metric,
    set_tag,
    update,
)
from tests.support.generated import cases

# Few of each, so that most of them meet.
NUMBERS = (0.0, -0.0, 1.0, -1.5, 1, 1.7976931348623157e308, 5e-324, "NaN", "Infinity", "-Infinity")
STEPS = (0, 1, -1, 2**40)
TIMES = (0, 1, 2, 1795509304555)
KEYS = ("a", "b", "A", "a/b")
TEXTS = ("", "1", "2", "ü")
TAGS = ("a", "b", "mlflow.runName", "mlflow.user")

keys, texts, tag_keys = st.sampled_from(KEYS), st.sampled_from(TEXTS), st.sampled_from(TAGS)
numbers, steps, times = st.sampled_from(NUMBERS), st.sampled_from(STEPS), st.sampled_from(TIMES)


def entities(keys: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.builds(lambda key, value: {"key": key, "value": value}, keys, texts), max_size=3)


batches = st.builds(
    log_batch,
    metrics=st.lists(st.builds(metric, keys, numbers, times, steps), max_size=8),
    params=entities(keys),
    tags=entities(tag_keys),
)
singles = st.one_of(
    st.builds(log_metric, numbers, key=keys, timestamp=times, step=steps),
    st.builds(log_param, texts, key=keys),
    st.builds(set_tag, texts, key=tag_keys),
    st.builds(delete_tag, tag_keys),
    st.builds(update, run_name=texts, status=st.sampled_from(("RUNNING", "FINISHED")), end_time=times),
)
histories = st.lists(batches, min_size=1, max_size=5)
mixed_histories = st.lists(batches | singles, min_size=2, max_size=8)


def case_of(requests: list[Request]) -> Case:
    return Case("generated", (*requests, get_run()), "any")


@pytest.mark.generated
@cases(15)
@given(histories)
def test_batches(pair: Pair, history: list[Request]) -> None:
    case = case_of(history)
    compare(case, pair.stock.play(case), pair.headrace.play(case))


@pytest.mark.generated
@cases(12)
@given(mixed_histories)
def test_mixed_requests(pair: Pair, history: list[Request]) -> None:
    case = case_of(history)
    compare(case, pair.stock.play(case), pair.headrace.play(case))


# not shrunk: eight histories take too long, and what differs shows in the tests above as well
@pytest.mark.generated
@cases(3, phases=(Phase.generate,))
@given(st.lists(histories, min_size=8, max_size=8))
def test_batches_of_many_runs_together(pair: Pair, lots: list[list[Request]]) -> None:
    """Eight runs logged to at once: what group commit puts into one transaction stays apart."""
    cases = [case_of(history) for history in lots]
    with ExitStack() as stack, ThreadPoolExecutor(len(cases)) as pool:
        clients = [stack.enter_context(closing(pair.headrace.another_client())) for _ in cases]
        found = list(pool.map(lambda client, case: client.play(case), clients, cases))
    for case, transcript in zip(cases, found, strict=True):
        compare(case, pair.stock.play(case), transcript)
