"""Statements: SQL with named parameters, and what the two dialects say otherwise. No value is ever part of a text.

Most statements are constants of a resource's folder, one text for both databases:

    TAG = Sql("INSERT INTO tags (run_uuid, key, value) VALUES (:run_id, :key, :value)")
    await db.rows(TAG(run_id="...", key="k", value="v"))

`IN :names` takes a list in one parameter. Where the two databases need (or reward) different texts they stand side by
side: `Sql(postgresql=..., sqlite=...)`. Searches, whose text depends on what is asked, are written with `Statement`.
"""

# ruff: noqa: S608  (the texts are made of constants and placeholders)

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple


class Dialect(Enum):
    """The values are the signs of a numbered parameter."""

    POSTGRESQL = "$"
    SQLITE = "?"


class Query(NamedTuple):
    """A statement and its parameters. `replanned`: the best plan depends much on what these are."""

    text: str
    values: list[Any]
    replanned: bool = False

    def render(self, dialect: Dialect) -> Query:
        """Itself: it was written for one dialect."""
        return self

    @property
    def numbered(self) -> dict[str, Any]:
        """The values for Python's sqlite3: ?1 is a name to it, and from 3.14 on it takes no sequence for names."""
        return {str(number): value for number, value in enumerate(self.values, 1)}


class Sql:
    """A static statement with `:name` parameters; called with their values it can be run.

    `tables`: those that it names after FROM, JOIN, INTO or UPDATE; the schema contract asks for them.
    """

    __slots__ = ("_by_rows", "_compiled", "_keys", "_replanned", "_texts", "tables")

    def __init__(self, text: str = "", *, postgresql: str = "", sqlite: str = "", replanned: bool = False) -> None:
        self._texts = {Dialect.POSTGRESQL: postgresql or text, Dialect.SQLITE: sqlite or text}
        self._compiled: dict[Dialect, tuple[str, tuple[str, ...]]] = {}
        self._by_rows: dict[tuple[bool, ...], _OfRows] = {}
        self._keys = tuple(match["key"] for match in _ROWS.finditer(postgresql or text))
        self._replanned = replanned
        self.tables = frozenset().union(*map(_tables, set(self._texts.values())))

    def __call__(self, **values: Any) -> Bound:
        return Bound(self, values)

    def query(self, values: dict[str, Any], dialect: Dialect) -> Query:
        """The statement of a dialect with its parameters in order. A list is JSON text in SQLite."""
        if self._keys and dialect is Dialect.POSTGRESQL:
            return self._query_of_rows(values)
        compiled = self._compiled.get(dialect)
        if compiled is None:
            compiled = self._compiled[dialect] = _compile(self._texts[dialect], dialect)
        text, names = compiled
        if dialect is Dialect.SQLITE:
            return Query(text, [json.dumps(v) if isinstance(v := values[name], list) else v for name in names])
        return Query(text, [values[name] for name in names], self._replanned)

    def _query_of_rows(self, values: dict[str, Any]) -> Query:
        """Of `given_rows`: where there is one, its values are parameters of their own."""
        alone = tuple(len(values[key]) == 1 for key in self._keys)
        found = self._by_rows.get(alone)
        if found is None:
            found = self._by_rows[alone] = _compile_rows(self._texts[Dialect.POSTGRESQL], alone)
        given = [values[name] for name in found.names]
        for at in found.alone:
            given[at] = given[at][0] if given[at] else None
        return Query(found.text, given, self._replanned)


class Bound(NamedTuple):
    """A statement with the values of its parameters."""

    sql: Sql
    values: dict[str, Any]

    def render(self, dialect: Dialect) -> Query:
        """What a backend of this dialect runs."""
        return self.sql.query(self.values, dialect)


def columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Sequence[Any]]:
    """The parameters of `given_rows` out of rows: a column each, and of one without any value none of it, since unnest
    fills up with NULL."""
    found: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ((),) * len(names)
    if len(rows) > 1:
        found = (() if column[0] is None and column.count(None) == len(column) else column for column in found)
    return dict(zip(names, found, strict=True))


_JOINS = 6  # with the table of the search itself, and one that it reads, PostgreSQL's join_collapse_limit

# What a Database runs.
Runnable = Bound | Query


