"""The search bench: reading 50,000 runs, long histories, 3,000 experiments. Answers are checked against the data."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench import api, load
from bench.databases import Database
from bench.dataset import CHARTED, HISTORY_KEY, LOGGED, METRICS, PARAMS, SEARCHED, TAGS, Dataset, Point, Run, sample
from bench.fill import fill
from bench.rows import AtMost, Ratio, Row
from bench.workloads import (
    WORKLOADS,
    Effort,
    Measurement,
    Server,
    Workload,
    percentiles,
)

T = TypeVar("T")

HEADRACE = Path(sys.executable).parent / "headrace"
POINTS_WANTED = 320
PAGE, PAGES, DEEP = 100, 5, 200
# a measurement of something quick ends after so many
MOST = 200
PATIENCE = 4.0  # seconds


def prepared(datasets: Mapping[str, Dataset]) -> Callable[[Server], Server]:
    """Gives a server the data set of its kind. One with tables of its own has made them, and gets its rows here."""

    def prepare(server: Server) -> Server:
        assert server.database is not None
        dataset = datasets[server.database.kind]
        if server.family == "fasttrackml":
            fill(server.database, dataset, server.family)
        elif server.family == "headrace" and server.database.kind == "postgresql":  # SQLite's are there at once
            indexes(server.database, "build")
        return replace(server, experiment_id=str(LOGGED), dataset=dataset)

    return prepare


def indexes(database: Database, command: str) -> None:
    """`headrace db indexes COMMAND`: a server builds them after its start, and this waits until they are there."""
    subprocess.run([HEADRACE, "db", "indexes", command, database.uri], check=True, capture_output=True)


def timed(work: Callable[[], T], seconds: float) -> tuple[list[float], list[T]]:
    """Do it once to warm up, then as often as goes into `seconds`: the seconds that each took, and all results.

    What takes very long is done only once: it won't be quicker for being warm.
    """
    started = time.perf_counter()
    results = [work()]
    first = time.perf_counter() - started
    if first > PATIENCE:
        return [first], results
    latencies = []
    for _ in range(min(max(int(seconds / first), 1), MOST)):
        started = time.perf_counter()
        results.append(work())
        latencies.append(time.perf_counter() - started)
    return latencies, results


class Read(Workload):
    """One request over one connection, again and again. `request` and `right` are what a subclass says."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        """Arguments of api.Session.call, one after the other, without end."""
        raise NotImplementedError

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        """What is wrong with an answer, or nothing."""
        raise NotImplementedError

    def measure(self, server: Server, effort: Effort) -> Measurement:
        assert server.dataset is not None
        requests = self.request(server.dataset)
        with api.Session(server.port) as session:
            latencies, bodies = timed(lambda: session.call(*next(requests)), effort.seconds)
        found = {self.wrong(server.dataset, json.loads(load.decode(body))) for body in set(bodies)}
        return Measurement(statistics.median(latencies) * 1000, percentiles(latencies), sorted(found - {""}))


class SearchRuns(Read):
    """runs/search. `expected`: the ids of all runs that it finds, in order."""

    def __init__(self, row: Row, search: dict[str, Any], expected: Callable[[Dataset], list[str]]) -> None:
        super().__init__(row)
        self.search = search
        self.expected = expected

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        return itertools.repeat(search_runs(**self.search))

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        return wrong_runs(dataset, answer, self.expected(dataset)[: self.search["max_results"]])


def search_runs(**search: Any) -> tuple[str, str, dict[str, Any]]:
    """As the client's search_runs sends it."""
    content = {"experiment_ids": [str(SEARCHED)], "run_view_type": "ACTIVE_ONLY", **search}
    return "POST", "runs/search", content


