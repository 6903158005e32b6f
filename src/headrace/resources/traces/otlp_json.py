"""Stored spans as traces/get shows them: the column `content` -> a Span of OpenTelemetry's, in protobuf's JSON.

Source: mlflow/entities/span.py, LazySpan, Span.from_dict, Span.to_otel_proto; mlflow/tracing/utils/otlp.py. Each
attribute of the content is a JSON text, whose value is shown.

Declined are spans of other schemas (2.x's, with "context"; 3.5.0's, whose ids are not in base64), and those that stock
fails at: no mlflow.traceRequestId, a number that 64 bits don't hold.
"""

from __future__ import annotations

import base64
import json
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from headrace.api.message import as_json
from headrace.errors import Declined
from headrace.resources.traces.translation import SPAN_TYPE, loaded_type

_REQUEST_ID = "mlflow.traceRequestId"
_TRACE_ID_PREFIX, _V4_PREFIX = "tr-", "trace:/"
_CODES = {"STATUS_CODE_OK": "STATUS_CODE_OK", "STATUS_CODE_ERROR": "STATUS_CODE_ERROR"}
_CODES |= {"OK": "STATUS_CODE_OK", "ERROR": "STATUS_CODE_ERROR"}
_UNSET = ("STATUS_CODE_UNSET", "UNSET")
_MOST = 2**63 - 1
_decode_text = msgspec.json.Decoder(str).decode
_decode = msgspec.json.Decoder().decode


def span(content: str) -> dict[str, Any]:
    """The span. Raises Declined."""
    try:
        return _span(parsed(content))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise Declined("a span that only stock may read") from None


def parsed(content: str) -> dict[str, Any]:
    """The content as an object, with the type that other conventions name another way (translate_loaded_span)."""
    try:
        given = _decode(content)
    except msgspec.DecodeError:
        given = json.loads(content)  # NaN, lone surrogates
    attributes = given.get("attributes")
    if (kind := loaded_type(attributes or {})) is not None:
        given["attributes"] = {**(attributes or {}), SPAN_TYPE: kind}
    return dict(given)


def _span(given: dict[str, Any]) -> dict[str, Any]:
    attributes = given["attributes"]
    if not attributes.get(_REQUEST_ID) or "context" in given:
        raise Declined("a span without the id of its trace, or of an older schema")
    said: dict[str, Any] = {
        "trace_id": _id(given["trace_id"], 16),
        "span_id": _id(given["span_id"], 8),
    }
    if given["parent_span_id"]:
        said["parent_span_id"] = _id(given["parent_span_id"], 8)
    if name := _text(given["name"]):
        said["name"] = name
    if start := _unsigned(given["start_time_unix_nano"]):
        said["start_time_unix_nano"] = start
    if end := _unsigned(given.get("end_time_unix_nano") or 0):
        said["end_time_unix_nano"] = end
    if attributes:
        said["attributes"] = _pairs({key: _loaded(text) for key, text in attributes.items()})
    if events := given.get("events"):
        said["events"] = [_event(event) for event in events]
    if links := [link for each in given.get("links") or () if (link := _link(each)) is not None]:
        said["links"] = links
    said["status"] = _status(given["status"])
    return said


@lru_cache(1_000)  # the trace's is in each of its spans, and most spans have children
def _id(text: str, size: int) -> str:
    """An id in base64, of this many bytes."""
    number = int.from_bytes(base64.b64decode(text, validate=True))
    return b2a_base64(number.to_bytes(size), newline=False).decode()


def _loaded(text: Any) -> Any:
    """_SpanAttributesRegistry.get."""
    if not text:
        return None
    if not isinstance(text, str):
        return text
    if text[0] == '"':
        try:
            return _decode_text(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [_pair(key, value) for key, value in attributes.items()]


def _pair(key: str, value: Any) -> dict[str, Any]:
    if type(value) is str and value.isascii() and key and key.isascii():  # nearly all are
        return {"key": key, "value": {"string_value": value}}
    pair: dict[str, Any] = {"key": _text(key)} if key else {}
    if value is not None:
        pair["value"] = any_value(value)
    return pair


def any_value(value: Any) -> dict[str, Any]:
    """_set_otel_proto_anyvalue, as JSON."""
    if type(value) is str:
        return {"string_value": value if value.isascii() else _text(value)}
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        if not -_MOST - 1 <= value <= _MOST:
            raise Declined("a number that 64 bits don't hold")
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": as_json(value)}
    if isinstance(value, list):
        return {"array_value": {"values": [any_value(item) for item in value]} if value else {}}
    if isinstance(value, dict):
        return {"kvlist_value": {"values": _pairs(value)} if value else {}}
    raise TypeError


def _event(given: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if moment := _unsigned(given["time_unix_nano"]):
        said["time_unix_nano"] = moment
    if name := _text(given["name"]):
        said["name"] = name
    if attributes := given.get("attributes"):
        said["attributes"] = _pairs(attributes)
    return said


def _link(given: dict[str, Any]) -> dict[str, Any] | None:
    """None for one whose ids are too long: stock leaves it out."""
    text = given["trace_id"]
    if text.startswith(_V4_PREFIX):
        text = text.removeprefix(_V4_PREFIX).partition("/")[2]
    trace_id, span_id = int(text.removeprefix(_TRACE_ID_PREFIX), 16), int(given["span_id"], 16)
    if trace_id.bit_length() > 128 or span_id.bit_length() > 64:
        return None
    said: dict[str, Any] = {
        "trace_id": b2a_base64(trace_id.to_bytes(16), newline=False).decode(),
        "span_id": b2a_base64(span_id.to_bytes(8), newline=False).decode(),
    }
    if attributes := given.get("attributes"):
        said["attributes"] = _pairs(attributes)
    return said


def _status(given: dict[str, Any]) -> dict[str, Any]:
    code = given["code"]
    if code in _UNSET:
        return {}
    said = {"code": _CODES[code]}
    # OpenTelemetry keeps a description for errors alone
    if said["code"] == "STATUS_CODE_ERROR" and (message := given.get("message")):
        said["message"] = _text(message)
    return said


def _unsigned(value: Any) -> int:
    number = int(value)
    if not 0 <= number < 2**64:
        raise Declined("a time that 64 bits don't hold")
    return number


def _text(value: str) -> str:
    """_sanitize_otel_string: "?" for what is no character."""
    return value if value.isascii() else value.encode("utf-8", errors="replace").decode()


def artifact(contents: Iterable[str]) -> bytes:
    """TraceData.to_json_bytes: the spans as they are stored, where their type needs no translation."""
    texts = []
    for content in contents:
        given = json.loads(content)
        if (kind := loaded_type(given.get("attributes") or {})) is not None:
            given["attributes"] = {**(given.get("attributes") or {}), SPAN_TYPE: kind}
            content = json.dumps(given, separators=(",", ":"))
        texts.append(content)
    return b'{"spans":[' + ",".join(texts).encode() + b"]}"
