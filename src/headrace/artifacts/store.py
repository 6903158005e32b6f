"""The contract of an artifact store. A path is relative, has no empty, `.` or `..` part, and `/` between its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from headrace.errors import ApiError


class NotThere(ApiError):
    """What was asked for is not in the store."""

    status = 404
    error_code = "RESOURCE_DOES_NOT_EXIST"


class Refused(ApiError):
    """A request that can't be done as it is."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


def no_artifact(path: str) -> NotThere:
    """What stock says of a file that is not there (LocalArtifactRepository.download_artifacts)."""
    return NotThere(f"No such artifact: '{path}'")


class IsAFolder(Refused):
    """A folder was asked for as a file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"Artifact path refers to a directory, not a file: '{path}'")


class Entry(Struct, frozen=True, gc=False):
    """A file or folder in a listing; `path` is relative to the store's root, `file_size` in bytes, None for a folder.

    MLflow's FileInfo.
    """

    path: str
    is_dir: bool
    file_size: int | None = None


class Size(Struct, frozen=True, gc=False):
    """What a folder holds, with all below it."""

    files: int = 0
    bytes: int = 0


class Download(Protocol):
    """One artifact that is there, opened."""

    size: int  # bytes
    etag: str  # with its quotes
    modified: float  # seconds since the epoch

    def read(self, start: int, end: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from `start` up to `end`. Ends early, or raises OSError, where the store breaks off."""
        ...

    async def close(self) -> None:
        """To be called once, whatever was read."""
        ...


class Upload(Protocol):
    """A place for an artifact that can be written as far as one can tell beforehand."""

    async def write(self, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Store all the bytes; `size`: how many they are, if the client said so.

        All or nothing: when `chunks` raises, or the store fails, what was there before is still there and no part
        of the new is left. Raises Unavailable, Forbidden, and what `chunks` raises.
        """
        ...


class ArtifactStore(Protocol):
    """Every method raises Declined, before it has had any effect, for what stock shall answer."""

    async def open(self, path: str) -> Download:
        """The file. Raises NotThere, and IsAFolder."""
        ...

    async def create(self, path: str) -> Upload:
        """Declined: it could not be a file of this store."""
        ...

    async def list_folder(self, path: str) -> list[Entry]:
        """What is directly in a folder, sorted by path; nothing for a folder that is not there. "": the root."""
        ...

    async def measure(self, path: str) -> Size:
        """The files below a folder, links not followed; none where it is not there. It asks for every one."""
        ...

    async def delete(self, path: str) -> None:
        """A file, or a folder with all in it; nothing happens when it is not there.

        Raises Unavailable, Forbidden, and Refused for a path that leads out of the store.
        """
        ...


@runtime_checkable
class SigningStore(ArtifactStore, Protocol):
    """A store that clients can talk to by themselves, with a URL that carries this server's signature.

    Every method raises Forbidden, NotThere, Refused and Unavailable.
    """

    async def begin_upload(self, path: str, count: int) -> tuple[str, list[str]]:
        """A multipart upload: its id, and a URL for a PUT of each of its `count` parts."""
        ...

    async def complete_upload(self, path: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make the artifact of its parts (number and ETag)."""
        ...

    async def abort_upload(self, path: str, upload_id: str) -> None:
        """Drop what was sent of it."""
        ...

    async def sign_download(self, path: str, seconds: int, content_type: str | None = None) -> tuple[str, int]:
        """A URL for a GET that is good for some seconds, and the artifact's size in bytes."""
        ...

    async def sign_upload(self, path: str, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL for a PUT that is good for some seconds, and the headers that belong to it."""
        ...
