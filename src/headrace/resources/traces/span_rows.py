"""Spans -> the rows of `spans`, and what they mean for their traces, as stock's log_spans makes them.

Source: mlflow/store/tracking/sqlalchemy_store.py, _log_spans_once, up to where it opens a session; and
mlflow/entities/span.py, Span.to_dict, whose JSON is the column `content`, byte for byte.

MLflow has every attribute's value as a JSON text, and the content is JSON once more: a text is quoted twice.

Declined are spans with which stock fails or that only one of the two databases takes: a NUL or half a surrogate pair
in a column of its own, times beyond 2262, a name or a tag too long, token usage that is no number. `rows` raises
before anything is done, and stock answers the request, unless it would fail for sure (Unstorable, on PostgreSQL).
"""

from __future__ import annotations

import json
import posixpath
import re
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from headrace.errors import Declined, InvalidParameter, Malformed
from headrace.resources.traces import token_sums
from headrace.resources.traces.costs import Prices, cost_of
from headrace.resources.traces.info import NAME
from headrace.resources.traces.json_text import MOST_DIGITS, dumped, is_nested, loaded, quoted
from headrace.resources.traces.otlp import Event, Link, Span
from headrace.resources.traces.preview import preview
from headrace.resources.traces.tags import SERVERS, SPANS
from headrace.resources.traces.token_sums import CHAT_USAGE, LLM_COST, Node
from headrace.resources.traces.translation import INPUTS, MODEL, MODEL_PROVIDER, OUTPUTS, SPAN_TYPE, translate

_STATUS = {1: "OK", 2: "ERROR"}
_TAG_PREFIX = "mlflow.traceTag."
_NOT_AS_TAGS = ("telemetry.sdk.", "mlflow.")
_SESSION = ("session.id", "gen_ai.conversation.id")
_USER = "user.id"

# mlflow/utils/validation.py, mlflow/tracing/constant.py and the columns of dbmodels/models.py
_MAX_TAG_KEY, _MAX_TAG_VALUE, _MAX_TRACE_NAME, _MAX_SESSION, _MAX_METADATA = 250, 8000, 4096, 250, 8000
_MAX_TYPE = _MAX_MODEL = 500
_MAX_TIME = 2**63 - 1
_TAG_KEY = re.compile(r"^[/\w.\- :]*$")
# what the JSON of a text, an object or a list begins with, after space
_MAY_BE_NESTED = frozenset('"{[ \t\n\r')


class Unstorable(Malformed):
    """PostgreSQL's columns don't hold it; some of SQLite's do."""


class SpanRow(Struct, frozen=True, gc=False):
    """A row of `spans`, without experiment_id, which is its trace's."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    type: str | None
    status: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    content: str
    input_cost: float | None
    output_cost: float | None
    total_cost: float | None
    model_name: str | None
    model_provider: str | None


class TraceContribution(Struct, gc=False):
    """What one request says about one of its traces; trace_rows.py merges it with what is known.

    `status` is the first root span's, OK or ERROR; the previews are the last one's. `nodes` has each span once, as it
    was sent last. (Stock counts a span twice that is twice in a request, and never ends where it is above itself.)
    """

    trace_id: str
    min_start_ms: int
    max_end_ms: int
    status: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    trace_name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    tags: dict[str, str] = {}
    nodes: list[Node] = []
    has_usage: bool = False
    has_cost: bool = False


class LoggedSpans(Struct, gc=False):
    """A request's rows. `spans` has each span once, as it was sent last; `completed`: the traces whose root is here."""

    spans: list[SpanRow]
    traces: list[TraceContribution]
    completed: list[str]


def rows(spans: Sequence[Span], prices: Prices) -> LoggedSpans:
    """The rows that stock would write. Raises Declined where it would fail, or where only it can translate."""
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    span_rows: dict[tuple[str, str], SpanRow] = {}
    seen = Seen()
    traces = [_trace(of_trace, prices, seen, span_rows) for of_trace in by_trace.values()]
    completed = [trace.trace_id for trace in traces if trace.status is not None]
    return LoggedSpans(list(span_rows.values()), traces, completed)


