"""Sends the known attacks, to Headrace and to stock, and looks at what they have done."""

from __future__ import annotations

import http.client
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import requests

from tests.security.known_attacks import Attack, Step
from tests.support.processes import PATIENCE_SECONDS

SECRET = "the secret of this machine"
LONGEST_SECONDS = PATIENCE_SECONDS
_NEW = {"new_run": re.compile(r'"run_id": ?"(\w+)"'), "new_experiment": re.compile(r'"experiment_id": ?"(\d+)"')}


class Listener(BaseHTTPRequestHandler):
    """A web server that nobody may make the server call."""

    calls: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.calls.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(SECRET.encode())

    do_POST = do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[str]:
    """The address of a Listener."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def values_of(url: str, folder: Path, listener: str, headers: Mapping[str, str]) -> dict[str, str]:
    """What the attacks name: a secret in `folder`, and a run with an artifact. `headers` are of who may make it."""
    (folder / "secret.txt").write_text(SECRET)
    made = requests.post(
        f"{url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, headers=headers, timeout=60
    ).json()["run"]["info"]
    artifacts = made["artifact_uri"].removeprefix("mlflow-artifacts:/")
    artifact = f"{url}/api/2.0/mlflow-artifacts/artifacts/{artifacts}/a.txt"
    assert requests.put(artifact, data=SECRET, headers=headers, timeout=60).status_code == 200
    return {
        "secret": str(folder / "secret.txt"),
        "folder": str(folder),
        "up": "../" * 20,
        "listener": listener,
        "run": made["run_id"],
        "artifact": f"{artifacts}/a.txt",
        "artifact_folder": artifacts,
    }


def attempt(url: str, attack: Attack, values: Mapping[str, str], headers: Mapping[str, str]) -> list[tuple[int, str]]:
    """Status and text of each step; `headers` are of who sends them."""
    now = {**values, "name": f"n{uuid.uuid4().hex}", "new_run": "0" * 32, "new_experiment": "99999"}
    answers = []
    for step in attack.steps:
        status, text = send(url, _filled(step, now), headers)
        answers.append((status, text))
        for name, pattern in _NEW.items():
            if found := pattern.search(text):
                now[name] = found[1]
    return answers


def send(url: str, step: Step, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and text; the target goes out as it is, dots and all."""
    body, own = step.encoded()
    sent = {**headers, **own}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=LONGEST_SECONDS)
    try:
        connection.putrequest(step.method, step.path, skip_host="Host" in sent)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def outside(folder: Path) -> dict[str, str]:
    """The files that no request may change."""
    return {str(path): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def _filled(step: Step, values: Mapping[str, str]) -> Step:
    def fill(text: str) -> str:
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return text

    body = step.body
    if body is not None:
        body = fill(body) if isinstance(body, str) else json.loads(fill(json.dumps(body)))
    return Step(step.method, fill(step.path), body, step.headers)
