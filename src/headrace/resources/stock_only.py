"""What stock alone answers, and what streams: declared like all else, without a handler.

A row: the method, the path, the right, on what, and the fields of the message for senders whose rights are limited
(what they send is written anew from these). On what: `kind:field` says where the message has the id (`field|other`: in
the first of them that is there; kinds joined by + must all be there, by / one of them); "-" is the whole server: no
grant reaches so far.

`POST?`: the message is in the query, as a GET's is.

`field:type` says what stock only fails at, or takes for absent, where it is something else: such a request is refused,
whoever sends it, and what goes on to stock is written anew from what was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, cast

import msgspec

from headrace.api.endpoint import Endpoint
from headrace.api.message import (
    Int32,
    LabelSchemaType,
    Message,
    Reader,
    ReviewItemType,
    ReviewQueueType,
    ReviewStatus,
    invalid,
)
from headrace.auth import objects
from headrace.auth.objects import Target
from headrace.auth.principals import Right
from headrace.resources import validation as valid
from headrace.resources.reviews.messages import SchemaInput

TABLE = """
GET    /health                                                     open      -
GET    /ready                                                      open      -
GET    /metrics                                                    read      -
GET    /version                                                    signed-in -
GET    /headrace/version                                           signed-in -
GET    /headrace/{path:path}                                       signed-in -
GET    /                                                           signed-in -
GET    /static-files/{path:path}                                   signed-in -
GET    /build/{path:path}                                          signed-in -
GET    3.0/mlflow/server-info                                      signed-in -
GET    3.0/mlflow/ui-telemetry                                     signed-in -
POST   3.0/mlflow/ui-telemetry                                     signed-in -
GET    3.0/mlflow/gateway/supported-providers                      signed-in -
GET    3.0/mlflow/gateway/supported-models                         signed-in -
GET    3.0/mlflow/gateway/provider-config                          signed-in -

POST   2.0mlflow/experiments/search-datasets                       read      -

POST   2.0/mlflow/runs/create-promptlab-run                        edit      -

GET    /get-artifact                                               read      run:run_id|run_uuid          run_id run_uuid path page_token
GET    2.0/mlflow/artifacts/list                                   read      run:run_id|run_uuid          run_id run_uuid path page_token
POST   2.0/mlflow/artifacts/presigned-upload-url                   edit      run:run_id/logged-model:model_id run_id path expiration model_id
POST   2.0/mlflow/artifacts/presigned-download-url                 read      run:run_id                   run_id path expiration
POST?  2.0/mlflow/upload-artifact                                  edit      run:run_uuid                 run_uuid path
GET    2.0/mlflow-artifacts/artifacts                              read      folder:path                  path
GET    2.0/mlflow-artifacts/artifacts/{path:path}                  read      folder:path                  path
PUT    2.0/mlflow-artifacts/artifacts/{path:path}                  edit      folder:path                  path
DELETE 2.0/mlflow-artifacts/artifacts/{path:path}                  edit      folder:path                  path
GET    2.0/mlflow-artifacts/presigned/{path:path}                  read      folder:path                  path
POST   2.0/mlflow-artifacts/mpu/create/{path:path}                 edit      folder:path                  path upload_id num_parts parts
POST   2.0/mlflow-artifacts/mpu/complete/{path:path}               edit      folder:path                  path upload_id num_parts parts
POST   2.0/mlflow-artifacts/mpu/abort/{path:path}                  edit      folder:path                  path upload_id num_parts parts

GET    2.0/mlflow/logged-models/{model_id}/artifacts/directories   read      logged-model:model_id        model_id artifact_directory_path page_token
GET    2.0/mlflow/logged-models/{model_id}/artifacts/files         read      logged-model:model_id        model_id artifact_file_path

GET    /model-versions/get-artifact                                read      version-files:name|version   name version path

GET    2.0/mlflow/unified-traces                                   read      -
GET    2.0/mlflow/get-online-trace-details                         read      -

