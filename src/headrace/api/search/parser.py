"""Tokens -> comparisons, and the rules on names that runs and experiments share.

MLflow's grammar (mlflow/utils/search_utils.py): comparisons joined by AND; a name is `key` or `prefix.key`; a
value is a number, a quoted string or a list of quoted strings in parentheses. Everything else is declined.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import lru_cache
from typing import NamedTuple

from headrace.api.search.ast import Condition
from headrace.api.search.lexer import NAME, Token, TokenKind, check_for_stock, check_words, tokenize
from headrace.errors import ApiError, Declined, InvalidParameter, Malformed

MAX_CONDITIONS = 200
"""Conditions in one filter. MLflow joins a table for each, where SQLite fails beyond 64."""

MAX_CLAUSES = 60
"""Clauses in one order_by. Each joins a table: SQLite fails beyond 64, and a planner takes minutes over a thousand."""

_ORDER_BY = re.compile(rf"(?P<name>{NAME}|\"(?:\"\"|\\\"|[^\"])*\")(?:[ \t]+(?P<direction>ASC|DESC))?", re.IGNORECASE)
_MAX_ORDER_BY_LENGTH = 2_000
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=")


class TooManyConditions(ApiError):
    """A filter that would keep the database's planner busy, and MLflow's even longer."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


class Comparison(NamedTuple):
    """A comparison as it stands: the value is a token, the strings of a list, or None with IS [NOT] NULL."""

    name: str
    comparator: str
    value: Token | tuple[str, ...] | None


def parse(text: str, condition: Callable[[Comparison], Condition]) -> tuple[Condition, ...]:
    """The conditions of a filter, in its order; none for an empty one. `condition` knows what may be compared.

    Raises:
        Declined: MLflow refuses it, or it isn't certain how MLflow reads it.
        TooManyConditions: it has more than MAX_CONDITIONS comparisons.
    """
    if not text:
        return ()
    if text.isspace():
        raise Declined("MLflow refuses a filter of white space")
    reader = _Reader(text)
    comparisons = list(_comparisons(reader))
    if len(comparisons) > MAX_CONDITIONS:
        raise TooManyConditions(
            f"The filter has {len(comparisons)} conditions; this server takes {MAX_CONDITIONS}. "
            "Use IN with a list, or several searches."
        )
    return tuple(map(condition, comparisons))


def split_name(name: str) -> tuple[str | None, str]:
    """(prefix or None, key) of a name, without the quotes and backticks around the key (_get_identifier)."""
    prefix, dot, key = name.partition(".")
    if not dot:
        prefix, key = "", name
    if _is_quoted(key, "'") or _is_quoted(key, '"'):
        key = key[1:-1]
    return (prefix if dot else None), strip_backticks(key)


def strip_backticks(text: str) -> str:
    """`text` without the backticks around it."""
    return text[1:-1] if _is_quoted(text, "`") else text


def string_value(value: Token | tuple[str, ...] | None) -> str:
    """The text between the quotes of a value, as it stands: MLflow knows no escapes.

    Raises:
        Declined: the value isn't a quoted string.
    """
    if not isinstance(value, Token) or value.kind not in (TokenKind.SINGLE, TokenKind.DOUBLE):
        raise Declined("a quoted string is expected")
    return value.text[1:-1]


def number_text(value: Token | tuple[str, ...] | None) -> str:
    """A number as it stands in the filter.

    Raises:
        Declined: the value isn't a number.
    """
    if not isinstance(value, Token) or value.kind is not TokenKind.NUMBER:
        raise Declined("a number is expected")
    return value.text


def whole_number(text: str, key: str, quote: str = "'") -> int:
    """The value that an attribute is compared with. `quote`: what stands around a wrong one in the error.

    Raises:
        InvalidParameter: it is a fraction, or written as one.
        Malformed: see integer.
    """
    if not text.lstrip("-").isdigit():
        raise InvalidParameter(f"Invalid value for numeric attribute '{key}': {quote}{float(text)}{quote}")
    return integer(text)


def integer(text: str) -> int:
    """The number, if the text is one that a BIGINT column compares with.

    Raises:
        Malformed: it isn't. PostgreSQL compares with larger ones, SQLite can't.
    """
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Malformed(f"{text[:40]} is not an integer of 64 bits")
    return int(text)


def comparable(text: str) -> int | float:
    """The number, if it is an integer, or a fraction that a double holds exactly enough to compare with integers.

    Raises:
        Declined: it isn't.
    """
    if text.lstrip("-").isdigit():
        return integer(text)
    number = float(text)
    if abs(number) >= 2**53:
        raise Declined("a number that a double does not hold")
    return number


def check_clauses(clauses: Sized) -> None:
    """Raises InvalidParameter for more order_by clauses than MAX_CLAUSES."""
    if len(clauses) > MAX_CLAUSES:
        raise InvalidParameter(f"order_by has {len(clauses)} clauses; this server takes {MAX_CLAUSES}. Use fewer.")


