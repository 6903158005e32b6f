"""Where a run's, a model's or the server's artifacts are: from their URI to a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from headrace.artifacts.local import LocalStore
from headrace.artifacts.paths import plain
from headrace.artifacts.s3 import Buckets, S3Store
from headrace.artifacts.store import ArtifactStore
from headrace.errors import Declined
from headrace.settings import Settings
from headrace.uri import scheme_of


class Place(NamedTuple):
    """A folder of files that are one run's, model's or experiment's alone."""

    store: ArtifactStore
    path: str


class Locations:
    """The stores that this server reaches natively."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._destination_uri = settings.artifacts_destination
        self._serve_artifacts = settings.serve_artifacts
        self._buckets = Buckets(environment)

    def destination(self) -> ArtifactStore:
        """The store of --artifacts-destination. Raises Declined."""
        if not self._serve_artifacts:
            raise Declined("artifacts don't pass through this server")
        if not scheme_of(self._destination_uri):
            return LocalStore(_unquoted(self._destination_uri))
        return self._at(self._destination_uri)

    def find(self, uri: str) -> tuple[ArtifactStore, str]:
        """The store of a run's or model version's artifact URI, and its path in there ("" is the root itself).

        Raises Declined. Source: handlers._is_servable_proxied_run_artifact_root and
        _get_proxied_run_artifact_destination_path.
        """
        if not uri.startswith("mlflow-artifacts:"):
            return self._at(uri), ""
        parts = urlsplit(_unquoted(uri))
        if parts.netloc or parts.query or parts.fragment:
            raise Declined("artifacts that another server has")
        path = parts.path.strip("/")
        return self.destination(), plain(path) if path else ""

    def own_folder(self, uri: str | None, own: str) -> Place:
        """The folder in `uri` that is named `own`, which holds nothing of others.

        Raises Declined where there is none, or where stock alone reaches.
        """
        before, found, _ = f"{(uri or '').rstrip('/')}/".partition(f"/{own}/")
        if not found:
            raise Declined(f"its files are at {uri or 'no place'}, which is not a folder of its own")
        try:
            store, path = self.find(before or "/")
        except Declined as reason:
            raise Declined(f"its files are at {uri}: {reason}") from None
        return Place(store, f"{path}/{own}" if path else own)

    def _at(self, uri: str) -> ArtifactStore:
        parts = urlsplit(_unquoted(uri))
        if parts.query or parts.fragment:
            raise Declined("a URI with a query or a fragment")
        if parts.scheme == "s3" and parts.netloc:
            if "//" in parts.path:  # keys with an empty part, which obstore can't say
                raise Declined("a doubled slash in the bucket's URI")
            prefix = parts.path.strip("/")
            return S3Store(self._buckets.get(parts.netloc), plain(prefix) if prefix else "")
        if parts.scheme in ("", "file") and not parts.netloc and parts.path.startswith("/"):
            return LocalStore(parts.path)
        raise Declined(f"no native store for {parts.scheme or 'a relative path'}")


def _unquoted(uri: str) -> str:
    """The URI, if there is nothing in it that would have to be decoded, how often whoever reads it thinks."""
    if "%" in uri or "\\" in uri:
        raise Declined("a quoted URI")
    return uri
