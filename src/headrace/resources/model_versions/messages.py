"""The messages of model-versions/*, as mlflow/protos/model_registry.proto names them."""

from __future__ import annotations

from headrace.api.message import Message
from headrace.resources.runs.messages import KeyValue


class ModelVersionOnly(Message):
    """`GetModelVersion`, `DeleteModelVersion`, `GetModelVersionDownloadUri`."""

    name: str
    version: str


class CreateModelVersion(Message):
    """`CreateModelVersion`."""

    name: str
    source: str
    run_id: str | None = None
    tags: list[KeyValue] = []
    run_link: str = ""
    description: str = ""
    model_id: str | None = None


class UpdateModelVersion(Message):
    """`UpdateModelVersion`."""

    name: str
    version: str
    description: str | None = None


class TransitionModelVersionStage(Message):
    """`TransitionModelVersionStage`."""

    name: str
    version: str
    stage: str
    archive_existing_versions: bool = False


class SetModelVersionTag(Message):
    """`SetModelVersionTag`."""

    name: str
    version: str
    key: str
    value: str = ""


class DeleteModelVersionTag(Message):
    """`DeleteModelVersionTag`."""

    name: str
    version: str
    key: str


class SearchModelVersions(Message):
    """`SearchModelVersions`."""

    filter: str = ""
    max_results: int = 200_000
    order_by: list[str] = []
    page_token: str = ""
