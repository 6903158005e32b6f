"""Endpoints of model versions.

What may be the source of a new one, and what of that is left to stock: source.py. Where webhooks are turned
on, what fires one that waits for it is left to stock.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.api.endpoint import Call, Note, endpoint
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.auth.objects import Both, Filtered, ModelSource, ModelVersionFiles, RegisteredModel, VersionRun
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import Duplicate, GuardFailed
from headrace.db.query import Dialect
from headrace.errors import InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.model_versions import messages, source, sql
from headrace.resources.registered_models import reads, search
from headrace.resources.registered_models import validation as rules
from headrace.resources.registered_models.sql import TAGS

MODEL = RegisteredModel("name")
PATH = "2.0/mlflow/model-versions/"
MAX_SEARCHED = 200_000
# stages whose versions are archived when another comes (DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS)
_ACTIVE_STAGES = ("Staging", "Production")


async def _made_by_stock(call: Call, message: messages.CreateModelVersion) -> Note:
    async def note(answer: bytes) -> None:
        made = json.loads(answer)["model_version"]
        await call.events.version_made(call.workspace, made["name"], int(made["version"]))

    return note


@endpoint(
    "POST", f"{PATH}create", Right.EDIT, Both(MODEL, ModelSource("source"), VersionRun("run_id")), sql.CREATE_AT_ONCE,
    sql.RUN, sql.LATEST, TAGS, noted=_made_by_stock,
)  # fmt: skip
async def create_model_version(call: Call, message: messages.CreateModelVersion) -> object:
    """SqlAlchemyStore.create_model_version, handlers._create_model_version."""
    name = rules.model_name(message.name)
    tags = rules.tags(message.tags)
    description = valid.text(message.description, rules.MAX_DESCRIPTION, "description")
    run_link = valid.text(message.run_link, source.MAX_SOURCE, "run_link")
    await rules.leave_to_webhooks(call, "created", "model_version", "prompt_version")
    found = await source.resolve(call, message, rules.is_prompt(tags))
    row = {
        "workspace": call.workspace,
        "name": name,
        "now": (now := now_ms()),
        "description": description,
        "source": found.uri,
        "storage_location": found.location,
        "run_id": found.run_id,
        "run_link": run_link,
    }
    version = await _create(call, row, tags, found.model_id)
    if version is None:
        raise rules.unknown_model(name)
    if call.events.by_kind:
        await call.events.version_made(call.workspace, name, version)
    its_tags = json.dumps([{"key": key, "value": tags[key]} for key in sorted(tags)])
    return {
        "model_version": reads.model_version(
            (name, version, now, now, description, None, "None", found.uri, found.run_id, "READY", None, run_link,
             its_tags, None)
        )
    }  # fmt: skip


async def _create(call: Call, row: dict[str, Any], tags: dict[str, str], model_id: str) -> int | None:
    """The number of the new version; None where there is no such model."""
    place = {"workspace": row["workspace"], "name": row["name"]}
    link = {"model_id": model_id, "start": f'{{"name": {json.dumps(row["name"])}, "version": '}
    if call.db.dialect is Dialect.POSTGRESQL:
        at_once = sql.CREATE_AT_ONCE(keys=list(tags), values=list(tags.values()), **link, **row)
        try:
            made = await call.db.change(at_once)
        except GuardFailed:
            return None
        except Duplicate:  # another at the same moment
            pass
        else:
            return int(made[0][0])
    statements = [sql.TAG_NEW(key=key, value=value, **place) for key, value in tags.items()]
    if model_id:
        statements.append(sql.LINK_LOGGED_MODEL(**link, **place))
    _, made, *_ = await call.db.transact([sql.TOUCH_MODEL(now=row["now"], **place), sql.CREATE(**row), *statements])
    return made[0][0] if made else None


@endpoint("GET", f"{PATH}get", Right.READ, MODEL, sql.GET)
async def get_model_version(call: Call, message: messages.ModelVersionOnly) -> object:
    """SqlAlchemyStore.get_model_version."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    version = await reads.read_version(call, sql.GET(workspace=call.workspace, name=name, version=number))
    if version is None:
        raise rules.unknown_version(name, number)
    return {"model_version": version}


@endpoint("GET", f"{PATH}get-download-uri", Right.READ, ModelVersionFiles("name", "version"), sql.SOURCE)
async def get_model_version_download_uri(call: Call, message: messages.ModelVersionOnly) -> object:
    """SqlAlchemyStore.get_model_version_download_uri."""
    name = rules.model_name(message.name)
    number = rules.version(message.version, name)
    rows = await call.db.rows(sql.SOURCE(workspace=call.workspace, name=name, version=number))
    if not rows:
        raise rules.unknown_version(name, number)
    return {"artifact_uri": rows[0][0]} if rows[0][0] is not None else {}


@endpoint("GET", f"{PATH}search", Right.READ, Filtered(), sql.GET, replica=True)
async def search_model_versions(call: Call, message: messages.SearchModelVersions) -> object:
    """SqlAlchemyStore.search_model_versions; with their aliases, which stock leaves out."""
    limit = message.max_results
    if limit > MAX_SEARCHED:
        raise valid.hint("max_results", str(limit), "str")  # it is in the query
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
        await call.db.change(sql.UPDATE(description=description, now=now_ms(), **place))
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
    place, now = {"workspace": call.workspace, "name": name}, now_ms()
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
    place, now = {"workspace": call.workspace, "name": name}, now_ms()
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
    await rules.leave_to_webhooks(call, "set", "model_version_tag", "prompt_version_tag")
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
    await rules.leave_to_webhooks(call, "deleted", "model_version_tag", "prompt_version_tag")
    place = {"workspace": call.workspace, "name": name, "version": number}
    try:
        await call.db.change(sql.EXISTS(**place), sql.DELETE_TAG(key=key, **place))
    except GuardFailed:
        raise rules.unknown_version(name, number) from None
