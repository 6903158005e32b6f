"""Endpoints of registered models and their aliases; prompts are registered models with a tag.

Where webhooks are turned on, what fires one that waits for it is left to stock.
"""

from __future__ import annotations

from headrace.api.endpoint import Call, Note, endpoint
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.auth.access import forget_grants
from headrace.auth.objects import Filtered, NewModel, RegisteredModel, model_key
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import Duplicate, GuardFailed
from headrace.db.own_tables import NEXT_VERSION
from headrace.db.query import Runnable
from headrace.errors import AlreadyExists, Declined, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.model_versions import sql as version_sql
from headrace.resources.registered_models import messages, reads, search, sql
from headrace.resources.registered_models import validation as rules

MODEL = RegisteredModel("name")
READS = (sql.GET, version_sql.LATEST_OF_STAGES)
MAX_SEARCHED = 1_000
PATH = "2.0/mlflow/registered-models/"


def _owned(call: Call, name: str) -> list[Runnable]:
    """What makes a new model its maker's, and nobody else's."""
    if call.sender is None:
        return []
    key, owner = model_key(call.workspace, name), f"user:{call.sender.user}"
    return [sql.DROP_GRANTS(key=key), sql.GRANT_NEW(grantee=owner, key=key), NEXT_VERSION()]


async def _made_by_stock(call: Call, message: messages.CreateRegisteredModel) -> Note:
    async def note(_: bytes) -> None:
        if statements := _owned(call, message.name):
            await call.db.transact(statements)
            forget_grants()

    return note


@endpoint("POST", f"{PATH}create", Right.EDIT, NewModel(), sql.CREATE, *READS, noted=_made_by_stock)
async def create_registered_model(call: Call, message: messages.CreateRegisteredModel) -> object:
    """SqlAlchemyStore.create_registered_model; whoever sees only what is granted owns it, and nobody else."""
    name = rules.model_name(message.name)
    tags = rules.tags(message.tags)
    description = valid.text(message.description, rules.MAX_DESCRIPTION, "description")
    await rules.leave_to_webhooks(call, "created", "registered_model", "prompt")
    place, now = {"workspace": call.workspace, "name": name}, now_ms()
    statements = [sql.TAG_NEW(key=key, value=value, **place) for key, value in tags.items()]
    try:
        await call.db.change(sql.CREATE(now=now, description=description, **place), *statements, *_owned(call, name))
    except Duplicate:
        raise await _name_taken(call, name, rules.is_prompt(tags)) from None
    forget_grants()
    return {"registered_model": await reads.registered_model(call, name)}


@endpoint("GET", f"{PATH}get", Right.READ, MODEL, *READS)
async def get_registered_model(call: Call, message: messages.RegisteredModelOnly) -> object:
    """SqlAlchemyStore.get_registered_model."""
    name = rules.model_name(message.name)
    model = await reads.registered_model(call, name)
    if model is None:
        raise rules.unknown_model(name)
    return {"registered_model": model}


@endpoint("GET", f"{PATH}search", Right.READ, Filtered(), *READS, replica=True)
async def search_registered_models(call: Call, message: messages.SearchRegisteredModels) -> object:
    """SqlAlchemyStore.search_registered_models."""
    limit = message.max_results
    if limit > MAX_SEARCHED:
        raise valid.hint("max_results", str(limit), "str")  # it is in the query
    if limit < 1:
        raise Declined("stock words it")
    conditions = search.parse_filter(message.filter, search.MODELS)
    order = search.parse_order(message.order_by, search.MODELS)
    offset = page_token.decode(message.page_token, "").offset
    rows = await call.db.rows(
        search.search(search.MODELS, conditions, order, limit, offset, call.db.dialect, call.workspace, call.grantees)
    )
    models = await reads.registered_models(call, rows[:limit])
    answer: dict[str, object] = {"registered_models": models} if models else {}
    if len(rows) > limit:
        answer["next_page_token"] = page_token.encode(PageToken(offset + limit))
    return answer