def _trace(
    spans: Sequence[Span], prices: Prices, seen: Seen, span_rows: dict[tuple[str, str], SpanRow]
) -> TraceContribution:
    """What the request's spans of one trace say; their rows go to `span_rows`."""
    trace = TraceContribution(
        spans[0].trace_id,
        min([span.start_time_unix_nano for span in spans]) // 1_000_000,
        max([span.end_time_unix_nano for span in spans]) // 1_000_000,
    )
    session: str | None = None
    user: str | None = None
    tags: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for span in spans:
        sent_type = span.attributes.get(SPAN_TYPE)  # the column has what was sent, only the content a translated type
        attributes = json_attributes(span.attributes)
        translate(attributes, span.events)
        usage = loaded(attributes[CHAT_USAGE]) if CHAT_USAGE in attributes else None
        cost = _cost(attributes, usage, prices)
        if session is None and (said := attributes.get(_SESSION[0]) or attributes.get(_SESSION[1])):
            session = _at_most(_MAX_SESSION, "Session ID", _text(said))
        if user is None and (said := attributes.get(_USER)):
            user = _storable(_text(said))
            if len(user) > _MAX_METADATA:
                raise Unstorable(f"the user of a trace has more than {_MAX_METADATA} characters")
        nodes[span.span_id] = Node(span.span_id, span.parent_id, usage if isinstance(usage, dict) else None, cost)
        span_rows[span.trace_id, span.span_id] = _row(span, sent_type, attributes, cost, seen)
        if span.parent_id is None:
            if trace.status is None:
                trace.status = "ERROR" if span.status_code == 2 else "OK"
            _take_root(trace, attributes, tags)
    trace.nodes = list(nodes.values())
    trace.session_id = session or None
    trace.user_id = user or None
    resource = next((span.resource for span in spans if span.resource), {})
    # the server's own first, then the resource's, then the client's: the last one wins
    trace.tags = {SPANS: "TRACKING_STORE", **_resource_tags(resource), **tags}
    trace.has_usage = token_sums.usage_sums(trace.nodes) is not None
    trace.has_cost = token_sums.cost_sums(trace.nodes) is not None
    return trace


def json_attributes(attributes: dict[str, Any]) -> dict[str, str]:
    """The values as JSON texts; a text that is the JSON of a text, an object or a list is taken for it.

    Source: dump_span_attribute_value, then sanitize_attributes.
    """
    return {
        key: dumped(value)
        if type(value) is not str
        else value
        if value and (value[0] in _MAY_BE_NESTED or len(value) > MOST_DIGITS) and is_nested(value)
        else quoted(value)
        for key, value in attributes.items()
    }


def _cost(attributes: dict[str, str], usage: Any, prices: Prices) -> dict[str, Any] | None:
    """What the span says that it cost, or what its tokens cost by the lists."""
    if LLM_COST in attributes:
        said = loaded(attributes[LLM_COST])
        if not isinstance(said, dict):
            raise Declined("a cost that is no object")
        return said
    if not usage or MODEL not in attributes:
        return None
    provider = loaded(attributes[MODEL_PROVIDER]) if MODEL_PROVIDER in attributes else None
    cost = cost_of(loaded(attributes[MODEL]), usage, provider, prices)
    if cost:
        attributes[LLM_COST] = dumped(cost)
    return cost


def _row(span: Span, sent_type: Any, attributes: dict[str, str], cost: dict[str, Any] | None, seen: Seen) -> SpanRow:
    if sent_type is not None and not isinstance(sent_type, str):
        raise Declined("a span's type that is no text")
    if sent_type is not None and len(sent_type) > _MAX_TYPE:
        raise Unstorable(f"a span's type has more than {_MAX_TYPE} characters")
    if span.start_time_unix_nano > _MAX_TIME or span.end_time_unix_nano > _MAX_TIME:
        raise Unstorable("a span begins or ends after the year 2262, which no database's column holds")
    model, provider = attributes.get(MODEL), attributes.get(MODEL_PROVIDER)
    return SpanRow(
        span.trace_id,
        span.span_id,
        span.parent_id,
        _storable(span.name),
        sent_type and _storable(sent_type),
        _STATUS.get(span.status_code, "UNSET"),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        content(span, attributes, seen),
        token_sums.finite(cost.get("input_cost")) if cost else None,
        token_sums.finite(cost.get("output_cost")) if cost else None,
        token_sums.finite(cost.get("total_cost")) if cost else None,
        model and _storable(_text(model)[:_MAX_MODEL]),
        provider and _storable(_text(provider)[:_MAX_MODEL]),
    )


