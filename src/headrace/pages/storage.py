"""/headrace/storage: what is stored where, which is what `headrace usage` counts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from headrace import uri
from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.message import Message
from headrace.auth.objects import AllInWorkspace
from headrace.auth.principals import Right
from headrace.errors import HeadraceError, InvalidParameter, NotFound
from headrace.pages import sql
from headrace.pages.layout import page, share, table

if TYPE_CHECKING:
    from headrace.usage import Usage


class OfStorage(Message):
    """`experiment_id`: the one whose files are counted, too."""

    experiment_id: str = ""


@endpoint(
    "GET", "/headrace/storage", Right.READ, AllInWorkspace(), sql.LOCATION, "runs", "metrics", "latest_metrics",
    "params", "tags", "logged_models", "trace_info", "spans",
)  # fmt: skip
async def show_storage(call: Call, message: OfStorage) -> Response:
    """Rows and bytes of each experiment, and the files of one. Listing all in S3 would take minutes: one at a time."""
    from headrace.usage import COUNTED, measure, shown_bytes

    files = await _files(call, message.experiment_id) if message.experiment_id else ""
    found = await measure(call.db, None)
    if call.settings.enable_workspaces:
        found = [each for each in found if each.workspace == call.workspace]
    whole = sum(each.bytes for each in found)

    def row(each: Usage) -> list[str]:
        number, name, stage = each.experiment_id, each.name, each.lifecycle_stage
        deleted = "" if stage == "active" else f" ({escape(stage)})"
        return [
            f'<a href="../#/experiments/{number}">{escape(name)}</a>{deleted}',
            *(f"{getattr(each, what):,}" for what in COUNTED),
            "" if each.database_bytes is None else shown_bytes(each.database_bytes),
            share(each.bytes, whole),
            f'<a href="storage?experiment_id={number}" aria-label="Count the files of {escape(name)}">count</a>',
        ]

    head = ["Experiment", *(what.replace("_", " ") for what in COUNTED), "database", "of all", "files"]
    return page(
        "What is stored where",
        f"""<p>Rows of each experiment, deleted ones too, and their share of the tables and indexes, the largest first.
Artifacts are in <code>{escape(_destination(call))}</code>.</p>
{files}{table(head, map(row, found), range(1, len(COUNTED) + 2))}""",
    )


async def _files(call: Call, text: str) -> str:
    """Raises InvalidParameter, NotFound."""
    from headrace.artifacts.locations import Locations
    from headrace.usage import artifacts_of, shown_bytes

    if not text.isdecimal() or len(text) > 9:
        raise InvalidParameter("experiment_id must be a number.")
    rows = await call.db.rows(sql.LOCATION(experiment_id=int(text), workspace=call.workspace))
    if not rows:
        raise NotFound(f"No Experiment with id={text} exists")
    name, location = rows[0]
    try:
        size = await artifacts_of(call.db, Locations(call.settings), int(text), location)
    except HeadraceError as reason:
        return f'<p role="status">The files of <b>{escape(name)}</b> can\'t be counted: {escape(str(reason))}</p>'
    return f'<p role="status"><b>{escape(name)}</b> has {size.files:,} files, {shown_bytes(size.bytes)}.</p>'


def _destination(call: Call) -> str:
    settings = call.settings
    return uri.redact(settings.artifacts_destination if settings.serve_artifacts else settings.default_artifact_root)
