"""How many messages a protobuf holds, by its bytes alone, before any of them is made.

By the wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import cache
from typing import Any

from headrace.api.message import MAX_VALUES

MOST_FIELDS = 4_000_000  # which take 2 s to be looked through, in a thread
MAX_DEPTH = 200  # the parser refuses more than 100
_PART = 1_000_000  # bytes, of which there is a copy


def has_few_messages(body: bytes, kind: Any) -> bool:
    """Whether the messages in a body number MAX_VALUES or fewer; `kind`: the descriptor of what it is.

    Raises IndexError where something ends beyond the body or what is around it, or is in too many others, before there
    are too many.
    """
    if len(body) <= MAX_VALUES:
        return True
    parts = (body[at : at + _PART] for at in range(0, len(body), _PART))
    first_bytes = _first_bytes(kind)
    if sum(len(part) - len(part.translate(None, first_bytes)) for part in parts) <= MAX_VALUES:
        return True  # each message begins with one of these: the usual body need not be walked through
    return _walked_through(body, kind)


def _walked_through(body: bytes, kind: Any) -> bool:
    at, end, inner = 0, len(body), _messages_in(kind)
    around: list[tuple[int, dict[int, Any]]] = []  # the ends of the messages that this one is in, and what they hold
    messages = fields = 0
    while messages <= MAX_VALUES and fields <= MOST_FIELDS:
        if at >= end:
            if at > end:
                raise IndexError(at)
            if not around:
                return True
            end, inner = around.pop()
            continue
        fields += 1
        tag = body[at]
        at += 1
        if tag > 127:
            tag, at = _varint(body, at - 1)
        wire = tag & 7
        if wire == 2:  # a length, and so many bytes
            size = body[at]
            at += 1
            if size > 127:
                size, at = _varint(body, at - 1)
            found = inner.get(tag >> 3)
            if found is None:
                at += size
            else:
                messages += 1
                around.append((end, inner))
                if len(around) > MAX_DEPTH:
                    raise IndexError(at)
                end, inner = at + size, _messages_in(found)
        elif wire == 0:
            at = _varint(body, at)[1]
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises IndexError for one that has no end within ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise IndexError(at)


@cache
def _messages_in(kind: Any) -> dict[int, Any]:
    """The number of a field -> the descriptor of the messages that it holds, of those of a message's descriptor."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


@cache
def _first_bytes(whole: Any) -> bytes:
    """What the tags of messages in this one, at any depth, begin with: with the highest bit where the tag goes on."""
    kinds: list[Any] = [whole]
    numbers: set[int] = set()
    for kind in kinds:
        numbers |= _messages_in(kind).keys()
        kinds += [each for each in _messages_in(kind).values() if each not in kinds]
    bits = {(number << 3 | 2) & 127 for number in numbers}
    return bytes(bits | {each | 128 for each in bits})
