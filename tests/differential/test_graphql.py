"""GraphQL: the query texts of the installed UI, answered natively and as stock answers them; all others by stock."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import requests

from headrace.ui.files import build_folder
from tests.differential.reading import TIMEOUT_SECONDS, Readers

MODEL = "churn's model"


@cache
def query_texts() -> dict[str, str]:
    """The queries in the UI's JavaScript by their names, with the __typename that Apollo adds to each selection."""
    found = {}
    for script in (build_folder() / "static" / "js").glob("*.js"):
        for text in re.findall(r"`\n  (query \w+\([^`]*)`", script.read_text()):
            found[text.split("(")[0].split()[1]] = with_typename(text)
    return found


def with_typename(text: str) -> str:
    text = text.replace("__typename", "")
    parts, depth = [], 0
    for part in re.split(r"([{}])", text):
        depth += {"{": 1, "}": -1}.get(part, 0)
        # the selection of the operation itself gets none
        parts.append("__typename }" if part == "}" and depth >= 1 else part)
    return "".join(parts)


def send(readers: Readers, body: Any) -> tuple[Any, str]:
    """The answer of both, which is the same, and who gave it on Headrace."""
    answers = [requests.post(f"{url}/graphql", json=body, timeout=TIMEOUT_SECONDS) for url in readers.urls]
    stock, headrace = answers
    if stock.status_code == 500:  # a page of HTML; Headrace says what is wrong
        assert (headrace.status_code, headrace.json()["error_code"]) == (400, "BAD_REQUEST")
        assert headrace.json()["error_class"] == "INVALID_PARAMETER_VALUE"  # as of every error since MLflow 3.10
        return None, "stock"
    assert headrace.status_code == stock.status_code
    expected, found = (in_order(answer.json()) for answer in answers)
    assert found == expected
    return found, headrace.headers["headrace-answered-by"]


def in_order(value: Any) -> Any:
    """Stock gives metrics, params, tags and datasets as the database does, in no order; runs and versions have one."""
    if isinstance(value, dict):
        return {
            name: sorted(map(in_order, below), key=repr)
            if name in ("metrics", "params", "tags", "datasetInputs")
            else in_order(below)
            for name, below in value.items()
        }
    return [in_order(item) for item in value] if isinstance(value, list) else value


def ask(name: str, given: dict[str, Any], variable: str = "data") -> dict[str, Any]:
    """A request as the UI sends it."""
    return {"operationName": name, "variables": {variable: given}, "query": query_texts()[name]}


@pytest.fixture(scope="module")
def runs(readers: Readers) -> list[str]:
    """Every run, the first of them with model versions."""
    found: list[str] = []
    for view in ("ACTIVE_ONLY", "DELETED_ONLY"):
        search = {"experiment_ids": readers.experiments, "run_view_type": view, "max_results": 1000}
        answer = readers.compare("runs/search", search)
        found += [run["info"]["run_id"] for run in answer.get("runs", [])]
    post = f"{readers.urls[0]}/api/2.0/mlflow/"
    requests.post(f"{post}registered-models/create", json={"name": MODEL}, timeout=TIMEOUT_SECONDS).raise_for_status()
    for number in (0, 1, 0, 0):
        tags = [{"key": "stage", "value": "größe"}, {"key": "b", "value": ""}][:number]
        version = {"name": MODEL, "source": f"s3://bucket/{number}", "run_id": found[number], "tags": tags}
        url = f"{post}model-versions/create"
        requests.post(url, json=version, timeout=TIMEOUT_SECONDS).raise_for_status()
    deleted = {"name": MODEL, "version": "3"}
    requests.delete(f"{post}model-versions/delete", json=deleted, timeout=TIMEOUT_SECONDS).raise_for_status()
    return found


def test_the_ui_has_the_queries_that_are_tested_here() -> None:
    # the UI has GetMetricHistoryBulkInterval switched off (`shouldEnableGraphQLSampledMetrics`): it asks by REST
    native = {"GetRun", "SearchRuns", "MlflowGetExperimentQuery"}
    assert query_texts().keys() == native | {"GetMetricHistoryBulkInterval"}


def test_get_run(readers: Readers, runs: list[str]) -> None:
    versions = []
    for run_id in [*runs[:2], *runs[2::3], *readers.histories]:
        answer, by = send(readers, ask("GetRun", {"runId": run_id}))
        assert by == "native", run_id
        versions += [version["version"] for version in answer["data"]["mlflowGetRun"]["run"]["modelVersions"]]
    assert sorted(versions) == ["1", "2", "4"]


def test_search_runs(readers: Readers, runs: list[str]) -> None:
    for text in ("", "metrics.m > 0", "params.p = 'a' AND attributes.status = 'FINISHED'", "tags.nothing = 'x'"):
        answer, by = send(readers, ask("SearchRuns", {"filter": text, "experimentIds": readers.experiments}))
        assert by == "native", text
        assert bool(answer["data"]["mlflowSearchRuns"]["runs"]) == ("nothing" not in text)


