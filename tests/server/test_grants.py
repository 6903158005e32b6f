"""Grants: who sees and changes which experiment and model, on native routes and on those that pass through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import BACKENDS, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import wait_until

API = "/api/2.0/mlflow"
DATASETS = "/api/3.0/mlflow/datasets"
REVIEWS = "/api/3.0/mlflow"
EDITORS_ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts"


class World(NamedTuple):
    """A server with --grants; two experiments, each with a run and a trace, and two models; `open` is granted."""

    guarded: Guarded
    tokens: dict[str, str]
    experiments: dict[str, str]
    runs: dict[str, str]
    traces: dict[str, str]
    datasets: dict[str, str]
    queues: dict[str, str]
    schemas: dict[str, str]
    issues: dict[str, str]

    def call(self, user: str, method: str, path: str, **more: Any) -> tuple[int, Any]:
        answer = self.guarded.request(method, path, self.tokens[user], **more)
        return answer.status_code, answer.json() if answer.content else {}

    def status(self, user: str, method: str, path: str, **more: Any) -> int:
        return self.guarded.status(method, path, self.tokens[user], **more)


@pytest.fixture(scope="module", params=BACKENDS)
def world(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    users = {"reader": "viewer", "writer": "viewer", "manager": "viewer", "nobody": "editor", "team": "viewer"}
    guarded = start_guarded(
        databases.migrated(request.param), tmp_path_factory.mktemp("grants"), "--grants", users=users,
    )  # fmt: skip
    experiments, runs, traces, datasets, queues, schemas, issues = ({} for _ in range(7))

    def made(path: str, body: dict[str, Any]) -> Any:
        answer = guarded.request("POST", path, ADMIN_TOKEN, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for name in ("open", "closed"):
        experiments[name] = made(f"{API}/experiments/create", {"name": name})["experiment_id"]
        run = made(f"{API}/runs/create", {"experiment_id": experiments[name], "start_time": 1})
        runs[name] = run["run"]["info"]["run_id"]
        made(f"{API}/registered-models/create", {"name": name})
        info = {
            "trace_id": f"tr-{name}", "request_time": "2026-01-01T00:00:00Z", "state": "OK",
            "trace_location": {"type": "MLFLOW_EXPERIMENT",
                               "mlflow_experiment": {"experiment_id": experiments[name]}},
        }  # fmt: skip
        made("/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
        traces[name] = f"tr-{name}"
        dataset = made(f"{DATASETS}/create", {"name": name, "experiment_ids": [experiments[name]]})
        datasets[name] = dataset["dataset"]["dataset_id"]
        of_it = {"experiment_id": experiments[name], "name": name}
        queue = made(f"{REVIEWS}/review-queues/create", of_it | {"queue_type": "CUSTOM"})
        queues[name] = queue["review_queue"]["queue_id"]
        schema = made(f"{REVIEWS}/label-schemas/create", of_it | {"type": "FEEDBACK", "input": {"text": {}}})
        schemas[name] = schema["label_schema"]["schema_id"]
        issues[name] = made(f"{REVIEWS}/issues", of_it | {"description": "d"})["issue"]["issue_id"]
    for user, permission in (("reader", "read"), ("writer", "edit"), ("manager", "manage")):
        guarded.headrace("user", "grant", user, permission, "--experiment", "open")
        guarded.headrace("user", "grant", user, permission, "--model", "open")
    guarded.headrace("user", "groups", "team", "friends")
    guarded.headrace("user", "grant", "friends", "edit", "--group", "--experiment", experiments["open"])
    tokens = {name: guarded.headrace("user", "token", name) for name in users}
    yield World(guarded, tokens, experiments, runs, traces, datasets, queues, schemas, issues)
    guarded.server.stop()


def names(found: Any) -> list[str]:
    return sorted(each["name"] for each in found.get("experiments", []))


def test_searches_show_what_is_granted(world: World) -> None:
    for user, expected in (("reader", ["open"]), ("team", ["open"]), ("nobody", [])):
        status, found = world.call(user, "POST", f"{API}/experiments/search", json={"max_results": 100})
        assert (status, names(found)) == (200, expected)
        every = list(world.experiments.values())
        status, found = world.call(user, "POST", f"{API}/runs/search", json={"experiment_ids": every})
        seen = [run["info"]["run_id"] for run in found.get("runs", [])]
        assert (status, seen) == (200, [world.runs[name] for name in expected])


def test_reviewers_are_who_shares_what_one_may_edit(world: World) -> None:
    """MLflow's UI asks for them where a review queue is made."""
    shown = {
        user: sorted(each["username"] for each in world.call(user, "GET", f"{API}/users/list")[1]["users"])
        for user in ("writer", "team", "reader", "nobody")
    }
    sharing = ["manager", "reader", "team", "writer"]
    assert shown == {"writer": sharing, "team": sharing, "reader": ["reader"], "nobody": ["nobody"]}


