"""Endpoints of model versions.

A new version is native where its source is plainly inside a run or a logged model, outside of this server, or a
prompt's placeholder. Local paths, and whatever may be read in more than one way (%, .., #, ?), are left to stock's own
check.
"""

from __future__ import annotations

import json
import os
import re
import time

from headrace.api.endpoint import Call, endpoint
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.auth.objects import Both, Filtered, ModelSource, RegisteredModel
from headrace.auth.principals import Right
from headrace.db.database import GuardFailed
from headrace.errors import Declined, InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.model_versions import messages, sql
from headrace.resources.registered_models import reads, search
from headrace.resources.registered_models import validation as rules

MODEL = RegisteredModel("name")
PATH = "2.0/mlflow/model-versions/"
MAX_SEARCHED = 200_000
MAX_SOURCE = 500  # the columns'
# stages whose versions are archived when another comes (DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS)
_ACTIVE_STAGES = ("Staging", "Production")
_PLAIN_SOURCE = re.compile(r"(?!file:)[a-z][a-z0-9+-]*:/{1,2}[A-Za-z0-9._=@+-]+(/[A-Za-z0-9._=@ +-]+)*/?")
# what stock looks up on this server
_HERE = ("runs:", "models:", "mlflow-artifacts:", "http:", "https:")
# mlflow/prompt/constants.py
_PROMPT_SOURCES = ("dummy-source", "prompt-template")


@endpoint(
    "POST", f"{PATH}create", Right.EDIT, Both(MODEL, ModelSource("source")), sql.TOUCH_MODEL, sql.CREATE, sql.TAG_NEW,
    sql.LOGGED_MODEL, sql.MODEL_VERSIONS_TAG, sql.RUN, sql.GET,
)  # fmt: skip
async def create_model_version(call: Call, message: messages.CreateModelVersion) -> object:
    """SqlAlchemyStore.create_model_version, handlers._create_model_version."""
    name = rules.model_name(message.name)
    tags = rules.tags(message.tags)
    description = valid.text(message.description, rules.MAX_DESCRIPTION, "description")
    run_id = valid.without_nul(message.run_id or "", "run_id")
    await rules.leave_to_webhooks(call)
    location, source_run = await _source(call, message, rules.is_prompt(tags))
    place = {"workspace": call.workspace, "name": name}
    touched, created, *_ = await call.db.transact(
        [
            sql.TOUCH_MODEL(now=(now := int(time.time() * 1000)), **place),
            sql.CREATE(
                now=now,
                description=description,
                source=message.source,
                storage_location=location,
                run_id=run_id or source_run,
                run_link=valid.text(message.run_link, MAX_SOURCE, "run_link"),
                **place,
            ),
            *(sql.TAG_NEW(key=key, value=value, **place) for key, value in tags.items()),
        ]
    )
    if not touched:
        raise rules.unknown_model(name)
    version: int = created[0][0]
    if message.model_id and not rules.is_prompt(tags):
        await _tag_logged_model(call, message.model_id, name, version)
    return {"model_version": await reads.read_version(call, sql.GET(version=version, **place))}


