"""One format for every line of a server's log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from headrace import log

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ([A-Z]+) ([\w. ]+): (.*)")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    log.set_format("text")


@pytest.mark.parametrize("form", log.FORMATS)
def test_every_line_has_a_time_and_a_level(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_format(form)
    logger = logging.Logger("headrace.x")
    logger.addHandler(log.Handler())
    log.say("first")
    try:
        raise KeyError("a\nforged line")
    except KeyError:
        logger.exception("a %s", "failure")
    lines = capfd.readouterr().err.splitlines()
    if form == "json":
        entries = [json.loads(line) for line in lines]
        assert [sorted(entry) for entry in entries] == [["level", "message", "source", "time"]] * 2
        found = [(entry["level"], entry["source"], entry["message"].split("\n")[0]) for entry in entries]
        assert "Traceback" in entries[1]["message"]
    else:
        matches = [LINE.fullmatch(line) for line in lines]
        assert len(matches) > 4
        found = [match.groups() for match in matches if match is not None]  # type: ignore[misc]
        assert len(found) == len(lines)
    assert found[:2] == [("INFO", "headrace", "first"), ("ERROR", "headrace.x", "a failure")]


def test_stocks_lines_keep_their_level_and_source(capfd: pytest.CaptureFixture[str]) -> None:
    relay = log.Relay("stock")
    for line in (
        "2026/11/28 15:29:44 WARNING mlflow.store.db.utils: retried",
        "INFO:     Started",
        "ERROR:    Exception in ASGI application",
        "Traceback (most recent call last):",
        "  File x",
        "ERROR:root:bad",
        "plain",
    ):
        relay.write(line)
    matches = [LINE.fullmatch(line) for line in capfd.readouterr().err.splitlines()]
    assert [match.groups() for match in matches if match is not None] == [
        ("WARNING", "stock mlflow.store.db.utils", "retried"),
        ("INFO", "stock", "Started"),
        ("ERROR", "stock", "Exception in ASGI application"),
        ("ERROR", "stock", "Traceback (most recent call last):"),
        ("ERROR", "stock", "  File x"),
        ("ERROR", "stock root", "bad"),
        ("ERROR", "stock", "plain"),
    ]
