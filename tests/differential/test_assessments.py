"""Assessments: the same requests to stock and to Headrace, on traces of their own; the same answers and rows."""

# ruff: noqa: E501  (a story is a row)

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import API, Subject
from tests.differential.stories import Step, Teller, tell
from tests.differential.test_otlp import PROTOBUF
from tests.unit.traces.spans import body, span

NUMBERS = itertools.count(1)
TABLES = [("assessments", "trace_id"), ("runs", "run_uuid")]
PATH = "traces/<t>/assessments"
HUMAN = {"source_type": "HUMAN", "source_id": "me@example.com"}
TIMES = {"create_time": "2024-05-06T07:08:09.123Z", "last_update_time": "2024-05-06T07:08:10Z"}


def create(keep: str = "a", path: str = PATH, **fields: Any) -> Step:
    given = {"assessment_name": "quality", "source": HUMAN, **TIMES, **fields}
    return Step("POST", path, {"assessment": given}, {keep: "assessment.assessment_id"})


def feedback(value: Any, keep: str = "a", error: Any = None, **fields: Any) -> Step:
    return create(keep, feedback={"value": value} | ({"error": error} if error is not None else {}), **fields)


def expectation(value: Any, keep: str = "a", **fields: Any) -> Step:
    return create(keep, expectation={"value": value}, **fields)


def serialized(text: str, kind: str = "JSON_FORMAT") -> Step:
    return create(expectation={"serialized_value": {"serialization_format": kind, "value": text}})


def update(mask: str, name: str = "a", path: str = PATH, **fields: Any) -> Step:
    return Step("PATCH", f"{path}/<{name}>", {"assessment": fields, "update_mask": mask})


def get(name: str = "a") -> Step:
    return Step("GET", f"{PATH}/<{name}>")


def delete(name: str = "a") -> Step:
    return Step("DELETE", f"{PATH}/<{name}>")


