"""Workspaces: what is in one is there in it, and from another as if it were not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import mlflow
import pytest
import requests
import sqlalchemy

from headrace.auth.objects import ModelVersionFiles, Target
from headrace.resources import all_endpoints
from headrace.settings import Settings
from tests.support.databases import BACKENDS, Database, Databases
from tests.support.servers import Server, start_headrace, start_stock

OURS, THEIRS = "team-a", "team-b"
TRACE = "tr-" + "5" * 32
METRIC = {"key": "m", "value": 1, "timestamp": 1, "step": 0}
ASSESSMENT = {
    "assessment_name": "good", "trace_id": TRACE, "feedback": {"value": True},
    "source": {"source_type": "HUMAN", "source_id": "me"},
}  # fmt: skip
LOCATION = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{experiment}"}}
TRACE_INFO = {
    "trace_id": TRACE, "trace_location": LOCATION, "request_time": "2026-01-01T00:00:00Z", "state": "OK",
    "execution_duration": "1s",
}  # fmt: skip
RUN, EXPERIMENT, MODEL, REQUEST = (
    {"run_id": "{run}"},
    {"experiment_id": "{experiment}"},
    {"name": "M"},
    {"request_id": TRACE},
)
VERSION = {"name": "M", "version": "1"}
SPAN = {
    "traceId": "5" * 32, "spanId": "1" * 16, "name": "s", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
}  # fmt: skip
# Every native endpoint that names an object, and a message that it takes; what ends something comes last.
MESSAGES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "2.0/mlflow/experiments/get", EXPERIMENT),
    ("GET", "2.0/mlflow/experiments/get-by-name", {"experiment_name": "E"}),
    ("POST", "2.0/mlflow/experiments/set-experiment-tag", EXPERIMENT | {"key": "k", "value": "v"}),
    ("POST", "2.0/mlflow/experiments/delete-experiment-tag", EXPERIMENT | {"key": "k"}),
    ("POST", "2.0/mlflow/experiments/update", EXPERIMENT | {"new_name": "E"}),
    ("POST", "2.0/mlflow/runs/create", EXPERIMENT),
    ("GET", "2.0/mlflow/runs/get", RUN),
    ("POST", "2.0/mlflow/runs/update", RUN | {"run_name": "r"}),
    ("POST", "2.0/mlflow/runs/log-metric", RUN | METRIC),
    ("POST", "2.0/mlflow/runs/log-parameter", RUN | {"key": "p", "value": "v"}),
    ("POST", "2.0/mlflow/runs/set-tag", RUN | {"key": "t", "value": "v"}),
    ("POST", "2.0/mlflow/runs/delete-tag", RUN | {"key": "t"}),
    ("POST", "2.0/mlflow/runs/log-batch", RUN | {"metrics": [METRIC]}),
    ("POST", "2.0/mlflow/runs/log-inputs", RUN | {"datasets": []}),
    ("POST", "2.0/mlflow/runs/outputs", RUN | {"models": []}),
    ("POST", "2.0/mlflow/runs/log-model", RUN | {"model_json": json.dumps({
        "run_id": "{run}", "artifact_path": "m", "utc_time_created": "2026-01-01 00:00:00.0", "flavors": {}})}),
    ("GET", "2.0/mlflow/metrics/get-history", RUN | {"metric_key": "m"}),
    ("GET", "2.0/mlflow/metrics/get-history-bulk", RUN | {"metric_key": "m"}),
    ("GET", "2.0/mlflow/metrics/get-history-bulk-interval", {"run_ids": "{run}", "metric_key": "m"}),
    ("POST", "2.0/mlflow/model-versions/create", {"name": "M", "source": "runs:/{run}/m", "run_id": "{run}"}),
    ("GET", "2.0/mlflow/model-versions/get", VERSION),
    ("GET", "2.0/mlflow/model-versions/get-download-uri", VERSION),
    ("PATCH", "2.0/mlflow/model-versions/update", VERSION | {"description": "d"}),
    ("POST", "2.0/mlflow/model-versions/transition-stage", VERSION | {"stage": "Staging"}),
    ("POST", "2.0/mlflow/model-versions/set-tag", VERSION | {"key": "k", "value": "v"}),
    ("DELETE", "2.0/mlflow/model-versions/delete-tag", VERSION | {"key": "k"}),
    ("GET", "2.0/mlflow/registered-models/get", MODEL),
    ("PATCH", "2.0/mlflow/registered-models/update", MODEL | {"description": "d"}),
    ("GET", "2.0/mlflow/registered-models/get-latest-versions", MODEL),
    ("POST", "2.0/mlflow/registered-models/get-latest-versions", MODEL),
    ("POST", "2.0/mlflow/registered-models/set-tag", MODEL | {"key": "k", "value": "v"}),
    ("DELETE", "2.0/mlflow/registered-models/delete-tag", MODEL | {"key": "k"}),
    ("POST", "2.0/mlflow/registered-models/alias", VERSION | {"alias": "best"}),
    ("GET", "2.0/mlflow/registered-models/alias", MODEL | {"alias": "best"}),
    ("DELETE", "2.0/mlflow/registered-models/alias", MODEL | {"alias": "best"}),
    ("POST", "3.0/mlflow/traces", {"trace": {"trace_info": TRACE_INFO}}),
    ("POST", "2.0/mlflow/traces", EXPERIMENT | {"timestamp_ms": 1}),
    ("PATCH", "2.0/mlflow/traces/{request_id}", REQUEST | {"timestamp_ms": 2, "status": "OK"}),
    ("PATCH", "3.0/mlflow/traces/{trace_id}/tags", {"trace_id": TRACE, "key": "k", "value": "v"}),
    ("PATCH", "2.0/mlflow/traces/{request_id}/tags", REQUEST | {"key": "k2", "value": "v"}),
    ("DELETE", "3.0/mlflow/traces/{trace_id}/tags", {"trace_id": TRACE, "key": "k"}),
    ("DELETE", "2.0/mlflow/traces/{request_id}/tags", REQUEST | {"key": "k2"}),
    ("POST", "2.0/mlflow/traces/link-to-run", RUN | {"trace_ids": [TRACE]}),
    ("POST", "2.0/mlflow/traces/link-prompts", {"trace_id": TRACE, "prompt_versions": [VERSION]}),
    ("POST", "/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}),
    ("GET", "3.0/mlflow/traces/get", {"trace_id": TRACE, "allow_partial": "true"}),
    ("GET", "3.0/mlflow/traces/batchGet", {"trace_ids": TRACE}),
    ("POST", "3.0/mlflow/traces/batchGetInfos", {"trace_ids": [TRACE]}),
    ("GET", "3.0/mlflow/traces/{trace_id}", {"trace_id": TRACE}),
    ("GET", "2.0/mlflow/traces/{request_id}/info", REQUEST),
    ("GET", "2.0/mlflow/get-trace-artifact", REQUEST),
    ("GET", "3.0/mlflow/get-trace-artifact", REQUEST),
    ("POST", "3.0/mlflow/traces/search", {"locations": [LOCATION]}),
    ("GET", "2.0/mlflow/traces", {"experiment_ids": "{experiment}"}),
    ("POST", "3.0/mlflow/traces/metrics", {
        "experiment_ids": ["{experiment}"], "view_type": "TRACES", "metric_name": "trace_count",
        "aggregations": [{"aggregation_type": "COUNT"}]}),
    ("POST", "3.0/mlflow/traces/calculate-filter-correlation", {
        "experiment_ids": ["{experiment}"], "filter_string1": "status = 'OK'", "filter_string2": "status = 'OK'"}),
    ("POST", "3.0/mlflow/traces/{trace_id}/assessments", {"trace_id": TRACE, "assessment": ASSESSMENT}),
    ("GET", "3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}", {
        "trace_id": TRACE, "assessment_id": "{assessment}"}),
    ("PATCH", "3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}", {
        "trace_id": TRACE, "assessment_id": "{assessment}", "update_mask": "rationale",
        "assessment": {"trace_id": TRACE, "assessment_id": "{assessment}", "rationale": "r"}}),
    ("DELETE", "3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}", {
        "trace_id": TRACE, "assessment_id": "{assessment}"}),
    ("POST", "2.0/mlflow/traces/delete-traces", EXPERIMENT | {"request_ids": ["tr-none"]}),
    ("POST", "3.0/mlflow/traces/delete-traces", EXPERIMENT | {"request_ids": [TRACE]}),
    ("DELETE", "2.0/mlflow/model-versions/delete", VERSION),
    ("POST", "2.0/mlflow/registered-models/rename", MODEL | {"new_name": "N"}),
    ("DELETE", "2.0/mlflow/registered-models/delete", {"name": "N"}),
    ("POST", "2.0/mlflow/runs/delete", RUN),
    ("POST", "2.0/mlflow/runs/restore", RUN),
    ("POST", "2.0/mlflow/experiments/delete", EXPERIMENT),
    ("POST", "2.0/mlflow/experiments/restore", EXPERIMENT),
]  # fmt: skip


class Team:
    """Requests in one workspace; `ids` fills the placeholders of messages."""

    def __init__(self, server: Server, workspace: str, ids: dict[str, str]) -> None:
        self.server, self.workspace, self.ids = server, workspace, ids

    def send(self, method: str, path: str, message: dict[str, Any]) -> requests.Response:
        text = json.dumps(message)
        for name, value in self.ids.items():
            text = text.replace(f"{{{name}}}", value)
        message = json.loads(text)
        headers = {"X-MLFLOW-WORKSPACE": self.workspace}
        if path.startswith("/"):
            headers["x-mlflow-experiment-id"] = self.ids["experiment"]
            url = self.server.url + path
        else:
            url = f"{self.server.url}/ajax-api/{path}".format(**message)  # more is there than below /api/
        how: dict[str, Any] = {"params": message} if method == "GET" else {"json": message}
        return requests.request(method, url, headers=headers, timeout=60, **how)


@pytest.fixture(scope="module", params=BACKENDS)
def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return databases.migrated(request.param)


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_headrace(database, tmp_path_factory.mktemp("workspaces"), "--enable-workspaces", until="/health")
    for name in (OURS, THEIRS):
        made = requests.post(f"{server.url}/api/3.0/mlflow/workspaces", json={"name": name}, timeout=120)
        assert made.status_code == 201, made.text
    yield server
    server.stop()


def test_nothing_is_reached_from_another_workspace(server: Server) -> None:
    """Each request is first sent from the other workspace, then from its own, where it does what it always does."""
    ours = Team(server, OURS, {})
    made = ours.send("POST", "2.0/mlflow/experiments/create", {"name": "E"})
    ours.ids["experiment"] = made.json()["experiment_id"]
    ours.ids["run"] = ours.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]["run_id"]
    assert ours.send("POST", "2.0/mlflow/registered-models/create", MODEL).status_code == 200
    theirs = Team(server, THEIRS, ours.ids)
    for method, path, message in MESSAGES:
        where = f"{method} {path}"
        from_there = theirs.send(method, path, message)
        assert from_there.status_code in (404, 400), f"{where}: {from_there.text}"
        assert from_there.status_code == 404 or "alias" in from_there.text, f"{where}: {from_there.text}"
        assert from_there.headers.get("headrace-answered-by") == "native", where
        here = ours.send(method, path, message)
        assert here.status_code == 200 or path.endswith("get-trace-artifact"), f"{where}: {here.text}"
        assert here.headers.get("headrace-answered-by") == "native", where
        if method == "POST" and path.endswith("assessments"):
            ours.ids["assessment"] = here.json()["assessment"]["assessment_id"]


def test_every_kind_of_object_has_a_workspace() -> None:
    """Endpoints that are not in MESSAGES pass the same check: it must know where each kind of what they name is."""
    known = {(method, path) for method, path, _ in MESSAGES}
    endpoints = all_endpoints(Settings())
    others = [each for each in endpoints if each.target.checked and (each.method, each.path) not in known]
    assert others
    kinds = {kind for each in others for kind in kinds_of(each.target)}
    of_stock = {"review-queue", "label-schema", "issue"}  # stock itself looks where they are: the test below
    assert kinds - of_stock == {"experiment", "run", "logged-model", "dataset", "model", "workspace"}


def test_what_stock_answers_by_id_is_not_reached_from_another_workspace(server: Server) -> None:
    ours, theirs = Team(server, OURS, {}), Team(server, THEIRS, {})
    experiment = ours.send("POST", "2.0/mlflow/experiments/create", {"name": "with reviews"}).json()["experiment_id"]
    of_it = {"experiment_id": experiment, "name": "n", "description": "d"}
    issue = ours.send("POST", "3.0/mlflow/issues", of_it).json()["issue"]["issue_id"]
    schema = of_it | {"type": "FEEDBACK", "input": {"text": {}}}
    schema = ours.send("POST", "3.0/mlflow/label-schemas/create", schema).json()["label_schema"]["schema_id"]
    queue = of_it | {"queue_type": "CUSTOM"}
    queue = ours.send("POST", "3.0/mlflow/review-queues/create", queue).json()["review_queue"]["queue_id"]
    for path in (f"issues/{issue}", f"label-schemas/get?schema_id={schema}", f"review-queues/get?queue_id={queue}"):
        answers = [team.send("GET", f"3.0/mlflow/{path}", {}) for team in (theirs, ours)]
        assert [answer.status_code for answer in answers] == [404, 200], path


def kinds_of(target: Target) -> set[str]:
    if isinstance(target, ModelVersionFiles):  # looked for in the workspace by name and version
        return {"model"}
    parts = getattr(target, "targets", ())
    return set().union(*map(kinds_of, parts)) if parts else {target.kind}


def test_searches_show_the_workspace(server: Server) -> None:
    searches: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "2.0/mlflow/experiments/search", {"max_results": 10}, "experiments"),
        ("GET", "2.0/mlflow/registered-models/search", {}, "registered_models"),
        ("GET", "2.0/mlflow/model-versions/search", {}, "model_versions"),
        ("POST", "2.0/mlflow/runs/search", {"experiment_ids": ["{experiment}", "{other}"]}, "runs"),
    ]
    ids: dict[str, str] = {}
    for name, key in ((OURS, "experiment"), (THEIRS, "other")):
        team = Team(server, name, ids)
        ids[key] = team.send("POST", "2.0/mlflow/experiments/create", {"name": "S"}).json()["experiment_id"]
        for _ in range(2):
            assert team.send("POST", "2.0/mlflow/runs/create", {"experiment_id": f"{{{key}}}"}).status_code == 200
        # the same name in both
        assert team.send("POST", "2.0/mlflow/registered-models/create", {"name": "S"}).status_code == 200
        source = {"name": "S", "source": f"s3://bucket/{name}"}
        assert team.send("POST", "2.0/mlflow/model-versions/create", source).status_code == 200
    for name, key, elsewhere in ((OURS, "experiment", THEIRS), (THEIRS, "other", OURS)):
        for method, path, message, field in searches:
            answer = Team(server, name, ids).send(method, path, message)
            assert answer.headers["headrace-answered-by"] == "native", path
            assert answer.json()[field], path
            assert elsewhere not in answer.text, path
        runs = Team(server, name, ids).send(*searches[3][:3]).json()["runs"]
        assert [run["info"]["experiment_id"] for run in runs] == [ids[key]] * 2
    for path, message in (
        ("2.0/mlflow/runs/search", {"experiment_ids": ["{other}"]}),
        ("2.0/mlflow/runs/search", {}),
        ("2.0/mlflow/experiments/search-datasets", {"experiment_ids": ["{other}"]}),
        ("2.0/mlflow/logged-models/search", {"experiment_ids": ["{other}"]}),
        ("3.0/mlflow/datasets/search", {"experiment_ids": ["{other}"]}),
        ("3.0/mlflow/datasets/search", {}),
    ):
        answer = Team(server, OURS, ids).send("POST", path, message)
        assert (answer.json(), answer.headers["headrace-answered-by"]) == ({}, "native"), path
    for name, key, elsewhere in ((OURS, "experiment", "other"), (THEIRS, "other", "experiment")):
        shown = Team(server, name, ids).send("GET", "/headrace/storage", {}).text
        assert f"experiments/{ids[key]}" in shown
        assert f"experiments/{ids[elsewhere]}" not in shown
    default = Team(server, "", ids)
    assert "S" not in [each["name"] for each in default.send(*searches[0][:3]).json()["experiments"]]


def test_what_is_named_beside_the_target_is_in_the_workspace(server: Server) -> None:
    """A run or a model that a version's files are said to be of, the trace of a span, the assessments of a trace."""
    ids: dict[str, str] = {}
    ours, theirs = Team(server, OURS, ids), Team(server, THEIRS, ids)
    for team, experiment in ((ours, "experiment"), (theirs, "other")):
        made = team.send("POST", "2.0/mlflow/experiments/create", {"name": "beside"})
        ids[experiment] = made.json()["experiment_id"]
    info = ours.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]
    model = ours.send("POST", "2.0/mlflow/logged-models", EXPERIMENT | {"name": "m"}).json()["model"]["info"]
    assert theirs.send("POST", "2.0/mlflow/registered-models/create", {"name": "beside"}).status_code == 200
    of_run = {"source": f"{info['artifact_uri']}/m", "run_id": info["run_id"]}
    of_model = {"source": model["artifact_uri"], "model_id": model["model_id"]}
    of_bucket = {"source": "s3://b/m", "model_id": model["model_id"]}
    for source, status in ((of_run, 400), (of_model, 400), (of_bucket, 404)):
        answer = theirs.send("POST", "2.0/mlflow/model-versions/create", {"name": "beside", **source})
        assert answer.status_code == status, answer.text
    assert "beside" not in ours.send("GET", "2.0/mlflow/logged-models/{model_id}", {"model_id": model["model_id"]}).text

    trace = "tr-" + "7" * 32
    started = {"trace": {"trace_info": TRACE_INFO | {"trace_id": trace}}}
    assert ours.send("POST", "3.0/mlflow/traces", started).status_code == 200
    assessed = {"trace_id": trace, "assessment": ASSESSMENT | {"trace_id": trace}}
    made = ours.send("POST", "3.0/mlflow/traces/{trace_id}/assessments", assessed).json()["assessment"]
    kept = ours.send("GET", "3.0/mlflow/traces/get", {"trace_id": trace, "allow_partial": "true"}).json()
    ids |= {"ours": ids["experiment"], "experiment": ids["other"]}
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN | {"traceId": "7" * 32}]}]}]}
    assert theirs.send("POST", "/v1/traces", spans).status_code == 403
    taken = {"trace": {"trace_info": TRACE_INFO | {"trace_id": "tr-" + "8" * 32, "assessments": [made]}}}
    assert theirs.send("POST", "3.0/mlflow/traces", taken).status_code == 400
    assert ours.send("GET", "3.0/mlflow/traces/get", {"trace_id": trace, "allow_partial": "true"}).json() == kept


