"""Scorers, issues, review queues and label schemas as the UI's pages read them: the same rows, the same answers."""

# ruff: noqa: E501  (a story is a row)

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.differential.conftest import Pair
from tests.differential.harness import API, Subject
from tests.differential.stories import Step, Teller, tell

# earlier than what the stories take for now
TIME = 1_600_000_000_000


def get(path: str, **query: Any) -> Step:
    return Step("GET", path, query)


def post(path: str, **body: Any) -> Step:
    return Step("POST", path, body)


SCORERS, QUEUES, SCHEMAS, ISSUES = "scorers/list", "review-queues/list", "label-schemas/list", "issues/search"
BAD: list[dict[str, Any]] = [
    {},
    {"experiment_id": ""},
    {"experiment_id": "999999"},
    {"experiment_id": "x"},
    {"experiment_id": "<gone>"},
]
LIMITS: list[dict[str, Any]] = [{"experiment_id": "<e>", "max_results": number} for number in (0, -1, 50_001, "x")]
VERSIONS: list[dict[str, Any]] = [{}, *({"version": version} for version in (1, 2, 3, "x"))]
STORIES: dict[str, list[Step]] = {
    "scorers": [get(SCORERS, experiment_id="<e>"), get(SCORERS, experiment_ids=["<e>", "<empty>", "<gone>", "999999"]),
                get(SCORERS, experiment_id="<empty>"), get(SCORERS, experiment_id="<e>", experiment_ids="<e>"),
                *(get(SCORERS, experiment_ids=each) for each in ("x", "-1", ["0", "a" * 65])),
                *(get(SCORERS, **each) for each in BAD[2:])],
    "versions": [get("scorers/versions", experiment_id="<e>", name=name) for name in ("one", "two", "none", "")]
                + [get("scorers/versions", name="one", **each) for each in BAD],
    "a scorer": [get("scorers/get", experiment_id="<e>", name=name, **more) for name in ("one", "none", "")
                 for more in VERSIONS],
    "how much judges judge": [get("scorers/online-configs", scorer_ids=ids) for ids in (
                                  ["<one>", "none"], "<two>", "none", "")] + [get("scorers/online-configs")],
    "issues": [post(ISSUES, experiment_id="<e>", **more) for more in (
                   {}, {"include_trace_count": True}, {"max_results": 1}, {"max_results": 2, "page_token": "eyJvZmZzZXQiOiAyfQ=="},
                   {"filter_string": "status = 'pending'"}, {"filter_string": "status != 'pending'"}, {"filter_string": "source_run_id = '<run>'"},
                   {"filter_string": "source_run_id != 'x' AND status = 'pending'"}, {"filter_string": "name = 'x'"},
                   {"filter_string": "status LIKE 'x'"}, {"max_results": 0}, {"max_results": -1}, {"max_results": 50_001})]
              + [post(ISSUES, experiment_id="<empty>"), post(ISSUES, experiment_id="999999"), post(ISSUES, experiment_id="x")],
    "queues": [get(QUEUES, experiment_id="<e>", **more) for more in (
                   {}, {"user": "ME"}, {"user": "nobody"}, {"item_id": "tr-1"}, {"item_id": "tr-2"}, {"user": " you", "item_id": "tr-1"},
                   {"user": ""}, {"item_id": ""},
                   {"max_results": 1}, {"max_results": 1, "page_token": "eyJvZmZzZXQiOiAxfQ=="})]
              + [get(QUEUES, experiment_id="<empty>")] + [get(QUEUES, **each) for each in (*BAD, *LIMITS)],
    "label schemas": [get(SCHEMAS, experiment_id="<e>"), get(SCHEMAS, experiment_id="<e>", max_results=2), get(SCHEMAS, experiment_id="<empty>"),
                      get(SCHEMAS, experiment_id="<empty>"), get(SCHEMAS, experiment_id="<e>", page_token="eyJvZmZzZXQiOiAzfQ==")]
                     + [get(SCHEMAS, **each) for each in (*BAD, *LIMITS)],
}  # fmt: skip