@endpoint("PATCH", f"{PATH}update", Right.EDIT, MODEL, sql.UPDATE, *READS)
async def update_registered_model(call: Call, message: messages.UpdateRegisteredModel) -> object:
    """SqlAlchemyStore.update_registered_model."""
    name = rules.model_name(message.name)
    description = valid.text(message.description, rules.MAX_DESCRIPTION, "description")
    try:
        await call.db.change(sql.UPDATE(workspace=call.workspace, name=name, description=description, now=now_ms()))
    except GuardFailed:
        raise rules.unknown_model(name) from None
    return {"registered_model": await reads.registered_model(call, name)}


@endpoint("POST", f"{PATH}rename", Right.MANAGE, MODEL, sql.RENAME, sql.TOUCH_VERSIONS, *READS)
async def rename_registered_model(call: Call, message: messages.RenameRegisteredModel) -> object:
    """SqlAlchemyStore.rename_registered_model; its grants go with it."""
    new_name, name = rules.model_name(message.new_name, "new_name"), rules.model_name(message.name)
    now = now_ms()
    statements = [sql.TOUCH_VERSIONS(workspace=call.workspace, new_name=new_name, now=now)]
    if call.settings.protected:
        key, new_key = model_key(call.workspace, name), model_key(call.workspace, new_name)
        statements += [sql.DROP_GRANTS(key=new_key), sql.MOVE_GRANTS(key=key, new_key=new_key), NEXT_VERSION()]
    try:
        await call.db.change(sql.RENAME(workspace=call.workspace, name=name, new_name=new_name, now=now), *statements)
    except Duplicate:  # stock adds the database's own words
        raise AlreadyExists(f"Registered Model (name={new_name}) already exists.") from None
    except GuardFailed:
        raise rules.unknown_model(name) from None
    forget_grants()
    return {"registered_model": await reads.registered_model(call, new_name)}


@endpoint("DELETE", f"{PATH}delete", Right.MANAGE, MODEL, *sql.DELETE_ALL)
async def delete_registered_model(call: Call, message: messages.RegisteredModelOnly) -> None:
    """SqlAlchemyStore.delete_registered_model; nobody's grants are left for the next one of that name."""
    name = rules.model_name(message.name)
    place = {"workspace": call.workspace, "name": name}
    statements = [statement(**place) for statement in sql.DELETE_ALL]
    if call.settings.protected:
        statements += [sql.DROP_GRANTS(key=model_key(call.workspace, name)), NEXT_VERSION()]
    try:
        await call.db.change(sql.LOCK(**place), *statements)
    except GuardFailed:
        raise rules.unknown_model(name) from None
    forget_grants()


@endpoint("POST", f"{PATH}get-latest-versions", Right.READ, MODEL, *READS)
@endpoint("GET", f"{PATH}get-latest-versions", Right.READ, MODEL, *READS)
async def get_latest_versions(call: Call, message: messages.GetLatestVersions) -> object:
    """SqlAlchemyStore.get_latest_versions."""
    name = rules.model_name(message.name)
    stages = {rules.stage(stage) for stage in message.stages or rules.STAGES}
    models, rows = await call.db.rows_of(
        sql.GET(workspace=call.workspace, name=name),
        version_sql.LATEST_OF_STAGES(workspace=call.workspace, names=[name]),
    )
    if not models:
        raise rules.unknown_model(name)
    versions = [version for version in map(reads.model_version, rows) if version["current_stage"] in stages]
    return {"model_versions": versions} if versions else {}


@endpoint("POST", f"{PATH}set-tag", Right.EDIT, MODEL, sql.SET_TAG)
async def set_registered_model_tag(call: Call, message: messages.SetRegisteredModelTag) -> None:
    """SqlAlchemyStore.set_registered_model_tag."""
    name = rules.model_name(message.name)
    key, value = rules.tag(message.key, message.value)
    await rules.leave_to_webhooks(call, "set", "prompt_tag")
    try:
        await call.db.change(sql.SET_TAG(workspace=call.workspace, name=name, key=key, value=value))
    except GuardFailed:
        raise rules.unknown_model(name) from None