def test_no_path_leads_to_the_artifacts_of_another_workspace(server: Server) -> None:
    """Stock looks at how a path begins: from the default workspace some of these lead to all others."""
    ids: dict[str, str] = {}
    ours = Team(server, OURS, ids)
    ids["experiment"] = ours.send("POST", "2.0/mlflow/experiments/create", {"name": "files"}).json()["experiment_id"]
    uri = ours.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]["artifact_uri"]
    folder = uri.removeprefix("mlflow-artifacts:/")
    assert folder.startswith(f"workspaces/{OURS}/")
    files = "/api/2.0/mlflow-artifacts/artifacts"
    assert _sent(server, "PUT", f"{files}/{folder}/a.txt", OURS, b"secret")[0] == 200
    rest = folder.removeprefix(f"workspaces/{OURS}/")
    ways = [
        folder, f"./{folder}", f"%2e/{folder}", f"%252e/{folder}", f"././{folder}", f"/{folder}", f".//{folder}",
        f"./workspaces//{OURS}/{rest}", f"%77orkspaces/{OURS}/{rest}", f"file:{folder}", f"file:./{folder}",
        f"x/../{folder}", f"../{folder}", f"workspaces/default/../{OURS}/{rest}",
    ]  # fmt: skip
    everything = ["workspaces", "./workspaces", "workspaces/.", f"workspaces/{OURS}", "%77orkspaces", ".", "%2e", "./"]
    for who in (THEIRS, ""):
        for way in ways:
            for method, target, body in (
                ("GET", f"{files}/{way}/a.txt", b""),
                ("GET", f"{files}?path={way}", b""),
                ("GET", f"{files}?path=x&path={way}", b""),
                ("GET", f"{files}?path={way}&path=x", b""),
                ("GET", files, json.dumps({"path": way}).encode()),
                ("PUT", f"{files}/{way}/a.txt", b"theirs"),
                ("DELETE", f"{files}/{way}/a.txt", b""),
                ("GET", f"/api/2.0/mlflow-artifacts/presigned/{way}/a.txt", b""),
                ("POST", f"/api/2.0/mlflow-artifacts/mpu/create/{way}", b'{"path": "a.txt", "num_parts": 1}'),
            ):
                text = _sent(server, method, target, who, body)[1]
                assert "secret" not in text, (who, method, target)
                assert '"path": "a.txt"' not in text, (who, method, target)
        for way in everything:
            status, _ = _sent(server, "DELETE", f"{files}/{way}", who)
            assert status >= 400 or who == THEIRS, (who, way)
            assert f'"path": "{OURS}"' not in _sent(server, "GET", f"{files}?path={way}", who)[1], (who, way)
    assert _sent(server, "GET", f"{files}/{folder}/a.txt", OURS) == (200, "secret")
    # a path of its own, however it is written, is no other's
    for who, way in (("", "7/x"), ("default", "7/y"), ("", "workspaces/default/7/x"), (OURS, "7/x")):
        assert _sent(server, "PUT", f"{files}/{way}/b.txt", who, b"mine")[0] == 200, way
        assert _sent(server, "GET", f"{files}/{way}/b.txt", who) == (200, "mine"), way
        assert "b.txt" in _sent(server, "GET", f"{files}?path={way}", who)[1], way
    assert '"7"' in _sent(server, "GET", files, "")[1]
    for way in ("7/" + "x" * 300, "7/./x", "7//x"):  # stock only fails at these
        for method, target in (("PUT", f"{files}/{way}"), ("GET", f"{files}/{way}"), ("GET", f"{files}?path={way}")):
            assert _sent(server, method, target, OURS, b"mine" if method == "PUT" else b"")[0] < 500, (method, way)


