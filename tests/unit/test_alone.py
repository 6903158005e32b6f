"""What a test does to this process is undone for the next one (tests/conftest.py)."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import mlflow
import pytest

MARK = "HEADRACE_LEFT_BY_A_TEST"


def look() -> tuple[object, ...]:
    os.umask(mask := os.umask(0o022))
    return (
        *(os.environ.get(MARK), os.environ.get("HOME"), Path.cwd(), mask, [*sys.path], socket.getdefaulttimeout()),
        *(signal.getsignal(signal.SIGHUP), mlflow.tracking._tracking_service.utils._tracking_uri),
    )


FOUND = look()


@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_is_left(turn: int, tmp_path: Path) -> None:
    assert look() == FOUND
    os.environ[MARK] = "1"
    del os.environ["HOME"]
    os.chdir(tmp_path)
    os.umask(0o077)
    sys.path.append(str(tmp_path))
    socket.setdefaulttimeout(1)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mlflow.set_tracking_uri("http://127.0.0.1:1")