def wrong_runs(dataset: Dataset, answer: dict[str, Any], expected: list[str]) -> str:
    """All ids are compared, and every value of the first, the middle and the last run."""
    runs = answer.get("runs", [])
    if [run["info"]["run_id"] for run in runs] != expected:
        return "other runs than those searched for"
    known = dataset.by_id
    checked = {0, len(runs) // 2, len(runs) - 1} if runs else set()
    return "" if all(_is(runs[i], known[expected[i]]) for i in checked) else "runs with other data than theirs"


def _is(answered: dict[str, Any], run: Run) -> bool:
    data = answered["data"]
    return bool(
        {m["key"]: m["value"] for m in data["metrics"]} == dict(zip(METRICS, run.metrics, strict=True))
        and {p["key"]: p["value"] for p in data["params"]} == dict(zip(PARAMS, run.params, strict=True))
        and {t["key"]: t["value"] for t in data["tags"]} == dict(zip(TAGS, run.tags, strict=True))
        and int(answered["info"]["start_time"]) == run.start_time
    )


class Pages(Workload):
    """The first pages of a search, one after the other; the time of all of them."""

    row = Row(
        "pages",
        f"{PAGES} pages of {PAGE}",
        "ms",
        (Ratio("stock", 15), Ratio("fasttrackml", 3)),
        on_sqlite=(Ratio("stock", 1),),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        assert server.dataset is not None
        with api.Session(server.port) as session:
            latencies, results = timed(lambda: list(itertools.islice(pages(session), PAGES)), effort.seconds)
        right = server.dataset.newest()[: PAGE * PAGES]
        wrong = any(ids_of(answers) != right for answers in results)
        faults = ["other runs than those searched for"] if wrong else []
        return Measurement(statistics.median(latencies) * 1000, percentiles(latencies), faults)


def pages(session: api.Session) -> Iterator[dict[str, Any]]:
    """The pages of all runs, the newest first."""
    token: dict[str, str] | None = {}
    while token is not None:
        answer = json.loads(load.decode(session.call(*search_runs(max_results=PAGE, **token))))
        yield answer
        token = {"page_token": answer["next_page_token"]} if answer.get("next_page_token") else None


def ids_of(answers: list[dict[str, Any]]) -> list[str]:
    return [run["info"]["run_id"] for answer in answers for run in answer["runs"]]


class DeepPage(Workload):
    """How much longer a page far behind takes than the first; and that no run comes twice or is left out before it."""

    families = frozenset({"headrace"})
    row = Row(
        "deep-page",
        f"a page far behind ({DEEP}th; SQLite: 100th) against the first",
        "times",
        (AtMost(1.3),),
        on_sqlite=(AtMost(1.3),),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        assert server.dataset is not None
        deep = min(DEEP, server.dataset.size.runs // PAGE)
        with api.Session(server.port) as session:
            answers = list(itertools.islice(pages(session), deep))
            first = search_runs(max_results=PAGE)
            last = search_runs(max_results=PAGE, page_token=answers[-2]["next_page_token"])
            times: list[list[float]] = [[], []]
            for _ in range(10):  # in turns, as the machine has its moods
                for into, request in zip(times, (first, last), strict=True):
                    into += timed(lambda request=request: session.call(*request), effort.seconds / 20)[0]  # type: ignore[misc]
        near, far = (statistics.median(each) * 1000 for each in times)
        wrong = ids_of(answers) != server.dataset.newest()[: PAGE * deep]
        faults = ["runs come twice or are left out between pages"] if wrong else []
        return Measurement(far / near, {"first_ms": near, "deep_ms": far}, faults)


class History(Read):
    """metrics/get-history of a whole history."""

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        run_id = next(iter(dataset.histories))
        return itertools.repeat(("GET", f"metrics/get-history?run_id={run_id}&metric_key={HISTORY_KEY}"))

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        points = next(iter(dataset.histories.values()))
        return "" if _points(answer["metrics"]) == points else "other points than those logged"


class Interval(Read):
    """metrics/get-history-bulk-interval: what the UI's charts ask for."""

    families = frozenset({"headrace", "stock"})

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        runs = "&".join(f"run_ids={run_id}" for run_id in dataset.histories)
        query = f"{runs}&metric_key={HISTORY_KEY}&max_results={POINTS_WANTED}"
        return itertools.repeat(("GET", f"metrics/get-history-bulk-interval?{query}"))

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        found: dict[str, list[dict[str, Any]]] = {}
        for metric in answer["metrics"]:
            found.setdefault(metric["run_id"], []).append(metric)
        right = {run_id: sample(points, POINTS_WANTED) for run_id, points in dataset.histories.items()}
        same = {run_id: _points(metrics) for run_id, metrics in found.items()} == right and list(found) == list(right)
        return "" if same else "other points than MLflow's"


def _points(metrics: list[dict[str, Any]]) -> list[Point]:
    return [Point(m["value"], int(m["timestamp"]), int(m.get("step", 0))) for m in metrics]


class ExperimentByName(Read):
    """experiments/get-by-name, of one after the other."""

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        for number in itertools.cycle(range(SEARCHED, CHARTED + dataset.size.experiments // 2)):
            name = dataset.experiments[number].replace("/", "%2F")
            yield "GET", f"experiments/get-by-name?experiment_name={name}"

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        experiment = answer["experiment"]
        known = dataset.experiments.get(int(experiment["experiment_id"]))
        return "" if experiment["name"] == known else "another experiment"


class SearchExperiments(Read):
    """experiments/search, the first page of 1,000 as the client's search_experiments asks for it."""

    def request(self, dataset: Dataset) -> Iterator[tuple[Any, ...]]:
        return itertools.repeat(("POST", "experiments/search", {"max_results": 1000, "view_type": "ACTIVE_ONLY"}))

    def wrong(self, dataset: Dataset, answer: dict[str, Any]) -> str:
        found = [(int(e["experiment_id"]), e["name"], len(e["tags"])) for e in answer["experiments"]]
        right = [(number, name, 2) for number, name in sorted(dataset.experiments.items(), reverse=True)][:1000]
        return "" if found == right else "other experiments than the newest"


class LoggingWithIndexes(Workload):
    """How much slower a logging workload is with Headrace's indexes than without them, in turns on one server.

    The database grows meanwhile, so that the turns with them are in the middle.
    """

    families = frozenset({"headrace"})
    kinds = ("postgresql",)  # on SQLite nothing drops them

    def __init__(self, logging: Workload) -> None:
        title = f"{logging.row.title}: with Headrace's indexes against without"
        self.row = Row(f"indexes-{logging.row.name}", title, "times", (AtMost(1.1),))
        self.logging = logging

    def measure(self, server: Server, effort: Effort) -> Measurement:
        found: dict[str, list[Measurement]] = {"build": [], "drop": []}
        for command in ("drop", "build", "build", "drop", "drop", "build", "build", "drop"):
            assert server.database is not None
            indexes(server.database, command)
            found[command].append(self.logging.measure(server, effort))
        with_, without = (statistics.mean(m.value for m in found[command]) for command in ("build", "drop"))
        faults = [fault for measurements in found.values() for m in measurements for fault in m.faults]
        slower = self.logging.row.times_as_good(without, with_)
        return Measurement(slower, {"with": with_, "without": without}, faults)


def _row(name: str, title: str, stock: float, fasttrackml: float | None, on_sqlite: float = 1) -> Row:
    targets = (Ratio("stock", stock), *(() if fasttrackml is None else (Ratio("fasttrackml", fasttrackml),)))
    return Row(name, title, "ms", targets, on_sqlite=(Ratio("stock", on_sqlite),))


def _filtered(dataset: Dataset) -> list[str]:
    return dataset.newest([run for run in dataset.runs if run.metrics[1] > 0.9 and run.params[0] == "3"])


def _tagged(dataset: Dataset) -> list[str]:
    return dataset.newest([run for run in dataset.runs if run.tags[4] == "team-7"])


SEARCHES: tuple[Workload, ...] = (
    SearchRuns(_row("newest-100", "newest 100 runs", 15, 4, 5), {"max_results": 100}, Dataset.newest),
    SearchRuns(
        _row("top-1000", "top 1,000 by a metric", 12, 1.2, 5),
        {"max_results": 1000, "order_by": ["metrics.metric_3 DESC"]},
        lambda dataset: dataset.top(3),
    ),
    SearchRuns(
        _row("metric-and-param", "filter on a metric and a param, 1 % of the runs found", 4, 1.5, 5),
        {"max_results": 1000, "filter": "metrics.metric_1 > 0.9 AND params.param_0 = '3'"},
        _filtered,
    ),
    SearchRuns(
        _row("tag", "tag filter, 2 % of the runs found", 15, 1.2),
        {"max_results": 1000, "filter": "tags.team = 'team-7'"},
        _tagged,
    ),
    Pages(),
    DeepPage(),
    History(_row("history", "get-history of 100,000 points", 15, 1.2)),
    Interval(_row("interval", "get-history-bulk-interval, 10 runs of 100,000 points, 320 wanted", 10, None)),
    ExperimentByName(_row("by-name", "experiments/get-by-name of 3,000 experiments", 8, 1)),
    SearchExperiments(_row("experiments", "experiments/search, 1,000 of 3,000 experiments", 8, 1)),
    *(
        LoggingWithIndexes(workload)
        for workload in WORKLOADS
        if workload.row.name in ("log-metric-32", "log-batch-1000")
    ),
)
