"""Spans on their way into the database: `Database.submit` writes those of many requests in one transaction.

The order of the statements, and why it is that one, is told in sql.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict

from headrace.db.database import Write
from headrace.db.query import Dialect, Sql, columns
from headrace.errors import Declined, Forbidden, HeadraceError, NotFound
from headrace.resources.traces import recent, sql, trace_rows
from headrace.resources.traces.info import TraceRow
from headrace.resources.traces.span_rows import LoggedSpans, SpanRow, TraceContribution
from headrace.resources.traces.tags import ARTIFACTS, SPANS
from headrace.resources.traces.token_sums import Node, stored_node
from headrace.resources.traces.trace_rows import Experiment, TraceChange, TraceState

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

# So much text is as heavy as a row of its own: a group of large spans is full sooner.
_BYTES_OF_A_ROW = 10_000

_EXPERIMENTS, _TRACE_STATES, _STORED_NODES = map(Sql, (sql.EXPERIMENTS, sql.TRACE_STATES, sql.STORED_NODES))
_LOCK_TRACES, _NEW_TRACES, _ADD_SPANS, _MOVE, _SET_TRACES = (
    Sql(postgresql=text, sqlite="SELECT 1")
    for text in (sql.LOCK_TRACES, sql.NEW_TRACES, sql.ADD_SPANS, sql.MOVE, sql.SET_TRACES)
)

# What becomes of a write: None, or the exception that its caller shall see.
Outcome = HeadraceError | None


class LogSpans(Write, frozen=True, gc=False):
    """The spans of a request. A trace that is there stays in its experiment, as in stock.

    `workspace`: where the experiment of a new trace must be. `only_here`: traces that are in another experiment are
    refused, for a sender whose rights on that nobody has checked.
    """

    experiment_id: int
    workspace: str
    only_here: bool
    logged: LoggedSpans

    one_statement = True
    of_traces = True

    def weight(self) -> int:
        spans = self.logged.spans
        return len(spans) + sum(len(span.content) for span in spans) // _BYTES_OF_A_ROW

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[LogSpans]) -> Sequence[Outcome]:
        done = await _at_once(session, writes)
        left = [at for at, write in enumerate(writes) if write.logged.traces[0].trace_id not in done]
        outcomes: list[Outcome] = [None] * len(writes)
        if left:
            async with session.connection.transaction():
                for at, outcome in zip(left, await _merge(session, [writes[at] for at in left]), strict=True):
                    outcomes[at] = outcome
        return outcomes

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[LogSpans]) -> Sequence[Outcome]:
        def rows(statement: Sql, **values: Any) -> list[Any]:
            query = statement.query(values, Dialect.SQLITE)
            return [tuple(row) for row in connection.execute(query.text, query.numbered)]

        group = _Group(writes, rows(_EXPERIMENTS, **_experiments(writes)))
        group.found(rows(_TRACE_STATES, trace_ids=group.trace_ids()))
        group.refuse()
        if summed := group.summed():
            group.take_nodes(rows(_STORED_NODES, trace_ids=summed))
        changes = [*group.new_changes(), *group.changes()]
        for change in changes:
            if change.is_new:
                change.tags[ARTIFACTS] = group.artifacts_of(change.row.request_id)
        experiments = {change.row.request_id: change.row.experiment_id for change in changes}
        connection.executemany(sql.PUT_TRACE, map(_trace_values, changes))
        connection.executemany(
            sql.PUT_SPAN,
            ({**asdict(span), "experiment_id": experiments[span.trace_id]} for span in group.spans(experiments)),
        )
        for change in changes:
            trace_id = change.row.request_id
            connection.executemany(
                sql.PUT_TAG, ({"request_id": trace_id, "key": k, "value": v} for k, v in change.tags.items())
            )
            if change.user_id:
                connection.execute(sql.ADD_USER, {"request_id": trace_id, "user_id": change.user_id})
            if change.starts_earlier:
                moved = {"request_id": trace_id, "timestamp_ms": change.row.timestamp_ms}
                connection.execute(sql.MOVE_ASSESSMENTS, moved)
        return group.outcomes


async def _rows(session: Session, statement: Sql, **values: Any) -> list[Any]:
    query = statement.query(values, Dialect.POSTGRESQL)
    return [tuple(row) for row in await session.fetch(query.text, *query.values)]


# trace_id -> the requests with spans of it
Traces = Mapping[str, Sequence[LogSpans]]


async def _at_once(session: Session, writes: Sequence[LogSpans]) -> set[str]:
    """Write what one statement can, of traces that come in requests of their own: the ids of those traces."""
    by_trace: dict[str, list[LogSpans]] = {}
    for write in writes:
        for trace in write.logged.traces:
            by_trace.setdefault(trace.trace_id, []).append(write)
    alone = {trace_id: of_trace for trace_id, of_trace in by_trace.items() if _is_alone(of_trace)}
    seen = recent.of(session)
    likely_new = {trace_id: of_trace for trace_id, of_trace in alone.items() if trace_id not in seen}
    done = await _put_new(session, likely_new)
    plain = {
        trace_id: of_trace
        for trace_id, of_trace in alone.items()
        if trace_id not in done and not any(map(_needs_more, of_trace))
    }
    if plain:
        there = await _add(session, plain)
        done |= {trace_id for trace_id, is_done in there.items() if is_done}
        new = plain.keys() - there.keys() - likely_new.keys()
        done |= await _put_new(session, {each: plain[each] for each in new})
    recent.add(session, by_trace)
    return done


async def _add(session: Session, traces: Traces) -> dict[str, bool]:
    """Add spans to the traces that are there: their ids, and whether it is done."""
    changes = _changes(traces)
    values = _arrays(changes, _spans(traces)) | {
        "trace_only_here": [any(write.only_here for write in traces[change.row.request_id]) for change in changes]
    }
    if not any(write.logged.completed for of_trace in traces.values() for write in of_trace):
        rows = await _rows(session, _ADD_SPANS, **values, may_begin_earlier=False)
    else:
        async with session.connection.transaction():
            rows = await _rows(session, _ADD_SPANS, **values, may_begin_earlier=True)
            if moved := [(trace_id, begins) for trace_id, _, begins in rows if begins is not None]:
                ids, times = map(list, zip(*moved, strict=True))
                await _rows(session, _MOVE, moved_request_id=ids, moved_timestamp_ms=times)
    return {trace_id: is_done for trace_id, is_done, _ in rows}


async def _put_new(session: Session, traces: Traces) -> set[str]:
    """Write those that are new: their ids."""
    if not traces:
        return set()
    changes = _changes(traces)
    workspaces = [traces[change.row.request_id][0].workspace for change in changes]
    rows = await _rows(session, _NEW_TRACES, **_new_arrays(changes, _spans(traces), workspaces))
    return {row[0] for row in rows}


def _changes(traces: Traces) -> list[TraceChange]:
    """What the requests say of each, in the order of their ids."""
    return [
        trace_rows.merged(None, of_trace[0].experiment_id, [write.logged.traces[0] for write in of_trace])
        for _, of_trace in sorted(traces.items())
    ]


def _spans(traces: Traces) -> list[SpanRow]:
    """Each once, as it was sent last."""
    rows = (row for of_trace in traces.values() for write in of_trace for row in write.logged.spans)
    return list({(row.trace_id, row.span_id): row for row in rows}.values())


def _is_alone(writes: Sequence[LogSpans]) -> bool:
    """Whether these requests, all that there are of a trace, are of nothing else, and of one experiment."""
    first = writes[0]
    return all(
        len(write.logged.traces) == 1
        and (write.experiment_id, write.workspace) == (first.experiment_id, first.workspace)
        for write in writes
    )


def _needs_more(write: LogSpans) -> bool:
    """Whether spans of a trace that is there can't be added without looking at what it has."""
    said = write.logged.traces[0]
    tells = said.has_usage or said.has_cost or said.session_id or said.user_id
    return bool(tells) or said.tags[SPANS] != "TRACKING_STORE"


