"""Endpoints of evaluation datasets: create, get, search, delete, tags, records, the experiments that they belong to."""

from __future__ import annotations

import base64
import json
import re
import uuid

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import invalid
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.api.search.sql import next_page, no_pattern_for_stock
from headrace.auth.objects import Both, EvaluationDataset, Experiment, FilteredInWorkspace
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import GuardFailed
from headrace.db.query import Bound, Dialect
from headrace.errors import InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.evaluation_datasets import entities, messages, search, sql
from headrace.resources.evaluation_datasets import records as its_records
from headrace.resources.evaluation_datasets.records import USER_TAG, parse_json, text
from headrace.resources.evaluation_datasets.writes import UpsertRecords
from headrace.resources.experiments.sql import IN_WORKSPACE

PATH = "3.0/mlflow/datasets/"
DATASET = EvaluationDataset("dataset_id")
EXPERIMENTS = Experiment("experiment_ids")
READS = (sql.GET, sql.TAGS)
MAX_NAME, MAX_TAG_KEY, MAX_TAG_VALUE = 255, 255, 5_000
MAX_SEARCHED = 50_000
_RECORD_PLACE = re.compile(r"(-?[0-9]{1,18}):(.*)", re.DOTALL)


@endpoint("POST", f"{PATH}create", Right.EDIT, EXPERIMENTS, sql.CREATE, sql.TAG_NEW, sql.LINK, *READS)
async def create_dataset(call: Call, message: messages.CreateDataset) -> object:
    """SqlAlchemyStore.create_dataset."""
    tags = _tags(message.tags) if message.tags else {}
    name = text(message.name, MAX_NAME, "name")
    user = tags.get(USER_TAG)
    if user is not None:
        valid.text(user, its_records.MAX_USER, f"tags['{USER_TAG}']")
    experiment_ids = _experiment_ids(message.experiment_ids)
    dataset_id, now = f"d-{uuid.uuid4().hex}", now_ms()
    create = sql.CREATE(
        dataset_id=dataset_id,
        name=name,
        digest=entities.digest(name, now),
        now=now,
        user=user,
        workspace=call.workspace,
    )
    rest = [sql.TAG_NEW(dataset_id=dataset_id, key=key, value=value) for key, value in tags.items()]
    rest += [_link(dataset_id, each, now, "a-") for each in experiment_ids]
    await call.db.change(create, *rest)
    dataset = await _dataset(call, dataset_id)
    return {"dataset": dataset | ({"experiment_ids": experiment_ids} if experiment_ids else {})}


@endpoint("GET", f"{PATH}{{dataset_id}}", Right.READ, DATASET, *READS)
async def get_dataset(call: Call, message: messages.DatasetOnly) -> object:
    """SqlAlchemyStore.get_dataset."""
    return {"dataset": await _dataset(call, _id(message.dataset_id))}


@endpoint("DELETE", f"{PATH}{{dataset_id}}", Right.EDIT, DATASET, sql.LOCK, *sql.DELETE_ALL)
async def delete_dataset(call: Call, message: messages.DatasetOnly) -> None:
    """SqlAlchemyStore.delete_dataset; one that is not there is no error."""
    dataset_id = _id(message.dataset_id)
    lock = sql.LOCK(workspace=call.workspace, dataset_id=dataset_id)
    try:
        await call.db.change(lock, *(statement(dataset_id=dataset_id) for statement in sql.DELETE_ALL))
    except GuardFailed:
        return


@endpoint("POST", f"{PATH}search", Right.READ, FilteredInWorkspace(), *READS, sql.EXPERIMENTS, replica=True)
@endpoint("GET", f"{PATH}search", Right.READ, FilteredInWorkspace(), *READS, sql.EXPERIMENTS, replica=True)
async def search_datasets(call: Call, message: messages.SearchEvaluationDatasets) -> object:
    """SqlAlchemyStore.search_datasets."""
    limit = message.max_results
    valid.max_results(limit, MAX_SEARCHED)
    with no_pattern_for_stock(call.db.dialect, message.filter_string):
        conditions = search.parse_filter(message.filter_string)
        order = search.parse_order(message.order_by)
        fingerprint = page_token.fingerprint("evaluation datasets", message.order_by)
        token = page_token.decode(message.page_token, fingerprint)
    rows = await call.db.rows(
        search.search(
            conditions,
            order,
            message.experiment_ids,
            limit,
            token.offset,
            token.after,
            call.db.dialect,
            call.workspace,
            call.grantees,
        )
    )
    datasets = await entities.with_tags(call, rows[:limit])
    answer: dict[str, object] = {"datasets": datasets} if datasets else {}
    if (after := next_page(rows, limit, sql.COLUMN_COUNT)) is not None:
        answer["next_page_token"] = page_token.encode(PageToken(token.offset + limit, after, fingerprint))
    return answer


