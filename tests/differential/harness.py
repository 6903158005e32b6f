"""Send the same requests to stock and to Headrace, and tell how the answers or the rows left behind differ.

A case starts with a run of its own. `{run}` in a request stands for its id, `{run2}` for the id of the next
run that an answer names, and so on; in what is compared the ids are replaced the other way.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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


class NewRun(NamedTuple):
    """One that a server has made, and its rows by their table."""

    id: str
    rows: dict[str, list[dict[str, Any]]]


class Subject:
    """A server with its database, to try cases on. Not for two threads at once."""

    def __init__(self, server: Server, database: Database, new_run: NewRun | None = None) -> None:
        self.server = server
        self._new_run = new_run
        self.session = requests.Session()
        # the server's answer for no Content-Type must be tested without a default of the client's
        self.session.headers.clear()
        self.session.trust_env = False  # a proxy is looked for at each request otherwise
        # for who sends what a client of Python's would, with its headers
        self.client = requests.Session()
        self.client.trust_env = False
        self.database = database
        # `database` connects for each query: 7 ms of processor time, for thousands of cases
        self._engine = sqlalchemy.create_engine(database.uri, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        self._mark = "?" if database.backend == "sqlite" else "%s"

    def close(self) -> None:
        self.session.close()
        self.client.close()
        self._engine.dispose()

    def another_client(self) -> Subject:
        """The same server and database, for another thread."""
        return Subject(self.server, self.database, self._new_run)

    def request(self, method: str, path: str, **how: Any) -> requests.Response:
        """As `requests.request`, by `client`: another connection for each costs both sides a millisecond."""
        response = self.client.request(method, self.server.url + path, timeout=60, **how)
        if response.status_code >= 500:  # stock closes a connection after an answer that it failed at
            self.client.close()
        return response

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """As `database.query`, on a connection that stays."""
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(sql), parameters).mappings()]

    def rows_of(self, table: str, column: str, values: Iterable[Any]) -> list[dict[str, Any]]:
        """The rows of a table that have one of `values` in `column`."""
        # to compile a statement for each took as long as all else of a case
        given = list(values)
        marks = ", ".join([self._mark] * len(given))
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT * FROM {table} WHERE {column} IN ({marks or 'NULL'})", tuple(given)
            )
            return [dict(row) for row in rows.mappings()]

    def create_run(self) -> str:
        """A fresh active run in the experiment "Default".

        The server makes the first; the others are its rows, as stock takes 14 ms of processor time for a run.
        """
        if self._new_run is None:
            body = {"experiment_id": "0", "start_time": 1000, "user_id": "someone", "run_name": "a run"}
            ids: dict[str, str] = {}
            answer = self.send(Request("runs/create", body), ids)
            assert answer.status == 200, answer
            (run_id,) = ids.values()
            self._new_run = NewRun(
                run_id, {name: self.rows_of(name, "run_uuid", [run_id]) for name in ("runs", "tags")}
            )
            return run_id
        new_id = uuid.uuid4().hex
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            for table, rows in self._new_run.rows.items():
                columns = ", ".join(f":{column}" for column in rows[0])
                insert = sqlalchemy.text(f"INSERT INTO {table} ({columns.replace(':', '')}) VALUES ({columns})")
                connection.execute(insert, [_renamed(row, self._new_run.id, new_id) for row in rows])
            connection.exec_driver_sql("COMMIT")
        return new_id

    def play(self, case: Case) -> Transcript:
        ids = {RUN: self.create_run()}
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
        return {table: self._comparable_rows(table, ids) for table in TABLES}

    def _comparable_rows(self, table: str, ids: Mapping[str, str]) -> list[str]:
        rows = self.rows_of(table, "run_uuid", ids.values())
        for row in rows:
            if row.get("deleted_time") is not None:
                row["deleted_time"] = "<a time>"
        # repr tells -0.0 from 0.0, and 1 from 1.0 and True
        return sorted(_unfill(repr(sorted(row.items())), ids) for row in rows)


def _renamed(row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {name: value.replace(old, new) if isinstance(value, str) else value for name, value in row.items()}


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
