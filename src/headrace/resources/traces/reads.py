"""Traces as they are read: with what other tables have of them, and their spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.db.database import Database
from headrace.db.query import Dialect, Sql
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
# One trace: one statement, with a plan that is kept. (What has a list of few ids is planned anew each time.)
_WHOLE = f"""
SELECT t.*, g.*, m.*, a.*, {{spans}} AS spans
FROM (SELECT {info.COLUMNS} FROM trace_info WHERE request_id = :trace_id) t,
LATERAL (SELECT array_agg(key) AS tags, array_agg(value) AS tag_values FROM trace_tags WHERE request_id = :trace_id) g,
LATERAL (
  SELECT array_agg(key) AS metadata, array_agg(value) AS metadata_values
  FROM trace_request_metadata WHERE request_id = :trace_id
) m,
LATERAL (
  SELECT array_agg(ROW({records.COLUMNS}) ORDER BY created_timestamp) AS assessments
  FROM assessments WHERE trace_id = :trace_id
) a
"""
_CONTENTS = """(
  SELECT array_agg(content ORDER BY parent_span_id IS NOT NULL, start_time_unix_nano, span_id)
  FROM spans WHERE trace_id = :trace_id
)"""
_INFO, _TRACE = (
    Sql(postgresql=_WHOLE.format(spans=spans), sqlite="SELECT 1") for spans in ("CAST(NULL AS varchar[])", _CONTENTS)
)


async def one(db: Database, trace_id: str) -> TraceInfo | None:
    """The trace, without its spans."""
    found = await _one(db, trace_id, with_spans=False)
    return found and found[0]


async def whole(db: Database, trace_id: str) -> tuple[TraceInfo, list[str]] | None:
    """The trace, and the contents of its spans. Raises as `_contents`."""
    found = await _one(db, trace_id, with_spans=True)
    return found and (found[0], _contents(*found))


async def _one(db: Database, trace_id: str, with_spans: bool) -> tuple[TraceInfo, Sequence[str]] | None:
    if db.dialect is Dialect.SQLITE:
        parts = (*PARTS, SPANS) if with_spans else PARTS
        rows, pairs, assessments, *spans = await db.rows_of(*(part(trace_ids=[trace_id]) for part in parts))
        found = _joined(rows, pairs, assessments)
        return (found[0], [content for some in spans for _, content in some]) if found else None
    rows = await db.rows((_TRACE if with_spans else _INFO)(trace_id=trace_id))
    if not rows:
        return None
    *columns, tags, tag_values, metadata, metadata_values, assessments, contents = rows[0]
    trace = TraceInfo(*columns)
    if tags:
        trace.tags = dict(zip(tags, tag_values, strict=True))
    if metadata:
        trace.metadata = dict(zip(metadata, metadata_values, strict=True))
    if assessments:
        trace.assessments = [records.assessment(*row) for row in assessments]
    return trace, contents or ()


async def infos(db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None) -> list[TraceInfo]:
    """Those of the traces that there are, each once, in the order of the ids."""
    return (await _many(db, trace_ids, experiment_ids))[0]


async def wholes(
    db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None
) -> list[tuple[TraceInfo, list[str]]]:
    """As `infos`, each with the contents of its spans. Raises as `_contents`."""
    traces, rows = await _many(db, trace_ids, experiment_ids, SPANS)
    contents: dict[str, list[str]] = {}
    for trace_id, content in rows:
        contents.setdefault(trace_id, []).append(content)
    return [(trace, _contents(trace, contents.get(trace.request_id, ()))) for trace in traces]


async def _many(
    db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None, *more: Sql
) -> tuple[list[TraceInfo], Sequence[Any]]:
    """The traces, and the rows of one statement more."""
    ids = list(trace_ids)
    if experiment_ids is None:
        which = INFOS(trace_ids=ids)
    else:
        which = INFOS_OF_EXPERIMENTS(trace_ids=ids, experiment_ids=list(experiment_ids))
    parts = (part(trace_ids=ids) for part in (PAIRS, ASSESSMENTS, *more))
    rows, pairs, assessments, *others = await db.rows_of(which, *parts)
    found = {row[0]: row for row in rows}
    traces = _joined([found[each] for each in dict.fromkeys(ids) if each in found], pairs, assessments)
    return traces, others[0] if others else ()


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


def _contents(trace: TraceInfo, contents: Sequence[str]) -> list[str]:
    """Those of a trace whose spans are here. Raises Declined while stock archives one of them."""
    if trace.tags.get(LOCATION) != HERE:
        return []
    if not all(contents):
        raise Declined("the trace is being archived")
    return list(contents)


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
