"""The log of a server: one format for every line, whoever writes it, on the standard error.

    2026-11-28T12:00:00.123Z INFO headrace: MLflow is on http://localhost:5000

or, with --log-format json, an object with `time`, `level`, `source` and `message`. What has several lines, such as a
traceback, has all of them so in text, and is one object in JSON. (The access log and the audit log are for programs and
on the standard output; access_log.py, api/audit.py.)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from datetime import UTC, datetime

FORMATS = ("text", "json")
_form = "text"
# The beginnings that stock's lines have: MLflow's own, uvicorn's, Python's logging by default.
_STOCKS = (
    re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) (?P<source>[\w.]+): (?P<text>.*)"),
    re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL): +(?P<text>.*)"),
    re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):(?P<source>[\w.]+):(?P<text>.*)"),
)


def set_format(form: str) -> None:
    """For all that this process writes from now on; one of FORMATS."""
    global _form
    _form = form


def is_json() -> bool:
    """Whether a program reads it."""
    return _form == "json"


def say(text: str, level: str = "INFO", source: str = "headrace") -> None:
    """Write a line, or what has several."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if _form == "json":
        entry = {"time": now, "level": level, "source": source, "message": text}
        written = json.dumps(entry, separators=(",", ":")) + "\n"
    else:
        written = "".join(f"{now} {level} {source}: {line}\n" for line in text.split("\n"))
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, written.encode(errors="backslashreplace"))


class Relay:
    """What another program prints, as lines of ours: with the level and the source that it gives them.

    A line without a beginning of its own belongs to the one before (a traceback) and has its level.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._level = "INFO"

    def write(self, line: str) -> None:
        """One line, without its end."""
        for pattern in _STOCKS:
            if (found := pattern.fullmatch(line)) is not None:
                parts = found.groupdict()
                self._level = parts["level"]
                source = f"{self._source} {parts['source']}" if parts.get("source") else self._source
                say(parts["text"], self._level, source)
                return
        if line.startswith("Traceback "):
            self._level = "ERROR"
        say(line, self._level, self._source)


class Handler(logging.Handler):
    """For Python's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, its traceback too."""
        say(self.format(record), record.levelname, record.name)
