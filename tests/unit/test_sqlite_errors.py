"""What SQLite's errors are told as."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from headrace.db.sqlite import translate
from headrace.errors import Unavailable


def test_a_file_that_another_holds(tmp_path: Path) -> None:
    """A person at a command line reads it, too: it speaks of no request."""
    file = tmp_path / "held.db"
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as holder,
        closing(sqlite3.connect(file, timeout=0)) as other,
    ):
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError) as refused:
            other.execute("CREATE TABLE made (a)")
    told = translate(refused.value)
    assert isinstance(told, Unavailable)
    assert str(told) == "Another process holds SQLite's file, and has not let go of it. Try again in a moment."