def _sent(server: Server, method: str, target: str, workspace: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text for a target that no client has put in order."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    headers = {"X-MLFLOW-WORKSPACE": workspace} if workspace else {}
    connection.request(method, target, body, headers | {"Content-Type": "application/json"} if body else headers)
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def test_which_workspace(server: Server) -> None:
    url = f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    for name, status, words in (
        ("", 200, '"Default"'),
        ("default", 200, '"Default"'),
        ("nowhere", 404, "Workspace 'nowhere' not found"),
        ("No", 400, "must match the pattern"),
        ("x", 400, "between 2 and 63"),
        ("workspaces", 400, "reserved"),
    ):
        answer = requests.get(url, headers={"X-MLFLOW-WORKSPACE": name}, timeout=60)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        info_url = f"{server.url}/api/3.0/mlflow/server-info"
        info = requests.get(info_url, headers={"X-MLFLOW-WORKSPACE": name}, timeout=60)
        assert info.json()["workspaces_enabled"], "what a client asks before it says that there is no such workspace"


Ask = Callable[[Server], Any]


@pytest.fixture(scope="module")
def database_of_stock(databases: Databases) -> Database:
    return databases.migrated("sqlite")


@pytest.fixture(scope="module")
def stock_says(database_of_stock: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Ask], Any]]:
    """What stock answers; it is asked once, for its answers change what it has."""
    server = start_stock(database_of_stock, tmp_path_factory.mktemp("stock"), "--enable-workspaces")
    for name in (OURS, THEIRS):
        made = requests.post(f"{server.url}/api/3.0/mlflow/workspaces", json={"name": name}, timeout=60)
        assert made.status_code == 201, made.text
    yield cache(lambda ask: ask(server))
    server.stop()


