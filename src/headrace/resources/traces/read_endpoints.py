"""Traces by their ids, and searched.

What is declined: files, which are attachments and the spans of older clients; spans that stock has archived or is
about to archive; filters that stock refuses, or that are not certain to mean the same here (search.py); spans of
MLflow 2's schema (otlp_json.py).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from headrace.api.endpoint import AJAX, ArtifactFile, Call, Response, endpoint
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.api.search.sql import no_pattern_for_stock
from headrace.auth.objects import Experiment, Trace, TraceLocations
from headrace.auth.principals import Right
from headrace.db.query import Sql
from headrace.errors import BadRequest, Declined, Forbidden, NotFound
from headrace.resources import validation as valid
from headrace.resources.traces import info, messages, otlp_json, reads, search, search_sql, trace_rows
from headrace.resources.traces.info import TraceInfo
from headrace.resources.traces.search import TraceSearch
from headrace.resources.traces.tags import ARTIFACTS

ID = Trace("trace_id")
V2_ID = Trace("request_id")
MAX_SEARCHED = 500
# A trace is told of before its spans are there: how long stock waits for them.
_WAITS = (1, 2)
# So many spans take 10 ms to show: between them the others on this event loop get their turn.
_SPANS_AT_ONCE = 200
LOCATION = Sql("""
SELECT e.experiment_id, e.artifact_location FROM trace_info t JOIN experiments e ON e.experiment_id = t.experiment_id
WHERE t.request_id = :trace_id
""")
_SPANS_FILE = "traces.json"  # mlflow/store/artifact/artifact_repo.py, TRACE_DATA_FILE_NAME
_ATTACHMENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ATTACHMENT = (
    (b"content-disposition", b"attachment; filename=traces.json"),
    (b"x-content-type-options", b"nosniff"),
)
_SEARCHED = (*reads.PARTS, "spans", "entity_associations")


@endpoint("GET", "3.0/mlflow/traces/get", Right.READ, ID, *reads.PARTS, reads.SPANS)
async def get_trace(call: Call, message: messages.GetTrace) -> object:
    """SqlAlchemyStore.get_trace."""
    trace, contents = await _with_spans(call, message.trace_id)
    if not message.allow_partial:
        for seconds in _WAITS:
            if reads.is_whole(trace, contents):
                break
            await asyncio.sleep(seconds)
            trace, contents = await _with_spans(call, message.trace_id)
        if not reads.is_whole(trace, contents):
            raise NotFound(f"Trace with ID {message.trace_id} is not fully exported yet, please try again later.")
    return {"trace": await _shown(trace, contents)}


async def _with_spans(call: Call, trace_id: str) -> tuple[TraceInfo, list[str]]:
    """Raises NotFound, and as reads.check_spans_are_here."""
    found = await reads.whole(call.db, valid.without_nul(trace_id, "trace_id"))
    if found is None:
        raise NotFound(f"Trace with ID {trace_id} is not found.")
    reads.check_spans_are_here(found[0])
    return found


async def _shown(trace: TraceInfo, contents: list[str]) -> dict[str, Any]:
    """Trace.to_proto."""
    said: dict[str, Any] = {"trace_info": info.v3(trace)}
    if contents:
        said["spans"] = []
        for begin in range(0, len(contents), _SPANS_AT_ONCE):
            if begin:
                await asyncio.sleep(0)
            said["spans"] += map(otlp_json.span, contents[begin : begin + _SPANS_AT_ONCE])
    return said


@endpoint("GET", "3.0/mlflow/traces/batchGet", Right.READ, Trace("trace_ids"), *reads.PARTS, reads.SPANS)
async def batch_get_traces(call: Call, message: messages.BatchGet) -> object:
    """SqlAlchemyStore.batch_get_traces: those that are whole."""
    traces = await reads.wholes(call.db, *_batch(message))
    for trace, _ in traces:
        reads.check_spans_are_here(trace)
    shown = []
    for trace, contents in traces:
        if reads.is_whole(trace, contents):
            shown.append(await _shown(trace, contents))
            await asyncio.sleep(0)
    return {"traces": shown} if shown else {}


@endpoint("POST", "3.0/mlflow/traces/batchGetInfos", Right.READ, Trace("trace_ids"), *reads.PARTS)
async def batch_get_trace_infos(call: Call, message: messages.BatchGet) -> object:
    """SqlAlchemyStore.batch_get_trace_infos."""
    traces = await reads.infos(call.db, *_batch(message))
    return {"trace_infos": list(map(info.v3, traces))} if traces else {}


def _batch(message: messages.BatchGet) -> tuple[list[str], list[int] | None]:
    """The ids of traces, and those of the experiments that they must be in."""
    ids = [valid.without_nul(trace_id, "trace_ids") for trace_id in message.trace_ids]
    return ids, None if message.experiment_ids is None else valid.experiment_ids(message.experiment_ids)


@endpoint("GET", "3.0/mlflow/traces/{trace_id}", Right.READ, ID, *reads.PARTS)
async def get_trace_info(call: Call, message: messages.GetTraceInfo) -> object:
    """SqlAlchemyStore.get_trace_info."""
    return {"trace": {"trace_info": info.v3(await _info(call, message.trace_id))}}


@endpoint("GET", "2.0/mlflow/traces/{request_id}/info", Right.READ, V2_ID, *reads.PARTS)
async def get_trace_info_v2(call: Call, message: messages.GetTraceInfoV2) -> object:
    """handlers._deprecated_get_trace_info_v2."""
    return {"trace_info": info.v2(await _info(call, message.request_id))}


@endpoint("GET", "3.0/mlflow/get-trace-artifact", Right.READ, V2_ID, *reads.PARTS, reads.SPANS, LOCATION, apis=AJAX)
@endpoint("GET", "2.0/mlflow/get-trace-artifact", Right.READ, V2_ID, *reads.PARTS, reads.SPANS, LOCATION, apis=AJAX)
async def get_trace_artifact(call: Call, message: messages.GetTraceArtifact) -> object:
    """handlers.get_trace_artifact_handler."""
    if not message.request_id:
        raise BadRequest('Request must include the "request_id" query parameter.')
    if message.path and not _ATTACHMENT_ID.fullmatch(message.path):
        raise Declined("a path that is no attachment's")
    found = await reads.whole(call.db, valid.without_nul(message.request_id, "request_id"))
    if found is None:
        not_found = f"'{message.request_id}' not found" if message.path else f"{message.request_id} is not found"
        raise NotFound(f"Trace with ID {not_found}.")
    trace, contents = found
    if message.path or trace.tags.get(reads.LOCATION) != reads.HERE:
        return await _file(call, trace, message.path)
    try:
        data = otlp_json.artifact(contents)
    except (ValueError, AttributeError, RecursionError):
        raise Declined("a span that only stock may read") from None
    return Response(data, content_type=b"text/plain", headers=_ATTACHMENT)


class NoSpans(NotFound):
    """MlflowTraceDataNotFound."""

    error_code = "NOT_FOUND"


async def _file(call: Call, trace: TraceInfo, attachment: str) -> ArtifactFile:
    """An attachment, by its id, or the spans, which clients before MLflow 3 keep in a file.

    Only from the folder of the trace's experiment: stock has let anybody say where they are.

    Raises Declined, Forbidden.
    """
    rows = await call.db.rows(LOCATION(trace_id=trace.request_id))
    folder = trace_rows.artifact_location(trace_rows.Experiment(*rows[0]), trace.request_id) if rows else None
    if folder is None or trace.tags.get(ARTIFACTS) != folder:
        if call.sender is not None:
            raise Forbidden("The trace's files are not in the folder of its experiment. Ask an administrator.")
        raise Declined("files that are elsewhere than their experiment's")
    if not attachment:
        if trace.tags.get(reads.LOCATION) == reads.ARCHIVED:
            raise Declined("spans in an archive")
        return ArtifactFile(folder, _SPANS_FILE, NoSpans(f"Trace data not found for path={_SPANS_FILE}"))
    path = f"attachments/{attachment}"
    return ArtifactFile(folder, path, NotFound(f"No such artifact: '{path}'"))


async def _info(call: Call, trace_id: str) -> TraceInfo:
    found = await reads.one(call.db, valid.without_nul(trace_id, "trace_id"))
    if found is None:
        raise NotFound(f"Trace with ID '{trace_id}' not found.")
    return found


@endpoint("POST", "3.0/mlflow/traces/search", Right.READ, TraceLocations("locations"), *_SEARCHED, replica=True)
async def search_traces(call: Call, message: messages.SearchTraces) -> object:
    """SqlAlchemyStore.search_traces."""
    experiment_ids = [each.mlflow_experiment.experiment_id for each in message.locations if each.mlflow_experiment]
    with no_pattern_for_stock(call.db.dialect, message.filter):
        traces, token = await _search(call, experiment_ids, message)
    answer: dict[str, object] = {"traces": list(map(info.v3, traces))} if traces else {}
    return answer | {"next_page_token": token} if token else answer


@endpoint("GET", "2.0/mlflow/traces", Right.READ, Experiment("experiment_ids"), *_SEARCHED)
async def search_traces_v2(call: Call, message: messages.SearchTracesV2) -> object:
    """handlers._deprecated_search_traces_v2."""
    with no_pattern_for_stock(call.db.dialect, message.filter):
        traces, token = await _search(call, message.experiment_ids, message)
    answer: dict[str, object] = {"traces": list(map(info.v2, traces))} if traces else {}
    return answer | {"next_page_token": token} if token else answer


async def _search(
    call: Call, experiment_ids: list[str], message: messages.SearchTraces | messages.SearchTracesV2
) -> tuple[list[TraceInfo], str | None]:
    """The traces of a page, and the token of the next; stock gives one wherever the page is full."""
    if message.max_results > MAX_SEARCHED:
        raise valid.hint("max_results", message.max_results, "int")
    valid.max_results(message.max_results)
    fingerprint = page_token.fingerprint("traces", message.order_by)
    token = page_token.decode(message.page_token, fingerprint)
    asked = TraceSearch(
        tuple(valid.experiment_ids(experiment_ids)),
        search.parse_filter(message.filter),
        search.parse_order(message.order_by),
        message.max_results,
        token.offset,
        token.after,
    )
    if not asked.experiment_ids:
        return [], None
    rows: Sequence[Any] = ()
    if search_sql.may_be_among_first(asked, call.db.dialect):
        rows = await call.db.rows(search_sql.search_first(asked, call.grantees))
    if len(rows) < asked.max_results:
        rows = await call.db.rows(search_sql.search_traces(asked, call.db.dialect, call.grantees))
    traces = await reads.of_rows(call.db, rows)
    if len(rows) < message.max_results:
        return traces, None
    after = tuple(rows[-1])[info.WIDTH :]
    return traces, page_token.encode(PageToken(token.offset + len(rows), after, fingerprint))