def fill(subject: Subject, number: int) -> Teller:
    """An experiment with some of each, an empty one, and one that is deleted."""
    ids = {}
    for name in ("e", "empty", "gone"):
        made = subject.request("POST", f"{API}experiments/create", json={"name": f"reads {number} {name}"}).json()
        ids[name] = made["experiment_id"]
    subject.request("POST", f"{API}experiments/delete", json={"experiment_id": ids["gone"]})
    run = subject.create_run()

    def insert(table: str, **columns: Any) -> None:
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        subject.database.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", **columns)

    for place in ("e", "gone"):
        of = {"experiment_id": int(ids[place])}
        for scorer, versions in (("two", 1), ("one", 2)):
            scorer_id = f"s{number} {place} {scorer}"
            insert("scorers", scorer_name=scorer, scorer_id=scorer_id, **of)
            if place == "e":
                ids[scorer] = scorer_id
                insert("online_scoring_configs", online_scoring_config_id=scorer_id, scorer_id=scorer_id, sample_rate=0.1 * versions,
                       filter_string=None if scorer == "one" else "status = 'OK'", **of)  # fmt: skip
            for version in range(1, versions + 1):
                text = json.dumps({"name": scorer, "instructions": "é", "a": version}, ensure_ascii=False, indent=1)
                insert(
                    "scorer_versions",
                    scorer_id=scorer_id,
                    scorer_version=version,
                    serialized_scorer=text,
                    creation_time=TIME + version,
                )
        for kind, config in (
            ("pass_fail", {"positive_label": "Yes", "negative_label": "No"}), ("categorical", {"options": ["a", "b"], "multi_select": True}),
            ("numeric", {"min_value": 1, "max_value": None}), ("text", {"max_length": 5}),
        ):  # fmt: skip
            insert("label_schemas", schema_id=f"ls{number} {place} {kind}", name=kind, type="expectation" if kind == "text" else "feedback",
                   instruction=None if kind == "text" else "i", enable_comment=kind == "numeric", input_type=kind, input_config=json.dumps(config),
                   created_by="me" if kind == "text" else None, created_time=TIME, last_update_time=TIME + 1, is_default=False, **of)  # fmt: skip
        for queue in ("first", "second"):
            queue_id = f"rq{number} {place} {queue}"
            insert("review_queues", queue_id=queue_id, name=queue, name_key=queue, queue_type="user" if queue == "first" else "custom",
                   created_by=None if queue == "first" else "me", creation_time_ms=TIME, last_update_time_ms=TIME + 1, **of)  # fmt: skip
            for user in ("you", "me") if queue == "first" else ("you",):
                insert("review_queue_users", queue_id=queue_id, user_id=user)
            if queue == "first":
                insert("review_queue_label_schemas", queue_id=queue_id, schema_id=f"ls{number} {place} text")
            insert("review_queue_items", queue_id=queue_id, item_type="trace", item_id="tr-1" if queue == "first" else "tr-2", status="pending",
                   creation_time_ms=TIME, last_update_time_ms=TIME)  # fmt: skip
        for place_of, (severity, status) in enumerate(
            (
                ("low", "pending"),
                (None, "resolved"),
                ("high", "pending"),
                ("not_an_issue", "rejected"),
                ("low", "pending"),
            )
        ):
            more = (
                {"root_causes": '["a", "b"]', "categories": "[]", "created_by": "me", "source_run_id": run}
                if status == "pending"
                else {}
            )
            insert("issues", issue_id=f"iss{number} {place} {place_of}", name="n", description="d", status=status, severity=severity,
                   created_timestamp=TIME, last_updated_timestamp=TIME + 1, **more, **of)  # fmt: skip
    return Teller(subject, ids | {"run": run})


@pytest.fixture(scope="module")
def filled(pair: Pair) -> tuple[Teller, Teller]:
    number = random.randrange(10**6)
    return fill(pair.stock, number), fill(pair.headrace, number)


@pytest.mark.parametrize("name", STORIES)
def test_story(filled: tuple[Teller, Teller], name: str) -> None:
    tell(STORIES[name], *filled, [])


def test_the_question_that_each_experiment_has(filled: tuple[Teller, Teller]) -> None:
    """Made at the first look, once."""
    for teller in filled:
        for _ in range(2):
            teller.send(get(SCHEMAS, experiment_id="<empty>"))
        rows = teller.subject.query(
            "SELECT * FROM label_schemas WHERE experiment_id = :id", id=int(teller.ids["empty"])
        )
        assert [(row["name"], row["type"], row["input_type"], json.loads(row["input_config"])) for row in rows] == [
            ("Feedback", "feedback", "text", {"max_length": None})
        ]


@pytest.mark.parametrize("path", ["get", "versions", "list"])
def test_text_of_a_scorer(filled: tuple[Teller, Teller], path: str) -> None:
    """One scorer is as it is stored, in a list the JSON is written anew."""
    texts = []
    for teller in filled:
        query = {"experiment_id": teller.ids["e"], "name": "one"}
        got = teller.subject.request("GET", f"/api/3.0/mlflow/scorers/{path}", params=query).json()
        scorers = [got["scorer"]] if path == "get" else got["scorers"]
        texts.append([each["serialized_scorer"] for each in scorers])
    assert texts[0] == texts[1]


def test_a_scorer_of_the_gateways_is_stocks(filled: tuple[Teller, Teller]) -> None:
    answers, number = [], random.randrange(10**6)
    for teller in filled:
        of = {"id": f"gateway {number}", "experiment": int(teller.ids["empty"])}
        database = teller.subject.database
        database.execute(
            "INSERT INTO scorers (experiment_id, scorer_name, scorer_id) VALUES (:experiment, 'g', :id)", **of
        )
        text = json.dumps({"instructions_judge_pydantic_data": {"model": "gateway:/none"}})
        database.execute("INSERT INTO scorer_versions VALUES (:id, 1, :text, 1)", id=of["id"], text=text)
        answers.append(teller.send(get("scorers/versions", experiment_id="<empty>", name="g")))
    assert answers[0][:2] == answers[1][:2]
    assert answers[1][2] == "stock"
