"""Artifacts from one place to another: streamed, several at a time, each read back and compared by its SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from headrace.artifacts.locations import Locations
from headrace.artifacts.store import ArtifactStore, Download
from headrace.copy.parallel import tasks
from headrace.copy.report import Report
from headrace.copy.served import ServedStore
from headrace.errors import Declined, Unavailable
from headrace.settings import Settings

if TYPE_CHECKING:
    from hashlib import _Hash

FILES_AT_ONCE = 8


class Place:
    """A server's artifacts: what `mlflow-artifacts:` means, and the folders that are below a URI.

    `server`: the URL that gives them, where `destination` is not said.
    """

    def __init__(self, destination: str | None, server: str | None = None) -> None:
        self.destination, self._server = destination, server
        self._locations = Locations(Settings(artifacts_destination=destination or ""))
        self._folders: dict[str, frozenset[str]] = {}

    def find(self, uri: str) -> tuple[ArtifactStore, str]:
        """The store and the path in it. Raises Declined for what Headrace does not read."""
        if uri.startswith("mlflow-artifacts:") and not self.destination:
            if self._server is not None:
                return ServedStore(uri, self._server), ""
            raise Declined("it is not said where that server keeps its artifacts")
        return self._locations.find(_plain(uri))

    def absolute(self, uri: str) -> str:
        """One text for one place."""
        uri = _plain(uri).rstrip("/")
        if uri.startswith("mlflow-artifacts:/"):
            root = self.destination or self._server or ""
            uri = f"{root.rstrip('/')}/{uri.removeprefix('mlflow-artifacts:/').strip('/')}"
        return uri if "://" in uri else os.path.abspath(uri)

    async def has(self, uri: str, own: str) -> bool:
        """Whether there is a folder `own` in the URI's path, by one look at the folder above it for all in there."""
        above, found, _ = f"{uri.rstrip('/')}/".partition(f"/{own}/")
        if not found:
            return True
        if above not in self._folders:
            store, path = self.find(above or "/")
            listed = await store.list_folder(path)
            self._folders[above] = frozenset(each.path.rpartition("/")[2] for each in listed if each.is_dir)
        return own in self._folders[above]


class Files:
    """Copies what a run, a model or a trace has. `dry`: only counts."""

    def __init__(self, source: Place, target: Place, report: Report, dry: bool) -> None:
        self._source, self._target, self._report, self._dry = source, target, report, dry
        self._slots = asyncio.Semaphore(FILES_AT_ONCE)

    async def copy(self, own: str, source_uri: str, target_uri: str) -> None:
        """What is below the first to below the second: files that are not there, or not as large.

        `own`: the id of whose files they are. Raises Declined where Headrace can't read or write one of the places,
        Unavailable where a store fails or a file came out different.
        """
        if self._source.absolute(source_uri) == self._target.absolute(target_uri):
            return
        source, path = self._source.find(source_uri)
        target, target_path = self._target.find(target_uri)
        if not await self._source.has(source_uri, own):
            return
        async with tasks() as group:
            await self._folder(group, source, path, target, target_path)

    async def _folder(
        self, group: asyncio.TaskGroup, source: ArtifactStore, path: str, target: ArtifactStore, target_path: str
    ) -> None:
        entries = await source.list_folder(path)
        if not entries:
            return
        there = {each.path.rpartition("/")[2]: each.file_size for each in await target.list_folder(target_path)}
        for each in entries:
            name = each.path.rpartition("/")[2]
            below = f"{target_path}/{name}" if target_path else name
            if each.is_dir:
                await self._folder(group, source, each.path, target, below)
            elif there.get(name) != each.file_size:
                group.create_task(self._file(source, each.path, each.file_size or 0, target, below))

    async def _file(self, source: ArtifactStore, path: str, size: int, target: ArtifactStore, target_path: str) -> None:
        async with self._slots:
            if not self._dry:
                read = await source.open(path)
                try:
                    sent = hashlib.sha256()
                    upload = await target.create(target_path)
                    await upload.write(_hashed(read, sent), read.size)
                finally:
                    await read.close()
                if await _sum(await target.open(target_path)) != sent.digest():
                    raise Unavailable(f"{target_path} is not at the target what it is at the source.")
            self._report.files += 1
            self._report.bytes += size


async def _hashed(read: Download, into: _Hash) -> AsyncIterator[bytes]:
    count = 0
    async for piece in read.read(0, read.size):
        into.update(piece)
        count += len(piece)
        yield bytes(piece)
    if count != read.size:
        raise Unavailable("The source's store broke off.")


async def _sum(download: Download) -> bytes:
    found = hashlib.sha256()
    try:
        async for piece in download.read(0, download.size):
            found.update(piece)
    finally:
        await download.close()
    return found.digest()


def _plain(uri: str) -> str:
    """A `file:` URI as the path that it means."""
    if not uri.startswith("file:"):
        return uri
    return unquote(urlsplit(uri).path)
