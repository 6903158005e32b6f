"""The data that the search bench reads: runs, experiments and long histories. Made once, and known here in whole.

So every answer can be checked: what a right one holds is computed from these values, without a server.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

BASE = 1_700_000_000_000  # milliseconds since 1970
RUN_EVERY = 60_000  # milliseconds from the start of one run to that of the next
METRICS = tuple(f"metric_{number}" for number in range(15))
PARAMS = tuple(f"param_{number}" for number in range(15))
TAGS = ("mlflow.runName", "mlflow.user", "mlflow.source.name", "mlflow.source.type", "team")
TEAMS = 50
# the experiment that holds all runs, that of the runs with long histories, and one that may be logged to
SEARCHED, CHARTED, LOGGED = 1, 2, 3
HISTORY_KEY = "loss"

# table, its columns, its rows
Table = tuple[str, tuple[str, ...], Iterator[tuple[Any, ...]]]


@dataclass(frozen=True)
class Size:
    """How much there is. `runs` is a multiple of TEAMS; `points` belong to each of the `histories`."""

    runs: int = 50_000
    experiments: int = 3_000
    histories: int = 10
    points: int = 100_000


class Run(NamedTuple):
    run_id: str
    start_time: int
    metrics: tuple[float, ...]
    params: tuple[str, ...]
    tags: tuple[str, ...]


class Point(NamedTuple):
    value: float
    timestamp: int
    step: int


class Dataset:
    """`runs` are in the order of their start; `histories`: run id -> its points, in the order of their steps.

    `experiments`: number -> name, in the order of their making.
    """

    def __init__(self, size: Size) -> None:
        chance = random.Random(7)
        self.size = size
        self.runs = [self._run(number, chance) for number in range(size.runs)]
        self.by_id = {run.run_id: run for run in self.runs}
        self.histories = {
            f"{chance.getrandbits(128):032x}": _history(size.points, chance) for _ in range(size.histories)
        }
        self.experiments = {0: "Default"}
        self.experiments |= {number: f"team-{number % 40}/model-{number:05}" for number in range(1, size.experiments)}

    @staticmethod
    def _run(number: int, chance: random.Random) -> Run:
        name = f"run-{number:06}"
        return Run(
            f"{chance.getrandbits(128):032x}",
            BASE + number * RUN_EVERY,
            tuple(chance.random() for _ in METRICS),
            (str(chance.randrange(10)), *(f"{chance.random():.6f}" for _ in PARAMS[1:])),
            (name, f"user-{number % 23}", "train.py", "LOCAL", f"team-{number % TEAMS}"),
        )

    def newest(self, runs: Sequence[Run] | None = None) -> list[str]:
        """The ids of the runs (all), the newest first."""
        return [run.run_id for run in reversed(self.runs if runs is None else runs)]

    def top(self, metric: int) -> list[str]:
        """The ids of all runs, by a metric, the greatest first. No two values are equal."""
        return [run.run_id for run in sorted(self.runs, key=lambda run: -run.metrics[metric])]

    def tables(self) -> Iterator[Table]:
        """All rows, in MLflow's tables. Of the searched runs only the latest values, which a search reads."""
        yield (
            "experiments",
            ("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time"),
            (
                (number, name, f"mlflow-artifacts:/{number}", "active", BASE + number, BASE + number)
                for number, name in self.experiments.items()
            ),
        )
        yield (
            "experiment_tags",
            ("key", "value", "experiment_id"),
            ((key, f"{key} of {number}", number) for number in self.experiments for key in ("owner", "project")),
        )
        yield "runs", _RUN_COLUMNS, self._run_rows()
        yield (
            "params",
            ("key", "value", "run_uuid"),
            ((k, v, run.run_id) for run in self.runs for k, v in zip(PARAMS, run.params, strict=True)),
        )
        yield (
            "tags",
            ("key", "value", "run_uuid"),
            ((k, v, run.run_id) for run in self.runs for k, v in zip(TAGS, run.tags, strict=True)),
        )
        yield "latest_metrics", _METRIC_COLUMNS, self._latest_rows()
        yield (
            "metrics",
            _METRIC_COLUMNS,
            ((HISTORY_KEY, *point, False, run_id) for run_id, points in self.histories.items() for point in points),
        )

    def _run_rows(self) -> Iterator[tuple[Any, ...]]:
        ids = [(run.run_id, run.tags[0], run.start_time, SEARCHED) for run in self.runs]
        ids += [(run_id, run_id[:6], BASE, CHARTED) for run_id in self.histories]
        for run_id, name, start, experiment in ids:
            location = f"mlflow-artifacts:/{experiment}/{run_id}/artifacts"
            ended = start + RUN_EVERY
            yield run_id, name, "UNKNOWN", "", "", "bench", "FINISHED", start, ended, "", "active", location, experiment

    def _latest_rows(self) -> Iterator[tuple[Any, ...]]:
        for run in self.runs:
            for key, value in zip(METRICS, run.metrics, strict=True):
                yield key, value, run.start_time + 5_000, 100, False, run.run_id
        for run_id, points in self.histories.items():
            yield HISTORY_KEY, *points[-1], False, run_id


_RUN_COLUMNS = (
    "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time", "end_time",
    "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
)  # fmt: skip
_METRIC_COLUMNS = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")


def _history(points: int, chance: random.Random) -> list[Point]:
    """A training loop's: one point a step."""
    return [Point(chance.random(), BASE + 50 * step, step) for step in range(points)]


def sample(points: Sequence[Point], count: int) -> list[Point]:
    """What MLflow's get-history-bulk-interval chooses of more than `count` points, `count` of at least 2.

    The first point of each bucket of NTILE(count), but the last bucket's is the last point of all.
    """
    size, larger = divmod(len(points), count)
    starts = [bucket * size + min(bucket, larger) for bucket in range(count - 1)]
    return [points[start] for start in starts] + [points[-1]]