ERROR = {"error_code": "E", "error_message": "failed", "stack_trace": "x" * 10_001}
VALUES: tuple[Any, ...] = (
    True,
    False,
    0,
    5,
    -1.5,
    1e300,
    "yes",
    " No ",
    "5",
    "",
    "it's\n日本",
    [],
    [1, "a", None, [True]],
    {},
    {"a": {"b": 1}},
)
STORIES: dict[str, list[Step]] = {
    "feedback": [feedback(value) for value in VALUES] + [get()],
    "feedback of nothing": [create(feedback={}), get(), create(feedback={"value": None}), get()],
    "expectations": [expectation(value) for value in (*VALUES, None)] + [create(expectation={}), get()],
    "serialized": [*map(serialized, ("5", "1.5", '"a"', "true", '{"b": 1, "a": [1, 2.5, null]}', "[]", "null", "x", "",
                                      '{"a": NaN}', "NaN", "1e999", str(10 ** 400))), serialized("5", "PICKLE"), get()],
    "an issue": [create(issue={"issue_name": "slow"}), get(), create(issue={}), update("rationale", rationale="x"),
                 update("feedback", feedback={"value": 1}), delete()],
    "errors": [feedback(None, error=ERROR), get(), feedback(1, error={}), get(),
               feedback(1, error={"error_code": "E", "stack_trace": "x" * 10_000}), get()],
    "all that there is": [feedback(1, span_id="s", rationale="because", valid=False, metadata={"k": "v", "é": ""}), get(),
                          expectation("e", span_id="s", rationale="because", valid=False, metadata={"k": "v"},
                                      overrides="nothing"), get(),
                          create(issue={"issue_name": "i"}, rationale="because", metadata={"k": "v"}, overrides="x")],
    "least": [Step("POST", PATH, {"assessment": {"feedback": {"value": 1}}}, {"a": "assessment.assessment_id"}), get(),
              Step("POST", PATH, {"assessment": {"assessmentName": "n", "feedback": {"value": 1}, "traceId": "other",
                                                 "createTime": "1969-01-01T00:00:00.5+01:30"}})],
    "sources": [feedback(1, source=source) for source in (
        {}, {"source_type": "CODE"}, {"source_type": 2}, {"source_type": "LLM_JUDGE", "source_id": ""})],
    "nothing given": [Step("POST", PATH, {}), Step("POST", PATH, {"assessment": None}),
                      Step("POST", PATH, {"assessment": {}}), Step("POST", PATH, {"assessment": {"feedback": None}})],
    "an id of the client's": [feedback(1, assessment_id="mine <t>"[:40]), feedback(2, assessment_id="mine <t>"[:40]),
                              get("a"), delete("a"), get("a")],
    "overrides": [feedback(1, "a"), feedback(2, "b", overrides="<a>"), get("a"), get("b"), feedback(3, "c", overrides="<b>"),
                  get("b"), delete("c"), get("b"), delete("b"), get("a"), delete("b"), feedback(4, overrides="nobody")],
    "updates": [feedback(1, metadata={"a": "1", "b": "2"}, rationale="r", error=ERROR), update("feedback", feedback={"value": 2}),
                get(), update("rationale", rationale="new"), update("rationale"), get(),
                update("metadata", metadata={"b": "3", "c": "4"}), get(), update("metadata"), get(),
                update("assessmentName", assessment_name="other"), get(), update("assessmentName"), get(),
                update("feedback,rationale", feedback={"value": "yes", "error": {"error_code": "X"}}, rationale="x"), get(),
                update("nothing"), update("source", source={"source_type": "CODE"}), get(),
                update("feedback"), get(), update("expectation", expectation={"value": 1}),
                update("valid", valid=False), update("expectation", feedback={"value": 2})],
    "updates of an expectation": [expectation(1), update("expectation", expectation={"value": {"a": [1]}}), get(),
                                  update("expectation", expectation={"serialized_value": {
                                      "serialization_format": "JSON_FORMAT", "value": "[1, 2]"}}), get(),
                                  update("expectation"), update("feedback", feedback={"value": 1}),
                                  update("rationale", rationale="x"), get(),
                                  update("metadata,assessmentName", metadata={"a": "b"}, assessment_name="n"), get()],
    "bad updates": [feedback(1), Step("PATCH", f"{PATH}/<a>", {}), Step("PATCH", f"{PATH}/<a>", {"assessment": {}}),
                    Step("PATCH", f"{PATH}/<a>", {"assessment": {}, "update_mask": ""}),
                    Step("PATCH", f"{PATH}/<a>", {"update_mask": "feedback"}), get()],
    "nobody": [Step(method, path, {"assessment": {"feedback": {"value": 1}}, "update_mask": "feedback"} if given else None)
               for path in ("traces/tr-none/assessments/a", f"{PATH}/none")
               for method, given in (("GET", False), ("PATCH", True), ("DELETE", False))]
              + [create(path="traces/tr-none/assessments", feedback={"value": 1}),
                 create(path="traces/tr-none/assessments", feedback={"value": 1}, overrides="x")],
    "deleted": [feedback(1), delete(), get(), delete(), feedback(1)],
    "of a run": [feedback(1, metadata={"mlflow.assessment.sourceRunId": "<run>"}), get(),
                 feedback(1, "b", metadata={"mlflow.assessment.sourceRunId": "<run>", "k": "v"}), feedback(2, "c"),
                 feedback(1, "d", metadata={"mlflow.assessment.sourceRunId": "another"}),
                 update("metadata", "c", metadata={"mlflow.assessment.sourceRunId": "<run>"}), feedback(3, "e"),
                 Step("POST", "../../2.0/mlflow/runs/delete", {"run_id": "<run>"}), get("a"), get("d"), get("e")],
}  # fmt: skip
# Of what stock would store by half, or PostgreSQL's columns do not hold.
REFUSED = [
    feedback(1, assessment_name="n" * 251), feedback(1, span_id="s" * 51), feedback(1, assessment_id="a" * 51),
    feedback(1, source={"source_id": "s" * 251}), feedback(1, source={"source_type": "ROBOT"}),
    feedback(1, source={"source_type": 9}), feedback(1, create_time="yesterday"), feedback(1, rationale="a\0b"),
    feedback(1, metadata={"a": 1}), feedback(1, metadata={"mlflow.assessment.sourceRunId": "r" * 33}),
    feedback(1, expectation={"value": 1}), feedback("\ud800"), feedback(10**400), Step("POST", PATH, {"assessment": "x"}),
]  # fmt: skip


