"""The model registry, as far as a run's page asks for it; everything else of it is stock's."""

from __future__ import annotations

import re

from headrace import wire
from headrace.api.query import fields
from headrace.db.base import Store
from headrace.errors import Declined

_OF_A_RUN = re.compile(r"run_id ?= ?'([0-9a-f]{32})'")
# More would have pages, and stock's tokens.
_MOST = 100


async def search_model_versions(store: Store, body: bytes, query: bytes) -> bytes:
    """GET model-versions/search?filter=run_id='...' (SqlAlchemyStore.search_model_versions)."""
    found = _OF_A_RUN.fullmatch(fields(body, query, {"filter"})["filter"][0])
    if found is None:
        raise Declined("another search than that for a run's model versions")
    versions = await store.model_versions([found[1]])
    if len(versions) > _MOST:
        raise Declined("more model versions than a run's page has")
    return wire.encode({"model_versions": versions} if versions else {})
