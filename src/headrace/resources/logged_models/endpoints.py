"""Endpoints of logged models. Their artifacts are in artifacts/routes.py, their metrics in resources/runs.

Filters that compare `status` or `experiment_id`, and what else is not in the grammar, are left to stock.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import LOGGED_MODEL_STATUSES
from headrace.auth.objects import Both, Experiment, Filtered, LoggedModel, SourceRun
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import GuardFailed
from headrace.errors import Declined, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.logged_models import messages, search, sql, writes
from headrace.resources.logged_models.reads import info, logged_model, logged_models, unknown_model
from headrace.resources.logged_models.sql import MODEL_TABLES
from headrace.resources.runs.endpoints import check_experiment, check_models
from headrace.resources.runs.messages import KeyValue
from headrace.resources.runs.names import random_run_name

PATH = "2.0/mlflow/logged-models"
MODEL = LoggedModel("model_id")
# mlflow/utils/validation.py, _validate_logged_model_name
BAD_CHARACTERS = ("/", ":", ".", "%", '"', "'")
# the columns'
MAX_NAME, MAX_MODEL_TYPE, MAX_RUN_ID, MAX_KEY = 500, 500, 32, 255
MAX_SEARCHED = 50_000


@endpoint(
    "POST", PATH, Right.EDIT, Both(Experiment("experiment_id"), SourceRun("source_run_id")), "experiments",
    *MODEL_TABLES[:3],
)  # fmt: skip
async def create_logged_model(call: Call, message: messages.CreateLoggedModel) -> object:
    """SqlAlchemyStore.create_logged_model."""
    experiment_id = valid.experiment_id(message.experiment_id)
    write = writes.CreateModel(
        model_id=f"m-{uuid.uuid4().hex}",
        experiment_id=experiment_id,
        workspace=call.workspace,
        name=_name(message.name),
        model_type=valid.text(message.model_type, MAX_MODEL_TYPE, "model_type"),
        source_run_id=valid.text(message.source_run_id, MAX_RUN_ID, "source_run_id"),
        now=now_ms(),
        params=tuple(_distinct(message.params, "params").items()),
        tags=tuple(_distinct(message.tags, "tags").items()),
    )
    try:
        location = await call.db.submit(write)
    except Declined:
        await check_experiment(call.db, experiment_id)
        raise
    made: dict[str, object] = info(
        write.model_id, experiment_id, write.name, location, write.now, write.now, 1, write.model_type,
        write.source_run_id,
    )  # fmt: skip
    if message.tags:
        made["tags"] = message.tags
    return {"model": {"info": made, "data": {"params": message.params} if message.params else {}}}


@endpoint("GET", f"{PATH}/{{model_id}}", Right.READ, MODEL, *MODEL_TABLES)
async def get_logged_model(call: Call, message: messages.GetLoggedModel) -> object:
    """SqlAlchemyStore.get_logged_model."""
    model_id = valid.without_nul(message.model_id, "model_id")
    statement = sql.GET if message.allow_deleted.lower() == "true" else sql.GET_ACTIVE
    model = await logged_model(call.db, statement(model_id=model_id))
    if model is None:
        raise unknown_model(model_id)
    return {"model": model}


@endpoint("PATCH", f"{PATH}/{{model_id}}", Right.EDIT, MODEL, *MODEL_TABLES)
async def finalize_logged_model(call: Call, message: messages.FinalizeLoggedModel) -> object:
    """SqlAlchemyStore.finalize_logged_model."""
    model_id = valid.without_nul(message.model_id, "model_id")
    write = writes.FinalizeModel(model_id, LOGGED_MODEL_STATUSES.index(message.status), now_ms())
    try:
        row = await call.db.submit(write)
    except Declined:
        await check_models(call.db, [model_id])
        raise
    if row is not None:
        [model] = await logged_models(call.db, [row])
        return {"model": model}
    return {"model": await logged_model(call.db, sql.GET(model_id=model_id))}


@endpoint("DELETE", f"{PATH}/{{model_id}}", Right.EDIT, MODEL, sql.DELETE)
async def delete_logged_model(call: Call, message: messages.DeleteLoggedModel) -> None:
    """SqlAlchemyStore.delete_logged_model."""
    model_id = valid.without_nul(message.model_id, "model_id")
    try:
        await call.db.change(sql.DELETE(model_id=model_id, now=now_ms()))
    except GuardFailed:
        raise unknown_model(model_id) from None


@endpoint("PATCH", f"{PATH}/{{model_id}}/tags", Right.EDIT, MODEL, sql.LOCK, sql.SET_TAG)
async def set_logged_model_tags(call: Call, message: messages.SetLoggedModelTags) -> None:
    """SqlAlchemyStore.set_logged_model_tags; of a key that comes twice the last value counts."""
    model_id = valid.without_nul(message.model_id, "model_id")
    tags = dict(_pair(tag) for tag in message.tags)
    statements = (sql.SET_TAG(model_id=model_id, key=key, value=tags[key]) for key in sorted(tags))
    try:
        await call.db.change(sql.LOCK(model_id=model_id), *statements)
    except GuardFailed:
        raise unknown_model(model_id) from None


@endpoint("DELETE", f"{PATH}/{{model_id}}/tags/{{tag_key}}", Right.EDIT, MODEL, "logged_models", sql.DELETE_TAG)
async def delete_logged_model_tag(call: Call, message: messages.DeleteLoggedModelTag) -> None:
    """SqlAlchemyStore.delete_logged_model_tag."""
    model_id = valid.without_nul(message.model_id, "model_id")
    key = valid.without_nul(message.tag_key, "tag_key")
    try:
        await call.db.change(sql.DELETE_TAG(model_id=model_id, key=key))
    except GuardFailed:
        await check_models(call.db, [model_id])
        raise NotFound(f"No tag with key {key!r} found for model with ID {model_id!r}.") from None


@endpoint("POST", f"{PATH}/{{model_id}}/params", Right.EDIT, MODEL, sql.LOCK, sql.LOG_PARAM)
async def log_logged_model_params(call: Call, message: messages.LogLoggedModelParams) -> None:
    """SqlAlchemyStore.log_logged_model_params; the same once more is no error, as it is in stock."""
    model_id = valid.without_nul(message.model_id, "model_id")
    params = _distinct(message.params, "params")
    statements = (sql.LOG_PARAM(model_id=model_id, key=key, value=params[key]) for key in sorted(params))
    try:
        await call.db.change(sql.LOCK(model_id=model_id), *statements)
    except GuardFailed:
        raise unknown_model(model_id) from None
    except Declined:
        for key, old in await call.db.rows(sql.PARAMS(model_id=model_id, keys=list(params))):
            if params[key] != old:
                raise InvalidParameter(
                    f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                    f"value='{old}' for model ID='{model_id}'. Attempted logging new value '{params[key]}'."
                ) from None
        raise


@endpoint("POST", f"{PATH}/search", Right.READ, Filtered(), *MODEL_TABLES, replica=True)
async def search_logged_models(call: Call, message: messages.SearchLoggedModels) -> object:
    """SqlAlchemyStore.search_logged_models."""
    limit = message.max_results or messages.SearchLoggedModels([]).max_results
    if not 0 < limit <= MAX_SEARCHED:
        raise valid.hint("max_results", limit, "int")
    place = search.place(message)
    asked = search.Search(
        valid.experiment_ids(message.experiment_ids),
        search.parse_filter(message.filter),
        message.datasets,
        message.order_by,
        limit,
        place.offset,
        place.after,
    )
    rows = await call.db.rows(search.search(asked, call.db.dialect, call.grantees))
    models = await logged_models(call.db, rows[:limit])
    answer: dict[str, object] = {"models": models} if models else {}
    if len(rows) > limit:
        answer["next_page_token"] = search.next_token(message, place.offset + limit, search.keys_of(rows[limit - 1]))
    return answer


def _name(given: str) -> str:
    """_validate_logged_model_name; none gets one of stock's making."""
    if any(character in given for character in BAD_CHARACTERS):
        raise InvalidParameter(
            f"Invalid model name ({given!r}) provided. Model name must be a non-empty string "
            f"and cannot contain the following characters: {BAD_CHARACTERS}"
        )
    return valid.text(given, MAX_NAME, "name") if given else random_run_name()


def _pair(given: KeyValue) -> tuple[str, str]:
    return valid.text(given.key, MAX_KEY, "key"), valid.without_nul(given.value, "value")


def _distinct(given: Sequence[KeyValue], field: str) -> dict[str, str]:
    """Pairs with distinct keys. Raises InvalidParameter."""
    pairs = dict(map(_pair, given))
    if len(pairs) != len(given):
        keys = [each.key for each in given]
        again = sorted({key for key in keys if keys.count(key) > 1})
        raise InvalidParameter(f"The request has keys twice in '{field}': {again}. Send each of them once.")
    return pairs
