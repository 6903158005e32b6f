"""Artifacts that the disk does not take: a clear refusal, and a line in the log where only its owner can mend it."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.artifacts import local
from headrace.errors import Forbidden, InvalidParameter, Unavailable


async def chunks() -> AsyncIterator[bytes]:
    yield b"content"


@pytest.mark.parametrize("path", ["a" * 256, "\u00e9" * 128, "b/" + "a" * 5_000, "ab/" * 1_001, "\u00e9/" * 1_001])
async def test_names_that_are_too_long(tmp_path: Path, path: str) -> None:
    store = local.LocalStore(str(tmp_path))
    for work in (store.create(path), store.delete(path), store.list_folder(path)):
        with pytest.raises(InvalidParameter, match="Use shorter names"):
            await work


async def test_the_longest_name(tmp_path: Path) -> None:
    store = local.LocalStore(str(tmp_path))
    name = "a" * 255
    upload = await store.create(name)
    await upload.write(chunks(), None)
    assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EACCES, Forbidden), (errno.EROFS, Forbidden), (errno.ENOSPC, Unavailable)]
)
async def test_a_disk_that_can_not_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    expected: type[Exception],
) -> None:
    """The error is put in the place of the system's: tests run as root, who may write everywhere."""

    def begin(_: local.LocalUpload) -> None:
        raise OSError(number, "no", "/folder/file")

    monkeypatch.setattr(local.LocalUpload, "_begin", begin)
    upload = await local.LocalStore(str(tmp_path)).create("file")
    with caplog.at_level(logging.ERROR), pytest.raises(expected):
        await upload.write(chunks(), None)
    assert "/folder/file" in caplog.text
