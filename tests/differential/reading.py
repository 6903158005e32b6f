"""Stock and Headrace as servers of one database: what they read must be the same, ids and all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.differential import search_data
from tests.differential.search_data import in_order
from tests.support.databases import Backend, Databases
from tests.support.servers import start_headrace, start_stock

API = "/ajax-api/2.0/mlflow/"
TIMEOUT_SECONDS = 60


@dataclass
class Answer:
    status: int
    body: Any
    native: bool


class Readers:
    """The two servers; `experiments` are the ids of search_data's, `histories` its runs with metric histories."""

    def __init__(self, stock: str, headrace: str, experiments: list[str], histories: list[str]) -> None:
        self.experiments = experiments
        self.histories = histories
        self.urls = (stock, headrace)
        self._urls = {"stock": stock, "headrace": headrace}
        self._session = requests.Session()

    def close(self) -> None:
        self._session.close()

    def get(self, server: str, endpoint: str, query: Any) -> Answer:
        url = self._urls[server] + API + endpoint
        return _answer(self._session.get(url, params=query, timeout=TIMEOUT_SECONDS))

    def post(self, server: str, endpoint: str, body: Any) -> Answer:
        url = self._urls[server] + API + endpoint
        return _answer(self._session.post(url, json=body, timeout=TIMEOUT_SECONDS))

    def compare(self, endpoint: str, given: Any, method: str = "post", native: bool | None = True) -> Any:
        """Send to both; the answer, which is the same. `native`: who must answer on Headrace, None for either."""
        send = getattr(self, method)
        expected: Answer = send("stock", endpoint, given)
        found: Answer = send("headrace", endpoint, given)
        if native is None and expected.status == 200 and found.status == 400:
            # stock reads half of it; Headrace says which field is wrong
            assert "for parameter '" in found.body["message"], (given, expected, found)
            return found.body
        assert found.status == expected.status, (given, expected, found)
        if native is None:  # tokens are each server's own
            expected.body.pop("next_page_token", None)
            found.body.pop("next_page_token", None)
        if native is None and expected.status == 400:  # bad input: Headrace may name the fault more plainly
            return found.body
        assert found.body == expected.body, given
        assert native is None or found.native == native, (given, found)
        return found.body


@contextmanager
def open_readers(backend: Backend, databases: Databases, folder: Path) -> Iterator[Readers]:
    """Both servers on one database that holds the runs of search_data."""
    database = databases.migrated(backend)
    store = search_data.open_stock(database, "mlflow-artifacts:/")
    experiments = search_data.fill(store)
    histories = search_data.fill_histories(store)
    store.engine.dispose()
    folders = [folder / "stock", folder / "headrace"]
    for each in folders:
        each.mkdir()
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        servers = list(pool.map(lambda start, where: start(database, where), (start_stock, start_headrace), folders))
        for server in servers:
            stack.callback(server.stop)
        readers = Readers(servers[0].url, servers[1].url, experiments, histories)
        stack.callback(readers.close)
        yield readers


def _answer(response: requests.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    else:
        for run in [*body.get("runs", ()), *filter(None, [body.get("run")])]:
            in_order(run)
        body.get("dataset_summaries", []).sort(key=repr)
        for experiment in [*body.get("experiments", ()), body.get("experiment", {})]:
            experiment.get("tags", []).sort(key=lambda tag: tag["key"])
    return Answer(response.status_code, body, response.headers.get("headrace-answered-by") == "native")
