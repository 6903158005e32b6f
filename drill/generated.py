"""Requests for every endpoint that is declared, with every kind of value where the message has a field."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

from msgspec import inspect

from headrace.resources import all_endpoints
from headrace.settings import Settings

ODD: tuple[Any, ...] = (
    "", "0", "1", "-1", "a", "latest", "None", "null", "true", "é\u202e\U0001f600", "\0", "\ud800", " ", "a" * 5000,
    "../..", "%2e%2e/", "#?;&=", "'; DROP TABLE runs; --", "metrics.`m` > 1", "metrics.m >", "tags.x LIKE '%'",
    "params.a = 'b' AND tags.c != 'd'", "attributes.start_time > 9e999", "name ILIKE '%%' OR 1=1", "0" * 32,
    "m-" + "0" * 32,
    "models:/a/1", "runs:/b/c", "s3://bucket/../x", "1e400", "NaN", "Infinity", "9" * 40,
    0, 1, -1, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**40, 0.5, 1e308, -0.0,
    True, False, None, [], {}, [[]], [None], {"a": None}, ["x"] * 200, {"key": "k", "value": "v"},
)  # fmt: skip
RAW = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"a":' * 3000,
    b"NaN",
    b'{"run_id":"a","run_id":"b"}',
    b"{}" * 2,
)
# they make many rows, wait for the network or start programs
LEFT_OUT = ("demo/", "assistant", "gateway", "webhooks", "invoke")


class Generator:
    """The same seed makes the same requests."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._endpoints = [
            each for each in all_endpoints(Settings()) if not any(part in each.path for part in LEFT_OUT)
        ]

    def request(self) -> tuple[str, str, dict[str, Any], bytes | None]:
        """Method, path, message, and a body in its stead where that is no message."""
        chance = self._chance
        endpoint = chance.choice(self._endpoints)
        kind = inspect.type_info(endpoint.message)
        fields = kind.fields if isinstance(kind, inspect.StructType) else ()
        message = {
            field.encode_name: self._value(field.type, 3) for field in fields if field.required or chance.random() < 0.5
        }
        if chance.random() < 0.05:
            message[chance.choice(["runId", "unknown", ""])] = chance.choice(ODD)
        path = endpoint.path if endpoint.path.startswith("/") else f"/api/{endpoint.path}"
        while "{" in path:
            before, _, rest = path.partition("{")
            path = (
                before + quote(str(chance.choice(ODD[:30])).encode(errors="replace"), safe="") + rest.partition("}")[2]
            )
        raw = chance.choice(RAW) if chance.random() < 0.05 else None
        if endpoint.method == "GET":
            message = {key: _in_a_query(value) for key, value in message.items()}
        return endpoint.method, path, message, raw

    def _value(self, kind: inspect.Type, depth: int) -> Any:
        chance = self._chance
        if depth == 0 or chance.random() < 0.3:
            return chance.choice(ODD)
        if isinstance(kind, inspect.Metadata):
            return self._value(kind.type, depth)
        if isinstance(kind, inspect.UnionType):
            return self._value(chance.choice(kind.types), depth)
        if isinstance(kind, inspect.IntType):
            return chance.choice([0, 1, 5, 1000, 1_700_000_000_000])
        if isinstance(kind, inspect.FloatType):
            return chance.random()
        if isinstance(kind, inspect.BoolType):
            return chance.random() < 0.5
        if isinstance(kind, inspect.LiteralType):
            return chance.choice(kind.values)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            return [self._value(kind.item_type, depth - 1) for _ in range(chance.randrange(4))]
        if isinstance(kind, inspect.StructType):
            return {field.encode_name: self._value(field.type, depth - 1) for field in kind.fields}
        if isinstance(kind, inspect.DictType):
            return {"k": self._value(kind.value_type, depth - 1)}
        return chance.choice(["0", "1", "a", "name", "0" * 32])


def _in_a_query(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_a_query(each) for each in value]
    return str(value).encode(errors="replace").decode()
