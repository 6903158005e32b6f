"""Endpoints that list review queues and label schemas."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

import json
import uuid
from typing import Any

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import SEE_DOCS, Int32, Message
from headrace.api.search import page_token
from headrace.api.search.page_token import PageToken
from headrace.auth.objects import Experiment
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.query import Query, Sql, Statement
from headrace.errors import Declined, InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.experiments.endpoints import must_be_there

EXPERIMENT = Experiment("experiment_id")
MAX_LISTED = 50_000
# mlflow/genai/label_schemas/validation.py
QUESTION, INSTRUCTION = "Feedback", "Share any feedback on this trace."

LABEL_SCHEMAS = Sql("""
SELECT schema_id, experiment_id, name, type, instruction, enable_comment, input_type, input_config, created_by,
  created_time, last_update_time, is_default
FROM label_schemas WHERE experiment_id = :experiment_id
ORDER BY created_time DESC, schema_id LIMIT :limit OFFSET :offset
""")
HAS_DEFAULT = Sql("SELECT 1 FROM label_schemas WHERE experiment_id = :experiment_id AND is_default")
ADD_DEFAULT = Sql("""
INSERT INTO label_schemas (schema_id, experiment_id, name, type, instruction, enable_comment, input_type, input_config,
  created_time, last_update_time, is_default)
VALUES (:schema_id, :experiment_id, :name, 'feedback', :instruction, FALSE, 'text', :config, :now, :now, TRUE)
ON CONFLICT (experiment_id, name) DO NOTHING
""")
USERS = Sql("SELECT queue_id, user_id FROM review_queue_users WHERE queue_id IN :queue_ids ORDER BY user_id")
SCHEMAS = Sql(
    "SELECT queue_id, schema_id FROM review_queue_label_schemas WHERE queue_id IN :queue_ids ORDER BY schema_id"
)


class ListLabelSchemas(Message):
    """`ListLabelSchemas`."""

    experiment_id: str
    max_results: Int32 = 100
    page_token: str = ""


class ListReviewQueues(Message):
    """`ListReviewQueues`. `user`, `item_id`: only the queues of this user, or with this trace."""

    experiment_id: str
    user: str | None = None
    max_results: Int32 = 1000
    page_token: str = ""
    item_id: str | None = None


@endpoint("GET", "3.0/mlflow/label-schemas/list", Right.READ, EXPERIMENT, LABEL_SCHEMAS, ADD_DEFAULT)
async def list_label_schemas(call: Call, message: ListLabelSchemas) -> object:
    """SqlAlchemyStore.list_label_schemas; the question that each experiment has is made where it is not there yet."""
    limit = _limit(message.max_results)
    experiment_id = await must_be_there(call, message.experiment_id)
    offset = page_token.decode(message.page_token, "").offset
    if not await call.db.rows(HAS_DEFAULT(experiment_id=experiment_id)):
        default = ADD_DEFAULT(
            schema_id=f"ls-{uuid.uuid4().hex}",
            experiment_id=experiment_id,
            name=QUESTION,
            instruction=INSTRUCTION,
            config='{"max_length": null}',
            now=now_ms(),
        )
        await call.db.transact([default])
    rows = await call.db.rows(LABEL_SCHEMAS(experiment_id=experiment_id, limit=limit + 1, offset=offset))
    return _page("label_schemas", [_label_schema(row) for row in rows], limit, offset)


@endpoint(
    "GET",
    "3.0/mlflow/review-queues/list",
    Right.READ,
    EXPERIMENT,
    "review_queues",
    "review_queue_items",
    USERS,
    SCHEMAS,
)
async def list_review_queues(call: Call, message: ListReviewQueues) -> object:
    """SqlAlchemyStore.list_review_queues."""
    limit = _limit(message.max_results)
    experiment_id = await must_be_there(call, message.experiment_id)
    offset = page_token.decode(message.page_token, "").offset
    rows = await call.db.rows(_queues(call, experiment_id, message, limit, offset))
    queues = {row["queue_id"]: _queue(row) for row in rows}
    if queues:
        found = await call.db.rows_of(USERS(queue_ids=list(queues)), SCHEMAS(queue_ids=list(queues)))
        for name, pairs in zip(("users", "schema_ids"), found, strict=True):
            for queue_id, value in pairs:
                queues[queue_id].setdefault(name, []).append(value)
    return _page("review_queues", list(queues.values()), limit, offset)


def _queues(call: Call, experiment_id: int, message: ListReviewQueues, limit: int, offset: int) -> Query:
    sql = Statement(call.db.dialect)
    where = [f"q.experiment_id = {sql.bind(experiment_id)}"]
    if message.user is not None:
        user = sql.bind(valid.without_nul(message.user, "user").strip().lower())
        where.append(f"q.queue_id IN (SELECT u.queue_id FROM review_queue_users u WHERE u.user_id = {user})")
    if message.item_id is not None:
        item = sql.bind(valid.without_nul(message.item_id, "item_id"))
        where.append(f"q.queue_id IN (SELECT i.queue_id FROM review_queue_items i WHERE i.item_id = {item})")
    return sql.query(
        "SELECT q.queue_id, q.experiment_id, q.name, q.queue_type, q.created_by, q.creation_time_ms,"
        f" q.last_update_time_ms FROM review_queues q WHERE {' AND '.join(where)}"
        f" ORDER BY q.creation_time_ms DESC, q.queue_id LIMIT {sql.bind(limit + 1)} OFFSET {sql.bind(offset)}"
    )


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidParameter(f"max_results must be between 1 and {MAX_LISTED}.{SEE_DOCS}")
    return limit


def _page(name: str, found: list[Any], limit: int, offset: int) -> object:
    token = page_token.encode(PageToken(offset + limit)) if len(found) > limit else ""
    return ({name: found[:limit]} if found else {}) | {"next_page_token": token}


def _queue(row: Any) -> dict[str, Any]:
    """ReviewQueue.to_proto."""
    queue = dict(row) | {"experiment_id": str(row["experiment_id"]), "queue_type": row["queue_type"].upper()}
    return {name: value for name, value in queue.items() if value is not None}


def _label_schema(row: Any) -> dict[str, Any]:
    """LabelSchema.to_proto."""
    try:
        config = json.loads(row["input_config"])
    except ValueError:
        raise Declined("a label schema whose input is no JSON") from None
    fields = {
        "schema_id": row["schema_id"],
        "experiment_id": str(row["experiment_id"]),
        "name": row["name"],
        "type": row["type"].upper(),
        "instruction": row["instruction"],
        "enable_comment": bool(row["enable_comment"]),
        "input": {row["input_type"]: {name: value for name, value in config.items() if value is not None}},
        "created_by": row["created_by"],
        "created_at": row["created_time"],
        "last_updated_at": row["last_update_time"],
        "is_default": bool(row["is_default"]),
    }
    return {name: value for name, value in fields.items() if value is not None}