def test_get_experiment(readers: Readers) -> None:
    for number in range(12):
        _, by = send(readers, ask("MlflowGetExperimentQuery", {"experimentId": str(number)}, "input"))
        assert by == "native", number


REFUSED: dict[str, Any] = {
    "no such run": ask("GetRun", {"runId": "0" * 32}),
    "a filter that does not parse": ask("SearchRuns", {"filter": "metrics.m >", "experimentIds": ["0"]}),
    "an experiment that is no number": ask("SearchRuns", {"experimentIds": ["x"]}),
    "no such experiment": ask("MlflowGetExperimentQuery", {"experimentId": "999999"}, "input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(readers: Readers, name: str) -> None:
    """A link to a run that is gone, a mistyped filter: in stock's words."""
    answer, by = send(readers, REFUSED[name])
    assert answer["errors"], answer
    assert by == "native"


UNKNOWN: dict[str, Any] = {
    "no run id": ask("GetRun", {"runId": ""}),
    "a run id that is a number": ask("GetRun", {"runId": 7}),
    "an old name of the field": ask("GetRun", {"runUuid": "0" * 32}),
    "an unknown input": ask("GetRun", {"runId": "0" * 32, "x": 1}),
    "another variable": ask("GetRun", {"runId": "0" * 32}, "input"),
    "no variables": {"query": query_texts()["GetRun"]},
    "another operation": ask("GetRun", {"runId": "0" * 32}) | {"operationName": "Other"},
    "sampled metrics": ask("GetMetricHistoryBulkInterval", {"runIds": ["0" * 32], "metricKey": "m"}),
    "an echo": {"query": '{ test(inputString: "x") { output } }'},
    "introspection": {"query": "{ __schema { queryType { name } } }"},
    "not GraphQL": {"query": "SELECT 1"},
    "an unclosed brace": {"query": query_texts()["GetRun"].rstrip(" }\n"), "variables": {"data": {"runId": "a"}}},
    "a brace too many": {"query": query_texts()["GetRun"] + "}", "variables": {"data": {"runId": "a"}}},
    "an unknown field": {
        "query": "query A($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { nothing } } }",
        "variables": {"data": {"runId": "a"}},
    },
    "a field without its fields": {
        "query": "query A($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run } }",
        "variables": {"data": {"runId": "a"}},
    },
    "fields of a value": {
        "query": "query A($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info { runId { x } } } } }",
        "variables": {"data": {"runId": "a"}},
    },
    "the type of another input": {
        "query": "query A($data: MlflowGetExperimentInput!) { mlflowGetRun(input: $data) { apiError { code } } }",
        "variables": {"data": {"experimentId": "0"}},
    },
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_stocks(readers: Readers, name: str) -> None:
    _, by = send(readers, UNKNOWN[name])
    assert by == "stock"


def test_an_alias_and_a_fragment(readers: Readers, runs: list[str]) -> None:
    for query in (
        "query A($data: MlflowGetRunInput!) { a: mlflowGetRun(input: $data) { run { info { runId } } } }",
        "query A($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { ...B } } } "
        "fragment B on MlflowRunExtension { info { runId } }",
        "query A($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info @skip(if: true) { runId } } } }",
    ):
        _, by = send(readers, {"query": query, "variables": {"data": {"runId": runs[0]}}})
        assert by == "stock", query


def test_model_versions(readers: Readers, runs: list[str]) -> None:
    """What a run's page asks of the registry, and what it is refused."""
    for number, count in ((0, 2), (1, 1), (2, 0)):
        search = {"filter": f"run_id='{runs[number]}'"}
        found = readers.compare("model-versions/search", search, "get").get("model_versions", [])
        assert len(found) == count
    for text in ("name = 'x'", "run_id = 'a' AND name = 'b'", ""):
        readers.compare("model-versions/search", {"filter": text}, "get")
    readers.compare("model-versions/search", {"filter": "run_id='"}, "get")


def test_what_the_ui_asks_of_features_that_are_not_there(readers: Readers) -> None:
    path = "gateway-proxy?gateway_path=api%2F2.0%2Fendpoints%2F"
    stock, headrace = (requests.get(f"{url}/ajax-api/2.0/mlflow/{path}", timeout=60) for url in readers.urls)
    assert (headrace.status_code, headrace.content) == (stock.status_code, stock.content)
    assert headrace.headers["headrace-answered-by"] == "native"
    for name in ("Content-Type", "X-Frame-Options", "X-Content-Type-Options", "Vary"):
        assert headrace.headers.get(name) == stock.headers.get(name)


def test_server_info(readers: Readers) -> None:
    for folder in ("api", "ajax-api"):
        stock, headrace = (requests.get(f"{url}/{folder}/3.0/mlflow/server-info", timeout=60) for url in readers.urls)
        assert headrace.json() == stock.json()
        assert headrace.headers["headrace-answered-by"] == "native"
