"""How deeply JSON is nested, found without reading it."""

from __future__ import annotations

import json

import pytest

from headrace.api.decode import MAX_DEPTH, check_nesting
from headrace.errors import InvalidParameter


def nested(depth: int, pair: str = "[]") -> bytes:
    return b'{"a":' + pair[0].encode() * (depth - 1) + pair[1].encode() * (depth - 1) + b"}"


@pytest.mark.parametrize("padding", [0, 2**20])
async def test_the_depth_of_a_body(padding: int) -> None:
    blanks = b" " * padding
    await check_nesting(nested(MAX_DEPTH) + blanks)
    with pytest.raises(InvalidParameter, match=f"{MAX_DEPTH + 1} deep"):
        await check_nesting(nested(MAX_DEPTH + 1) + blanks)


@pytest.mark.parametrize(
    "value",
    ["[" * 500, '\\"' + "{" * 500, "\\" * 3 + '"' + "[" * 500, '"' * 7 + "[" * 500, [[]] * 500],
)
async def test_brackets_in_texts_and_beside_each_other_do_not_count(value: object) -> None:
    await check_nesting(json.dumps({"a": value, "b": [value]}).encode())


@pytest.mark.parametrize("body", [b"", b"\x0a\x80" + b"[" * 500, b"-" + b"[" * 500])
async def test_what_is_no_json_is_left_to_whom_it_is_for(body: bytes) -> None:
    await check_nesting(body)
