"""Traces as they are read: with what other tables have of them, and their spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.errors import Declined, NotFound
from headrace.resources.assessments import records
from headrace.resources.traces import info
from headrace.resources.traces.info import WIDTH, TraceInfo

# ruff: noqa: S608  (the texts are made of constants)

LOCATION, HERE, ARCHIVED = "mlflow.trace.spansLocation", "TRACKING_STORE", "ARCHIVE_REPO"
_SIZE = "mlflow.trace.sizeStats"

INFOS = Sql(f"SELECT {info.COLUMNS} FROM trace_info WHERE request_id IN :trace_ids")
INFOS_OF_EXPERIMENTS = Sql(f"""
SELECT {info.COLUMNS} FROM trace_info WHERE request_id IN :trace_ids AND experiment_id IN :experiment_ids
""")
# tags and metadata
PAIRS = Sql("""
SELECT request_id, key, value, TRUE FROM trace_tags WHERE request_id IN :trace_ids
UNION ALL SELECT request_id, key, value, FALSE FROM trace_request_metadata WHERE request_id IN :trace_ids
""")
ASSESSMENTS = Sql(f"""
SELECT {records.COLUMNS} FROM assessments WHERE trace_id IN :trace_ids ORDER BY created_timestamp
""")
# roots first
SPANS = Sql("""
SELECT trace_id, content FROM spans WHERE trace_id IN :trace_ids
ORDER BY parent_span_id IS NOT NULL, start_time_unix_nano, span_id
""")
PARTS = (INFOS, PAIRS, ASSESSMENTS)


async def infos(db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None) -> list[TraceInfo]:
    """Those of the traces that there are, each once, in the order of the ids."""
    if experiment_ids is None:
        which = INFOS(trace_ids=list(trace_ids))
    else:
        which = INFOS_OF_EXPERIMENTS(trace_ids=list(trace_ids), experiment_ids=list(experiment_ids))
    parts = (part(trace_ids=list(trace_ids)) for part in (PAIRS, ASSESSMENTS))
    rows, *others = await db.rows_of(which, *parts)
    found = {row[0]: row for row in rows}
    return _joined([found[each] for each in dict.fromkeys(trace_ids) if each in found], *others)


async def of_rows(db: Database, rows: Sequence[Sequence[Any]]) -> list[TraceInfo]:
    """Rows that begin as those of INFOS, with the rest."""
    if not rows:
        return []
    ids = [row[0] for row in rows]
    return _joined(rows, *await db.rows_of(*(part(trace_ids=ids) for part in (PAIRS, ASSESSMENTS))))


def _joined(rows: Sequence[Sequence[Any]], pairs: Sequence[Any], assessments: Sequence[Any]) -> list[TraceInfo]:
    traces = [TraceInfo(*tuple(row)[:WIDTH]) for row in rows]
    by_id = {trace.request_id: trace for trace in traces}
    for trace_id, key, value, is_tag in pairs:
        if (trace := by_id.get(trace_id)) is not None:
            (trace.tags if is_tag else trace.metadata)[key] = value
    for trace_id, some in records.by_trace(assessments).items():
        if trace_id in by_id:
            by_id[trace_id].assessments = some
    return traces


def check_spans_are_here(trace: TraceInfo) -> None:
    """SqlAlchemyStore._get_spans_with_trace_info. Raises Declined for what stock has archived.

    Raises NotFound where a client keeps them as an artifact; stock answers 500, and its client tries again and again.
    """
    location = trace.tags.get(LOCATION)
    if location == ARCHIVED:
        raise Declined("the trace's spans are in an archive")
    if location != HERE:
        raise NotFound("Trace data not stored in tracking store")


async def spans(db: Database, traces: Sequence[TraceInfo]) -> dict[str, list[str]]:
    """The contents of the spans of each trace that has some. Raises Declined while stock archives one of them."""
    contents: dict[str, list[str]] = {}
    ids = [trace.request_id for trace in traces if trace.tags.get(LOCATION) == HERE]
    if ids:
        for trace_id, content in await db.rows(SPANS(trace_ids=ids)):
            if not content:
                raise Declined("the trace is being archived")
            contents.setdefault(trace_id, []).append(content)
    return contents


def is_whole(trace: TraceInfo, contents: Sequence[str]) -> bool:
    """Whether all spans are there, as far as the client that exported them has said how many there are."""
    if not contents:
        return False
    stats = trace.metadata.get(_SIZE)
    if not stats:
        return True
    try:
        return len(contents) >= int(msgspec.json.decode(stats).get("num_spans", 0))
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        raise Declined("a trace whose size can't be read") from None