async def _source(call: Call, message: messages.CreateModelVersion, is_prompt: bool) -> tuple[str, str]:
    """Where the files of a new version are, and the run that made them (or "").

    Rules: handlers._validate_source_run, _validate_source_model. Raises InvalidParameter, Declined.
    """
    source = valid.text(message.source, MAX_SOURCE, "source")
    if is_prompt:
        if source not in _PROMPT_SOURCES:
            raise InvalidParameter(f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder.")
        return source, ""
    if os.environ.get("MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX"):
        raise Declined("a rule of the administrator's for sources")
    if not _PLAIN_SOURCE.fullmatch(source) or any(part in (".", "..") for part in source.split("/")):
        raise Declined("a source that stock must check")
    model_location, model_run = "", ""
    if message.model_id:
        rows = await call.db.rows(sql.LOGGED_MODEL(model_id=valid.without_nul(message.model_id, "model_id")))
        if not rows:
            raise Declined("an unknown logged model")
        model_location, model_run = rows[0][0], rows[0][1] or ""
    if not source.startswith(_HERE):
        return source, model_run
    if source == f"models:/{message.model_id}":
        return model_location, model_run
    if message.model_id and source.startswith("mlflow-artifacts:") and _is_within(source, model_location):
        return source, model_run
    if message.run_id and not message.model_id:
        if source.startswith(f"runs:/{message.run_id}/"):
            return source, ""
        rows = await call.db.rows(sql.RUN(run_id=message.run_id))
        if rows and source.startswith("mlflow-artifacts:") and _is_within(source, rows[0][0] or ""):
            return source, ""
    raise Declined("a source that stock must check")


def _is_within(source: str, root: str) -> bool:
    """Whether a plain URI is in the folder of another."""
    return bool(root) and f"{source}/".startswith(f"{root.rstrip('/')}/")


async def _tag_logged_model(call: Call, model_id: str, name: str, version: int) -> None:
    """AbstractStore.set_model_versions_tags."""
    rows = await call.db.rows(sql.MODEL_VERSIONS_TAG(model_id=model_id))
    versions = json.loads(rows[0][0]) if rows else []
    mine = {"name": name, "version": version}
    if mine in versions:
        return
    value = json.dumps([*versions, mine])
    await call.db.transact([sql.SET_MODEL_VERSIONS_TAG(model_id=model_id, value=value)])


@endpoint("GET", f"{PATH}get", Right.READ, MODEL, sql.GET)
async def get_model_version(call: Call, message: messages.ModelVersionOnly) -> object:
    """SqlAlchemyStore.get_model_version."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    version = await reads.read_version(call, sql.GET(workspace=call.workspace, name=name, version=number))
    if version is None:
        raise rules.unknown_version(name, number)
    return {"model_version": version}


@endpoint("GET", f"{PATH}get-download-uri", Right.READ, MODEL, sql.SOURCE)
async def get_model_version_download_uri(call: Call, message: messages.ModelVersionOnly) -> object:
    """SqlAlchemyStore.get_model_version_download_uri."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    rows = await call.db.rows(sql.SOURCE(workspace=call.workspace, name=name, version=number))
    if not rows:
        raise rules.unknown_version(name, number)
    return {"artifact_uri": rows[0][0]} if rows[0][0] is not None else {}


@endpoint("GET", f"{PATH}search", Right.READ, Filtered(), sql.GET)
async def search_model_versions(call: Call, message: messages.SearchModelVersions) -> object:
    """SqlAlchemyStore.search_model_versions; with their aliases, which stock leaves out."""
    limit = message.max_results
    if limit > MAX_SEARCHED:
        raise valid.hint("max_results", limit, "int")
    if limit < 1:
        raise InvalidParameter(f"Invalid value for max_results. It must be a positive integer, but got {limit}")
    conditions = search.parse_filter(message.filter, search.VERSIONS)
    order = search.parse_order(message.order_by, search.VERSIONS)
    offset = page_token.decode(message.page_token, "").offset
    rows = await call.db.rows(
        search.search(search.VERSIONS, conditions, order, limit, offset, call.db.dialect, call.workspace, call.grantees)
    )
    versions = [reads.model_version(row) for row in rows[:limit]]
    answer: dict[str, object] = {"model_versions": versions} if versions else {}
    if len(rows) > limit:
        answer["next_page_token"] = page_token.encode(PageToken(offset + limit))
    return answer


@endpoint("PATCH", f"{PATH}update", Right.EDIT, MODEL, sql.UPDATE, sql.GET)
async def update_model_version(call: Call, message: messages.UpdateModelVersion) -> object:
    """SqlAlchemyStore.update_model_version."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    description = message.description
    if description is not None:
        valid.text(description, rules.MAX_DESCRIPTION, "description")
    place = {"workspace": call.workspace, "name": name, "version": number}
    try:
        await call.db.change(sql.UPDATE(description=description, now=_now(), **place))
    except GuardFailed:
        raise rules.unknown_version(name, number) from None
    return {"model_version": await reads.read_version(call, sql.GET(**place))}


@endpoint("POST", f"{PATH}transition-stage", Right.EDIT, MODEL, sql.TRANSITION, sql.ARCHIVE_OTHERS, sql.GET)
async def transition_stage(call: Call, message: messages.TransitionModelVersionStage) -> object:
    """SqlAlchemyStore.transition_model_version_stage."""
    stage = rules.stage(message.stage)
    if message.archive_existing_versions and stage not in _ACTIVE_STAGES:
        raise InvalidParameter(
            f"Model version transition cannot archive existing model versions because '{message.stage}' is not an "
            f"Active stage. Valid stages are {list(_ACTIVE_STAGES)}"
        )
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    place, now = {"workspace": call.workspace, "name": name}, _now()
    others = [sql.ARCHIVE_OTHERS(version=number, stage=stage, now=now, **place)]
    try:
        await call.db.change(
            sql.TRANSITION(version=number, stage=stage, now=now, **place),
            *(others if message.archive_existing_versions else ()),
            sql.TOUCH_MODEL(now=now, **place),
        )
    except GuardFailed:
        raise rules.unknown_version(name, number) from None
    return {"model_version": await reads.read_version(call, sql.GET(version=number, **place))}


@endpoint("DELETE", f"{PATH}delete", Right.EDIT, MODEL, sql.DELETE, sql.DELETE_ALIASES, sql.TOUCH_MODEL)
async def delete_model_version(call: Call, message: messages.ModelVersionOnly) -> None:
    """SqlAlchemyStore.delete_model_version: its row stays, redacted."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    place, now = {"workspace": call.workspace, "name": name}, _now()
    try:
        await call.db.change(
            sql.DELETE(version=number, now=now, **place),
            sql.DELETE_ALIASES(version=number, **place),
            sql.TOUCH_MODEL(now=now, **place),
        )
    except GuardFailed:
        raise rules.unknown_version(name, number) from None


@endpoint("POST", f"{PATH}set-tag", Right.EDIT, MODEL, sql.SET_TAG)
async def set_model_version_tag(call: Call, message: messages.SetModelVersionTag) -> None:
    """SqlAlchemyStore.set_model_version_tag."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    key, value = rules.tag(message.key, message.value)
    await rules.leave_to_webhooks(call)
    try:
        await call.db.change(sql.SET_TAG(workspace=call.workspace, name=name, version=number, key=key, value=value))
    except GuardFailed:
        raise rules.unknown_version(name, number) from None


@endpoint("DELETE", f"{PATH}delete-tag", Right.EDIT, MODEL, sql.EXISTS, sql.DELETE_TAG)
async def delete_model_version_tag(call: Call, message: messages.DeleteModelVersionTag) -> None:
    """SqlAlchemyStore.delete_model_version_tag; one that is not there is no error."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    key = valid.key(message.key)
    await rules.leave_to_webhooks(call)
    place = {"workspace": call.workspace, "name": name, "version": number}
    try:
        await call.db.change(sql.EXISTS(**place), sql.DELETE_TAG(key=key, **place))
    except GuardFailed:
        raise rules.unknown_version(name, number) from None


def _now() -> int:
    return int(time.time() * 1000)
