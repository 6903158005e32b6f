"""Requests for every endpoint that is declared, with every kind of value where the message has a field."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote

import requests
from msgspec import inspect

from headrace.api.endpoint import Endpoint
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
PIECES = (
    *"aZ09 _-.,:;/\\|'\"`%()[]{}<>=!&#?*@\t\n\r\0\x7f\u00e4\u0301\u200b\ufffd\ud800\U0001f600",
    *("..", "//", " AND ", " LIKE ", " IN (", "metrics.", "params.`", "tags.", "attributes.", "run_id", "mlflow."),
    *("models:/", "s3://", "file://", "%00", "\\u0000"),
)
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


def things(url: str) -> dict[str, str]:
    """One of each kind of object, made on a server: the name of a field that says which -> its id."""
    session, name = requests.Session(), uuid.uuid4().hex

    def made(path: str, message: dict[str, Any]) -> Any:
        answer = session.post(f"{url}/api/{path}", json=message, timeout=60)
        answer.raise_for_status()
        return answer.json()

    experiment = made("2.0/mlflow/experiments/create", {"name": name})["experiment_id"]
    of_it = {"experiment_id": experiment}
    run = made("2.0/mlflow/runs/create", of_it)["run"]["info"]["run_id"]
    points = [{"key": "m", "value": step, "timestamp": step, "step": step} for step in range(3)]
    batch = {"metrics": points, "params": [{"key": "p", "value": "v"}], "tags": [{"key": "t", "value": "v"}]}
    made("2.0/mlflow/runs/log-batch", {"run_id": run, **batch})
    made("2.0/mlflow/registered-models/create", {"name": name})
    made("2.0/mlflow/model-versions/create", {"name": name, "source": f"runs:/{run}/m", "run_id": run})
    model = made("2.0/mlflow/logged-models", {**of_it, "name": "m", "source_run_id": run})["model"]["info"]["model_id"]
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": of_it}
    trace = {
        "trace_id": f"tr-{name}", "trace_location": place, "request_time": "2026-01-01T00:00:00Z", "state": "OK",
        "execution_duration": "1s", "tags": {"a": "b"},
    }  # fmt: skip
    made("3.0/mlflow/traces", {"trace": {"trace_info": trace}})
    assessed = {
        "assessment_name": "good", "trace_id": f"tr-{name}", "feedback": {"value": True},
        "source": {"source_type": "HUMAN", "source_id": "me"},
    }  # fmt: skip
    found = made(f"3.0/mlflow/traces/tr-{name}/assessments", {"assessment": assessed})["assessment"]["assessment_id"]
    dataset = made("3.0/mlflow/datasets/create", {"name": name, "experiment_ids": [experiment]})["dataset"][
        "dataset_id"
    ]
    made(f"3.0/mlflow/datasets/{dataset}/records", {"records": json.dumps([{"inputs": {"a": 1}}])})
    return {
        "run_id": run, "run_uuid": run, "run_ids": run, "source_run_id": run, "experiment_id": experiment,
        "experiment_ids": experiment, "model_id": model, "trace_id": f"tr-{name}", "trace_ids": f"tr-{name}",
        "request_id": f"tr-{name}", "request_ids": f"tr-{name}", "assessment_id": found, "dataset_id": dataset,
        "name": name, "version": "1", "path": f"{experiment}/{run}/artifacts/a",
    }  # fmt: skip


@cache
def _endpoints() -> list[tuple[Endpoint, tuple[inspect.Field, ...]]]:
    """Each with the fields of its message: to look them up takes five times as long as to fill them."""
    found = []
    for each in all_endpoints(Settings()):
        if not any(part in each.path for part in LEFT_OUT):
            kind = inspect.type_info(each.message)
            found.append((each, kind.fields if isinstance(kind, inspect.StructType) else ()))
    return found


class Generator:
    """The same seed makes the same requests. `known`: `things`, which half of the requests name."""

    def __init__(self, seed: str, known: Mapping[str, str]) -> None:
        self._chance, self._known = random.Random(seed), known
        self._endpoints = _endpoints()
        self._weights = [1 + len(fields) for _, fields in self._endpoints]  # without fields they soon are the same

    def request(self) -> tuple[str, str, dict[str, Any], bytes | None]:
        """Method, path, message, and a body in its stead where that is no message."""
        chance = self._chance
        endpoint, fields = chance.choices(self._endpoints, self._weights)[0]
        message = {
            field.encode_name: self._field(field, 3) for field in fields if field.required or chance.random() < 0.5
        }
        if chance.random() < 0.05:
            message[chance.choice(["runId", "unknown", ""])] = chance.choice(ODD)
        path = endpoint.path if endpoint.path.startswith("/") else f"/api/{endpoint.path}"
        while "{" in path:
            before, _, rest = path.partition("{")
            name, _, rest = rest.partition("}")
            known = self._known.get(name.partition(":")[0])
            value = known if known and chance.random() < 0.7 else str(chance.choice(ODD[:30]))
            path = before + quote(value.encode(errors="replace"), safe="") + rest
        raw = chance.choice(RAW) if chance.random() < 0.05 else None
        if endpoint.method == "GET":
            message = {key: _in_a_query(value) for key, value in message.items()}
        return endpoint.method, path, message, raw

    def _field(self, field: inspect.Field, depth: int) -> Any:
        known = self._known.get(field.name)
        if known is None or self._chance.random() < 0.3:
            return self._value(field.type, depth)
        return [known] if field.name.endswith("_ids") else known

    def _value(self, kind: inspect.Type, depth: int) -> Any:
        chance = self._chance
        if depth == 0 or chance.random() < 0.3:
            return chance.choice(ODD) if chance.random() < 0.7 else self._drawn()
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
            return {field.encode_name: self._field(field, depth - 1) for field in kind.fields}
        if isinstance(kind, inspect.DictType):
            return {"k": self._value(kind.value_type, depth - 1)}
        return chance.choice(["0", "1", "a", "name", "0" * 32])

    def _drawn(self) -> Any:
        """Odd values that nobody has thought of: numbers of every size, texts of odd characters and pieces."""
        chance = self._chance
        if chance.random() < 0.4:
            number = chance.getrandbits(chance.randrange(1, 80)) * chance.choice([1, -1])
            return number if chance.random() < 0.7 else number / 1000
        return "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 8)))


def _in_a_query(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_a_query(each) for each in value]
    return str(value).encode(errors="replace").decode()
