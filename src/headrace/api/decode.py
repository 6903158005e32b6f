"""A request to its message, and a message to the request that stock gets."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from headrace.api.endpoint import Endpoint, Match
from headrace.api.message import Message, check_values
from headrace.api.permits import Permit
from headrace.asgi.responses import JSON
from headrace.asgi.types import MESSAGE, Scope
from headrace.errors import InvalidParameter

P = ParamSpec("P")
T = TypeVar("T")

MAX_DEPTH = 100  # json_format.ParseDict's
_LARGE = 1024 * 1024  # bytes
# What stock's parser takes for the beginning of JSON: blanks, also of UTF-16 and -32, and their marks.
_JSON = re.compile(rb'[\s\0\xef\xbb\xbf\xfe\xff]*[\[{"]')
# Escapes of NUL and of half a pair, numbers that may be too large, and names that are no JSON.
_SUSPECT = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]|[eE]\+?[0-9]{3}|[0-9]{309}|NaN|Infinity")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUL = "a NUL character, which no database can hold."
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


def decode(match: Match, scope: Scope, body: bytes, permit: Permit | None) -> Message:
    """The message of a request, which everything works on from here. Raises InvalidParameter, PayloadTooLarge."""
    endpoint, parameters = match
    assert endpoint.reader is not None
    exact = permit is not None and permit.exact
    if endpoint.headers:
        parameters = {**parameters, **_header_fields(endpoint, scope)}
    message: Message
    if endpoint.raw:
        message = endpoint.reader.texts(parameters)
        message = msgspec.structs.replace(message, body=body)
    elif endpoint.form:
        message = endpoint.reader.query(body, parameters)
    elif endpoint.query or (scope["query_string"] and scope["method"] in ("GET", "HEAD")):
        message = endpoint.reader.query(scope["query_string"], parameters, exact=exact)
    else:
        check_values(body)
        message = endpoint.reader.body(body, parameters, exact=exact)
    scope[MESSAGE] = message
    return message


async def beside_others(body: bytes, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, which for a large body is done in a thread: 12 MB of numbers in texts take 3 s to read."""
    return work(*args, **kwargs) if len(body) < _LARGE else await asyncio.to_thread(work, *args, **kwargs)


def check_content_type(scope: Scope, body: bytes, form: bool = False) -> None:
    """handlers._validate_content_type; a body without any is taken for JSON, which no browser's form can send.

    `form`: one of our pages sends it. Raises InvalidParameter.
    """
    wanted = b"application/x-www-form-urlencoded" if form else b"application/json"
    given = [value for name, value in scope["headers"] if name == b"content-type"]
    if not given and not body:
        raise InvalidParameter("Bad Request. Content-Type header is missing.")
    for value in given:
        if value != wanted and value.split(b";")[0].strip().lower() != wanted:
            raise InvalidParameter(f"Bad Request. Content-Type must be one of ['{wanted.decode()}'].")


async def check_for_stock(scope: Scope, body: bytes) -> None:
    """Raises InvalidParameter for what stock only fails at: JSON that is nested more deeply than protobuf takes it, and
    what a database can't hold, in a text or a number. Raises PayloadTooLarge for more values than it reads in time."""
    if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
        raise InvalidParameter(f"The request has {_NUL}")
    if not _JSON.match(body):
        return
    check_values(body)
    await beside_others(body, _check_json, body)


def _check_json(body: bytes) -> None:
    """Raises InvalidParameter; what is no JSON is stock's to refuse."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and (depth := _depth(body)) > MAX_DEPTH:
        raise InvalidParameter(f"The request's body is nested {depth} deep; {MAX_DEPTH} is the most.")
    if body[:1] in (b"{", b"[") and not _SUSPECT.search(body):  # the usual one
        return
    try:
        value = json.loads(body, parse_constant=_not_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return
    _check_texts(value)
    if isinstance(value, str) and _JSON.match(inner := value.encode()):  # which stock decodes again
        _check_json(inner)


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidParameter(f"The request's body has {_NUL}")
        if _SURROGATE.search(value):
            raise InvalidParameter("The request's body has half of a surrogate pair, which is no character.")
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            _check_texts(each)
    elif isinstance(value, list):
        for each in value:
            _check_texts(each)


def _not_finite(text: str) -> float:
    raise InvalidParameter(f"The request's body has the number {text[:50]}, which is not finite.")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)


def _depth(body: bytes) -> int:
    """How deep its brackets are nested; those in texts don't count."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_BRACKETS)
    brackets = b"".join(bare.split(b'"')[::2])
    return max(accumulate(1 if byte in b"[{" else -1 for byte in brackets), default=0)


def _header_fields(endpoint: Endpoint, scope: Scope) -> dict[str, str]:
    """The fields of the message that headers hold. Raises InvalidParameter for one that comes twice and differs."""
    fields: dict[str, str] = {}
    names = dict(endpoint.headers)
    for name, value in scope["headers"]:
        if (field := names.get(name)) is not None:
            text = value.decode("latin-1")
            if fields.setdefault(field, text) != text:
                raise InvalidParameter(f"The request has the header {name.decode()} twice, with different values.")
    return fields


def rewrite(match: Match, scope: Scope, message: Message, body: bytes) -> bytes:
    """The body of a request that is written anew from its message; the scope's path, query and headers with it."""
    endpoint, parameters = match
    names = dict(endpoint.headers)
    scope["raw_path"] = quote(scope["path"], safe="/:@!$&'()*+,;=-._~").encode()
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in names]
    for name, field in endpoint.headers:
        if value := getattr(message, field, ""):
            scope["headers"].append((name, str(value).encode("latin-1")))
    if endpoint.raw:
        scope["query_string"] = b""
        return body
    fields: dict[str, Any] = msgspec.to_builtins(message)
    if endpoint.query or scope["method"] in ("GET", "HEAD"):
        fields = {name: value for name, value in fields.items() if name not in parameters}
        scope["query_string"] = urlencode(fields, doseq=True).encode()
        return body if endpoint.query else b""
    scope["query_string"] = b""
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    scope["headers"].append(JSON)
    return msgspec.json.encode(fields)  # with the path's parameters, as MLflow's clients do: handlers ask for some