@endpoint("PATCH", f"{PATH}{{dataset_id}}/tags", Right.EDIT, DATASET, sql.LOCK, sql.SET_TAG)
async def set_dataset_tags(call: Call, message: messages.SetDatasetTags) -> None:
    """SqlAlchemyStore.set_dataset_tags: those that are null stay as they are."""
    dataset_id = _id(message.dataset_id)
    tags = _tags(message.tags)
    lock = sql.LOCK(workspace=call.workspace, dataset_id=dataset_id)
    statements = [
        sql.SET_TAG(dataset_id=dataset_id, key=key, value=value) for key, value in tags.items() if value is not None
    ]
    try:
        await call.db.change(lock, *statements)
    except GuardFailed:
        raise NotFound(f"Could not find evaluation dataset with ID {dataset_id}") from None


@endpoint("DELETE", f"{PATH}{{dataset_id}}/tags/{{key}}", Right.EDIT, DATASET, sql.DELETE_TAG)
async def delete_dataset_tag(call: Call, message: messages.DeleteDatasetTag) -> None:
    """SqlAlchemyStore.delete_dataset_tag; one that is not there is no error."""
    key = valid.without_nul(message.key, "key")
    delete = sql.DELETE_TAG(workspace=call.workspace, dataset_id=_id(message.dataset_id), key=key)
    await call.db.transact([delete])


@endpoint("POST", f"{PATH}{{dataset_id}}/records", Right.EDIT, DATASET, sql.GET, sql.RECORDS)
async def upsert_dataset_records(call: Call, message: messages.UpsertDatasetRecords) -> object:
    """SqlAlchemyStore.upsert_dataset_records: a record with the same inputs is merged."""
    given = its_records.given(parse_json(message.records, "records", nan=call.db.dialect is Dialect.SQLITE))
    write = UpsertRecords(call.workspace, _id(message.dataset_id), tuple(given), now_ms())
    inserted, updated = await call.db.submit(write)
    return {"inserted_count": inserted, "updated_count": updated}


@endpoint("GET", f"{PATH}{{dataset_id}}/records", Right.READ, DATASET, sql.GET, sql.RECORDS)
async def get_dataset_records(call: Call, message: messages.GetDatasetRecords) -> object:
    """SqlAlchemyStore._load_dataset_records."""
    limit = message.max_results or 1000
    if limit < 1:
        raise valid.hint("max_results", limit, "int")
    place = {"workspace": call.workspace, "dataset_id": _id(message.dataset_id), "limit": limit + 1}
    rows = await call.db.rows(_records(message.page_token, place))
    page = rows[:limit]
    answer = {"records": json.dumps([its_records.rendered(row) for row in page])}
    if len(rows) > limit:
        last = f"{page[-1]['created_time']}:{page[-1]['dataset_record_id']}"
        answer["next_page_token"] = base64.b64encode(last.encode()).decode()
    return answer


@endpoint("DELETE", f"{PATH}{{dataset_id}}/records", Right.EDIT, DATASET, sql.DELETE_RECORDS, sql.RECORDS_DELETED)
async def delete_dataset_records(call: Call, message: messages.DeleteDatasetRecords) -> object:
    """SqlAlchemyStore.delete_dataset_records."""
    place = {"workspace": call.workspace, "dataset_id": _id(message.dataset_id)}
    record_ids = [valid.without_nul(each, "dataset_record_ids") for each in message.dataset_record_ids]
    _, deleted, _ = await call.db.transact(
        [sql.LOCK(**place), sql.DELETE_RECORDS(record_ids=record_ids, **place), sql.RECORDS_DELETED(**place)]
    )
    return {"deleted_count": len(deleted)}


@endpoint("GET", f"{PATH}{{dataset_id}}/experiment-ids", Right.READ, DATASET, sql.EXPERIMENTS)
async def get_dataset_experiment_ids(call: Call, message: messages.DatasetOnly) -> object:
    """SqlAlchemyStore.get_dataset_experiment_ids."""
    rows = await call.db.rows(sql.EXPERIMENTS(workspace=call.workspace, dataset_id=_id(message.dataset_id)))
    return {"experiment_ids": [row[0] for row in rows]} if rows else {}