def named_twice(clauses: Iterable[str]) -> InvalidParameter:
    """_get_orderby_clauses and its like; of runs and traces stock makes a 500 of it."""
    return InvalidParameter(f"`order_by` contains duplicate fields: {list(clauses)}")


def parse_order_by(clauses: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(name, whether ascending) of each clause: `name`, `name ASC` or `name DESC`.

    With a direction MLflow takes the quotes off by shlex; without, they stay for split_name.

    Raises:
        InvalidParameter: more clauses than one order_by may have.
        Declined: one is not in the grammar.
        TooLong: that, and stock shall not read it either.
    """
    check_clauses(clauses)
    return map(_parse_clause, clauses)


@lru_cache(100)  # clients ask for the same order again and again, and shlex takes most of 20 us
def _parse_clause(clause: str) -> tuple[str, bool]:
    match = _ORDER_BY.fullmatch(clause) if len(clause) <= _MAX_ORDER_BY_LENGTH and "\0" not in clause else None
    if match is None:
        check_for_stock(clause, "A clause of order_by can't be read")
        raise Declined("an order_by clause that only MLflow may understand")
    check_words(match["name"])
    try:
        parts = shlex.split(clause.replace("`", '"'))
    except ValueError as error:
        raise Declined("quotes in an order_by clause that shlex does not take") from error
    if len(parts) != (2 if match["direction"] else 1):
        raise Declined("quotes in an order_by clause that shlex reads otherwise")
    if match["direction"]:
        return parts[0].strip(), match["direction"].upper() == "ASC"
    return clause.strip(), True


class _Reader:
    """The tokens of a filter, and a position in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = tokenize(text)
        self._position = 0

    def peek(self) -> Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def take(self, *kinds: TokenKind) -> Token:
        token = self.peek()
        if token is None or token.kind not in kinds:
            raise Declined(f"unexpected {token.text[:40]!r}" if token else "the filter ends too early")
        self._position += 1
        return token

    def take_if(self, text: str) -> Token | None:
        """The next token, where it is this keyword or sign; keywords in any case."""
        token = self.peek()
        if token is None or token.text.upper() != text:
            return None
        self._position += 1
        return token


def _is_quoted(text: str, quote: str) -> bool:
    return len(text) >= 2 and text.startswith(quote) and text.endswith(quote)


def _comparisons(reader: _Reader) -> Iterator[Comparison]:
    # MLflow drops every AND, so that doubled, leading and trailing ones do no harm.
    joined = True
    while reader.peek() is not None:
        if reader.take_if("AND"):
            joined = True
        elif joined:
            yield _comparison(reader)
            joined = False
        else:
            raise Declined("two conditions without AND")


def _comparison(reader: _Reader) -> Comparison:
    name = check_words(reader.take(TokenKind.NAME, TokenKind.DOUBLE).text)
    if reader.take_if("IS"):
        return Comparison(name, _null_test(reader), None)
    if negation := reader.take_if("NOT"):
        if reader.take_if("IN") is None:
            raise Declined(f"NOT without IN at character {negation.start}")
        return Comparison(name, "NOT IN", _list(reader))
    if word := reader.take_if("IN"):
        return Comparison(name, word.text, _list(reader))
    for keyword in ("LIKE", "ILIKE", "RLIKE"):
        if word := reader.take_if(keyword):
            return Comparison(name, word.text, _value(reader))
    operator = reader.take(TokenKind.OPERATOR).text
    if operator not in _OPERATORS:
        raise InvalidParameter(f"Invalid comparator '{operator}'. Valid are {', '.join(_OPERATORS)}, and LIKE.")
    return Comparison(name, operator, _value(reader))


def _null_test(reader: _Reader) -> str:
    negation = reader.take_if("NOT")
    null = reader.take_if("NULL")
    if null is None:
        raise Declined("IS without NULL")
    if negation is None:
        return "IS NULL"
    if reader.text[negation.start : null.start].upper() != "NOT ":
        raise Declined("MLflow wants one space in NOT NULL")
    return "IS NOT NULL"


def _value(reader: _Reader) -> Token:
    return reader.take(TokenKind.SINGLE, TokenKind.DOUBLE, TokenKind.NUMBER)


def _list(reader: _Reader) -> tuple[str, ...]:
    """MLflow evaluates the list as Python's literal, escapes included."""
    items: list[str] = []
    if reader.take_if("(") is None:
        raise Declined("a list is expected")
    while True:
        text = reader.take(TokenKind.SINGLE, TokenKind.DOUBLE).text
        try:
            with warnings.catch_warnings():  # of escapes that Python doesn't know, which it leaves as they stand
                warnings.simplefilter("ignore")
                items.append(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            raise Declined("a string in a list that is none in Python") from None
        comma = reader.take_if(",")
        if reader.take_if(")"):
            return tuple(items)
        if comma is None:
            raise Declined("a comma is expected in a list")
