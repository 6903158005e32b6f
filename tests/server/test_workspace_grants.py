"""Grants and workspaces: who has nothing in a workspace finds none of that name; a grant counts where it was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from headrace.auth.principals import PERMISSIONS, Right
from headrace.resources import all_endpoints
from headrace.settings import Settings
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.server.test_workspaces import EXPERIMENT, MESSAGES, MODEL, OURS, THEIRS, VERSION
from tests.support.databases import BACKENDS, Databases

API = "2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
RIGHTS = {(each.method, each.path): each.right for each in all_endpoints(Settings())}
# name -> role, and what is granted on the workspace OURS
USERS = {"reader": "viewer", "member": "viewer", "manager": "viewer", "stranger": "editor", "other": "viewer",
         "guest": "viewer"}  # fmt: skip
ON_OURS = {"reader": "read", "member": "edit", "manager": "manage"}


class World(NamedTuple):
    """A server with --grants and two workspaces. `ids` fills the placeholders of messages."""

    guarded: Guarded
    tokens: dict[str, str]
    ids: dict[str, str]

    def send(
        self, user: str, workspace: str, method: str, path: str, message: dict[str, Any] | None = None
    ) -> requests.Response:
        text = json.dumps(message or {})
        for name, value in self.ids.items():
            text = text.replace(f"{{{name}}}", value)
        filled = json.loads(text)
        headers = {"X-MLFLOW-WORKSPACE": workspace}
        if path.startswith("/"):
            headers["x-mlflow-experiment-id"] = self.ids["experiment"]
            url = path
        else:
            url = f"/ajax-api/{path}".format(**filled)
        how: dict[str, Any] = {"params": filled} if method == "GET" else {"json": filled}
        return self.guarded.request(method, url, self.tokens[user], headers=headers, **how)

    def grant(self, *arguments: str) -> str:
        return self.guarded.headrace("user", "grant", *arguments)

    def seen(self, user: str, workspace: str, path: str, field: str, message: dict[str, Any]) -> list[str]:
        """The names, or the ids of runs, that a search shows."""
        method = "POST" if path.endswith(("experiments/search", "runs/search")) else "GET"
        answer = self.send(user, workspace, method, f"{API}/{path}", message)
        assert answer.status_code == 200, answer.text
        found = answer.json().get(field, [])
        return sorted(each["info"]["run_id"] if "info" in each else each["name"] for each in found)


@pytest.fixture(scope="module", params=BACKENDS)
def world(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    guarded = start_guarded(
        databases.migrated(request.param), tmp_path_factory.mktemp("walls"), "--grants", "--enable-workspaces",
        users=USERS,
    )  # fmt: skip
    tokens = {name: guarded.headrace("user", "token", name) for name in USERS} | {"admin": ADMIN_TOKEN}
    world = World(guarded, tokens, {})
    for name in (OURS, THEIRS):
        made = world.send("admin", "", "POST", "3.0/mlflow/workspaces", {"name": name})
        assert made.status_code == 201, made.text
    for user, permission in ON_OURS.items():
        world.grant(user, permission, "--workspace", OURS)
    world.grant("other", "manage", "--workspace", THEIRS)
    yield world
    guarded.server.stop()


def made(answer: requests.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_endpoint_asks_for_the_right_in_the_workspace(world: World) -> None:
    """Each request is sent by who may not, from wherever they may, and then by the manager, who may."""
    world.ids["experiment"] = made(world.send("manager", OURS, "POST", f"{API}/experiments/create", {"name": "E"}))[
        "experiment_id"
    ]
    run = made(world.send("manager", OURS, "POST", f"{API}/runs/create", EXPERIMENT))["run"]["info"]
    world.ids["run"] = run["run_id"]
    made(world.send("manager", OURS, "POST", f"{API}/registered-models/create", MODEL))
    asked = set()
    for method, path, message in MESSAGES:
        where, right = f"{method} {path}", RIGHTS[method, path]
        for user, workspace in (("stranger", OURS), ("other", OURS)):
            answer = world.send(user, workspace, method, path, message)
            assert (answer.status_code, OURS in answer.text) == (404, True), f"{where} by {user}: {answer.text}"
            assert answer.json()["message"] == f"Workspace '{OURS}' not found", where
        for user, workspace in (("stranger", ""), ("other", THEIRS), ("manager", ""), ("other", "")):
            answer = world.send(user, workspace, method, path, message)
            assert answer.status_code in (403, 404, 400), f"{where} by {user} in {workspace}: {answer.text}"
        for user, permission in ON_OURS.items():
            if PERMISSIONS[permission] < right:
                answer = world.send(user, OURS, method, path, message)
                assert answer.status_code == 403, f"{where} by {user}: {answer.text}"
                asked.add((permission, right))
            elif right is Right.READ:
                answer = world.send(user, OURS, method, path, message)
                assert answer.status_code == 200 or path.endswith("get-trace-artifact"), f"{where}: {answer.text}"
        here = world.send("manager", OURS, method, path, message)
        assert here.status_code == 200 or path.endswith("get-trace-artifact"), f"{where}: {here.text}"
        assert here.headers.get("headrace-answered-by") == "native", where
        if method == "POST" and path.endswith("assessments"):
            world.ids["assessment"] = here.json()["assessment"]["assessment_id"]
    assert asked == {("read", Right.EDIT), ("read", Right.MANAGE), ("edit", Right.MANAGE)}


def test_searches_show_what_is_granted_in_the_workspace(world: World) -> None:
    ids, runs = {}, {}
    for workspace in (OURS, THEIRS, ""):
        for name in ("S", "T"):
            ids[workspace, name] = made(
                world.send("admin", workspace, "POST", f"{API}/experiments/create", {"name": name})
            )["experiment_id"]
            of_it = {"experiment_id": ids[workspace, name]}
            run = made(world.send("admin", workspace, "POST", f"{API}/runs/create", of_it))["run"]["info"]["run_id"]
            runs[workspace, name] = run
            made(world.send("admin", workspace, "POST", f"{API}/registered-models/create", {"name": name}))
            source = {"name": name, "source": f"runs:/{run}/m", "run_id": run}
            made(world.send("admin", workspace, "POST", f"{API}/model-versions/create", source))
    world.grant("guest", "read", "--experiment", "S", "--workspace", OURS)
    world.grant("guest", "edit", "--model", "T", "--workspace", OURS)
    world.grant("guest", "read", "--experiment", "T")
    world.grant("guest", "read", "--model", "S")

    def seen(user: str, workspace: str) -> tuple[list[str], list[str], list[str]]:
        return (
            [name for name in world.seen(user, workspace, "experiments/search", "experiments", {"max_results": 100})
             if name in ("S", "T")],
            [name for name in world.seen(user, workspace, "registered-models/search", "registered_models", {})
             if name in ("S", "T")],
            [name for name in world.seen(user, workspace, "model-versions/search", "model_versions", {})
             if name in ("S", "T")],
        )  # fmt: skip

    every = (["S", "T"],) * 3
    for user in ("reader", "member", "manager", "admin"):
        assert seen(user, OURS) == every, user
    assert seen("other", THEIRS) == every
    for user in ("reader", "other", "stranger"):
        assert seen(user, "") == ([], [], []), user
    assert seen("guest", OURS) == (["S"], ["T"], ["T"])
    assert seen("guest", "") == (["T"], ["S"], ["S"])
    for user, workspace, names in (
        ("guest", OURS, ["S"]), ("reader", OURS, ["S", "T"]), ("other", THEIRS, ["S", "T"]), ("guest", "", ["T"]),
        ("reader", "", []),
    ):  # fmt: skip
        every_one = {"experiment_ids": [ids[place, name] for place in (OURS, THEIRS, "") for name in ("S", "T")]}
        found = world.seen(user, workspace, "runs/search", "runs", every_one)
        assert found == sorted(runs[workspace, name] for name in names), (user, workspace)
    # one name, three models: a right on one is none on the others
    described = {"name": "T", "description": "d"}
    assert world.send("guest", OURS, "PATCH", f"{API}/registered-models/update", described).status_code == 200
    assert world.send("guest", "", "PATCH", f"{API}/registered-models/update", described).status_code == 403
    assert world.send("guest", THEIRS, "PATCH", f"{API}/registered-models/update", described).status_code == 404
    # by name: an experiment of that name in another workspace is not meant
    for workspace, name, status in ((OURS, "S", 200), (OURS, "T", 404), ("", "S", 404), ("", "T", 200)):
        asked_name = {"experiment_name": name}
        answer = world.send("guest", workspace, "GET", f"{API}/experiments/get-by-name", asked_name)
        assert answer.status_code == status, answer.text


def test_workspaces_are_listed_to_who_is_granted_something_in_them(world: World) -> None:
    world.grant("guest", "read", "--model", "gone", "--workspace", THEIRS)
    for user, names in (
        ("admin", ["default", OURS, THEIRS]), ("reader", ["default", OURS]), ("other", ["default", THEIRS]),
        ("stranger", ["default"]), ("guest", ["default", OURS, THEIRS]),
    ):  # fmt: skip
        listed = made(world.send(user, "", "GET", "3.0/mlflow/workspaces"))["workspaces"]
        if user != "guest":
            assert [each["name"] for each in listed] == names, user
        for name in ("default", OURS, THEIRS, "nowhere"):
            path = "3.0/mlflow/workspaces/{workspace_name}"
            answer = world.send(user, "", "GET", path, {"workspace_name": name})
            if user != "guest":
                assert answer.status_code == (200 if name in names else 404), (user, name, answer.text)
            if answer.status_code == 404:
                assert answer.json()["message"] == f"Workspace '{name}' not found"
    world.guarded.headrace("user", "revoke", "guest", "--model", "gone", "--workspace", THEIRS)
    for user in ("manager", "stranger"):
        for method, body in (("PATCH", {"description": "mine"}), ("DELETE", {})):
            message = {"workspace_name": OURS} | body
            assert world.send(user, "", method, "3.0/mlflow/workspaces/{workspace_name}", message).status_code == 403


def test_what_is_made_is_its_makers(world: World) -> None:
    """An edit on the workspace is enough to make things in it, a role is not; the maker manages them."""
    for user, workspace, status in (
        ("member", OURS, 200), ("reader", OURS, 403), ("stranger", OURS, 404), ("stranger", "", 200),
        ("member", "", 403), ("member", THEIRS, 404),
    ):  # fmt: skip
        name = f"{user} in {workspace}"
        answers = [
            world.send(user, workspace, "POST", f"{API}/experiments/create", {"name": name}),
            world.send(user, workspace, "POST", f"{API}/registered-models/create", {"name": name}),
        ]
        assert [each.status_code for each in answers] == [status] * 2, [each.text for each in answers]
        if status != 200:
            continue
        number = answers[0].json()["experiment_id"]
        renamed = {"experiment_id": number, "new_name": f"{name} still"}
        made(world.send(user, workspace, "POST", f"{API}/experiments/update", renamed))
        made(world.send(user, workspace, "POST", f"{API}/registered-models/rename",
                        {"name": name, "new_name": f"{name} still"}))  # fmt: skip
        made(world.send(user, workspace, "DELETE", f"{API}/registered-models/delete", {"name": f"{name} still"}))
        made(world.send(user, workspace, "POST", f"{API}/experiments/delete", {"experiment_id": number}))


def test_a_models_grants_are_those_of_its_workspace(world: World) -> None:
    """Renamed or deleted in one workspace, a model leaves alone what is granted on one of that name in another."""
    for workspace in (OURS, ""):
        made(world.send("admin", workspace, "POST", f"{API}/registered-models/create", {"name": "same"}))
    world.grant("guest", "read", "--model", "same", "--workspace", OURS)
    world.grant("guest", "read", "--model", "same")

    def may(workspace: str, name: str) -> int:
        return world.send("guest", workspace, "GET", f"{API}/registered-models/get", {"name": name}).status_code

    assert [may(OURS, "same"), may("", "same")] == [200, 200]
    rename = {"name": "same", "new_name": "new"}
    made(world.send("manager", OURS, "POST", f"{API}/registered-models/rename", rename))
    assert [may(OURS, "new"), may("", "same"), may("", "new"), may(OURS, "same")] == [200, 200, 403, 403]
    made(world.send("manager", OURS, "DELETE", f"{API}/registered-models/delete", {"name": "new"}))
    for workspace in (OURS, ""):
        made(world.send("admin", workspace, "POST", f"{API}/registered-models/create", {"name": "new"}))
    assert [may(OURS, "new"), may("", "new"), may("", "same")] == [403, 403, 200]


def test_files_are_of_the_workspace(world: World) -> None:
    """A path names an experiment, which must be granted and be here, however the path is written."""
    number = made(world.send("member", OURS, "POST", f"{API}/experiments/create", {"name": "files"}))["experiment_id"]
    uri = made(world.send("member", OURS, "POST", f"{API}/runs/create", {"experiment_id": number}))["run"]["info"][
        "artifact_uri"
    ]
    folder = uri.removeprefix("mlflow-artifacts:/")
    assert folder.startswith(f"workspaces/{OURS}/{number}/")
    short = folder.removeprefix(f"workspaces/{OURS}/")

    def sent(user: str, workspace: str, method: str, path: str) -> requests.Response:
        return world.guarded.request(
            method, f"{FILES}/{path}", world.tokens[user], headers={"X-MLFLOW-WORKSPACE": workspace},
            data=b"secret" if method == "PUT" else None,
        )  # fmt: skip

    assert sent("member", OURS, "PUT", f"{folder}/a.txt").status_code == 200
    assert sent("member", OURS, "PUT", f"{short}/b.txt").status_code == 200
    assert sent("reader", OURS, "GET", f"{folder}/b.txt").content == b"secret"
    assert sent("reader", OURS, "GET", f"{short}/a.txt").content == b"secret"
    for user, workspace in (
        ("other", THEIRS), ("other", OURS), ("other", ""), ("stranger", OURS), ("stranger", ""), ("guest", OURS),
        ("guest", ""), ("member", ""), ("reader", ""),
    ):  # fmt: skip
        for path in (folder, short, f"./{folder}", f"%77orkspaces/{OURS}/{short}", f"workspaces/{THEIRS}/{short}",
                     f"workspaces/default/{short}"):  # fmt: skip
            for method in ("GET", "PUT", "DELETE"):
                answer = sent(user, workspace, method, f"{path}/a.txt")
                assert answer.status_code in (400, 403, 404), (user, workspace, method, path, answer.text)
                assert b"secret" not in answer.content
    for method in ("PUT", "DELETE"):
        assert sent("reader", OURS, method, f"{folder}/a.txt").status_code == 403
    # who manages another workspace and may read here takes nothing along to there
    world.grant("guest", "edit", "--workspace", THEIRS)
    world.grant("guest", "read", "--workspace", OURS)
    made(world.send("guest", THEIRS, "POST", f"{API}/registered-models/create", {"name": "taken"}))
    for source in (f"{uri}/m", f"mlflow-artifacts:/{short}/m", f"mlflow-artifacts:/workspaces/{THEIRS}/{short}"):
        answer = world.send(
            "guest", THEIRS, "POST", f"{API}/model-versions/create", {"name": "taken", "source": source}
        )
        assert answer.status_code in (400, 403, 404), (source, answer.text)
    assert sent("guest", OURS, "GET", f"{folder}/a.txt").content == b"secret"
    for method, path in (("PUT", f"{folder}/a.txt"), ("PUT", f"{short}/c.txt"), ("DELETE", f"{folder}/a.txt")):
        assert sent("guest", OURS, method, path).status_code == 403
    # an experiment of the default workspace is none of a path here
    elsewhere = made(world.send("admin", "", "POST", f"{API}/experiments/create", {"name": "elsewhere"}))
    world.grant("member", "edit", "--experiment", elsewhere["experiment_id"])
    assert sent("member", "", "PUT", f"{elsewhere['experiment_id']}/x/c.txt").status_code == 200
    assert sent("member", OURS, "PUT", f"{elsewhere['experiment_id']}/x/c.txt").status_code == 403


def test_a_versions_files_are_its_experiments(world: World) -> None:
    """Who may read a model, and not the experiment that its files lie in, does not read the files."""
    number = made(world.send("member", OURS, "POST", f"{API}/experiments/create", {"name": "v"}))["experiment_id"]
    run = made(world.send("member", OURS, "POST", f"{API}/runs/create", {"experiment_id": number}))["run"]["info"]
    for name, source in (("by place", f"{run['artifact_uri']}/m"), ("by run", f"runs:/{run['run_id']}/m")):
        made(world.send("member", OURS, "POST", f"{API}/registered-models/create", {"name": name}))
        version = {"name": name, "source": source, "run_id": run["run_id"]}
        made(world.send("member", OURS, "POST", f"{API}/model-versions/create", version))
        world.grant("stranger", "read", "--model", name, "--workspace", OURS)
        file = {"name": name, "version": "1", "path": "m/a"}
        path = "/model-versions/get-artifact"
        answers = {
            user: world.guarded.request(
                "GET", path, world.tokens[user], headers={"X-MLFLOW-WORKSPACE": OURS}, params=file
            )
            for user in ("stranger", "reader")
        }
        assert answers["stranger"].status_code == 403, answers["stranger"].text
        assert answers["reader"].status_code == 404, answers["reader"].text
        shown = world.send("stranger", OURS, "GET", f"{API}/model-versions/get", VERSION | {"name": name})
        assert shown.status_code == 200
        world.guarded.headrace("user", "revoke", "stranger", "--model", name, "--workspace", OURS)


def test_a_workspace_that_goes_takes_its_grants_along(world: World) -> None:
    """Whoever makes one of that name later lets nobody in; what moves to the default workspace is still granted."""
    for mode in ("CASCADE", "SET_DEFAULT", "RESTRICT"):
        made_it = world.send("admin", "", "POST", "3.0/mlflow/workspaces", {"name": "passing"})
        assert made_it.status_code == 201
        world.grant("reader", "manage", "--workspace", "passing")
        if mode != "RESTRICT":
            made(world.send("admin", "passing", "POST", f"{API}/registered-models/create", {"name": mode}))
        world.grant("guest", "read", "--model", mode, "--workspace", "passing")
        gone = world.guarded.request("DELETE", f"/api/3.0/mlflow/workspaces/passing?mode={mode}", ADMIN_TOKEN)
        assert gone.status_code == 204, gone.text
        listed = json.loads(world.guarded.headrace("user", "grants", "--json"))
        assert "passing" not in json.dumps(listed), mode
        granted = [each for each in listed if each["object"] == mode]
        assert bool(granted) == (mode == "SET_DEFAULT")
    get = {"name": "SET_DEFAULT"}
    assert world.send("guest", "", "GET", f"{API}/registered-models/get", get).status_code == 200
    assert world.send("reader", "", "GET", f"{API}/registered-models/get", get).status_code == 403


def test_groups_and_grants_without_walls(databases: Databases, tmp_path: Path) -> None:
    """Without --grants a role counts in every workspace, and a grant adds to it where it was given alone."""
    guarded = start_guarded(databases.migrated("sqlite"), tmp_path, "--enable-workspaces", users={"v": "viewer"})
    token = guarded.headrace("user", "token", "v")
    try:
        for name in (OURS, THEIRS):
            made_it = guarded.request("POST", "/api/3.0/mlflow/workspaces", ADMIN_TOKEN, json={"name": name})
            assert made_it.status_code == 201
        for workspace in ("", OURS, THEIRS):
            headers = {"X-MLFLOW-WORKSPACE": workspace}
            made(
                guarded.request(
                    "POST", "/api/2.0/mlflow/registered-models/create", ADMIN_TOKEN, headers=headers, json=MODEL
                )
            )
        guarded.headrace("user", "grant", "v", "edit", "--model", "M")
        guarded.headrace("user", "groups", "v", "team")
        guarded.headrace("user", "grant", "team", "edit", "--group", "--workspace", OURS)

        def status(workspace: str, path: str, message: dict[str, Any], method: str = "PATCH") -> int:
            headers = {"X-MLFLOW-WORKSPACE": workspace}
            return guarded.status(method, f"/api/2.0/mlflow/{path}", token, headers=headers, json=message)

        described = MODEL | {"description": "d"}
        assert [status(each, "registered-models/update", described) for each in ("", OURS, THEIRS)] == [200, 200, 403]
        new = {"name": "new"}
        assert [status(each, "experiments/create", new, "POST") for each in ("", OURS, THEIRS)] == [403, 200, 403]
        assert guarded.status("GET", "/api/2.0/mlflow/registered-models/get?name=M", token,
                              headers={"X-MLFLOW-WORKSPACE": THEIRS}) == 200  # fmt: skip
        run = guarded.request("POST", "/api/2.0/mlflow/runs/create", ADMIN_TOKEN, json={"experiment_id": "0"}).json()
        run_id = run["run"]["info"]["run_id"]  # which a viewer reads by role
        version = MODEL | {"source": f"runs:/{run_id}/m", "run_id": run_id}
        assert status("", "model-versions/create", version, "POST") == 200
        assert status("", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"}, "POST") == 403
    finally:
        guarded.server.stop()
