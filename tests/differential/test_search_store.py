"""Searches on one database, by stock's own store and by Headrace's: the same runs in the same order, page by page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.search.ast import RunSearch
from headrace.db.database import Database as Store
from headrace.db.postgres import PostgresDatabase
from headrace.db.sqlite import SqliteDatabase
from headrace.resources.runs import search as runs
from headrace.resources.runs.reads import RunPage, search_runs
from tests.differential import search_data as data
from tests.support.databases import BACKENDS, Databases
from tests.support.generated import cases


@dataclass
class Stores:
    """Stock's and Headrace's store on one database with the runs of search_data."""

    stock: Any
    headrace: Store
    experiments: list[str]
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def search(self, search: RunSearch) -> RunPage:
        page: RunPage = self.run(search_runs(self.headrace, search, None, encoded=False))
        return page


@pytest.fixture(scope="module", params=BACKENDS)
def stores(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stores]:
    database = databases.migrated(request.param)
    stock = data.open_stock(database, str(tmp_path_factory.mktemp("artifacts")))
    headrace: Store
    if request.param == "postgresql":
        headrace = PostgresDatabase(database.url, queue_limit=10)
    else:
        headrace = SqliteDatabase(database.name, queue_limit=10)
    with asyncio.Runner() as runner:
        experiments = data.fill(stock)
        runner.run(headrace.start())
        yield Stores(stock, headrace, experiments, runner.run)
        runner.run(headrace.close())
    stock.engine.dispose()


def compare(
    stores: Stores,
    filter_string: str,
    order_by: Sequence[str],
    view: int = 3,
    page_size: int = 1000,
    whole: bool = False,
) -> int:
    """Search both, page by page; the number of runs found."""
    stages = {1: ("active",), 2: ("deleted",), 3: ("active", "deleted")}[view]
    search = RunSearch(
        tuple(map(int, stores.experiments)),
        stages,
        runs.parse_filter(filter_string),
        runs.parse_order(order_by),
        page_size,
    )
    token = None
    found = 0
    while True:
        expected = stores.stock.search_runs(stores.experiments, filter_string, view, page_size, list(order_by), token)
        page = stores.search(search)
        assert [run.info.run_id for run in page.runs] == [run.info.run_id for run in expected]
        if whole:
            encoded = stores.run(search_runs(stores.headrace, search, None, encoded=True))
            assert encoded.after == page.after
            theirs = [data.in_order(data.as_proto(run)) for run in expected]
            for found_runs in (page.runs, encoded.runs):
                ours = [data.in_order(run) for run in msgspec.json.decode(msgspec.json.encode(found_runs))]
                # as text, in which 1 is not 1.0
                assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
        found += len(page.runs)
        token = expected.token
        assert (page.after is None) == (token is None)
        if token is None:
            return found
        search = msgspec.structs.replace(search, after=page.after)


def test_whole_runs(stores: Stores) -> None:
    assert compare(stores, "", [], whole=True) == data.RUNS
    assert compare(stores, "", ["metrics.m DESC"], page_size=7, whole=True) == data.RUNS


@pytest.mark.parametrize("view", [1, 2, 3])
def test_stages(stores: Stores, view: int) -> None:
    assert compare(stores, "", [], view) > 0


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


TEXTS = st.sampled_from([text for text in data.TEXTS if '"' not in text]).map(quoted)
PATTERNS = st.sampled_from(["%", "a%", "%A%", "_", "a\\_b", "a\\\\b", "%ß%", "100\\%", "%日%", "", "A_B", "_'s"]).map(
    quoted
)
STRING_TESTS = st.one_of(
    st.tuples(st.sampled_from(["=", "!="]), TEXTS), st.tuples(st.sampled_from(["LIKE", "ILIKE"]), PATTERNS)
).map(" ".join)
NULL_TESTS = st.sampled_from(["IS NULL", "IS NOT NULL"])
NUMBER_SIGNS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
NUMBERS = st.sampled_from(["0", "-0.0", "0.5", "1", "-1.5", "1e-300", "1e300", "1.7976931348623157e308", "1e999"])
TIMES = st.sampled_from(["1000", "1003", "1007.5", "2000", "0", "-1", "3000"])


def key(prefix: str, names: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{prefix}.`{name}`" for name in (*names, "missing")])


def test_of(names: st.SearchStrategy[str], *tests: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(names, st.one_of(*tests)).map(" ".join)


test_of.__test__ = False  # type: ignore[attr-defined]

METRICS, PARAMS, TAGS = (
    key("metrics", data.METRIC_KEYS),
    key("params", data.PARAM_KEYS),
    key("tags", [*data.TAG_KEYS, "mlflow.runName"]),
)
CONDITIONS = st.one_of(
    test_of(METRICS, st.tuples(NUMBER_SIGNS, NUMBERS).map(" ".join)),
    test_of(PARAMS, STRING_TESTS, NULL_TESTS),
    test_of(TAGS, STRING_TESTS, NULL_TESTS),
    test_of(st.sampled_from(["run_name", "user_id", "artifact_uri", "attributes.`Run name`"]), STRING_TESTS),
    test_of(st.just("status"), st.sampled_from([f"= '{status}'" for status in data.STATUSES])),
    test_of(st.sampled_from(["start_time", "end_time", "Created"]), st.tuples(NUMBER_SIGNS, TIMES).map(" ".join)),
    test_of(
        st.sampled_from(["dataset.name", "datasets.digest", "dataset.context"]),
        st.sampled_from(
            ["= 'train'", "!= 'train'", "LIKE '%l'", "ILIKE 'e%'", "IN ('d1', 'eval')", "NOT IN ('d1')", "IN ('')"]
        ),
    ),
)
ORDERS = st.lists(
    st.tuples(
        st.one_of(
            METRICS,
            PARAMS,
            TAGS,
            st.sampled_from(["start_time", "end_time", "status", "run_id", "run_name", "user_id"]),
        ),
        st.sampled_from(["", " ASC", " DESC"]),
    ),
    max_size=3,
    unique_by=lambda clause: clause[0],
).map(lambda clauses: ["".join(clause) for clause in clauses])


@pytest.mark.generated
@cases(25)
@given(
    st.lists(CONDITIONS, max_size=3).map(" AND ".join),
    ORDERS,
    st.sampled_from([1, 3]),
    st.sampled_from([7, 23, 1000]),
)
def test_generated_searches(stores: Stores, text: str, order_by: list[str], view: int, page_size: int) -> None:
    compare(stores, text, order_by, view, page_size)
