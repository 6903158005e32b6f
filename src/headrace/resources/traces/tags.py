"""What may be a trace's tag or metadata, and which are the server's own.

Of the server's own some say where files are that it reads for whoever asks: nobody sets those, not even together with
a new trace. Stock lets a client set mlflow.artifactLocation to any folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.api.message import invalid, missing
from headrace.errors import InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.runs.messages import KeyValue
from headrace.resources.traces.info import COST, NAME, SESSION, USAGE
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS, count_of, finite

ARTIFACTS = "mlflow.artifactLocation"
SPANS, ARCHIVE, ARCHIVAL_FAILURE = (
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
)
SERVERS = frozenset({ARTIFACTS, SPANS, ARCHIVE, ARCHIVAL_FAILURE})
FINALIZED = "mlflow.trace.infoFinalized"
# The locations of spans of which the server reads no file by a tag.
_HARMLESS = frozenset({"TRACKING_STORE", "ARTIFACT_REPO"})
MAX_KEY, MAX_VALUE, MAX_NAME, MAX_SESSION = 250, 8000, 4096, 250


def immutable(key: str, done: str) -> InvalidParameter:
    """handlers._validate_trace_tag_handler_mutation."""
    return InvalidParameter(f"Tag '{key}' is immutable and cannot be {done} on a trace.")


def check_set(key: str) -> None:
    """Raises InvalidParameter for a tag of the server's own."""
    if key in SERVERS:
        raise immutable(key, "set")


def check_deleted(key: str) -> None:
    """As check_set; without the mark of a failure stock tries to archive again."""
    if key in SERVERS and key != ARCHIVAL_FAILURE:
        raise immutable(key, "deleted")


def of_trace(given: Mapping[str, str]) -> dict[str, str]:
    """The tags that come with a trace, without its name and its artifact location. Raises InvalidParameter."""
    tags = {}
    for key, value in given.items():
        if key in (ARCHIVE, ARCHIVAL_FAILURE) or (key == SPANS and value not in _HARMLESS):
            raise immutable(key, "set")
        if key not in (NAME, ARTIFACTS):
            tags[_key(key, "tags")] = valid.text(value, MAX_VALUE, "value")
    return tags


def name_of(tags: Mapping[str, str]) -> str | None:
    """validate_trace_name. Raises InvalidParameter."""
    return valid.text(tags[NAME], MAX_NAME, "Trace name") if NAME in tags else None


def metadata_of_trace(given: Mapping[str, str]) -> dict[str, str]:
    """The metadata that come with a trace, without those that are columns. Raises InvalidParameter."""
    return {
        _key(key, "trace_metadata"): valid.text(value, MAX_VALUE, "value")
        for key, value in given.items()
        if key not in (SESSION, USAGE, COST)
    }


def columns_of(metadata: Mapping[str, str]) -> dict[str, str | int | float | None]:
    """Columns of TraceRow that metadata tell (analytics_columns_from_metadata). Raises InvalidParameter."""
    columns: dict[str, str | int | float | None] = {}
    if SESSION in metadata:
        columns["session_id"] = valid.text(metadata[SESSION], MAX_SESSION, "Session ID")
    if USAGE in metadata:
        usage = _json_object(metadata[USAGE])
        columns |= {key: count_of(usage[key]) for key in TOKEN_COLUMNS if key in usage}
    if COST in metadata:
        cost = _json_object(metadata[COST])
        columns |= {key: finite(cost[key]) for key in COST_COLUMNS if key in cost}
    return columns


def pairs(given: Sequence[KeyValue], field: str) -> dict[str, str]:
    """Of a key that comes twice the last counts. Raises InvalidParameter for one without a key."""
    for place, each in enumerate(given):
        if not each.key:
            raise missing(f"{field}[{place}].key")
    return {each.key: each.value for each in given}


def _json_object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def _key(key: str, field: str) -> str:
    if len(key) > MAX_KEY:
        raise valid.too_long(f"{field}.key", MAX_KEY)
    if "\0" in key:
        raise invalid(field, key, "It has a NUL character, which the database can't hold.")
    return key