def test_filters_come_before_pages(world: World) -> None:
    """A page of one is full as long as there is something to see, and is the last one where there is no more."""
    status, page = world.call("reader", "GET", f"{API}/experiments/search?max_results=1&order_by=name")
    assert (status, names(page), page.get("next_page_token")) == (200, ["open"], None)


def test_a_search_that_is_not_native_is_refused(world: World) -> None:
    """A run without a user is stock's to show: it has no such run."""
    path = f"{API}/runs/search"
    body = {"experimentIds": [world.experiments["open"]]}
    assert world.status("reader", "POST", path, json=body) == 200
    set_user = "UPDATE runs SET user_id = :user WHERE run_uuid = :run"
    world.guarded.database.execute(set_user, user=None, run=world.runs["open"])
    try:
        assert world.status("reader", "POST", path, json=body) == 403
    finally:
        world.guarded.database.execute(set_user, user="", run=world.runs["open"])


def test_lists_of_models_show_what_is_granted(world: World) -> None:
    for user, expected in (("reader", ["open"]), ("nobody", [])):
        status, found = world.call(user, "GET", f"{API}/registered-models/search")
        assert (status, [each["name"] for each in found.get("registered_models", [])]) == (200, expected)


def test_how_much_judges_judge_is_shown_of_what_is_granted(world: World) -> None:
    """MLflow's client asks for it with each list of scorers."""
    ids = {}
    for name, number in world.experiments.items():
        scorer = {"experiment_id": number, "name": "s", "serialized_scorer": '{"name": "s"}'}
        answer = world.guarded.request("POST", f"{REVIEWS}/scorers/register", ADMIN_TOKEN, json=scorer)
        ids[name] = answer.json()["scorer_id"]
        world.guarded.database.execute(
            "INSERT INTO online_scoring_configs (online_scoring_config_id, scorer_id, sample_rate, experiment_id)"
            " VALUES (:name, :id, 0.5, :number)", name=name, id=ids[name], number=int(number),
        )  # fmt: skip
    path = f"{REVIEWS}/scorers/online-configs"
    of_all = world.guarded.request("GET", path, ADMIN_TOKEN, params={"scorer_ids": [*ids.values()]}).json()["configs"]
    assert sorted(each["online_scoring_config_id"] for each in of_all) == ["closed", "open"]
    for user, shown in (("reader", ["open"]), ("nobody", [])):
        status, found = world.call(user, "GET", path, params={"scorer_ids": [*ids.values(), "none"]})
        assert (status, found["configs"]) == (
            200,
            [each for each in of_all if each["online_scoring_config_id"] in shown],
        )