async def _merge(session: Session, writes: Sequence[LogSpans]) -> Sequence[Outcome]:
    """Within a transaction: the traces are new, or there, or being made by another worker."""
    group = _Group(writes, await _rows(session, _EXPERIMENTS, **_experiments(writes)))
    if locked := [row[0] for row in await _rows(session, _LOCK_TRACES, trace_ids=group.trace_ids())]:
        group.found(await _rows(session, _TRACE_STATES, trace_ids=locked))
    group.refuse()
    if new := group.new_changes():
        workspaces = [group.workspace_of(change.row.request_id) for change in new]
        made = await _rows(session, _NEW_TRACES, **_new_arrays(new, group.spans(_ids(new)), workspaces))
        if missed := sorted(_ids(new).difference(row[0] for row in made)):  # made by another worker since the lock
            await _rows(session, _LOCK_TRACES, trace_ids=missed)
            group.found(await _rows(session, _TRACE_STATES, trace_ids=missed))
            group.must_be_there(missed)
    if group.states:
        if summed := group.summed():
            group.take_nodes(await _rows(session, _STORED_NODES, trace_ids=summed))
        changes = group.changes()
        await _rows(session, _SET_TRACES, **_arrays(changes, group.spans(_ids(changes))))
    return group.outcomes


class _Group:
    """Some requests, and what is known of their traces. `outcomes`: one a request, None for what is done."""

    def __init__(self, writes: Sequence[LogSpans], experiments: Iterable[tuple[Any, ...]]) -> None:
        self._writes = writes
        self._experiments = {(row[0], row[2]): Experiment(row[0], row[1]) for row in experiments}
        self._nodes: dict[str, list[Node]] = {}
        self._by_trace: dict[str, list[tuple[LogSpans, TraceContribution]]] = {}
        self.states: dict[str, TraceState] = {}
        self.outcomes: list[Outcome] = [None] * len(writes)
        self._sort()

    def trace_ids(self) -> list[str]:
        """In the one order in which every worker locks them."""
        return sorted(self._by_trace)

    def found(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Traces that are there (sql.TRACE_STATES)."""
        for row in rows:
            self.states[row[0]] = TraceState(*row[:-2], finalized=bool(row[-2]), elsewhere=bool(row[-1]))

    def refuse(self) -> None:
        """Leave out the requests that can't be done. Nothing was written yet."""
        refused = True
        while refused:  # without one that is left out, another may be the first of its trace
            refused = False
            for index, write in enumerate(self._writes):
                if self.outcomes[index] is None and (refusal := self._refusal(write)) is not None:
                    self.outcomes[index] = refusal
                    refused = True
            self._sort()
        self.states = {trace_id: state for trace_id, state in self.states.items() if trace_id in self._by_trace}

    def must_be_there(self, trace_ids: Iterable[str]) -> None:
        """Of traces that another worker has made: raise what `refuse` would leave out, for each to be tried alone."""
        for trace_id in trace_ids:
            if trace_id not in self.states:
                raise Declined("a trace was made and deleted at this moment")
            for write, _ in self._by_trace[trace_id]:
                if (refusal := self._refusal(write)) is not None:
                    raise refusal

    def summed(self) -> list[str]:
        """The traces whose stored spans are needed for sums."""
        return [id_ for id_, state in self.states.items() if trace_rows.needs_nodes(state, self._said(id_))]

    def take_nodes(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """The rows of sql.STORED_NODES."""
        for trace_id, *rest in rows:
            self._nodes.setdefault(trace_id, []).append(stored_node(*rest))

    def new_changes(self) -> list[TraceChange]:
        """The traces that are not there."""
        new = (trace_id for trace_id in self.trace_ids() if trace_id not in self.states)
        return [trace_rows.merged(None, self._first(id_).experiment_id, self._said(id_)) for id_ in new]

    def workspace_of(self, trace_id: str) -> str:
        """Where a new trace's experiment must be."""
        return self._first(trace_id).workspace

    def artifacts_of(self, trace_id: str) -> str:
        """Where a new trace's artifacts go; `refuse` has looked whether that can be told."""
        return trace_rows.artifact_location(self._home(self._first(trace_id)), trace_id)

    def changes(self) -> list[TraceChange]:
        """The traces that are there."""
        changes = []
        for id_ in sorted(self.states):
            state = self.states[id_]
            nodes = self._nodes.get(id_, ())
            changes.append(trace_rows.merged(state, state.experiment_id, self._said(id_), nodes))
        return changes

    def spans(self, trace_ids: Iterable[str]) -> list[SpanRow]:
        """The spans of these traces, each once, as it was sent last."""
        wanted = set(trace_ids)
        done = (write for write, refusal in zip(self._writes, self.outcomes, strict=True) if refusal is None)
        rows = (row for write in done for row in write.logged.spans if row.trace_id in wanted)
        return list({(row.trace_id, row.span_id): row for row in rows}.values())

    def _said(self, trace_id: str) -> list[TraceContribution]:
        return [contribution for _, contribution in self._by_trace[trace_id]]

    def _first(self, trace_id: str) -> LogSpans:
        return self._by_trace[trace_id][0][0]

    def _home(self, write: LogSpans) -> Experiment:
        return self._experiments[write.experiment_id, write.workspace]

    def _sort(self) -> None:
        self._by_trace = {}
        for write, refusal in zip(self._writes, self.outcomes, strict=True):
            if refusal is None:
                for trace in write.logged.traces:
                    self._by_trace.setdefault(trace.trace_id, []).append((write, trace))

    def _refusal(self, write: LogSpans) -> Outcome:
        """Why a request can't be done."""
        for trace in write.logged.traces:
            state = self.states.get(trace.trace_id)
            if state is None:
                if (write.experiment_id, write.workspace) not in self._experiments:
                    return NotFound(f"No Experiment with id={write.experiment_id} exists")
                try:
                    trace_rows.artifact_location(self._home(write), trace.trace_id)
                except Declined as reason:
                    return reason
                if write.only_here and self._first(trace.trace_id).experiment_id != write.experiment_id:
                    return _not_here(trace.trace_id)  # another request of the group is about to make it elsewhere
            elif write.only_here and state.experiment_id != write.experiment_id:
                return _not_here(trace.trace_id)
            elif state.elsewhere:
                return Declined("a trace whose spans are not in the database")
        return None


def _not_here(trace_id: str) -> Forbidden:
    return Forbidden(f"The trace {trace_id} is not in the experiment that the request names.")


def _experiments(writes: Iterable[LogSpans]) -> dict[str, list[int]]:
    return {"experiment_ids": sorted({write.experiment_id for write in writes})}


def _ids(changes: Iterable[TraceChange]) -> set[str]:
    return {change.row.request_id for change in changes}


_TRACE, _SPAN = TraceRow.__struct_fields__, SpanRow.__struct_fields__
_OF_TRACE, _OF_SPAN = attrgetter(*(f"row.{name}" for name in _TRACE), "generations", "user_id"), attrgetter(*_SPAN)
_TRACE_COLUMNS = tuple(f"trace_{name}" for name in (*_TRACE, "generations", "user_id"))
_SPAN_COLUMNS = tuple(f"span_{name}" for name in _SPAN)


def _trace_values(change: TraceChange) -> dict[str, Any]:
    return {**asdict(change.row), "generations": change.generations}


def _arrays(changes: Sequence[TraceChange], spans: Sequence[SpanRow]) -> dict[str, Any]:
    """The parameters of SET_TRACES, an array for each column."""
    moved = [change.row for change in changes if change.starts_earlier]
    return {
        **columns(_TRACE_COLUMNS, [_OF_TRACE(change) for change in changes]),
        **columns(_SPAN_COLUMNS, [_OF_SPAN(span) for span in spans]),
        "trace_tags": [msgspec.json.encode(change.tags).decode() for change in changes],
        "moved_request_id": [row.request_id for row in moved],
        "moved_timestamp_ms": [row.timestamp_ms for row in moved],
    }


def _new_arrays(changes: Sequence[TraceChange], spans: Sequence[SpanRow], workspaces: Sequence[str]) -> dict[str, Any]:
    """The parameters of NEW_TRACES. `workspaces`: one a change."""
    return {**_arrays(changes, spans), "trace_workspace": workspaces, "plain": trace_rows.PLAIN_LOCATION.pattern}
