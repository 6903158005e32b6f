"""Text of a filter or an order_by clause -> tokens.

MLflow reads its filters with the sqlparse library. The patterns here are sqlparse's own for what a filter can
hold (sqlparse/keywords.py, SQL_REGEX), and nothing else is a token: comments, operators, placeholders and
unbalanced quotes are declined, so that MLflow words the error.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

from headrace.errors import ApiError, Declined

MAX_LENGTH = 100_000
"""Characters of a filter that are read here."""

MAX_TOKENS = 10_000
"""sqlparse refuses statements of more tokens (MAX_GROUPING_TOKENS); each white space character is one."""

MAX_FOR_STOCK = 20_000
"""Characters outside of quotes that stock is asked to read: each may be a token, 65 us of the time of all of stock."""

_LONGEST_FOR_STOCK = 1_000_000


class TooLong(ApiError):
    """What is not read here would keep all of stock busy: it reads it before it counts what it has read."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


class TokenKind(Enum):
    NAME = "a word, or words and quoted words that are joined by dots"
    SINGLE = "a string in single quotes"
    DOUBLE = "a string or a name in double quotes"
    NUMBER = "a number"
    OPERATOR = "a comparator made of signs"
    PUNCTUATION = "a comma or a parenthesis"


class Token(msgspec.Struct, frozen=True):
    kind: TokenKind
    text: str
    start: int


_WORD = r"[^\W\d]\w*"
_BACKTICKS = r"`(?:``|[^`])*`"
_DOUBLE = r'"(?:""|\\"|[^"])*"'
_SINGLE = r"'(?:''|\\'|[^'])*'"
_FIRST = rf"(?:{_WORD}|{_BACKTICKS}|{_DOUBLE}(?=\.))"
_NEXT = rf"(?:\.(?:{_WORD}|{_BACKTICKS}|{_DOUBLE}))"
NAME = rf"{_FIRST}(?:{_NEXT}+(?:\.{_SINGLE})?|\.{_SINGLE})|{_WORD}|{_BACKTICKS}"
# sqlparse cuts numbers like 12abc or 1-2 in two; only one that stands alone means the same here and there.
_NUMBER = r"(?:-?[0-9]+(?:\.[0-9]+)?[eE]-?[0-9]+|-?(?:[0-9]+\.[0-9]*|\.[0-9]+)|-?[0-9]+)(?=[ \t\r\n]|\Z)"

_TOKEN = re.compile(
    rf"(?P<SPACE>[ \t\r\n]+)|(?P<NAME>{NAME})|(?P<SINGLE>{_SINGLE})|(?P<DOUBLE>{_DOUBLE})"
    rf"|(?P<NUMBER>{_NUMBER})|(?P<OPERATOR>[<>=~!]+)|(?P<PUNCTUATION>[(),])"
)

# sqlparse takes these for keywords even behind a dot: tags.from is not a name to it.
_KEYWORDS_EVERYWHERE = frozenset({"CASE", "IN", "VALUES", "USING", "FROM", "AS"})
_QUOTED = re.compile(rf"{_BACKTICKS}|{_DOUBLE}|{_SINGLE}")
_IN_QUOTES = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, in linear time.

    Raises:
        Declined: something in it is not part of a filter, or it is longer than is worth reading.
        TooLong: that, and stock shall not read it either.
    """
    try:
        return _tokens(text)
    except Declined as declined:
        check_for_stock(text, f"This filter can't be read: {declined}")
        raise


def check_for_stock(text: str, why: str) -> None:
    """Raises TooLong."""
    if len(text) <= MAX_FOR_STOCK:
        return
    if len(text) > _LONGEST_FOR_STOCK or len(_IN_QUOTES.sub("", text)) > MAX_FOR_STOCK:
        raise TooLong(f"{why}. It has {len(text)} characters.")


def _tokens(text: str) -> list[Token]:
    if len(text) > MAX_LENGTH or "\0" in text:
        raise Declined("the filter is too long, or has a NUL in it")
    tokens: list[Token] = []
    position = weight = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Declined(f"no token of a filter at character {position}")
        kind, token = match.lastgroup, match.group()
        weight += len(token) if kind == "SPACE" else 1 + 2 * token.count(".")
        if weight > MAX_TOKENS:
            raise Declined("the filter has more tokens than sqlparse takes")
        if kind != "SPACE":
            tokens.append(Token(TokenKind[kind or ""], token, position))
        position = match.end()
    return tokens


def check_words(name: str) -> str:
    """`name`, if sqlparse takes each word of it for a name.

    Raises:
        Declined: a word of it is a keyword to sqlparse.
    """
    for word in _QUOTED.sub("", name).split("."):
        upper = word.upper()
        if upper in _KEYWORDS_EVERYWHERE or (upper.isascii() and not word.isascii()):
            raise Declined(f"{name!r} holds a keyword of SQL")
    return name
