"""datasets/search of evaluation datasets: generated searches of one database, page by page as stock's."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.differential.reading import Readers
from tests.differential.test_registry_search import quoted
from tests.support.generated import TIMES, dice

SEARCHES = 30 * TIMES
SEARCH, CREATE = (f"../../3.0/mlflow/datasets/{name}" for name in ("search", "create"))
NAMES = ["a", "A", "b", "it's", "a_b", "a%b", "ß", "日本語", '"x"', "a.b", "ab", "z z"]
VALUES = ["", "a", "A", "it's", "100%", "a_b", "ß", "x\ny"]
USERS = ["me", "Me", "you", ""]
KEYS = ["t", "T", "a.b"]


@pytest.fixture(scope="module")
def filled(readers: Readers) -> Readers:
    """Datasets in some of three experiments, or in none; several have the same name."""
    chance = random.Random(1)
    for number in range(40):
        tags = {key: chance.choice(VALUES) for key in KEYS if chance.random() < 0.5}
        if chance.random() < 0.5:
            tags["mlflow.user"] = chance.choice(USERS)
        experiment_ids = chance.sample(["101", "102", "103"], chance.choice([0, 1, 1, 2]))
        dataset = {"name": NAMES[number % len(NAMES)], "tags": json.dumps(tags), "experiment_ids": experiment_ids}
        assert readers.post("headrace", CREATE, dataset).status == 200
    return readers


def condition(chance: random.Random, times: list[int]) -> str:
    kind = chance.choice(["name", "name", "user", "time", "tag", "tag"])
    signs = ["=", "!=", "LIKE", "ILIKE"]
    pattern = quoted(chance.choice(["a%", "%b", "_", "%", "A_%", "%ß%", "M%"]))
    if kind == "time":
        key = chance.choice(["created_time", "last_update_time"])
        return f"{key} {chance.choice(['=', '!=', '<', '<=', '>', '>='])} {chance.choice(times)}"
    sign = chance.choice(signs)
    if kind == "tag":
        value = pattern if "LIKE" in sign else quoted(chance.choice(VALUES))
        return f"tags.{chance.choice(['t', 'T', 'a.b', 'mlflow.user'])} {sign} {value}"
    if kind == "user":
        value = pattern if "LIKE" in sign else quoted(chance.choice(USERS))
        return f"{chance.choice(['created_by', 'last_updated_by'])} {sign} {value}"
    if chance.random() < 0.2:
        chosen = [quoted(name) for name in chance.sample(NAMES, 3) if '"' not in name]
        return f"name IN ({', '.join(chosen)})"
    if chance.random() < 0.2:
        return f"name {chance.choice(['RLIKE', '>', '<='])} {quoted(chance.choice(['a', '^a', 'b$', '.']))}"
    return f"name {sign} {pattern if 'LIKE' in sign else quoted(chance.choice(NAMES))}"


def pages(readers: Readers, server: str, search: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        answer = readers.post(server, SEARCH, search | ({"page_token": token} if token else {}))
        if answer.status != 200:
            return [answer.status, answer.body.get("error_code")]
        assert server == "stock" or answer.native, search
        for dataset in answer.body.get("datasets", []):
            dataset["tags"] = json.loads(dataset["tags"])
        found.append(answer.body.get("datasets", []))
        if not (token := answer.body.get("next_page_token", "")):
            return found


@pytest.mark.generated
def test_generated_searches(filled: Readers) -> None:
    chance = dice(2)
    everything = filled.get("stock", SEARCH, {"max_results": 1000}).body["datasets"]
    times = [each["created_time"] for each in everything]
    wrong, hits = [], 0
    for _ in range(SEARCHES):
        search: dict[str, Any] = {"max_results": chance.choice([1, 7, 100])}
        if text := " AND ".join(condition(chance, times) for _ in range(chance.choice([0, 1, 1, 2]))):
            search["filter_string"] = text
        if chance.random() < 0.5:
            search["experiment_ids"] = chance.sample(["101", "102", "103", "999", "x"], chance.choice([1, 2]))
        if chance.random() < 0.6:
            keys = chance.sample(["name", "created_time", "last_update_time"], chance.choice([1, 2]))
            search["order_by"] = [f"{key}{chance.choice(['', ' ASC', ' DESC', ' desc'])}" for key in keys]
        expected, found = pages(filled, "stock", search), pages(filled, "headrace", search)
        hits += bool(expected[0])
        if found != expected:
            wrong.append((search, expected, found))
    assert not wrong, "\n".join(f"{search}\n  {str(a)[:600]}\n  {str(b)[:600]}" for search, a, b in wrong[:3])
    assert hits > SEARCHES / 3


REFUSED: list[dict[str, Any]] = [
    {"filter_string": text}
    for text in (
        "name", "name =", "name = a", "nothing = 'a'", "tags.a IN ('a')", "metrics.a = 'a'", "attribute.name = 'a'",
        "name = 'a' OR name = 'b'", "tags.a > 'x'", "name IN ()", "name NOT IN ('a')", "created_by IN ('a')",
        "created_time = 'x'", "created_time = 1.5", "created_time LIKE '1'", "name = 1", "name = 'a", "name IS NULL",
        "dataset_id = 'a'", "name like 'a'",
    )
] + [{"order_by": [text]} for text in ("nothing", "name UP", "tags.a", "", "dataset_id", "created_by")
] + [{"max_results": number} for number in (-1, 0, 50_001)] + [{"page_token": "x"}]  # fmt: skip


def test_refusals(filled: Readers) -> None:
    wrong = []
    for search in REFUSED:
        expected, found = (filled.post(server, SEARCH, search) for server in ("stock", "headrace"))
        right = 400 <= found.status < 500
        if expected.status < 500:
            right = (found.status, found.body.get("error_code")) == (expected.status, expected.body.get("error_code"))
        if not right:
            wrong.append((search, expected, found))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_page_of_stocks_is_gone_on_with(filled: Readers) -> None:
    search = {"max_results": 3, "order_by": ["name"]}
    for first, then in (("stock", "headrace"), ("headrace", "stock")):
        after = search | {"page_token": filled.post(first, SEARCH, search).body["next_page_token"]}
        pages_after = [
            [each["dataset_id"] for each in filled.post(server, SEARCH, after).body["datasets"]]
            for server in (then, first)
        ]
        assert pages_after[0] == pages_after[1]