def elsewhere(server: Server) -> list[Any]:
    """What it says of things that are elsewhere, and where artifacts of a new experiment lie."""
    ids = {"experiment": "0"}
    default, theirs = Team(server, "", ids), Team(server, THEIRS, ids)
    ids["run"] = default.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]["run_id"]
    assert default.send("POST", "3.0/mlflow/traces", {"trace": {"trace_info": TRACE_INFO | {
        "trace_id": "tr-" + "6" * 32}}}).status_code == 200  # fmt: skip
    made = theirs.send("POST", "2.0/mlflow/experiments/create", {"name": "W"}).json()["experiment_id"]
    location = theirs.send("GET", "2.0/mlflow/experiments/get", {"experiment_id": made}).json()
    answers = [
        theirs.send("GET", "2.0/mlflow/experiments/get", EXPERIMENT),
        theirs.send("GET", "2.0/mlflow/runs/get", RUN),
        theirs.send("POST", "2.0/mlflow/runs/log-metric", RUN | METRIC),
        theirs.send("GET", "3.0/mlflow/traces/get", {"trace_id": "tr-" + "6" * 32}),
        theirs.send("POST", "2.0/mlflow/experiments/create", {"name": "X", "artifact_location": "s3://b/x"}),
    ]
    texts = [answer.text.replace(ids["run"], "RUN") for answer in answers]
    place = location["experiment"]["artifact_location"].removesuffix(made)
    return [place, *((answer.status_code, json.loads(text)) for answer, text in zip(answers, texts, strict=True))]


