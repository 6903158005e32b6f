"""Events told by running servers to a receiver: set up by commands, once for all instances, after a restart, too."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Serve, Serving, run_headrace
from tests.server.test_gc import call
from tests.support.databases import Databases
from tests.support.processes import wait_until
from tests.support.servers import answered_by_stock

PRIVATE = "--events-allow-private"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for path, _, body in self.got if path == "/hook"]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("location", f"{self.server.url}/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.shutdown()
    started.server_close()


def new_run(server: Serving, experiment: str) -> str:
    return str(call(server, "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]["run_id"])


def end(server: Serving, run: str, status: str) -> None:
    call(server, "runs/update", run_id=run, status=status, end_time=5)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_told_once_and_signed(
    serve: Serve, databases: Databases, receiver: Receiver, tmp_path: Path, backend: Any
) -> None:
    stores = ["--backend-store-uri", databases.migrated(backend).uri]
    two_workers = ["--workers", "2"] if backend == "postgresql" else []
    servers = [serve(*stores, *two_workers, "--stock", "never", PRIVATE, until="/ready")]
    if backend == "postgresql":
        servers.append(serve(*stores, "--stock", "never", PRIVATE, until="/ready"))
    experiment = call(servers[0], "experiments/create", name="vision")["experiment_id"]
    more = ["--metric", "loss", "--below", "0.5", "--experiment", "vision", "--format", "slack"]
    low = run_headrace("events", "add", "low", f"{receiver.url}/slack", PRIVATE, *stores, *more, cwd=tmp_path)
    assert low.returncode == 0, low.stderr
    # the last one: a worker that knows of it knows of the other
    add = run_headrace("events", "add", "hook", f"{receiver.url}/hook", PRIVATE, *stores, "--json", cwd=tmp_path)
    assert add.returncode == 0, add.stderr
    secret = json.loads(add.stdout)["secret"]

    # a worker knows of a subscription within 5 s: runs end until one is told
    def is_told() -> bool:
        for server in servers:
            end(server, new_run(server, experiment), "KILLED")
        return bool(receiver.got)

    wait_until(is_told, "the subscription works")
    for server in servers:  # and all workers have looked by the time that every one of several runs is told
        wait_until(partial(all_told, server, receiver, experiment), "every run is told")

    receiver.got.clear()
    run = new_run(servers[0], experiment)
    for step, value in enumerate((0.9, 0.4, 0.3)):
        call(servers[0], "runs/log-metric", run_id=run, key="loss", value=value, timestamp=1, step=step)
    end(servers[-1], run, "FAILED")
    call(servers[0], "registered-models/create", name="cat")
    source = {"source": f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", "run_id": run}
    assert call(servers[0], "model-versions/create", name="cat", **source)["model_version"]["version"] == "1"
    for version in ("1", "1"):
        call(servers[0], "registered-models/alias", name="cat", alias="best", version=version)
    kinds = {("run", "failed"), ("model_version", "created"), ("model_version_alias", "created")}
    wait_until(
        lambda: kinds <= {(e["entity"], e["action"]) for e in receiver.events} and len(receiver.got) >= 4, "all told"
    )
    assert len(receiver.events) == 3, "each by one instance"
    by_kind = {f"{event['entity']}.{event['action']}": event["data"] for event in receiver.events}
    assert by_kind["run.failed"]["run_id"] == run
    assert by_kind["run.failed"]["metrics"]["loss"] == 0.3
    assert by_kind["model_version_alias.created"] == {"name": "cat", "alias": "best", "version": "1"}
    [slack] = [json.loads(body)["text"] for path, _, body in receiver.got if path == "/slack"]
    assert "of experiment vision: loss is 0.4, below 0.5" in slack
    for path, headers, body in receiver.got:
        if path == "/hook":
            signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
            expected = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
            assert headers["x-mlflow-signature"] == f"v1,{expected}"

    def rows() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(
            run_headrace("events", "list", *stores, "--json", cwd=tmp_path).stdout
        )
        return listed

    wait_until(lambda: rows()[0]["delivered"] >= 3, "what the receiver has is noted")
    assert [(row["name"], row["url"]) for row in rows()] == [
        ("hook", f"{receiver.url}/..."), ("low", f"{receiver.url}/..."),
    ]  # fmt: skip
    assert secret not in run_headrace("events", "list", *stores, cwd=tmp_path).stdout
    assert run_headrace("events", "remove", "hook", *stores, cwd=tmp_path).returncode == 0
    done = run_headrace("events", "remove", "hook", *stores, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "headrace: There is no subscription hook. `headrace events list` shows which there are.\n"


def all_told(server: Serving, receiver: Receiver, experiment: str) -> bool:
    runs = []
    for _ in range(8):  # on a connection each, so on each worker
        runs.append(new_run(server, experiment))
        end(server, runs[-1], "FINISHED")
    pause = threading.Event()
    for _ in range(40):
        if {event["data"].get("run_id") for event in receiver.events} >= set(runs):
            return True
        pause.wait(0.1)
    return False


def test_after_a_restart_and_no_redirect(
    serve: Serve, databases: Databases, receiver: Receiver, tmp_path: Path
) -> None:
    stores = ["--backend-store-uri", databases.migrated("sqlite").uri]
    hook = ["hook", f"{receiver.url}/hook", "--on", "run.failed", PRIVATE]
    assert run_headrace("events", "add", *hook, *stores, cwd=tmp_path).returncode == 0
    receiver.status = 302
    done = run_headrace("events", "test", "hook", PRIVATE, *stores, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "headrace: hook did not take it: the answer was 302\n")
    # without the option it is told nothing here, and the server says why
    server = serve(*stores, "--stock", "never", until="/ready")
    run = new_run(server, "0")

    def is_refused() -> bool:
        end(server, run, "FAILED")
        return "event run.failed to hook: http:// is for --events-allow-private only" in server.log

    wait_until(is_refused, "the log says that nothing is sent to a private address")
    server.process.stop()
    assert [path for path, *_ in receiver.got] == ["/hook"], "the test's, and no redirect was followed"
    receiver.got.clear()
    receiver.status = 200
    serve(*stores, "--stock", "never", PRIVATE, until="/ready")
    wait_until(lambda: bool(receiver.events), "what was noted before is told after a restart")
    assert {event["data"]["run_id"] for event in receiver.events} == {run}
    done = run_headrace("events", "test", "hook", PRIVATE, *stores, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hook took it: 200\n")


def test_the_command_refuses(databases: Databases, tmp_path: Path) -> None:
    stores = ["--backend-store-uri", databases.migrated("sqlite").uri]
    for given, why in (
        (["x", "http://h.example"], "must be https://"),
        (["x", "https://h.example", "--experiment", "sound"], "There is no experiment sound"),
        (["x", "https://h.example", "--metric", "m"], "needs a metric and one threshold"),
    ):
        done = run_headrace("events", "add", *given, *stores, cwd=tmp_path)
        assert done.returncode == 2
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    assert run_headrace("events", "list", *stores, cwd=tmp_path).stdout == "None.\n"


def test_what_stock_does_is_told_too(serve: Serve, databases: Databases, receiver: Receiver, tmp_path: Path) -> None:
    stores = ["--backend-store-uri", databases.migrated("sqlite").uri]
    hook = ["hook", f"{receiver.url}/hook", PRIVATE, "--on", "model_version.created"]
    hook += ["--on", "model_version_alias.created"]
    assert run_headrace("events", "add", *hook, *stores, cwd=tmp_path).returncode == 0
    files = tmp_path / "artifacts"
    options = ["--default-artifact-root", str(files), "--enable-webhooks", "--stock-wait", "120"]
    allowed = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    server = serve(*stores, *options, PRIVATE, env=allowed, until="/ready")
    experiment = call(server, "experiments/create", name="of files")["experiment_id"]
    run = call(server, "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    Path(run["artifact_uri"], "model").mkdir(parents=True)
    call(server, "registered-models/create", name="cat")
    made = {"name": "cat", "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]}  # a path is stock's
    call(server, "model-versions/create", **made)
    events = [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]
    call(server, "webhooks", name="w", url=f"{receiver.url}/stock", events=events)
    for alias in ("best", "best", "first"):
        call(server, "registered-models/alias", name="cat", alias=alias, version="1")
    by_stock = {("2.0/mlflow/model-versions/create", "POST"), ("2.0/mlflow/registered-models/alias", "POST")}
    wait_until(lambda: by_stock <= answered_by_stock(server.url), "stock answers both")
    wait_until(lambda: len(receiver.events) >= 3, "all are told")
    assert sorted(json.dumps(event["data"].get("alias")) for event in receiver.events) == ['"best"', '"first"', "null"]
    assert all((e["data"]["name"], e["data"]["version"]) == ("cat", "1") for e in receiver.events)
