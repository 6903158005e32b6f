"""`python -m bench`: Headrace beside stock MLflow and FastTrackML.

run: logging, the start, memory. search: reading 50,000 runs. scale: Headrace alone with up to 1,000,000 runs.
page: the UI's first page in a browser.
artifacts, auth, beside (spans beside metrics), between (a pooler, more servers), growth (100,000,000 points), registry,
traces: modules of bench/ with options of their own.
table: the tables of docs/benchmarks.md and the plots anew, from the last whole runs.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import machine, plot, report, scale
from bench.databases import KINDS, Databases
from bench.dataset import Dataset, Size
from bench.fill import fill
from bench.peers import BY_NAME, FAMILIES, PEERS, REPOSITORY, Peer, make_environment
from bench.runner import Progress, Runner, parts, say, steps, with_experiment
from bench.search import SEARCHES, prepared
from bench.workloads import WORKLOADS, Effort, Workload

RESULTS = REPOSITORY / "bench" / "results"
PLOT = REPOSITORY / "docs" / "images" / "search-scale.png"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
STARTING = "start"
MODULES = {"artifacts", "auth", "beside", "between", "growth", "registry", "traces"}


@dataclass(frozen=True)
class Suite:
    """Workloads that are run together. `marker`: where docs/benchmarks.md has their table.

    `sizes`: the data that they read, for each kind of database. Stock's search by a metric on SQLite takes a time that
    grows with the square of the runs: 3 minutes with 50,000.
    """

    command: str
    workloads: tuple[Workload, ...]
    effort: Effort
    quick: Effort
    results: Path
    marker: str
    rounds: int = 3
    starts: bool = False
    sizes: Mapping[str, Size] = field(default_factory=dict)
    quick_sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [STARTING] * self.starts + [workload.row.name for workload in self.workloads]


SUITES = {
    "run": Suite(
        "make bench",
        WORKLOADS,
        Effort(),
        Effort(seconds=1.5, warm_up=0.3, batches=40, client_metrics=100),
        RESULTS / "foundation.json",
        "bench",
        starts=True,
    ),
    "search": Suite(
        "make bench ARGS=search",
        SEARCHES,
        Effort(seconds=1.0, warm_up=0.3),
        Effort(seconds=0.5, warm_up=0.2),
        RESULTS / "search.json",
        "bench-search",
        rounds=2,
        sizes={"postgresql": Size(), "sqlite": Size(runs=10_000)},
        quick_sizes=dict.fromkeys(KINDS, Size(runs=5_000, experiments=1_200, points=10_000)),
    ),
}


def main() -> int:
    if set(sys.argv[1:2]) & MODULES:
        result: int = importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
        return result
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.command == "table":
        return write_tables()
    if options.command == "page":
        from bench import page  # Playwright is for this alone

        return page.main(options.rounds or (1 if options.quick else 3), options.folder, options.output)
    if options.command == "scale":
        return run_scale(options)
    suite = SUITES[options.command]
    chosen = options.only or suite.names
    if unknown := set(chosen) - set(suite.names):
        say(f"{', '.join(unknown)}: not in `{options.command}`, which has {', '.join(suite.names)}")
        return 2
    suite = replace(suite, workloads=tuple(workload for workload in suite.workloads if workload.row.name in chosen))
    peers = [peer for peer in PEERS if not options.peers or {peer.name, peer.family} & set(options.peers)]
    make_environments(peers, workloads_need_client="client-500" in chosen)
    with new_folder(options.folder) as folder:
        summary = measure(options, suite, peers, STARTING in chosen, folder)
    print(report.as_text(summary["rows"]))
    whole = not (options.quick or options.only or options.peers)
    write(summary, options.output or (suite.results if whole else None))
    return verdict(summary["rows"])


def parse_arguments() -> argparse.Namespace:
    def names(known: Sequence[str]) -> Callable[[str], list[str]]:
        def split(text: str) -> list[str]:
            unknown = set(text.split(",")) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
            return text.split(",")

        return split

    workloads = [name for suite in SUITES.values() for name in suite.names]
    known_peers = list(dict.fromkeys([*FAMILIES, *BY_NAME]))  # "stock": all its set-ups
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=(*SUITES, "scale", "page", "table"), default="run")
    parser.add_argument("--quick", action="store_true", help="one short round: for a first look")
    parser.add_argument("--only", type=names(workloads), metavar="WORKLOAD,...", help=", ".join(workloads))
    parser.add_argument("--peers", type=names(known_peers), metavar="PEER,...", help=", ".join(known_peers))
    parser.add_argument(
        "--databases", type=names(KINDS), default=list(KINDS), metavar="KIND,...", help=", ".join(KINDS)
    )
    parser.add_argument("--rounds", type=int, help="how many rounds (3; search: 2)")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes (2; search: 1)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where databases are made (/var/tmp)")
    parser.add_argument("--output", type=Path, help="the JSON file (a whole run: bench/results/)")
    return parser.parse_args()


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=place))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_environments(peers: Sequence[Peer], workloads_need_client: bool) -> None:
    # stock's is always needed: its migrations make the databases
    environments = {".venv-stock", *(peer.environment for peer in peers)}
    for name in sorted(environments | ({".venv-bench-client"} if workloads_need_client else set())):
        make_environment(name)


def measure(
    options: argparse.Namespace, suite: Suite, peers: Sequence[Peer], start_ups: bool, folder: Path
) -> dict[str, Any]:
    """Run everything; return the summary that is written as JSON."""
    effort = suite.quick if options.quick else suite.effort
    effort = replace(effort, seconds=options.seconds or effort.seconds)
    rounds = options.rounds or (1 if options.quick else suite.rounds)
    sizes = suite.quick_sizes if options.quick else suite.sizes
    facts = machine.facts(folder)
    if facts["file_system"] == "tmpfs":
        say("WARNING: the databases lie in memory (tmpfs): commits cost less than on a disk")
    started = [peer for peer in peers if peer.needs_database and peer.command]
    count = sum(len(list(steps(peers, kind, suite.workloads))) for kind in options.databases) * rounds
    progress = Progress(count + (len(started) * rounds if start_ups else 0))
    datasets = known({kind: size for kind, size in sizes.items() if kind in options.databases})
    migrate = str(REPOSITORY / ".venv-stock" / "bin" / "mlflow")
    fill_one = (lambda database: fill(database, datasets[database.kind], "stock")) if datasets else None
    databases = Databases(folder, migrate, fill_one)
    try:
        prepare = prepared(datasets) if datasets else with_experiment
        runner = Runner(databases, folder, effort, rounds, progress, prepare)
        if start_ups:
            runner.start_up(started)
        for kind in options.databases if suite.workloads else ():
            runner.load(kind, parts(peers, kind), suite.workloads)
        facts["postgresql"] = databases.postgres.version()
    finally:
        databases.stop()
    return {
        **when(facts),
        "command": suite.command,
        "versions": {peer.family: peer.version() for peer in peers},
        "rounds": rounds,
        "seconds": effort.seconds,
        "rows": report.summarise(runner.results),
    }


def known(sizes: Mapping[str, Size]) -> dict[str, Dataset]:
    """The data sets; they stay, and the collector of garbage need not look through them while something is timed."""
    if sizes:
        say("making the data")
    datasets = {kind: Dataset(size) for kind, size in sizes.items()}
    gc.freeze()
    return datasets


def when(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(REPOSITORY),
        "machine": facts,
    }


def run_scale(options: argparse.Namespace) -> int:
    """Headrace alone, with more and more runs."""
    make_environments([BY_NAME["headrace"]], workloads_need_client=False)
    with new_folder(options.folder) as folder:
        facts = machine.facts(folder)
        databases = Databases(folder, str(REPOSITORY / ".venv-stock" / "bin" / "mlflow"))
        try:
            stages = scale.measure(databases, folder, scale.QUICK_STAGES if options.quick else scale.STAGES)
            facts["postgresql"] = databases.postgres.version()
        finally:
            databases.stop()
    summary = {**when(facts), "stages": stages, "targets": scale.judge(stages)}
    print(json.dumps(summary, indent=1))
    write(summary, options.output or (None if options.quick else RESULTS / "scale.json"))
    return 1 if any(stage["faults"] for stage in stages) else 0


def write(summary: dict[str, Any], path: Path | None) -> None:
    if path is None:
        say("a part was measured: not written (use --output PATH)")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=1) + "\n")
    say(f"written to {path}; `python -m bench table` puts it into docs/benchmarks.md")


def verdict(rows: Sequence[Any]) -> int:
    """1 when Headrace answered wrong. A missed target is only told: other machines give other ratios."""
    for family in FAMILIES:
        for fault in report.faults_of(rows, family):
            say(f"{'WRONG' if family == 'headrace' else 'note'}: {fault}")
    missed = [f"{row['part']} {row['name']}" for row in rows for target in row["targets"] if target["met"] is False]
    if missed:
        say(f"targets missed: {', '.join(missed)}")
    return 1 if report.faults_of(rows, "headrace") else 0


def write_tables() -> int:
    """Put the tables of the last whole runs between their markers in docs/benchmarks.md, and draw the plots."""
    for suite in SUITES.values():
        if not suite.results.exists():
            continue
        block = report.as_markdown(json.loads(suite.results.read_text()))
        print(block)
        try:
            PAGE.write_text(report.replace_block(PAGE.read_text(), block, suite.marker))
        except ValueError as error:
            say(f"docs/benchmarks.md was not changed: {error}")
            return 1
    if (RESULTS / "scale.json").exists():
        plot.draw(json.loads((RESULTS / "scale.json").read_text()), PLOT)
    summaries = [json.loads(suite.results.read_text()) for suite in SUITES.values() if suite.results.exists()]
    plot.against_stock(summaries, PLOT.with_name("against-stock.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
