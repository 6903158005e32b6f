"""The messages of registered-models/*, as mlflow/protos/model_registry.proto names them."""

from __future__ import annotations

from headrace.api.message import Message
from headrace.resources.runs.messages import KeyValue


class RegisteredModelOnly(Message):
    """`GetRegisteredModel`, `DeleteRegisteredModel`."""

    name: str


class CreateRegisteredModel(Message):
    """`CreateRegisteredModel`."""

    name: str
    tags: list[KeyValue] = []
    description: str = ""
    deployment_job_id: str = ""


class UpdateRegisteredModel(Message):
    """`UpdateRegisteredModel`."""

    name: str
    description: str = ""
    deployment_job_id: str = ""


class RenameRegisteredModel(Message):
    """`RenameRegisteredModel`."""

    name: str
    new_name: str


class SearchRegisteredModels(Message):
    """`SearchRegisteredModels`."""

    filter: str = ""
    max_results: int = 100
    order_by: list[str] = []
    page_token: str = ""


class GetLatestVersions(Message):
    """`GetLatestVersions`."""

    name: str
    stages: list[str] = []


class SetRegisteredModelTag(Message):
    """`SetRegisteredModelTag`."""

    name: str
    key: str
    value: str = ""


class DeleteRegisteredModelTag(Message):
    """`DeleteRegisteredModelTag`."""

    name: str
    key: str


class Alias(Message):
    """`GetModelVersionByAlias`, `DeleteRegisteredModelAlias`."""

    name: str
    alias: str


class SetRegisteredModelAlias(Message):
    """`SetRegisteredModelAlias`."""

    name: str
    alias: str
    version: str
