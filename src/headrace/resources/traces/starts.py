"""Traces as they are started, or told of once they have ended: start_trace, which overwrites, in group commit.

A trace that is there (its spans came first, or the request comes again) is merged: what start_trace says counts, but
for what it does not say. Source: SqlAlchemyStore._start_trace_once.

PostgreSQL: each of two statements does all of a group whose traces are distinct. NEW makes those that are not there,
which it need not look for in the tables of tags and metadata; PUT those that are, and those of which this worker has
just written spans at once. A trace that was not put is looked into (_reason): its experiment is not there or deleted,
only stock can tell where its artifacts go, it is archived, or it is in another experiment than the sender may write
to. _moves follow where a trace that was there has another time or experiment now: in statements of their own, which see
the spans that came meanwhile.
"""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from headrace.db.database import Write
from headrace.db.query import Dialect, Sql, columns, given_rows
from headrace.errors import Declined, Forbidden, HeadraceError, InvalidParameter, InvalidState, NotFound
from headrace.resources.assessments.writes import CreateAssessment
from headrace.resources.traces import recent
from headrace.resources.traces.info import COLUMNS, TraceInfo
from headrace.resources.traces.sql import FOLDER, ITS_EXPERIMENT
from headrace.resources.traces.trace_rows import PLAIN_LOCATION, Experiment, artifact_location

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

_COLUMNS = tuple(COLUMNS.split(", "))
_OF_TRACE = attrgetter(*(f"info.{name}" for name in _COLUMNS), "workspace", "only_here")
_TRACE_COLUMNS = tuple(f"trace_{name}" for name in (*_COLUMNS, "workspace", "only_here"))
_TYPES = {
    "experiment_id": "integer",
    **dict.fromkeys(("timestamp_ms", "execution_time_ms"), "bigint"),
    **{name: "bigint" for name in _COLUMNS if "tokens" in name},
    **{name: "double precision" for name in _COLUMNS if name.endswith("cost")},
    "only_here": "boolean",
    **dict.fromkeys(("tags", "metadata"), "json"),  # an object each
}
_OVERWRITTEN = ("experiment_id", "timestamp_ms", "execution_time_ms", "status", "client_request_id")
_KEPT = tuple(name for name in _COLUMNS[1:] if name not in _OVERWRITTEN)
_SET = ", ".join(
    [f"{name} = excluded.{name}" for name in _OVERWRITTEN]
    + [f"{name} = coalesce(excluded.{name}, trace_info.{name})" for name in _KEPT]
)
_ELSEWHERE = """EXISTS (
    SELECT 1 FROM trace_tags g
    WHERE g.request_id = trace_info.request_id AND g.key = 'mlflow.trace.spansLocation' AND g.value <> 'TRACKING_STORE'
  )"""

_OF_GIVEN = "e.workspace = n.workspace AND e.lifecycle_stage = 'active' AND e.artifact_location ~ :plain"