def content(span: Span, attributes: dict[str, str], seen: Seen) -> str:
    """The column `content`: the span as JSON, as Python's json writes mlflow's Span.to_dict."""
    trace_id, span_id, parent_id = span.otel_ids
    code = _STATUS.get(span.status_code, "UNSET")
    message = quoted(span.status_message) if code == "ERROR" else '""'
    base64, keys = seen.base64, seen.keys
    pairs = ", ".join([keys[key] + quoted(value) for key, value in attributes.items()])
    parent = f'"{base64[parent_id]}"' if parent_id else "null"
    events = _events(span.events) if span.events else "[]"
    links = _links(span.links) if span.links else "[]"
    return (
        f'{{"trace_id": "{base64[trace_id]}", "span_id": "{base64[span_id]}", "parent_span_id": {parent}, '
        f'"name": {quoted(span.name)}, "start_time_unix_nano": {span.start_time_unix_nano}, '
        f'"end_time_unix_nano": {span.end_time_unix_nano}, "events": {events}, '
        f'"status": {{"code": "STATUS_CODE_{code}", "message": {message}}}, '
        f'"attributes": {{{pairs}}}, "links": {links}}}'
    )


class _Base64(dict[bytes, str]):
    def __missing__(self, data: bytes) -> str:
        text = self[data] = b2a_base64(data, newline=False).decode()
        return text


class _Keys(dict[str, str]):
    def __missing__(self, key: str) -> str:
        text = self[key] = quoted(key) + ": "
        return text


class Seen:
    """What a request has in many spans: ids, as base64, and the names of attributes, as the keys of JSON."""

    def __init__(self) -> None:
        self.base64, self.keys = _Base64(), _Keys()


def _events(events: Sequence[Event]) -> str:
    return dumped(
        [
            {"name": event.name, "time_unix_nano": event.time_unix_nano, "attributes": event.attributes}
            for event in events
        ]
    )


def _links(links: Sequence[Link]) -> str:
    return dumped(
        [{"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes} for link in links]
    )


def _take_root(trace: TraceContribution, attributes: dict[str, str], tags: dict[str, str]) -> None:
    """Previews and tags from a root span."""
    inputs, outputs = attributes.get(INPUTS), attributes.get(OUTPUTS)
    trace.request_preview = _storable(preview(inputs, "user")) if inputs else None
    trace.response_preview = _storable(preview(outputs, "assistant")) if outputs else None
    for key, value in attributes.items():
        if key.startswith(_TAG_PREFIX) and _is_tag_key(key := key.removeprefix(_TAG_PREFIX)):
            value = _text(value)[:_MAX_TAG_VALUE]
            if key == NAME:
                trace.trace_name = _at_most(_MAX_TRACE_NAME, "Trace name", value)
            else:
                tags[key] = _storable(value)


def _resource_tags(resource: dict[str, Any]) -> dict[str, str]:
    """A resource's attributes become tags of the trace, but for the SDK's own and MLflow's."""
    tags = {}
    for key, value in resource.items():
        if key.startswith(_NOT_AS_TAGS):
            continue
        try:
            text = value if isinstance(value, str) else json.dumps(value)
        except TypeError:
            raise Declined("bytes in a resource's attributes") from None
        if _is_tag_key(key):
            tags[key] = _storable(text[:_MAX_TAG_VALUE])
    return tags


def _is_tag_key(key: str) -> bool:
    """mlflow/utils/validation.py, _validate_trace_tag; one with another key is left out, and one of the server's."""
    if key in SERVERS or len(key) > _MAX_TAG_KEY or not _TAG_KEY.match(key):
        return False
    path = posixpath.normpath(key)
    return path == key and path != "." and not path.startswith(("..", "/"))


def _text(value: str) -> str:
    """A JSON text's own text, or else the JSON (mlflow's _try_parse_json_string)."""
    parsed = loaded(value)
    return parsed if isinstance(parsed, str) else value


def _at_most(limit: int, what: str, text: str) -> str:
    """Stock refuses the request for a longer one (trace_analytics.py, _validate_length_limit)."""
    if len(text) > limit:
        raise InvalidParameter(f"'{what}' exceeds the maximum length of {limit} characters")
    return _storable(text)


def _storable(text: str) -> str:
    """The text, if every database can hold it: no NUL, no half of a surrogate pair."""
    if "\0" in text or not (text.isascii() or _is_unicode(text)):
        raise Unstorable("a name, type or tag has a NUL, or half of a surrogate pair, which PostgreSQL can't hold")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