def tellers(pair: Pair) -> tuple[Teller, Teller]:
    """A trace and a run for a story, on each server."""
    trace = b"judged" + next(NUMBERS).to_bytes(10, "big")
    return new(pair.stock, trace), new(pair.headrace, trace)


def new(subject: Subject, trace: bytes) -> Teller:
    subject.request("POST", "/v1/traces", data=body(span(trace_id=trace)), headers=PROTOBUF)
    return Teller(subject, {"t": f"tr-{trace.hex()}", "run": subject.create_run()})


@pytest.mark.parametrize("name", STORIES)
def test_story(pair: Pair, name: str) -> None:
    tell(STORIES[name], *tellers(pair), TABLES)


@pytest.mark.parametrize("step", REFUSED, ids=range(len(REFUSED)))
def test_refused(pair: Pair, step: Step) -> None:
    _, headrace = tellers(pair)
    status, body, by = headrace.send(step)
    assert (status, by) == (400, "native"), body
    assert headrace.rows("assessments", "trace_id") == []


def test_deleted_with_an_experiment(pair: Pair) -> None:
    """What the runs of a deleted experiment have made, on traces of any experiment; nobody else's."""
    made = {}
    for teller in tellers(pair):
        post = partial(teller.subject.request, "POST")
        create_it = post(f"{API}experiments/create", json={"name": f"judges {next(NUMBERS)}"})
        ids = [create_it.json()["experiment_id"], "0"]
        for kind, experiment_id in zip(("gone", "kept"), ids, strict=True):
            given = {"experiment_id": experiment_id, "start_time": 1}
            run = post(f"{API}runs/create", json=given).json()["run"]["info"]["run_id"]
            for number in range(2):
                teller.send(
                    feedback(number, f"{kind}{number}", metadata={"a": "b", "mlflow.assessment.sourceRunId": run})
                )
        teller.send(feedback(9, "of nobody"))
        deleted = post(f"{API}experiments/delete", json={"experiment_id": ids[0]})
        assert deleted.status_code == 200
        rows = teller.subject.rows_of("assessments", "trace_id", [teller.ids["t"]])
        made[teller.subject] = sorted(
            name for name, id_ in teller.ids.items() for row in rows if row["assessment_id"] == id_
        )
        last = deleted.headers.get("headrace-answered-by")
    assert list(made.values()) == [["kept0", "kept1", "of nobody"]] * 2
    assert last == "native"


def test_many_at_once(pair: Pair) -> None:
    """Group commit lets none touch another: good and bad ones mixed, some of the same trace."""
    _, one = tellers(pair)
    _, other = tellers(pair)
    url = one.subject.server.url

    def post(number: int) -> int:
        trace = (one.ids["t"], other.ids["t"], "tr-none")[number % 3]
        given = {"assessment_name": str(number), "feedback": {"value": number}}
        if number % 10 == 1:
            given["overrides"] = "nobody"
        answer = requests.post(
            f"{url}/api/3.0/mlflow/traces/{trace}/assessments", json={"assessment": given}, timeout=60
        )
        return answer.status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(post, range(300)))
    good = [number for number in range(300) if number % 3 != 2 and number % 10 != 1]
    assert [number for number, status in enumerate(statuses) if status == 200] == good
    assert set(statuses) == {200, 404}
    rows = pair.headrace.rows_of("assessments", "trace_id", [one.ids["t"], other.ids["t"]])
    mine = {int(row["name"]): row for row in rows}
    assert sorted(mine) == good
    assert all(json.loads(row["value"]) == number for number, row in mine.items())
