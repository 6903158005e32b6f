"""Send the same requests to stock and to Headrace, and tell how the answers or the rows left behind differ.

A case starts with a run of its own. `{run}` in a request stands for its id, `{run2}` for the id of the next
run that an answer names, and so on; in what is compared the ids are replaced the other way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import requests
import sqlalchemy

from tests.support.databases import Database
from tests.support.servers import Server

RUN = "{run}"
API = "/api/2.0/mlflow/"
AJAX_API = "/ajax-api/2.0/mlflow/"
# The endpoints that Headrace answers by itself when the request is well-formed.
NATIVE = {
    "runs/create",
    "runs/get",
    "runs/update",
    "runs/log-metric",
    "runs/log-batch",
    "runs/log-parameter",
    "runs/set-tag",
    "runs/delete-tag",
}
TABLES = ("runs", "metrics", "latest_metrics", "params", "tags")
# Longer than any answer should take; a hang is a failure.
TIMEOUT_SECONDS = 30

_ID = re.compile(r"\b[0-9a-f]{32}\b")
_RANDOM_NAME = re.compile(r"\b[a-z]{2,16}-[a-z]{2,16}-[0-9]{1,4}\b")
# of a logged model; a run's times are the request's
_SERVERS_TIME = re.compile(r'(_timestamp_ms":\s*"?)\d+')
_UNCOMPARED_HEADERS = {"date", "server", "content-length", "headrace-answered-by", "headrace-error-id"}


@dataclass(frozen=True)
class Request:
    """`body`: bytes and text (in UTF-8) go out as they are, None is no body, anything else goes as JSON."""

    endpoint: str
    body: Any = None
    method: str = "POST"
    prefix: str = API
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Case:
    """`by`: who must answer on Headrace: "native" (every request to a NATIVE endpoint), "stock" (the last
    request: Headrace declines it), or "any" (bad input: whoever answers it right)."""

    name: str
    requests: tuple[Request, ...]
    by: Literal["native", "stock", "any"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any
    answered_by: str | None


@dataclass
class Transcript:
    """What one server made of a case. `rows`: table -> rows of the case's runs, ids replaced, sorted."""

    answers: list[Answer]
    rows: dict[str, list[str]]


class Subject:
    """A server with its database, to try cases on. Not for two threads at once."""

    def __init__(self, server: Server, database: Database) -> None:
        self.server = server
        self.session = requests.Session()
        # the server's answer for no Content-Type must be tested without a default of the client's
        self.session.headers.clear()
        self.session.trust_env = False  # a proxy is looked for at each request otherwise
        self.database = database
        # `database` connects for each query: 7 ms of processor time, for thousands of cases
        self._engine = sqlalchemy.create_engine(database.uri)

    def close(self) -> None:
        self.session.close()
        self._engine.dispose()

    def another_client(self) -> Subject:
        """The same server and database, for another thread."""
        return Subject(self.server, self.database)

    def play(self, case: Case) -> Transcript:
        ids = {RUN: create_run(self)}
        answers = [self.send(request, ids) for request in case.requests]
        return Transcript(answers, self.rows(ids))

    def send(self, request: Request, ids: dict[str, str]) -> Answer:
        """Send one request; ids of runs that the answer names first are added to `ids`."""
        response = self.session.request(
            request.method,
            _fill(self.server.url + request.prefix + request.endpoint + request.query, ids),
            data=_encode(request.body, ids),
            headers=dict(request.headers),
            timeout=TIMEOUT_SECONDS,
        )
        text = response.content.decode()
        for new in _ID.findall(text):
            if new not in ids.values():
                ids[f"{{run{len(ids) + 1}}}" if ids else RUN] = new
        headers = {k.lower(): v for k, v in response.headers.items()}
        for name in ("allow", "vary"):  # sets; stock says some members twice
            if name in headers:
                headers[name] = ", ".join(sorted(set(headers[name].split(", "))))
        return Answer(
            response.status_code,
            {k: v for k, v in headers.items() if k not in _UNCOMPARED_HEADERS},
            _comparable(text, ids),
            headers.get("headrace-answered-by"),
        )

    def rows(self, ids: Mapping[str, str]) -> dict[str, list[str]]:
        with self._engine.connect() as connection:
            return {table: _rows(connection, table, ids) for table in TABLES}


def create_run(subject: Subject) -> str:
    """A fresh active run in the experiment "Default"."""
    body = {"experiment_id": "0", "start_time": 1000, "user_id": "someone", "run_name": "a run"}
    ids: dict[str, str] = {}
    answer = subject.send(Request("runs/create", body), ids)
    assert answer.status == 200, answer
    return next(iter(ids.values()))


def _encode(body: Any, ids: Mapping[str, str]) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return _fill(body if isinstance(body, str) else json.dumps(body), ids).encode()


def _fill(text: str, ids: Mapping[str, str]) -> str:
    for placeholder, run_id in ids.items():
        text = text.replace(placeholder, run_id)
    return text


def _unfill(text: str, ids: Mapping[str, str]) -> str:
    for placeholder, run_id in ids.items():
        text = text.replace(run_id, placeholder)
    return _SERVERS_TIME.sub(r"\g<1>0", _RANDOM_NAME.sub("<random name>", text))


def _comparable(text: str, ids: Mapping[str, str]) -> Any:
    text = _unfill(text, ids)
    try:
        return _sorted_data(json.loads(text))
    except ValueError:
        return text


def _sorted_data(body: Any) -> Any:
    """MLflow's metrics, params and tags of a run have no order; everything else keeps its own."""
    data = body.get("run", {}).get("data", {}) if isinstance(body, dict) else {}
    for name in ("metrics", "params", "tags"):
        if name in data:
            data[name].sort(key=lambda entity: entity["key"])
    return body


def _rows(connection: sqlalchemy.Connection, table: str, ids: Mapping[str, str]) -> list[str]:
    query = sqlalchemy.text(f"SELECT * FROM {table} WHERE run_uuid IN :ids").bindparams(
        sqlalchemy.bindparam("ids", expanding=True)
    )
    rows = [dict(row) for row in connection.execute(query, {"ids": list(ids.values())}).mappings()]
    for row in rows:
        if row.get("deleted_time") is not None:
            row["deleted_time"] = "<a time>"
    # repr tells -0.0 from 0.0, and 1 from 1.0 and True
    return sorted(_unfill(repr(sorted(row.items())), ids) for row in rows)
