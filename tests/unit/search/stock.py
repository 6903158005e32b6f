"""Stock's own reading of filters and orders, in the shape of Headrace's."""

# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from headrace.api.search.ast import Condition, Kind, OrderBy
from headrace.errors import ApiError, Declined
from headrace.resources.experiments import search as experiments
from headrace.resources.runs import search as runs

with warnings.catch_warnings():
    # MLflow's own imports warn; they are not what is tested here.
    warnings.simplefilter("ignore")
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import (
        _get_orderby_clauses,
        _get_search_experiments_filter_clauses,
        _get_search_experiments_order_by_clauses,
        _get_sqlalchemy_filter_clauses,
    )
    from mlflow.utils.search_utils import SearchExperimentsUtils, SearchUtils
    from sqlalchemy.orm import Session


class Refused(Exception):
    """Stock answers with an error."""


def run_filter(text: str) -> tuple[Condition, ...]:
    try:
        parsed = SearchUtils.parse_search_filter(text)
        _get_sqlalchemy_filter_clauses(parsed, Session(), "sqlite")
    except (MlflowException, ValueError, OverflowError, TypeError) as error:
        raise Refused(str(error)) from error
    return tuple(_condition(clause) for clause in parsed)


def run_order(clauses: Sequence[str]) -> tuple[OrderBy, ...]:
    try:
        _get_orderby_clauses(list(clauses), Session())
        parsed = [SearchUtils.parse_order_by_for_search_runs(clause) for clause in clauses]
    except (MlflowException, ValueError) as error:
        raise Refused(str(error)) from error
    return tuple(
        OrderBy(Kind(kind), SearchUtils.translate_key_alias(key), ascending) for kind, key, ascending in parsed
    )


def experiment_filter(text: str) -> tuple[Condition, ...]:
    try:
        parsed = SearchExperimentsUtils.parse_search_filter(text)
        _get_search_experiments_filter_clauses(parsed, "sqlite")
    except (MlflowException, ValueError, TypeError) as error:
        raise Refused(str(error)) from error
    return tuple(_condition(clause, experiment=True) for clause in parsed)


def experiment_order(clauses: Sequence[str]) -> tuple[str, ...]:
    """The columns and directions, as SQL."""
    try:
        return tuple(str(clause) for clause in _get_search_experiments_order_by_clauses(list(clauses)))
    except (MlflowException, ValueError) as error:
        raise Refused(str(error)) from error


def _condition(clause: dict[str, Any], experiment: bool = False) -> Condition:
    kind, key, value = Kind(clause["type"]), clause["key"], clause["value"]
    if not experiment:
        key = SearchUtils.translate_key_alias(key)
    if kind is Kind.METRIC:
        value = float(value)
    if experiment and kind is Kind.ATTRIBUTE and key == "experiment_id":
        value = tuple(int(item) for item in value) if isinstance(value, tuple) else int(value)
    return Condition(kind, key, clause["comparator"].upper(), value)


def ours(parse: Any, argument: Any) -> Any:
    """What Headrace's parser makes of it; None where it leaves it to stock."""
    try:
        return parse(argument)
    except (Declined, ApiError):
        return None


__all__ = [
    "Refused",
    "experiment_filter",
    "experiment_order",
    "experiments",
    "ours",
    "run_filter",
    "run_order",
    "runs",
]
