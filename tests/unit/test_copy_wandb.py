"""The log of a W&B run: records over the borders of its blocks, an end that is missing, damage."""

from __future__ import annotations

import struct
import zlib

import pytest

from headrace.copy.wandb import records

HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32 * 1024


def log_of(contents: list[bytes]) -> bytes:
    """A log as LevelDB's documents describe it (doc/log_format.md), with W&B's header in its first block."""
    log = HEADER
    for content in contents:
        begin = True
        while begin or content:
            rest = BLOCK - len(log) % BLOCK
            if rest < 7:
                log += bytes(rest)
                rest = BLOCK
            part, content = content[: rest - 7], content[rest - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[begin, not content]
            log += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            begin = False
    return log


@pytest.mark.parametrize("size", [0, 1, BLOCK - 7 - 7 - 7, BLOCK - 7 - 7 - 3, BLOCK - 7 - 7, BLOCK, 5 * BLOCK + 3])
def test_records_of_every_size_come_back(size: int) -> None:
    contents = [b"a" * size, b"b", b"c" * size, b"d" * 100]
    assert list(records(log_of(contents))) == contents


def test_a_log_that_breaks_off_is_read_up_to_there() -> None:
    log = log_of([b"first", b"x" * (2 * BLOCK), b"last"])
    for end in (len(log) - 1, len(log) - len(b"last") - 7, BLOCK + 10, len(HEADER) + 12):
        assert list(records(log[:end])) == [b"first", b"x" * (2 * BLOCK)][: 2 if end > 2 * BLOCK else 1]
    assert list(records(log[: len(HEADER) + 3])) == []


def test_a_damaged_log_says_where() -> None:
    log = bytearray(log_of([b"first", b"second"]))
    log[-1] ^= 1
    with pytest.raises(ValueError, match="it is damaged at byte 26"):
        list(records(bytes(log)))
    with pytest.raises(ValueError, match=r"it is no \.wandb file"):
        list(records(b"anything else"))
