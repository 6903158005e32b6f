"""Artifacts behind an MLflow server, read by MLflow's own client."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from headrace.artifacts.local import LocalDownload
from headrace.artifacts.store import Entry, Size, Upload
from headrace.errors import Declined, Unavailable

T = TypeVar("T")


class ServedStore:
    """What is below an `mlflow-artifacts:` URI of the server. See ArtifactStore, of which it only reads."""

    def __init__(self, uri: str, server: str) -> None:
        self._uri, self._server = uri, server

    @cached_property
    def _repository(self) -> Any:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._uri, tracking_uri=self._server)

    async def list_folder(self, path: str) -> list[Entry]:
        found = await self._in_thread(lambda: self._repository.list_artifacts(path or None))
        return [Entry(each.path, each.is_dir, each.file_size) for each in found]

    async def open(self, path: str) -> ServedDownload:
        folder = tempfile.mkdtemp(prefix="headrace-copy-")
        try:
            await self._in_thread(lambda: self._repository.download_artifacts(path, folder))
            return ServedDownload(Path(folder), Path(folder, path))
        except BaseException:
            shutil.rmtree(folder)
            raise

    async def create(self, path: str) -> Upload:
        raise Declined("a server is only read")

    async def measure(self, path: str) -> Size:
        raise Declined("a server is only read")

    async def delete(self, path: str) -> None:
        raise Declined("a server is only read")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            return await asyncio.to_thread(work)
        except (MlflowException, RequestException, OSError) as error:
            raise Unavailable(f"{self._server} does not give {self._uri}: {' '.join(str(error).split())}") from error


class ServedDownload(LocalDownload):
    """A file that was fetched into a folder of its own, which goes with it."""

    def __init__(self, folder: Path, file: Path) -> None:
        super().__init__(file.name, file)
        self._folder = folder

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(shutil.rmtree, self._folder)
