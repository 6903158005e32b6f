"""/headrace/state: how the server is: workers, answers, group commit, stock, database, disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import uri
from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.message import Message
from headrace.auth.objects import NOTHING
from headrace.auth.principals import Right
from headrace.database_url import SqliteURL
from headrace.db.indexes import INDEXES, ON_POSTGRESQL, which_are_ready
from headrace.db.query import Dialect, Sql
from headrace.errors import HeadraceError
from headrace.pages.layout import bars, page, share, table
from headrace.settings import Settings
from headrace.versions import installed_version

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# Whose connections: other servers on this database, stock, people.
_CONNECTED = Sql(
    postgresql="""
SELECT coalesce(host(client_addr), 'a socket') AS address, coalesce(application_name, '') AS name, count(*) AS number,
  sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END) AS active,
  to_char(min(backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS since
FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1, 2 ORDER BY 1, 2
""",
    sqlite="SELECT 1 WHERE 0",
)
_SIZE = Sql(
    postgresql="SELECT pg_database_size(current_database())",
    sqlite="SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())",
)


class OfState(Message):
    """The message of a page that needs no word."""


@endpoint("GET", "/headrace/state", Right.READ, NOTHING)
async def show_state(call: Call, message: OfState) -> Response:
    """From what Prometheus is told, and what the database says of itself."""
    from headrace.monitoring import directory_of, registry_of

    registry = await asyncio.to_thread(registry_of, directory_of(call.settings))
    counted = {metric.name: metric for metric in registry.collect()}
    parts = [_workers(counted), _answers(counted), _commits(counted), _stock(call.settings)]
    parts += [await _database(call, counted), await asyncio.to_thread(_disk, call.settings)]
    return page("State of the server", "\n".join(parts))


def _workers(counted: Mapping[str, Metric]) -> str:
    memory, files = (
        {sample.labels["pid"]: sample.value for sample in _samples(counted, name)}
        for name in ("headrace_worker_resident_memory_bytes", "headrace_worker_open_fds")
    )
    rows = [[pid, f"{memory[pid] / 1e6:,.0f} MB", f"{files.get(pid, 0):,.0f}"] for pid in sorted(memory, key=int)]
    return (
        f"<p>Headrace {installed_version('headrace')} with MLflow {installed_version('mlflow')}; "
        f"{_total(counted, 'headrace_cpu_seconds', '_total'):,.1f} s of processor time by its workers.</p>"
        f"<h2>Workers</h2>{table(['Process', 'Memory', 'Open files'], rows, (1, 2))}"
    )


def _answers(counted: Mapping[str, Metric]) -> str:
    requests = [each for each in _samples(counted, "headrace_requests") if each.name.endswith("_total")]
    failed = sum(each.value for each in requests if each.labels["status"] >= "500")
    by_stock = sum(each.value for each in requests if each.labels["answered_by"] == "stock")
    plot = _histogram(counted, "headrace_request_seconds", "Requests by seconds to the answer")
    return (
        f"<h2>Answers</h2><p>{sum(each.value for each in requests):,.0f} requests since the start, {by_stock:,.0f} of "
        f"them answered by stock, {failed:,.0f} failed (status 500 and more); "
        f"{_total(counted, 'headrace_requests_in_flight'):,.0f} under way.</p>"
        f'<div class="plots">{plot}</div>'
    )


def _commits(counted: Mapping[str, Metric]) -> str:
    plots = (
        ("headrace_group_commit_writes", "Commits by writes that shared them"),
        ("headrace_group_commit_wait_seconds", "Groups by seconds that their first write waited"),
        ("headrace_group_commit_seconds", "Groups by seconds to the commit"),
    )
    return (
        f"<h2>Group commit</h2><p>{_total(counted, 'headrace_queue_writes'):,.0f} writes wait for the database.</p>"
        f'<div class="plots">{"".join(_histogram(counted, name, title) for name, title in plots)}</div>'
    )


def _stock(settings: Settings) -> str:
    if settings.stock == "never":
        state = "It is never started (--stock never)."
    elif os.path.exists(settings.stock_socket):
        state = "It runs and takes requests."
    else:
        state = f"It does not run; it starts when it is wanted (--stock {escape(settings.stock)})."
    return f"<h2>Stock MLflow</h2><p>{state}</p>"


async def _database(call: Call, counted: Mapping[str, Metric]) -> str:
    address = escape(uri.redact(call.settings.backend_store_uri))
    wanted = INDEXES if call.db.dialect is Dialect.SQLITE else ON_POSTGRESQL
    try:
        size, indexes, connected = await call.db.rows_of(_SIZE(), which_are_ready(wanted), _CONNECTED())
    except HeadraceError as error:
        return f'<h2>Database</h2><p class="bad">{address}: {escape(str(error))}</p>'
    ready = {name: bool(whole) for name, whole in indexes}
    states = [[f"<code>{index.name}</code>", index.table, index.state(ready.get(index.name))] for index in wanted]
    text = f"<h2>Database</h2><p><code>{address}</code>, {_bytes(size[0][0])}.</p>"
    if call.db.dialect is Dialect.POSTGRESQL:
        rows = [
            [escape(row["address"]), escape(row["name"]), str(row["number"]), str(row["active"]), str(row["since"])]
            for row in connected
        ]
        of_workers = {each.labels["state"]: each.value for each in _samples(counted, "headrace_database_connections")}
        text += (
            f"<p>{of_workers.get('open', 0):.0f} connections of this server's workers, "
            f"{of_workers.get('idle', 0):.0f} of them idle. All that the database has, "
            "every server's, stock's and people's:</p>"
            + table(["From", "Program", "Connections", "At work", "Oldest since (UTC)"], rows, (2, 3))
        )
    return f"{text}<h2>Indexes of Headrace</h2>{table(['Index', 'On', 'State'], states)}"


def _disk(settings: Settings) -> str:
    """Of this machine, as far as something is kept on it."""
    places = {}
    database = settings.database
    if isinstance(database, SqliteURL):
        places["the database"] = Path(database.path)
    root = settings.artifacts_destination if settings.serve_artifacts else settings.default_artifact_root
    if "://" not in root or root.startswith("file:"):
        places["artifacts"] = Path(root.removeprefix("file://"))
    rows = []
    for what, path in places.items():
        folder = next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))
        disk = shutil.disk_usage(folder)
        rows.append(
            [
                *(what, f"<code>{escape(str(folder))}</code>", _bytes(disk.free), _bytes(disk.total)),
                share(disk.total - disk.free, disk.total),
            ]
        )
    if not rows:
        return "<h2>Disk</h2><p>Nothing is kept on this machine's.</p>"
    return f"<h2>Disk</h2>{table(['Of', 'In', 'Free', 'Size', 'In use'], rows, (2, 3))}"


def _samples(counted: Mapping[str, Metric], name: str) -> Iterable[Any]:
    return counted[name].samples if name in counted else ()


def _total(counted: Mapping[str, Metric], name: str, ending: str = "") -> float:
    return float(sum(each.value for each in _samples(counted, name) if each.name == name + ending))


def _histogram(counted: Mapping[str, Metric], name: str, title: str) -> str:
    """How many are in each bucket, of all labels; Prometheus counts all that are not above a bound."""
    below: defaultdict[float, float] = defaultdict(float)
    for each in _samples(counted, name):
        if each.name.endswith("_bucket"):
            below[float(each.labels["le"])] += each.value
    before, counts = 0.0, []
    for bound in sorted(below):
        counts.append((f"{bound:g}" if bound != float("inf") else "more", below[bound] - before))
        before = below[bound]
    return bars(title, counts)


def _bytes(count: int) -> str:
    from headrace.usage import shown_bytes

    return shown_bytes(count)
