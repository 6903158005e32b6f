"""Who takes the space: rows and bytes of each experiment, in the database and among the artifacts.

Rows are counted, runs in portions, so that no statement takes long. Bytes of the database are each table's on the disk,
with its indexes, shared out by rows: what an experiment's rows weigh on average, not how long its own texts are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from msgspec import Struct

from headrace.artifacts.locations import Locations, Place
from headrace.artifacts.store import Size
from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.errors import Declined, HeadraceError

RUNS_AT_ONCE = 500
FOLDERS_AT_ONCE = 8

# what is counted -> the tables that grow with it
TABLES = {
    "runs": ("runs",),
    "metrics": ("metrics",),
    "latest_metrics": ("latest_metrics",),
    "params": ("params",),
    "tags": ("tags",),
    "logged_models": ("logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics"),
    "traces": ("trace_info", "trace_tags", "trace_request_metadata", "trace_metrics", "assessments"),
    "spans": ("spans", "span_metrics"),
}
COUNTED = ("runs", "metrics", "params", "tags", "logged_models", "traces", "spans")  # in a Usage
_EXPERIMENTS = Sql("""
SELECT experiment_id, name, workspace, lifecycle_stage, artifact_location FROM experiments ORDER BY experiment_id
""")
_RUNS = Sql("""
SELECT experiment_id, count(*) AS runs, CAST(sum(metrics) AS bigint) AS metrics,
    CAST(sum(latest_metrics) AS bigint) AS latest_metrics, CAST(sum(params) AS bigint) AS params,
    CAST(sum(tags) AS bigint) AS tags, max(run_uuid) AS last
FROM (
    SELECT r.experiment_id, r.run_uuid,
        (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid) AS metrics,
        (SELECT count(*) FROM latest_metrics m WHERE m.run_uuid = r.run_uuid) AS latest_metrics,
        (SELECT count(*) FROM params p WHERE p.run_uuid = r.run_uuid) AS params,
        (SELECT count(*) FROM tags t WHERE t.run_uuid = r.run_uuid) AS tags
    FROM (SELECT run_uuid, experiment_id FROM runs WHERE run_uuid > :after ORDER BY run_uuid LIMIT :most) r
) counted GROUP BY experiment_id
""")
_POINTS = Sql("""
SELECT r.run_uuid, (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid) FROM runs r
WHERE r.experiment_id = :experiment_id AND r.run_uuid > :after ORDER BY r.run_uuid LIMIT :most
""")
_OF_EXPERIMENTS = {
    "logged_models": Sql("SELECT experiment_id, count(*) FROM logged_models GROUP BY experiment_id"),
    "traces": Sql("SELECT experiment_id, count(*) FROM trace_info GROUP BY experiment_id"),
    "spans": Sql("SELECT experiment_id, count(*) FROM spans GROUP BY experiment_id"),
}
_SIZES = Sql(
    postgresql="""
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND pg_table_is_visible(oid) AND relname IN :tables
""",
    sqlite="""
SELECT m.tbl_name, sum(s.pgsize) FROM sqlite_master m JOIN dbstat s ON s.name = m.name
WHERE s.aggregate = 1 AND m.tbl_name IN :tables GROUP BY m.tbl_name
""",
)
_PLACES = {
    "run": Sql("""
SELECT run_uuid, artifact_uri FROM runs
WHERE experiment_id = :experiment_id AND run_uuid > :after ORDER BY run_uuid LIMIT :most
"""),
    "logged model": Sql("""
