"""The SQL files beside this module, with psql's variables: `:"name"` an identifier, `:'name'` a literal.

A person can run the same files with `psql --set name=value --file ...`.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2 import sql

_VARIABLE = re.compile(r""":(?:"(?P<identifier>\w+)"|'(?P<literal>\w+)')""")
_COMMENT = re.compile(r"^--.*\n", re.M)


def read(name: str, **values: str) -> sql.Composed:
    """The statements of NAME.sql for psycopg2, each variable replaced by its value of `values`, quoted."""
    from psycopg2 import sql

    text = _COMMENT.sub("", files("headrace.sql").joinpath(f"{name}.sql").read_text(encoding="utf-8"))
    pieces: list[sql.Composable] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        pieces.append(sql.SQL(text[end : match.start()]))
        identifier, literal = match.groups()
        pieces.append(sql.Identifier(values[identifier]) if identifier else sql.Literal(values[literal]))
        end = match.end()
    return sql.Composed([*pieces, sql.SQL(text[end:])])