def test_stock_would_say_the_same(server: Server, stock_says: Callable[[Ask], Any]) -> None:
    assert elsewhere(server) == stock_says(elsewhere)


Story = list[tuple[str, str, Any]]
ROOT = "s3://bucket/root"
ARCHIVAL = {"trace_archival_config": {"location": "s3://archive/a", "retention": " 30d "}}
EVERYTHING = {"name": "full", "description": "", "default_artifact_root": f" {ROOT} ", **ARCHIVAL}
BODIES: list[Any] = [
    {}, {"name": None}, {"name": ""}, {"name": "W"}, {"name": "default"}, {"name": "api"}, {"name": "x"}, {"name": 5},
    {"name": "x" * 63, "description": "é"}, {"name": "x" * 64}, {"name": "-ab"}, EVERYTHING,
    {"name": "wa", "description": 1}, {"name": "wc", "default_artifact_root": " "},
    *({"name": f"root-{place}", "default_artifact_root": root} for place, root in enumerate((
        "/a/b", "relative", "file:///a/b", "mlflow-artifacts:/a", "mlflow-artifacts://host/a", "s3://b?x=1", "s3://b#x",
        "http://host/a", "gs://b/c", "runs:/abc", "s3:/a", "//host/a", "c:/a", "s3://" + "b" * 3000, 7))),
    *({"name": f"kept-{place}", "trace_archival_config": config} for place, config in enumerate((
        {}, None, 5, {"location": ""}, {"location": "relative"}, {"location": "mlflow-artifacts:/a"},
        *({"retention": text} for text in ("", "30d", "0d", "5", "5w", "1" * 32 + "d", "٣d")),
    ))),
]  # fmt: skip
W = "workspaces/ww"
CREATE: tuple[str, str, Any] = ("POST", "workspaces", {"name": "ww"})
GET: tuple[str, str, Any] = ("GET", W, None)
STORIES: dict[str, Story] = {
    "bodies": [("POST", "workspaces", body) for body in BODIES],
    "a life": [GET, ("PATCH", W, {"description": "d"}), ("DELETE", W, None), CREATE, GET, ("PATCH", W, {}),
               ("PATCH", W, {"description": "d"}), ("PATCH", W, ARCHIVAL | {"default_artifact_root": ROOT}), GET,
               ("PATCH", W, {"trace_archival_config": {"retention": ""}}),
               ("PATCH", W, {"default_artifact_root": "", "description": ""}), ("PATCH", W, {"name": "other"}), GET,
               ("DELETE", f"{W}?mode=ALL", None), ("DELETE", f"{W}?mode=RESTRICT", None), GET],
    "where its mode is": [CREATE, ("DELETE", W, {"mode": "ALL"}), CREATE, ("DELETE", f"{W}?mode=ALL", {}), GET,
                          ("DELETE", f"{W}?mode=CASCADE", {"mode": "ALL"}), GET],
    "the default one": [("GET", "workspaces/default", None), ("DELETE", "workspaces/default", None), ("PATCH",
                        "workspaces/default", {"description": "ours"}), ("PATCH", "workspaces/default", {
                        "description": ""}), ("GET", "workspaces/No", None), ("PATCH", "workspaces/x", {}),
                        ("DELETE", "workspaces/api", None)],
    "with something in it": [CREATE, ("POST", "@ww/experiments/create", {"name": "in w"}), ("POST",
                             "@ww/registered-models/create", {"name": "in w"}), ("POST", "@ww/model-versions/create", {
                             "name": "in w", "source": "s3://b/c"}), ("DELETE", W, None), ("DELETE",
                             f"{W}?mode=SET_DEFAULT", None), GET, ("GET", "@default/model-versions/search", None),
                             ("DELETE", "@default/registered-models/delete", {"name": "in w"})],
    "names that are taken": [CREATE, ("POST", "@ww/experiments/create", {"name": "taken"}), ("POST",
                             "@default/experiments/create", {"name": "taken"}), ("DELETE", f"{W}?mode=SET_DEFAULT",
                             None), ("POST", "@ww/registered-models/create", {"name": "taken"}), ("POST",
                             "@default/registered-models/create", {"name": "taken"}), ("DELETE",
                             f"{W}?mode=SET_DEFAULT", None), GET],
}  # fmt: skip
# ids, times, and the database's words that stock adds
_VARIES = re.compile(r'(?<="experiment_id":) ?"[0-9]+"|[0-9]{13}|(?<=already exists\.)(?: Error: [^"]*)?')


def tell(server: Server, story: Story) -> list[tuple[Any, ...]]:
    """Status and JSON of each step, the errors without the database's words; @NAME/ is in that workspace."""
    told = []
    for method, path, body in story:
        headers = {}
        if path.startswith("@"):
            headers["X-MLFLOW-WORKSPACE"], _, path = path[1:].partition("/")
        url = f"{server.url}/api/{'2.0' if headers else '3.0'}/mlflow/{path}"
        answer = requests.request(method, url, json=body, headers=headers, timeout=60)
        given = json.loads(_VARIES.sub("0", answer.text or "null"))
        refused = isinstance(given, dict) and given.get("error_code") == "INVALID_STATE"  # stock's 500 is a 400 here
        told.append((method, path, "refused" if refused else answer.status_code, given))
    return told


TELLERS: dict[str, Ask] = {name: partial(tell, story=story) for name, story in STORIES.items()}


