"""Traces as they are read: with what other tables have of them, and their spans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
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
# PostgreSQL: all of a trace in a row.
_WHOLE = f"""
SELECT t.*, g.*, m.*, a.*, {{spans}} AS spans
FROM (SELECT {info.COLUMNS} FROM trace_info WHERE {{which}}) t,
LATERAL (
  SELECT array_agg(key) AS tags, array_agg(value) AS tag_values FROM trace_tags WHERE request_id = t.request_id
) g,
LATERAL (
  SELECT array_agg(key) AS metadata, array_agg(value) AS metadata_values
  FROM trace_request_metadata WHERE request_id = t.request_id
) m,
LATERAL (
  SELECT array_agg(ROW({records.COLUMNS}) ORDER BY created_timestamp) AS assessments
  FROM assessments WHERE trace_id = t.request_id
) a
"""
_CONTENTS = """(
  SELECT array_agg(content ORDER BY parent_span_id IS NOT NULL, start_time_unix_nano, span_id)
  FROM spans WHERE trace_id = t.request_id
)"""


def _wholes(which: str) -> tuple[Sql, Sql]:
    """Without, and with the contents of the spans."""
    without, with_spans = (_WHOLE.format(which=which, spans=spans) for spans in ("CAST(NULL AS varchar[])", _CONTENTS))
    return Sql(postgresql=without, sqlite="SELECT 1"), Sql(postgresql=with_spans, sqlite="SELECT 1")


# Equality, since PostgreSQL takes a list of one id for cheaper than one of any length, and plans it anew each time.
_ONE = _wholes("request_id = :trace_id")
_SOME = _wholes("request_id IN :trace_ids")
_SOME_OF_EXPERIMENTS = _wholes("request_id IN :trace_ids AND experiment_id IN :experiment_ids")


async def one(db: Database, trace_id: str) -> TraceInfo | None:
    """The trace, without its spans."""
    found = await infos(db, [trace_id])
    return found[0] if found else None


async def infos(db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None) -> list[TraceInfo]:
    """Those of the traces that there are, each once, in the order of the ids."""
    return [trace for trace, _ in await _read(db, trace_ids, experiment_ids, with_spans=False)]


async def whole(db: Database, trace_id: str) -> tuple[TraceInfo, list[str]] | None:
    """The trace, and the contents of its spans. Raises as `wholes`."""
    found = await wholes(db, [trace_id])
    return found[0] if found else None


async def wholes(
    db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None = None
) -> list[tuple[TraceInfo, list[str]]]:
    """As `infos`, each with the contents of its spans, if these are here.

    Raises Declined while stock archives one of them.
    """
    found = await _read(db, trace_ids, experiment_ids, with_spans=True)
    return [(trace, _contents(trace, contents)) for trace, contents in found]


async def _read(
    db: Database, trace_ids: Sequence[str], experiment_ids: Sequence[int] | None, with_spans: bool
) -> list[tuple[TraceInfo, Sequence[str]]]:
    ids = list(dict.fromkeys(reversed(trace_ids)))[::-1]  # one that is asked for twice has its last place, as stock's
    experiments = None if experiment_ids is None else list(experiment_ids)
    if db.dialect is Dialect.SQLITE:
        found = await _from_parts(db, ids, experiments, with_spans)
    else:
        if experiments is not None:
            statement = _SOME_OF_EXPERIMENTS[with_spans](trace_ids=ids, experiment_ids=experiments)
        else:
            statement = _ONE[with_spans](trace_id=ids[0]) if len(ids) == 1 else _SOME[with_spans](trace_ids=ids)
        found = {row[0]: _from_row(row) for row in await db.rows(statement)}
    return [found[trace_id] for trace_id in ids if trace_id in found]


def _from_row(row: Sequence[Any]) -> tuple[TraceInfo, Sequence[str]]:
    """A row of _WHOLE."""
    *columns, tags, tag_values, metadata, metadata_values, assessments, contents = row
    trace = TraceInfo(*columns)
    if tags:
        trace.tags = dict(zip(tags, tag_values, strict=True))
    if metadata:
        trace.metadata = dict(zip(metadata, metadata_values, strict=True))
    if assessments:
        trace.assessments = [records.assessment(*each) for each in assessments]
    return trace, contents or ()


async def _from_parts(
    db: Database, ids: list[str], experiment_ids: list[int] | None, with_spans: bool
) -> dict[str, tuple[TraceInfo, Sequence[str]]]:
    if experiment_ids is None:
        which = INFOS(trace_ids=ids)
    else:
        which = INFOS_OF_EXPERIMENTS(trace_ids=ids, experiment_ids=experiment_ids)
    parts = (PAIRS, ASSESSMENTS, SPANS) if with_spans else (PAIRS, ASSESSMENTS)
    rows, pairs, assessments, *spans = await db.rows_of(which, *(part(trace_ids=ids) for part in parts))
    contents: dict[str, list[str]] = {}
    for trace_id, content in chain(*spans):
        contents.setdefault(trace_id, []).append(content)
    return {each.request_id: (each, contents.get(each.request_id, ())) for each in _joined(rows, pairs, assessments)}


async def of_rows(db: Database, rows: Sequence[Sequence[Any]]) -> list[TraceInfo]:
    """Rows that begin as those of INFOS, with the rest."""
    if not rows:
        return []
    ids = [row[0] for row in rows]
    return _joined(rows, *await db.rows_of(*(part(trace_ids=ids) for part in (PAIRS, ASSESSMENTS))))


def _joined(rows: Sequence[Sequence[Any]], pairs: Sequence[Any], assessments: Sequence[Any]) -> list[TraceInfo]:
    traces = [TraceInfo(*row[:WIDTH]) for row in rows]
    by_id = {trace.request_id: trace for trace in traces}
    for trace_id, key, value, is_tag in pairs:
        if (trace := by_id.get(trace_id)) is not None:
            (trace.tags if is_tag else trace.metadata)[key] = value
    for row in assessments:
        if (trace := by_id.get(row[1])) is not None:
            trace.assessments.append(records.assessment(*row))
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