class Statement:
    """The parameters of a statement that is being written, and what its dialect says otherwise."""

    def __init__(self, dialect: Dialect) -> None:
        self.values: list[Any] = []
        self.dialect = dialect
        self._looked_up = 0

    def query(self, text: str, replanned: bool = False) -> Query:
        return Query(text, self.values, replanned)

    def bind(self, value: Any) -> str:
        """A placeholder for the value."""
        self.values.append(value)
        return f"{self.dialect.value}{len(self.values)}"

    def text(self, value: str | None) -> str:
        """A placeholder where the database can't see the type from the column that it goes to."""
        return self.bind(value) + ("::varchar" if self.dialect is Dialect.POSTGRESQL else "")

    def number(self, value: float) -> str:
        """A placeholder for any number of its type: a narrower column that it is compared with would refuse some."""
        if self.dialect is Dialect.SQLITE:
            return self.bind(value)
        return f"{self.bind(value)}::{'float8' if isinstance(value, float) else 'int8'}"

    def exists(self, select: str) -> str:
        """Condition: the statement has a row. PostgreSQL makes joins of the first few, and weighs their orders; the
        others it looks up row by row (OFFSET 0): over a hundred joins its planner takes half a minute."""
        self._looked_up += 1
        alone = self.dialect is Dialect.POSTGRESQL and self._looked_up > _JOINS
        return f"EXISTS ({select}{' OFFSET 0' if alone else ''})"

    def in_list(self, column: str, values: Sequence[str | int], type_name: str = "varchar") -> str:
        """Condition: the column holds one of the values."""
        if len(values) == 1:  # an index on more columns then gives the order, too
            return f"{column} = {self.bind(values[0])}"
        if self.dialect is Dialect.SQLITE:
            return f"{column} IN (SELECT value FROM json_each({self.bind(json.dumps(values))}))"
        return f"{column} = ANY({self.bind(list(values))}::{type_name}[])"


def given_rows(prefix: str, types: dict[str, str], *columns: str) -> str:
    """The rows `n` out of arrays, for PostgreSQL: one parameter a column, named by prefix and column.

    The first column is never NULL. A single row is no array in the statement that is run: for an assessment that took
    PostgreSQL and the driver 0.51 ms, and takes 0.44.
    """
    arrays = ", ".join(f":{prefix}{column}::{types.get(column, 'varchar')}[]" for column in columns)
    return f"unnest({arrays}) AS n ({', '.join(columns)})"


class _OfRows(NamedTuple):
    """`alone`: the places of the parameters that are a value, not an array of one."""

    text: str
    names: tuple[str, ...]
    alone: tuple[int, ...]


_ROWS = re.compile(r"unnest\((?P<arrays>:(?P<key>\w+)::[^()]*\[\])\) AS n\b")


def _compile_rows(text: str, alone: tuple[bool, ...]) -> _OfRows:
    """`alone`: of which `given_rows` there is one."""
    said = iter(alone)
    values: set[str] = set()

    def one_row(match: re.Match[str]) -> str:
        if not next(said):
            return match[0]
        values.update(re.findall(r":(\w+)::", match["arrays"]))
        return f"(VALUES ({match['arrays'].replace('[]', '')})) AS n"

    text = _ROWS.sub(one_row, text)
    text = re.sub(r"\bIN :(\w+)", lambda match: f"= :{match[1]}" if match[1] in values else match[0], text)
    compiled, names = _compile(text, Dialect.POSTGRESQL)
    return _OfRows(compiled, names, tuple(at for at, name in enumerate(names) if name in values))


_PARAMETER = re.compile(r"(?P<list>(?P<not>NOT )?IN )?(?<![:\w]):(?P<name>[a-z_]\w*)")
_TABLE = re.compile(r"\bINTO\s+([a-z_]+)|\b(?:FROM|JOIN|UPDATE|USING)\s+(?!SET\b)([a-z_]+)\b(?!\s*\()")
_NAMED_BY_WITH = re.compile(r"\b([a-z_]+)(?:\s*\([\w, ]+\))?\s+AS\s+(?:NOT MATERIALIZED |MATERIALIZED )?\(")


def _compile(text: str, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    """The text with numbered parameters, and the names in their order."""
    names: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in names:
            names.append(name)
        parameter = f"{dialect.value}{names.index(name) + 1}"
        if not match["list"]:
            return parameter
        if dialect is Dialect.POSTGRESQL:
            return f"<> ALL({parameter})" if match["not"] else f"= ANY({parameter})"
        return f"{match['list']}(SELECT value FROM json_each({parameter}))"

    return _PARAMETER.sub(placeholder, text), tuple(names)


def _tables(text: str) -> frozenset[str]:
    named = {name for names in _TABLE.findall(text) for name in names if name}
    return frozenset(named) - frozenset(_NAMED_BY_WITH.findall(text))
