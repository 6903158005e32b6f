"""Endpoints of model versions."""

from __future__ import annotations

import re

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import Message
from headrace.auth.objects import Filtered
from headrace.auth.principals import Right
from headrace.errors import Declined
from headrace.resources.model_versions import reads

_OF_A_RUN = re.compile(r"run_id ?= ?'([0-9a-f]{32})'")
# More would have pages, and stock's tokens.
_MOST = 100


class SearchModelVersions(Message):
    """`SearchModelVersions`."""

    filter: str = ""
    max_results: int = 200_000
    order_by: list[str] = []
    page_token: str = ""


@endpoint("GET", "2.0/mlflow/model-versions/search", Right.READ, Filtered(), "model_versions", "model_version_tags")
async def search_model_versions(call: Call, message: SearchModelVersions) -> object:
    """SqlAlchemyStore.search_model_versions."""
    match = _OF_A_RUN.fullmatch(message.filter)
    if match is None or message.order_by or message.page_token:
        raise Declined("another search than that for a run's model versions")
    versions = await reads.of_runs(call.db, call.workspace, [match[1]], call.grantees)
    if len(versions) > _MOST:
        raise Declined("more model versions than a run's page has")
    return {"model_versions": versions} if versions else {}
