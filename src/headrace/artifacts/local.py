"""Artifacts in a folder of the local disk, laid out as stock's LocalArtifactRepository does it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from headrace.artifacts.paths import UPLOADING
from headrace.artifacts.store import Entry, IsAFolder, Refused, Size, no_artifact
from headrace.errors import ApiError, Declined, Forbidden, InvalidParameter, Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")
_MOST_OF_NAME, _MOST_OF_PATH = 255, 3_000  # of Linux's file systems; what is before the path must fit, too

_OF_THE_PATH = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG)

READ_BYTES = 512 * 1024
WRITE_BYTES = 1024 * 1024
# Linux's, 0 elsewhere; its name comes by way of /proc
_NAMELESS: int = getattr(os, "O_TMPFILE", 0) if os.path.isdir("/proc/self/fd") else 0


class LocalStore:
    """The files below `root`. No path leads out of it, not by a symbolic link either."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)

    async def open(self, path: str) -> LocalDownload:
        opening = _in_thread(lambda: LocalDownload(path, self._inside(path)))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)  # the thread goes on, and nobody else would
            raise

    async def create(self, path: str) -> LocalUpload:
        def check() -> LocalUpload:
            target = self._inside(path)
            if target.is_dir():
                raise InvalidParameter(f"{path[:200]!r} is a folder of artifacts already. Give the file another path.")
            if self._nearest(target.parent).is_file():
                raise InvalidParameter(f"{path[:200]!r} leads through a file, which holds no others. Use another path.")
            return LocalUpload(target)

        return await _in_thread(check)

    async def list_folder(self, path: str) -> list[Entry]:
        return await _in_thread(lambda: self._list(path))

    async def measure(self, path: str) -> Size:
        return await _in_thread(lambda: self._measure(path))

    async def delete(self, path: str) -> None:
        await _in_thread(lambda: self._delete(path))

    def _delete(self, path: str) -> None:
        """Stock deletes what a link leads to, outside of the artifacts, too. This does not."""
        check_length(path)
        folder, _, name = path.rpartition("/")
        try:
            target = self._inside(folder) / name
        except Declined as error:
            raise Refused("Invalid path") from error
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        except NotADirectoryError:
            return  # below a file there is nothing
        except OSError as error:
            raise Unavailable(f"The artifact can't be deleted: {error.strerror or error}.") from error

    def _list(self, path: str) -> list[Entry]:
        folder = self._inside(path)
        if not folder.is_dir():
            return []
        prefix = f"{path}/" if path else ""
        with os.scandir(folder) as files:
            entries = [
                Entry(prefix + file.name, True) if file.is_dir() else Entry(prefix + file.name, False, _size(file))
                for file in files
                if not file.name.startswith(UPLOADING)
            ]
        return sorted(entries, key=lambda entry: entry.path)

    def _measure(self, path: str) -> Size:
        files = total = 0
        for folder, _, names in os.walk(self._inside(path)):
            for name in names:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    total += os.lstat(os.path.join(folder, name)).st_size
                    files += 1
        return Size(files, total)

    def _inside(self, path: str) -> Path:
        """The file's place. Raises Declined where a link leads outside, InvalidParameter where no disk takes it, or a
        link leads back to itself."""
        check_length(path)
        target = Path(self._root, path)
        try:
            real = target.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            real = target.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: Python 3.11's and 3.12's word for a circle
            raise InvalidParameter(
                f"The artifact's path {path[:200]!r} leads through a link that leads back to itself, or is too long "
                "for the server's disk. Use another path."
            ) from error
        if not real.is_relative_to(Path(self._root).resolve()):
            raise Declined("a link that leads out of the artifacts")
        return real

    def _nearest(self, folder: Path) -> Path:
        """The folder, or the nearest one above it that is there."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return folder


class LocalDownload:
    """See store.Download. The ETag is that of Starlette's FileResponse, as stock sends it."""

    def __init__(self, path: str, file: Path) -> None:
        try:
            # opened without waiting: a pipe would never answer
            self._file = open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_artifact(path) from error
        except IsADirectoryError as error:
            raise IsAFolder(path) from error
        except OSError as error:
            raise Declined(f"no file to read: {error.strerror}") from error
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            self._file.close()
            raise Declined("no regular file")
        self.size = found.st_size
        self.modified = found.st_mtime
        tag = hashlib.md5(f"{found.st_mtime}-{found.st_size}".encode(), usedforsecurity=False)
        self.etag = f'"{tag.hexdigest()}"'

    async def read(self, start: int, end: int) -> AsyncIterator[bytes | memoryview]:
        while start < end:
            count = min(READ_BYTES, end - start)
            chunk: bytes | memoryview = self._in_memory(start, count)
            if chunk:
                await asyncio.sleep(0)  # a fast client is not to keep the loop to itself
            else:
                chunk = await _in_thread(partial(os.pread, self._file.fileno(), count, start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    def _in_memory(self, start: int, count: int) -> memoryview:
        """What the system has in its page cache, which needs no thread; nothing where it can't tell (Linux can)."""
        buffer = bytearray(count)
        try:
            return memoryview(buffer)[: os.preadv(self._file.fileno(), [buffer], start, os.RWF_NOWAIT)]
        except (OSError, AttributeError):
            return memoryview(b"")

    async def close(self) -> None:
        await asyncio.shield(_in_thread(self.close_now))

    def close_now(self) -> None:
        """Waits for a read that is under way."""
        self._file.close()


class LocalUpload:
    """See store.Upload: a file without a name, which the system drops if we are killed, until it takes its place.

    Where the file system has none of those, it is written beside its place under another name.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    async def write(self, chunks: AsyncIterator[bytes], size: int | None) -> None:
        try:
            file, named = await _in_thread(self._begin)
        except OSError as error:
            raise _failed(error) from error
        done = False
        try:
            await _write_all(file, chunks)
            await _in_thread(lambda: self._publish(file, named))
            done = True
        except OSError as error:
            raise _failed(error) from error
        finally:
            if not done:
                await asyncio.shield(_in_thread(lambda: _discard(file, named)))

    def _begin(self) -> tuple[BinaryIO, Path | None]:
        """The file to write to, and its name if it has one."""
        folder = self._target.parent
        folder.mkdir(parents=True, exist_ok=True)
        if _NAMELESS:
            with suppress(OSError):  # a network's file system may have none
                return open(os.open(folder, _NAMELESS | os.O_WRONLY, 0o666), "wb"), None
        part = self._beside()
        return open(part, "xb"), part

    def _beside(self) -> Path:
        return self._target.with_name(UPLOADING + secrets.token_hex(8))

    def _publish(self, file: BinaryIO, named: Path | None) -> None:
        file.flush()
        if named is None:
            named = self._beside()
            # with a src_dir_fd, whichever, Python asks for the link's target
            os.link(f"/proc/self/fd/{file.fileno()}", named, src_dir_fd=file.fileno())
        file.close()
        os.replace(named, self._target)


async def _write_all(file: BinaryIO, chunks: AsyncIterator[bytes]) -> None:
    """Write in large pieces, each while the next is received."""
    writing: asyncio.Future[None] | None = None
    piece: list[bytes] = []
    size = 0
    async for chunk in chunks:
        piece.append(chunk)
        size += len(chunk)
        if size >= WRITE_BYTES:
            if writing is not None:
                await writing
            writing = _in_thread(lambda piece=piece: file.writelines(piece))  # type: ignore[misc]
            piece, size = [], 0
    if writing is not None:
        await writing
    await _in_thread(lambda: file.writelines(piece))


def _discard(file: BinaryIO, named: Path | None) -> None:
    with suppress(OSError):  # what could not be written can't be flushed either
        file.close()
    if named is not None:
        named.unlink(missing_ok=True)


def _failed(error: OSError) -> ApiError:
    """What a client is told, and, since only who runs the server can mend it, the log."""
    reason = error.strerror or str(error)
    if error.errno in _OF_THE_PATH:  # what was another's upload meanwhile
        return InvalidParameter(f"No artifact can have this path: {reason}. Use another one.")
    logger.error("an artifact can't be written: %s", error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):  # to send it again would not help
        return Forbidden(
            f"The server may not write to its artifact folder: {reason}. Its log names the file; the folder of "
            "--artifacts-destination must belong to the user that the server runs as."
        )
    return Unavailable(f"The artifact can't be written to the server's disk: {reason}.")


def check_length(path: str) -> None:
    """Raises InvalidParameter for a path that no disk takes."""
    if longer_than_disks_take(path):
        raise InvalidParameter(
            f"The artifact's path {path[:60]!r}... has a name of more than {_MOST_OF_NAME} bytes, or more than "
            f"{_MOST_OF_PATH} in all: the server's disk does not take it. Use shorter names."
        )


def longer_than_disks_take(path: str) -> bool:
    """Whether no disk takes a path with such names."""
    encoded = path.encode(errors="surrogatepass")
    return len(encoded) > _MOST_OF_PATH or any(len(part) > _MOST_OF_NAME for part in encoded.split(b"/"))


def _size(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise Declined("a link that leads nowhere") from error


def _close(opened: asyncio.Future[LocalDownload]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close_now()


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run it in a thread of the event loop's; once it has begun it is not stopped when its awaiter is."""
    return asyncio.get_running_loop().run_in_executor(None, work)
