"""A trace's row, made or widened: what is stored and what requests say, in order of arrival -> what shall be stored.

Source: mlflow/store/tracking/sqlalchemy_store.py, _log_spans_once from its second phase on. The rules:

- Start and end widen, whoever comes first. Once start_trace has written the trace (the metadata
  mlflow.trace.infoFinalized), they stay, but only before a request that has token usage, cost or a session: stock does
  not look for the mark otherwise.
- The status of the first root span counts while the trace is in progress; after that it stays.
- A preview, the session and the user are the first that anyone says; the name and every other tag are the last.
- Token usage and cost are summed over the whole tree, the stored spans and those of the request (token_sums.py),
  whenever a request has any. A number that is not in the new sum stays. Once start_trace has told some, theirs stay.
- The generation of the payload (db_payload_generation) counts the requests.

The first four are the same in whatever order requests come, and the sums are, too, where a parent comes with its
usage; two roots in two requests are the only thing in which order tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from headrace.errors import Declined
from headrace.resources.runs import records
from headrace.resources.traces import token_sums
from headrace.resources.traces.info import TraceRow
from headrace.resources.traces.span_rows import TraceContribution
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS, Node

_UNDECIDED = ("IN_PROGRESS", "STATE_UNSPECIFIED")
PLAIN_LOCATION = re.compile(records.PLAIN_LOCATION)


class Experiment(Struct, frozen=True, gc=False):
    """Where a new trace goes (sql.EXPERIMENTS); one that is there stays where it is."""

    experiment_id: int
    artifact_location: str | None


class TraceState(TraceRow, gc=False, kw_only=True):
    """A trace that is stored (sql.TRACE_STATES).

    `finalized`: start_trace has written it. `elsewhere`: its spans are not in the database, so that none can be added.
    """

    finalized: bool
    elsewhere: bool


class TraceChange(Struct, gc=False):
    """What a group of requests does to one trace.

    A new one gets the tag of its `artifact_location` besides. `tags` replace those of the same keys; `user_id` is
    inserted unless there is one. Where `starts_earlier`, the trace's assessments take its new start.
    """

    row: TraceRow
    is_new: bool
    starts_earlier: bool
    generations: int
    tags: dict[str, str]
    user_id: str | None


def needs_nodes(state: TraceState, contributions: Iterable[TraceContribution]) -> bool:
    """Whether the sums can't be made without the spans that are stored already."""
    return any(
        (contribution.has_usage and not _told(state, state.finalized, TOKEN_COLUMNS))
        or (contribution.has_cost and not _told(state, state.finalized, COST_COLUMNS))
        for contribution in contributions
    )


def merged(
    state: TraceState | None,
    experiment_id: int,
    contributions: Sequence[TraceContribution],
    stored: Iterable[Node] = (),
) -> TraceChange:
    """The row after these requests; a new one's is in `experiment_id`. `stored`: the nodes of all stored spans, where
    `needs_nodes`.
    """
    first = contributions[0]
    row = (
        replace(state)
        if state
        else TraceRow(
            first.trace_id,
            experiment_id,
            first.min_start_ms,
            first.max_end_ms - first.min_start_ms,
            "IN_PROGRESS",
        )
    )
    finalized = state is not None and state.finalized
    nodes = {node.span_id: node for node in stored}
    tags: dict[str, str] = {}
    user_id = None
    for contribution in contributions:
        if not (finalized and (contribution.has_usage or contribution.has_cost or contribution.session_id)):
            _widen(row, contribution)
        if row.status in _UNDECIDED and contribution.status:
            row.status = contribution.status
        row.request_preview = _first(row.request_preview, contribution.request_preview)
        row.response_preview = _first(row.response_preview, contribution.response_preview)
        row.session_id = _first(row.session_id, contribution.session_id)
        row.trace_name = _first(contribution.trace_name, row.trace_name)
        user_id = _first(user_id, contribution.user_id)
        tags |= contribution.tags
        _add_up(row, finalized, contribution, nodes)
        nodes |= {node.span_id: node for node in contribution.nodes}
    return TraceChange(
        row,
        is_new=state is None,
        starts_earlier=state is not None and row.timestamp_ms < state.timestamp_ms,
        generations=len(contributions),
        tags=tags,
        user_id=user_id,
    )


def artifact_location(experiment: Experiment, trace_id: str) -> str:
    """SqlAlchemyStore._get_trace_artifact_location_tag. Raises Declined where only stock can tell."""
    location = experiment.artifact_location
    if location is None or not PLAIN_LOCATION.match(location):
        raise Declined("an artifact location that stock must read")
    return f"{location}{'' if location.endswith('/') else '/'}traces/{trace_id}/artifacts"


def _first(one: str | None, other: str | None) -> str | None:
    return other if one is None else one


def _widen(row: TraceRow, contribution: TraceContribution) -> None:
    end = contribution.max_end_ms
    if row.execution_time_ms is not None:
        end = max(end, row.timestamp_ms + row.execution_time_ms)
    row.timestamp_ms = min(row.timestamp_ms, contribution.min_start_ms)
    row.execution_time_ms = end - row.timestamp_ms


def _add_up(row: TraceRow, finalized: bool, contribution: TraceContribution, nodes: dict[str, Node]) -> None:
    usage = contribution.has_usage and not _told(row, finalized, TOKEN_COLUMNS)
    cost = contribution.has_cost and not _told(row, finalized, COST_COLUMNS)
    if not (usage or cost):
        return
    sent = {node.span_id for node in contribution.nodes}
    tree = contribution.nodes + [node for node in nodes.values() if node.span_id not in sent]
    sums: dict[str, int | float] = {}
    if usage:
        sums |= token_sums.usage_sums(tree) or {}
    if cost:
        sums |= token_sums.cost_sums(tree) or {}
    for column, value in sums.items():
        setattr(row, column, value)


def _told(row: TraceRow, finalized: bool, columns: Sequence[str]) -> bool:
    """Whether start_trace has told the sums."""
    return finalized and any(getattr(row, column) is not None for column in columns)
