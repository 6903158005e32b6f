"""The access log's lines, and ids of errors: in the answer, in the log."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from headrace.access_log import AccessLog
from headrace.asgi.responses import ERROR_ID, send_error
from headrace.asgi.types import PRINCIPAL, Message, Scope
from headrace.auth.principals import Principal, Right
from headrace.errors import InvalidParameter, Unavailable

SCOPE: Scope = {"type": "http", "method": "GET", "path": '/a\n"b', "client": ("10.0.0.7", 1), "headers": []}


def line_of(as_json: bool, capfd: pytest.CaptureFixture[str], **more: Any) -> str:
    AccessLog(as_json).write({**SCOPE, **more}, 200, 412, 0.00314, "native", "")
    out = capfd.readouterr().out
    assert out.count("\n") == 1, "no client's line break makes a line"
    return out.rstrip("\n")


def test_a_text_line(capfd: pytest.CaptureFixture[str]) -> None:
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(time + r' 10\.0\.0\.7 - "GET /a\\n\\"b" 200 412 0\.0031 native', line_of(False, capfd))
    who = Principal(user="ada b", role=Right.READ)
    assert re.fullmatch(time + r" 10\.0\.0\.7 ada\\u0020b .*", line_of(False, capfd, **{PRINCIPAL: who}))


def test_a_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    entry = json.loads(line_of(True, capfd))
    assert re.fullmatch(r"[\d-]+T[\d:]+\.\d{3}Z", entry.pop("access"))
    assert entry == {
        "client": "10.0.0.7",
        "user": "",
        "method": "GET",
        "path": '/a\n"b',
        "status": 200,
        "bytes": 412,
        "seconds": 0.00314,
        "answered_by": "native",
    }


def test_an_error_has_an_id_that_the_log_holds(caplog: pytest.LogCaptureFixture) -> None:
    started: list[Message] = []

    async def send(message: Message) -> None:
        started.append(message)

    asyncio.run(send_error(SCOPE, send, Unavailable("PostgreSQL is away.")))
    name = dict(started[0]["headers"])[ERROR_ID].decode()
    assert f"error {name}: " in caplog.text
    assert "PostgreSQL is away." in caplog.text
    asyncio.run(send_error(SCOPE, send, InvalidParameter("no")))
    assert ERROR_ID not in dict(started[2]["headers"]), "a refusal is no error of ours"
