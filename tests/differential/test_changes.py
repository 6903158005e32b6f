"""Experiments and runs changed as a whole: the same requests to both servers, the same answers and rows."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.differential.conftest import Pair
from tests.differential.harness import Subject

API = "/api/2.0/mlflow/"
QUERIES = {
    "experiments": "SELECT name, lifecycle_stage, artifact_location, workspace FROM experiments"
    " WHERE experiment_id = :id",
    "experiment_tags": "SELECT key, value FROM experiment_tags WHERE experiment_id = :id",
    "runs": "SELECT name, lifecycle_stage, deleted_time IS NULL AS kept FROM runs WHERE experiment_id = :id",
    "datasets": "SELECT name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile"
    " FROM datasets WHERE experiment_id = :id",
    "inputs": "SELECT d.name, i.source_type, i.destination_type, r.name AS run, i.step, t.name AS tag, t.value"
    " FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id JOIN runs r ON r.run_uuid = i.destination_id"
    " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid WHERE r.experiment_id = :id",
    "models": "SELECT r.name AS run, i.source_type, i.destination_type, i.destination_id, i.step"
    " FROM inputs i JOIN runs r ON r.run_uuid = i.source_id WHERE r.experiment_id = :id",
    "tags": "SELECT r.name AS run, t.key, t.value FROM tags t JOIN runs r USING (run_uuid) WHERE r.experiment_id = :id",
}
NUMBERS = itertools.count()


def train(name: str = "train", digest: str = "d", tags: Any = (), **more: Any) -> dict[str, Any]:
    dataset = {"name": name, "digest": digest, "source_type": "local", "source": "{}", **more}
    return {"dataset": dataset, "tags": [{"key": key, "value": value} for key, value in tags]}


def model(**more: Any) -> str:
    content = {"run_id": R, "artifact_path": "model", "utc_time_created": "2024-01-02 03:04:05.678901"}
    flavors = {"python_function": {"loader_module": "日本", "config": {"a": 1}}, "odd": 1.5}
    return json.dumps({**content, "flavors": flavors, "mlflow_version": "2.9.2", "model_uuid": "u", **more})


def schema(*columns: Any) -> str:
    return json.dumps(columns)


A_LONG = {"type": "long", "name": "a"}
A_TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
A_STRING = {"type": "string"}
AN_OBJECT = {
    "type": "object",
    "properties": {"role": A_STRING, "parts": {"type": "array", "items": A_STRING, "required": False}},
}
A_PARAM = {"name": "a", "type": "string", "default": "a", "shape": None}
FLAGS = {"is_signature_from_type_hint": False, "type_hint_from_example": False}
SIGNATURES: list[dict[str, Any]] = [
    {"inputs": schema(A_LONG)},
    {"inputs": schema({**A_LONG, "required": False}, {"type": "string", "name": "日本"}), "outputs": None},
    {"inputs": None, "outputs": schema({"type": "double", "required": True}, {"type": "datetime"}), "params": None},
    {"inputs": schema(A_TENSOR), "outputs": schema({**A_TENSOR, "name": "a"}, {**A_TENSOR, "name": "b"})},
    {
        "inputs": schema(
            {"type": "array", "items": A_STRING, "name": "a"}, {**AN_OBJECT, "name": "b", "required": False}
        )
    },
    {"inputs": schema({"type": "array", "items": AN_OBJECT}), "outputs": schema({"type": "any"})},
    {"inputs": schema({"type": "map", "values": {"type": "map", "values": {"type": "any"}}})},
    {"inputs": schema({"type": "sparkml_vector"}), "outputs": schema({"type": "array", "items": {"type": "any"}})},
    {
        "inputs": schema(A_LONG),
        "params": schema(
            *(
                A_PARAM | {"name": str(each), "type": kind, "default": each}
                for kind, each in [
                    ("boolean", True),
                    ("integer", -1),
                    ("double", 1e-3),
                    ("string", ""),
                    ("string", None),
                ]
            )
        ),
    },
    {"params": schema({**A_PARAM, "shape": [-1], "default": ["a", "b"]}, {"name": "b", "type": "long", "default": 1})},
]
REFUSED_SIGNATURES: dict[str, Any] = {
    "nothing": {},
    "another type": {"inputs": schema({"type": "number"})},
    "no schema": {"inputs": "{"},
    "an empty schema": {"inputs": schema()},
    "half named": {"inputs": schema(A_LONG, {"type": "long"})},
    "unnamed and optional": {"inputs": schema({"type": "long", "required": False})},
    "tensors and columns": {"inputs": schema(A_TENSOR, {"type": "long"})},
    "two tensors without names": {"inputs": schema(A_TENSOR, A_TENSOR)},
    "a dtype that there is not": {"inputs": schema({"type": "tensor", "tensor-spec": {"dtype": "none", "shape": [1]}})},
    "no dict": "text",
    "an array of nothing": {"inputs": schema({"type": "array"})},
    "an array of a number": {"inputs": schema({"type": "array", "items": {"type": "number"}})},
    "an empty object": {"inputs": schema({"type": "object", "properties": {}})},
    "a vector as a property": {"inputs": schema({"type": "object", "properties": {"a": {"type": "sparkml_vector"}}})},
    "a map without values": {"inputs": schema({"type": "map", "items": A_STRING})},
    "a column of more": {"inputs": schema({**A_LONG, "items": A_STRING})},
    "a param without default": {"params": schema({"name": "a", "type": "long"})},
    "a param of another type": {"params": schema({**A_PARAM, "type": "long"})},
    "a binary param": {"params": schema({**A_PARAM, "type": "binary"})},
    "a param of two dimensions": {"params": schema({**A_PARAM, "shape": [2, 2], "default": []})},
    "a list without shape": {"params": schema({**A_PARAM, "default": ["a"]})},
    "a param twice": {"params": schema(A_PARAM, A_PARAM)},
}
E, R, R2 = "{experiment}", "{run}", "{other run}"
Step = tuple[str, Any]
NATIVE: dict[str, list[Step]] = {
    "create": [
        ("experiments/create", {"name": "another {number}"}),
        ("experiments/create", {"name": "日本 ' {number}", "tags": [{"key": "a", "value": "1"}, {"key": "b"}]}),
    ],
    "tags": [
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "a", "value": "1"}),
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "a", "value": "日本 '\""}),
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "mlflow.note.content", "value": "x" * 20_000}),
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "empty"}),
        ("experiments/delete-experiment-tag", {"experiment_id": E, "key": "a"}),
    ],
    "a view that the UI saves": [
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "mlflow.tracesV4ViewState.1", "value": "{}"})
    ],
    "rename": [("experiments/update", {"experiment_id": E, "new_name": "new {number}"})],
    "delete and restore an experiment": [
        ("experiments/delete", {"experiment_id": E}),
        ("experiments/restore", {"experiment_id": E}),
        ("experiments/delete", {"experiment_id": E}),
    ],
    "delete a run": [("runs/delete", {"run_id": R}), ("runs/delete", {"run_id": R})],
    "restore a run": [
        ("runs/restore", {"run_id": R}),
        ("runs/delete", {"run_id": R}),
        ("runs/restore", {"run_id": R}),
    ],
    "inputs": [
        ("runs/log-inputs", {"run_id": R, "datasets": [train()]}),
        ("runs/log-inputs", {"run_id": R, "datasets": [train(), train("eval", tags=[("a", "b"), ("c", "")])]}),
        ("runs/log-inputs", {"run_id": R2, "datasets": [train(source="other", tags=[("x", "y")]), train()]}),
        ("runs/log-inputs", {"run_id": R2, "datasets": [train(digest="e", schema="", profile="{}")]}),
        ("runs/log-inputs", {"run_id": R2, "datasets": []}),
        ("runs/log-inputs", {"run_id": R2}),
    ],
    "models that went into a run": [
        ("runs/log-inputs", {"run_id": R, "models": [{"model_id": "m-1"}, {"model_id": "m-1"}]}),
        ("runs/log-inputs", {"run_id": R, "models": [{"model_id": "m-2"}, {"model_id": "m-1"}], "datasets": [train()]}),
        ("runs/log-inputs", {"run_id": R2, "models": [{"model_id": "m-1"}]}),
    ],
    "models that a run made": [
        ("runs/outputs", {"run_id": R, "models": [{"model_id": "m-2", "step": 3}, {"model_id": "m-1"}]}),
        ("runs/outputs", {"run_id": R, "models": [{"model_id": "m-3", "step": "-5"}]}),
        ("runs/outputs", {"run_id": R2, "models": [{"model_id": "m-1", "step": 2**53 + 1}]}),
    ],
    "models, as clients before MLflow 3 log them": [
        ("runs/log-model", {"run_id": R, "model_json": model()}),
        ("runs/log-model", {"run_id": R, "model_json": model(signature=None, model_uuid=None, metadata={"a": 1})}),
        ("runs/log-model", {"run_id": R2, "model_json": model(flavors={})}),
    ],
    "models with a signature": [
        ("runs/log-model", {"run_id": R, "model_json": model(signature=each, **FLAGS)}) for each in SIGNATURES
    ],
}
DECLINED: dict[str, list[Step]] = {
    "no new name": [("experiments/create", {})],
    "an empty new name": [("experiments/create", {"name": ""})],
    "a long new name": [("experiments/create", {"name": "x" * 501})],
    "a bad key of a new experiment": [("experiments/create", {"name": "q {number}", "tags": [{"key": ".."}]})],
    "a location": [("experiments/create", {"name": "at {number}", "artifact_location": "s3://bucket/{number}"})],
    "a bad location": [("experiments/create", {"name": "at {number}", "artifact_location": "s3://a/../b"})],
    "a tag of a deleted experiment": [
        ("experiments/delete", {"experiment_id": E}),
        ("experiments/set-experiment-tag", {"experiment_id": E, "key": "a", "value": "1"}),
    ],
    "a tag of no experiment": [("experiments/set-experiment-tag", {"experiment_id": "999999", "key": "a"})],
    "a long tag": [("experiments/set-experiment-tag", {"experiment_id": E, "key": "a", "value": "x" * 20_001})],
    "a bad key": [("experiments/set-experiment-tag", {"experiment_id": E, "key": "a/../b", "value": "x"})],
    "a tag that is not there": [("experiments/delete-experiment-tag", {"experiment_id": E, "key": "a"})],
    "rename a deleted experiment": [
        ("experiments/delete", {"experiment_id": E}),
        ("experiments/update", {"experiment_id": E, "new_name": "new {number}"}),
    ],
    "an empty name": [("experiments/update", {"experiment_id": E, "new_name": ""})],
    "no name": [("experiments/update", {"experiment_id": E})],
    "delete twice": [("experiments/delete", {"experiment_id": E}), ("experiments/delete", {"experiment_id": E})],
    "restore an active experiment": [("experiments/restore", {"experiment_id": E})],
    "an id that is none": [("experiments/delete", {"experiment_id": "x"})],
    "no run": [("runs/delete", {"run_id": "0" * 32})],
    "restore no run": [("runs/restore", {"run_id": "0" * 32})],
    "inputs of a deleted run": [
        ("runs/delete", {"run_id": R}),
        ("runs/log-inputs", {"run_id": R, "datasets": [train()]}),
    ],
    "a long name": [("runs/log-inputs", {"run_id": R, "datasets": [train("x" * 501)]})],
    "a long digest": [("runs/log-inputs", {"run_id": R, "datasets": [train(digest="x" * 37)]})],
    "a long tag of an input": [("runs/log-inputs", {"run_id": R, "datasets": [train(tags=[("a", "x" * 501)])]})],
    "no dataset": [("runs/log-inputs", {"run_id": R, "datasets": [{"tags": []}]})],
    "outputs of a deleted run": [
        ("runs/delete", {"run_id": R}),
        ("runs/outputs", {"run_id": R, "models": [{"model_id": "m-1", "step": 1}]}),
    ],
    "inputs of a run whose id is none": [
        ("runs/log-inputs", {"run_id": each, "datasets": [train()]}) for each in ("-", "a b", "a/b", "x" * 257, "")
    ],
    "no outputs": [("runs/outputs", {"run_id": R, "models": []})],
    "a model of a deleted run": [
        ("runs/delete", {"run_id": R}),
        ("runs/log-model", {"run_id": R, "model_json": model()}),
    ],
    "a model of no run": [("runs/log-model", {"run_id": "0" * 32, "model_json": model()})],
    "a model that is no JSON": [("runs/log-model", {"run_id": R, "model_json": "{"})],
    "a model without flavors": [("runs/log-model", {"run_id": R, "model_json": json.dumps({"run_id": R})})],
    "a model too long for a tag": [("runs/log-model", {"run_id": R, "model_json": model(flavors={"a": "x" * 8_000})})],
    "no source": [("runs/log-inputs", {"run_id": R, "datasets": [{"dataset": {"name": "a", "digest": "b"}}]})],
}


class Place:
    """An experiment with two runs on one server."""

    def __init__(self, subject: Subject, number: int) -> None:
        self._subject = subject
        self.number = number
        self.ids = {"{number}": str(number)}
        self.ids[E] = self.post("experiments/create", {"name": f"experiment {number}"})[1]["experiment_id"]
        for run in (R, R2):
            body = {"experiment_id": self.ids[E], "run_name": run.strip("{}"), "user_id": "me"}
            self.ids[run] = self.post("runs/create", body)[1]["run"]["info"]["run_id"]

    def post(self, endpoint: str, body: Any) -> tuple[int, Any, str | None]:
        text = json.dumps(body, ensure_ascii=False)
        for placeholder, value in self.ids.items():
            text = text.replace(placeholder, value)
        response = self._subject.session.post(
            self._subject.server.url + API + endpoint,
            data=text.encode(),
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        answer = response.text
        for placeholder in (R, R2):
            answer = answer.replace(self.ids.get(placeholder, placeholder), placeholder)
        return response.status_code, json.loads(answer), response.headers.get("headrace-answered-by")

    def runs(self) -> list[Any]:
        """What went into the two runs and came out of them, as runs/get and runs/search show it."""
        url = f"{self._subject.server.url}{API}runs/get?run_id="
        shown = [self._subject.session.get(url + self.ids[run], timeout=60).json()["run"] for run in (R, R2)]
        search = {"experiment_ids": [self.ids[E]], "run_view_type": "ALL", "order_by": ["attributes.run_name"]}
        shown += self.post("runs/search", search)[1].get("runs", [])
        return [_unordered([run["inputs"], run["outputs"]]) for run in shown]

    def rows(self) -> dict[str, list[str]]:
        found = {table: self._subject.query(query, id=int(self.ids[E])) for table, query in QUERIES.items()}
        named = {f":/{self.ids[E]}'": ":/{experiment}'", self.ids[R]: R, self.ids[R2]: R2}

        def text(row: dict[str, Any]) -> str:
            said = repr(sorted(row.items()))
            for value, name in named.items():
                said = said.replace(value, name)
            return said

        return {table: sorted(map(text, rows)) for table, rows in found.items()}


def _unordered(value: Any) -> Any:
    """Lists that the database orders as it likes, in an order of ours."""
    if isinstance(value, dict):
        return {key: _unordered(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted(map(_unordered, value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def play(pair: Pair, steps: list[Step], refused: bool = False) -> str | None:
    """Who answered the last step on Headrace; AssertionError where the servers differ."""
    number = next(NUMBERS)
    stock, headrace = Place(pair.stock, number), Place(pair.headrace, number)
    answered_by = None
    for endpoint, body in steps:
        expected, found = stock.post(endpoint, body), headrace.post(endpoint, body)
        # ids of experiments are numbers: an error that names one is compared without
        for place, answer in ((stock, expected), (headrace, found)):
            if "message" in answer[1]:
                answer[1]["message"] = answer[1]["message"].replace(place.ids[E], E)
        if endpoint == "experiments/create" and found[0] == 200:
            stock.ids[E], headrace.ids[E] = expected[1].pop("experiment_id"), found[1].pop("experiment_id")
        if refused and 400 <= found[0] < 500:
            return found[2]  # Headrace may name the fault more plainly, or first; nothing is done
        assert found[:2] == expected[:2], (endpoint, body)
        answered_by = found[2]
    assert headrace.rows() == stock.rows()
    assert headrace.runs() == stock.runs()
    return answered_by


@pytest.mark.parametrize("name", NATIVE)
def test_native(pair: Pair, name: str) -> None:
    assert play(pair, NATIVE[name]) == "native"


@pytest.mark.parametrize("name", DECLINED)
def test_declined(pair: Pair, name: str) -> None:
    assert play(pair, DECLINED[name], refused=True) in (None, "native", "stock")


@pytest.mark.parametrize("what", REFUSED_SIGNATURES)
def test_a_signature_that_is_none(pair: Pair, what: str) -> None:
    place = Place(pair.headrace, next(NUMBERS))  # stock answers some with a page of HTML
    before = place.rows()
    body = {"run_id": R, "model_json": model(signature=REFUSED_SIGNATURES[what])}
    status, answer, _ = place.post("runs/log-model", body)
    assert 400 <= status < 500
    assert "error_code" in answer
    assert place.rows() == before


def test_a_name_that_is_taken(pair: Pair) -> None:
    for subject in (pair.stock, pair.headrace):
        place = Place(subject, next(NUMBERS))
        taken: list[Step] = [
            ("experiments/update", {"experiment_id": E, "new_name": "Default"}),
            ("experiments/create", {"name": "Default"}),
        ]
        for endpoint, body in taken:
            status, answer, answered_by = place.post(endpoint, body)
            assert status >= 400
            assert "error_code" in answer
            assert answered_by in (None, "native")


def test_a_run_that_has_made_assessments(pair: Pair) -> None:
    place = Place(pair.headrace, next(NUMBERS))
    metadata = json.dumps({"mlflow.assessment.sourceRunId": place.ids[R]})
    database = pair.headrace.database
    trace = f"tr-{place.number}"
    database.execute(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status)"
        " VALUES (:trace, :experiment, 1, 'OK')",
        trace=trace,
        experiment=int(place.ids[E]),
    )
    database.execute(
        "INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, created_timestamp,"
        " last_updated_timestamp, source_type, valid, assessment_metadata)"
        " VALUES (:trace, :trace, 'x', 'feedback', '1', 1, 1, 'HUMAN', true, :metadata)",
        trace=trace,
        metadata=metadata,
    )
    assert place.post("runs/delete", {"run_id": R2})[2] == "native"
    assert place.post("runs/delete", {"run_id": R}) == (200, {}, "native")
    assert not database.query("SELECT * FROM assessments WHERE trace_id = :trace", trace=trace)