@pytest.mark.parametrize("name", STORIES)
def test_workspaces_are_made_and_changed_as_in_stock(
    server: Server, stock_says: Callable[[Ask], Any], name: str
) -> None:
    tell_it = TELLERS[name]
    assert tell_it(server) == stock_says(tell_it)


def with_everything(server: Server, database: Database, workspace: str) -> None:
    """Make the workspace, and in it something in every table that MLflow keeps of a workspace."""
    requests.post(f"{server.url}/api/3.0/mlflow/workspaces", json={"name": workspace}, timeout=60).raise_for_status()
    here = Team(server, workspace, {})
    trace = f"tr-{uuid4().hex}"
    tags = [{"key": "k", "value": "v"}]

    def made(path: str, message: dict[str, Any]) -> Any:
        answer = here.send("POST", path, message)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    here.ids["experiment"] = made("2.0/mlflow/experiments/create", {"name": "E", "tags": tags})["experiment_id"]
    here.ids["run"] = made("2.0/mlflow/runs/create", EXPERIMENT)["run"]["info"]["run_id"]
    logged = {"metrics": [METRIC], "params": tags, "tags": tags}
    made("2.0/mlflow/runs/log-batch", RUN | logged)
    model = made("2.0/mlflow/logged-models", EXPERIMENT | {"name": "m", "params": tags, "tags": tags})
    here.ids["model"] = model["model"]["info"]["model_id"]
    of_model = {"model_id": "{model}"}
    made("2.0/mlflow/runs/log-metric", RUN | METRIC | of_model)
    data = {"name": "d", "digest": "1", "source_type": "local", "source": "y"}
    inputs = {"datasets": [{"tags": tags, "dataset": data}], "models": [of_model]}
    made("2.0/mlflow/runs/log-inputs", RUN | inputs)
    made("2.0/mlflow/runs/outputs", RUN | {"models": [of_model | {"step": 0}]})
    told = {"tags": {"a": "b"}, "trace_metadata": {"c": "d"}}
    made("3.0/mlflow/traces", {"trace": {"trace_info": TRACE_INFO | told | {"trace_id": trace}}})
    made(f"3.0/mlflow/traces/{trace}/assessments", {"assessment": ASSESSMENT | {"trace_id": trace}})
    span = SPAN | {"traceId": trace.removeprefix("tr-")}
    here.send("POST", "/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).raise_for_status()
    made("2.0/mlflow/traces/link-to-run", RUN | {"trace_ids": [trace]})
    made("2.0/mlflow/registered-models/create", MODEL | {"tags": tags})
    made("2.0/mlflow/model-versions/create", MODEL | {"source": "runs:/{run}/m", "run_id": "{run}", "tags": tags})
    made("2.0/mlflow/registered-models/alias", VERSION | {"alias": "best"})
    made("2.0/mlflow/traces/link-prompts", {"trace_id": trace, "prompt_versions": [VERSION]})
    dataset = {"name": "D", "experiment_ids": ["{experiment}"], "tags": json.dumps({"a": "b"})}
    of_it = made("3.0/mlflow/datasets/create", dataset)["dataset"]["dataset_id"]
    made(f"3.0/mlflow/datasets/{of_it}/records", {"records": json.dumps([{"inputs": {"a": 1}}])})
    made("3.0/mlflow/scorers/register", EXPERIMENT | {"name": "s", "serialized_scorer": json.dumps({"name": "x"})})
    made("3.0/mlflow/issues", EXPERIMENT | {
        "name": "i", "description": "d", "status": "pending", "severity": "low", "source_run_id": "{run}"})  # fmt: skip
    _insert_what_stock_alone_makes(database, workspace, here.ids["experiment"])


def _insert_what_stock_alone_makes(database: Database, workspace: str, experiment: str) -> None:
    [scorer] = database.query("SELECT scorer_id FROM scorers WHERE experiment_id = :id", id=int(experiment))
    given = {
        "workspace": workspace, "experiment_id": int(experiment), "scorer_version": 1, "scorer_id": scorer["scorer_id"],
        "name": f"in {workspace}", "secret_id": f"s-{workspace}", "secret_name": "s", "mcp_server_name": "m",
        "model_definition_id": f"m-{workspace}", "endpoint_id": f"e-{workspace}", "webhook_id": f"w-{workspace}",
        "guardrail_id": f"g-{workspace}", "job_id": f"j-{workspace}", "id": f"j-{workspace}", "status": "pending",
        "queue_id": f"q-{workspace}", "item_type": "trace", "queue_type": "user", "rollup_day": date(2026, 1, 1),
        "action_endpoint_id": f"e-{workspace}",
    }  # fmt: skip
    for table in (
        "secrets", "model_definitions", "endpoints", "endpoint_model_mappings", "endpoint_tags", "guardrails",
        "guardrail_configs", "budget_policies", "jobs", "job_locks", "mcp_servers", "mcp_server_tags", "webhooks",
        "webhook_events", "online_scoring_configs", "sql_trace_rollup_rebuild_queue", "sql_trace_metric_daily_rollups",
        "sql_span_cost_daily_rollups", "sql_assessment_daily_rollups", "label_schemas", "review_queues",
        "review_queue_items",
    ):  # fmt: skip
        insert(database, table, given)


def insert(database: Database, table: str, given: dict[str, Any]) -> None:
    """A row of which `given` says some columns; the others get a value of their kind where they need one."""
    with database.connect() as connection:
        columns = sqlalchemy.Table(table, sqlalchemy.MetaData(), autoload_with=connection)
        row = {}
        for column in columns.columns:
            python = column.type.python_type
            if column.name in given and isinstance(given[column.name], python):
                row[column.name] = given[column.name]
            elif not column.nullable and column.server_default is None and column.name != "id":
                row[column.name] = uuid4().hex[: getattr(column.type, "length", None)] if python is str else python()
        connection.execute(columns.insert().values(row))


def rows_of_all(database: Database) -> dict[str, int]:
    with database.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
    return {table: database.query(f"SELECT count(*) AS rows FROM {table}")[0]["rows"] for table in tables}


# what no foreign key holds to what it is of, and stock leaves behind
LEFT_BY_STOCK = {
    "inputs", "input_tags", "entity_associations", "sql_trace_rollup_rebuild_queue", "sql_trace_metric_daily_rollups",
    "sql_span_cost_daily_rollups", "sql_assessment_daily_rollups",
}  # fmt: skip
# MLflow's own, and what goes with the row of another table as the others of that one do
NOT_OF_IT = {
    "alembic_version", "scheduler_leases", "span_metrics", "trace_metrics", "endpoint_bindings",
    "review_queue_users", "review_queue_label_schemas", "mcp_access_endpoints", "mcp_server_aliases",
    "mcp_server_versions", "mcp_server_version_tags",
}  # fmt: skip


def deleted_with_all(server: Server, database: Database) -> dict[str, int]:
    """How many rows of each table are left of a workspace that was deleted with all that was in it, beside another."""
    with_everything(server, database, "stays")
    before = rows_of_all(database)
    with_everything(server, database, "goes")
    between = rows_of_all(database)
    if server.name == "stock":  # which answers 500 where there is one
        database.execute("DELETE FROM guardrail_configs WHERE workspace = 'goes'")
        database.execute("DELETE FROM guardrails WHERE workspace = 'goes'")
    url = f"{server.url}/api/3.0/mlflow/workspaces/goes?mode=CASCADE"
    gone = requests.delete(url, timeout=60)
    assert (gone.status_code, gone.text) == (204, "")
    assert gone.headers.get("headrace-answered-by", "native") == "native"
    assert requests.delete(url, timeout=60).status_code == 404
    after = rows_of_all(database)
    assert {table for table, rows in between.items() if rows == before[table]} <= NOT_OF_IT
    return {table: rows - before[table] for table, rows in after.items() if rows != before[table]}


@pytest.fixture(scope="module")
def left_by_stock(stock_says: Callable[[Ask], Any], database_of_stock: Database) -> dict[str, int]:
    left: dict[str, int] = stock_says(lambda stock: deleted_with_all(stock, database_of_stock))
    return left


def test_cascade_leaves_nothing(server: Server, database: Database, left_by_stock: dict[str, int]) -> None:
    assert set(left_by_stock) == LEFT_BY_STOCK
    assert not deleted_with_all(server, database)


FILES = "/api/2.0/mlflow-artifacts/artifacts"


def reading(server: Server) -> list[Any]:
    """Status and text of each way to files, from each workspace to each, without the ids."""
    told: list[Any] = []
    ids: dict[str, str] = {}
    folders: dict[str, tuple[str, str, str, str]] = {}

    def ask(method: str, path: str, workspace: str, data: bytes | None = None) -> None:
        headers = {"X-MLFLOW-WORKSPACE": workspace}
        answer = requests.request(method, server.url + path, headers=headers, data=data, timeout=60)
        text = json.dumps(answer.json(), sort_keys=True) if answer.text.startswith("{") else answer.text
        for name, value in ids.items():
            text, path = text.replace(value, name), path.replace(value, name)
        told.append((method, path, workspace, answer.status_code, text))
        if answer.status_code < 400 or "workspace" in answer.text:
            assert "stock" not in answer.headers.get("headrace-answered-by", ""), path

    names = ("default", OURS, THEIRS)
    for name in names:
        team = Team(server, name, {})
        made = team.send("POST", "2.0/mlflow/experiments/create", {"name": "F"})
        experiment = team.ids["experiment"] = made.json()["experiment_id"]
        run = team.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]
        model = team.send("POST", "2.0/mlflow/logged-models", EXPERIMENT | {"name": "m"}).json()["model"]["info"]
        made = team.send("POST", "2.0/mlflow/registered-models/create", {"name": "F"})
        assert made.status_code == 200, made.text
        source = {"name": "F", "source": f"{run['artifact_uri']}/d", "run_id": run["run_id"]}
        assert team.send("POST", "2.0/mlflow/model-versions/create", source).status_code == 200
        ids |= {f"RUN of {name}": run["run_id"], f"MODEL of {name}": model["model_id"]}
        ids |= {f"/EXPERIMENT of {name}/": f"/{experiment}/", f'"EXPERIMENT of {name}"': f'"{experiment}"'}
        root, files = (each["artifact_uri"].removeprefix("mlflow-artifacts:/") for each in (run, model))
        folders[name] = (run["run_id"], root, model["model_id"], files)
    for name, (_, root, _, files) in folders.items():
        for path in (f"{root}/f.txt", f"{root}/d/g.txt", f"{files}/m.txt", "loose.txt"):
            ask("PUT", f"{FILES}/{path}", name, name.encode())
        ask("GET", f"{FILES}/loose.txt", name)
    for run_id, root, model_id, _ in folders.values():
        api = "/ajax-api/2.0/mlflow"
        for name in names:
            ask("GET", f"{FILES}/{root}/f.txt", name)
            ask("GET", f"{FILES}?path={root}", name)
            ask("GET", f"/get-artifact?run_id={run_id}&path=f.txt", name)
            ask("GET", f"{api}/artifacts/list?run_id={run_id}&path=d", name)
            ask("GET", f"{api}/logged-models/{model_id}/artifacts/directories", name)
            ask("GET", f"{api}/logged-models/{model_id}/artifacts/files?artifact_file_path=m.txt", name)
            if name != "default":  # of which stock puts it where nobody looks
                ask("POST", f"{api}/upload-artifact?run_uuid={run_id}&path=from-{name}.txt", name, b"u")
            if name not in root:
                ask("PUT", f"{FILES}/{root}/f.txt", name, b"stolen")
                ask("DELETE", f"{FILES}/{root}/f.txt", name)
    for name in names:
        ask("GET", "/model-versions/get-artifact?name=F&version=1&path=g.txt", name)
        for path in (
            f"workspaces/{OURS}/none",
            f"workspaces/{THEIRS}/none",
            f"workspaces%2F{OURS}%2Fnone",
        ):
            ask("GET", f"{FILES}?path={path}", name)
        root = folders[name][1]
        ask("DELETE", f"{FILES}/{root}/f.txt", name)
        ask("GET", f"{FILES}?path={root}", name)
    return told