@endpoint("DELETE", f"{PATH}delete-tag", Right.EDIT, MODEL, sql.LOCK, sql.DELETE_TAG)
async def delete_registered_model_tag(call: Call, message: messages.DeleteRegisteredModelTag) -> None:
    """SqlAlchemyStore.delete_registered_model_tag; one that is not there is no error."""
    name, key = rules.model_name(message.name), valid.key(message.key)
    await rules.leave_to_webhooks(call, "deleted", "prompt_tag")
    place = {"workspace": call.workspace, "name": name}
    try:
        await call.db.change(sql.LOCK(**place), sql.DELETE_TAG(key=key, **place))
    except GuardFailed:
        raise rules.unknown_model(name) from None


async def _moved(call: Call, message: messages.SetRegisteredModelAlias) -> Note:
    """Notes that the alias is another version's, if it is, for the handler and for stock."""
    place = {"workspace": call.workspace, "name": message.name, "alias": message.alias}
    version, before = int(message.version), await call.db.rows(version_sql.ALIAS(**place))

    async def note(_: bytes) -> None:
        if not before or before[0][0] != version:
            await call.events.alias_moved(version=version, at=now_ms(), **place)

    return note


@endpoint("POST", f"{PATH}alias", Right.EDIT, MODEL, version_sql.SET_ALIAS, noted=_moved)
async def set_registered_model_alias(call: Call, message: messages.SetRegisteredModelAlias) -> None:
    """SqlAlchemyStore.set_registered_model_alias."""
    name, alias = rules.model_name(message.name), rules.alias(message.alias, reserved=True)
    version = rules.version(message.version, name)
    await rules.leave_to_webhooks(call, "created", "model_version_alias", "prompt_alias")
    place = {"workspace": call.workspace, "name": name, "alias": alias}
    note = await _moved(call, message) if call.events.by_kind else None
    try:
        await call.db.change(version_sql.SET_ALIAS(version=version, **place))
    except GuardFailed:
        raise rules.unknown_version(name, version) from None
    if note is not None:
        await note(b"")


@endpoint("DELETE", f"{PATH}alias", Right.EDIT, MODEL, sql.LOCK, sql.DELETE_ALIAS)
async def delete_registered_model_alias(call: Call, message: messages.Alias) -> None:
    """SqlAlchemyStore.delete_registered_model_alias; one that is not there is no error."""
    name, alias = rules.model_name(message.name), rules.alias(message.alias)
    await rules.leave_to_webhooks(call, "deleted", "model_version_alias", "prompt_alias")
    place = {"workspace": call.workspace, "name": name}
    try:
        await call.db.change(sql.LOCK(**place), sql.DELETE_ALIAS(alias=alias, **place))
    except GuardFailed:
        raise rules.unknown_model(name) from None


@endpoint("GET", f"{PATH}alias", Right.READ, MODEL, version_sql.GET_BY_ALIAS, version_sql.ALIAS, sql.GET)
async def get_model_version_by_alias(call: Call, message: messages.Alias) -> object:
    """SqlAlchemyStore.get_model_version_by_alias."""
    name, alias = rules.model_name(message.name), rules.alias(message.alias)
    place = {"workspace": call.workspace, "name": name}
    latest = alias.lower() == "latest"
    statement = version_sql.LATEST(**place) if latest else version_sql.GET_BY_ALIAS(alias=alias, **place)
    version = await reads.read_version(call, statement)
    if version is not None:
        return {"model_version": version}
    models, aliases = await call.db.rows_of(sql.GET(**place), version_sql.ALIAS(alias=alias, **place))
    if not models:
        raise rules.unknown_model(name)
    if latest:
        raise NotFound(f"Latest version not found for model {name}.")
    if aliases:
        raise rules.unknown_version(name, aliases[0][0])
    raise InvalidParameter(f"Registered model alias {alias} not found.")


async def _name_taken(call: Call, name: str, by_prompt: bool) -> AlreadyExists:
    """handle_resource_already_exist_error."""
    tags = await call.db.rows(sql.TAGS(workspace=call.workspace, names=[name]))
    is_prompt = rules.is_prompt({key: value or "" for _, key, value in tags})
    old, new = ("Prompt" if prompt else "Registered Model" for prompt in (is_prompt, by_prompt))
    if old != new:
        return AlreadyExists(
            f"Tried to create a {new.lower()} with name {name!r}, but the name is already taken by a {old.lower()}. "
            "MLflow does not allow creating a model and a prompt with the same name."
        )
    return AlreadyExists(f"{new} (name={name}) already exists.")
