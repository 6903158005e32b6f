"""Values as protobuf's JSON has them: times, durations, and JSON of any kind (google.protobuf.json_format)."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from headrace.api.message import invalid
from headrace.errors import Declined

# All times here are UTC's, and none says so: one without a zone is written four times as fast.
_EPOCH = datetime(1970, 1, 1)
_MOST_SECONDS = 315_576_000_000
_MAX_DEPTH = 90  # protobuf's is 100
_FRACTIONS = ("", *(f".{rest:03d}" for rest in range(1, 1000)))  # of a second, by milliseconds
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)


def timestamp(milliseconds: int) -> str:
    """Timestamp.ToJsonString. Raises Declined for a year that has not four digits."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}{_FRACTIONS[rest]}Z"


@lru_cache(1_000)  # what is shown together has often happened at the same time
def _second(seconds: int) -> str:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise Declined("a time that protobuf can't write") from None


def duration(milliseconds: int) -> str:
    """Duration.ToJsonString. Raises Declined for more than 10,000 years."""
    seconds, rest = divmod(abs(milliseconds), 1000)
    if seconds > _MOST_SECONDS:
        raise Declined("a duration that protobuf can't write")
    return f"{'-' if milliseconds < 0 else ''}{seconds}{_FRACTIONS[rest]}s"


def milliseconds_of_timestamp(text: str, field: str) -> int:
    """Timestamp.FromJsonString, then ToMilliseconds. Raises InvalidParameter."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise invalid(field, text, "It is no time like 2026-01-31T12:00:00.000Z.")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError as error:
        raise invalid(field, text, f"It is no time: {error}.") from None
    if match[8]:
        away = timedelta(hours=int(match[9]), minutes=int(match[10]))
        try:
            moment = moment - away if match[8] == "+" else moment + away
        except OverflowError:
            raise invalid(field, text, "It is no time of the years 1 to 9999.") from None
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + int((match[7] or "").ljust(9, "0")[:3])


def milliseconds_of_duration(text: str, field: str) -> int:
    """Duration.FromJsonString, then ToMilliseconds. Raises InvalidParameter."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[2]) > _MOST_SECONDS:
        raise invalid(field, text, "It is no duration like 1.5s.")
    nanos = int((match[3] or "").ljust(9, "0"))
    milliseconds = int(match[2]) * 1000 + nanos // 1_000_000
    return -milliseconds if match[1] else milliseconds


def value(given: Any, depth: int = 0) -> Any:
    """JSON as google.protobuf.Value gives it back: all numbers are doubles. Raises Declined for what it can't hold."""
    if isinstance(given, str | bool) or given is None:
        return given
    if isinstance(given, int | float):
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Declined("a number that protobuf's JSON can't hold")
        return number
    if depth > _MAX_DEPTH:
        raise Declined("JSON that is nested too deeply for protobuf")
    if isinstance(given, list):
        return [value(item, depth + 1) for item in given]
    return {key: value(item, depth + 1) for key, item in given.items()}
