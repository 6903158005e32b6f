"""OTLP over HTTP: the bytes of an ExportTraceServiceRequest, protobuf or JSON, plain, gzip or deflate -> spans.

What is refused, with which status and words, is stock's (mlflow/server/otel_api.py, export_traces); where stock has a
500, as for JSON that is no object, it is the 400 of its neighbours.

protobuf's own library does the decoding. Measured on one core, Python 3.11, spans of 4 attributes of 300 bytes: 0.7 us
a span to parse and 7 us to read it out of the messages; a parser in plain Python needed 13 us. The import takes 150 ms
and 9 MB, once in each worker that gets such a request. JSON goes through protobuf's json_format, as stock's does, so
that the two accept the same.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from headrace.api.message import check_values, too_many_values
from headrace.errors import HeadraceError, PayloadTooLarge
from headrace.resources.traces.wire_format import has_few_messages

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

# mlflow/server/otel_api.py, _KNOWN_SERVICE_NAMES: the only values of service.name that go onto root spans
KNOWN_SERVICES = frozenset({"claude-code", "codex_cli_rs", "codex_vscode", "gemini-cli", "qwen-code"})
TRACE_ID = "mlflow.traceRequestId"

_NO_FORMAT = "Invalid OpenTelemetry format"
_NO_PARENT = bytes(8)
_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


class OtlpRefused(HeadraceError):
    """A request that stock refuses, in the shape of its FastAPI half: `{"detail": ...}`. The text is the detail."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Event(Struct, frozen=True, gc=False):
    """What happened at a moment in a span. The attributes are as they were sent."""

    name: str
    time_unix_nano: int
    attributes: dict[str, Any]


class Link(Struct, frozen=True, gc=False):
    """A pointer to a span of another trace."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any] | None


class Span(Struct, gc=False):
    """A span as it was sent, its ids as MLflow writes them, its attributes' values as Python's.

    `trace_id` is MLflow's (`tr-` and 32 hexadecimal digits). `otel_ids` are trace's, span's and parent's, 16, 8 and 8
    or no bytes. Status codes are OTLP's: 1 is OK, 2 is ERROR, everything else UNSET. A time that was not sent is 0.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    otel_ids: tuple[bytes, bytes, bytes]
    name: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    status_code: int
    status_message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[Event]
    links: list[Link]


def media_type(content_type: str | None) -> str:
    """PROTOBUF or JSON. Raises OtlpRefused (400)."""
    given = content_type.split(";")[0].strip() if content_type else None
    if given not in (PROTOBUF, JSON):
        raise OtlpRefused(400, f"Invalid Content-Type: {content_type}. Expected: {PROTOBUF} or {JSON}")
    return given


def decode(body: bytes, content_type: str | None, content_encoding: str | None, max_bytes: int) -> list[Span]:
    """The spans of a request, in their order; none where it has resources without spans.

    Raises OtlpRefused (400, 422), and PayloadTooLarge where the body unpacks to more than `max_bytes`, or has more
    values than a request may have.
    """
    kind = media_type(content_type)
    if content_encoding:
        body = decompressed(body, content_encoding.lower(), max_bytes)
    if kind == JSON:
        check_values(body)
    else:
        _check_messages(body)
    request = _parsed(body, kind)
    if not request.resource_spans:
        raise OtlpRefused(400, "Invalid OpenTelemetry format - no spans found")
    return [
        span
        for sent in request.resource_spans
        for span in _spans_of(sent, _clean(_values(sent.resource.attributes)), _known_service(sent.resource.attributes))
    ]


def decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body unpacked, in bounded memory (mlflow/tracing/utils/otlp.py, decompress_otlp_body)."""
    try:
        if encoding == "gzip":
            return _gunzipped(body, max_bytes)
        if encoding == "deflate":
            try:
                return _inflated(body, zlib.MAX_WBITS, max_bytes)[0]
            except zlib.error:  # some clients send the stream without zlib's header
                return _inflated(body, -zlib.MAX_WBITS, max_bytes)[0]
    except zlib.error:
        raise OtlpRefused(400, f"Failed to decompress {encoding} payload") from None
    raise OtlpRefused(400, f"Unsupported Content-Encoding: {encoding}")


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    """Every member of a gzip file; zeros between them and after them are padding."""
    unpacked = b""
    while body:
        member, body = _inflated(body, 16 + zlib.MAX_WBITS, max_bytes - len(unpacked))
        unpacked += member
        body = body.lstrip(b"\0")
    return unpacked


def _inflated(body: bytes, window: int, max_bytes: int) -> tuple[bytes, bytes]:
    """One compressed stream, and what follows it."""
    stream = zlib.decompressobj(window)
    unpacked = stream.decompress(body, max_bytes + 1)
    if len(unpacked) > max_bytes:
        raise PayloadTooLarge(
            f"The request unpacks to more than {max_bytes} bytes, the most that this server takes. "
            "Send fewer spans in a request."
        )
    if not stream.eof:
        raise zlib.error("the stream ends too early")
    return unpacked, stream.unused_data


def _parsed(body: bytes, kind: str) -> Any:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        if kind == JSON:
            from google.protobuf.json_format import ParseDict

            ParseDict(_with_base64_ids(json.loads(body)), request, ignore_unknown_fields=True)
        else:
            request.ParseFromString(body)
    except Exception:  # json_format has more than its own errors for JSON of another shape
        raise OtlpRefused(400, _NO_FORMAT) from None
    return request


def _check_messages(body: bytes) -> None:
    """Raises PayloadTooLarge for more than MAX_VALUES messages in it (spans, attributes, values, events, links), before
    they are made: 32,000,000 spans of two bytes took 5.5 GB. OtlpRefused (400) where their ends can't be found.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        has_few = has_few_messages(body, ExportTraceServiceRequest.DESCRIPTOR)
    except IndexError:
        raise OtlpRefused(400, _NO_FORMAT) from None
    if not has_few:
        raise too_many_values()


def _with_base64_ids(message: Any) -> Any:
    """OTLP's JSON has hexadecimal ids, where protobuf's has base64 for bytes."""
    for resource in message.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                for field in _ID_FIELDS:
                    if digits := span.get(field):
                        span[field] = base64.b64encode(bytes.fromhex(digits)).decode()
    return message


def _known_service(attributes: Iterable[Any]) -> str | None:
    """The service's name, where it is one of those that MLflow puts onto root spans."""
    for attribute in attributes:
        if attribute.key == "service.name":
            name = attribute.value.string_value
            return name if name in KNOWN_SERVICES else None
    return None


def _spans_of(sent: Any, resource: dict[str, Any], service: str | None) -> list[Span]:
    """The spans of one resource (mlflow/entities/span.py, Span.from_otel_proto)."""
    spans = []
    for scope in sent.scope_spans:
        for span in scope.spans:
            trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
            if len(trace_id) != 16 or len(span_id) != 8 or len(parent_id) not in (0, 8):
                trace_id, span_id, parent_id = (
                    _fitted(trace_id, 16),
                    _fitted(span_id, 8),
                    _fitted(parent_id or b"\0", 8),
                )
            if parent_id == _NO_PARENT:
                parent_id = b""
            name = f"tr-{trace_id.hex()}"
            attributes = {}
            for attribute in span.attributes:
                value = attribute.value
                # the usual kind first, and without asking which it is
                attributes[attribute.key] = value.string_value or _value(value)
            attributes[TRACE_ID] = name  # whatever the client says
            if service and not parent_id:
                attributes["service.name"] = service
            status, events, links = span.status, span.events, span.links
            spans.append(
                Span(
                    name,
                    span_id.hex(),
                    parent_id.hex() if parent_id else None,
                    (trace_id, span_id, parent_id),
                    span.name,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    status.code,
                    status.message,
                    attributes,
                    resource,
                    [Event(e.name, e.time_unix_nano, _values(e.attributes)) for e in events] if events else [],
                    [_link(link) for link in links] if links else [],
                )
            )
    return spans


def _fitted(given: bytes, size: int) -> bytes:
    """An id of another length than OTLP's: a number to MLflow, so zeros before it say nothing.

    Stock finds out that there is none when it makes the span, and that it is too large when it writes it.
    """
    if not given:
        raise OtlpRefused(422, "Cannot convert OpenTelemetry span to MLflow span")
    digits = given.lstrip(b"\0")
    if len(digits) > size:
        raise OtlpRefused(422, "Failed to log OpenTelemetry spans")
    return digits.rjust(size, b"\0")


def _link(link: Any) -> Link:
    """mlflow/entities/link.py, Link.from_otel_proto."""
    attributes = {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in _values(link.attributes).items()
    }
    trace_id, span_id = int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big")
    return Link(f"tr-{trace_id:032x}", f"{span_id:016x}", attributes or None)


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    """An AnyValue as Python's value (mlflow/tracing/utils/otlp.py, _decode_otel_proto_anyvalue)."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return getattr(value, kind)


def _clean(value: Any) -> Any:
    """A resource's attributes as the OpenTelemetry SDK keeps them: what has no name is dropped."""
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items() if key}
    return [_clean(each) for each in value] if isinstance(value, list) else value
