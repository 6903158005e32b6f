"""The search bench knows what a right answer is: compared with SQLite's window functions, and with wrong answers."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from bench import search
from bench.dataset import BASE, METRICS, PARAMS, TAGS, Dataset, Point, Size, sample

SMALL = Size(runs=100, experiments=5, histories=2, points=50)


@pytest.mark.parametrize(("total", "count"), [(100, 10), (101, 10), (109, 10), (1_000, 320), (50, 2), (7, 6)])
def test_the_sample_is_that_of_ntile(total: int, count: int) -> None:
    points = [Point(number / 7, BASE + number, number) for number in range(total)]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE points (step)")
    db.executemany("INSERT INTO points VALUES (?)", [(point.step,) for point in points])
    buckets = "SELECT step, ntile(?) OVER (ORDER BY step) AS bucket FROM points"
    firsts = [row[0] for row in db.execute(f"SELECT min(step) FROM ({buckets}) GROUP BY bucket ORDER BY 1", [count])]
    db.close()
    assert [point.step for point in sample(points, count)] == [*firsts[:-1], total - 1]


def test_a_right_and_a_wrong_answer() -> None:
    dataset = Dataset(SMALL)
    newest = dataset.newest()[:3]
    assert newest[0] == dataset.runs[-1].run_id
    answer = {"runs": [answered(dataset, run_id) for run_id in newest]}
    assert search.wrong_runs(dataset, answer, newest) == ""
    assert search.wrong_runs(dataset, {"runs": answer["runs"][::-1]}, newest) == "other runs than those searched for"
    assert search.wrong_runs(dataset, {}, newest) == "other runs than those searched for"
    answer["runs"][1]["data"]["metrics"][3]["value"] = 7.0
    assert search.wrong_runs(dataset, answer, newest) == "runs with other data than theirs"


def answered(dataset: Dataset, run_id: str) -> dict[str, Any]:
    run = dataset.by_id[run_id]
    pairs = {"metrics": zip(METRICS, run.metrics), "params": zip(PARAMS, run.params), "tags": zip(TAGS, run.tags)}  # noqa: B905
    data = {k: [{"key": key, "value": value} for key, value in v] for k, v in pairs.items()}
    return {"info": {"run_id": run_id, "start_time": run.start_time}, "data": data}


def test_the_data_is_what_the_requests_look_for() -> None:
    dataset = Dataset(SMALL)
    assert [run.run_id for run in Dataset(SMALL).runs] == [run.run_id for run in dataset.runs]
    rows = {table: (columns, list(rows)) for table, columns, rows in dataset.tables()}
    assert len(rows["params"][1]) == 100 * len(PARAMS)
    assert len(rows["metrics"][1]) == 2 * 50
    assert all(len(row) == len(columns) for columns, listed in rows.values() for row in listed)
    assert sum(run.tags[4] == "team-7" for run in dataset.runs) == 2
    assert dataset.top(3)[0] == max(dataset.runs, key=lambda run: run.metrics[3]).run_id
