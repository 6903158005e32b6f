"""Short words for the requests of the log path; the tables of cases are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tests.differential.harness import RUN, Case, Request


class Absent:
    """A field that the body leaves out."""


ABSENT = Absent()
By = Literal["native", "stock", "any"]


def cases(by: By, table: Mapping[str, Request | list[Request]]) -> list[Case]:
    """A table of cases: what it is -> the request, or the requests one after the other."""
    return [
        Case(name, tuple(requests) if isinstance(requests, list) else (requests,), by)
        for name, requests in table.items()
    ]


def post(endpoint: str, **fields: Any) -> Request:
    return Request(endpoint, {k: v for k, v in fields.items() if v is not ABSENT})


def get_run(run_id: str = RUN) -> Request:
    return Request("runs/get", method="GET", query=f"?run_id={run_id}", headers={})


def create(**fields: Any) -> Request:
    return post("runs/create", **{"experiment_id": "0", "start_time": 5} | fields)


def update(**fields: Any) -> Request:
    return post("runs/update", **{"run_id": RUN} | fields)


def log_metric(value: Any = 1.5, **fields: Any) -> Request:
    return post("runs/log-metric", **{"run_id": RUN, "key": "m", "value": value, "timestamp": 10} | fields)


def log_param(value: Any = "v", **fields: Any) -> Request:
    return post("runs/log-parameter", **{"run_id": RUN, "key": "p", "value": value} | fields)


def set_tag(value: Any = "v", **fields: Any) -> Request:
    return post("runs/set-tag", **{"run_id": RUN, "key": "t", "value": value} | fields)


def delete_tag(key: Any = "t", **fields: Any) -> Request:
    return post("runs/delete-tag", **{"run_id": RUN, "key": key} | fields)


def log_batch(**fields: Any) -> Request:
    return post("runs/log-batch", **{"run_id": RUN} | fields)


def metric(key: Any = "m", value: Any = 1.5, timestamp: Any = 10, step: Any = 0, **more: Any) -> dict[str, Any]:
    entity = {"key": key, "value": value, "timestamp": timestamp, "step": step} | more
    return {k: v for k, v in entity.items() if v is not ABSENT}


def pairs(**entities: Any) -> list[dict[str, Any]]:
    """Params or tags: key=value."""
    return [{"key": k, "value": v} for k, v in entities.items()]


def many(count: int, value: str = "v") -> list[dict[str, str]]:
    return [{"key": f"k{number}", "value": value} for number in range(count)]


DELETE_RUN = post("runs/delete", run_id=RUN)