def test_files_are_a_workspaces_own(server: Server, stock_says: Callable[[Ask], Any]) -> None:
    assert reading(server) == stock_says(reading)


def test_files_stay_where_they_are_when_their_experiment_moves(server: Server) -> None:
    """Stock has them in the default workspace then, where it refuses their path."""
    made = requests.post(f"{server.url}/api/3.0/mlflow/workspaces", json={"name": "closed"}, timeout=60)
    assert made.status_code == 201
    team = Team(server, "closed", {})
    experiments = [
        team.send("POST", "2.0/mlflow/experiments/create", {"name": name}).json()["experiment_id"]
        for name in ("moves", "goes")
    ]
    team.ids["experiment"] = experiments[0]
    run = team.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]
    root = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    other = root.replace(f"/{experiments[0]}/", "/999999/")  # as of one that is gone for good
    assert team.send("POST", "2.0/mlflow/registered-models/create", {"name": "moves"}).status_code == 200
    source = {"name": "moves", "source": f"{run['artifact_uri']}", "run_id": run["run_id"]}
    assert team.send("POST", "2.0/mlflow/model-versions/create", source).status_code == 200

    def ask(method: str, path: str, workspace: str, data: bytes = b"") -> tuple[int, str]:
        headers = {"X-MLFLOW-WORKSPACE": workspace}
        answer = requests.request(method, server.url + path, headers=headers, data=data, timeout=60)
        return answer.status_code, answer.text

    for folder in (root, other):
        assert ask("PUT", f"{FILES}/{folder}/a.txt", "closed", b"kept")[0] == 200
        assert ask("GET", f"{FILES}/{folder}/a.txt", "default")[0] == 400
    gone = requests.delete(f"{server.url}/api/3.0/mlflow/workspaces/closed?mode=SET_DEFAULT", timeout=60)
    assert gone.status_code == 204
    assert ask("GET", f"{FILES}/{root}/a.txt", "default") == (200, "kept")
    assert '"a.txt"' in ask("GET", f"{FILES}?path={root}", "default")[1]
    assert ask("GET", f"/get-artifact?run_id={run['run_id']}&path=a.txt", "default") == (200, "kept")
    assert ask("GET", "/model-versions/get-artifact?name=moves&version=1&path=a.txt", "default") == (200, "kept")
    assert ask("GET", f"{FILES}/{other}/a.txt", "default")[0] == 400
    assert ask("GET", f"{FILES}/{root}/a.txt", OURS)[0] == 400


