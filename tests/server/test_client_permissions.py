"""The matrix of permissions through MLflow's own client: each call as nobody, viewer, editor and administrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from headrace.auth.principals import ROLES, Right
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import Databases


@dataclass
class Things:
    """What an administrator made; the calls may delete it, and each puts back what it took away."""

    experiment: str
    run: Run
    model: str = "model"


Call = Callable[[MlflowClient, Things], object]


def _restored_run(client: MlflowClient, things: Things) -> None:
    client.delete_run(things.run.info.run_id)
    client.restore_run(things.run.info.run_id)


def _restored_experiment(client: MlflowClient, things: Things) -> None:
    client.delete_experiment(things.experiment)
    client.restore_experiment(things.experiment)


READ: dict[str, Call] = {
    "search_experiments": lambda client, _: client.search_experiments(),
    "get_experiment": lambda client, things: client.get_experiment(things.experiment),
    "get_experiment_by_name": lambda client, _: client.get_experiment_by_name("of the matrix"),
    "get_run": lambda client, things: client.get_run(things.run.info.run_id),
    "search_runs": lambda client, things: client.search_runs([things.experiment]),
    "get_metric_history": lambda client, things: client.get_metric_history(things.run.info.run_id, "m"),
    "list_artifacts": lambda client, things: client.list_artifacts(things.run.info.run_id),
    "search_registered_models": lambda client, _: client.search_registered_models(),
    "get_registered_model": lambda client, things: client.get_registered_model(things.model),
    "search_model_versions": lambda client, _: client.search_model_versions(),
    "search_traces": lambda client, things: client.search_traces(locations=[things.experiment]),
}
CHANGE: dict[str, Call] = {
    "set_experiment_tag": lambda client, things: client.set_experiment_tag(things.experiment, "t", "1"),
    "rename_experiment": lambda client, things: client.rename_experiment(things.experiment, "of the matrix"),
    "create_run": lambda client, things: client.create_run(things.experiment),
    "update_run": lambda client, things: client.update_run(things.run.info.run_id, name="named"),
    "log_metric": lambda client, things: client.log_metric(things.run.info.run_id, "m", 1.0),
    "log_param": lambda client, things: client.log_param(things.run.info.run_id, "p", "1"),
    "log_batch": lambda client, things: client.log_batch(things.run.info.run_id, [Metric("m", 2.0, 2, 2)]),
    "set_tag": lambda client, things: client.set_tag(things.run.info.run_id, "t", "1"),
    "log_text": lambda client, things: client.log_text(things.run.info.run_id, "text", "a.txt"),
    "set_terminated": lambda client, things: client.set_terminated(things.run.info.run_id),
    "delete_run": _restored_run,
    "delete_experiment": _restored_experiment,
    "update_registered_model": lambda client, things: client.update_registered_model(things.model, "described"),
    "set_registered_model_tag": lambda client, things: client.set_registered_model_tag(things.model, "t", "1"),
}
CALLS = {name: (Right.READ, call) for name, call in READ.items()} | {
    name: (Right.EDIT, call) for name, call in CHANGE.items()
}


@pytest.fixture(scope="module")
def guarded(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    users = {"viewer": "viewer", "editor": "editor"}
    folder = tmp_path_factory.mktemp("client-permissions")
    found = start_guarded(databases.migrated("sqlite"), folder, users=users)
    yield found
    found.server.stop()


def test_every_call_as_everybody(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not is told so by an exception of the client's with 401 or 403; who may gets an answer."""
    made = {role: guarded.headrace("user", "token", role) for role in ("viewer", "editor")}
    tokens = {"admin": ADMIN_TOKEN, **made, "nobody": ""}
    client = MlflowClient(guarded.server.url, guarded.server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", ADMIN_TOKEN)
    experiment = client.create_experiment("of the matrix")
    things = Things(experiment, client.create_run(experiment))
    client.create_registered_model(things.model)
    wrong = []
    for role, token in tokens.items():
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        most = Right.OPEN if role == "nobody" else ROLES[role]
        for name, (right, call) in CALLS.items():
            refused = ""
            try:
                call(client, things)
            except (MlflowException, requests.HTTPError) as error:  # the second from uploads
                refused = str(error)
            code = "UNAUTHENTICATED" if role == "nobody" else "PERMISSION_DENIED"
            if not (code in refused if most < right else not refused):
                wrong.append((role, name, refused))
    assert wrong == []
