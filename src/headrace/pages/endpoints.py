"""/headrace/: the pages that there are, and the best, last, lowest and highest value of each metric."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.message import Message
from headrace.auth.objects import NOTHING, ExperimentIfNamed
from headrace.auth.principals import Right
from headrace.errors import InvalidParameter, NotFound
from headrace.pages import sql
from headrace.pages.layout import page
from headrace.ui import html

MOST_METRICS = 1_000
_OF_WHICH = """<form action="best-values" class="column">
<label for="experiment_id">The experiment's number, as in its address</label>
<input id="experiment_id" name="experiment_id" inputmode="numeric" pattern="[0-9]+" required>
<button>Show</button></form>"""


class Nothing(Message):
    """The message of a page that needs no word."""


class OfExperiment(Message):
    """`experiment_id`: its number; empty: it is asked for."""

    experiment_id: str = ""


@endpoint("GET", "/headrace/style.css", Right.OPEN)
async def show_style(call: Call, message: Nothing) -> Response:
    """The style of these pages."""
    return Response(html.STYLE, content_type=b"text/css", headers=((b"cache-control", b"public, max-age=3600"),))


@endpoint("GET", "/headrace", Right.OPEN)
async def lead_to_index(call: Call, message: Nothing) -> Response:
    """As people type it."""
    return Response(b"", 303, headers=((b"location", b"headrace/"),))


@endpoint("GET", "/headrace/", Right.SIGNED_IN, NOTHING)
async def show_index(call: Call, message: Nothing) -> Response:
    """What there is."""
    tokens = '<li><a href="tokens">Tokens</a>: yours, to sign in by programs</li>' if call.settings.protected else ""
    return _page(
        "Headrace",
        f"""<nav><a href="../">MLflow</a></nav>
<h1>Headrace</h1>
<ul>
<li><a href="storage">What is stored where</a>: rows and bytes of each experiment</li>
<li><a href="state">State of the server</a>: workers, answers, group commit, stock, database, disk</li>
<li><a href="events">Events</a>: who is told when a run ends or a model changes (administrators)</li>
<li><a href="audit">Who did what</a> (administrators)</li>
{tokens}</ul>
<h2>Best values</h2>
{_OF_WHICH}""",
    )


@endpoint(
    "GET", "/headrace/best-values", Right.READ, ExperimentIfNamed("experiment_id"), "experiments", "runs",
    "metrics", "latest_metrics",
)  # fmt: skip
async def show_best_values(call: Call, message: OfExperiment) -> Response:
    """Of each metric of its active runs: the lowest and the highest of all points, and the newest run's last."""
    if not message.experiment_id:
        return page("Best values", _OF_WHICH)
    if not message.experiment_id.isdecimal() or len(message.experiment_id) > 9:
        raise InvalidParameter("experiment_id must be a number.")
    number = int(message.experiment_id)
    experiments, extremes, latest = await call.db.rows_of(
        sql.EXPERIMENT(experiment_id=number, workspace=call.workspace),
        sql.EXTREMES(experiment_id=number, most=MOST_METRICS),
        sql.LATEST(experiment_id=number),
    )
    if not experiments:
        raise NotFound(f"No Experiment with id={number} exists")
    last = {row["key"]: row for row in latest}
    ids = {row[field] for row in extremes for field in ("low_run", "high_run")} | {row["run_uuid"] for row in latest}
    names = {row[0]: row[1] for row in await call.db.rows(sql.NAMES(ids=sorted(ids)))}

    def cell(value: float, run_id: str) -> str:
        address = f"../#/experiments/{number}/runs/{quote(run_id, safe='')}"
        return f'<td>{value:g}<br><a href="{address}">{escape(names.get(run_id) or run_id)}</a></td>'

    rows = "".join(
        f'<tr><th scope="row">{escape(row["key"])}</th>{cell(row["low"], row["low_run"])}'
        f"{cell(row['high'], row['high_run'])}{_last(last.get(row['key']), cell)}<td>{row['runs']:,}</td></tr>"
        for row in extremes
    )
    table = (
        '<table><thead><tr><th scope="col">Metric</th><th scope="col">Lowest</th><th scope="col">Highest</th>'
        f'<th scope="col">Newest run</th><th scope="col">Runs</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    more = f"<p>The first {MOST_METRICS:,} metrics are shown.</p>" if len(extremes) == MOST_METRICS else ""
    return _page(
        "Best values",
        f"""<nav><a href="../#/experiments/{number}">{escape(experiments[0][0])}</a><a href="./">Headrace</a></nav>
<h1>Best values of {escape(experiments[0][0])}</h1>
<p>Over all points that its runs have logged, not only the last of each.</p>
{table if rows else "<p>Its runs have logged no metrics yet.</p>"}{more}""",
    )


def _last(row: Any, cell: Any) -> str:
    if row is None:
        return "<td></td>"
    text: str = cell(float("nan") if row["is_nan"] else row["value"], row["run_uuid"])
    return text


def _page(title: str, body: str) -> Response:
    content = html.page(title, "style.css", body)
    return Response(content, content_type=b"text/html; charset=utf-8", headers=html.headers())
