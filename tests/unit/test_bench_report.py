"""From measurements to ratios, targets and tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bench import check, report
from bench.rows import AtMost, Ratio, Row
from bench.workloads import Measurement, percentiles

RATE = Row("create", "runs/create", "requests/s", (Ratio("stock", 12), Ratio("fasttrackml", None), Ratio("bare", 0.35)))
LATENCY = Row("log", "log-metric", "ms", (Ratio("stock", 5), Ratio("bare+raw", 0.5)), on_sqlite=(Ratio("stock", 10),))
MEMORY = Row("memory", "memory", "MB", (AtMost(80), Ratio("stock", None)))


def summary(part: str, row: Row, values: dict[str, list[float]], faults: dict[str, list[str]] | None = None) -> Any:
    results = report.Results()
    for peer, rounds in values.items():
        for value in rounds:
            results.add(part, row, peer, Measurement(value, {"p99_ms": value * 2}, (faults or {}).get(peer, [])))
    [summarised] = report.summarise(results)
    return summarised


def test_medians_and_the_best_set_up_of_a_family() -> None:
    rounds = {"stock-workers-1": [100.0, 300.0, 90.0], "stock-workers-4": [120.0], "headrace": [2000.0, 2400.0]}
    row = summary("postgresql", RATE, rounds)
    assert row["peers"]["stock-workers-1"]["median"] == 100
    assert row["peers"]["stock-workers-1"]["rounds"] == [100, 300, 90]
    assert row["peers"]["headrace"]["detail"] == {"p99_ms": 4400}
    assert row["best"] == {"stock": "stock-workers-4", "headrace": "headrace"}
    less = summary("postgresql", LATENCY, rounds)
    assert less["best"]["stock"] == "stock-workers-1"


def test_targets() -> None:
    row = summary("postgresql", RATE, {"headrace": [2200.0], "stock-workers-1": [100.0], "bare": [10_000.0]})
    stock, fasttrackml, bare = row["targets"]
    assert (stock["ratio"], stock["met"]) == (22, True)
    assert (fasttrackml["ratio"], fasttrackml["met"]) == (None, None)  # not measured
    assert (bare["ratio"], bare["met"]) == (0.22, False)


def test_limits_are_added_up_and_sqlite_has_targets_of_its_own() -> None:
    values = {"headrace": [1.0], "bare": [0.2], "raw": [0.4], "stock-workers-1": [4.0]}
    stock, limit = summary("postgresql", LATENCY, values)["targets"]
    assert (stock["ratio"], stock["met"]) == (4, False)
    assert limit["other"] == pytest.approx(0.6)
    assert (limit["ratio"], limit["met"]) == (pytest.approx(0.6), True)
    [on_sqlite] = summary("sqlite", LATENCY, values)["targets"]
    assert on_sqlite["at_least"] == 10


def test_at_most() -> None:
    assert summary("start", MEMORY, {"headrace-lazy": [80.0]})["targets"][0]["met"] is True
    assert summary("start", MEMORY, {"headrace-lazy": [81.0]})["targets"][0]["met"] is False
    assert summary("start", MEMORY, {"stock-workers-1": [1700.0]})["targets"][0]["met"] is None


def test_what_could_not_be_measured_meets_no_target() -> None:
    row = summary("postgresql", RATE, {"headrace": [math.nan], "stock-workers-1": [100.0]}, {"headrace": ["no answer"]})
    assert row["peers"]["headrace"]["median"] is None
    assert row["targets"][0]["met"] is None
    assert report.faults_of([row], "headrace") == ["PostgreSQL, create: headrace: no answer"]
    assert RATE.times_as_good(0, 5) == 0
    assert LATENCY.times_as_good(math.inf, 5) == 0


def test_the_tables_say_who_answered_wrong() -> None:
    values = {"headrace": [2200.0], "stock-workers-1": [100.0], "fasttrackml": [500.0]}
    faults = {"fasttrackml": ["latest values wrong in 3 of 32 runs", "latest values wrong in 20 of 32 runs"]}
    rows = [summary("postgresql", RATE, values, faults), summary("start", MEMORY, {"headrace-lazy": [42.4]})]
    _, part, line, _, memory = report.table(rows)
    assert part == ["PostgreSQL"]
    assert line[1:] == [
        "2,200 /s",
        "100 /s: 22.0 x (target 12.0 x, met)",
        "500 /s: 4.40 x; latest values wrong in 20 of 32 runs",
        "- (target 35%)",
    ]
    assert memory[1] == "42.4 MB (at most 80, met)"
    text = report.as_text(rows).splitlines()
    assert text[1] == "PostgreSQL"
    assert text[2].startswith("runs/create  2,200 /s")


def test_the_readme_table() -> None:
    rows = [summary("postgresql", RATE, {"headrace": [2200.0]})]
    whole = {
        "date": "2026-11-24T08:00:00+00:00",
        "commit": "0123456789ab+",
        "rounds": 3,
        "machine": {"cores": 2, "cpu": "A CPU", "memory_gb": 25.3, "postgresql": "18.4"},
        "versions": {"headrace": "0.1.0", "stock": "3.17.2", "raw": "0.32.0"},
        "rows": rows,
    }
    block = report.as_markdown(whole)
    assert "| **PostgreSQL** |" in block
    assert "2026-11-24 at commit 01234567" in block
    assert "stock MLflow 3.17.2" in block
    assert "Other work" not in block
    rows[0]["peers"]["headrace"]["detail"]["other_cores"] = 0.54
    assert "Other work kept 0.5 cores busy" in report.as_markdown(whole)
    text = "# Readme\n<!-- bench:start -->\nold\n<!-- bench:end -->\nmore\n"
    replaced = report.replace_block(text, block)
    assert replaced == f"# Readme\n<!-- bench:start -->\n{block}\n<!-- bench:end -->\nmore\n"
    assert report.replace_block(replaced, block) == replaced
    with pytest.raises(ValueError, match="markers"):
        report.replace_block("# Readme\n", block)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(22_345.6, "22,346"), (999.6, "1,000"), (123.4, "123"), (9.876, "9.88"), (0.2134, "0.213"), (0, "0"), (None, "-")],
)
def test_numbers_have_at_least_three_digits(value: float | None, shown: str) -> None:
    assert report.number(value) == shown


def test_percentiles_are_in_ms() -> None:
    assert percentiles([number / 1000 for number in range(1, 101)]) == {"requests": 100, "p50_ms": 51, "p99_ms": 100}
    assert percentiles([]) == {"requests": 0}


def test_the_latest_is_by_step_then_timestamp_then_value() -> None:
    points = [("r", "a", 9.0, 50, 1), ("r", "a", 1.0, 40, 2), ("r", "a", 3.0, 41, 2), ("r", "a", 4.0, 41, 2)]
    assert check.newest(points) == {"a": (4.0, 41, 2)}
    run = {"data": {"metrics": [{"key": "a", "value": 4.0, "timestamp": "41", "step": "2"}]}}
    assert check.latest_values(run) == check.newest(points)
    run["data"]["metrics"] *= 2
    assert check.latest_values(run) == {}
