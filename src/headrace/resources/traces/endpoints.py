"""POST /v1/traces: spans by OpenTelemetry's protocol, from MLflow's clients and from anybody's.

What is declined, and goes to stock: see span_rows.py; traces whose spans are not in the database; experiments whose
artifact location only stock can read; everything while stock keeps roll-ups of traces, which each write must queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid

import msgspec

from headrace.api.endpoint import Call, Response, endpoint
from headrace.auth.objects import Experiment, OneOf, Run
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.query import Sql
from headrace.errors import Declined, Forbidden, HeadraceError
from headrace.resources import validation as valid
from headrace.resources.traces import otlp, span_rows, sql
from headrace.resources.traces.costs import Prices
from headrace.resources.traces.messages import ExportTraces
from headrace.resources.traces.otlp import OtlpRefused, Span
from headrace.resources.traces.span_rows import LoggedSpans
from headrace.resources.traces.tags import SERVERS
from headrace.resources.traces.writes import LogSpans

logger = logging.getLogger(__name__)

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
_KEEPS_ROLLUPS = os.environ.get("MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", "false").lower() in ("true", "1")
# Larger requests are decoded in a thread, so that others need not wait: of 10 spans 1 ms, of 10,000 a second.
_LARGE, _LARGE_PACKED = 200_000, 20_000
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
        spans = await _decoded(message, call.settings.max_body_bytes)
    except OtlpRefused as error:
        return _refusal(error.status, str(error))
    if not spans:
        return _ACCEPTED
    try:
        logged = await _log(call, valid.experiment_id(message.experiment_id), spans, _is_large(message))
    except Declined:
        await _before_stock(call, message.experiment_id, spans)
        if len({(span.trace_id, span.span_id) for span in spans}) < len(spans):
            return _refusal(400, "The request has a span twice. Send each span once in a request.")
        raise
    if message.run_id and logged.completed:
        await _link(call, message.run_id, logged.completed)
    return _ACCEPTED


async def _decoded(message: ExportTraces, max_bytes: int) -> list[Span]:
    given = message.body, message.content_type, message.content_encoding, max_bytes
    if _is_large(message):
        return await asyncio.to_thread(otlp.decode, *given)
    return otlp.decode(*given)


def _is_large(message: ExportTraces) -> bool:
    return len(message.body) > (_LARGE_PACKED if message.content_encoding else _LARGE)


async def _log(call: Call, experiment_id: int, spans: list[Span], large: bool) -> LoggedSpans:
    """Write the spans; durable when this returns."""
    if _KEEPS_ROLLUPS:
        raise Declined("roll-ups that each write must queue")
    if large:
        logged = await asyncio.to_thread(span_rows.rows, spans, _PRICES)
    else:
        logged = span_rows.rows(spans, _PRICES)
    await call.db.submit(LogSpans(experiment_id, call.workspace, call.sender is not None, logged))
    return logged


async def _before_stock(call: Call, experiment_id: str, spans: list[Span]) -> None:
    """Stock adds spans to a trace of any experiment, and tags of its own: refuse what the sender may not do."""
    if any(f"mlflow.traceTag.{key}" in span.attributes for span in spans for key in SERVERS):
        raise Forbidden("A span tells a tag of its trace that is the server's own.")
    if call.sender is None:
        return
    ids = sorted({span.trace_id for span in spans})
    for trace_id, of_experiment in await call.db.rows(_EXPERIMENTS_OF(trace_ids=ids)):
        if of_experiment != valid.experiment_id(experiment_id):
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
