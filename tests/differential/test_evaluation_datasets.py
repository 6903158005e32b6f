"""Evaluation datasets: the same requests to stock and to Headrace; the same answers and rows."""

# ruff: noqa: E501  (a story is a row)

from __future__ import annotations

import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.differential.conftest import Pair
from tests.differential.harness import API, Subject
from tests.differential.stories import Step, Teller, tell

NUMBERS = itertools.count(1)
TABLES = [
    ("evaluation_datasets", "dataset_id"),
    ("evaluation_dataset_tags", "dataset_id"),
    ("evaluation_dataset_records", "dataset_id"),
    ("entity_associations", "source_id"),
]


def create(keep: str = "d", **fields: Any) -> Step:
    return Step("POST", "datasets/create", {"name": "<name>"} | fields, {keep: "dataset.dataset_id"})


def tagged(tags: Any, name: str = "d") -> Step:
    return Step("PATCH", f"datasets/<{name}>/tags", {"tags": json.dumps(tags)})


def upsert(*records: Any, name: str = "d") -> Step:
    return Step("POST", f"datasets/<{name}>/records", {"records": json.dumps(records)})


def experiments(what: str, *ids: str, name: str = "d") -> Step:
    return Step("POST", f"datasets/<{name}>/{what}-experiments", {"experiment_ids": list(ids)})


def deleted(*ids: str) -> Step:
    return Step("DELETE", "datasets/<d>/records", {"dataset_record_ids": list(ids)})


