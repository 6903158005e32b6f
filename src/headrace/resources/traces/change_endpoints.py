"""Traces as they are started, ended, changed and deleted.

What is declined: traces that come with assessments which have an id, override another one or are not valid; experiments
whose artifact location only stock can read; the deletion of traces that stock has archived, whose files go with them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import invalid, missing
from headrace.auth.objects import Both, Experiment, NewTrace, Run, Trace
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import GuardFailed
from headrace.errors import AlreadyExists, Declined, InvalidParameter, NotFound
from headrace.resources import proto_json
from headrace.resources import validation as valid
from headrace.resources.assessments.given import AssessmentRow
from headrace.resources.assessments.given import row as assessment_row
from headrace.resources.assessments.messages import Assessment
from headrace.resources.assessments.sql import OF_OTHERS
from headrace.resources.assessments.writes import CreateAssessment
from headrace.resources.traces import change_sql as sql
from headrace.resources.traces import deletion, info, messages, reads, tags
from headrace.resources.traces.info import NAME, TraceInfo
from headrace.resources.traces.starts import Started, StartTrace, StartWithAssessments

ID = Trace("trace_id")
V2_ID = Trace("request_id")
MAX_ID, MAX_CLIENT_ID, MAX_PREVIEW = 50, 50, 1000
# mlflow's MAX_TRACE_LINKS_PER_REQUEST; columns of entity_associations
MAX_LINKS, MAX_LINKED = 100, 36
_STARTED = (*reads.PARTS, "experiments", "spans")
_PLACE = "trace.trace_info.trace_location.mlflow_experiment.experiment_id"


@endpoint(
    "POST", "3.0/mlflow/traces", Right.EDIT, Both(Experiment(_PLACE), NewTrace("trace.trace_info.trace_id")),
    *_STARTED, audited="often",
)  # fmt: skip
async def start_trace(call: Call, message: messages.StartTrace) -> object:
    """SqlAlchemyStore.start_trace."""
    given = message.trace.trace_info
    place = given.trace_location
    own_tags, metadata = tags.of_trace(given.tags), tags.metadata_of_trace(given.trace_metadata)
    if place.type != "MLFLOW_EXPERIMENT" or place.mlflow_experiment is None or place.inference_table is not None:
        raise invalid("trace.trace_info.trace_location", place.type, "This server keeps traces in experiments.")
    trace_id = _text(given.trace_id, MAX_ID, "trace.trace_info.trace_id")
    if not trace_id:
        raise missing("trace.trace_info.trace_id")
    length = given.execution_duration
    trace = TraceInfo(
        trace_id,
        valid.experiment_id(place.mlflow_experiment.experiment_id),
        proto_json.milliseconds_of_timestamp(given.request_time, "trace.trace_info.request_time"),
        None if length is None else proto_json.milliseconds_of_duration(length, "trace.trace_info.execution_duration"),
        given.state,
        client_request_id=_text(given.client_request_id, MAX_CLIENT_ID, "trace.trace_info.client_request_id"),
        request_preview=_text(given.request_preview, MAX_PREVIEW, "trace.trace_info.request_preview"),
        response_preview=_text(given.response_preview, MAX_PREVIEW, "trace.trace_info.response_preview"),
        trace_name=tags.name_of(given.tags),
        tags=dict(own_tags),
        metadata={**metadata, tags.FINALIZED: "true"},
    )
    await _check_ids(call, trace_id, given.assessments)
    rows = [_assessment(trace_id, each, place) for place, each in enumerate(given.assessments)]
    started = await _start(call, trace, given.trace_metadata, rows)
    if rows or not started.is_new:
        trace = await reads.one(call.db, trace_id) or trace
    return {"trace": {"trace_info": info.v3(trace)}}


def _assessment(trace_id: str, said: Any, place: int) -> AssessmentRow:
    """One that comes with a trace. Raises InvalidParameter, Declined."""
    try:
        assessment = msgspec.convert(said, Assessment)
    except msgspec.ValidationError:
        raise Declined("an assessment that must be read by protobuf's rules") from None
    if assessment.assessment_id or assessment.overrides or not assessment.valid:
        raise Declined("an assessment that is not new")  # stock overwrites one, and looks for none that is overridden
    return assessment_row(trace_id, assessment, f"trace.trace_info.assessments[{place}]")


async def _check_ids(call: Call, trace_id: str, assessments: list[Any]) -> None:
    """Stock takes an assessment that has the id of another trace's away from that one. Raises AlreadyExists."""
    names = ("assessment_id", "assessmentId")
    ids = [each[name] for each in assessments if isinstance(each, dict) for name in names if each.get(name)]
    given = [valid.without_nul(each, "assessment_id") for each in ids if isinstance(each, str)]
    if given and (taken := await call.db.rows(OF_OTHERS(ids=given, trace_id=trace_id))):
        raise AlreadyExists(f"The assessment {taken[0][0]} is another trace's: leave its id out.")


