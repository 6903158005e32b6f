"""logged-models/search: generated searches of the same models on both, page by page; stock's pages are gone on with."""

from __future__ import annotations

import random
from typing import Any

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import API, Subject
from tests.support.generated import TIMES, dice

SEARCHES = 30 * TIMES
VALUES = ["", "a", "A", "b c", "100%", "a_b", "ß", "1", "0.5"]
DATASETS = [{}, {"dataset_name": "d", "dataset_digest": "1"}, {"dataset_name": "d", "dataset_digest": "2"}]


class Models:
    """The models of one server, in an experiment of their own."""

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject = subject
        self.experiment = self.post("experiments/create", {"name": name}).json()["experiment_id"]
        chance, run = random.Random(1), subject.create_run()
        for number in range(14):
            pairs = [
                [{"key": key, "value": chance.choice(VALUES)} for key in "tu" if chance.random() < 0.6] for _ in "pt"
            ]
            made = {
                "name": f"m{number}",
                "model_type": chance.choice(["", "x", "y"]),
                "params": pairs[0],
                "tags": pairs[1],
            }
            answer = self.post("logged-models", made | {"experiment_id": self.experiment})
            model_id = answer.json()["model"]["info"]["model_id"]
            for step in range(4):
                metric = {"key": chance.choice("mn"), "value": chance.choice([0.1, 0.5, 1.0, -2.0]), "timestamp": step}
                logged = metric | {"run_id": run, "model_id": model_id, "step": step} | chance.choice(DATASETS)
                assert self.post("runs/log-metric", logged).status_code == 200
        gone = subject.request("DELETE", f"{API}logged-models/{model_id}")
        assert gone.status_code == 200

    def post(self, endpoint: str, body: dict[str, Any]) -> requests.Response:
        return self.subject.request("POST", API + endpoint, json=body)

    def search(self, body: dict[str, Any]) -> requests.Response:
        return self.post("logged-models/search", {"experiment_ids": [self.experiment]} | body)

    def pages(self, body: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        token = ""
        while True:
            answer = self.search(body | ({"page_token": token} if token else {}))
            if answer.status_code != 200:
                return [answer.status_code, answer.json().get("error_code")]
            found.append([model["info"]["name"] for model in answer.json().get("models", [])])
            token = answer.json().get("next_page_token", "")
            if not token:
                return found


@pytest.fixture(scope="module")
def models(pair: Pair) -> tuple[Models, Models]:
    return Models(pair.stock, "searched"), Models(pair.headrace, "searched")


def condition(chance: random.Random) -> str:
    text = f"'{chance.choice([*VALUES, 'x', 'm1', 'm12'])}'"
    if chance.random() < 0.4:
        sign = chance.choice(["<", "<=", ">", ">=", "=", "!="])
        return f"metrics.{chance.choice(['m', 'n', '`m`'])} {sign} {chance.choice(['0.5', '0.1', '-2', '1e0'])}"
    key = chance.choice(["params.t", "params.`u`", "tags.t", "tags.u", "name", "model_type", "attributes.name"])
    sign, value = chance.choice(
        [
            ("=", text),
            ("!=", text),
            ("LIKE", "'m1%'"),
            ("ilike", "'A%'"),
            ("IN", "('a', 'x', 'm3')"),
            ("NOT IN", "('a')"),
        ]
    )
    return f"{key} {sign} {value}"


def generated() -> list[dict[str, Any]]:
    chance = dice(2)
    searches = []
    for _ in range(SEARCHES):
        body: dict[str, Any] = {"max_results": chance.choice([1, 3, 5, 50])}
        if text := " AND ".join(condition(chance) for _ in range(chance.choice([0, 1, 1, 2]))):
            body["filter"] = text
        if chance.random() < 0.3:
            body["datasets"] = chance.sample(DATASETS[1:], chance.choice([1, 2]))
        names = chance.sample(
            ["metrics.m", "metrics.n", "name", "model_type", "creation_time"], chance.choice([0, 1, 2])
        )
        if names:
            body["order_by"] = [
                {"field_name": name, "ascending": chance.random() < 0.5}
                | (chance.choice(DATASETS) if name.startswith("metrics") else {})
                for name in names
            ]
        searches.append(body)
    return searches


@pytest.mark.generated
def test_generated_searches(models: tuple[Models, Models]) -> None:
    stock, headrace = models
    wrong, hits = [], 0
    for body in generated():
        expected, found = stock.pages(body), headrace.pages(body)
        hits += any(expected)
        if found != expected:
            wrong.append(f"{body}\n  {expected}\n  {found}")
    assert not wrong, "\n".join(wrong[:5])
    assert hits > SEARCHES / 3


REFUSED: list[dict[str, Any]] = [
    *({"filter": text} for text in ("metric.m > 1", "name", "name > 'a'", "metrics.m LIKE 'a'", "metrics.m > 'x'")),
    *({"filter": text} for text in ("nothing = 'a'", "params.t IS NULL", "params.t > 1", "metrics.m IN (1)")),
    {"filter": "name = 'a' OR name = 'b'"},
    *({"order_by": [{"field_name": name}]} for name in ("params.t", "nothing")),
    *({"max_results": number} for number in (-1, "x")),
    {"datasets": [{"dataset_digest": "1"}]}, {"page_token": "x"}, {"page_token": "e30="}, {"experiment_ids": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize("body", REFUSED, ids=str)
def test_refusals(models: tuple[Models, Models], body: dict[str, Any]) -> None:
    expected, found = (each.search(body) for each in models)
    assert found.status_code < 500
    if expected.status_code < 500 and body.get("max_results") != -1:  # SQLite takes that for no limit
        assert (found.status_code, found.json().get("error_code")) == (
            expected.status_code,
            expected.json().get("error_code"),
        ), (expected.text, found.text)


def test_the_answer_is_native(models: tuple[Models, Models]) -> None:
    answer = models[1].search({"filter": "metrics.m > 0", "order_by": [{"field_name": "metrics.m"}]})
    assert answer.headers["headrace-answered-by"] == "native"


def test_a_dataset_without_a_digest_is_all_of_that_name(models: tuple[Models, Models]) -> None:
    both = models[1].pages({"datasets": DATASETS[1:]})
    assert models[1].pages({"datasets": [{"dataset_name": "d"}]}) == both != [[]]
