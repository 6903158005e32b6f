"""POST /v1/traces: spans by OpenTelemetry's protocol, from MLflow's clients and from anybody's.

What is declined, and goes to stock: see span_rows.py; traces whose spans are not in the database; experiments whose
artifact location only stock can read.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from headrace.api.endpoint import Call, Response, endpoint
from headrace.auth.objects import Experiment, OneOf, Run
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.query import Dialect, Sql
from headrace.errors import BadRequest, Declined, Forbidden, HeadraceError, PayloadTooLarge
from headrace.resources import validation as valid
from headrace.resources.traces import otlp, span_rows, sql
from headrace.resources.traces.costs import Prices
from headrace.resources.traces.messages import ExportTraces
from headrace.resources.traces.otlp import OtlpRefused, Span
from headrace.resources.traces.room import Room
from headrace.resources.traces.span_rows import LoggedSpans
from headrace.resources.traces.tags import SERVERS
from headrace.resources.traces.writes import LogSpans

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TABLES = (
    *("experiments", "spans", "trace_info", "trace_tags", "trace_request_metadata", "assessments"),
    "entity_associations",
)
_HEADERS = (
    (b"x-mlflow-experiment-id", "experiment_id"),
    (b"x-mlflow-run-id", "run_id"),
    (b"content-type", "content_type"),
    (b"content-encoding", "content_encoding"),
)
_ACCEPTED = Response(b"", content_type=otlp.PROTOBUF.encode())
# What FastAPI says of a header that is not there.
_NO_EXPERIMENT = [
    {"type": "missing", "loc": ["header", "x-mlflow-experiment-id"], "msg": "Field required", "input": None}
]
# Larger requests, in bytes as they are unpacked, are decoded in a thread, so that others need not wait: of 10 spans
# 1 ms, of 10,000 a second. And they take turns: from the first byte to the commit a request takes six times its size.
_LARGE = 200_000
_ROOM = Room(16_000_000)
# mlflow's MAX_TRACE_LINKS_PER_REQUEST
_MAX_LINKS = 100

_PRICES = Prices.of_mlflow()
_EXPERIMENTS_OF = Sql("SELECT request_id, experiment_id FROM trace_info WHERE request_id IN :trace_ids")
_LINK_RUN = Sql(sql.LINK_RUN)


@endpoint(
    "POST", "/v1/traces", Right.EDIT, OneOf(Experiment("experiment_id"), Run("run_id")), *_TABLES,
    audited="often", raw=True, headers=_HEADERS,
)  # fmt: skip
async def export_traces(call: Call, message: ExportTraces) -> object:
    """otel_api.export_traces and SqlAlchemyStore.log_spans."""
    if message.experiment_id is None:
        return _refusal(422, _NO_EXPERIMENT)
    try:
        kind = otlp.media_type(message.content_type)
        body, packed, most = message.body, message.content_encoding, call.settings.max_body_bytes
        if packed:
            with suppress(PayloadTooLarge):
                body, packed = otlp.decompressed(body, packed.lower(), min(_LARGE, most)), ""
        decode = partial(otlp.decode, body, kind, packed, most)
        if not packed and len(body) <= _LARGE:
            return await _export(call, message.experiment_id, message.run_id, decode, _at_once)
        async with _ROOM.of(most if packed else len(body)):
            return await _export(call, message.experiment_id, message.run_id, decode, asyncio.to_thread)
    except OtlpRefused as error:
        return _refusal(error.status, str(error))


async def _at_once(work: Callable[[], T]) -> T:
    return work()


async def _export(
    call: Call, experiment: str, run_id: str | None, decode: Callable[[], list[Span]], run: Any
) -> Response:
    """Write the spans, which are durable when this returns. `run`: where Python works on them."""
    spans = await run(decode)
    if not spans:
        return _ACCEPTED
    experiment_id = valid.experiment_id(experiment)
    try:
        logged: LoggedSpans = await run(partial(span_rows.rows, spans, _PRICES))
        del spans  # while the rows are written there is no need for both
        await call.db.submit(LogSpans(experiment_id, call.workspace, _only_here(call), logged))
    except Declined as reason:
        if isinstance(reason, span_rows.Unstorable) and call.db.dialect is Dialect.POSTGRESQL:
            raise BadRequest(f"The spans can't be stored: {reason}.") from None
        spans = await run(decode)
        await _before_stock(call, experiment_id, spans)
        if len({(span.trace_id, span.span_id) for span in spans}) < len(spans):
            return _refusal(400, "The request has a span twice. Send each span once in a request.")
        raise
    if run_id and logged.completed:
        await _link(call, run_id, logged.completed)
    return _ACCEPTED


def _only_here(call: Call) -> bool:
    """Whether a trace that is there must be in the experiment that the request names: it alone was looked at."""
    return call.sender is not None or call.settings.enable_workspaces


async def _before_stock(call: Call, experiment_id: int, spans: list[Span]) -> None:
    """Stock adds spans to a trace of any experiment, and tags of its own: refuse what the sender may not do."""
    if any(f"mlflow.traceTag.{key}" in span.attributes for span in spans for key in SERVERS):
        raise Forbidden("A span tells a tag of its trace that is the server's own.")
    if not _only_here(call):
        return
    ids = sorted({span.trace_id for span in spans})
    for trace_id, of_experiment in await call.db.rows(_EXPERIMENTS_OF(trace_ids=ids)):
        if of_experiment != experiment_id:
            raise Forbidden(f"The trace {trace_id} is not in the experiment that the request names.")


async def _link(call: Call, run_id: str, trace_ids: list[str]) -> None:
    """Link the traces to the run. The spans are safe: what fails is logged, as stock does it."""
    if len(trace_ids) > _MAX_LINKS:
        logger.warning(
            "%d traces in one request are not linked to their run: the most is %d", len(trace_ids), _MAX_LINKS
        )
        return
    now = now_ms()
    links = [
        _LINK_RUN(association_id=uuid.uuid4().hex, trace_id=trace_id, run_id=run_id, created_time=now)
        for trace_id in sorted(trace_ids)
    ]
    try:
        await call.db.transact(links)
    except HeadraceError as error:
        logger.warning("traces are not linked to their run: %s", error)


def _refusal(status: int, detail: object) -> Response:
    return Response(msgspec.json.encode({"detail": detail}), status)