GET, DELETE, IDS, RECORDS = (
    Step(method, f"datasets/<d>{rest}")
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/experiment-ids"), ("GET", "/records"))
)
SEARCH = Step("GET", "datasets/search", {"filter_string": "name = '<name>'"})
USER = {"mlflow.user": "me"}
SOURCES: tuple[Any, ...] = (
    {"source_type": "TRACE", "source_data": {"trace_id": "tr-1", "session_id": "s"}}, {"source_type": "human"},
    {"source_type": "CODE", "source_data": {}}, {"source_type": "DOCUMENT", "source_data": {"source_id": "doc", "x": [1]}},
    {"source_type": "UNSPECIFIED", "source_data": None}, {}, None,
)  # fmt: skip
BAD_SOURCES: tuple[Any, ...] = (
    {"source_type": "ROBOT"}, {"source_data": {}}, {"source_type": 1}, "x", [1], {"source_type": "CODE", "more": 1},
    {"source_type": "CODE", "source_data": [1]},
)  # fmt: skip
OUTPUTS: tuple[Any, ...] = ({"a": 1}, {}, None, "text", 5, [1], True, {"b": {"c": 1.0}}, "", 0, False)
TYPES = {"s": "a", "i": 1, "f": 1.5, "b": True, "n": None, "l": [1], "o": {"a": 1}, "é": "日本\ud83d\ude00", "z": "\0"}
STORIES: dict[str, list[Step]] = {
    "a dataset": [create(), GET, SEARCH, IDS, RECORDS, DELETE, GET, SEARCH, IDS, RECORDS, DELETE],
    "with all": [create(tags=json.dumps({"a": "1", "b": "", "ü": "日本", **USER}), experiment_ids=["<e>", "0"],
                        source_type="HUMAN", source="s", schema="x", profile="y", created_by="z"), GET, IDS, SEARCH,
                 Step("GET", "datasets/search", {"experiment_ids": "<e>", "filter_string": "name = '<name>'"}),
                 Step("POST", "datasets/search", {"experiment_ids": ["<e>", "0"], "filter_string": "name = '<name>'"}), DELETE, IDS],
    "the same name": [create(), create("d2"), SEARCH],
    "experiments that are none": [create(experiment_ids=["999999", "x"]), IDS, GET],
    "bad ones": [create(name=""), Step("POST", "datasets/create", {}), create(name="x", tags="{"), create(tags="[1]"),
                 create(name="n" * 255), GET],
    "tags": [create(tags=json.dumps({"a": "1"})), tagged({"a": "2", "b": 1, "c": None, "d": True, "e": [1], "f": 1.5}), GET,
             tagged({}), Step("DELETE", "datasets/<d>/tags/a"), Step("DELETE", "datasets/<d>/tags/a"), GET,
             Step("PATCH", "datasets/<d>/tags", {}), Step("PATCH", "datasets/<d>/tags", {"tags": "x"}),
             Step("PATCH", "datasets/<d>/tags", {"tags": "[]"}), Step("PATCH", "datasets/<d>/tags", {"tags": "null"}),
             tagged({"k" * 255: "v" * 5000}), GET],
    "experiments": [create(), experiments("add", "<e>", "0"), IDS, experiments("add", "<e>"), IDS, GET,
                    experiments("remove", "0", "77"), IDS, experiments("remove", "0"), experiments("remove"), experiments("add"),
                    experiments("add", "0", "999999"), experiments("add", "00"), experiments("remove", "<e>"), IDS],
    "nobody": [Step("GET", "datasets/d-none"), Step("DELETE", "datasets/d-none"), tagged({"a": "b"}, "none"),
               Step("DELETE", "datasets/d-none/tags/a"), Step("GET", "datasets/d-none/records"),
               Step("GET", "datasets/d-none/experiment-ids"), experiments("add", "0", name="none"),
               experiments("remove", "0", name="none"), upsert({"inputs": {"a": 1}}, name="none"),
               Step("DELETE", "datasets/d-none/records", {"dataset_record_ids": ["a"]})],
    "records": [create(), upsert({"inputs": TYPES}), GET, RECORDS, upsert({"inputs": {"q": 1}, "expectations": {"a": "x"}, "tags": USER}),
                GET, RECORDS, upsert({"inputs": {"q": 1}, "expectations": {"b": [1, None]}, "tags": {"t": 1}}), RECORDS, GET],
    "a record twice": [create(), upsert({"inputs": {"a": 1, "b": 2}, "expectations": {"x": 1}},
                                        {"inputs": {"b": 2, "a": 1}, "expectations": {"y": 2}, "outputs": "o", "tags": USER}), RECORDS, GET],
    "outputs": [create(), *(upsert({"inputs": {"q": n}, "outputs": outputs}) for n, outputs in enumerate(OUTPUTS)),
                upsert({"inputs": {"q": "none"}}), GET, RECORDS,
                upsert({"inputs": {"q": 0}, "outputs": None}, {"inputs": {"q": 1}, "outputs": {"z": 1}}, {"inputs": {"q": 3}}), GET, RECORDS],
    "outputs that are no objects": [create(), upsert({"inputs": {"q": 1}, "outputs": "text"}), GET, upsert({"inputs": {"q": 2}, "outputs": 1}),
                                    GET, RECORDS],
    "sources": [create(), *(upsert({"inputs": {"q": n}, "source": source}) for n, source in enumerate(SOURCES)), RECORDS, GET,
                upsert({"inputs": {"q": 0}, "source": {"source_type": "CODE"}}), RECORDS],
    "a source's faults": [create(), *(upsert({"inputs": {}, "source": source}) for source in BAD_SOURCES)],
    "records that are none": [create(), upsert(), GET, upsert({}), upsert({"expectations": {"a": 1}}), GET, RECORDS, upsert({"inputs": [1]}),
                              upsert({"inputs": None}), upsert({"inputs": {}, "expectations": [1]}), upsert({"inputs": {}, "tags": "x"}),
                              upsert(1), upsert("x"), upsert({"inputs": {"a": 1}}, 1), Step("POST", "datasets/<d>/records", {}),
                              Step("POST", "datasets/<d>/records", {"records": "x"}), Step("POST", "datasets/<d>/records", {"records": "null"}),
                              Step("POST", "datasets/<d>/records", {"records": "{\"a\": 1}"}), RECORDS],
    "a user who changes": [create(tags=json.dumps(USER)), upsert({"inputs": {"a": 1}, "tags": {"mlflow.user": "you"}}), GET,
                           upsert({"inputs": {"a": 1}, "tags": {"mlflow.user": "they"}}), GET, RECORDS, upsert({"inputs": {"a": 1}}), GET, RECORDS],
    "deleted records": [create(), upsert(*({"inputs": {"q": n}} for n in range(3))),
                        deleted("nobody"), GET, deleted(), GET],
    "pages of records": [create(), upsert({"inputs": {"q": 1}}), Step("GET", "datasets/<d>/records", {"max_results": 1}),
                         Step("GET", "datasets/<d>/records", {"page_token": "1"}), Step("GET", "datasets/<d>/records", {"page_token": "!"}),
                         Step("GET", "datasets/<d>/records", {"max_results": 0}), Step("GET", "datasets/<d>/records", {"max_results": -1})],
}  # fmt: skip