@endpoint(
    "POST", f"{PATH}{{dataset_id}}/add-experiments", Right.EDIT, Both(DATASET, EXPERIMENTS),
    sql.TOUCH, sql.LINK, IN_WORKSPACE, *READS,
)  # fmt: skip
async def add_dataset_to_experiments(call: Call, message: messages.DatasetExperiments) -> object:
    """SqlAlchemyStore.add_dataset_to_experiments."""
    dataset_id = _id(message.dataset_id)
    place = {"workspace": call.workspace, "dataset_id": dataset_id}
    experiment_ids = _experiment_ids(message.experiment_ids)
    numbers = [int(each) for each in experiment_ids if re.fullmatch(r"[0-9]{1,9}", each)]
    found, known = await call.db.rows_of(
        sql.GET(**place), IN_WORKSPACE(workspace=call.workspace, experiment_ids=numbers)
    )
    if not found:
        raise _unknown(dataset_id)
    there = {str(row[0]) for row in known}
    for each in experiment_ids:
        if each not in there:
            raise NotFound(f"No Experiment with id={each}")
    return await _change_experiments(call, dataset_id, [_link(dataset_id, each, now_ms()) for each in experiment_ids])


@endpoint(
    "POST", f"{PATH}{{dataset_id}}/remove-experiments", Right.EDIT, Both(DATASET, EXPERIMENTS),
    sql.TOUCH, sql.UNLINK, *READS,
)  # fmt: skip
async def remove_dataset_from_experiments(call: Call, message: messages.DatasetExperiments) -> object:
    """SqlAlchemyStore.remove_dataset_from_experiments: where it is in none of them, nothing is changed."""
    dataset_id = _id(message.dataset_id)
    experiment_ids = _experiment_ids(message.experiment_ids)
    linked = await call.db.rows(sql.EXPERIMENTS(workspace=call.workspace, dataset_id=dataset_id))
    if not {row[0] for row in linked}.intersection(experiment_ids):
        found = await call.db.rows(sql.GET(workspace=call.workspace, dataset_id=dataset_id))
        if not found:
            raise _unknown(dataset_id)
        return {"dataset": (await entities.with_tags(call, found))[0]}
    return await _change_experiments(
        call, dataset_id, [sql.UNLINK(dataset_id=dataset_id, experiment_ids=experiment_ids)]
    )


async def _change_experiments(call: Call, dataset_id: str, statements: list[Bound]) -> object:
    try:
        touch = sql.TOUCH(workspace=call.workspace, dataset_id=dataset_id, now=now_ms())
        await call.db.change(touch, *statements)
    except GuardFailed:
        raise _unknown(dataset_id) from None
    return {"dataset": await _dataset(call, dataset_id)}


async def _dataset(call: Call, dataset_id: str) -> dict[str, object]:
    """Raises NotFound."""
    rows = await call.db.rows(sql.GET(workspace=call.workspace, dataset_id=dataset_id))
    if not rows:
        raise entities.unknown(dataset_id)
    return (await entities.with_tags(call, rows))[0]


def _records(token: str, place: dict[str, object]) -> Bound:
    """The records of a page and one more. Raises InvalidParameter for what is no token."""
    if not token:
        return sql.RECORDS(offset=0, **place)
    try:
        match = _RECORD_PLACE.fullmatch(base64.b64decode(token.encode("ascii"), validate=True).decode())
    except ValueError:
        match = None
    if match is not None and "\0" not in match[2]:
        return sql.RECORDS_AFTER(time=int(match[1]), record_id=match[2], **place)
    if re.fullmatch(r"[0-9]{1,9}", token):
        return sql.RECORDS(offset=int(token), **place)
    raise invalid("page_token", token, "It is not one that this server gave.")


def _tags(given: str) -> dict[str, str | None]:
    """Raises InvalidParameter."""
    tags = parse_json(given, "tags", nan=True)
    if not isinstance(tags, dict):
        raise InvalidParameter("'tags' must be a JSON object.")
    return {
        text(key, MAX_TAG_KEY, "tags"): None if value is None else text(value, MAX_TAG_VALUE, f"tags['{key}']")
        for key, value in tags.items()
    }


def _experiment_ids(given: list[str]) -> list[str]:
    """Each once. Raises InvalidParameter."""
    return list(dict.fromkeys(valid.text(each, its_records.MAX_ID, "experiment_ids") for each in given))


def _link(dataset_id: str, experiment_id: str, now: int, prefix: str = "") -> Bound:
    return sql.LINK(
        association_id=f"{prefix}{uuid.uuid4().hex}", dataset_id=dataset_id, experiment_id=experiment_id, now=now
    )


def _unknown(dataset_id: str) -> NotFound:
    return NotFound(f"Dataset '{dataset_id}' not found")


def _id(given: str) -> str:
    return valid.without_nul(given, "dataset_id")