POST   3.0/mlflow/issues                                           edit      experiment:experiment_id+source-run:source_run_id experiment_id:experiment name:text description:text status:issue-status severity:severity root_causes:texts source_run_id:text created_by:text categories:texts
POST   3.0/mlflow/issues/invoke                                    edit      -
GET    3.0/mlflow/issues/{issue_id}                                read      issue:issue_id             issue_id
PATCH  3.0/mlflow/issues/{issue_id}                                edit      issue:issue_id             issue_id name:text description:text status:issue-status severity:severity
POST   3.0/mlflow/label-schemas/create                             edit      experiment:experiment_id   experiment_id:experiment name:text type:schema-type input:schema-input instruction:text enable_comment:truth
GET    3.0/mlflow/label-schemas/get                                read      label-schema:schema_id     schema_id
GET    3.0/mlflow/label-schemas/get-by-name                        read      experiment:experiment_id   experiment_id:experiment name:text
PATCH  3.0/mlflow/label-schemas/update                             edit      label-schema:schema_id     schema_id:text name:text input:schema-input instruction:text enable_comment:truth
DELETE 3.0/mlflow/label-schemas/delete                             edit      label-schema:schema_id     schema_id
POST   3.0/mlflow/review-queues/create                             edit      experiment:experiment_id   experiment_id:experiment name:text queue_type:queue-type created_by:text users:texts schema_ids:texts
POST   3.0/mlflow/review-queues/get-or-create-user                 edit      experiment:experiment_id   experiment_id:experiment user:text created_by:text
GET    3.0/mlflow/review-queues/get                                read      review-queue:queue_id      queue_id
GET    3.0/mlflow/review-queues/get-by-name                        read      experiment:experiment_id   experiment_id:experiment name:text
POST   3.0/mlflow/review-queues/update                             edit      review-queue:queue_id      queue_id:text name:text new_owner:text update_users:truth users:texts update_schema_ids:truth schema_ids:texts
POST   3.0/mlflow/review-queues/delete                             edit      review-queue:queue_id      queue_id
POST   3.0/mlflow/review-queues/items/add                          edit      review-queue:queue_id      queue_id:text item_type:item-type item_ids:texts
POST   3.0/mlflow/review-queues/items/remove                       edit      review-queue:queue_id      queue_id:text item_ids:texts
GET    3.0/mlflow/review-queues/items/list                         read      review-queue:queue_id      queue_id:text status:review-status max_results:int32 page_token:text
POST   3.0/mlflow/review-queues/items/set-status                   edit      review-queue:queue_id      queue_id:text item_id:text status:review-status completed_by:text

POST   3.0/mlflow/scorers/register                                 edit      experiment:experiment_id   experiment_id:experiment name:text serialized_scorer:object
DELETE 3.0/mlflow/scorers/delete                                   edit      experiment:experiment_id   experiment_id:experiment name:text version:int32
POST   3.0/mlflow/scorer/invoke                                    edit      -
POST   3.0/mlflow/genai/evaluate/invoke                            edit      -
POST   3.0/mlflow/prompt-optimization/jobs                         edit      -
POST   3.0/mlflow/prompt-optimization/jobs/search                  read      experiment:experiment_id     experiment_id
GET    3.0/mlflow/prompt-optimization/jobs/search                  read      experiment:experiment_id     experiment_id
GET    3.0/mlflow/prompt-optimization/jobs/{job_id}                read      -
DELETE 3.0/mlflow/prompt-optimization/jobs/{job_id}                edit      -
POST   3.0/mlflow/prompt-optimization/jobs/{job_id}/cancel         edit      -
GET    3.0/mlflow/jobs/{job_id}                                    read      -
PATCH  3.0/mlflow/jobs/cancel/{job_id}                             edit      -
POST   3.0/jobs                                                    admin     -
POST   3.0/jobs/                                                   admin     -
POST   3.0/jobs/search                                             admin     -
GET    3.0/jobs/{job_id}                                           read      -
PATCH  3.0/jobs/cancel/{job_id}                                    edit      -
POST   3.0/mlflow/demo/generate                                    edit      -
POST   3.0/mlflow/demo/delete                                      edit      -

GET    3.0/mlflow/mcp-servers                                      read      -
POST   3.0/mlflow/mcp-servers                                      edit      -
GET    3.0/mlflow/mcp-servers/{path:path}                          read      -
POST   3.0/mlflow/mcp-servers/{path:path}                          edit      -
PATCH  3.0/mlflow/mcp-servers/{path:path}                          edit      -
DELETE 3.0/mlflow/mcp-servers/{path:path}                          edit      -


POST   2.0/mlflow/webhooks                                         admin     -
GET    2.0/mlflow/webhooks                                         admin     -
GET    2.0/mlflow/webhooks/{webhook_id}                            admin     -
PATCH  2.0/mlflow/webhooks/{webhook_id}                            admin     -
DELETE 2.0/mlflow/webhooks/{webhook_id}                            admin     -
POST   2.0/mlflow/webhooks/{webhook_id}/test                       admin     -

