"""The newest 100 of 1,000,000 traces beside those of 50,000: `python -m bench.newest_traces`, on PostgreSQL.

It fails where the plan is another one, or the time more than twice as long. The million's older traces have nothing
but their row; all others have three tags and two assessments.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import asyncpg

from bench import traces
from bench.databases import Database, Databases, run
from bench.machine import facts
from bench.turns import BIN, ROUNDS, SECONDS, Row, Subject, fill
from headrace.db.query import Dialect
from headrace.resources.traces import search, search_sql

FEW, MANY = 50_000, 1_000_000
MOST_TIMES = 2.0
_OLDER = f"""
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status, db_payload_generation)
SELECT 'tr-older-' || n, {traces.FULL}, 1600000000000 + n * 100, 1500, 'OK', 1 FROM generate_series(1, {MANY - FEW}) n
"""


async def plan(uri: str) -> list[str]:
    """The lines of the plan of a page's statement."""
    order = search.parse_order(["timestamp_ms DESC"])
    query = search_sql.search_traces(search.TraceSearch((traces.FULL,), (), order, 100), Dialect.POSTGRESQL)
    connection = await asyncpg.connect(uri)
    try:
        return [row[0] for row in await connection.fetch(f"EXPLAIN (COSTS OFF) {query.text}", *query.values)]
    finally:
        await connection.close()


def main() -> int:
    """Print both times and the plan; 1 where the million is not as it must be."""
    (row,) = (each for each in traces.ROWS if isinstance(each, Row) and each.title.endswith("newest 100"))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        without_spans = traces.fill(FEW)[:-1]
        databases = Databases(folder / "databases", str(BIN / "mlflow"), lambda database: fill(database, without_spans))
        print(facts(folder))
        subjects: list[Subject] = []
        try:
            few, many = (databases.create("postgresql", f"traces{number}", migrated=True) for number in (FEW, MANY))
            fill(many, [_OLDER])
            subjects = [
                Subject("headrace", each, folder / f"server{number}") for number, each in enumerate((few, many))
            ]
            return _compare(row, subjects, few, many)
        finally:
            for subject in subjects:
                subject.server.stop()
            databases.stop()


def _compare(row: Row, subjects: list[Subject], few: Database, many: Database) -> int:
    rounds = [[row.measure(subject, SECONDS / ROUNDS) for subject in subjects] for _ in range(ROUNDS)]
    of_few, of_many = map(statistics.median, zip(*rounds, strict=True))
    plans = [run(plan(database.uri)) for database in (few, many)]
    print(f"p50 of {FEW:,} traces {of_few:.2f} ms, of {MANY:,} {of_many:.2f} ms: {of_many / of_few:.2f} times")
    print("the same plan:" if plans[0] == plans[1] else "another plan:", *plans[1], sep="\n  ")
    return int(plans[0] != plans[1] or of_many > MOST_TIMES * of_few)


if __name__ == "__main__":
    sys.exit(main())