# method, path, body; {} stands for the granted or the other object
NATIVE_AND_PASSED = [
    ("read", "GET", "{API}/experiments/get?experiment_id={experiment}", None),
    ("read", "GET", "{API}/experiments/get-by-name?experiment_name={name}", None),
    ("read", "GET", "{API}/runs/get?run_id={run}", None),
    ("read", "GET", "{API}/metrics/get-history?run_id={run}&metric_key=m", None),
    ("read", "GET", "{API}/artifacts/list?run_id={run}", None),
    ("read", "GET", "{API}/registered-models/get?name={name}", None),
    ("read", "GET", "/api/3.0/mlflow/traces/{trace}", None),
    ("read", "POST", "/api/3.0/mlflow/traces/search",
     {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{experiment}"}}]}),
    ("read", "GET", "/api/3.0/mlflow/scorers/list?experiment_id={experiment}", None),
    ("read", "GET", "/api/3.0/mlflow/review-queues/list?experiment_id={experiment}", None),
    ("read", "GET", "/api/3.0/mlflow/label-schemas/list?experiment_id={experiment}", None),
    ("read", "POST", "/api/3.0/mlflow/issues/search", {"experiment_id": "{experiment}"}),
    ("edit", "POST", "{API}/runs/log-metric", {"run_id": "{run}", "key": "m", "value": 1, "timestamp": 1}),
    ("edit", "POST", "{API}/runs/set-tag", {"run_id": "{run}", "key": "t", "value": "v"}),
    ("edit", "POST", "{API}/runs/create", {"experiment_id": "{experiment}", "start_time": 1}),
    ("edit", "POST", "{API}/runs/update", {"run_id": "{run}", "status": "RUNNING"}),
    ("edit", "PUT", "/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/a.txt", None),
    ("edit", "PATCH", "{API}/registered-models/update", {"name": "{name}", "description": "d"}),
    ("edit", "PATCH", "/api/3.0/mlflow/traces/{trace}/tags", {"key": "k", "value": "v"}),
    ("edit", "POST", "/api/3.0/mlflow/traces/{trace}/assessments", {"assessment": {"feedback": {"value": 1}}}),
    ("edit", "DELETE", "/api/3.0/mlflow/traces/{trace}/assessments/nobody", None),
    ("read", "GET", "{DATASETS}/{dataset}", None),
    ("read", "GET", "{DATASETS}/{dataset}/records", None),
    ("read", "GET", "{DATASETS}/{dataset}/experiment-ids", None),
    ("edit", "POST", "{DATASETS}/create", {"name": "another", "experiment_ids": ["{experiment}"]}),
    ("edit", "POST", "{DATASETS}/{dataset}/records", {"records": "[]"}),
    ("edit", "DELETE", "{DATASETS}/{dataset}/records", {"dataset_record_ids": ["dr-1"]}),
    ("edit", "PATCH", "{DATASETS}/{dataset}/tags", {"tags": "{}"}),
    ("edit", "DELETE", "{DATASETS}/{dataset}/tags/a", None),
    ("edit", "POST", "{DATASETS}/{dataset}/add-experiments", {"experiment_ids": ["{experiment}"]}),
    ("read", "GET", "{REVIEWS}/review-queues/get?queue_id={queue}", None),
    ("edit", "POST", "{REVIEWS}/review-queues/update", {"queue_id": "{queue}", "update_users": True, "users": ["a"]}),
    ("edit", "POST", "{REVIEWS}/review-queues/items/add", {"queue_id": "{queue}", "item_ids": ["{trace}"]}),
    ("read", "GET", "{REVIEWS}/review-queues/items/list?queue_id={queue}", None),
    ("edit", "POST", "{REVIEWS}/review-queues/items/set-status",
     {"queue_id": "{queue}", "item_id": "{trace}", "status": "COMPLETE"}),
    ("edit", "POST", "{REVIEWS}/review-queues/items/remove", {"queue_id": "{queue}", "item_ids": ["tr-none"]}),
    ("read", "GET", "{REVIEWS}/label-schemas/get?schema_id={schema}", None),
    ("edit", "PATCH", "{REVIEWS}/label-schemas/update", {"schema_id": "{schema}", "instruction": "i"}),
    ("read", "GET", "{REVIEWS}/issues/{issue}", None),
    ("edit", "PATCH", "{REVIEWS}/issues/{issue}", {"issue_id": "{issue}", "description": "e"}),
    ("manage", "POST", "{API}/experiments/update", {"experiment_id": "{experiment}", "new_name": "{name}"}),
]  # fmt: skip


def words_of(world: World, name: str) -> dict[str, str]:
    """What stands for the objects of that name; `nothing` are those of none."""
    nothing = {"experiment": "987654", "run": "0" * 32, "trace": "tr-nothing", "dataset": "d-" + "0" * 32}
    nothing |= {"queue": "rq-nothing", "schema": "ls-nothing", "issue": "iss-nothing"}
    there = {"experiment": world.experiments, "run": world.runs, "trace": world.traces, "dataset": world.datasets}
    there |= {"queue": world.queues, "schema": world.schemas, "issue": world.issues}
    ids = nothing if name == "nothing" else {kind: ids[name] for kind, ids in there.items()}
    return ids | {"name": name}


def filled(words: dict[str, str], path: str, body: Any) -> tuple[str, Any]:
    text = json.dumps(body)
    for word, value in words.items():
        text = text.replace("{%s}" % word, value)  # noqa: UP031 - braces are JSON's
    return path.format(API=API, DATASETS=DATASETS, REVIEWS=REVIEWS, **words), json.loads(text)


@pytest.mark.parametrize(("needed", "method", "path", "body"), NATIVE_AND_PASSED)
def test_the_matrix(world: World, needed: str, method: str, path: str, body: Any) -> None:
    order = ["", "read", "edit", "manage"]
    users = {"nobody": "", "reader": "read", "writer": "edit", "manager": "manage"}
    for name in ("open", "closed"):
        target, message = filled(words_of(world, name), path, body)
        for user, permission in users.items():
            status = world.status(user, method, target, json=message)
            allowed = name == "open" and order.index(permission) >= order.index(needed)
            if allowed:
                assert status == 200 or (status == 400 and needed == "manage"), (user, name)
            else:
                # by its name an experiment of others' is as if there were none
                assert status == (404 if "get-by-name" in path else 403), (user, name)


_GRAPHQL = "query Q($data: MlflowGet{0}Input!) {{ mlflowGet{0}(input: $data) {{ {1} {{ __typename }} }} }}"
BY_ID: list[tuple[str, str, str, Any]] = [
    *NATIVE_AND_PASSED,
    ("read", "POST", "/graphql", {"query": _GRAPHQL.format("Run", "run"), "variables": {"data": {"runId": "{run}"}}}),
    ("read", "POST", "/graphql", {"query": _GRAPHQL.format("Experiment", "experiment"),
                                  "variables": {"data": {"experimentId": "{experiment}"}}}),
]  # fmt: skip


@pytest.mark.parametrize(("needed", "method", "path", "body"), BY_ID)
def test_nobody_is_told_what_there_is(world: World, needed: str, method: str, path: str, body: Any) -> None:
    """What is there and not granted is refused in the words in which what is not there is."""
    said = []
    for name in ("closed", "nothing"):
        words = words_of(world, name)
        target, message = filled(words, path, body)
        answer = world.guarded.request(method, target, world.tokens["manager"], json=message)
        assert answer.status_code in (403, 404), answer.text
        text = answer.text
        for word, value in sorted(words.items(), key=lambda each: -len(each[1])):
            text = text.replace(value, word)
        said.append((answer.status_code, text))
    assert said[0] == said[1]


def attempts(world: World) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Ways to name a run that is granted, and to mean another."""
    ours, theirs = world.runs["open"], world.runs["closed"]
    log = f"{API}/runs/log-metric"
    metric = '"key": "m", "value": 1, "timestamp": 1'
    for body in (
        f'{{"run_id": "{ours}", "run_uuid": "{theirs}", {metric}}}',
        f'{{"run_id": "{theirs}", "run_id": "{ours}", {metric}}}',
        f'{{"run_id": "{ours}", "run_id": "{theirs}", {metric}}}',
        f'{{"run_id": "{ours}", "runId": "{theirs}", {metric}}}',
        f'{{"run_id": ["{theirs}"], {metric}}}',
        f'{{"run\\u005fid": "{theirs}", {metric}}}',
        f"{{{metric}}}",
        "",
        "[]",
        "not json",
    ):
        yield "POST", log, {"data": body, "headers": {"Content-Type": "application/json"}}
    yield "POST", f"{log}?run_id={ours}", {"json": {"run_id": theirs, "key": "m", "value": 1, "timestamp": 1}}
    yield "GET", f"{API}/runs/get?run_id={ours}&run_id={theirs}", {}
    yield "GET", f"{API}/runs/get?run_id={ours}", {"json": {"run_id": theirs}}
    yield "GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id={ours}&run_id={theirs}&metric_key=m", {}
    mine, other = world.experiments["open"], world.experiments["closed"]
    for path in (f"{mine}/../{other}/a", f"{mine}/%2e%2e/{other}/a", f"{mine}/%252e%252e/{other}/a", f"./{other}/a",
                 f"{mine}/..%2f{other}/a", f"{mine}%5c..%5c{other}/a", f"workspaces/w/{mine}/a", ""):  # fmt: skip
        yield "GET", f"{EDITORS_ARTIFACT}/{path}", {}
    yield "GET", f"{EDITORS_ARTIFACT}?path={other}", {}
    yield "GET", EDITORS_ARTIFACT, {}
    source = {"name": "open", "source": f"mlflow-artifacts:/{other}/x/artifacts/model"}
    yield "POST", f"{API}/model-versions/create", {"json": source}
    yield "POST", f"{API}/model-versions/create", {"json": {"name": "open", "source": "file:///etc"}}
    of_workspace = {"name": "open", "source": f"mlflow-artifacts:/workspaces/w/{mine}/x"}
    yield "POST", f"{API}/model-versions/create", {"json": of_workspace}
    link = {"trace_ids": [world.traces["closed"]], "run_id": ours}
    yield "POST", f"{API}/traces/link-to-run", {"json": link}
    batch = f"/api/3.0/mlflow/traces/batchGet?trace_ids={world.traces['open']}&trace_ids={world.traces['closed']}"
    yield "GET", batch, {}
    query = "query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info { runId } } } }"
    yield "POST", "/graphql", {"json": {"query": query, "variables": {"data": {"runId": theirs}}}}
    literal = f'query {{ mlflowGetRun(input: {{runId: "{theirs}"}}) {{ run {{ info {{ runId }} }} }} }}'
    yield "POST", "/graphql", {"json": {"query": literal, "variables": {}}}
    yield "GET", "/api/3.0/mlflow/gateway/endpoints/list", {}


def test_nothing_else_reaches_what_is_not_granted(world: World) -> None:
    wrong = []
    for method, path, more in attempts(world):
        # requests would tidy a path up
        status = raw_status(world, method, path, **more)
        if status == 200 and ("run_uuid" in str(more) or (method == "GET" and "run_id=" in path and more)):
            continue  # the query's run_id is what the handler reads, in stock, too: it is the run that is granted
        if status not in (400, 403, 404):
            wrong.append((method, path, more, status))
    assert not wrong, "\n".join(map(str, wrong))
    closed = world.runs["closed"]
    assert not world.guarded.database.query(f"SELECT 1 FROM metrics WHERE run_uuid = '{closed}' AND timestamp = 1")


def raw_status(world: World, method: str, path: str, **more: Any) -> int:
    import http.client

    body = json.dumps(more["json"]) if "json" in more else more.get("data")
    headers = {"Authorization": f"Bearer {world.tokens['writer']}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(world.guarded.server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_maker_manages_what_they_make(world: World) -> None:
    status, made = world.call("nobody", "POST", f"{API}/experiments/create", json={"name": "of nobody"})
    assert status == 200
    experiment = made["experiment_id"]
    body = {"experiment_id": experiment, "start_time": 1}
    assert world.status("nobody", "POST", f"{API}/runs/create", json=body) == 200
    assert world.status("writer", "POST", f"{API}/runs/create", json=body) == 403
    status, found = world.call("nobody", "POST", f"{API}/experiments/search", json={"max_results": 10})
    assert names(found) == ["of nobody"]
    location = {"name": "elsewhere", "artifact_location": f"mlflow-artifacts:/{world.experiments['closed']}"}
    assert world.status("nobody", "POST", f"{API}/experiments/create", json=location) == 403
    assert world.status("reader", "POST", f"{API}/experiments/create", json={"name": "of a viewer"}) == 403


def test_models_keep_their_grants_by_another_name_and_lose_them_at_the_end(world: World) -> None:
    model = f"{API}/registered-models"
    assert world.status("nobody", "POST", f"{model}/create", json={"name": "a"}) == 200
    assert world.status("nobody", "POST", f"{model}/rename", json={"name": "a", "new_name": "b"}) == 200
    assert world.status("nobody", "GET", f"{model}/get?name=b") == 200
    assert world.guarded.status("DELETE", f"{model}/delete", ADMIN_TOKEN, json={"name": "b"}) == 200
    assert world.guarded.status("POST", f"{model}/create", ADMIN_TOKEN, json={"name": "b"}) == 200
    assert world.status("nobody", "GET", f"{model}/get?name=b") == 403


def test_what_was_granted_of_an_older_model_of_that_name_ends(world: World) -> None:
    model = f"{API}/registered-models"
    for name in ("ghost", "second ghost"):
        world.guarded.headrace("user", "grant", "reader", "read", "--model", name)
        world.guarded.headrace("user", "grant", "nobody", "read", "--model", name)
    assert world.status("nobody", "POST", f"{model}/create", json={"name": "ghost"}) == 200
    assert world.status("reader", "GET", f"{model}/get?name=ghost") == 403
    assert world.status("nobody", "POST", f"{model}/rename", json={"name": "ghost", "new_name": "second ghost"}) == 200
    assert world.status("reader", "GET", f"{model}/get?name=second+ghost") == 403
    assert world.status("nobody", "DELETE", f"{model}/delete", json={"name": "second ghost"}) == 200


def test_editors_register_prompts(world: World) -> None:
    tag = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    text = {"key": "mlflow.prompt.text", "value": "Say {{what}}"}
    assert world.status("nobody", "POST", f"{API}/registered-models/create", json={"name": "p", "tags": [tag]}) == 200
    for source in ("dummy-source", "prompt-template"):
        body = {"name": "p", "source": source, "tags": [tag, text]}
        assert world.status("nobody", "POST", f"{API}/model-versions/create", json=body) == 200
    elsewhere = {"name": "p", "source": f"mlflow-artifacts:/{world.experiments['closed']}/a", "tags": [tag]}
    assert world.status("nobody", "POST", f"{API}/model-versions/create", json=elsewhere) == 403
    assert world.status("reader", "GET", f"{API}/registered-models/get?name=p") == 403


def test_a_versions_files_need_a_right_on_what_they_lie_in(world: World) -> None:
    """Also long after it was registered: who registered it, and with which rights, does not matter."""
    create = f"{API}/model-versions/create"
    numbers = {}
    for name, run in world.runs.items():
        folder = f"{world.experiments[name]}/{run}/artifacts/model"
        put = world.guarded.request("PUT", f"{EDITORS_ARTIFACT}/{folder}/MLmodel", ADMIN_TOKEN, data=b"flavors: {}")
        assert put.status_code == 200
        proxied = f"mlflow-artifacts:/{folder}"
        for source in (f"runs:/{run}/model", proxied):
            body = {"name": "open", "source": source, "run_id": run}
            answer = world.guarded.request("POST", create, ADMIN_TOKEN, json=body)
            numbers[source] = (name, answer.json()["model_version"]["version"])
        copied = {"name": "open", "source": f"models:/open/{numbers[proxied][1]}"}
        answer = world.guarded.request("POST", create, ADMIN_TOKEN, json=copied)
        numbers[f"copy of {proxied}"] = (name, answer.json()["model_version"]["version"])
        # whose files one may not read, one may not copy
        assert world.status("writer", "POST", create, json=copied) == (200 if name == "open" else 403)
    for name, version in numbers.values():
        for number in (version, f"0{version}", f" {version}", f"{version}_"):
            query = f"?name=open&version={number}"
            expected = 400 if number.endswith("_") else 200 if name == "open" else 403
            assert world.status("reader", "GET", f"{API}/model-versions/get-download-uri{query}") == expected
            assert world.status("reader", "GET", f"/model-versions/get-artifact{query}&path=MLmodel") == expected
        assert world.status("reader", "GET", f"{API}/model-versions/get?name=open&version={version}") == 200
    elsewhere = {"name": "open", "source": "s3://bucket/model"}  # as an administrator wants it
    made = world.guarded.request("POST", create, ADMIN_TOKEN, json=elsewhere).json()["model_version"]["version"]
    assert world.status("reader", "GET", f"{API}/model-versions/get-download-uri?name=open&version={made}") == 200
    assert world.status("writer", "POST", create, json=elsewhere) == 403


def test_pages_of_the_registry_are_cut_after_grants(world: World) -> None:
    """What is hidden is no reason for another page, and a filter that hits it answers as one that hits nothing."""
    for name in ("open", "closed"):
        body = {"name": name, "source": "s3://bucket/model", "tags": [{"key": "secret", "value": name}]}
        assert world.guarded.status("POST", f"{API}/model-versions/create", ADMIN_TOKEN, json=body) == 200
    for what in ("registered-models", "model-versions"):
        path, seen, token = f"{API}/{what}/search?max_results=1", set(), ""
        while True:
            status, page = world.call("reader", "GET", f"{path}&page_token={token}")
            found = page.get(what.replace("-", "_"), [])
            assert (status, len(found)) == (200, 1)
            seen |= {each["name"] for each in found}
            token = page.get("next_page_token", "")
            if not token:
                break
        assert seen == {"open"}
        for text in (
            "name = 'closed'",
            "name LIKE 'c%'",
            "tags.secret = 'closed'",
            "tags.secret LIKE 'c%'",
            "name = 'x'",
        ):
            assert world.call("reader", "GET", f"{API}/{what}/search", params={"filter": text}) == (200, {})


def test_evaluation_datasets_show_what_is_granted(world: World) -> None:
    """A dataset belongs to any number of experiments: the right is needed on each of them, as MLflow asks for it."""
    create, search = f"{DATASETS}/create", f"{DATASETS}/search"
    ours, theirs = world.experiments["open"], world.experiments["closed"]
    both = {"name": "shared", "experiment_ids": [ours, theirs]}
    shared = world.guarded.request("POST", create, ADMIN_TOKEN, json=both).json()["dataset"]["dataset_id"]
    world.guarded.request("POST", create, ADMIN_TOKEN, json={"name": "nowhere"})
    own = {"name": "also open", "experiment_ids": [ours]}
    world.guarded.request("POST", create, ADMIN_TOKEN, json=own)
    seen, token = [], ""
    while True:
        status, page = world.call("reader", "GET", f"{search}?max_results=1&order_by=name&page_token={token}")
        assert (status, len(page["datasets"])) == (200, 1)
        seen.append(page["datasets"][0]["name"])
        if not (token := page.get("next_page_token", "")):
            break
    assert {"open", "also open"} <= set(seen) <= {"open", "also open", "another"}
    for hidden in ({"experiment_ids": [theirs]}, {"filter_string": "name IN ('closed', 'shared', 'nowhere')"}):
        assert world.call("reader", "POST", search, json=hidden) == (200, {})
        assert world.call("nobody", "POST", search, json=hidden) == (200, {})
    for path in (shared, f"{shared}/records", f"{shared}/experiment-ids"):
        assert world.status("reader", "GET", f"{DATASETS}/{path}") == 403
    for method, path, body in (
        ("DELETE", shared, None),
        ("POST", f"{shared}/records", {"records": "[]"}),
        ("PATCH", f"{shared}/tags", {"tags": "{}"}),
        ("POST", f"{shared}/remove-experiments", {"experiment_ids": [ours]}),
    ):
        assert world.status("writer", method, f"{DATASETS}/{path}", json=body) == 403
    # who may not change an experiment neither gives it a dataset nor takes one from it
    for what, dataset, experiment in (("add", "open", theirs), ("add", "closed", ours), ("remove", "open", theirs)):
        path = f"{DATASETS}/{world.datasets[dataset]}/{what}-experiments"
        assert world.status("writer", "POST", path, json={"experiment_ids": [experiment]}) == 403
    assert world.status("writer", "POST", create, json={"name": "x", "experiment_ids": [ours, theirs]}) == 403
    assert world.status("writer", "POST", create, json={"name": "of none"}) == 403
    remove = f"{DATASETS}/{shared}/remove-experiments"
    world.guarded.request("POST", remove, ADMIN_TOKEN, json={"experiment_ids": [theirs]})
    assert world.status("writer", "GET", f"{DATASETS}/{shared}") == 200
    assert world.status("writer", "DELETE", f"{DATASETS}/{shared}") == 200


def test_a_grant_works_at_once_and_its_end_within_five_seconds(world: World) -> None:
    path = f"{API}/runs/get?run_id={world.runs['closed']}"
    link = {"run_id": world.runs["open"], "trace_ids": list(world.traces.values())}  # to read a trace is enough
    assert world.status("team", "GET", path) == 403
    assert world.status("team", "POST", f"{API}/traces/link-to-run", json=link) == 403
    world.guarded.headrace("user", "grant", "team", "read", "--experiment", "closed")
    assert world.status("team", "GET", path) == 200
    assert world.status("team", "POST", f"{API}/traces/link-to-run", json=link) == 200
    world.guarded.headrace("user", "revoke", "team", "--experiment", "closed")
    wait_until(lambda: world.status("team", "GET", path) == 403, "the grant has ended")


CLIENT = """
import mlflow
mlflow.set_experiment("made by a client")
with mlflow.start_run() as run:
    mlflow.log_metric("m", 1.0)
    mlflow.log_text("text", "a.txt")
client = mlflow.MlflowClient()
assert [each.name for each in client.search_experiments()] == ["made by a client"], client.search_experiments()
assert len(mlflow.search_runs(search_all_experiments=True)) == 1
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt"))
"""


def test_mlflows_client_makes_and_sees_its_own(world: World) -> None:
    world.guarded.headrace("user", "add", "client", "--role", "editor", "--no-password")
    token = world.guarded.headrace("user", "token", "client")
    env = client_environment() | {"MLFLOW_TRACKING_URI": world.guarded.server.url, "MLFLOW_TRACKING_TOKEN": token}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], capture_output=True, text=True, env=env, cwd=world.guarded.folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "text"


def test_logged_models(world: World) -> None:
    """They belong to their experiment: made, found and measured with a right on it alone."""
    models = {}
    for name, experiment in world.experiments.items():
        body = {"experiment_id": experiment, "name": f"model-of-{name}"}
        made = world.guarded.request("POST", f"{API}/logged-models", ADMIN_TOKEN, json=body)
        models[name] = made.json()["model"]["info"]["model_id"]
        expected = 200 if name == "open" else 403
        assert world.status("writer", "POST", f"{API}/logged-models", json=body) == expected
        assert world.status("reader", "GET", f"{API}/logged-models/{models[name]}") == expected
        status = {"model_id": models["open"], "status": "LOGGED_MODEL_READY"}
        assert world.status("writer", "PATCH", f"{API}/logged-models/{models[name]}", json=status) == expected
        metric = {"run_id": world.runs["open"], "key": "m", "value": 1.0, "timestamp": 1, "model_id": models[name]}
        assert world.status("writer", "POST", f"{API}/runs/log-metric", json=metric) == expected
        batch = {"run_id": world.runs["open"], "metrics": [{**metric, "step": 1}]}
        assert world.status("writer", "POST", f"{API}/runs/log-batch", json=batch) == expected
    everywhere = {"experiment_ids": list(world.experiments.values()), "max_results": 50}
    _, found = world.call("reader", "POST", f"{API}/logged-models/search", json=everywhere)
    assert {model["info"]["experiment_id"] for model in found["models"]} == {world.experiments["open"]}
    assert world.call("nobody", "POST", f"{API}/logged-models/search", json=everywhere) == (200, {})


def test_what_is_said_to_come_from_a_run_comes_from_one_that_may_be_read(world: World) -> None:
    """Whether there is a run of that id is nobody's whom it is not granted to, and nothing of others' names it."""
    experiment = {"experiment_id": world.experiments["open"], "name": "m"}
    made = world.call("writer", "POST", f"{API}/logged-models", json=experiment)[1]["model"]["info"]["model_id"]
    version = {"name": "open", "source": f"models:/{made}", "model_id": made}
    for run, expected in ((world.runs["open"], 200), (world.runs["closed"], 403), ("0" * 32, 403)):
        come_from = {"source_run_id": run}
        assert world.status("writer", "POST", f"{API}/logged-models", json=experiment | come_from) == expected
        issue = experiment | come_from | {"description": "d"}
        assert world.status("writer", "POST", f"{REVIEWS}/issues", json=issue) == expected
        assert (
            world.status("writer", "POST", f"{API}/model-versions/create", json=version | {"run_id": run}) == expected
        )


def test_an_assessment_is_not_taken_from_anothers_trace(world: World) -> None:
    """Stock gives the row of that id to the trace that comes with it."""
    theirs = f"/api/3.0/mlflow/traces/{world.traces['closed']}/assessments"
    source = {"source_type": "HUMAN", "source_id": "me"}
    assessment = {"assessment_name": "good", "feedback": {"value": True}, "source": source, "rationale": "private"}
    made = world.guarded.request("POST", theirs, ADMIN_TOKEN, json={"assessment": assessment}).json()["assessment"]
    info = {
        "trace_id": world.traces["open"], "request_time": "2026-01-01T00:00:00Z", "state": "OK",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": world.experiments["open"]}},
    }  # fmt: skip
    assessment_id = made.pop("assessment_id")
    for name in ("assessment_id", "assessmentId"):
        taken = info | {"assessments": [made | {name: assessment_id, "feedback": {"value": False}}]}
        status, refusal = world.call("writer", "POST", "/api/3.0/mlflow/traces", json={"trace": {"trace_info": taken}})
        assert (status, "another trace's" in refusal["message"]) == (400, True)
    kept = world.guarded.request("GET", f"{theirs}/{assessment_id}", ADMIN_TOKEN).json()["assessment"]
    assert (kept["feedback"]["value"], kept["rationale"]) == (True, "private")


def test_a_trace_of_a_deleted_ones_id_is_the_other_experiments(world: World) -> None:
    """Clients choose the ids of traces: whoever takes part in a distributed one knows its id beforehand."""
    traces = "/api/3.0/mlflow/traces"
    path = f"{traces}/tr-again"

    def begin(token: str, name: str) -> int:
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": world.experiments[name]}}
        info = {"trace_id": "tr-again", "request_time": "2026-01-01T00:00:00Z", "trace_location": location}
        return world.guarded.status("POST", traces, token, json={"trace": {"trace_info": info}})

    assert begin(world.tokens["writer"], "open") == 200
    assert world.status("writer", "GET", path) == 200
    ids = {"experiment_id": world.experiments["open"], "request_ids": ["tr-again"]}
    assert world.status("writer", "POST", f"{traces}/delete-traces", json=ids) == 200
    assert begin(ADMIN_TOKEN, "closed") == 200
    assert world.status("writer", "GET", path) == 403
    assert world.status("writer", "PATCH", f"{path}/tags", json={"key": "k", "value": "v"}) == 403


def test_a_job_names_more_than_its_experiment(world: World) -> None:
    """A prompt and a dataset, which stock reads for whoever asks: administrators start such jobs."""
    config = {"dataset_id": world.datasets["closed"], "optimizer_type": 1}
    body = {"experiment_id": world.experiments["open"], "source_prompt_uri": "prompts:/closed/1", "config": config}
    assert world.status("writer", "POST", "/api/3.0/mlflow/prompt-optimization/jobs", json=body) == 403


def test_a_run_that_has_moved_is_the_other_experiments(world: World) -> None:
    made = world.guarded.request(
        "POST", f"{API}/runs/create", ADMIN_TOKEN, json={"experiment_id": world.experiments["open"]}
    ).json()
    run = made["run"]["info"]["run_id"]
    path = f"{API}/runs/get?run_id={run}"
    assert world.status("reader", "GET", path) == 200
    ended = {"run_id": run, "status": "FINISHED"}
    assert world.guarded.status("POST", f"{API}/runs/update", ADMIN_TOKEN, json=ended) == 200
    place = ("--artifacts-destination", str(world.guarded.folder / "artifacts"))
    world.guarded.headrace("runs", "move", run, "--to", world.experiments["closed"], *place)
    wait_until(lambda: world.status("reader", "GET", path) == 403, "the grant on the old experiment reaches no further")


def test_grants_end_with_their_experiment(world: World) -> None:
    """SQLite gives its number to the next one, once `mlflow gc` has removed it."""
    create = f"{API}/experiments/create"
    for what in ({"name": "second"}, {"name": "third", "artifact_location": "mlflow-artifacts:/elsewhere"}):
        first = world.call("nobody", "POST", create, json={"name": "first"})[1]["experiment_id"]
        get = f"{API}/experiments/get?experiment_id={first}"
        assert world.status("nobody", "GET", get) == 200
        world.guarded.database.execute("DELETE FROM experiments WHERE name = 'first'")
        again = world.guarded.request("POST", create, ADMIN_TOKEN, json=what).json()["experiment_id"]
        if world.guarded.database.backend == "sqlite":
            assert again == first
            assert world.status("nobody", "GET", get) == 403
        assert world.status("nobody", "GET", f"{API}/experiments/get?experiment_id={again}") == 403