NEW = Sql(
    postgresql=f"""
WITH made AS (
  INSERT INTO trace_info ({COLUMNS})
  SELECT {COLUMNS} FROM {given_rows("trace_", _TYPES, *_COLUMNS, "workspace")}
  {ITS_EXPERIMENT} WHERE {_OF_GIVEN} ORDER BY request_id
  ON CONFLICT (request_id) DO NOTHING RETURNING request_id, experiment_id
), tagged AS (
  INSERT INTO trace_tags (request_id, key, value)
  SELECT n.request_id, each.key, each.value FROM {given_rows("trace_", _TYPES, "request_id", "tags")}
  JOIN made ON made.request_id = n.request_id CROSS JOIN json_each_text(n.tags) AS each
  UNION ALL SELECT n.request_id, 'mlflow.artifactLocation', {FOLDER} FROM made AS n {ITS_EXPERIMENT}
  RETURNING request_id, key, value
), told AS (
  INSERT INTO trace_request_metadata (request_id, key, value)
  SELECT n.request_id, each.key, each.value FROM {given_rows("trace_", _TYPES, "request_id", "metadata")}
  JOIN made ON made.request_id = n.request_id CROSS JOIN json_each_text(n.metadata) AS each
)
SELECT request_id, value FROM tagged WHERE key = 'mlflow.artifactLocation'
""",
    sqlite="SELECT 1",
)
PUT = Sql(
    postgresql=f"""
WITH given AS (
  SELECT n.*, {FOLDER} AS folder
  FROM {given_rows("trace_", _TYPES, *_COLUMNS, "tags", "metadata", "workspace", "only_here")}
  {ITS_EXPERIMENT} WHERE {_OF_GIVEN}
), put AS (
  INSERT INTO trace_info ({COLUMNS}) SELECT {COLUMNS} FROM given ORDER BY request_id
  ON CONFLICT (request_id) DO UPDATE SET {_SET}, db_payload_generation = trace_info.db_payload_generation + 1
  WHERE NOT {_ELSEWHERE} AND (trace_info.experiment_id = excluded.experiment_id OR NOT EXISTS (
    SELECT 1 FROM given WHERE given.request_id = excluded.request_id AND given.only_here))
  RETURNING request_id, xmax = 0 AS is_new
), tagged AS (
  INSERT INTO trace_tags (request_id, key, value)
  SELECT n.request_id, each.key, each.value
  FROM given n JOIN put USING (request_id) CROSS JOIN json_each_text(n.tags) AS each
  UNION ALL SELECT request_id, 'mlflow.artifactLocation', folder FROM given JOIN put USING (request_id)
  ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
), told AS (
  INSERT INTO trace_request_metadata (request_id, key, value)
  SELECT n.request_id, each.key, each.value
  FROM given n JOIN put USING (request_id) CROSS JOIN json_each_text(n.metadata) AS each
  ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
)
SELECT put.request_id, put.is_new, given.folder, was.experiment_id, was.timestamp_ms
FROM put JOIN given USING (request_id) LEFT JOIN trace_info was ON was.request_id = put.request_id
""",
    sqlite="SELECT 1",
)
_MOVE_SPANS = Sql("""
UPDATE spans SET experiment_id = :experiment_id WHERE trace_id = :trace_id AND experiment_id <> :experiment_id
""")
_MOVE_ASSESSMENTS = Sql("""
UPDATE assessments SET experiment_id = :experiment_id, trace_timestamp_ms = :timestamp_ms WHERE trace_id = :trace_id
""")
# experiment_id, lifecycle_stage, workspace, artifact_location
_EXPERIMENTS = Sql("""
SELECT experiment_id, lifecycle_stage, workspace, artifact_location FROM experiments
WHERE experiment_id IN :experiment_ids
""")
# request_id, experiment_id, whether its spans are elsewhere
_STATES = Sql(f"""
SELECT request_id, experiment_id, timestamp_ms, {_ELSEWHERE} AS elsewhere FROM trace_info WHERE request_id IN :trace_ids
""")
_PUT_ONE = f"""
INSERT INTO trace_info ({COLUMNS}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT (request_id) DO UPDATE SET {_SET}, db_payload_generation = trace_info.db_payload_generation + 1
"""
_PUT_TAG = """
INSERT INTO trace_tags (request_id, key, value) VALUES (?, ?, ?)
ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
"""
_PUT_METADATA = """
INSERT INTO trace_request_metadata (request_id, key, value) VALUES (?, ?, ?)
ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
"""


class Started(NamedTuple):
    """`is_new`: there was no such trace. `folder`: where its artifacts go."""

    is_new: bool
    folder: str


Outcome = Started | HeadraceError


class StartTrace(Write, frozen=True, gc=False):
    """A trace with its tags and metadata, without mlflow.artifactLocation.

    `only_here`: one that is in another experiment is refused, for a sender whose rights on that nobody has checked.
    """

    info: TraceInfo
    workspace: str
    only_here: bool

    one_statement = True
    of_traces = True

    def weight(self) -> int:
        return 1 + len(self.info.tags) + len(self.info.metadata)

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[StartTrace]) -> Sequence[Outcome]:
        outcomes: list[Any] = [None] * len(writes)
        left = list(range(len(writes)))
        while left:  # a trace that comes twice in a group: one after the other
            seen: dict[str, int] = {}
            for index in left:
                seen.setdefault(writes[index].info.request_id, index)
            some = sorted(seen.values(), key=lambda index: writes[index].info.request_id)
            done = await _put(session, [writes[index] for index in some])
            for index in some:
                outcomes[index] = done[writes[index].info.request_id]
            left = [index for index in left if index not in set(some)]
        return outcomes

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[StartTrace]) -> Sequence[Outcome]:
        def rows(statement: Sql, **values: Any) -> list[Any]:
            query = statement.query(values, Dialect.SQLITE)
            return [tuple(row) for row in connection.execute(query.text, query.numbered)]

        experiments = _by_id(rows(_EXPERIMENTS, experiment_ids=sorted({write.info.experiment_id for write in writes})))
        outcomes: list[Outcome] = []
        for write in writes:
            info = write.info
            states = rows(_STATES, trace_ids=[info.request_id])
            refusal = _reason(write, experiments, states[0] if states else None)
            if refusal is not None:
                outcomes.append(refusal)
                continue
            folder = artifact_location(
                Experiment(info.experiment_id, experiments[info.experiment_id][3]), info.request_id
            )
            connection.execute(_PUT_ONE, {name: getattr(info, name) for name in _COLUMNS})
            tags = {**info.tags, "mlflow.artifactLocation": folder}
            connection.executemany(_PUT_TAG, [(info.request_id, key, value) for key, value in tags.items()])
            connection.executemany(
                _PUT_METADATA, [(info.request_id, key, value) for key, value in info.metadata.items()]
            )
            if states and states[0][1:3] != (info.experiment_id, info.timestamp_ms):
                for statement, values in _moves(write):
                    rows(statement, **values)
            outcomes.append(Started(not states, folder))
        return outcomes


