"""The order_by clauses, against stock's parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.search.ast import Kind, OrderBy
from headrace.db.query import Dialect
from headrace.errors import InvalidParameter
from headrace.resources.logged_models import messages
from headrace.resources.logged_models import search as logged_models
from tests.support.generated import cases
from tests.unit.search import stock
from tests.unit.search.stock import Refused, experiments, ours, runs
from tests.unit.search.test_filters import ATTRIBUTES, NAMES

NEWEST = OrderBy(Kind.ATTRIBUTE, "start_time", ascending=False)
BY_ID = OrderBy(Kind.ATTRIBUTE, "run_id")

ACCEPTED = [
    ["metrics.acc DESC"],
    ["metric.`a b` asc", 'params."c d" Desc', "tags.x"],
    ["start_time", "attributes.status  DESC", "`end_time`", '"user_id" ASC'],
    ["Created ASC"],
    ["attributes.run_name", "attr.artifact_uri desc"],
    ["metrics.`it's` DESC", "metrics.a.b.c", "tags.mlflow.user DESC"],
    ["`metrics`.a", "`metrics`.b DESC"],
    ['metrics."`x`"', "metrics.desc DESC"],
]

REFUSED = [
    [""],
    [" metrics.a"],
    ["metrics.a "],
    ["metrics.a DESC NULLS LAST"],
    ["metrics.a UP"],
    ["metrics.a, metrics.b"],
    ["metrics.a", "metric.a DESC"],
    ["start_time", "created"],
    ["`run name`"],
    ["dataset.name"],
    ["foo"],
    ["metrics.a-b"],
    ["metrics.'"],
    ["1"],
]


@pytest.mark.parametrize("clauses", ACCEPTED)
def test_an_order_of_runs_means_the_same(clauses: list[str]) -> None:
    expected = stock.run_order(clauses)
    order = runs.parse_order(clauses)
    assert order[: len(clauses)] == expected
    assert order[-1] == BY_ID


@pytest.mark.parametrize("clauses", REFUSED)
def test_a_refused_order_is_not_accepted(clauses: list[str]) -> None:
    with pytest.raises(Refused):
        stock.run_order(clauses)
    assert ours(runs.parse_order, clauses) is None


def test_the_keys_that_are_added() -> None:
    assert runs.parse_order([]) == (NEWEST, BY_ID)
    assert runs.parse_order(["start_time ASC"]) == (OrderBy(Kind.ATTRIBUTE, "start_time"), BY_ID)
    assert runs.parse_order(["run_id DESC", "status"]) == (OrderBy(Kind.ATTRIBUTE, "run_id", ascending=False),)
    assert runs.parse_order(["tags.run_id"]) == (OrderBy(Kind.TAG, "run_id"), NEWEST, BY_ID)


CLAUSES = st.tuples(
    NAMES, st.sampled_from(["", " ASC", " desc", "  DESC", " ", " UP", "\tASC", ' "desc"', " DESC,"])
).map("".join)


@pytest.mark.generated
@cases(150)
@given(st.lists(CLAUSES, min_size=1, max_size=2))
def test_generated_orders_of_runs(clauses: list[str]) -> None:
    accepted = ours(runs.parse_order, clauses)
    if accepted is not None:
        assert accepted[: len(clauses)] == stock.run_order(clauses)[: len(accepted)]


@pytest.mark.parametrize(
    "clauses",
    [
        [],
        ["name"],
        ["attribute.name DESC", "creation_time"],
        ["experiment_id DESC", "name"],
        ["`last_update_time` asc"],
    ],
)
def test_an_order_of_experiments_means_the_same(clauses: list[str]) -> None:
    order = [f"experiments.{key.key} {'ASC' if key.ascending else 'DESC'}" for key in experiments.parse_order(clauses)]
    assert order == list(stock.experiment_order(clauses))[: len(order)]


@pytest.mark.generated
@cases(150)
@given(
    st.lists(
        st.tuples(ATTRIBUTES, st.sampled_from(["", " ASC", " desc", " x"])).map("".join),
        min_size=1,
        max_size=2,
    )
)
def test_generated_orders_of_experiments(clauses: list[str]) -> None:
    accepted = ours(experiments.parse_order, clauses)
    if accepted is not None:
        stock.experiment_order(clauses)


def test_experiments_are_not_ordered_by_tags() -> None:
    with pytest.raises(Refused):
        stock.experiment_order(["tags.x"])
    assert ours(experiments.parse_order, ["tags.x"]) is None


def test_a_thousand_clauses_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="1000 clauses"):
        runs.parse_order([f"metrics.m{number}" for number in range(1_000)])
    assert len(runs.parse_order([f"metrics.m{number}" for number in range(60)])) == 62


def test_a_thousand_clauses_of_logged_models_are_refused() -> None:
    order = [messages.OrderBy(f"metrics.m{number}") for number in range(1_000)]
    with pytest.raises(InvalidParameter, match="1000 clauses"):
        logged_models.search(logged_models.Search([1], (), (), order, 10, 0, None), Dialect.SQLITE, None)
