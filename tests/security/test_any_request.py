"""Any request to a native route is answered: quickly, never by a failure of ours, errors in MLflow's shape.

Which statuses came how often: `make test-long ARGS='tests/security/test_any_request.py --hypothesis-show-statistics'`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import Phase, event, given

from headrace.asgi.shield import CROSS_ORIGIN
from tests.security.any_request import Sent, requests
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import BACKENDS, Databases
from tests.support.fork_server import NO_FORK
from tests.support.generated import cases
from tests.support.processes import PATIENCE_SECONDS, wait_until
from tests.support.servers import PASSED_THROUGH

LONGEST_SECONDS = PATIENCE_SECONDS


class Sender:
    """Sends what it is given as it is, on one connection for as long as that holds."""

    def __init__(self, guarded: Guarded, values: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(guarded.server.url).netloc, timeout=LONGEST_SECONDS)
        self._values = values

    def send(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with small names, and body."""
        target, body = sent.target, sent.body
        for name, value in self._values.items():
            target = target.replace("{" + name + "}", value).replace("%7B" + name + "%7D", value)
            body = body.replace(b"{" + name.encode() + b"}", value.encode())
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json", **dict(sent.headers)}
        headers["Content-Length"] = str(len(body))
        try:
            return self._exchange(sent.method, target, headers, body)
        except ConnectionError:  # the server had closed it; what it does to a new one counts
            self.close()
            return self._exchange(sent.method, target, headers, body)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        self._connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name, value.encode("latin-1", "replace"))
        self._connection.endheaders(body)
        response = self._connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module", params=BACKENDS)
def sender(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sender]:
    """A server whose stock has begun to start and does not go on: what is declined is answered 503 at once."""
    options = ("--stock", "lazy", "--stock-wait", "0", "--trusted-proxies", "127.0.0.1")
    folder = tmp_path_factory.mktemp("any")
    guarded = start_guarded(databases.migrated(request.param), folder, *options, users={}, env=NO_FORK)
    assert guarded.status("GET", PASSED_THROUGH, ADMIN_TOKEN) == 503

    def stock() -> list[psutil.Process]:
        children = psutil.Process(guarded.server.process.pid).children()
        return [child for child in children if "headrace.stock.launch" in child.cmdline()]

    wait_until(lambda: bool(stock()), "stock starts")
    [stopped] = stock()
    stopped.suspend()
    api = "/api/2.0/mlflow/"
    run = guarded.request("POST", api + "runs/create", ADMIN_TOKEN, json={"experiment_id": "0"}).json()["run"]["info"]
    place = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    sender = Sender(guarded, {"run": run["run_id"], "experiment": "0", "folder": place})
    yield sender
    sender.close()
    try:
        assert guarded.status("GET", "/health") == 200
        assert "Traceback" not in guarded.server.process.tail(10_000_000)
    finally:
        stopped.kill()  # it could not follow its parent's end
        guarded.server.stop()


def check(sent: Sent, status: int, headers: dict[str, str], body: bytes) -> None:
    assert headers.get("headrace-answered-by") == "native", sent
    is_off = any(each in sent.target for each in ("/mlflow/workspaces", "/mpu/", "presigned"))
    is_off = status == 501 and (is_off or ("X-MLflow-Workspace", "other") in sent.headers)
    assert status < 500 or status == 503 or is_off, (sent, body)
    of_a_page = headers.get("content-type", "").startswith("text/html")
    if status >= 400 and not of_a_page and body != CROSS_ORIGIN:
        error = json.loads(body)
        if any(each in sent.target for each in ("/v1/traces", "/mlflow-artifacts/")) and "detail" in error:
            return  # as stock's FastAPI has it
        assert error.keys() >= {"error_code", "message"}, (sent, body)
        assert error["message"], sent


@pytest.mark.generated
@cases(300, phases=(Phase.generate, Phase.shrink))
@given(requests())
def test_any_request(sender: Sender, sent: Sent) -> None:
    status, headers, body = sender.send(sent)
    event(str(status))
    check(sent, status, headers, body)
