"""Query strings of GET endpoints, as stock reads them (_get_request_message of mlflow/server/handlers.py)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from headrace.errors import Malformed

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,8})\Z")


def fields(body: bytes, query: bytes, single: Collection[str], repeated: Collection[str] = ()) -> dict[str, list[str]]:
    """Name -> values of the query's fields, at least one each.

    Raises:
        Declined: there is no query, but a body; a field is unknown, or comes twice and must not.
    """
    if body or not query:
        raise Malformed("not a plain query")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Malformed("a query that is not UTF-8") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if (name in found and name not in repeated) or (name not in single and name not in repeated) or "\0" in value:
            raise Malformed(f"{name!r} in the query")
        found.setdefault(name, []).append(value)
    return found


def one_each(found: Mapping[str, list[str]]) -> dict[str, object]:
    """The fields as a message has them in JSON: order_by a list, max_results a number, the others text."""
    return {
        name: values if name == "order_by" else integer(values[0]) if name == "max_results" else values[0]
        for name, values in found.items()
    }


def integer(text: str) -> int:
    """A number that fits 32 bits, in plain digits. Raises Declined."""
    if not _INTEGER.match(text):
        raise Malformed("not a plain number")
    return int(text)