@endpoint("POST", "2.0/mlflow/traces", Right.EDIT, Experiment("experiment_id"), *_STARTED, audited="often")
async def start_trace_v2(call: Call, message: messages.StartTraceV2) -> object:
    """SqlAlchemyStore.deprecated_start_trace_v2."""
    given, metadata = tags.pairs(message.tags, "tags"), tags.pairs(message.request_metadata, "request_metadata")
    trace = TraceInfo(
        uuid.uuid4().hex,
        valid.experiment_id(message.experiment_id),
        message.timestamp_ms,
        None,
        "IN_PROGRESS",
        trace_name=tags.name_of(given),
        tags=dict(tags.of_trace(given)),
        metadata=dict(tags.metadata_of_trace(metadata)),
    )
    await _start(call, trace, metadata)
    return {"trace_info": info.v2(trace)}


async def _start(
    call: Call, trace: TraceInfo, metadata: dict[str, str], assessments: Sequence[AssessmentRow] = ()
) -> Started:
    """Write the trace, durably, and give it what the server knows of it."""
    for column, value in tags.columns_of(metadata).items():
        setattr(trace, column, value)
    start = StartTrace(trace, call.workspace, call.sender is not None)
    new = tuple(CreateAssessment(row, call.workspace, is_ours=True) for row in assessments)
    started: Started = await call.db.submit(StartWithAssessments(start, new) if new else start)
    trace.tags[tags.ARTIFACTS] = started.folder
    return started


@endpoint("PATCH", "2.0/mlflow/traces/{request_id}", Right.EDIT, V2_ID, sql.END, *reads.PARTS, audited="often")
async def end_trace_v2(call: Call, message: messages.EndTraceV2) -> object:
    """SqlAlchemyStore.deprecated_end_trace_v2. A client sends back all tags that the start has answered with."""
    given, metadata = tags.pairs(message.tags, "tags"), tags.pairs(message.request_metadata, "request_metadata")
    trace_id = valid.without_nul(message.request_id, "request_id")
    columns: dict[str, Any] = dict.fromkeys(sql.TOLD) | tags.columns_of(metadata)
    status = "STATE_UNSPECIFIED" if message.status == info.V2_UNSPECIFIED else message.status
    end = sql.END(
        trace_id=trace_id, timestamp_ms=message.timestamp_ms, status=status, name=tags.name_of(given), **columns
    )
    rest = [sql.SET_TAG(trace_id=trace_id, key=key, value=value) for key, value in tags.of_trace(given).items()]
    told = tags.metadata_of_trace(metadata)
    rest += [sql.SET_METADATA(trace_id=trace_id, key=key, value=told[key]) for key in sorted(told)]
    try:
        await call.db.change(end, *rest)
    except GuardFailed:
        raise _unknown(trace_id) from None
    found = await reads.one(call.db, trace_id)
    if found is None:
        raise _unknown(trace_id)
    return {"trace_info": info.v2(found)}


@endpoint("PATCH", "3.0/mlflow/traces/{trace_id}/tags", Right.EDIT, ID, sql.SET_TAG, sql.SET_NAME)
async def set_trace_tag(call: Call, message: messages.SetTraceTag) -> None:
    """SqlAlchemyStore.set_trace_tag."""
    tags.check_set(message.key)
    key, trace_id = valid.key(message.key), valid.without_nul(message.trace_id, "trace_id")
    value = valid.shortened(message.value, tags.MAX_VALUE, "value")
    if key == NAME:
        change = sql.SET_NAME(trace_id=trace_id, name=valid.text(value, tags.MAX_NAME, "Trace name"))
    else:
        change = sql.SET_TAG(trace_id=trace_id, key=key, value=value)
    try:
        await call.db.change(change)
    except GuardFailed:
        raise _unknown(trace_id) from None


@endpoint("PATCH", "2.0/mlflow/traces/{request_id}/tags", Right.EDIT, V2_ID, sql.SET_TAG, sql.SET_NAME)
async def set_trace_tag_v2(call: Call, message: messages.SetTraceTagV2) -> None:
    """handlers._set_trace_tag."""
    await set_trace_tag(call, messages.SetTraceTag(message.request_id, message.key, message.value))


