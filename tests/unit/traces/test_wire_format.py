"""How many messages a request of spans may have, found before they are made."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headrace.errors import PayloadTooLarge
from headrace.resources.traces import otlp, wire_format
from tests.unit.traces.spans import body, span

NESTED = {"text": "a" * 200, "many": [1, 2.5, "b", [b"c", {"d": None}]], "map": {"e": {"f": True}}}
SPANS = [
    span(NESTED, events=[("one", NESTED), ("two", {})], links=[(b"\1" * 16, b"\2" * 8, {"g": 1})]),
    span({}, name=""),
    span({"\n*2JZjz": "\n*2JZjz" * 100}),  # bytes that messages begin with
]


def messages(message: Any) -> int:
    """In it, at any depth."""
    found = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                found += 1 + messages(each)
    return found


def within(number: int, size: int) -> bytes:
    """The tag and the length of a field of `size` bytes."""
    length = bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size])


def nested(content: bytes, *numbers: int) -> bytes:
    for number in reversed(numbers):
        content = within(number, len(content)) + content
    return content


def test_they_are_counted_as_the_parser_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in range(1, 7):
        data = body(*(each for each, _ in zip(cycle(SPANS), range(count), strict=False)))
        there = messages(ExportTraceServiceRequest.FromString(data))
        assert there > 2 * count
        monkeypatch.setattr(wire_format, "MAX_VALUES", there)
        assert len(otlp.decode(data, otlp.PROTOBUF, None, len(data))) == count
        monkeypatch.setattr(wire_format, "MAX_VALUES", there - 1)
        with pytest.raises(PayloadTooLarge, match="values, the most that this server takes"):
            otlp.decode(data, otlp.PROTOBUF, None, len(data))


SPANS_OF_TWO_BYTES = nested(b"\x12\0" * 2_000, 1, 2)
TOO_MANY = {
    "resources": b"\x0a\0" * 2_000,
    "attributes of a resource": nested(b"\x0a\0" * 2_000, 1, 1),
    "scopes": nested(b"\x12\0" * 2_000, 1),
    "spans": SPANS_OF_TWO_BYTES,
    "attributes": nested(b"\x4a\0" * 2_000, 1, 2, 2),
    "events": nested(b"\x5a\0" * 2_000, 1, 2, 2),
    "links": nested(b"\x6a\0" * 2_000, 1, 2, 2),
    "values of a list": nested(b"\x0a\0" * 2_000, 1, 2, 2, 9, 2, 5),
    "values of a map": nested(b"\x0a\0" * 2_000, 1, 2, 2, 9, 2, 6),
    "tags that are longer than they must be": nested(b"\x92\0\0" * 2_000, 1, 2),
    "lengths that are longer than they must be": nested(b"\x12\x80\0" * 2_000, 1, 2),
    "after a group": b"\x0b\x0c" + SPANS_OF_TWO_BYTES,
    "in a group": b"\x0b" + SPANS_OF_TWO_BYTES + b"\x0c",
    "before an end that is cut off": SPANS_OF_TWO_BYTES + b"\x0a\x05",
    "cut off": SPANS_OF_TWO_BYTES[:-5],
    "behind numbers": b"\x08\xff\x01\x11" + bytes(8) + b"\x1d" + bytes(4) + SPANS_OF_TWO_BYTES,
    "a span at a time": nested(b"", 1, 2, 2) * 700,
    "fields of no message": nested(b"\x4a\0" * 900 + b"\x2a\x7f" + b"J" * 127 + b"\x30\1" * 4_000, 1, 2, 2),
}
# Ends that lie beyond the bytes, or beyond the message around: the parser finds no more in them.
NO_ENDS = {
    "a length beyond the end": b"\x0a\x7f" + b"\x12\0" * 2_000,
    "a message that is longer than the one around": b"\x0a\x02\x12\x7f" + b"\x12\0" * 2_000,
    "a number without an end": b"\x08" + b"\xff" * 2_000 + b"\x12" * 2_000,
    "a length without an end": b"\x0a" + b"\xff" * 2_000 + b"\x12" * 2_000,
    "a hundred and more in one another": nested(b"\x12\0" * 900, 1, 2, 2, 9, 2, *[5, 1] * 150),
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may have a thousand messages, and nobody makes them."""

    def parsed(body: bytes, kind: str) -> Any:
        raise AssertionError("they are made")

    monkeypatch.setattr(wire_format, "MAX_VALUES", 1_000)
    monkeypatch.setattr(wire_format, "MOST_FIELDS", 4_000)
    monkeypatch.setattr(otlp, "_parsed", parsed)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("data", TOO_MANY.values(), ids=TOO_MANY)
def test_too_many_are_refused_before_they_are_made(data: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="values, the most that this server takes"):
        otlp.decode(data, otlp.PROTOBUF, None, len(data))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("data", NO_ENDS.values(), ids=NO_ENDS)
def test_what_has_no_end_is_refused_as_the_parser_would(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ExportTraceServiceRequest.FromString(data)
    with pytest.raises(otlp.OtlpRefused, match="Invalid OpenTelemetry format") as refused:
        otlp.decode(data, otlp.PROTOBUF, None, len(data))
    assert refused.value.status == 400