class StartWithAssessments(Write, frozen=True, gc=False):
    """A trace with new assessments of it: all of it, or nothing."""

    start: StartTrace
    assessments: tuple[CreateAssessment, ...]

    of_traces = True

    def weight(self) -> int:
        return self.start.weight() + len(self.assessments)

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[StartWithAssessments]) -> Sequence[Outcome]:
        outcomes = await StartTrace.apply_postgres(session, [write.start for write in writes])
        if new := _of_started(writes, outcomes):
            await CreateAssessment.apply_postgres(session, new)
        return outcomes

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[StartWithAssessments]) -> Sequence[Outcome]:
        outcomes = StartTrace.apply_sqlite(connection, [write.start for write in writes])
        CreateAssessment.apply_sqlite(connection, _of_started(writes, outcomes))
        return outcomes


def _of_started(writes: Sequence[StartWithAssessments], outcomes: Sequence[Outcome]) -> list[CreateAssessment]:
    return [
        assessment
        for write, outcome in zip(writes, outcomes, strict=True)
        if isinstance(outcome, Started)
        for assessment in write.assessments
    ]


async def _put(session: Session, writes: Sequence[StartTrace]) -> dict[str, Outcome]:
    """What becomes of each trace."""

    async def rows(statement: Sql, **values: Any) -> list[Any]:
        query = statement.query(values, Dialect.POSTGRESQL)
        return [tuple(row) for row in await session.fetch(query.text, *query.values)]

    outcomes: dict[str, Outcome] = {}
    by_id = {write.info.request_id: write for write in writes}
    seen = recent.of(session)
    if likely_new := [write for trace_id, write in by_id.items() if trace_id not in seen]:
        for trace_id, folder in await rows(NEW, **_arrays(likely_new)):
            outcomes[trace_id] = Started(True, folder)
    if left := [write for trace_id, write in by_id.items() if trace_id not in outcomes]:
        for trace_id, is_new, folder, *was in await rows(PUT, **_arrays(left)):
            outcomes[trace_id] = Started(is_new, folder)
            write = by_id[trace_id]
            if not is_new and was != [write.info.experiment_id, write.info.timestamp_ms]:
                for statement, values in _moves(write):
                    await rows(statement, **values)
    recent.add(session, outcomes)
    missed = [write for write in writes if write.info.request_id not in outcomes]
    if missed:
        numbers = sorted({write.info.experiment_id for write in missed})
        experiments = _by_id(await rows(_EXPERIMENTS, experiment_ids=numbers))
        states = _by_id(await rows(_STATES, trace_ids=[write.info.request_id for write in missed]))
        for write in missed:
            reason = _reason(write, experiments, states.get(write.info.request_id))
            outcomes[write.info.request_id] = reason or Declined("the trace or its experiment changes at this moment")
    return outcomes


def _reason(write: StartTrace, experiments: dict[Any, Any], state: Sequence[Any] | None) -> HeadraceError | None:
    """Why a trace can't be put, in stock's words."""
    number, trace_id = write.info.experiment_id, write.info.request_id
    _, stage, workspace, location = experiments.get(number, (number, "", "", ""))
    if workspace != write.workspace:
        return NotFound(f"No Experiment with id={number} exists")
    if stage != "active":
        return InvalidParameter(f"The experiment {number} must be in the 'active' state. Current state is {stage}.")
    if not PLAIN_LOCATION.match(location or ""):
        return Declined("an artifact location that stock must read")
    if state is not None and write.only_here and state[1] != number:
        return Forbidden(f"The trace {trace_id} is not in the experiment that the request names.")
    if state is not None and state[3]:
        return InvalidState(f"Cannot update traces that are no longer DB-backed: '{trace_id}'.")
    return None


def _by_id(rows: Sequence[Any]) -> dict[Any, Any]:
    return {row[0]: row for row in rows}


def _moves(write: StartTrace) -> list[tuple[Sql, dict[str, Any]]]:
    place = {"trace_id": write.info.request_id, "experiment_id": write.info.experiment_id}
    return [(_MOVE_SPANS, place), (_MOVE_ASSESSMENTS, place | {"timestamp_ms": write.info.timestamp_ms})]


def _arrays(writes: Sequence[StartTrace]) -> dict[str, Any]:
    """The parameters of NEW and PUT, an array for each column."""
    return {
        "plain": PLAIN_LOCATION.pattern,
        **columns(_TRACE_COLUMNS, [_OF_TRACE(write) for write in writes]),
        "trace_tags": [_json(write.info.tags) for write in writes],
        "trace_metadata": [_json(write.info.metadata) for write in writes],
    }


def _json(pairs: dict[str, str | None]) -> str:
    return msgspec.json.encode(pairs).decode()
