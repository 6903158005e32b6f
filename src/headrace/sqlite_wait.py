"""A connection to a SQLite file of which a command says that it waits, and for what."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

logger = logging.getLogger(__name__)

SAID_AFTER = 1.5  # seconds


def say_that_it_waits(path: str) -> None:
    """In the log, which for a command is the standard error."""
    logger.warning("waiting for another process, which holds %s", path)


class TellingConnection(sqlite3.Connection):
    """Waits `busy_seconds` for others, as any connection; where it comes to more than SAID_AFTER it says so, once."""

    def __init__(self, file: str, path: str, busy_seconds: float, **options: Any) -> None:
        first = min(SAID_AFTER, busy_seconds)
        super().__init__(file, timeout=first, **options)
        self._path = path
        self._rest = busy_seconds - first

    def execute(self, *statement: Any) -> sqlite3.Cursor:
        """As its base. What SQLite calls busy has not begun: it may be sent again."""
        try:
            return super().execute(*statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or self._rest <= 0:
                raise
        say_that_it_waits(self._path)
        super().execute(f"PRAGMA busy_timeout = {1000 * self._rest:.0f}")
        self._rest = 0
        return super().execute(*statement)
