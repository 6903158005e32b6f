"""What a search asks for, after parsing: conditions that are joined by AND, and the keys of the order.

The names are those of MLflow's own parser (mlflow/utils/search_utils.py): a condition has a type, a key, a
comparator and a value, with aliases resolved and values converted as its SQL store converts them.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

import msgspec


class Kind(Enum):
    """What a key belongs to; the values are MLflow's names."""

    ATTRIBUTE = "attribute"
    METRIC = "metric"
    PARAM = "parameter"
    TAG = "tag"
    DATASET = "dataset"
    METADATA = "request_metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


Comparator: TypeAlias = Literal[
    "=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "RLIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"
]
Value: TypeAlias = str | int | float | tuple[str, ...] | tuple[int, ...] | None


class Condition(msgspec.Struct, frozen=True):
    """One comparison of a filter.

    The value is a float for metrics; an int or a float for times; ints for experiment_id; a tuple with IN and
    NOT IN; None with IS NULL and IS NOT NULL; a string otherwise.
    """

    kind: Kind
    key: str
    comparator: Comparator
    value: Value = None


class OrderBy(msgspec.Struct, frozen=True):
    """One key of the order. Whatever the direction, missing values come last; NaN comes just before them."""

    kind: Kind
    key: str
    ascending: bool = True


# A value of an order key, or of a keyset: what a row is compared by.
KeysetValue: TypeAlias = str | int | float | None


class RunSearch(msgspec.Struct, frozen=True):
    """A page of runs: those of the experiments, in one of the stages, that meet every condition.

    The page starts after the row with the keys `after` (see api/search/sql.py) or, without them, `offset` rows after
    the first.
    """

    experiment_ids: tuple[int, ...]
    stages: tuple[str, ...]
    conditions: tuple[Condition, ...]
    order: tuple[OrderBy, ...]
    max_results: int
    offset: int = 0
    after: tuple[KeysetValue, ...] | None = None


class ExperimentSearch(msgspec.Struct, frozen=True):
    """A page of experiments that meet every condition. It begins as that of a RunSearch."""

    stages: tuple[str, ...]
    conditions: tuple[Condition, ...]
    order: tuple[OrderBy, ...]
    max_results: int
    offset: int = 0
    after: tuple[KeysetValue, ...] | None = None