SELECT model_id, artifact_location FROM logged_models
WHERE experiment_id = :experiment_id AND model_id > :after ORDER BY model_id LIMIT :most
"""),
}


class Usage(Struct):
    """An experiment's. Bytes and artifacts are None where they can't be told; `why` says what of."""

    experiment_id: int
    name: str
    workspace: str
    lifecycle_stage: str
    runs: int = 0
    metrics: int = 0  # points
    params: int = 0
    tags: int = 0
    logged_models: int = 0
    traces: int = 0
    spans: int = 0
    database_bytes: int | None = None
    artifacts: int | None = None  # files
    artifact_bytes: int | None = None
    why: str = ""

    @property
    def bytes(self) -> int:
        """All that is known."""
        return (self.database_bytes or 0) + (self.artifact_bytes or 0)


async def measure(
    db: Database,
    locations: Locations | None,
    only: Collection[str] = (),
    told: Callable[[int, int], None] = lambda done, of: None,
) -> list[Usage]:
    """The experiments, deleted ones too, the largest first.

    `locations`: where artifacts are; None leaves them out. `only`: names or ids. `told` hears how many experiments'
    artifacts were looked at, of how many. Raises Declined for one that is not there, TooSlow, Unavailable.
    """
    rows = await db.rows(_EXPERIMENTS())
    for missing in set(only) - {name for row in rows for name in (str(row[0]), row[1])}:
        raise Declined(f"There is no experiment {missing}")
    counts = await _counts(db)
    sizes = await _sizes(db)
    usages = []
    for number, name, workspace, stage, _ in rows:
        counted = counts.get(number, {})
        usage = Usage(number, name, workspace or "", stage)
        for what in COUNTED:
            setattr(usage, what, counted.get(what, 0))
        usage.database_bytes = None if sizes is None else _share(counted, counts, sizes)
        usages.append(usage)
    wanted = [usage for usage in usages if not only or {str(usage.experiment_id), usage.name} & set(only)]
    if locations is not None:
        places = {row[0]: row[4] for row in rows}
        folders = asyncio.Semaphore(FOLDERS_AT_ONCE)
        for done, usage in enumerate(wanted, 1):
            try:
                size = await artifacts_of(db, locations, usage.experiment_id, places[usage.experiment_id], folders)
                usage.artifacts, usage.artifact_bytes = size.files, size.bytes
            except HeadraceError as reason:
                usage.why = str(reason)
            told(done, len(wanted))
    return sorted(wanted, key=lambda usage: (-usage.bytes, usage.experiment_id))


async def _counts(db: Database) -> dict[int, dict[str, int]]:
    """Experiment -> what -> rows."""
    counts: dict[int, dict[str, int]] = {}
    after = ""
    while portion := await db.rows(_RUNS(after=after, most=RUNS_AT_ONCE)):
        for row in portion:
            of_experiment = counts.setdefault(row["experiment_id"], {})
            for what in ("runs", "metrics", "latest_metrics", "params", "tags"):
                of_experiment[what] = of_experiment.get(what, 0) + row[what]
        after = max(row["last"] for row in portion)
    for what, statement in _OF_EXPERIMENTS.items():
        for number, count in await db.rows(statement()):
            counts.setdefault(number, {})[what] = count
    return counts


async def _sizes(db: Database) -> dict[str, int] | None:
    """What is counted -> bytes; None where SQLite was built without the table that knows."""
    try:
        rows = await db.rows(_SIZES(tables=[table for tables in TABLES.values() for table in tables]))
    except Declined:
        return None
    by_table = {row[0]: row[1] for row in rows}
    return {what: sum(by_table.get(table, 0) for table in tables) for what, tables in TABLES.items()}


def _share(counted: dict[str, int], counts: dict[int, dict[str, int]], sizes: dict[str, int]) -> int:
    total = 0.0
    for what, rows in counted.items():
        total += sizes[what] * rows / (sum(each.get(what, 0) for each in counts.values()) or 1)
    return round(total)


async def points_of(db: Database, number: int) -> int:
    """Points of metrics of one experiment, deleted runs' too."""
    points, after = 0, ""
    while rows := await db.rows(_POINTS(experiment_id=number, after=after, most=RUNS_AT_ONCE)):
        points += sum(row[1] for row in rows)
        after = rows[-1][0]
    return points


def shown_bytes(count: int) -> str:
    """Powers of 1,000."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:,.1f} TB"


async def artifacts_of(
    db: Database,
    locations: Locations,
    number: int,
    location: str | None,
    folders: asyncio.Semaphore | None = None,
) -> Size:
    """The files of one experiment: of a folder of its own, or, in one that others may have, of its runs and models."""
    folders = folders or asyncio.Semaphore(FOLDERS_AT_ONCE)
    if (location or "").rstrip("/").rpartition("/")[2] == str(number):
        place = locations.own_folder(location, str(number))
        return await place.store.measure(place.path)

    async def one(place: Place) -> Size:
        async with folders:
            return await place.store.measure(place.path)

    files = total = 0
    for statement in _PLACES.values():
        after = ""
        while rows := await db.rows(statement(experiment_id=number, after=after, most=RUNS_AT_ONCE)):
            found = await asyncio.gather(*(one(locations.own_folder(row[1], row[0])) for row in rows))
            files += sum(size.files for size in found)
            total += sum(size.bytes for size in found)
            after = rows[-1][0]
    return Size(files, total)