def teller(subject: Subject, number: int) -> Teller:
    """An experiment for a story."""
    name = f"datasets {number}"
    made = subject.request("POST", f"{API}experiments/create", json={"name": f"{name} {random.random()}"})
    return Teller(subject, {"e": made.json()["experiment_id"], "name": name, "none": "d-none"})


def tellers(pair: Pair) -> tuple[Teller, Teller]:
    number = next(NUMBERS)
    return teller(pair.stock, number), teller(pair.headrace, number)


@pytest.mark.parametrize("name", STORIES)
def test_story(pair: Pair, name: str) -> None:
    tell(STORIES[name], *tellers(pair), TABLES)


def test_delete_records(pair: Pair) -> None:
    """Those that are named, of this dataset; the profile counts the rest."""
    seen = []
    for each in tellers(pair):
        each.send(create())
        each.send(create("other"))
        each.send(upsert(*({"inputs": {"q": n}} for n in range(5))))
        each.send(upsert({"inputs": {"q": 0}}, name="other"))
        ids = {
            name: [record["dataset_record_id"] for record in json.loads(get(each, f"<{name}>/records")["records"])]
            for name in ("d", "other")
        }
        answers = [each.send(deleted(*ids["d"][:2], ids["other"][0])), each.send(GET), each.send(deleted(*ids["d"]))]
        answers += [
            each.send(GET),
            each.send(deleted(*ids["d"])),
            each.send(upsert({"inputs": {"q": 1}})),
            each.send(GET),
        ]
        seen.append(([answer[:2] for answer in answers], each.rows("evaluation_datasets", "dataset_id")))
    assert seen[0] == seen[1]


def get(each: Teller, path: str, **query: Any) -> Any:
    path = path.replace("<d>", each.ids["d"]).replace("<other>", each.ids.get("other", ""))
    return each.subject.request("GET", f"/api/3.0/mlflow/datasets/{path}", params=query).json()


def test_pages_of_records(pair: Pair) -> None:
    """Every record once, in both servers' order, whoever made the token."""
    for each in tellers(pair):
        each.send(create())
        for part in range(3):
            each.send(upsert(*({"inputs": {"q": [part, n]}} for n in range(4))))
        whole = [record["dataset_record_id"] for record in json.loads(get(each, "<d>/records")["records"])]
        for size in (1, 5, 12, 13):
            found: list[str] = []
            token = ""
            while True:
                page = get(each, "<d>/records", max_results=size, page_token=token)
                found += [record["dataset_record_id"] for record in json.loads(page["records"])]
                if not (token := page.get("next_page_token", "")):
                    break
            assert found == whole
        assert len(set(whole)) == 12