POST   2.0/mlflow/gateway-proxy                                    admin     -
GET    3.0/mlflow/gateway/secrets/config                           read      -
GET    3.0/mlflow/gateway/secrets/get                              admin     -
GET    3.0/mlflow/gateway/secrets/list                             admin     -
POST   3.0/mlflow/gateway/secrets/{action}                         admin     -
DELETE 3.0/mlflow/gateway/secrets/delete                           admin     -
GET    3.0/mlflow/gateway/endpoints/get                            read      -
GET    3.0/mlflow/gateway/endpoints/list                           read      -
GET    3.0/mlflow/gateway/endpoints/bindings/list                  read      -
POST   3.0/mlflow/gateway/endpoints/{action:path}                  admin     -
DELETE 3.0/mlflow/gateway/endpoints/{action:path}                  admin     -
GET    3.0/mlflow/gateway/model-definitions/get                    read      -
GET    3.0/mlflow/gateway/model-definitions/list                   read      -
POST   3.0/mlflow/gateway/model-definitions/{action}               admin     -
DELETE 3.0/mlflow/gateway/model-definitions/delete                 admin     -
GET    3.0/mlflow/gateway/budgets/{action}                         read      -
POST   3.0/mlflow/gateway/budgets/{action}                         admin     -
DELETE 3.0/mlflow/gateway/budgets/delete                           admin     -
GET    3.0/mlflow/gateway/guardrails/{action}                      read      -
POST   3.0/mlflow/gateway/guardrails/{action}                      admin     -
PATCH  3.0/mlflow/gateway/guardrails/{action}                      admin     -
DELETE 3.0/mlflow/gateway/guardrails/{action}                      admin     -
GET    /gateway/mlflow/v1/models                                   read      -
POST   /gateway/{path:path}                                        edit      -

GET    3.0/mlflow/assistant/{path:path}                            admin     -
POST   3.0/mlflow/assistant/{path:path}                            admin     -
PUT    3.0/mlflow/assistant/{path:path}                            admin     -
PATCH  3.0/mlflow/assistant/{path:path}                            admin     -
"""

_RIGHTS = {right.name.lower().replace("_", "-"): right for right in Right}
_KINDS: dict[str, type[Target]] = {
    "experiment": objects.Experiment,
    "run": objects.Run,
    "source-run": objects.SourceRun,
    "trace": objects.Trace,
    "logged-model": objects.LoggedModel,
    "model": objects.RegisteredModel,
    "review-queue": objects.ReviewQueue,
    "label-schema": objects.LabelSchema,
    "issue": objects.Issue,
    "folder": objects.ArtifactFolder,
    "source": objects.ModelSource,
    "version-files": objects.ModelVersionFiles,
}
_WITHOUT_FIELD = {
    "-": objects.NOTHING,
    "filtered": objects.Filtered(),
    "new-experiment": objects.NewExperiment(),
    "new-model": objects.NewModel(),
}


class Anything(Message, forbid_unknown_fields=False):
    """The message of an endpoint that nobody with limited rights may use: it is not looked into."""


def _experiment(value: str) -> None:
    valid.experiment_id(value)


def _object(value: str) -> None:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise invalid("serialized_scorer", value, "It is not the JSON of an object.")


# type -> its annotation, and what is looked at beside that, which raises ApiError
_TYPES: dict[str, tuple[Any, Callable[[Any], None] | None]] = {
    "": (Any, None),
    "text": (str, None),
    "texts": (list[str], None),
    "truth": (bool, None),
    "int32": (Int32, None),
    "experiment": (str, _experiment),
    "object": (str, _object),
    "issue-status": (Literal["pending", "rejected", "resolved"], None),
    "severity": (Literal["not_an_issue", "low", "medium", "high"], None),
    "schema-type": (LabelSchemaType, None),
    "schema-input": (SchemaInput, None),
    "queue-type": (ReviewQueueType, None),
    "item-type": (ReviewItemType, None),
    "review-status": (ReviewStatus, None),
}


@cache
def endpoints() -> tuple[Endpoint, ...]:
    """Those of the table; where there is a native declaration, too, that counts."""
    rows = (line.split() for line in TABLE.splitlines() if line)
    return tuple(_endpoint(*row) for row in rows)


def _endpoint(method: str, path: str, right: str, target: str, *fields: str) -> Endpoint:
    message: type[Message] = Anything
    check = None
    if fields:
        typed = {name: _TYPES[kind] for name, _, kind in (field.partition(":") for field in fields)}
        declared = [(name, annotation | None, None) for name, (annotation, _) in typed.items()]
        kind = msgspec.defstruct(f"{method} {path}", declared, bases=(Message,))
        message = cast("type[Message]", kind)
        if any(":" in field for field in fields):
            check = partial(_check, tuple((name, look) for name, (_, look) in typed.items() if look is not None))
    name, query = method.removesuffix("?"), method.endswith("?")
    return Endpoint(
        name, path, _RIGHTS[right], _target(target), message, reader=Reader(message), query=query, check=check
    )


def _check(looks: Sequence[tuple[str, Callable[[Any], None]]], message: Message) -> None:
    for name, look in looks:
        if value := getattr(message, name):
            look(value)


def _target(text: str) -> Target:
    if text in _WITHOUT_FIELD:
        return _WITHOUT_FIELD[text]
    if "+" in text:
        return objects.Both(*map(_target, text.split("+")))
    if "/" in text:
        return objects.OneOf(*map(_target, text.split("/")))
    kind, _, fields = text.partition(":")
    return _KINDS[kind](*fields.split("|"))