@endpoint("DELETE", "3.0/mlflow/traces/{trace_id}/tags", Right.EDIT, ID, sql.DELETE_TAG, sql.DELETE_NAME)
async def delete_trace_tag(call: Call, message: messages.DeleteTraceTag) -> None:
    """SqlAlchemyStore.delete_trace_tag."""
    tags.check_deleted(message.key)
    key, trace_id = valid.without_nul(message.key, "key"), valid.without_nul(message.trace_id, "trace_id")
    change = sql.DELETE_NAME(trace_id=trace_id) if key == NAME else sql.DELETE_TAG(trace_id=trace_id, key=key)
    try:
        await call.db.change(change)
    except GuardFailed:
        if key == NAME and not await call.db.rows(sql.EXISTS(trace_id=trace_id)):
            raise _unknown(trace_id) from None
        raise NotFound(f"No trace tag with key '{key}' for trace with ID '{trace_id}'") from None


@endpoint("DELETE", "2.0/mlflow/traces/{request_id}/tags", Right.EDIT, V2_ID, sql.DELETE_TAG, sql.DELETE_NAME)
async def delete_trace_tag_v2(call: Call, message: messages.DeleteTraceTagV2) -> None:
    """handlers._delete_trace_tag."""
    await delete_trace_tag(call, messages.DeleteTraceTag(message.request_id, message.key))


@endpoint(
    "POST",
    "2.0/mlflow/traces/link-to-run",
    Right.EDIT,
    Both(Run("run_id"), Trace("trace_ids", right=Right.READ)),
    sql.LINK,
)
async def link_traces_to_run(call: Call, message: messages.LinkTracesToRun) -> None:
    """SqlAlchemyStore.link_traces_to_run. Neither the traces nor the run need be there, as in stock."""
    if len(message.trace_ids) > MAX_LINKS:
        raise InvalidParameter(
            f"Cannot link more than {MAX_LINKS} traces to a run in a single request. "
            f"Provided {len(message.trace_ids)} traces."
        )
    run_id = _text(message.run_id, MAX_LINKED, "run_id")
    links = [
        _link(_text(trace_id, MAX_LINKED, "trace_ids"), "run", run_id) for trace_id in sorted(set(message.trace_ids))
    ]
    if links:
        await call.db.transact(links)


@endpoint("POST", "2.0/mlflow/traces/link-prompts", Right.EDIT, ID, sql.EXISTS, sql.LINK)
async def link_prompts(call: Call, message: messages.LinkPrompts) -> None:
    """SqlAlchemyStore.link_prompts_to_trace."""
    trace_id = _text(message.trace_id, MAX_LINKED, "trace_id")
    prompts = {f"{each.name}/{_version(each.version)}" for each in message.prompt_versions}
    links = [_link(trace_id, "prompt_version", _text(each, MAX_LINKED, "prompt_versions")) for each in sorted(prompts)]
    try:
        await call.db.change(sql.EXISTS(trace_id=trace_id), *links)
    except GuardFailed:
        raise _unknown(trace_id) from None


def _link(trace_id: str, kind: str, linked: str) -> Any:
    now = now_ms()
    return sql.LINK(association_id=uuid.uuid4().hex, trace_id=trace_id, kind=kind, linked=linked, created_time=now)


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise invalid("prompt_versions", text, "A version is a number.") from None


@endpoint(
    "POST", "3.0/mlflow/traces/delete-traces", Right.EDIT, Experiment("experiment_id"), sql.SELECT_BY_ID,
    sql.SELECT_BY_AGE, sql.DELETE_REVIEWS,
)  # fmt: skip
@endpoint(
    "POST", "2.0/mlflow/traces/delete-traces", Right.EDIT, Experiment("experiment_id"), sql.SELECT_BY_ID,
    sql.SELECT_BY_AGE, sql.DELETE_REVIEWS,
)  # fmt: skip
async def delete_traces(call: Call, message: messages.DeleteTraces) -> object:
    """AbstractStore.delete_traces, SqlAlchemyStore._delete_traces."""
    before, most, ids = message.max_timestamp_millis, message.max_traces, message.request_ids
    if before is None and not ids:
        raise InvalidParameter("Either `max_timestamp_millis` or `trace_ids` must be specified.")
    if before is not None and ids:
        raise InvalidParameter("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
    if ids and most is not None:
        raise InvalidParameter("`max_traces` can't be specified if `trace_ids` is specified.")
    if most is not None and most <= 0:
        raise InvalidParameter(f"`max_traces` must be a positive integer, received {most}.")
    found = valid.experiment_ids([message.experiment_id])
    ids = [valid.without_nul(trace_id, "request_ids") for trace_id in ids]
    if not found:
        return {"traces_deleted": 0}
    return {"traces_deleted": await deletion.delete(call.db, found[0], ids=ids, before=before, most=most)}


def _text(value: Any, most: int, field: str) -> Any:
    return None if value is None else valid.text(value, most, field)


def _unknown(trace_id: str) -> NotFound:
    return NotFound(f"Trace with ID '{trace_id}' not found.")