@pytest.mark.parametrize(
    "fields", [{"name": "n" * 256}, {"name": "a\0b"}, {"tags": '{"%s": "v"}' % ("k" * 256)},
               {"tags": '{"k": "%s"}' % ("v" * 5001)}, {"tags": json.dumps({"mlflow.user": "u" * 256})},
               {"tags": '{"k": "\\u0000"}'}, {"tags": '{"k": "\\ud800"}'}, {"experiment_ids": ["1" * 37]}],
    ids=range(8),
)  # fmt: skip
def test_what_postgresql_does_not_hold_is_refused(pair: Pair, fields: dict[str, Any]) -> None:
    _, headrace = tellers(pair)
    name = f"refused {next(NUMBERS)}"
    status, body, by = headrace.send(create(**{"name": name} | fields))
    assert (status, by) == (400, "native"), body
    assert not headrace.subject.query("SELECT 1 FROM evaluation_datasets WHERE name = :name", name=name)


@pytest.mark.parametrize(
    "records",
    [
        [{"inputs": {}, "source": {"source_type": "TRACE", "source_data": {"trace_id": "t" * 37}}}],
        [{"inputs": {}, "tags": {"mlflow.user": "u" * 256}}],
        [{"inputs": {}, "tags": {"mlflow.user": "a\0b"}}],
        [{"inputs": {}, "tags": {"mlflow.user": "\ud800"}}],
        [{"inputs": {"a": 1}}, {"inputs": {}, "source": {"source_type": "TRACE", "source_data": {"trace_id": "\0"}}}],
    ],
)
def test_what_no_column_holds_is_refused_whole(pair: Pair, records: Any) -> None:
    _, headrace = tellers(pair)
    headrace.send(create())
    status, body, by = headrace.send(upsert(*records))
    assert (status, by) == (400, "native"), body
    assert headrace.rows("evaluation_dataset_records", "dataset_id") == []


def test_outputs_of_two_kinds(pair: Pair) -> None:
    """Stock fails at objects where texts were before; the schema keeps what it had first."""
    _, headrace = tellers(pair)
    headrace.send(create())
    for outputs in ("text", {"a": 1}):
        status, body, by = headrace.send(upsert({"inputs": {"q": str(outputs)}, "outputs": outputs}))
        assert (status, by) == (200, "native"), body
    assert json.loads(get(headrace, "<d>")["dataset"]["schema"])["outputs"] == "string"
    assert {str(record["outputs"]) for record in json.loads(get(headrace, "<d>/records")["records"])} == {
        "text",
        "{'a': 1}",
    }


def test_the_same_experiment_twice(pair: Pair) -> None:
    _, headrace = tellers(pair)
    headrace.send(create(experiment_ids=["<e>", "<e>"]))
    headrace.send(experiments("add", "0", "0"))
    assert sorted(get(headrace, "<d>/experiment-ids")["experiment_ids"]) == sorted(["0", headrace.ids["e"]])


def test_many_at_once(pair: Pair) -> None:
    """Records of many requests, the same inputs among them: each is there once, with all that was said of it."""
    _, headrace = tellers(pair)
    headrace.send(create())

    def post(number: int) -> int:
        records = [
            {"inputs": {"q": number % 20}, "expectations": {f"e{number}": number}},
            {"inputs": {"q": "all"}, "tags": {f"t{number}": "x"}},
            *([1] if number % 10 == 9 else []),
        ]
        return headrace.send(upsert(*records))[0]

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(post, range(100)))
    good = [number for number in range(100) if number % 10 != 9]
    assert [number for number, status in enumerate(statuses) if status == 200] == good
    records = json.loads(get(headrace, "<d>/records")["records"])
    assert len(records) == 19
    said = {key for record in records for key in record.get("expectations", {})}
    assert said == {f"e{number}" for number in good}
    tags = next(record["tags"] for record in records if record["inputs"] == {"q": "all"})
    assert set(tags) == {f"t{number}" for number in good}
    assert json.loads(get(headrace, "<d>")["dataset"]["profile"]) == {"num_records": 19}
