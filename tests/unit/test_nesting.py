"""What stock would only fail at does not reach it: JSON that is nested too deeply, and what no database can hold."""

from __future__ import annotations

import json

import pytest

from headrace.api.decode import MAX_DEPTH, check_for_stock
from headrace.errors import InvalidParameter


async def check(body: bytes, query: bytes = b"", path: bytes = b"/a") -> None:
    await check_for_stock({"raw_path": path, "query_string": query}, body)


def nested(depth: int, pair: str = "[]") -> bytes:
    return b'{"a":' + pair[0].encode() * (depth - 1) + pair[1].encode() * (depth - 1) + b"}"


@pytest.mark.parametrize("padding", [0, 2**20])
async def test_the_depth_of_a_body(padding: int) -> None:
    blanks = b" " * padding
    await check(nested(MAX_DEPTH) + blanks)
    with pytest.raises(InvalidParameter, match=f"{MAX_DEPTH + 1} deep"):
        await check(nested(MAX_DEPTH + 1) + blanks)


@pytest.mark.parametrize(
    "value",
    [
        *("[" * 500, "NaN", "Infinity", "1e999", "0" * 400, "\\u0000", "\U0001f600"),
        *('\\"' + "{" * 500, "\\" * 3 + '"' + "[" * 500, '"' * 7 + "[" * 500, [[]] * 500),
    ],
)
async def test_brackets_in_texts_and_beside_each_other_do_not_count(value: object) -> None:
    await check(json.dumps({"a": value, "b": [value]}).encode())


@pytest.mark.parametrize("body", [b"", b"\x0a\x80" + b"[" * 500, b"-" + b"[" * 500])
async def test_what_is_no_json_is_left_to_whom_it_is_for(body: bytes) -> None:
    await check(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\\u0000"}',
        b'{"a": [{"\\u0000": 1}]}',
        b'{"a": "\\\\\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\uDC00\\ud800"}',
        b'{"a": 1e999}',
        b'{"a": -1E+400}',
        b'{"a": ' + b"9" * 310 + b".0}",
        b'{"a": NaN}',
        b'{"a": [-Infinity]}',
        b" " * 200 + b'{"a": NaN}',
        json.dumps('{"a": NaN}').encode(),
        json.dumps(nested(MAX_DEPTH + 1).decode()).encode(),
        '{"a": "\\u0000"}'.encode("utf-16"),
        '{"a": "\\u0000"}'.encode("utf-32-be"),
        b" " * 200 + nested(MAX_DEPTH + 1),
        b'{"a": "' + b"x" * 2**20 + b'\\u0000"}',
    ],
)
async def test_what_no_database_can_hold(body: bytes) -> None:
    with pytest.raises(InvalidParameter):
        await check(body)


@pytest.mark.parametrize("where", ["query", "path"])
async def test_a_nul_in_an_address(where: str) -> None:
    with pytest.raises(InvalidParameter, match="NUL"):
        await check(b"", **{where: b"run_id=a%00"})


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\U0001f600", "\\\\u0000", "a%00"])
async def test_what_only_looks_like_it(text: str) -> None:
    await check(json.dumps({"a": text, text: [1e308]}).encode())