def test_what_the_ui_uploads_lies_with_its_run(server: Server) -> None:
    for name in ("default", OURS):
        team = Team(server, name, {"experiment": "0"})
        if name != "default":
            made = team.send("POST", "2.0/mlflow/experiments/create", {"name": "uploads"})
            team.ids["experiment"] = made.json()["experiment_id"]
        run_id = team.send("POST", "2.0/mlflow/runs/create", EXPERIMENT).json()["run"]["info"]["run_id"]
        url, headers = f"{server.url}/ajax-api/2.0/mlflow", {"X-MLFLOW-WORKSPACE": name}
        sent = requests.post(
            f"{url}/upload-artifact?run_uuid={run_id}&path=a.txt", data=b"a", headers=headers, timeout=60
        )
        assert (sent.status_code, sent.headers["headrace-answered-by"]) == (200, "native")
        found = requests.get(f"{url}/artifacts/list?run_id={run_id}", headers=headers, timeout=60)
        assert [each["path"] for each in found.json()["files"]] == ["a.txt"]


QUERIES = {
    "mlflowGetRun": ("runId", "GetRun", "run { info { runName status } experiment { name } modelVersions { name } }"),
    "mlflowGetExperiment": ("experimentId", "GetExperiment", "experiment { name }"),
    "mlflowSearchRuns": ("experimentIds", "SearchRuns", "runs { info { runName } experiment { name } }"),
}


def queries(server: Server) -> list[Any]:
    """What the UI's queries find, from each workspace of each."""
    names = ("default", OURS, THEIRS)
    ids: dict[str, tuple[str, str]] = {}
    for name in names:
        team = Team(server, name, {})
        made = team.send("POST", "2.0/mlflow/experiments/create", {"name": f"queried in {name}"})
        team.ids["experiment"] = made.json()["experiment_id"]
        run = team.send("POST", "2.0/mlflow/runs/create", EXPERIMENT | {"run_name": f"run in {name}"}).json()
        ids[name] = (team.ids["experiment"], run["run"]["info"]["run_id"])
    told = []
    for root, (field, kind, selection) in QUERIES.items():
        query = f"query A($data: Mlflow{kind}Input!) {{ {root}(input: $data) {{ {selection} apiError {{ code }} }} }}"
        for of in names:
            experiment, run_id = ids[of]
            everywhere = [each for each, _ in ids.values()]
            given: Any = {"runId": run_id, "experimentId": experiment, "experimentIds": everywhere}[field]
            for workspace in names:
                body = {"query": query, "variables": {"data": {field: given}}}
                headers = {"X-MLFLOW-WORKSPACE": workspace}
                answer = requests.post(f"{server.url}/graphql", json=body, headers=headers, timeout=60)
                told.append((root, of, workspace, answer.status_code, answer.json()["data"]))
                if of == workspace:
                    assert answer.headers.get("headrace-answered-by") in (None, "native"), answer.text
    return told


def test_queries_find_what_is_in_the_workspace(server: Server, stock_says: Callable[[Ask], Any]) -> None:
    assert queries(server) == stock_says(queries)


def test_mlflows_client(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_WORKSPACE", OURS)
    (tmp_path / "note.txt").write_text("hello")
    with mlflow.start_run(experiment_id=mlflow.create_experiment("by the client")) as run:
        mlflow.log_metric("m", 1)
        mlflow.log_artifact(str(tmp_path / "note.txt"))
    client = mlflow.MlflowClient(server.url)
    assert "/workspaces/team-a/" in client.get_run(run.info.run_id).info.artifact_uri
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    monkeypatch.setenv("MLFLOW_WORKSPACE", THEIRS)
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        client.get_run(run.info.run_id)
    with pytest.raises(mlflow.exceptions.MlflowException):
        client.list_artifacts(run.info.run_id)
    for path in (
        f"get-artifact?path=note.txt&run_id={run.info.run_id}",
        f"ajax-api/2.0/mlflow/get-artifact?path=note.txt&run_uuid={run.info.run_id}",
    ):
        answer = requests.get(f"{server.url}/{path}", headers={"X-MLFLOW-WORKSPACE": THEIRS}, timeout=60)
        assert answer.status_code in (403, 404), answer.text
