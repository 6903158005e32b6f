"""JSON as MLflow writes and reads it: Python's json, texts not escaped to ASCII, NaN and infinities allowed.

msgspec quotes a text exactly as Python does (a test compares every character), at four times its speed.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any

import msgspec

from headrace.errors import Declined

_encode = msgspec.json.Encoder().encode
_decode, _decode_text = msgspec.json.Decoder().decode, msgspec.json.Decoder(str).decode
_dump = json.JSONEncoder(ensure_ascii=False, default=str).encode
_load = json.JSONDecoder().decode

# Python refuses to convert longer ones, with an error that stock does not expect.
MOST_DIGITS = 4300
_SPACE = " \t\n\r"


def quoted(text: str) -> str:
    """The JSON of a text."""
    try:
        return _encode(text).decode()
    except UnicodeEncodeError:  # half of a surrogate pair, which Python lets through
        return encode_basestring(text)


def dumped(value: Any) -> str:
    """The text of a value; of what JSON has no form for, Python's (mlflow's dump_span_attribute_value)."""
    if type(value) is str:
        return quoted(value)
    return str(value) if type(value) is int else _dump(value)


def loaded(text: str) -> Any:
    """The value of a JSON text; any other text is itself (mlflow's try_json_loads). Raises Declined as `is_nested`."""
    if text[:1] == '"' and text.isprintable():  # most are texts, and msgspec is faster at these
        try:
            return _decode_text(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            pass
    try:
        return _load(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        raise Declined("JSON too large or too deep for Python") from None


def is_nested(text: str) -> bool:
    """Whether a text is itself the JSON of a text, an object or a list (mlflow's sanitize_attributes).

    Raises Declined for JSON that Python's reader gives up: stock has an error for that.
    """
    first = text[:1]
    if first and first in _SPACE:
        first = text.lstrip(_SPACE)[:1]
    if not first or (first not in '"{[' and not (len(text) > MOST_DIGITS and first in "-0123456789")):
        return False
    try:
        _decode(text)  # is faster than Python's reader, and takes nothing that it does not take
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        pass
    else:
        return first in '"{['
    try:
        return isinstance(_load(text), (str, dict, list))
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        raise Declined("JSON too large or too deep for Python") from None
