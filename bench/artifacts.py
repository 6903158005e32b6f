"""`python -m bench artifacts`: files through the server to the local disk and to S3, beside stock MLflow.

`python -m bench artifacts table`: the table of docs/benchmarks.md anew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import artifacts_report, machine, report
from bench.artifact_load import get, list_folder, make_file, peak_memory, put
from bench.databases import Database
from bench.peers import BY_NAME, REPOSITORY, Launch, make_environment
from bench.process import ServerProcess, cpu_seconds, free_port
from bench.rows import Ratio, Row
from bench.runner import FAILED, Progress, say
from bench.workloads import Measurement

RESULTS = REPOSITORY / "bench" / "results" / "artifacts.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
STORES = ("local", "s3")
PEERS = ("headrace", "stock-workers-1", "stock-workers-4", "stock-gunicorn-2", "bare")
DEFAULT = "stock-workers-4"  # what `mlflow server` is without options
MIB = 1024 * 1024
LARGE, AT_ONCE, EACH = 256 * MIB, 32, 64 * MIB
LISTED = 10_000
TRANSFERS = 3  # of each file, a round
BUCKET = "bench"

STATED = (Ratio("stock", None), Ratio("bare", None))
PUT = Row("put-256", "PUT of 256 MiB", "MB/s", (Ratio("stock", 1.0), Ratio("bare", None)))
GET = Row("get-256", "GET of 256 MiB", "MB/s", (Ratio(DEFAULT, 2.0), *STATED))
S3_GET = Row("get-256", "GET of 256 MiB", "MB/s", (Ratio("stock", 1.0),))
LIST = Row("list-10000", "a folder of 10,000 artifacts listed", "ms", (Ratio("stock", 3.0),))
# most of that time is S3's own
S3_LIST = Row("list-10000", "a folder of 10,000 artifacts listed", "ms", (Ratio("stock", 1.0),))
PUTS = Row("puts-memory", "32 PUTs of 64 MiB at once: memory above idle", "MB", (Ratio("stock", None),))
GETS = Row("gets-memory", "32 GETs of 64 MiB at once: memory above idle", "MB", (Ratio("stock", None),))


@dataclass
class Files:
    """What is sent: a file of LARGE bytes and one of EACH."""

    large: Path
    each: Path


def main(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    if options.command == "table":
        return write_table()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in sorted({BY_NAME[name].environment for name in options.peers}):
        make_environment(name)
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=options.folder))
    results = report.Results()
    progress = Progress(len(options.stores) * options.rounds * len(options.peers))
    try:
        files = Files(make_file(folder / "large", LARGE), make_file(folder / "each", EACH))
        for store in options.stores:
            Measuring(store, folder / store, files, results, progress).run(options.peers, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(REPOSITORY),
        "machine": machine.facts(Path(options.folder)),
        "versions": {BY_NAME[name].family: BY_NAME[name].version() for name in options.peers},
        "rounds": options.rounds,
        "rows": report.summarise(results),
    }
    print(artifacts_report.as_markdown(summary))
    if options.output or (options.peers == PEERS and options.stores == STORES):
        path = options.output or RESULTS
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=1) + "\n")
        say(f"written to {path}; `python -m bench artifacts table` puts it into docs/benchmarks.md")
    return 1 if report.faults_of(summary["rows"], "headrace") else 0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
        def split(text: str) -> tuple[str, ...]:
            if unknown := set(text.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
            return tuple(text.split(","))

        return split

    parser = argparse.ArgumentParser(prog="python -m bench artifacts", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--peers", type=names(PEERS), default=PEERS, metavar="PEER,...", help=", ".join(PEERS))
    parser.add_argument("--stores", type=names(STORES), default=STORES, metavar="STORE,...", help=", ".join(STORES))
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (3)")
    parser.add_argument("--folder", default="/var/tmp", help="where the files are (/var/tmp)")
    parser.add_argument("--output", type=Path, help=f"the JSON file (a whole run: {RESULTS.relative_to(REPOSITORY)})")
    return parser.parse_args(arguments)


class Measuring:
    """All peers up on one store, one of them under load at a time."""

    def __init__(self, store: str, folder: Path, files: Files, results: report.Results, progress: Progress) -> None:
        self.store, self.folder, self.files = store, folder, files
        self.results, self.progress = results, progress
        self.variables: dict[str, str] = {}

    def run(self, peers: Sequence[str], rounds: int) -> None:
        with ExitStack() as stack:
            if self.store == "s3":
                self._start_s3(stack)
            running = {}
            for name in peers:
                if name != "bare" or self.store == "local":
                    running[name] = process = self._start(name)
                    stack.callback(process.stop)
                    process.wait_ready(patience=300.0)  # it makes its database first
            for process in running.values():
                process.settled_memory()
            for number in range(1, rounds + 1):
                for name, process in running.items():
                    self.progress.step(f"{self.store}, round {number} of {rounds}: {name}")
                    self._measure(name, process, first=number == 1)

    def _measure(self, name: str, process: ServerProcess, first: bool) -> None:
        port, large = process.port, LARGE / 1e6
        read, listing = (GET, LIST) if self.store == "local" else (S3_GET, S3_LIST)
        self._add(name, process, PUT, lambda: large / usual(lambda: put(port, f"{LARGE}", self.files.large)))
        self._add(name, process, read, lambda: large / usual(lambda: get(port, f"{LARGE}", LARGE)))
        if name == "bare":
            return
        self._add(name, process, listing, lambda: 1000 * list_folder(port, "many", 20 * LISTED))
        if first:
            tree = process.tree
            each = self.files.each
            self._add(name, process, PUTS, lambda: peak_memory(tree, lambda n: put(port, f"each/{n}", each), AT_ONCE))
            self._add(name, process, GETS, lambda: peak_memory(tree, lambda n: get(port, f"each/{n}", EACH), AT_ONCE))

    def _add(self, name: str, process: ServerProcess, row: Row, measure: Callable[[], float]) -> None:
        before, started = cpu_seconds(process.tree()), time.perf_counter()
        try:
            measured = Measurement(measure())
        except FAILED as failure:
            say(f"    FAILED: {row.name}: {failure}")
            measured = Measurement(float("nan"), faults=[str(failure)])
        used = cpu_seconds(process.tree()) - before
        measured.detail.update(cpu_seconds=used, seconds=time.perf_counter() - started)
        if not measured.faults:
            say(f"    {row.name}: {report.number(measured.value, row.unit)}, {used:.2f} s of the processor")
        self.results.add(self.store, row, name, measured)

    def _start(self, name: str) -> ServerProcess:
        peer, folder, port = BY_NAME[name], self.folder / name, free_port()
        folder.mkdir(parents=True)
        if name == "bare":
            app = ["bench.bare_artifacts:app", "--app-dir", str(REPOSITORY), "--port", str(port)]
            options = ["--http", "httptools", "--loop", "uvloop", "--ws", "none", "--no-access-log"]
            return ServerProcess(
                [str(peer.folder / "bin" / "python"), "-m", "uvicorn", *app, *options], port, folder, {}
            )
        if self.store == "local":
            self._make_folder(folder / "artifacts" / "many")
        destination = str(folder / "artifacts") if self.store == "local" else f"s3://{BUCKET}/artifacts"
        assert peer.command is not None
        database = Database("sqlite", f"sqlite:///{folder}/mlflow.db")
        command = peer.command(Launch(peer.folder / "bin", port, database))
        return ServerProcess([*command, "--artifacts-destination", destination], port, folder, self.variables)

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for number in range(LISTED):
            (folder / f"artifact-{number:05}.txt").write_bytes(b"1")

    def _start_s3(self, stack: ExitStack) -> None:
        import boto3

        port = free_port()
        program = str(REPOSITORY / ".venv" / "bin" / "moto_server")
        server = ServerProcess([program, "--host", "127.0.0.1", "--port", str(port)], port, self.folder / "moto", {})
        stack.callback(server.stop)
        server.wait_ready("/moto-api/")
        self.variables = {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=self.variables["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        for number in range(LISTED):
            client.put_object(Bucket=BUCKET, Key=f"artifacts/many/artifact-{number:05}.txt", Body=b"1")


def usual(transfer: Callable[[], float]) -> float:
    """The median of TRANSFERS: one to moto varies by a quarter."""
    return statistics.median(transfer() for _ in range(TRANSFERS))


def write_table() -> int:
    """Put the table of the last whole run into docs/benchmarks.md, between its markers."""
    block = artifacts_report.as_markdown(json.loads(RESULTS.read_text()))
    print(block)
    try:
        PAGE.write_text(report.replace_block(PAGE.read_text(), block, "bench-artifacts"))
    except ValueError as error:
        say(f"docs/benchmarks.md was not changed: {error}")
        return 1
    return 0
