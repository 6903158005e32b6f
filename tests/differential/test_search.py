"""runs/search over HTTP: requests, limits and page tokens, as stock answers them on the same database."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.differential.reading import Readers

SEARCH = "runs/search"


NATIVE: list[dict[str, Any]] = [
    {},
    {"experiment_ids": []},
    {"experiment_ids": ["0"]},
    {"experiment_ids": ["2", "1", "1", "99999"]},
    {"experiment_ids": ["0", "1"], "run_view_type": "ALL", "max_results": 50_000},
    {"experiment_ids": ["0", "1"], "run_view_type": "DELETED_ONLY"},
    {"experiment_ids": ["0"], "filter": "metrics.m > 0 AND params.p != 'a'", "order_by": ["metrics.m DESC"]},
    {"experiment_ids": ["0"], "filter": "tags.mlflow.user = ''", "order_by": ["params.p", "tags.t DESC"]},
    {"experiment_ids": ["0", "1"], "filter": "dataset.name = 'train' and dataset.context = 'eval'"},
    {"experiment_ids": ["0"], "filter": "run_id IN ('x')", "page_token": ""},
    {"experiment_ids": ["0"], "filter": "params.`a'; DROP TABLE runs; --` = 'x'"},
    {"experiment_ids": ["0"], "filter": 'params.p = "\'; DROP TABLE runs; --"'},
    {"experiment_ids": ["0"], "filter": f"params.p LIKE '{'%a' * 6_000}b' AND tags.t ILIKE '{'%_' * 6_000}b'"},
    {"experiment_ids": ["0"], "filter": f"params.p != '{'x' * 90_000}'"},
]

DECLINED: list[dict[str, Any]] = [
    {"experiment_ids": ["x"]},
    {"experiment_ids": [0]},
    {"experiment_ids": "0"},
    {"experiment_ids": ["0"], "max_results": 0},
    {"experiment_ids": ["0"], "max_results": -1},
    {"experiment_ids": ["0"], "max_results": 50_001},
    {"experiment_ids": ["0"], "max_results": 10**12},
    {"experiment_ids": ["0"], "max_results": "7"},
    {"experiment_ids": ["0"], "max_results": "many"},
    {"experiment_ids": ["0"], "filter": "metrics.m > 'x'"},
    {"experiment_ids": ["0"], "filter": "params.p = 'unbalanced"},
    {"experiment_ids": ["0"], "filter": 7},
    {"experiment_ids": ["0"], "filter": f"params.p = '{'x' * 100_000}'"},
    {"experiment_ids": ["0"], "filter": "run_id IN (" + ", ".join(["'x'"] * 20_000) + ")"},
    {"experiment_ids": ["0"], "filter": "(" * 5_000 + "params.p = 'x'" + ")" * 5_000},
    {"experiment_ids": ["0"], "filter": " AND ".join(["metrics.m > 0"] * 10_000)},
    {"experiment_ids": ["0"], "order_by": ["metrics.m UP"]},
    {"experiment_ids": ["0"], "order_by": "metrics.m"},
    {"experiment_ids": ["0"], "order_by": [7]},
    {"experiment_ids": ["0"], "run_view_type": "NONE"},
    {"experiment_ids": ["0"], "run_view_type": 2},
    {"experiment_ids": ["0"], "page_token": "nonsense"},
    {"experiment_ids": ["0"], "page_token": base64.b64encode(b"[]x").decode()},
    {"experiment_ids": ["0"], "page_token": base64.b64encode(b'{"offset": 0}').decode()},
    {"experiment_ids": ["0"], "page_token": base64.b64encode(b'{"offset": "3"}').decode()},
    {"experiment_ids": ["0"], "unknown": 1},
]


def test_names_of_old_runs(readers: Readers) -> None:
    found = readers.compare(SEARCH, {"experiment_ids": ["0", "1"], "filter": "start_time > 1000"})
    old = {run["info"]["start_time"] % 10: run["info"]["run_id"] for run in found["runs"]}
    shown = [readers.compare("runs/get", {"run_id": old[kind]}, "get")["run"]["info"] for kind in (1, 2, 6, 7)]
    assert [info.get("run_name") for info in shown[:2]] == ["", None]
    assert all(info["run_name"] for info in shown[2:])


@pytest.mark.parametrize("body", NATIVE, ids=lambda body: str(body)[:60])
def test_native(readers: Readers, body: dict[str, Any]) -> None:
    readers.compare(SEARCH, body)


@pytest.mark.parametrize("body", DECLINED, ids=lambda body: str(body)[:60])
def test_declined(readers: Readers, body: dict[str, Any]) -> None:
    readers.compare(SEARCH, body, native=None)


WANTED = {"experiment_ids": ["0", "1"], "order_by": ["metrics.m DESC", "params.p"], "max_results": 7}


def pages(readers: Readers, *servers: str) -> list[list[dict[str, Any]]]:
    """All pages of WANTED, from the servers in turn: each goes on from the other's token."""
    found, token, number = [], "", 0
    while True:
        answer = readers.post(servers[number % len(servers)], SEARCH, WANTED | {"page_token": token})
        assert answer.status == 200, answer
        found.append(answer.body["runs"])
        token = answer.body.get("next_page_token")
        number += 1
        if token is None:
            return found


def test_pages(readers: Readers) -> None:
    expected = pages(readers, "stock")
    assert len(expected) > 3
    assert pages(readers, "headrace") == expected


def test_each_server_goes_on_from_the_other_one(readers: Readers) -> None:
    assert pages(readers, "headrace", "stock") == pages(readers, "stock")


def test_a_token_of_another_order_is_refused(readers: Readers) -> None:
    """Its keys fit no other order. The filter may change: the UI's has the time in it."""
    token = readers.post("headrace", SEARCH, WANTED).body["next_page_token"]
    changes: list[dict[str, Any]] = [
        {"order_by": ["metrics.m DESC"]},
        {"order_by": []},
    ]
    for change in changes:
        answer = readers.post("headrace", SEARCH, WANTED | change | {"page_token": token})
        assert (answer.status, answer.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert readers.post("headrace", SEARCH, WANTED | {"page_token": token, "max_results": 3}).status == 200


@pytest.mark.parametrize(
    "after", [[], [0], [0, 1, "a", 5, 7], ["x", 1, "a", 5, "id"], [0, 2**70, "a", 5, "id"], [True] * 5]
)
def test_a_tampered_token_is_refused(readers: Readers, after: list[Any]) -> None:
    token = json.loads(base64.b64decode(readers.post("headrace", SEARCH, WANTED).body["next_page_token"]))
    tampered = base64.b64encode(json.dumps(token | {"after": after}).encode()).decode()
    answer = readers.post("headrace", SEARCH, WANTED | {"page_token": tampered})
    assert (answer.status, answer.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer


def test_too_many_conditions_are_refused_at_once(readers: Readers) -> None:
    body = {"experiment_ids": ["0"], "filter": " AND ".join(["metrics.m > 0"] * 500)}
    answer = readers.post("headrace", SEARCH, body)
    assert (answer.status, answer.body["error_code"], answer.native) == (400, "INVALID_PARAMETER_VALUE", True)


def test_many_conditions_are_answered(readers: Readers) -> None:
    body = {"experiment_ids": ["0"], "filter": " AND ".join(["params.p IS NULL", *["tags.t != 'q'"] * 150])}
    assert readers.post("headrace", SEARCH, body).status == 200
