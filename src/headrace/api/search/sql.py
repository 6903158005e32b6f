"""What the SQL of searches has in common: MLflow's comparators, the keys of an order, and pages that go on by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from headrace.api.search.ast import Condition, KeysetValue
from headrace.api.search.page_token import BadPageToken
from headrace.db import regex
from headrace.db.query import Dialect, Statement
from headrace.errors import Declined, InvalidParameter

# characters: PostgreSQL folds the pattern of ILIKE again for each row (60,000 characters: 0.6 ms), this one once
_LONG_PATTERN = 1_000


class Key(NamedTuple):
    """One expression of the order. NULLs come last; a key that is never NULL is cheaper to go on from.

    `constant`: all rows that the statement can find have the same.
    """

    expression: str
    ascending: bool
    type: type
    nullable: bool
    constant: bool = False


@contextmanager
def no_pattern_for_stock(dialect: Dialect, *filters: str) -> Iterator[None]:
    """A block that may decline a search. On SQLite stock looks for the pattern of RLIKE by Python's engine, which may
    never end, and does nothing else meanwhile: a filter with one is refused. Raises InvalidParameter."""
    try:
        yield
    except Declined as reason:
        if dialect is Dialect.SQLITE and any("rlike" in text.lower() for text in filters):
            raise InvalidParameter(
                f"A search with RLIKE that can't be read here is not left to MLflow: {reason}."
            ) from None
        raise


def compare(sql: Statement, column: str, condition: Condition) -> str:
    """`column` against the value of a condition, with MLflow's comparators."""
    value, comparator = condition.value, condition.comparator
    if isinstance(value, tuple):
        membership = sql.in_list(column, value, "int" if isinstance(value[0], int) else "varchar")
        return membership if comparator == "IN" else f"NOT ({membership})"
    if comparator in ("LIKE", "ILIKE"):
        return _like(sql, column, comparator, str(value))
    if comparator == "RLIKE":
        if sql.dialect is Dialect.SQLITE:
            regex.check(str(value))
        return f"{column} {'REGEXP' if sql.dialect is Dialect.SQLITE else '~'} {sql.bind(value)}"
    return f"{column} {comparator} {sql.number(value) if isinstance(value, float | int) else sql.bind(value)}"


def _like(sql: Statement, column: str, comparator: str, pattern: str) -> str:
    if sql.dialect is Dialect.SQLITE:
        # stock sets case_sensitive_like, too; SQLAlchemy writes ILIKE this way
        if comparator == "ILIKE":
            return f"lower({column}) LIKE lower({sql.bind(pattern)})"
        return f"{column} LIKE {sql.bind(pattern)}"
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise Declined("a pattern that PostgreSQL refuses: it ends with the escape character")
    if comparator == "ILIKE" and len(pattern) > _LONG_PATTERN:
        return f"lower({column}) LIKE (SELECT lower({sql.bind(pattern)}::varchar))"
    return f"{column} {comparator} {sql.bind(pattern)}"


def order_by(key: Key) -> str:
    return f"{key.expression} {'ASC' if key.ascending else 'DESC'}{' NULLS LAST' if key.nullable else ''}"


def next_page(rows: Sequence[Sequence[Any]], max_results: int, width: int) -> tuple[KeysetValue, ...] | None:
    """`after` of the next page, from the rows of this one; None where it is the last. Keys follow `width` columns."""
    return tuple(rows[max_results - 1])[width:] if len(rows) > max_results else None


def after_keyset(sql: Statement, keys: Sequence[Key], after: Sequence[KeysetValue]) -> str:
    """Condition: the row sorts after these keys. Raises BadPageToken."""
    if len(keys) != len(after):
        raise BadPageToken("The page_token does not fit the order_by of this search.")
    condition = ""
    for key, value in zip(reversed(keys), reversed(after), strict=True):
        _check_value(key, value)
        if key.constant:
            continue
        if value is None:
            after_it, equal = "FALSE", f"{key.expression} IS NULL"
        else:
            cast = "::float8" if key.type is float and sql.dialect is Dialect.POSTGRESQL else ""
            parameter = sql.bind(value) + cast
            sign = ">" if key.ascending else "<"
            equal = f"{key.expression} = {parameter}"
            after_it = f"{key.expression} {sign} {parameter}"
            if key.nullable:
                after_it = f"({after_it} OR {key.expression} IS NULL)"
        condition = f"({after_it} OR ({equal} AND {condition}))" if condition else after_it
    first, value = next((key, value) for key, value in zip(keys, after, strict=True) if not key.constant)
    if len(keys) > 1 and not first.nullable:
        # says nothing new, but is a range that an index can begin at
        condition = f"{first.expression} {'>' if first.ascending else '<'}= {sql.bind(value)} AND {condition}"
    return condition


def _check_value(key: Key, value: KeysetValue) -> None:
    if value is None:
        fits = key.nullable
    else:  # True is an int to Python
        types = (int, float) if key.type is float else key.type
        fits = isinstance(value, types) and not isinstance(value, bool)
    if not fits:
        raise BadPageToken("The page_token does not fit the order_by of this search.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadPageToken("The page_token holds a number beyond 64 bits.")
