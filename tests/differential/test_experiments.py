"""experiments/get, get-by-name and search: as stock answers them on the same database."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.differential.reading import Readers
from tests.differential.search_data import EXPERIMENTS

SEARCH = "experiments/search"


@pytest.mark.parametrize("experiment_id", ["0", "1", "2", "3", "5"])
def test_get(readers: Readers, experiment_id: str) -> None:
    readers.compare("experiments/get", {"experiment_id": experiment_id}, "get")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"experiment_id": ""},
        {"experiment_id": "x"},
        {"experiment_id": "99"},
        {"experiment_id": "-1"},
        {"experiment_id": "9999999999999"},
        {"experiment_id": ["0", "1"]},
        {"experiment_id": "0", "more": "x"},
    ],
    ids=str,
)
def test_get_declined(readers: Readers, query: dict[str, Any]) -> None:
    readers.compare("experiments/get", query, "get", native=None)


@pytest.mark.parametrize("name", ["Default", *EXPERIMENTS])
def test_get_by_name(readers: Readers, name: str) -> None:
    readers.compare("experiments/get-by-name", {"experiment_name": name}, "get")


@pytest.mark.parametrize("name", ["", "nobody", "default", "%", "x" * 1000])
def test_get_by_name_declined(readers: Readers, name: str) -> None:
    readers.compare("experiments/get-by-name", {"experiment_name": name}, "get", native=None)


FILTERS = [
    "",
    "name = 'Default'",
    "name LIKE '%a%'",
    "name ILIKE 'a%' AND tags.t IS NULL",
    "attribute.name ILIKE 'ZO%'",
    "name LIKE 'a\\_b'",
    "tags.t = 'a'",
    "tags.`it s` != '' AND tag.mlflow.user IS NOT NULL",
    "experiment_id IN ('0', '3', '99')",
    "experiment_id != '0' AND creation_time > 0",
    "last_update_time < 99999999999999",
]
ORDERS: list[list[str]] = [
    [],
    ["name"],
    ["name DESC", "name"],
    ["creation_time", "experiment_id"],
    ["experiment_id DESC", "name"],
    ["last_update_time DESC"],
]


@pytest.mark.parametrize("view_type", ["ACTIVE_ONLY", "DELETED_ONLY", "ALL"])
@pytest.mark.parametrize("text", FILTERS)
def test_search(readers: Readers, text: str, view_type: str) -> None:
    readers.compare(SEARCH, {"max_results": 100, "filter": text, "view_type": view_type})


def pages(readers: Readers, body: dict[str, Any], *servers: str) -> list[Any]:
    """All pages, from the servers in turn: each goes on from the other's token."""
    found, token, number = [], "", 0
    while True:
        answer = readers.post(servers[number % len(servers)], SEARCH, body | {"page_token": token})
        assert answer.status == 200, answer
        assert answer.native == (servers[number % len(servers)] == "headrace")
        found.append(answer.body["experiments"])
        token = answer.body.get("next_page_token")
        number += 1
        if token is None:
            return found


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_search_in_order_and_pages(readers: Readers, order_by: list[str]) -> None:
    body: dict[str, Any] = {"max_results": 2, "order_by": order_by, "view_type": "ALL"}
    expected = pages(readers, body, "stock")
    assert len(expected) > 2
    assert pages(readers, body, "headrace") == expected
    assert pages(readers, body, "headrace", "stock") == expected


def test_a_token_of_another_search_is_refused(readers: Readers) -> None:
    body = {"max_results": 2, "view_type": "ALL"}
    token = readers.post("headrace", SEARCH, body).body["next_page_token"]
    changes: list[dict[str, Any]] = [{"order_by": ["name"]}]
    for change in changes:
        answer = readers.post("headrace", SEARCH, body | change | {"page_token": token})
        assert (answer.status, answer.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("after", [[], [0], ["x", 1], [2**70, 1], [True, 1]], ids=str)
def test_a_tampered_token_is_refused(readers: Readers, after: list[Any]) -> None:
    body = {"max_results": 2, "view_type": "ALL"}
    token = json.loads(base64.b64decode(readers.post("headrace", SEARCH, body).body["next_page_token"]))
    tampered = base64.b64encode(json.dumps(token | {"after": after}).encode()).decode()
    answer = readers.post("headrace", SEARCH, body | {"page_token": tampered})
    assert (answer.status, answer.body["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_results": 0},
        {"max_results": 50_001},
        {"max_results": "5"},
        {"max_results": 5, "filter": "name like 'x'"},
        {"max_results": 5, "filter": "experiment_id = 'x'"},
        {"max_results": 5, "order_by": ["tags.t"]},
        {"max_results": 5, "page_token": "nonsense"},
        {"max_results": 5, "view_type": 3},
    ],
    ids=str,
)
def test_search_declined(readers: Readers, body: dict[str, Any]) -> None:
    readers.compare(SEARCH, body, native=None)


@pytest.mark.parametrize(
    "query",
    [
        {"max_results": 50},
        {"max_results": 50, "order_by": ["name DESC", "creation_time"]},
        {"max_results": 50, "filter": "name LIKE '%a%'", "order_by": "name"},
    ],
    ids=str,
)
def test_search_by_query(readers: Readers, query: dict[str, Any]) -> None:
    readers.compare(SEARCH, query, "get")


@pytest.mark.parametrize("query", [{"max_results": "x"}, {"max_results": 5, "filter": "x"}, {}], ids=str)
def test_search_by_query_declined(readers: Readers, query: dict[str, Any]) -> None:
    readers.compare(SEARCH, query, "get", native=None)


@pytest.mark.parametrize("experiment_ids", [["0"], ["0", "1", "2", "99"], ["2"], ["1", "1"]], ids=str)
def test_datasets(readers: Readers, experiment_ids: list[str]) -> None:
    readers.compare("experiments/search-datasets", {"experiment_ids": experiment_ids})


@pytest.mark.parametrize("experiment_ids", [[], ["x"], ["0"] * 21, "0", [0]], ids=str)
def test_datasets_declined(readers: Readers, experiment_ids: Any) -> None:
    readers.compare("experiments/search-datasets", {"experiment_ids": experiment_ids}, native=None)
